//! What one collection found: plain facts, each with the Redis field it comes from.
//!
//! Knows nothing of Redis's protocol, of metrics or of HTTP. What Redis did not say is `None`; nothing here is made up.
//! The clock is a fact like any other: it is Redis's own, read in the same collection.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use crate::model::{backlog::Backlog, by_name::ByName, error::Error};

/// The name of a stream, group or consumer. Redis allows any bytes. A clone shares them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// The name as Redis knows it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name for people and labels: what is not UTF-8 becomes the replacement character.
    #[must_use]
    pub fn shown(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        name.as_bytes().into()
    }
}

impl From<&[u8]> for Name {
    fn from(name: &[u8]) -> Self {
        Self(name.into())
    }
}

/// The id of an entry: milliseconds, by custom of this era, and a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// The part before the dash: milliseconds since 1970 where Redis made the id.
    pub ms: u64,
    /// The part after the dash.
    pub seq: u64,
}

impl StreamId {
    /// `0-0`: before every entry. Redis says it where there was no entry yet.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// The smallest id above this one, if there is one.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => Some(Self { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Redis's clock at the start of the collection (`TIME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds since 1970.
    pub ms: u64,
}

impl Clock {
    /// Further from now than this, in milliseconds, an id is no time of this era: ten years.
    const ERA_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

    /// The clock itself, in seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> f64 {
        seconds(self.ms)
    }

    /// When the entry was added, in seconds since 1970; nothing where the id is not a time.
    #[must_use]
    pub fn timestamp_seconds(self, id: StreamId) -> Option<f64> {
        (self.ms.abs_diff(id.ms) <= Self::ERA_MS).then(|| seconds(id.ms))
    }

    /// How long ago the entry was added, in seconds, never below 0; nothing where the id is not a time.
    #[must_use]
    pub fn age_seconds(self, id: StreamId) -> Option<f64> {
        self.timestamp_seconds(id).map(|_| seconds(self.ms.saturating_sub(id.ms)))
    }
}

/// Milliseconds as seconds: exact to the millisecond for any time of this era.
#[expect(clippy::cast_precision_loss, reason = "a time of this era in milliseconds needs 41 of the 52 bits")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Everything one collection found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Redis's clock; `None` where the user may not ask for it.
    pub clock: Option<Clock>,
    /// The server itself; `None` where it was not asked for, or may not be.
    pub server: Option<Server>,
    /// Each stream once, by name: the ones that must exist and the ones that were found.
    pub streams: BTreeMap<Name, StreamState>,
    /// Streams that each pattern matches; without those whose first look-up has not come to its end yet.
    pub patterns: BTreeMap<String, u64>,
    /// Why the script that counts may not be run, if it may not. That is no failure: only exact numbers are absent.
    pub scripts_refused: Option<Error>,
    /// Failures that concern no single stream: a refused `TIME`, `INFO` or `SCAN`, or the collection's early end.
    pub failures: Vec<Error>,
}

impl Snapshot {
    /// Every failure, with the stream where it concerns one.
    pub fn failures(&self) -> impl Iterator<Item = (Option<&Name>, &Error)> {
        let general = self.failures.iter().map(|error| (None, error));
        let streams = self.streams.iter().flat_map(|(name, state)| {
            let errors = match state {
                StreamState::Failed { error, .. } => std::slice::from_ref(error),
                StreamState::Found(stream) => &stream.failures,
                StreamState::Missing { .. } | StreamState::NotCollected => &[],
            };
            errors.iter().map(move |error| (Some(name), error))
        });
        general.chain(streams)
    }
}

/// What became of one stream's commands.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamState {
    /// It is there, and answered.
    Found(Box<Stream>),
    /// There is no such key.
    Missing {
        /// The groups that were named for it, and so are missing too.
        groups: Vec<Name>,
    },
    /// A command was refused, or its reply could not be read.
    Failed {
        /// Why.
        error: Error,
        /// Whether the key is known to hold a stream: `Some(false)` for another type, `None` where that is not known.
        exists: Option<bool>,
        /// The groups that were named for it.
        groups: Vec<Name>,
    },
    /// The collection ended before this stream's reply came.
    NotCollected,
}

/// A stream and the groups of it that are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// What `XINFO STREAM` says.
    pub facts: StreamFacts,
    /// The groups that are wanted, by name; none where `XINFO GROUPS` was refused.
    pub groups: ByName<Group>,
    /// Groups that were named and are not there.
    pub missing_groups: Vec<Name>,
    /// Commands about this stream that were refused, or whose replies could not be read.
    pub failures: Vec<Error>,
    /// Every reply about this stream came before the collection ended.
    pub complete: bool,
}

/// A stream as `XINFO STREAM` describes it, without the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFacts {
    /// `length`: entries in the stream.
    pub length: u64,
    /// `groups`: consumer groups, also those that are not wanted.
    pub group_count: u64,
    /// `last-generated-id`.
    pub last_generated: StreamId,
    /// `entries-added`: entries ever added. Redis 7.0 and later.
    pub entries_added: Option<u64>,
    /// The id of `first-entry`; `None` when the stream is empty.
    pub first: Option<StreamId>,
    /// The id of `last-entry`; `None` when the stream is empty.
    pub last: Option<StreamId>,
}

/// A consumer group as `XINFO GROUPS` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFacts {
    /// `consumers`: ever created and not removed. Not live workers.
    pub consumers: u64,
    /// `pending`: delivered and not acknowledged.
    pub pending: u64,
    /// `last-delivered-id`.
    pub last_delivered: StreamId,
    /// `entries-read`: Redis's logical read counter; `None` when null, or before 7.0.
    pub entries_read: Option<i64>,
    /// `lag`, as Redis reports it, wrong as it may be; `None` when null, or before 7.0.
    pub lag: Option<i64>,
}

/// A consumer group, with what was worked out and asked about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What `XINFO GROUPS` says.
    pub facts: GroupFacts,
    /// What waits for the group and what it lost.
    pub backlog: Backlog,
    /// The lowest pending entry; `None` when nothing is pending, or when it is not known.
    pub oldest_pending: Option<OldestPending>,
    /// Consumers that hold something pending, from the summary of `XPENDING`; `None` when that is not known.
    pub consumers_with_pending: Option<u64>,
    /// Those consumers, most pending first, where they were asked for.
    pub busy_consumers: Vec<Consumer>,
}

/// The lowest pending entry of a group, from `XPENDING key group - + 1`. The entry itself may be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestPending {
    /// Its id.
    pub id: StreamId,
    /// Who holds it; empty where no consumer does.
    pub consumer: Name,
    /// Milliseconds since it was last delivered.
    pub idle_ms: u64,
    /// How often it was delivered.
    pub deliveries: u64,
}

/// A consumer that holds something pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: Name,
    /// Delivered to it and not acknowledged, from the summary of `XPENDING`.
    pub pending: u64,
    /// `idle` of `XINFO CONSUMERS`, in milliseconds. Since 7.2 an attempt to read resets it, before that only a message
    /// did. `None` when that was not asked.
    pub idle_ms: Option<u64>,
}

/// The server, from `INFO`. A field that this server does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// `redis_version`.
    pub redis_version: Option<String>,
    /// `valkey_version`, on Valkey alone.
    pub valkey_version: Option<String>,
    /// `redis_mode`: standalone, sentinel or cluster.
    pub mode: Option<String>,
    /// `role`: master or slave.
    pub role: Option<String>,
    /// `maxmemory_policy`: what happens when `maxmemory` is reached.
    pub maxmemory_policy: Option<String>,
    /// `uptime_in_seconds`.
    pub uptime_seconds: Option<u64>,
    /// `used_memory`, in bytes.
    pub used_memory_bytes: Option<u64>,
    /// `maxmemory`, in bytes; 0 is no limit.
    pub max_memory_bytes: Option<u64>,
    /// `connected_clients`.
    pub connected_clients: Option<u64>,
    /// `blocked_clients`.
    pub blocked_clients: Option<u64>,
    /// `evicted_keys` since the server started.
    pub evicted_keys: Option<u64>,
    /// `aof_last_write_status`: whether the append-only file could be written last time. True where it is off.
    pub aof_last_write_ok: Option<bool>,
    /// `rdb_last_bgsave_status`: whether the last snapshot could be written.
    pub rdb_last_bgsave_ok: Option<bool>,
    /// `errorstat_*`: how often each error was answered since the server started, by its first word. Since 6.2.
    pub errors: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Clock = Clock { ms: 1_740_691_320_501 };

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    #[test]
    fn the_next_id_carries_and_ends() {
        assert_eq!(id(5).next(), Some(StreamId { ms: 5, seq: 1 }));
        assert_eq!(StreamId { ms: 5, seq: u64::MAX }.next(), Some(id(6)));
        assert_eq!(StreamId { ms: u64::MAX, seq: u64::MAX }.next(), None);
    }

    #[test]
    fn an_age_is_redis_clock_less_the_id() {
        assert_eq!(NOW.age_seconds(id(NOW.ms - 1_500)), Some(1.5));
        assert_eq!(NOW.timestamp_seconds(id(NOW.ms)), Some(1_740_691_320.501));
    }

    #[test]
    fn an_id_of_the_future_has_age_zero() {
        assert_eq!(NOW.age_seconds(id(NOW.ms + 60_000)), Some(0.0));
    }

    #[test]
    fn an_id_that_is_no_time_has_neither_timestamp_nor_age() {
        for ms in [0, 1, 12_345, NOW.ms - Clock::ERA_MS - 1, NOW.ms + Clock::ERA_MS + 1, u64::MAX] {
            assert_eq!(NOW.timestamp_seconds(id(ms)), None, "{ms}");
            assert_eq!(NOW.age_seconds(id(ms)), None, "{ms}");
        }
    }

    #[test]
    fn a_name_of_any_bytes_can_be_shown() {
        assert_eq!(Name::from(&b"a\xffb"[..]).shown(), "a\u{fffd}b");
    }
}
