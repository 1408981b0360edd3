//! What one collection knows so far. At its end, or at its deadline, that is the snapshot: what was not reached is
//! absent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    config::Groups,
    model::{
        backlog::{Backlog, Count, LagTrust, Reading},
        by_name::ByName,
        error::Error,
        snapshot::{
            Clock, Consumer, Group, GroupFacts, Name, OldestPending, Server, Snapshot, Stream, StreamFacts, StreamId,
            StreamState,
        },
    },
};

/// The knowledge of a collection, which a request with little time may look at while the collection goes on.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<Known>>);

impl Progress {
    /// The snapshot of what is known now; `None` where Redis has not answered at all. `ended` is why there is no more.
    #[must_use]
    pub fn partial(&self, ended: Error) -> Option<Snapshot> {
        let mut known = self.lock().clone();
        known.failures.push(ended);
        known.answered.then(|| known.into_snapshot())
    }

    /// The snapshot of a collection that came to its end.
    pub(super) fn complete(&self) -> Snapshot {
        std::mem::take(&mut *self.lock()).into_snapshot()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Progress`].
#[derive(Clone, Default)]
pub(super) struct Known {
    /// Redis answered at least one command.
    pub(super) answered: bool,
    /// A TLS handshake has begun and not ended.
    pub(super) in_handshake: bool,
    /// Why the script that counts may not be run.
    pub(super) scripts_refused: Option<Error>,
    pub(super) clock: Option<Clock>,
    pub(super) server: Option<Server>,
    pub(super) trust: LagTrust,
    pub(super) patterns: BTreeMap<String, u64>,
    pub(super) failures: Vec<Error>,
    pub(super) streams: BTreeMap<Name, KnownStream>,
}

/// One stream, from before its first command on.
#[derive(Clone)]
pub(super) struct KnownStream {
    /// Which of its groups are wanted.
    pub(super) wanted: Groups,
    /// It was named, and so is shown as missing where it is.
    pub(super) named: bool,
    pub(super) state: State,
}

#[derive(Clone)]
pub(super) enum State {
    /// Nothing is known yet.
    Unknown,
    Missing,
    Failed {
        error: Error,
        exists: Option<bool>,
    },
    Found(Box<Found>),
}

/// A stream that is there.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) stream: StreamFacts,
    /// Its groups; `None` where `XINFO GROUPS` was refused.
    pub(super) groups: Option<ByName<GroupFacts>>,
    pub(super) evidence: Evidence,
    pub(super) pending: BTreeMap<Name, Pending>,
    pub(super) failures: Vec<Error>,
    /// Steps about it that are to be answered yet; 1 until it is known which there are.
    pub(super) open: usize,
}

/// How stream and groups were read, and what stands above their last delivered ids.
#[derive(Clone)]
pub(super) enum Evidence {
    OneMoment(Vec<Count>),
    TwoCommands {
        /// The first entry above a group's last delivered id.
        oldest: BTreeMap<Name, StreamId>,
        no_scripts: bool,
    },
}

/// What is pending in a group.
#[derive(Clone, Default)]
pub(super) struct Pending {
    pub(super) oldest: Option<OldestPending>,
    /// How many consumers hold something.
    pub(super) consumers: Option<u64>,
    /// Those that are shown.
    pub(super) busiest: Vec<Consumer>,
}

impl Known {
    pub(super) fn found(&mut self, key: &Name) -> Option<&mut Found> {
        match self.streams.get_mut(key).map(|stream| &mut stream.state) {
            Some(State::Found(found)) => Some(found),
            _ => None,
        }
    }

    fn into_snapshot(self) -> Snapshot {
        let trust = self.trust;
        let streams = self.streams.into_iter().filter_map(|(key, stream)| Some((key, stream.into_state(trust)?)));
        Snapshot {
            clock: self.clock,
            server: self.server,
            streams: streams.collect(),
            patterns: self.patterns,
            scripts_refused: self.scripts_refused,
            failures: self.failures,
        }
    }
}

impl KnownStream {
    /// `None` for a stream that was only found by a pattern, and is gone or was not reached: nobody asked for it.
    fn into_state(self, trust: LagTrust) -> Option<StreamState> {
        let named: Vec<_> = self.wanted.named.iter().cloned().collect();
        match self.state {
            State::Unknown => Some(StreamState::NotCollected),
            State::Missing => self.named.then_some(StreamState::Missing { groups: named }),
            State::Failed { error, exists } => Some(StreamState::Failed { error, exists, groups: named }),
            State::Found(found) => Some(StreamState::Found(Box::new(found.into_stream(&self.wanted, trust)))),
        }
    }
}

impl Found {
    fn into_stream(self, wanted: &Groups, trust: LagTrust) -> Stream {
        let Self { stream, groups, evidence, mut pending, failures, open } = self;
        let missing = |groups: &ByName<GroupFacts>| {
            wanted.named.iter().filter(|name| groups.get(name).is_none()).cloned().collect()
        };
        let missing_groups = groups.as_ref().map(missing).unwrap_or_default();
        let group = |(name, facts): (Name, GroupFacts)| {
            let pending = pending.remove(&name).unwrap_or_default();
            let backlog = Backlog::new(&stream, &facts, evidence.reading(&name), trust);
            (name, Group::new(facts, backlog, pending))
        };
        let groups = groups.unwrap_or_default().into_iter().filter(|(name, _)| wanted.wants(name)).map(group).collect();
        Stream { facts: stream, groups, missing_groups, failures, complete: open == 0 }
    }
}

impl Evidence {
    fn reading(&self, group: &Name) -> Reading<'_> {
        match self {
            Self::OneMoment(counts) => Reading::OneMoment(counts),
            Self::TwoCommands { oldest, no_scripts } => {
                Reading::TwoCommands { oldest: oldest.get(group).copied(), no_scripts: *no_scripts }
            }
        }
    }
}

impl Group {
    /// What is pending is asked at another moment than the rest: where nothing is pending, nobody holds anything.
    fn new(facts: GroupFacts, backlog: Backlog, pending: Pending) -> Self {
        let nothing = Pending { consumers: Some(0), ..Pending::default() };
        let pending = if facts.pending == 0 { nothing } else { pending };
        Self {
            facts,
            backlog,
            oldest_pending: pending.oldest,
            consumers_with_pending: pending.consumers,
            busy_consumers: pending.busiest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_pending_nobody_holds_what_was_pending_a_moment_ago() {
        let id = StreamId { ms: 1, seq: 0 };
        let facts = |pending| GroupFacts { consumers: 1, pending, last_delivered: id, entries_read: None, lag: None };
        let oldest = OldestPending { id, consumer: "c".into(), idle_ms: 5, deliveries: 1 };
        let busiest = vec![Consumer { name: "c".into(), pending: 1, idle_ms: None }];
        let pending = Pending { oldest: Some(oldest), consumers: Some(1), busiest };
        let stream = StreamFacts {
            length: 1,
            group_count: 1,
            last_generated: id,
            entries_added: None,
            first: Some(id),
            last: Some(id),
        };
        let read = Reading::OneMoment(&[]);
        let group = |facts| Group::new(facts, Backlog::new(&stream, &facts, read, LagTrust::Never), pending.clone());
        let holding = group(facts(1));
        assert_eq!((holding.consumers_with_pending, holding.busy_consumers.len()), (Some(1), 1));
        assert!(holding.oldest_pending.is_some());
        let acknowledged = group(facts(0));
        assert_eq!((acknowledged.consumers_with_pending, acknowledged.busy_consumers.len()), (Some(0), 0));
        assert_eq!(acknowledged.oldest_pending, None);
    }
}
