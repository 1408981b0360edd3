//! Errors of the redis crate, and those that Redis answers, as kinds.

use redis::{ErrorKind, ServerError, ServerErrorKind, Value};

use super::resp::Item;
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
                Some(UNREACHABLE) => return Self::of_one_stream(Kind::Connect, error.detail().unwrap_or_default()),
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

/// The code of a reply that stands for none, since a node of a Cluster could not be reached.
const UNREACHABLE: &str = "UNREACHABLE";

/// What stands for the reply of a node that could not be reached.
pub(super) fn unreachable(error: &Error) -> Value {
    let error = redis::make_extension_error(UNREACHABLE.to_owned(), Some(error.to_string()));
    ServerError::try_from(error).map_or(Value::Nil, Value::ServerError)
}

/// Did a server answer this?
pub(super) fn is_reply(item: &Item<'_>) -> bool {
    !matches!(item, Item::Error(error) if error.code() == UNREACHABLE)
}
