//! The HTTP server: connections, routes, TLS, basic authentication and their configuration file. Nothing outside this
//! folder knows hyper, and nothing in it knows Redis.

pub mod basic_auth;
pub mod config;
mod connections;
mod negotiation;
mod page;
mod password_queue;
pub mod routes;
pub mod server;
mod stream;
pub mod tls;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Reads these bytes as a request's headers, one a line: `name: value`.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_headers(bytes: &[u8]) {
    use hyper::{
        HeaderMap,
        header::{self, HeaderName, HeaderValue},
    };

    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let value = value.strip_prefix(b":")?.trim_ascii();
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let mut headers = HeaderMap::new();
    headers.extend(bytes.split(|byte| *byte == b'\n').filter_map(header));
    let _ = (negotiation::time_limit(&headers), negotiation::format(&headers), negotiation::accepts_gzip(&headers));
    let _ = headers.get(header::AUTHORIZATION).map(|value| basic_auth::Login::from_header(value.as_bytes()).is_some());
}

/// Reads any text as the web configuration file.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_config(text: &str) {
    config::read_any(text);
}

/// Locks a mutex even after a panic elsewhere: what these guard is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
