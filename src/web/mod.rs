//! The HTTP server: connections, routes, TLS, basic authentication and their configuration file. Nothing outside this
//! folder knows hyper or rustls, and nothing in it knows Redis.

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

/// Locks a mutex even after a panic elsewhere: what these guard is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
