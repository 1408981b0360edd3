//! Plain data and the arithmetic on it: no I/O, no clock, and nothing but the standard library and `shlex`.

pub mod backlog;
pub mod by_name;
pub mod error;
pub mod findings;
pub mod snapshot;
pub mod text;
