//! One collection at a time, shared by everybody who asks while it is under way.
//!
//! Owns the deadlines, what counts as up, the counters about ourselves, and the log line when a state changes. Nothing
//! is kept between two collections but those counters and that state.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{Shared, WeakShared},
};
use tokio::time::timeout;

use crate::{
    exposition::tables::Page,
    model::error::{Error, Kind},
    model::snapshot::Snapshot,
    process::Process,
    redis::collect::Source,
};

/// What a collection came to, and how long it took.
#[derive(Clone, Debug)]
struct Collected {
    outcome: Arc<Result<Snapshot, Error>>,
    duration: Duration,
}

type Collection = Pin<Box<dyn Future<Output = Collected> + Send>>;

/// Collects when it is asked to.
#[derive(Debug)]
pub struct Exporter {
    source: Source,
    timeout: Duration,
    /// Weak, so that a collection ends when nobody waits for it any more.
    under_way: Mutex<Option<WeakShared<Collection>>>,
    collections: AtomicU64,
    errors: [AtomicU64; Kind::ALL.len()],
    health: Mutex<Health>,
}

impl Exporter {
    /// An exporter whose collections take at most `timeout`.
    #[must_use]
    pub fn new(source: Source, timeout: Duration) -> Self {
        Self {
            source,
            timeout,
            under_way: Mutex::default(),
            collections: AtomicU64::new(0),
            errors: Default::default(),
            health: Mutex::default(),
        }
    }

    /// A page with values read after this call, or by a collection that was under way already. Takes at most `patience`
    /// and at most the exporter's own timeout; after that the page says that Redis is down.
    pub async fn page(self: &Arc<Self>, patience: Option<Duration>) -> Page {
        let Collected { outcome, duration } = match patience.filter(|patience| *patience < self.timeout) {
            Some(patience) => self.wait(patience).await,
            // The collection's own deadline comes first.
            None => self.join().await,
        };
        Page {
            outcome,
            duration,
            collections: self.collections.load(Ordering::Relaxed),
            errors: self.errors.each_ref().map(|count| count.load(Ordering::Relaxed)),
            process: Process::look(),
        }
    }

    /// Waits for the collection, but no longer than this.
    async fn wait(self: &Arc<Self>, patience: Duration) -> Collected {
        let began = Instant::now();
        if let Ok(collected) = timeout(patience, self.join()).await {
            return collected;
        }
        let error = self.too_slow(patience);
        // Somebody with more patience may still get an answer, and the log hears of that one. If nobody waits, the
        // collection has ended just now, and has told.
        if lock(&self.under_way).as_ref().and_then(WeakShared::upgrade).is_some() {
            self.count(&error);
        }
        Collected { outcome: Arc::new(Err(error)), duration: began.elapsed() }
    }

    /// Joins the collection that is under way, or begins one.
    fn join(self: &Arc<Self>) -> Shared<Collection> {
        let mut under_way = lock(&self.under_way);
        // One that has ended may still be held by somebody who has not looked yet. It is not for us.
        if let Some(collection) = under_way.as_ref().and_then(WeakShared::upgrade)
            && collection.peek().is_none()
        {
            return collection;
        }
        self.collections.fetch_add(1, Ordering::Relaxed);
        let collection = Arc::clone(self).collect().boxed().shared();
        *under_way = collection.downgrade();
        collection
    }

    async fn collect(self: Arc<Self>) -> Collected {
        let began = Instant::now();
        let mut unfinished = Unfinished(Some(Arc::clone(&self)));
        let outcome = match timeout(self.timeout, self.source.collect()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.too_slow(self.timeout)),
        };
        unfinished.0 = None;
        self.tell(&outcome);
        let duration = began.elapsed();
        tracing::debug!(?duration, up = outcome.is_ok(), "collected");
        Collected { outcome: Arc::new(outcome), duration }
    }

    fn too_slow(&self, patience: Duration) -> Error {
        let endpoint = self.source.endpoint();
        Error::new(Kind::Timeout, format!("no complete answer from {endpoint} within {patience:?}"))
    }

    /// Counts what went wrong, and says so if it is news.
    fn tell(&self, outcome: &Result<Snapshot, Error>) {
        match outcome {
            Ok(snapshot) => snapshot.failures().for_each(|(_, error)| self.count(error)),
            Err(error) => self.count(error),
        }
        lock(&self.health).tell(outcome);
    }

    fn count(&self, error: &Error) {
        let index = Kind::ALL.iter().position(|kind| *kind == error.kind());
        if let Some(count) = index.and_then(|index| self.errors.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A collection under way. If it is dropped because nobody waits for it any more, that is told like any other failure:
/// a scraper that breaks off would leave no trace otherwise.
struct Unfinished(Option<Arc<Exporter>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(exporter) = self.0.take() {
            let endpoint = exporter.source.endpoint();
            let message = format!("no complete answer from {endpoint} before the last scraper gave up");
            exporter.tell(&Err(Error::new(Kind::Timeout, message)));
        }
    }
}

/// A lock that outlives a panic elsewhere: what it guards is never half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the log was told last, so that it is told only what is news.
#[derive(Debug, Default, PartialEq)]
enum Health {
    /// Nothing yet.
    #[default]
    Unknown,
    /// Redis cannot be asked, for this kind of reason.
    Down(Kind),
    /// Redis answers; these questions fail.
    Up(Vec<String>),
}

impl Health {
    fn tell(&mut self, outcome: &Result<Snapshot, Error>) {
        let now = Self::of(outcome);
        if now == *self {
            return;
        }
        match (&now, outcome) {
            (Self::Up(failing), _) => {
                if !matches!(self, Self::Up(_)) {
                    tracing::info!("Redis answers");
                }
                match failing.first() {
                    Some(first) => tracing::warn!(failing = failing.len(), first, "some questions are not answered"),
                    None if matches!(self, Self::Up(_)) => tracing::info!("every question is answered again"),
                    None => {}
                }
            }
            (_, Err(error)) => tracing::error!(kind = %error.kind(), error = %error, "Redis cannot be asked"),
            _ => {}
        }
        *self = now;
    }

    fn of(outcome: &Result<Snapshot, Error>) -> Self {
        match outcome {
            Err(error) => Self::Down(error.kind()),
            Ok(snapshot) => Self::Up(
                snapshot
                    .failures()
                    .map(|(stream, error)| match stream {
                        Some(stream) => format!("stream {}: {error}", stream.shown()),
                        None => error.to_string(),
                    })
                    .collect(),
            ),
        }
    }
}
