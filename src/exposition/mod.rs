//! A snapshot as metrics text.

pub mod format;
pub mod metrics;
pub mod page;
mod rows;
mod text;
