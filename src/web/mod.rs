//! The HTTP server, its routes, and the web configuration file with TLS and basic authentication. Nothing outside this
//! folder knows hyper or rustls.

pub mod basic_auth;
pub mod config_file;
pub mod server;
pub mod tls;
