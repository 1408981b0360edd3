//! Errors of the redis crate, and those that Redis answers, as kinds and causes.

use redis::{ErrorKind, ServerError, ServerErrorKind, Value};

use super::resp::{Item, Replies};
use crate::model::error::{Cause, Error, Kind};

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        let kind = match error.kind() {
            ErrorKind::Io if error.is_timeout() => Kind::Timeout,
            ErrorKind::Io | ErrorKind::Client | ErrorKind::Server(ServerErrorKind::ClusterDown) => Kind::Connect,
            ErrorKind::AuthenticationFailed => Kind::Auth,
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Kind::Protocol,
            ErrorKind::Server(ServerErrorKind::BusyLoading) => Kind::Loading,
            ErrorKind::Server(ServerErrorKind::NoPerm) => Kind::Permission,
            _ => match error.code() {
                Some("NOAUTH" | "WRONGPASS") => Kind::Auth,
                Some("WRONGTYPE") => Kind::WrongType,
                _ if refused_in_script(error.detail().unwrap_or_default()) => Kind::Permission,
                Some(UNREACHABLE | BROKEN) => {
                    let broke = (error.code() == Some(BROKEN)).then_some(Cause::ConnectionBroke);
                    return Self::of_one_stream(Kind::Connect, error.detail().unwrap_or_default()).because(broke);
                }
                _ => Kind::Other,
            },
        };
        let error_of_all = matches!(error.code(), Some("BUSY" | "MASTERDOWN"));
        Self::new(kind, error.to_string()).about_the_server_if(error_of_all).because(cause(&error))
    }
}

fn cause(error: &redis::RedisError) -> Option<Cause> {
    let detail = error.detail().unwrap_or_default();
    match error.code() {
        Some("NOAUTH") => Some(Cause::LoginMissing),
        Some("WRONGPASS") => Some(Cause::LoginWrong),
        Some("NOPERM") => forbidden(detail),
        _ if refused_in_script(detail) => forbidden(detail),
        _ => None,
    }
}

/// What a refusal is about. Redis says `... no permissions to run the 'xinfo|stream' command`, or `... to access a key`,
/// which 6.2 calls `one of the keys used as arguments`.
fn forbidden(detail: &str) -> Option<Cause> {
    if detail.contains("access a key") || detail.contains("access one of the keys") {
        return Some(Cause::KeyForbidden);
    }
    let (_, rest) = detail.split_once("run the '")?;
    let (command, _) = rest.split_once('\'')?;
    let is_command = |char: char| char.is_ascii_alphanumeric() || matches!(char, '|' | '_' | '-' | '.');
    (!command.is_empty() && command.chars().all(is_command)).then(|| Cause::CommandForbidden(command.to_lowercase()))
}

impl From<redis::ServerError> for Error {
    fn from(error: redis::ServerError) -> Self {
        redis::RedisError::from(error).into()
    }
}

/// The user may run the script, and not a command in it. Redis 6.2 and 7.0 do not say which.
fn refused_in_script(detail: &str) -> bool {
    ["ACL failure in script", "executing the script can't run this command"].iter().any(|words| detail.contains(words))
}

/// The user may not run scripts or a command in them, or the server has none: true for every stream, not only for this one.
pub(super) fn refuses_scripts(error: &Error) -> bool {
    let unknown = ["unknown command", "unknown redis command"];
    error.kind() == Kind::Permission || unknown.iter().any(|words| error.to_string().to_lowercase().contains(words))
}

/// The code of a reply that stands for none, since a node of a Cluster could not be reached.
const UNREACHABLE: &str = "UNREACHABLE";
/// The same, where the connection to the node broke, maybe on this reply.
const BROKEN: &str = "BROKEN";

/// What stands for the reply of a node that could not be reached.
pub(super) fn unreachable(error: &Error) -> Replies {
    let broke = error.kind() == Kind::Protocol || error.cause() == Some(&Cause::ConnectionBroke);
    let code = if broke { BROKEN } else { UNREACHABLE };
    let error = redis::make_extension_error(code.to_owned(), Some(error.to_string()));
    let mut replies = Replies::default();
    replies.push_value(&ServerError::try_from(error).map_or(Value::Nil, Value::ServerError), false);
    replies
}

/// Did a server answer this?
pub(super) fn is_reply(item: &Item<'_>) -> bool {
    !matches!(item, Item::Error(error) if [UNREACHABLE, BROKEN].contains(&error.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause_of(code: &str, detail: &str) -> Option<Cause> {
        let error: Error = redis::make_extension_error(code.to_owned(), Some(detail.to_owned())).into();
        error.cause().cloned()
    }

    #[test]
    fn a_refusal_names_the_command_or_the_key() {
        let command = |name: &str| Some(Cause::CommandForbidden(name.to_owned()));
        for (detail, cause) in [
            ("User exporter has no permissions to run the 'xinfo|stream' command", command("xinfo|stream")),
            ("this user has no permissions to run the 'xinfo' command or its subcommand", command("xinfo")),
            ("this user has no permissions to run the 'EVAL_RO' command", command("eval_ro")),
            ("No permissions to access a key", Some(Cause::KeyForbidden)),
            ("this user has no permissions to access one of the keys used as arguments", Some(Cause::KeyForbidden)),
            ("User a has no permissions to run the '; rm -rf ~' command", None),
            ("of another wording", None),
        ] {
            assert_eq!(cause_of("NOPERM", detail), cause, "{detail}");
        }
    }

    #[test]
    fn a_command_that_is_forbidden_in_a_script_is_a_missing_right() {
        for (detail, cause) in [
            (
                "ACL failure in script: User exporter has no permissions to run the 'xrevrange' command",
                Some("xrevrange"),
            ),
            ("The user executing the script can't run this command or subcommand script: 023e", None),
        ] {
            let error: Error = redis::make_extension_error("ERR".to_owned(), Some(detail.to_owned())).into();
            let expected = cause.map(|command| Cause::CommandForbidden(command.to_owned()));
            assert_eq!((error.kind(), error.cause()), (Kind::Permission, expected.as_ref()), "{detail}");
            assert!(refuses_scripts(&error));
        }
    }

    #[test]
    fn a_login_that_is_missing_is_told_from_one_that_is_wrong() {
        assert_eq!(cause_of("NOAUTH", "Authentication required."), Some(Cause::LoginMissing));
        assert_eq!(cause_of("WRONGPASS", "invalid username-password pair"), Some(Cause::LoginWrong));
        assert_eq!(cause_of("ERR", "something else"), None);
    }
}
