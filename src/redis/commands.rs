//! Every command that is sent to Redis: one function each. All of them only read. Their replies are read in
//! [`super::replies`]; those to the login and to what leads to the master, where they are asked.

use std::sync::LazyLock;

use redis::{Cmd, cmd};

use super::resp;
use crate::model::snapshot::{Name, StreamId};

/// Reads a stream, its groups and its counts at one moment, so that no payload travels. Comments and indentation are
/// left out: the script is sent with every use.
static MOMENT_SCRIPT: LazyLock<String> = LazyLock::new(|| {
    let lines = include_str!("moment.lua").lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("--")).collect::<Vec<_>>().join("\n")
});

/// How long the script is.
pub(crate) fn script_bytes() -> usize {
    MOMENT_SCRIPT.len()
}

/// The work after which one call of the script stops counting, in a stream with this many groups; moment.lua says how work is
/// counted. So much takes Redis 1 to 2 ms, and so do 100 groups: the two together should not take much longer. The entries of
/// one visit fit.
pub(crate) fn work_of_call(groups: u64) -> u64 {
    (448 << 10) - (groups.min(GROUPS_IN_SCRIPT) << 11)
}

/// Groups of one stream up to which the script is used: Lua takes about 20 us for each.
pub(crate) const GROUPS_IN_SCRIPT: u64 = 100;

/// A command as it is sent: a list of strings.
#[derive(Clone)]
pub(super) struct Packed(Vec<u8>);

impl From<Cmd> for Packed {
    fn from(cmd: Cmd) -> Self {
        Self(cmd.get_packed_command())
    }
}

/// A command, and what its reply is like.
#[derive(Clone)]
pub(crate) struct Command {
    packed: Packed,
    carries_entries: bool,
}

impl Command {
    fn plain(command: impl Into<Packed>) -> Self {
        Self { packed: command.into(), carries_entries: false }
    }

    /// Its reply carries whole entries, of which only the id and the size are needed.
    fn of_entries(command: impl Into<Packed>) -> Self {
        Self { packed: command.into(), carries_entries: true }
    }

    pub(super) fn packed(&self) -> &[u8] {
        &self.packed.0
    }

    /// The key that it is about, which in a Cluster tells the node.
    pub(super) fn key(&self) -> Option<&[u8]> {
        let mut words = resp::words(self.packed());
        let before = match words.next()? {
            b"XRANGE" | b"XPENDING" => 0,
            b"XINFO" => 1,
            b"EVAL" | b"EVAL_RO" => 2,
            _ => return None,
        };
        words.nth(before)
    }

    pub(super) fn carries_entries(&self) -> bool {
        self.carries_entries
    }
}

/// The login.
pub(super) fn auth(username: Option<&str>, password: &str) -> Command {
    let mut auth = cmd("AUTH");
    auth.arg(username).arg(password);
    Command::plain(auth)
}

/// The database that is meant from now on.
pub(super) fn select(database: i64) -> Command {
    let mut select = cmd("SELECT");
    select.arg(database);
    Command::plain(select)
}

/// Is it a master or a replica?
pub(super) fn role() -> Command {
    Command::plain(cmd("ROLE"))
}

/// Asks a Sentinel where the master of this name is.
pub(super) fn master_address(name: &str) -> Command {
    let mut address = cmd("SENTINEL");
    address.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    Command::plain(address)
}

/// Lets the next command read a slot that is being migrated to this node of a Cluster.
pub(super) fn asking() -> Command {
    Command::plain(cmd("ASKING"))
}

/// Redis's clock.
pub(crate) fn time() -> Command {
    Command::plain(cmd("TIME"))
}

/// The server itself.
pub(crate) fn info() -> Command {
    Command::plain(cmd("INFO"))
}

/// Which server this is. It needs no right.
pub(crate) fn hello() -> Command {
    Command::plain(cmd("HELLO"))
}

/// One step of the walk over all keys, about `count` of them, for the streams among them that match.
pub(crate) fn scan(cursor: u64, pattern: &str, count: u32) -> Command {
    let mut scan = cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count).arg("TYPE").arg("stream");
    Command::plain(scan)
}

/// Who holds which slots of a Cluster.
pub(crate) fn cluster_slots() -> Command {
    let mut slots = cmd("CLUSTER");
    slots.arg("SLOTS");
    Command::plain(slots)
}

/// A stream.
pub(crate) fn stream(key: &Name) -> Command {
    Command::of_entries(about_stream(b"*3\r\n$5\r\nXINFO\r\n$6\r\nSTREAM\r\n", key))
}

/// A stream's groups.
pub(crate) fn groups(key: &Name) -> Command {
    Command::plain(about_stream(b"*3\r\n$5\r\nXINFO\r\n$6\r\nGROUPS\r\n", key))
}

/// The lowest pending entry of a group, in constant time.
pub(crate) fn oldest_pending(key: &Name, group: &Name) -> Command {
    Command::plain(about("XPENDING", &[key.as_bytes(), group.as_bytes(), b"-", b"+", b"1"]))
}

/// What is pending in a group, in summary. Redis walks all consumers of the group if anything is.
pub(crate) fn pending_summary(key: &Name, group: &Name) -> Command {
    Command::plain(about("XPENDING", &[key.as_bytes(), group.as_bytes()]))
}

/// A group's consumers, all of them.
pub(crate) fn consumers(key: &Name, group: &Name) -> Command {
    Command::plain(about("XINFO", &[b"CONSUMERS", key.as_bytes(), group.as_bytes()]))
}

/// What the script is to count; by default nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counting {
    /// The most entries.
    pub(crate) max: u32,
    /// Groups of the stream.
    pub(crate) groups: u64,
    /// Chooses the group whose oldest entry is looked up first where the counting stops early.
    pub(crate) turn: u32,
    /// Bytes of the largest entry of the stream that was met before.
    pub(crate) largest: usize,
    /// The groups that are wanted; all of them where there is none.
    pub(crate) wanted: Vec<Name>,
    /// Where it goes on.
    pub(crate) from: Option<GoOn>,
    /// The server is older than `EVAL_RO`, which exists from 7.0.
    pub(crate) without_eval_ro: bool,
}

/// Where another call of the script goes on counting.
#[derive(Clone, Debug)]
pub(crate) struct GoOn {
    /// The lowest entry that was counted.
    pub(crate) lowest: StreamId,
    /// How many were.
    pub(crate) entries: u64,
    /// The ids above which entries are still to be counted.
    pub(crate) ids: Vec<StreamId>,
}

/// A stream, its groups and its counts, at one moment.
pub(crate) fn moment(key: &Name, counting: &Counting) -> Command {
    let mut moment = cmd(if counting.without_eval_ro { "EVAL" } else { "EVAL_RO" });
    moment.arg(MOMENT_SCRIPT.as_str()).arg(1).arg(key.as_bytes());
    moment.arg(counting.max).arg(work_of_call(counting.groups)).arg(counting.turn);
    moment.arg(GROUPS_IN_SCRIPT).arg(counting.largest);
    moment.arg(counting.wanted.len()).arg(counting.wanted.iter().map(Name::as_bytes).collect::<Vec<_>>());
    if let Some(GoOn { lowest, entries, ids }) = &counting.from {
        moment.arg(lowest.to_string()).arg(entries);
        moment.arg(ids.iter().map(StreamId::to_string).collect::<Vec<_>>());
    }
    Command::plain(moment)
}

/// The first entry above an id.
pub(crate) fn first_entry_after(key: &Name, id: StreamId) -> Command {
    let mut first = cmd("XRANGE");
    let from = id.next().map_or_else(|| "+".to_owned(), |next| next.to_string());
    first.arg(key.as_bytes()).arg(from).arg("+").arg("COUNT").arg(1);
    Command::of_entries(first)
}

/// `XINFO STREAM` or `XINFO GROUPS`, which are asked of every stream at every scrape: all but the key is packed already.
fn about_stream(start: &[u8], key: &Name) -> Packed {
    let (key, mut length) = (key.as_bytes(), itoa::Buffer::new());
    Packed([start, b"$", length.format(key.len()).as_bytes(), b"\r\n", key, b"\r\n"].concat())
}

fn about(command: &str, args: &[&[u8]]) -> Cmd {
    let mut command = cmd(command);
    command.arg(args);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_packed_as_redis_rs_packs_it() {
        for key in ["", "instrument:lsstcam", "two\r\nlines"] {
            let key = Name::from(key);
            for (command, word) in [(stream(&key), b"STREAM"), (groups(&key), b"GROUPS")] {
                assert_eq!(command.packed(), about("XINFO", &[word, key.as_bytes()]).get_packed_command());
            }
        }
    }

    #[test]
    fn a_command_about_a_stream_tells_its_key() {
        let (key, group, id) = (Name::from("a key"), Name::from("g"), StreamId { ms: 1, seq: 1 });
        for command in [
            stream(&key),
            groups(&key),
            oldest_pending(&key, &group),
            pending_summary(&key, &group),
            consumers(&key, &group),
            first_entry_after(&key, id),
            moment(&key, &Counting::default()),
            moment(&key, &Counting { without_eval_ro: true, ..Counting::default() }),
        ] {
            assert_eq!(command.key(), Some(key.as_bytes()), "{}", String::from_utf8_lossy(command.packed()));
        }
        for command in [time(), info(), hello(), scan(0, "*", 1), cluster_slots()] {
            assert_eq!(command.key(), None);
        }
    }
}
