//! One collection at a time, shared by all requests that wait for one.
//!
//! Owns the deadlines, what counts as up, the counters about the exporter itself, and what is logged ([`health`]). No
//! number of Redis's is kept between two collections.

mod health;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::timeout;

use self::health::Health;
use crate::{
    exposition::page::Page,
    model::{
        error::{Error, Kind},
        snapshot::Snapshot,
    },
    process::Process,
    redis::{collect::Collector, progress::Progress},
};

/// What a collection came to, and how long it took.
#[derive(Clone, Debug)]
struct Collected {
    outcome: Arc<Result<Snapshot, Error>>,
    duration: Duration,
}

/// A collection that is under way, or has just ended.
struct UnderWay {
    number: u64,
    began: Instant,
    collected: Shared<BoxFuture<'static, Collected>>,
    progress: Progress,
    /// Requests that wait for it. Without any it sends nothing more to Redis.
    waiting: usize,
}

/// Collects when it is asked to.
pub struct Exporter {
    collector: Collector,
    timeout: Duration,
    under_way: Mutex<Option<UnderWay>>,
    collections: AtomicU64,
    abandoned: AtomicU64,
    errors: [AtomicU64; Kind::ALL.len()],
    health: Mutex<Health>,
}

impl Exporter {
    /// An exporter whose collections take at most `timeout`.
    #[must_use]
    pub fn new(collector: Collector, timeout: Duration) -> Self {
        Self {
            collector,
            timeout,
            under_way: Mutex::default(),
            collections: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            errors: Default::default(),
            health: Mutex::default(),
        }
    }

    /// A page with values read after this call, or by a collection that was under way already. Takes at most
    /// `time_limit` and at most the exporter's own timeout; what is not known by then is absent.
    pub async fn page(self: &Arc<Self>, time_limit: Option<Duration>) -> Page {
        let request = Request::join(self);
        let Collected { outcome, duration } = match time_limit.filter(|limit| *limit < self.timeout) {
            Some(limit) => self.wait(&request, limit).await,
            // The collection's own deadline comes first.
            None => request.collected.clone().await,
        };
        request.answered();
        Page {
            outcome,
            duration,
            collections: self.collections.load(Ordering::Relaxed),
            abandoned: self.abandoned.load(Ordering::Relaxed),
            errors: self.errors.each_ref().map(|count| count.load(Ordering::Relaxed)),
            process: Process::look(),
        }
    }

    /// Waits for the collection, but no longer than this. After that the page has what is known so far.
    async fn wait(&self, request: &Request, limit: Duration) -> Collected {
        let began = Instant::now();
        if let Ok(collected) = timeout(limit, request.collected.clone()).await {
            return collected;
        }
        let error = self.too_slow(limit);
        self.count(&error);
        let outcome = request.progress.partial(error.clone()).ok_or(error);
        Collected { outcome: Arc::new(outcome), duration: began.elapsed() }
    }

    fn too_slow(&self, limit: Duration) -> Error {
        let endpoint = self.collector.endpoint();
        Error::new(Kind::Timeout, format!("no complete reply from {endpoint} within {limit:?}"))
    }

    async fn collect(self: Arc<Self>, number: u64, progress: Progress) -> Collected {
        let began = Instant::now();
        let is_wanted = || self.is_wanted(number);
        let outcome = self.collector.collect(self.timeout, &progress, &is_wanted).await;
        let duration = began.elapsed();
        if is_wanted() {
            self.record(&outcome);
        }
        tracing::debug!(
            ?duration,
            up = outcome.is_ok(),
            error = outcome.as_ref().err().map(ToString::to_string),
            "collected"
        );
        Collected { outcome: Arc::new(outcome), duration }
    }

    /// Does any request wait for this collection? One for which none does is given up: the next request begins another.
    fn is_wanted(&self, number: u64) -> bool {
        let mut under_way = lock(&self.under_way);
        match under_way.as_ref().filter(|under_way| under_way.number == number) {
            Some(under_way) if under_way.waiting > 0 => true,
            Some(_) => {
                *under_way = None;
                false
            }
            None => false,
        }
    }

    /// Counts what went wrong, and logs what has changed.
    fn record(&self, outcome: &Result<Snapshot, Error>) {
        match outcome {
            Ok(snapshot) => snapshot.failures().for_each(|(_, error)| self.count(error)),
            Err(error) => self.count(error),
        }
        lock(&self.health).record(outcome, Instant::now());
    }

    fn count(&self, error: &Error) {
        let index = Kind::ALL.iter().position(|kind| *kind == error.kind());
        if let Some(count) = index.and_then(|index| self.errors.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A request that waits for a collection. Dropping it before it is answered means that its client left.
struct Request {
    exporter: Arc<Exporter>,
    number: u64,
    collected: Shared<BoxFuture<'static, Collected>>,
    progress: Progress,
    is_answered: bool,
}

impl Request {
    /// Joins the collection that is under way, or begins one.
    fn join(exporter: &Arc<Exporter>) -> Self {
        let mut slot = lock(&exporter.under_way);
        let under_way = match slot.take().filter(|under_way| under_way.collected.peek().is_none()) {
            Some(under_way) => slot.insert(under_way),
            None => slot.insert(UnderWay::begin(exporter)),
        };
        under_way.waiting += 1;
        Self {
            exporter: Arc::clone(exporter),
            number: under_way.number,
            collected: under_way.collected.clone(),
            progress: under_way.progress.clone(),
            is_answered: false,
        }
    }

    fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut slot = lock(&self.exporter.under_way);
        if let Some(under_way) = slot.as_mut().filter(|under_way| under_way.number == self.number) {
            under_way.waiting -= 1;
            if !self.is_answered {
                tracing::debug!(after = ?under_way.began.elapsed(), "a client left before its page was there");
            }
        }
        if !self.is_answered {
            self.exporter.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl UnderWay {
    /// The collection is a task of its own: a client that leaves does not break off what Redis is just answering.
    fn begin(exporter: &Arc<Exporter>) -> Self {
        let number = exporter.collections.fetch_add(1, Ordering::Relaxed) + 1;
        let (began, progress) = (Instant::now(), Progress::default());
        let task = tokio::spawn(Arc::clone(exporter).collect(number, progress.clone()));
        let collected = task.map(move |ended| {
            ended.unwrap_or_else(|_| Collected {
                outcome: Arc::new(Err(Error::new(Kind::Other, "the collection ended in a panic"))),
                duration: began.elapsed(),
            })
        });
        Self { number, began, collected: collected.boxed().shared(), progress, waiting: 0 }
    }
}

/// A lock that outlives a panic elsewhere: what it guards is never half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
