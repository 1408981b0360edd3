//! One collection: what is sent to Redis, in what order, and what becomes of it where Redis does not answer.
//!
//! 1. `TIME`, and `INFO` if wanted; `HELLO` once a connection.
//! 2. `XINFO STREAM` and `XINFO GROUPS` of every stream that is named or was found before ([`super::streams`]); at the
//!    same time the look-up of patterns goes on ([`super::discovery`]), and what it finds new is asked too.
//! 3. What is pending, and what waits in the middle of a stream ([`super::groups`]).
//!
//! Everything goes into the [`Progress`], which is a snapshot at any moment: a deadline costs only what was not reached.

use std::{
    collections::{BTreeSet, btree_map::Entry},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, task::AbortHandle};

use super::{
    commands, connect,
    connection::Connection,
    discovery::Discovery,
    endpoint::Endpoint,
    errors,
    groups::{Groups, Scripts, Turns},
    progress::{KnownStream, Progress, State},
    replies::{self, Reply},
    streams::{self, Sizes},
};
use crate::{
    config::{self, Collect, Selection},
    model::{
        backlog::LagTrust,
        error::{Cause, Error, Kind},
        snapshot::{Name, Snapshot},
    },
};

/// How long a page waits for the look-up of patterns.
const LOOK_UP_BEFORE_PAGE: Duration = Duration::from_millis(50);
/// How long a look-up that has not come to its end goes on behind the page, and how much of that time it works.
const LOOK_UP_AFTER_PAGE: Duration = Duration::from_secs(4);
const LOOK_UP_SLICE: Duration = Duration::from_millis(10);

/// Connections that a collection may make.
const CONNECTS: usize = 3;

/// Why a collection ends early.
pub(super) enum Stop {
    /// Redis as a whole refuses: it is loading, busy with a script, or wants a password.
    Refused(Error),
    /// There is no connection, or it broke.
    Lost(Error),
}

impl Stop {
    /// What a reply says; where there is none, the reason is noted, or ends the collection if it concerns all of Redis.
    pub(super) fn note<T>(
        reply: Reply<T>,
        command: impl fmt::Display,
        failures: &mut Vec<Error>,
    ) -> Result<Option<T>, Self> {
        match reply {
            Reply::Done(fact) => Ok(Some(fact)),
            Reply::Gone => Ok(None),
            Reply::Failed(error) if error.is_about_the_server() => Err(Self::Refused(error)),
            Reply::Failed(error) => {
                failures.push(error.context(command));
                Ok(None)
            }
        }
    }
}

/// Collects from one Redis, one collection at a time.
pub struct Collector {
    endpoint: Arc<Endpoint>,
    selection: Selection,
    options: Collect,
    kept: Arc<Mutex<Kept>>,
}

/// What is kept from one collection to the next. None of it is shown on a page.
struct Kept {
    connection: Option<Connection>,
    trust: LagTrust,
    sizes: Sizes,
    discovery: Discovery,
    /// The look-up that goes on behind the last page.
    look_up: Option<AbortHandle>,
    turns: Turns,
    scripts: Scripts,
}

impl Collector {
    /// Connects to nothing yet: Redis may start later.
    #[must_use]
    pub fn new(endpoint: Endpoint, selection: Selection, options: Collect) -> Self {
        let kept = Kept {
            connection: None,
            trust: LagTrust::Never,
            sizes: Sizes::default(),
            discovery: Discovery::new(&selection.patterns),
            look_up: None,
            turns: Turns::default(),
            scripts: Scripts::default(),
        };
        Self { endpoint: Arc::new(endpoint), selection, options, kept: Arc::new(Mutex::new(kept)) }
    }

    /// Where Redis is, without secrets.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Collects once. Ends after this time with what is known then, and early when it is no longer wanted.
    ///
    /// # Errors
    /// When Redis did not answer at all, or refuses as a whole. What goes wrong with one stream is a fact about that
    /// stream.
    pub async fn collect(
        &self,
        limit: Duration,
        progress: &Progress,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Snapshot, Error> {
        let ended = tokio::time::timeout(limit, self.run(limit, progress, is_wanted)).await;
        match ended {
            Ok(Ok(())) if progress.lock().answered || !is_wanted() => Ok(progress.complete()),
            Ok(Ok(())) => Err(Error::new(Kind::Connect, format!("no node of {} can be reached", self.endpoint))),
            Ok(Err(Stop::Refused(error))) => Err(error),
            Ok(Err(Stop::Lost(error))) => progress.partial(error.clone()).ok_or(error),
            Err(_) => {
                let message = format!("no complete reply from {} within {limit:?}", self.endpoint);
                let unanswered = progress.lock().in_handshake.then_some(Cause::HandshakeUnanswered);
                let error = Error::new(Kind::Timeout, message).because(unanswered);
                progress.partial(error.clone()).ok_or(error)
            }
        }
    }

    /// Repeats the commands over a new connection where the old one turns out to be broken. A restarted Redis, a changed
    /// password or a closed connection is noticed only then.
    async fn run(
        &self,
        limit: Duration,
        progress: &Progress,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Stop> {
        let mut kept = self.kept.lock().await;
        // It holds the lock while it asks, so it is not in the middle of a command now.
        if let Some(look_up) = kept.look_up.take() {
            look_up.abort();
        }
        let mut connects = 0;
        loop {
            let before = kept.connection.take();
            let connected = connect::connect(&self.endpoint, before, limit, progress).await;
            let (connection, is_new) = connected.map_err(Stop::Lost)?;
            connects += usize::from(is_new);
            match self.steps(&connection, is_new, &mut kept, progress, is_wanted).await {
                Ok(()) => {
                    kept.connection = Some(connection);
                    kept.look_up = self.finish_look_up(&kept);
                    return Ok(());
                }
                Err(Stop::Refused(error)) if error.kind() == Kind::Auth && !is_new => {}
                // A new connection that breaks is replaced too: the stream that it broke on is then asked in another way.
                Err(Stop::Lost(_)) if connects < CONNECTS => {}
                Err(Stop::Refused(error)) => {
                    // The connection works; what it says may change.
                    kept.connection = (error.kind() != Kind::Auth).then_some(connection);
                    return Err(Stop::Refused(error));
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    async fn steps(
        &self,
        connection: &Connection,
        is_new: bool,
        kept: &mut Kept,
        progress: &Progress,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Stop> {
        let began = Instant::now();
        // Those of a connection that broke are met again.
        progress.lock().failures.clear();
        let Kept { trust, sizes, discovery, turns, scripts, .. } = kept;
        let named = self.expect(discovery.known(), progress);
        let (server, streams, found) = tokio::join!(
            self.server(connection, is_new.then_some(&mut *trust), progress),
            streams::collect(connection, named, sizes, progress, is_wanted),
            discovery.advance(connection, began + LOOK_UP_BEFORE_PAGE, progress),
        );
        server.and(streams).and(found)?;
        progress.lock().trust = *trust;
        if discovery.has_new() {
            let new = self.expect(discovery.known(), progress);
            streams::collect(connection, new, sizes, progress, is_wanted).await?;
        }
        discovery.forget(&Self::gone(progress));
        progress.lock().patterns = discovery.matches();
        let mut groups = Groups { options: &self.options, sizes, turns, scripts, look_up_left: None };
        groups.collect(connection, progress, is_wanted).await?;
        let mut known = progress.lock();
        known.scripts_refused = scripts.refusal().cloned();
        sizes.keep(|key| known.streams.contains_key(key));
        Ok(())
    }

    /// Redis's clock and the server itself.
    async fn server(
        &self,
        connection: &Connection,
        trust: Option<&mut LagTrust>,
        progress: &Progress,
    ) -> Result<(), Stop> {
        // Of a Cluster, no one server can speak for all.
        let ask_server = self.options.server && !self.endpoint.is_cluster();
        let info: Vec<_> = ask_server.then(commands::info).into_iter().collect();
        let time = [commands::time()];
        let (time, info, lag_trust) = tokio::join!(connection.send(&time), connection.send(&info), async {
            match trust {
                Some(trust) => connection.lag_trust().await.map(|found| *trust = found),
                None => Ok(()),
            }
        });
        let (time, info) = (time.map_err(Stop::Lost)?, info.map_err(Stop::Lost)?);
        lag_trust.map_err(Stop::Lost)?;
        let mut known = progress.lock();
        known.answered |= time.items().chain(info.items()).any(|reply| errors::is_reply(&reply));
        known.clock = Stop::note(Reply::read(time.only(), replies::clock), "TIME", &mut known.failures)?;
        if let Some(reply) = info.items().next() {
            known.server = Stop::note(Reply::read(reply, replies::server), "INFO", &mut known.failures)?;
        }
        Ok(())
    }

    /// Notes which streams are asked, and gives those of which nothing is known yet: the named ones first.
    fn expect<'a>(
        &self,
        found: impl Iterator<Item = (&'a Name, &'a config::Groups)>,
        progress: &Progress,
    ) -> Vec<Name> {
        let known = &mut *progress.lock();
        let named = self.selection.exact.iter().map(|(key, groups)| (key, groups, true));
        for (key, groups, named) in named.chain(found.map(|(key, groups)| (key, groups, false))) {
            match known.streams.entry(key.clone()) {
                Entry::Occupied(stream) => stream.into_mut().wanted.merge(groups),
                Entry::Vacant(place) => {
                    place.insert(KnownStream { wanted: groups.clone(), named, state: State::Unknown });
                }
            }
        }
        let is_open = |stream: &KnownStream, named| stream.named == named && matches!(stream.state, State::Unknown);
        let open = |named| known.streams.iter().filter(move |(_, stream)| is_open(stream, named));
        open(true).chain(open(false)).map(|(key, _)| key.clone()).collect()
    }

    /// Streams that were found by a pattern and are not there, or no longer streams.
    fn gone(progress: &Progress) -> BTreeSet<Name> {
        let mut known = progress.lock();
        let is_gone = |stream: &KnownStream| match &stream.state {
            State::Missing => !stream.named,
            State::Failed { exists, .. } => !stream.named && *exists == Some(false),
            State::Unknown | State::Found(_) => false,
        };
        let gone: BTreeSet<_> =
            known.streams.iter().filter(|(_, stream)| is_gone(stream)).map(|(key, _)| key.clone()).collect();
        known.streams.retain(|key, _| !gone.contains(key));
        gone
    }

    /// A look-up that has not come to its end goes on for a while behind the page, until another collection begins. It
    /// works half of the time, in short slices.
    fn finish_look_up(&self, kept: &Kept) -> Option<AbortHandle> {
        let connection = kept.connection.clone().filter(|_| kept.discovery.is_walking())?;
        let kept = Arc::downgrade(&self.kept);
        let until = Instant::now() + LOOK_UP_AFTER_PAGE;
        let look_up = tokio::spawn(async move {
            while Instant::now() < until {
                let Some(kept) = kept.upgrade() else { return };
                let mut kept = kept.lock().await;
                let slice = Instant::now() + LOOK_UP_SLICE;
                let unseen = Progress::default();
                let walk = kept.discovery.advance(&connection, slice, &unseen);
                // An error here is met again by the next collection, which says so.
                if !matches!(tokio::time::timeout_at(until.into(), walk).await, Ok(Ok(())))
                    || !kept.discovery.is_walking()
                {
                    return;
                }
                drop(kept);
                tokio::time::sleep(LOOK_UP_SLICE).await;
            }
        });
        Some(look_up.abort_handle())
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
