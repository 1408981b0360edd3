//! Any life of a stream, on each kind of server: what we say waits is what a brute-force count finds, and what we say
//! was lost is never more than what was.

use std::collections::BTreeSet;

use prompt_redis_exporter::{
    cli::Cli,
    config::Config,
    model::backlog::{self, Waiting},
    model::snapshot::{Snapshot, StreamId, StreamState},
    redis::collect::Source,
};
use proptest::{prelude::*, test_runner::TestRunner};
use redis::{Commands, Value};

use crate::support::{Flavor, Server};

#[derive(Clone, Debug)]
enum Step {
    Add(u64),
    Read(usize),
    Acknowledge(usize),
    Trim(u64),
    Delete(usize),
    SetId(usize),
    DestroyAndCreate(usize),
    DeleteStream,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..8_u64).prop_map(Step::Add),
        6 => (1..6_usize).prop_map(Step::Read),
        2 => (0..20_usize).prop_map(Step::Acknowledge),
        2 => (0..12_u64).prop_map(Step::Trim),
        2 => (0..20_usize).prop_map(Step::Delete),
        1 => (0..20_usize).prop_map(Step::SetId),
        1 => (0..20_usize).prop_map(Step::DestroyAndCreate),
        1 => Just(Step::DeleteStream),
    ];
    prop::collection::vec(step, 1..25)
}

/// A stream and its group on a real server, with a bookkeeping of our own beside them.
struct Life {
    connection: redis::Connection,
    /// The next id's milliseconds.
    next: u64,
    /// Entries in the stream.
    entries: BTreeSet<u64>,
    /// Up to here the group was given everything.
    delivered: u64,
    pending: BTreeSet<u64>,
    /// Entries that left before the group read them; `None` once the group was moved by hand.
    lost: Option<u64>,
    /// Something was deleted from the middle, or left before the first read: then Redis's own count is an estimate.
    blurred: bool,
}

impl Life {
    fn begin(server: &Server) -> Self {
        let mut life = Self {
            connection: server.connection(),
            next: 1,
            entries: BTreeSet::new(),
            delivered: 0,
            pending: BTreeSet::new(),
            lost: Some(0),
            blurred: false,
        };
        life.bootstrap();
        life
    }

    fn run(&mut self, command: &str, args: &[&str]) -> Value {
        redis::cmd(command).arg(args).query(&mut self.connection).unwrap()
    }

    fn bootstrap(&mut self) {
        let _: Value = self.run("DEL", &["s"]);
        self.run("XGROUP", &["CREATE", "s", "g", "$", "MKSTREAM"]);
        (self.entries, self.pending, self.next, self.delivered) = (BTreeSet::new(), BTreeSet::new(), 1, 0);
        (self.lost, self.blurred) = (Some(0), false);
    }

    fn remove(&mut self, id: u64) {
        if self.entries.remove(&id) && id > self.delivered {
            self.lost = self.lost.map(|lost| lost + 1);
        }
    }

    /// Some id that is, or was, or could be in the stream.
    fn any(&self, choice: usize) -> u64 {
        choice as u64 % (self.next + 1)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Add(count) => {
                for _ in 0..count {
                    self.run("XADD", &["s", &format!("{}-0", self.next), "a", "b"]);
                    self.entries.insert(self.next);
                    self.next += 1;
                }
            }
            Step::Read(count) => {
                let args = ["GROUP", "g", "w", "COUNT", &count.to_string(), "STREAMS", "s", ">"];
                self.run("XREADGROUP", &args);
                let waiting: Vec<_> = self.entries.range(self.delivered + 1..).take(count).copied().collect();
                self.delivered = waiting.last().copied().unwrap_or(self.delivered);
                self.pending.extend(waiting);
            }
            Step::Acknowledge(choice) => {
                let id = self.any(choice);
                self.run("XACK", &["s", "g", &format!("{id}-0")]);
                self.pending.remove(&id);
            }
            Step::Trim(length) => {
                self.blurred |= self.delivered == 0;
                self.run("XTRIM", &["s", "MAXLEN", &length.to_string()]);
                while self.entries.len() as u64 > length {
                    let first = *self.entries.first().unwrap();
                    self.remove(first);
                }
            }
            Step::Delete(choice) => {
                let id = self.any(choice);
                self.blurred = true;
                self.run("XDEL", &["s", &format!("{id}-0")]);
                self.remove(id);
            }
            Step::SetId(choice) => {
                let id = self.any(choice);
                self.run("XGROUP", &["SETID", "s", "g", &format!("{id}-0")]);
                (self.delivered, self.lost) = (id, None);
            }
            Step::DestroyAndCreate(choice) => {
                let id = self.any(choice);
                self.run("XGROUP", &["DESTROY", "s", "g"]);
                self.run("XGROUP", &["CREATE", "s", "g", &format!("{id}-0")]);
                (self.delivered, self.lost) = (id, None);
                self.pending.clear();
            }
            Step::DeleteStream => self.bootstrap(),
        }
    }

    /// Counts what waits by reading the stream.
    fn brute_force(&mut self) -> Vec<u64> {
        let entries: redis::streams::StreamRangeReply = self.connection.xrange_all("s").unwrap();
        let ids = entries.ids.iter().map(|entry| entry.id.split('-').next().unwrap().parse::<u64>().unwrap());
        ids.filter(|id| *id > self.delivered).collect()
    }

    fn check(&mut self, snapshot: &Snapshot, flavor: Flavor) {
        let Some(StreamState::Found(stream)) = snapshot.streams.get(&"s".into()) else {
            panic!("no stream: {snapshot:?}");
        };
        let group = &stream.groups[&"g".into()];
        let counted = self.brute_force();
        let waits: Vec<_> = self.entries.range(self.delivered + 1..).copied().collect();
        assert_eq!(counted, waits, "the bookkeeping of this test");

        let expected = match counted.first() {
            None => Waiting::None,
            Some(oldest) => {
                Waiting::Some { entries: Some(counted.len() as u64), oldest: Some(StreamId { ms: *oldest, seq: 0 }) }
            }
        };
        assert_eq!(backlog::waiting(stream, group), expected, "{flavor:?}");
        assert_eq!(group.pending, self.pending.len() as u64, "{flavor:?}: pending");
        let oldest_pending = self.pending.first().map(|id| StreamId { ms: *id, seq: 0 });
        assert_eq!(group.pending_summary.map(|summary| summary.oldest), oldest_pending, "{flavor:?}: oldest pending");
        if let (Some(lost), Some(said)) = (self.lost, backlog::lost(stream, group)) {
            assert!(said <= lost, "{flavor:?}: {lost} were lost, and we say at least {said}: {stream:?}");
            // Redis 7.0 keeps the evidence, as long as it has a lag at all.
            if flavor == Flavor::Redis7 && group.lag.is_some() && !self.blurred {
                assert_eq!(said, lost, "{stream:?}");
            }
        }
    }
}

fn any_life_is_told_truly(flavor: Flavor) {
    let server = Server::start(flavor);
    let url = format!("--redis.url={}", server.url());
    let cli = Cli::from_args(["x", &url, "--stream=s", "--no-collector.server"]).unwrap();
    let source = Source::new(Config::new(cli, None).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new_with_rng(config, deterministic())
        .run(&steps(), |steps| {
            let mut life = Life::begin(&server);
            for step in &steps {
                life.take(step);
                let snapshot = runtime.block_on(source.collect()).unwrap();
                life.check(&snapshot, flavor);
            }
            Ok(())
        })
        .unwrap();
}

/// The same lives at every run: a failure can be looked at again.
fn deterministic() -> proptest::test_runner::TestRng {
    proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}

#[test]
fn any_life_is_told_truly_on_redis_8() {
    any_life_is_told_truly(Flavor::Redis8);
}

#[test]
fn any_life_is_told_truly_on_redis_7() {
    any_life_is_told_truly(Flavor::Redis7);
}

#[test]
fn any_life_is_told_truly_on_redis_6() {
    any_life_is_told_truly(Flavor::Redis6);
}

#[test]
fn any_life_is_told_truly_on_valkey_9() {
    any_life_is_told_truly(Flavor::Valkey9);
}
