//! A snapshot as metrics text. Nothing outside this folder knows prometheus-client.

pub mod format;
pub mod metrics;
pub mod page;
mod rows;
