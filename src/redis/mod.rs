//! Redis: where it is, the commands that are sent, and what their replies say. Nothing outside this folder knows the
//! redis crate.

pub mod collect;
pub mod commands;
pub mod connection;
pub mod endpoint;
mod errors;
pub mod replies;
