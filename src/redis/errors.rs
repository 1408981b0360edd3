//! Errors of the redis crate, and those that Redis answers, as kinds.

use redis::{ErrorKind, ServerErrorKind};

use crate::model::error::{Error, Kind};

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        let kind = match error.kind() {
            ErrorKind::Io if error.is_timeout() => Kind::Timeout,
            ErrorKind::Io
            | ErrorKind::Client
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::ClusterConnectionNotFound
            | ErrorKind::Server(ServerErrorKind::ClusterDown) => Kind::Connect,
            ErrorKind::AuthenticationFailed => Kind::Auth,
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Kind::Protocol,
            ErrorKind::Server(ServerErrorKind::BusyLoading) => Kind::Loading,
            ErrorKind::Server(ServerErrorKind::NoPerm) => Kind::Permission,
            _ => match error.code() {
                Some("NOAUTH" | "WRONGPASS") => Kind::Auth,
                Some("WRONGTYPE") => Kind::WrongType,
                _ => Kind::Other,
            },
        };
        let error_of_all = matches!(error.code(), Some("BUSY" | "MASTERDOWN"));
        Self::new(kind, error.to_string()).about_the_server_if(error_of_all)
    }
}

impl From<redis::ServerError> for Error {
    fn from(error: redis::ServerError) -> Self {
        redis::RedisError::from(error).into()
    }
}
