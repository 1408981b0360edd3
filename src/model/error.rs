//! What can go wrong between us and Redis, and the closed set of kinds that a metric may show.
//!
//! An error's text is for the log. Only its [`Kind`] becomes a label, so that the label's values never grow.

use std::fmt;

/// The kind of an error: the value of the label `kind` in `prompt_redis_exporter_collection_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Redis could not be reached, or it closed the connection.
    Connect,
    /// Redis wants a password, or refused the one it was given.
    Auth,
    /// Redis did not answer in time.
    Timeout,
    /// Redis is still reading its data from disk.
    Loading,
    /// The key holds something that is not a stream.
    WrongType,
    /// The user may not run this command, or not read this key.
    Permission,
    /// The reply has a shape that we don't know.
    Protocol,
    /// Any other error reply.
    Other,
}

impl Kind {
    /// Every kind, in the order of the page.
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::Auth,
        Self::Timeout,
        Self::Loading,
        Self::WrongType,
        Self::Permission,
        Self::Protocol,
        Self::Other,
    ];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Auth => "auth",
            Self::Timeout => "timeout",
            Self::Loading => "loading",
            Self::WrongType => "wrong_type",
            Self::Permission => "permission",
            Self::Protocol => "protocol",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What exactly went wrong, where that tells a person what to change. Where it is known, it is more than the kind says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Redis wants a login and was given none (`NOAUTH`).
    LoginMissing,
    /// Redis has no such user, or another password for it (`WRONGPASS`).
    LoginWrong,
    /// The user may not run this command (`NOPERM`), named as in a right: `time`, `xinfo|stream`.
    CommandForbidden(String),
    /// The user may not read the key (`NOPERM`).
    KeyForbidden,
    /// The other end replied to the TLS handshake with something that is no TLS.
    NoTls,
    /// The other end did not reply to the TLS handshake.
    HandshakeUnanswered,
    /// A connection that was made broke or was closed.
    ConnectionBroke,
}

/// An error with its kind and a sentence for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    cause: Option<Cause>,
    message: String,
    /// Redis as a whole could not be asked: other commands would fail too.
    about_the_server: bool,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// An error of this kind; `message` says which command it was and what was the reply, never a secret.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let about_the_server = matches!(kind, Kind::Connect | Kind::Auth | Kind::Timeout | Kind::Loading);
        Self { kind, cause: None, message: message.into(), about_the_server }
    }

    /// An error that concerns one stream alone, whatever its kind.
    pub(crate) fn of_one_stream(kind: Kind, message: impl Into<String>) -> Self {
        Self { about_the_server: false, ..Self::new(kind, message) }
    }

    /// A reply of a shape that we don't know; `expected` says which one would do.
    pub(crate) fn protocol(expected: impl fmt::Display) -> Self {
        Self::new(Kind::Protocol, format!("unexpected reply: expected {expected}"))
    }

    /// The same error, about Redis as a whole where `all` says so.
    #[must_use]
    pub(crate) const fn about_the_server_if(mut self, all: bool) -> Self {
        self.about_the_server |= all;
        self
    }

    /// The same error, with its cause.
    #[must_use]
    pub(crate) fn because(self, cause: impl Into<Option<Cause>>) -> Self {
        Self { cause: cause.into(), ..self }
    }

    /// What exactly went wrong, if it is one of the known causes.
    #[must_use]
    pub const fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// The part that may become a label.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The same error, of another kind.
    #[must_use]
    pub(crate) fn of_kind(self, kind: Kind) -> Self {
        Self { cause: self.cause, ..Self::new(kind, self.message) }
    }

    /// The same error, with what was being done put before it.
    #[must_use]
    pub(crate) fn context(self, doing: impl fmt::Display) -> Self {
        Self { message: format!("{doing}: {}", self.message), ..self }
    }

    /// True for a reply that says nothing about one stream but that Redis as a whole cannot be asked.
    #[must_use]
    pub(crate) const fn is_about_the_server(&self) -> bool {
        self.about_the_server
    }
}
