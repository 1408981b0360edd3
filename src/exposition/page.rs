//! Everything that one page shows.

use std::{sync::Arc, time::Duration};

use crate::{
    model::{
        error::{Error, Kind},
        snapshot::Snapshot,
    },
    process::Process,
};

/// A page: a pure function of it is the text.
#[derive(Debug)]
pub struct Page {
    /// What the collection found, or why it found nothing.
    pub outcome: Arc<Result<Snapshot, Error>>,
    /// How long the collection took; for a request that could not wait for its end, how long it waited.
    pub duration: Duration,
    /// Collections begun since the start.
    pub collections: u64,
    /// Requests whose client left before the page was there, since the start.
    pub abandoned: u64,
    /// Errors since the start, in the order of [`Kind::ALL`].
    pub errors: [u64; Kind::ALL.len()],
    /// Our own process.
    pub process: Process,
}
