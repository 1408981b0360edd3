//! Writers at full speed on one stream with three groups, and collections meanwhile. The truth is recorded by the same
//! script as each write, so that every number can be held against all moments of its collection.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use prompt_redis_exporter::{
    cli::Cli,
    config::Config,
    model::{
        backlog::Oldest,
        snapshot::{Group, Name, Snapshot, StreamId, StreamState},
    },
    redis::{collect::Collector, endpoint::Endpoint, progress::Progress},
};

use super::{SOON, Server};

/// The stream, whose name holds it and what is recorded about it in one slot of a Cluster.
pub const STREAM: &str = "{night}";
const GROUPS: [&str; 3] = ["a", "b", "c"];
const WRITERS: u64 = 3;

/// Counts all; counts few, so that a lag is taken where the server is trusted; counts none.
pub const LIMITS: [&str; 3] =
    ["--collector.undelivered-max=1000", "--collector.undelivered-max=5", "--collector.undelivered-max=0"];

/// What was true after one write.
#[derive(Debug)]
struct Truth {
    write: u64,
    /// `None` where there was no stream.
    length: Option<u64>,
    first: Option<StreamId>,
    groups: BTreeMap<String, GroupTruth>,
}

#[derive(Debug)]
struct GroupTruth {
    waits: u64,
    lost: u64,
    oldest: Option<StreamId>,
    pending: u64,
}

impl Truth {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let write = lines.next().unwrap().parse().unwrap();
        let length = lines.next().unwrap().parse().ok();
        let first = id(lines.next().unwrap());
        let group = |line: &str| {
            let fields: Vec<_> = line.split(' ').collect();
            let number = |at: usize| fields[at].parse().unwrap();
            (
                fields[0].to_owned(),
                GroupTruth { waits: number(1), lost: number(2), oldest: id(fields[3]), pending: number(4) },
            )
        };
        Self { write, length, first, groups: lines.map(group).collect() }
    }
}

/// An id, or `-`.
fn id(text: &str) -> Option<StreamId> {
    let (ms, seq) = text.split_once('-').filter(|(ms, _)| !ms.is_empty())?;
    Some(StreamId { ms: ms.parse().unwrap(), seq: seq.parse().unwrap() })
}

/// The script that writes and records, over one connection.
struct Recorder {
    connection: redis::Connection,
    /// The digest by which the server knows the script.
    script: String,
    entry_bytes: usize,
}

impl Recorder {
    fn new(server: &Server, entry_bytes: usize) -> Self {
        let mut connection = server.connection();
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(include_str!("writers.lua"));
        let script = load.query(&mut connection).unwrap();
        Self { connection, script, entry_bytes }
    }

    fn write(&mut self, write: &str, group: &str, count: usize) {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.script).arg(4).arg(STREAM).arg("{night}:writes").arg("{night}:truths").arg("{night}:lost");
        command.arg(write).arg(group).arg(count).arg(self.entry_bytes);
        let written = command.query::<u64>(&mut self.connection);
        written.unwrap_or_else(|error| panic!("{write} {group} {count}: {error}"));
    }

    /// Some write; removals and new beginnings are rare beside reads and additions.
    fn write_something(&mut self, random: &mut fastrand::Rng) {
        let group = GROUPS[random.usize(..GROUPS.len())];
        let few = random.usize(1..6);
        match random.u32(..200) {
            0..70 => self.write("add", group, few),
            70..140 => self.write("read", group, few),
            140..160 => self.write("acknowledge", group, few),
            160..173 => self.write("trim", group, random.usize(..40)),
            173..185 => self.write("delete", group, random.usize(1..30)),
            185..190 => self.write("set-id", group, random.usize(..20)),
            190 => self.write("destroy", group, 0),
            191..194 => self.write("create", group, random.usize(..20)),
            194 => self.write("drop", group, 0),
            _ => self.write("create-anew", group, 0),
        }
    }
}

/// Reads the truth about the time between two moments.
struct Witness(redis::Connection);

impl Witness {
    fn now(&mut self) -> u64 {
        redis::cmd("GET").arg("{night}:writes").query(&mut self.0).unwrap()
    }

    /// What was true from this write on.
    fn since(&mut self, begin: u64) -> Vec<Truth> {
        let script = "return redis.call('LRANGE', KEYS[1], 0, redis.call('GET', KEYS[2]) - ARGV[1])";
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(2).arg("{night}:truths").arg("{night}:writes").arg(begin);
        let truths: Vec<_> =
            command.query::<Vec<String>>(&mut self.0).unwrap().iter().map(|text| Truth::parse(text)).collect();
        assert_eq!(truths.last().map(|truth| truth.write), Some(begin), "the record is long enough");
        truths
    }
}

/// What collections said while others wrote.
#[derive(Debug, Default)]
pub struct Told {
    pub collections: u64,
    /// Groups that were shown.
    pub groups: u64,
    /// Groups of which it was said exactly how many wait.
    pub exact: u64,
    /// Groups of which something was said about losses.
    pub losses: u64,
    /// Groups that were shown with a loss.
    pub lost: u64,
    /// What was not true, each in a sentence.
    pub wrong: Vec<String>,
}

impl Told {
    fn hold(&mut self, snapshot: &Snapshot, truths: &[Truth]) {
        self.collections += 1;
        for error in &snapshot.failures {
            self.wrong.push(format!("a failure: {error}"));
        }
        match snapshot.streams.get(&STREAM.into()) {
            Some(StreamState::Missing { .. }) => {
                self.expect(truths.iter().any(|truth| truth.length.is_none()), || "the stream was there".into());
            }
            Some(StreamState::Found(stream)) => {
                self.expect(stream.failures.is_empty() && stream.complete, || format!("failures: {stream:?}"));
                let length = Some(stream.facts.length);
                self.expect(truths.iter().any(|truth| truth.length == length), || format!("a length of {length:?}"));
                for (name, group) in &stream.groups {
                    self.hold_group(name, group, truths);
                }
                for name in GROUPS.iter().filter(|name| stream.groups.get(&Name::from(**name)).is_none()) {
                    let always = truths.iter().all(|truth| truth.groups.contains_key(*name));
                    self.expect(!always, || format!("group {name} is not shown, and was there"));
                }
            }
            other => self.wrong.push(format!("not collected: {other:?}")),
        }
    }

    fn hold_group(&mut self, name: &Name, group: &Group, truths: &[Truth]) {
        let first = truths.iter().filter_map(|truth| truth.first).max();
        let truths: Vec<_> = truths.iter().filter_map(|truth| truth.groups.get(&*name.shown())).collect();
        let of = |value: fn(&GroupTruth) -> u64| truths.iter().map(|truth| value(truth)).collect::<BTreeSet<_>>();
        let (waits, lost, pending) = (of(|truth| truth.waits), of(|truth| truth.lost), of(|truth| truth.pending));
        let backlog = group.backlog;
        self.groups += 1;
        self.exact += u64::from(backlog.undelivered.is_some());
        self.losses += u64::from(backlog.lost.is_some());
        self.lost += u64::from(backlog.lost.is_some_and(|lost| lost > 0));
        let mut expect = |is_true: bool, what: &str| {
            self.expect(is_true, || format!("{what}: {group:?}, but it was {truths:?}"));
        };
        expect(backlog.undelivered.is_none_or(|said| waits.contains(&said)), "undelivered");
        expect(waits.last().is_some_and(|most| backlog.undelivered_at_least <= *most), "undelivered at least");
        expect(backlog.lost.is_none_or(|said| lost.last().is_some_and(|most| said <= *most)), "lost");
        expect(pending.contains(&group.facts.pending), "pending");
        match backlog.oldest {
            Oldest::None => expect(waits.contains(&0), "nothing waits"),
            // Without scripts it is looked up later than the group, which may be gone by then: it lies between the
            // oldest that waited, and the last that did or the stream's first.
            Oldest::Entry(id) => {
                let oldest: BTreeSet<_> = truths.iter().filter_map(|truth| truth.oldest).collect();
                let latest = oldest.last().copied().max(first);
                expect(oldest.first().is_some_and(|first| *first <= id) && Some(id) <= latest, "oldest");
            }
            Oldest::Unknown => {}
        }
    }

    fn expect(&mut self, is_true: bool, sentence: impl Fn() -> String) {
        if !is_true {
            self.wrong.push(sentence());
        }
    }

    /// Fails with the first sentences, if anything was wrong.
    pub fn assert_true(&self) {
        let some: Vec<_> = self.wrong.iter().take(3).collect();
        let (wrong, groups, collections) = (self.wrong.len(), self.groups, self.collections);
        assert!(some.is_empty(), "{wrong} wrong of {groups} groups in {collections} collections: {some:#?}");
    }
}

/// A collector with these options, and the runtime that it runs in.
pub struct Collecting {
    collector: Collector,
    runtime: tokio::runtime::Runtime,
}

impl Collecting {
    pub fn new(args: &[&str]) -> Self {
        let cli = Cli::from_args([&["x", "--stream={night}", "--no-collector.server"], args].concat()).unwrap();
        let config = Config::new(cli, None).unwrap();
        let collector = Collector::new(Endpoint::new(config.redis).unwrap(), config.selection, config.collect);
        Self { collector, runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap() }
    }

    fn collect(&self) -> Snapshot {
        let progress = Progress::default();
        let collected = self.runtime.block_on(self.collector.collect(SOON, &progress, &|| true));
        collected.unwrap_or_else(|error| panic!("a healthy Redis is said to be down: {error}"))
    }
}

/// Collects so often while others write to this server, which holds the slot of the stream.
pub fn collect_beside_writers(server: &Server, collecting: &Collecting, collections: u64, seed: u64) -> Told {
    collect_beside_writers_of(1, server, collecting, collections, seed)
}

/// The same, with entries of so many bytes.
pub fn collect_beside_writers_of(
    entry_bytes: usize,
    server: &Server,
    collecting: &Collecting,
    collections: u64,
    seed: u64,
) -> Told {
    Recorder::new(server, entry_bytes).write("create-anew", "a", 0);
    let done = Arc::new(AtomicBool::new(false));
    let writer = |number| {
        let (mut recorder, done) = (Recorder::new(server, entry_bytes), Arc::clone(&done));
        let mut random = fastrand::Rng::with_seed(seed * WRITERS + number);
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                recorder.write_something(&mut random);
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    let mut witness = Witness(server.connection());
    let mut told = Told::default();
    while told.collections < collections {
        let begin = witness.now();
        let snapshot = collecting.collect();
        told.hold(&snapshot, &witness.since(begin));
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    told
}
