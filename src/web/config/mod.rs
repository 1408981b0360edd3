//! The web configuration: TLS, users and response headers, as the file asks for them.
//!
//! The format is that of Prometheus's exporter-toolkit. A field that is not supported is refused, never ignored.

mod build;
mod reload;
mod schema;

use hyper::header::{HeaderName, HeaderValue};

pub use self::reload::ReloadingConfig;
#[cfg(any(test, fuzzing))]
pub(super) use self::schema::read_any;

use crate::web::{basic_auth::Users, tls::Tls};

/// What the file asks for. Without a file: nothing.
#[derive(Debug, Default)]
pub struct WebConfig {
    /// `None` is plain HTTP.
    pub tls: Option<Tls>,
    /// `None` is no authentication.
    pub users: Option<Users>,
    /// Set on every response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl WebConfig {
    /// How many users there are.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.as_ref().map_or(0, Users::count)
    }

    /// Fails if this configuration lets in clients that `before` does not. A file that is still being written may look
    /// like one that asks for less.
    ///
    /// A lower `min_version` is allowed: it changes how clients connect, not which ones may, and every version that
    /// rustls has is safe.
    fn check_not_weaker(&self, before: &Self) -> Result<(), String> {
        let missing = |field| Err(format!("has no {field} any more: a restart is needed to serve without"));
        match (&before.tls, &self.tls) {
            (Some(_), None) => return missing("tls_server_config"),
            (Some(before), Some(now)) if now.client_auth() < before.client_auth() => {
                let change = format!("from {} to {}", before.client_auth().name(), now.client_auth().name());
                return Err(format!("changes client_auth_type {change}: a restart is needed to check clients less"));
            }
            _ => {}
        }
        if before.users.is_some() && self.users.is_none() { missing("basic_auth_users") } else { Ok(()) }
    }
}
