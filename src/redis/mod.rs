//! Redis: where it is, the commands that are sent, what their replies say, and what one collection does with them.
//! Nothing outside this folder knows the redis crate.
//!
//! ```text
//! collect -> discovery, streams, groups -> connection, commands, replies
//!        \-> progress -> Snapshot
//! ```

pub mod collect;
mod commands;
mod connect;
mod connection;
mod discovery;
pub mod endpoint;
mod errors;
mod groups;
pub mod progress;
mod replies;
mod resp;
mod streams;
mod tls;
mod wire;
