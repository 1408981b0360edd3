//! Every question that we ask Redis: one function each, and nothing else is ever sent but the login.
//!
//! All of them read. What the answers look like is in [`crate::redis::replies`].

use redis::{Cmd, cmd};

use crate::model::snapshot::{Name, StreamId};

/// Counts on the server, so that no payload travels. `KEYS[1]`: the stream; `ARGV`: first id, last id, most entries.
const COUNT_SCRIPT: &str = "local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3]) \
                            return {#e, e[1] and e[1][1] or false}";

/// How many keys Redis looks at in one step of a `SCAN`.
const SCAN_STEP: u32 = 1000;

/// A range of ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: StreamId,
    pub(crate) to: StreamId,
}

/// Redis's clock.
pub(crate) fn time() -> Cmd {
    cmd("TIME")
}

/// The server itself.
pub(crate) fn info() -> Cmd {
    cmd("INFO")
}

/// One step of the walk over all keys, for the streams among them.
pub(crate) fn scan(cursor: u64, pattern: &str) -> Cmd {
    let mut scan = cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_STEP).arg("TYPE").arg("stream");
    scan
}

/// Who holds which slots of a Cluster.
pub(crate) fn cluster_slots() -> Cmd {
    let mut slots = cmd("CLUSTER");
    slots.arg("SLOTS");
    slots
}

/// A stream.
pub(crate) fn stream(key: &Name) -> Cmd {
    about("XINFO", &[b"STREAM", key.as_bytes()])
}

/// A stream's groups.
pub(crate) fn groups(key: &Name) -> Cmd {
    about("XINFO", &[b"GROUPS", key.as_bytes()])
}

/// What is pending in a group, in summary. Walks the group's consumers if anything is.
pub(crate) fn pending(key: &Name, group: &Name) -> Cmd {
    about("XPENDING", &[key.as_bytes(), group.as_bytes()])
}

/// A group's consumers, all of them.
pub(crate) fn consumers(key: &Name, group: &Name) -> Cmd {
    about("XINFO", &[b"CONSUMERS", key.as_bytes(), group.as_bytes()])
}

/// How many entries a range has, up to one more than `max`, and its first. `EVAL_RO` exists from 7.0.
pub(crate) fn count(key: &Name, range: Range, max: u32, has_eval_ro: bool) -> Cmd {
    let mut count = cmd(if has_eval_ro { "EVAL_RO" } else { "EVAL" });
    count.arg(COUNT_SCRIPT).arg(1).arg(key.as_bytes()).arg(range.from.to_string()).arg(range.to.to_string());
    // One more tells "as many as may be counted" from "more".
    count.arg(u64::from(max) + 1);
    count
}

/// The first entry of a range.
pub(crate) fn oldest(key: &Name, range: Range) -> Cmd {
    let mut oldest = cmd("XRANGE");
    oldest.arg(key.as_bytes()).arg(range.from.to_string()).arg(range.to.to_string()).arg("COUNT").arg(1);
    oldest
}

fn about(command: &str, args: &[&[u8]]) -> Cmd {
    let mut command = cmd(command);
    command.arg(args);
    command
}
