//! Plain data and the arithmetic on it: no I/O, no clock, and nothing but the standard library.

pub mod backlog;
pub mod error;
pub mod snapshot;
