//! Random sequences of commands on one stream, on each kind of server: what waits is what a brute-force count finds, and
//! what is shown as lost is never more than what was lost.

use std::collections::BTreeSet;

use prompt_redis_exporter::{
    cli::Cli,
    config::Config,
    model::backlog::Oldest,
    model::snapshot::{Snapshot, StreamId, StreamState},
    redis::{collect::Collector, endpoint::Endpoint, progress::Progress},
};
use proptest::{prelude::*, test_runner::TestRunner};
use redis::{Commands, Value};

use crate::support::{Exporter, Flavor, SOON, Server};

#[derive(Clone, Debug)]
enum Step {
    Add(u64),
    Read(usize),
    Acknowledge(usize),
    Trim(u64),
    TrimBelow(usize),
    Delete(usize),
    /// From 8.2: a command that takes a policy of references.
    TrimAcknowledged(u64),
    DeleteReferences(usize),
    AcknowledgeAndDelete(usize),
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
        1 => (0..20_usize).prop_map(Step::TrimBelow),
        2 => (0..20_usize).prop_map(Step::Delete),
        1 => (0..12_u64).prop_map(Step::TrimAcknowledged),
        1 => (0..20_usize).prop_map(Step::DeleteReferences),
        1 => (0..20_usize).prop_map(Step::AcknowledgeAndDelete),
        1 => (0..20_usize).prop_map(Step::SetId),
        1 => (0..20_usize).prop_map(Step::DestroyAndCreate),
        1 => Just(Step::DeleteStream),
    ];
    prop::collection::vec(step, 1..25)
}

/// A stream and its group on a real server, with bookkeeping of the test's own beside them.
struct Life {
    flavor: Flavor,
    connection: redis::Connection,
    /// The next id's milliseconds.
    next: u64,
    /// Entries in the stream.
    entries: BTreeSet<u64>,
    /// The highest id that was delivered to the group.
    delivered: u64,
    pending: BTreeSet<u64>,
    /// Entries that left before the group read them; `None` once the group was moved by hand.
    lost: Option<u64>,
    /// Something was deleted from the middle, or removed before the first read: then Redis's own count is an estimate.
    blurred: bool,
}

impl Life {
    fn begin(server: &Server, flavor: Flavor) -> Self {
        let mut life = Self {
            flavor,
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
            Step::TrimBelow(choice) => {
                let id = self.any(choice);
                self.blurred |= self.delivered == 0;
                self.run("XTRIM", &["s", "MINID", &format!("{id}-0")]);
                while self.entries.first().is_some_and(|first| *first < id) {
                    let first = *self.entries.first().unwrap();
                    self.remove(first);
                }
            }
            Step::TrimAcknowledged(_) | Step::DeleteReferences(_) | Step::AcknowledgeAndDelete(_)
                if self.flavor != Flavor::Redis8 => {}
            Step::TrimAcknowledged(length) => {
                self.run("XTRIM", &["s", "MAXLEN", &length.to_string(), "ACKED"]);
                let removed = self.catch_up();
                assert!(removed.iter().all(|id| *id <= self.delivered && !self.pending.contains(id)), "{removed:?}");
            }
            Step::DeleteReferences(choice) => {
                let id = format!("{}-0", self.any(choice));
                self.run("XDELEX", &["s", "DELREF", "IDS", "1", &id]);
                self.catch_up();
            }
            Step::AcknowledgeAndDelete(choice) => {
                let id = format!("{}-0", self.any(choice));
                self.run("XACKDEL", &["s", "g", "IDS", "1", &id]);
                self.catch_up();
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

    /// Takes over from the server which entries are left and which are pending, and gives those that were removed.
    fn catch_up(&mut self) -> Vec<u64> {
        self.blurred = true;
        let ms = |id: &str| id.split('-').next().unwrap().parse::<u64>().unwrap();
        let left: redis::streams::StreamRangeReply = self.connection.xrange_all("s").unwrap();
        let left: BTreeSet<_> = left.ids.iter().map(|entry| ms(&entry.id)).collect();
        let removed: Vec<_> = self.entries.difference(&left).copied().collect();
        for id in &removed {
            self.remove(*id);
        }
        let pending: redis::streams::StreamPendingCountReply =
            self.connection.xpending_count("s", "g", "-", "+", 10_000).unwrap();
        self.pending = pending.ids.iter().map(|entry| ms(&entry.id)).collect();
        removed
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
        let group = stream.groups.get(&"g".into()).unwrap();
        let counted = self.brute_force();
        let waits: Vec<_> = self.entries.range(self.delivered + 1..).copied().collect();
        assert_eq!(counted, waits, "the bookkeeping of this test");

        let backlog = group.backlog;
        let oldest = counted.first().map_or(Oldest::None, |ms| Oldest::Entry(StreamId { ms: *ms, seq: 0 }));
        assert_eq!(backlog.undelivered, Some(counted.len() as u64), "{flavor:?}: {stream:?}");
        assert_eq!(backlog.undelivered_at_least, counted.len() as u64, "{flavor:?}: {stream:?}");
        assert_eq!(backlog.oldest, oldest, "{flavor:?}: {stream:?}");
        assert_eq!(group.facts.pending, self.pending.len() as u64, "{flavor:?}: pending");
        let oldest_pending = self.pending.first().map(|id| StreamId { ms: *id, seq: 0 });
        let said = group.oldest_pending.as_ref().map(|oldest| oldest.id);
        assert_eq!(said, oldest_pending, "{flavor:?}: oldest pending");
        if let (Some(lost), Some(said)) = (self.lost, backlog.lost) {
            assert!(said <= lost, "{flavor:?}: {lost} were lost, and at least {said} are shown: {stream:?}");
            // Redis 7.0 keeps the evidence, as long as it has a lag at all.
            if flavor == Flavor::Redis7 && group.facts.lag.is_some() && !self.blurred {
                assert_eq!(said, lost, "{stream:?}");
            }
        }
    }
}

fn any_sequence_of_commands_is_shown_truly(flavor: Flavor) {
    let server = Server::start(flavor);
    let url = format!("--redis.url={}", server.url());
    let cli = Cli::from_args(["x", &url, "--stream=s", "--no-collector.server"]).unwrap();
    let config = Config::new(cli, None).unwrap();
    let collector = Collector::new(Endpoint::new(config.redis).unwrap(), config.selection, config.collect);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // `CASES=1000` for a longer run.
    let cases = std::env::var("CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let comparisons = std::cell::Cell::new(0);
    TestRunner::new_with_rng(config, deterministic())
        .run(&steps(), |steps| {
            let mut life = Life::begin(&server, flavor);
            for step in &steps {
                life.take(step);
                let progress = Progress::default();
                let snapshot = runtime.block_on(collector.collect(SOON, &progress, &|| true)).unwrap();
                life.check(&snapshot, flavor);
                comparisons.set(comparisons.get() + 1);
            }
            Ok(())
        })
        .unwrap();
    println!("{flavor:?}: {} states compared", comparisons.get());
}

/// The same sequences in every run, so that a failure can be repeated.
fn deterministic() -> proptest::test_runner::TestRng {
    proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}

#[test]
fn any_sequence_of_commands_is_shown_truly_on_redis_8() {
    any_sequence_of_commands_is_shown_truly(Flavor::Redis8);
}

#[test]
fn any_sequence_of_commands_is_shown_truly_on_redis_7() {
    any_sequence_of_commands_is_shown_truly(Flavor::Redis7);
}

#[test]
fn any_sequence_of_commands_is_shown_truly_on_redis_6() {
    any_sequence_of_commands_is_shown_truly(Flavor::Redis6);
}

#[test]
fn any_sequence_of_commands_is_shown_truly_on_valkey_9() {
    any_sequence_of_commands_is_shown_truly(Flavor::Valkey9);
}

#[test]
fn a_backlog_of_any_size_is_exact_where_the_lag_of_the_server_is() {
    for flavor in [Flavor::Redis8, Flavor::Valkey9, Flavor::Redis7] {
        let server = Server::start(flavor);
        server.run("XGROUP CREATE s g $ MKSTREAM");
        server.add("s", 1..=100_005);
        server.read("s", "g", "w", 5);
        let exporter = Exporter::start(&server, &["--stream=s"]);
        let page = exporter.scrape();
        let of = |metric| page.group(metric, "s", "g");
        if flavor == Flavor::Redis7 {
            assert_eq!(of("messages_undelivered"), None, "{flavor:?}: its lag may be wrong");
            assert!(of("messages_undelivered_at_least").unwrap() > 1_000.0, "{flavor:?}");
        } else {
            assert_eq!(of("messages_undelivered"), Some(100_000.0), "{flavor:?}");
            assert_eq!(of("messages_undelivered_at_least"), Some(100_000.0), "{flavor:?}");
            assert_eq!(of("messages_lost"), Some(0.0), "{flavor:?}");
        }
        // A counter that a person set wrongly is noticed where counting is cheap.
        server.run("XGROUP SETID s g 99990-0 ENTRIESREAD 50");
        let page = exporter.scrape();
        assert_eq!(page.group("messages_undelivered", "s", "g"), Some(15.0), "{flavor:?}");
    }
}
