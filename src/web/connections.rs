//! The limit on connections, and which client is disconnected when it is reached.
//!
//! Clients that only hold a connection must not keep a scraper out. So a new client always gets a slot: the client that
//! has waited longest without a complete request is disconnected for it. A client whose request is being answered is
//! never disconnected. There is no limit for one address, because many scrapers may share one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::web::lock;

/// The most connections at a time.
const SLOTS: usize = 512;
/// A request head must be complete this long after its first byte; the first one, with the TLS handshake before it, this
/// long after the client connected.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection may be kept this long between two requests: two of the longest usual scrape intervals.
const IDLE_TIMEOUT: Duration = Duration::from_secs(125);
/// A client is not disconnected for another one before it has waited this long: time for a TLS handshake and a request
/// over a slow network, even while others connect as fast as they can.
const GRACE: Duration = Duration::from_millis(100);
/// A client that has taken none of its response for this long may be disconnected for another one.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// How soon to look again for a client to disconnect, when there was none.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// The log says once that slots ran short, and again only after this long without a disconnected client.
const QUIET: Duration = Duration::from_secs(60);

/// All open connections.
pub(super) struct Connections {
    permits: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    activities: BTreeMap<u64, Arc<Activity>>,
    /// When a client was last disconnected for another one.
    last_disconnect: Option<Instant>,
}

impl Connections {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(SLOTS)), open: Mutex::default() })
    }

    /// A slot for a new client. Disconnects another one if all slots are taken.
    ///
    /// Waits if every client is being answered or has only just connected. `None` never happens: the semaphore is not
    /// closed.
    pub(super) async fn slot(self: &Arc<Self>) -> Option<Slot> {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                break permit;
            }
            self.disconnect_one();
            if let Ok(permit) = timeout(LOOK_AGAIN_AFTER, Arc::clone(&self.permits).acquire_owned()).await {
                break permit.ok()?;
            }
        };
        let activity = Arc::new(Activity::new());
        let mut open = lock(&self.open);
        let id = open.next_id;
        open.next_id += 1;
        open.activities.insert(id, Arc::clone(&activity));
        Some(Slot { connections: Arc::clone(self), id, activity, _permit: permit })
    }

    /// Disconnects the client that has waited longest. False if there is none that may be disconnected.
    pub(super) fn disconnect_one(&self) -> bool {
        let (mut open, now) = (lock(&self.open), Instant::now());
        let waiting =
            open.activities.values().filter_map(|activity| Some((activity.disconnectable_since(now)?, activity)));
        let Some((_, longest)) = waiting.min_by_key(|(since, _)| *since) else { return false };
        longest.disconnect();
        let before = open.last_disconnect.replace(now);
        if before.is_none_or(|before| now - before > QUIET) {
            tracing::warn!(
                slots = SLOTS,
                "connection slots or file descriptors ran short: disconnecting clients that wait without a request"
            );
        }
        true
    }
}

/// A client's slot. Dropped, it is free for another one.
pub(super) struct Slot {
    connections: Arc<Connections>,
    id: u64,
    pub(super) activity: Arc<Activity>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.connections.open).activities.remove(&self.id);
    }
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// It has no complete request: it is silent, or shakes hands, or sends a head.
    Waiting,
    /// Its request is being answered.
    Answering,
    /// The response is being sent.
    Sending,
}

/// What a client is doing, and since when.
pub(super) struct Activity {
    state: Mutex<State>,
    disconnect: Notify,
}

struct State {
    phase: Phase,
    /// When the phase began; when [`Phase::Sending`], the last time the client took some bytes.
    since: Instant,
    /// Whether a request was answered before.
    kept: bool,
    /// When the first byte of an unfinished request head came.
    head_began: Option<Instant>,
    /// The last bytes received. An empty line ends a head.
    tail: [u8; 4],
    disconnecting: bool,
}

impl Activity {
    fn new() -> Self {
        let state = State {
            phase: Phase::Waiting,
            since: Instant::now(),
            kept: false,
            head_began: None,
            tail: [0; 4],
            disconnecting: false,
        };
        Self { state: Mutex::new(state), disconnect: Notify::new() }
    }

    pub(super) fn bytes_received(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        for byte in bytes.iter().skip(bytes.len().saturating_sub(4)) {
            state.tail.rotate_left(1);
            state.tail[3] = *byte;
        }
        state.head_began = if state.tail == *b"\r\n\r\n" { None } else { state.head_began.or(Some(Instant::now())) };
    }

    pub(super) fn request_received(&self) {
        lock(&self.state).enter(Phase::Answering);
    }

    pub(super) fn response_ready(&self) {
        lock(&self.state).enter(Phase::Sending);
    }

    pub(super) fn bytes_sent(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Sending {
            state.since = Instant::now();
        }
    }

    /// Everything that was written has left.
    pub(super) fn flushed(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Sending {
            state.enter(Phase::Waiting);
            state.kept = true;
            // What came behind the request is the beginning of the next head. Its time runs from now on.
            state.head_began = state.head_began.map(|_| state.since);
        }
    }

    /// Whether the connection may be closed at once: there is no request to answer, or the client does not take its
    /// response.
    pub(super) fn is_idle(&self) -> bool {
        let state = lock(&self.state);
        match state.phase {
            Phase::Waiting => true,
            Phase::Answering => false,
            Phase::Sending => state.since.elapsed() >= STALLED_AFTER,
        }
    }

    /// When to disconnect the client if it goes on like this. `None` while it is being answered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = lock(&self.state);
        match (state.phase, state.kept, state.head_began) {
            (Phase::Waiting, false, _) => Some(state.since + HEAD_TIMEOUT),
            (Phase::Waiting, true, None) => Some(state.since + IDLE_TIMEOUT),
            (Phase::Waiting, true, Some(began)) => Some((began + HEAD_TIMEOUT).min(state.since + IDLE_TIMEOUT)),
            (Phase::Answering | Phase::Sending, ..) => None,
        }
    }

    /// Since when this client could be disconnected for another one, if it may be.
    fn disconnectable_since(&self, now: Instant) -> Option<Instant> {
        let state = lock(&self.state);
        let at_least = match state.phase {
            Phase::Waiting => GRACE,
            Phase::Sending => STALLED_AFTER,
            Phase::Answering => return None,
        };
        (!state.disconnecting && now.saturating_duration_since(state.since) >= at_least).then_some(state.since)
    }

    fn disconnect(&self) {
        lock(&self.state).disconnecting = true;
        self.disconnect.notify_one();
    }

    /// Waits until the client has to make room for another one.
    pub(super) async fn disconnected(&self) {
        self.disconnect.notified().await;
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    /// A client that has been answered once.
    fn kept(received: &[u8]) -> Activity {
        let activity = Activity::new();
        activity.bytes_received(received);
        activity.request_received();
        activity.response_ready();
        activity.bytes_sent();
        activity.flushed();
        activity
    }

    fn disconnectable(activity: &Activity) -> Option<Instant> {
        activity.disconnectable_since(Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_head_has_ten_seconds_however_it_comes() {
        let activity = Activity::new();
        let deadline = activity.deadline();
        assert_eq!(deadline, Some(Instant::now() + HEAD_TIMEOUT));
        for byte in &HEAD[..10] {
            advance(Duration::from_millis(500)).await;
            activity.bytes_received(&[*byte]);
        }
        assert_eq!(activity.deadline(), deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_may_be_idle_but_not_slow() {
        let activity = kept(HEAD);
        let began = Instant::now();
        assert_eq!(activity.deadline(), Some(began + IDLE_TIMEOUT));
        advance(Duration::from_secs(5)).await;
        activity.bytes_received(b"G");
        advance(Duration::from_secs(5)).await;
        activity.bytes_received(b"E");
        assert_eq!(activity.deadline(), Some(began + Duration::from_secs(5) + HEAD_TIMEOUT));
        // Empty lines before a request do not extend the time.
        activity.bytes_received(b"\r\n\r\n");
        assert_eq!(activity.deadline(), Some(began + IDLE_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn the_beginning_of_a_second_head_behind_the_first_is_noticed() {
        let activity = kept(&[HEAD, b"GET"].concat());
        assert_eq!(activity.deadline(), Some(Instant::now() + HEAD_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_answered_is_not_disconnected_and_a_stalled_one_is() {
        let activity = Activity::new();
        assert_eq!(disconnectable(&activity), None, "it has only just connected");
        activity.request_received();
        advance(Duration::from_secs(1000)).await;
        assert_eq!((disconnectable(&activity), activity.deadline()), (None, None));
        activity.response_ready();
        advance(STALLED_AFTER / 2).await;
        activity.bytes_sent();
        advance(STALLED_AFTER / 2).await;
        assert_eq!((disconnectable(&activity), activity.is_idle()), (None, false), "it takes its response");
        advance(STALLED_AFTER / 2).await;
        assert!(disconnectable(&activity).is_some() && activity.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_that_has_waited_longest_is_disconnected_first_and_once() {
        let connections = Connections::new();
        let mut slots = Vec::new();
        for _ in 0..4 {
            slots.push(connections.slot().await.unwrap());
            advance(GRACE).await;
        }
        slots[0].activity.request_received();
        for expected in [Some(1), Some(2), Some(3), None] {
            connections.disconnect_one();
            let disconnecting = |slot: &Slot| lock(&slot.activity.state).disconnecting;
            let last = slots.iter().rposition(disconnecting);
            assert_eq!(last, expected.or(Some(3)));
            assert!(!disconnecting(&slots[0]), "its request is being answered");
        }
        drop(slots);
        assert!(lock(&connections.open).activities.is_empty());
    }
}
