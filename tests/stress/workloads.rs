//! Workloads: what another client waits while they are scraped, what memory they take, and whether every number is true.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    Scale, Scenario,
    meter::{self, Pings},
    peer,
    report::Outcome,
    support::{Exporter, Flavor, Page, Server, until},
};

pub const ALL: &[Scenario] = &[
    Scenario { name: "1 group in the middle of entries of 100 kB", play: |scale| large_entries(scale, 1) },
    Scenario { name: "10 groups in the middle of entries of 100 kB", play: |scale| large_entries(scale, 10) },
    Scenario { name: "100 groups in the middle of entries of 100 kB", play: |scale| large_entries(scale, 100) },
    Scenario { name: "100 groups there, scripts refused", play: without_scripts },
    Scenario { name: "1,000 groups, 2,000 entries of 1.5 kB wait", play: |scale| many_groups(scale, false) },
    Scenario { name: "the same beside busy writers", play: |scale| many_groups(scale, true) },
    Scenario { name: "100 streams x 2 groups in the middle", play: many_streams },
    Scenario { name: "50 streams x 2 entries of 1 MB, 20 MB below maxmemory, allkeys-lru", play: near_maxmemory },
    Scenario { name: "entries that grow from 100 B to 1 MB", play: growing_entries },
    Scenario { name: "64 entries of 1 MB after 100 of 100 B", play: large_after_small },
    Scenario { name: "17,000 consumers, something pending", play: |scale| consumers(scale, 17_000) },
    Scenario {
        name: "250,000 consumers, something pending",
        play: |scale| consumers(scale, scale.of(60_000, 250_000)),
    },
    Scenario { name: "5 million other keys, a pattern beside an exact name", play: many_keys },
];

/// In the quick half nothing beside is due to be quiet, so this is far above what is measured on a quiet machine.
const LONGEST_STALL: Duration = Duration::from_millis(100);
/// A wait that begins with the page still counts.
const SETTLED: Duration = Duration::from_millis(10);
/// What the chart's memory limit leaves room for.
const MOST_MEMORY: u64 = 48 << 20;

/// A server with streams, and what is true of them.
struct Workload {
    server: Server,
    streams: Vec<String>,
    /// Stream, group, and how many entries wait for it.
    groups: Vec<(String, String, u64)>,
    options: Vec<String>,
    /// How long after one scrape the next begins.
    every: Duration,
}

impl Workload {
    fn new(server: Server) -> Self {
        let every = Duration::from_millis(50);
        Self { server, streams: vec![], groups: vec![], options: vec!["--redis.timeout=10s".into()], every }
    }

    /// A stream of so many entries of this size, whose groups have so many waiting.
    fn stream(&mut self, key: &str, entries: u64, bytes: usize, waiting: impl Iterator<Item = u64>) {
        let mut connection = self.server.connection();
        let payload = "x".repeat(bytes);
        for first in (1..=entries).step_by(64) {
            let mut pipeline = redis::pipe();
            for id in first..(first + 64).min(entries + 1) {
                pipeline.cmd("XADD").arg(&[key, &format!("{id}-0"), "payload", &payload]).ignore();
            }
            pipeline.query::<()>(&mut connection).unwrap();
        }
        let mut pipeline = redis::pipe();
        for (number, waits) in waiting.enumerate() {
            let group = format!("g{number}");
            pipeline.cmd("XGROUP").arg(&["CREATE", key, &group, &format!("{}-0", entries - waits)]).ignore();
            self.groups.push((key.to_owned(), group, waits));
        }
        if !pipeline.is_empty() {
            pipeline.query::<()>(&mut connection).unwrap();
        }
        self.streams.push(key.to_owned());
    }

    fn exporter(&self) -> Exporter {
        let names: Vec<_> = self.streams.iter().map(|key| format!("--stream={key}")).collect();
        let options: Vec<_> = names.iter().chain(&self.options).map(String::as_str).collect();
        Exporter::start(&self.server, &options)
    }

    /// Fails where the page says something that is not so.
    fn check(&self, page: &Page) {
        assert!(page.up(), "a healthy Redis is said to be down: {page:?}");
        let samples: HashMap<_, f64> = page
            .0
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(series, value)| Some((series, value.parse().ok()?)))
            .collect();
        for (stream, group, waits) in &self.groups {
            let of = |metric: &str| {
                let series = format!("redis_stream_group_{metric}{{stream=\"{stream}\",group=\"{group}\"}}");
                samples.get(series.as_str()).copied()
            };
            let said = of("messages_undelivered");
            assert!(said.is_none_or(|said| said == *waits as f64), "{group} of {stream}: {said:?}, not {waits}");
            let least = of("messages_undelivered_at_least");
            let bounds = 1.0_f64.min(*waits as f64)..=*waits as f64;
            assert!(
                least.is_some_and(|least| bounds.contains(&least)),
                "{group} of {stream}: {least:?} of {waits}; evicted: {}",
                meter::info(&self.server, "evicted_keys")
            );
            let lost = of("messages_lost");
            assert!(lost.is_none_or(|lost| lost == 0.0), "{group} of {stream}: {lost:?} lost");
        }
    }

    /// Scrapes, and measures what that does to another client and to memory.
    fn measure(&self, scale: Scale, scrapes: u64, check: impl Fn(&Page)) -> Outcome {
        let idle = Pings::during(&self.server, Duration::from_secs(scale.of(1, 3)));
        meter::begin_slow_log(&self.server);
        let evicted = meter::info(&self.server, "evicted_keys");
        let exporter = self.exporter();
        let pings = Pings::start(&self.server);
        let mut exact = 0;
        for _ in 0..scrapes {
            pings.count(true);
            let page = exporter.scrape();
            thread::sleep(SETTLED);
            pings.count(false);
            check(&page);
            exact += page.0.matches("redis_stream_group_messages_undelivered{").count();
            thread::sleep(self.every);
        }
        let seen = pings.stop();
        let stall = seen.longest;
        assert!(stall < LONGEST_STALL || scale == Scale::Full, "another client waited {stall:?}");
        let peak_bytes = meter::memory(exporter.pid(), "VmHWM");
        assert!(peak_bytes < MOST_MEMORY, "the exporter's peak was {peak_bytes} bytes");
        let evicted = meter::info(&self.server, "evicted_keys") - evicted;
        assert_eq!(evicted, 0, "keys were evicted");
        let command = meter::longest_command(&self.server);
        drop(exporter);
        let mut note = String::new();
        if !self.groups.is_empty() {
            let share = exact as f64 * 100.0 / (self.groups.len() as f64 * scrapes as f64);
            let _ = write!(note, "{share:.0} % of the groups exact");
        }
        Outcome {
            scrapes,
            stall: Some(stall),
            idle_stall: Some(idle.longest),
            command,
            peer_stall: (scale == Scale::Full).then(|| peer::longest_stall(&self.server, &self.streams, scrapes)),
            peak_bytes: Some(peak_bytes),
            redis_bytes: Some(seen.memory.saturating_sub(idle.memory)),
            note,
        }
    }
}

fn of_large_entries(groups: u64) -> Workload {
    let mut workload = Workload::new(Server::redis7());
    workload.stream("s", 300, 100_000, (0..groups).map(|group| 150 - group));
    workload
}

fn large_entries(scale: Scale, groups: u64) -> Outcome {
    let workload = of_large_entries(groups);
    workload.measure(scale, scale.of(5, 100), |page| workload.check(page))
}

fn without_scripts(scale: Scale) -> Outcome {
    let workload = of_large_entries(100);
    workload.server.run("ACL SETUSER default -eval_ro");
    workload.measure(scale, scale.of(5, 100), |page| workload.check(page))
}

fn many_groups(scale: Scale, busy: bool) -> Outcome {
    let mut workload = Workload::new(Server::redis7());
    workload.stream("s", 4_000, 1_500, (0..1_000).map(|group| 2_000 - group % 7));
    if !busy {
        return workload.measure(scale, scale.of(5, 50), |page| workload.check(page));
    }
    let writers = Writers::start(&workload.server);
    let outcome = workload.measure(scale, scale.of(5, 50), |page| workload.check(page));
    writers.stop();
    outcome
}

/// Clients that write to other streams as fast as they can.
struct Writers(Arc<AtomicBool>, Vec<thread::JoinHandle<()>>);

impl Writers {
    fn start(server: &Server) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let writer = |number: usize| {
            let (mut connection, done) = (server.connection(), Arc::clone(&done));
            thread::spawn(move || {
                let key = format!("busy{number}");
                while !done.load(Ordering::Relaxed) {
                    let mut pipeline = redis::pipe();
                    for _ in 0..10 {
                        pipeline.cmd("XADD").arg(&[&key, "MAXLEN", "~", "100", "*", "a", "b"]).ignore();
                    }
                    pipeline.query::<()>(&mut connection).unwrap();
                }
            })
        };
        let threads = (0..2).map(writer).collect();
        Self(done, threads)
    }

    fn stop(self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn many_streams(scale: Scale) -> Outcome {
    let mut workload = Workload::new(Server::redis7());
    for number in 0..100 {
        workload.stream(&format!("s{number}"), 400, 1_200, [172, 100].into_iter());
    }
    workload.measure(scale, scale.of(10, 100), |page| workload.check(page))
}

fn near_maxmemory(scale: Scale) -> Outcome {
    let mut workload = Workload::new(Server::redis7());
    for number in 0..50 {
        workload.stream(&format!("s{number}"), 2, 1_000_000, [1].into_iter());
    }
    let server = &workload.server;
    server.run("CONFIG SET maxmemory-policy allkeys-lru");
    server.run(&format!("CONFIG SET maxmemory {}", meter::info(server, "used_memory") + 20_000_000));
    // redis_exporter would evict streams, so its turn comes last.
    let outcome = workload.measure(scale, scale.of(3, 30), |page| workload.check(page));
    let left: u64 = redis::from_redis_value(workload.server.run("DBSIZE")).unwrap();
    let theirs = if scale == Scale::Full {
        format!("; after redis_exporter {left} of 50 streams were left")
    } else {
        String::new()
    };
    Outcome { note: format!("{}; nothing evicted{theirs}", outcome.note), ..outcome }
}

fn growing_entries(scale: Scale) -> Outcome {
    let mut workload = Workload::new(Server::redis7());
    workload.stream("s", 100, 100, std::iter::empty());
    workload.server.run("XGROUP CREATE s g 50-0");
    let state = std::cell::Cell::new((101_u64, 100_usize));
    workload.measure(scale, scale.of(20, 100), |page| {
        let (next, bytes) = state.get();
        assert!(page.up());
        let (waits, said) = (next - 51, page.group("messages_undelivered", "s", "g"));
        assert!(said.is_none_or(|said| said == waits as f64), "{said:?}, not {waits}");
        let payload = "x".repeat(bytes);
        workload.server.run_args(&[b"XADD", b"s", format!("{next}-0").as_bytes(), b"payload", payload.as_bytes()]);
        state.set((next + 1, (bytes * 2).min(1_000_000)));
    })
}

fn large_after_small(scale: Scale) -> Outcome {
    let mut workload = Workload::new(Server::redis7());
    workload.stream("s", 164, 100, std::iter::empty());
    workload.server.run("XTRIM s MAXLEN 100");
    workload.server.run("XGROUP CREATE s g 101-0");
    let payload = "x".repeat(1_000_000);
    for id in 165..229 {
        workload.server.run_args(&[b"XADD", b"s", format!("{id}-0").as_bytes(), b"payload", payload.as_bytes()]);
    }
    workload.groups.push(("s".into(), "g".into(), 127));
    workload.measure(scale, scale.of(5, 100), |page| workload.check(page))
}

fn consumers(scale: Scale, count: u64) -> Outcome {
    let mut workload = Workload::new(Server::redis7());
    workload.stream("s", 200, 1_200, [172].into_iter());
    let mut connection = workload.server.connection();
    for first in (0..count).step_by(1_000) {
        let mut pipeline = redis::pipe();
        for consumer in first..(first + 1_000).min(count) {
            pipeline.cmd("XGROUP").arg(&["CREATECONSUMER", "s", "g0", &consumer.to_string()]).ignore();
        }
        pipeline.query::<()>(&mut connection).unwrap();
    }
    workload.server.read("s", "g0", "7", 3);
    workload.groups[0].2 -= 3;
    workload.measure(scale, scale.of(5, 30), |page| {
        workload.check(page);
        assert_eq!(page.group("messages_pending", "s", "g0"), Some(3.0));
    })
}

fn many_keys(scale: Scale) -> Outcome {
    let server = Server::start_with(Flavor::Redis7, &["--enable-debug-command", "yes"]);
    let mut workload = Workload::new(server);
    workload.stream("exact", 200, 1_200, [172].into_iter());
    populate(&workload.server, scale.of(300_000, 5_000_000));
    workload.options.push("--stream=instrument:*".into());
    let slowest = std::cell::Cell::new(Duration::ZERO);
    let took = |page: &Page| page.value("prompt_redis_exporter_collection_duration_seconds").unwrap();
    let outcome = workload.measure(scale, scale.of(5, 30), |page| {
        workload.check(page);
        slowest.set(slowest.get().max(Duration::from_secs_f64(took(page))));
    });
    let most = scale.of(Duration::from_millis(500), Duration::from_millis(200));
    assert!(slowest.get() < most, "a page took {:?}", slowest.get());
    let found = found_after(&workload, scale);
    let note = format!("slowest page {:.0?}; a new stream was found after {found:.0?}", slowest.get());
    Outcome { note, ..outcome }
}

fn populate(server: &Server, keys: u64) {
    let mut connection = server.connection();
    connection.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    redis::cmd("DEBUG").arg("POPULATE").arg(keys).arg("other").arg(16).exec(&mut connection).unwrap();
    until("the keys are there", || server.run("PING") == redis::Value::SimpleString("PONG".into()));
}

/// How long it takes until a stream that is new is on a page: in full, with a scrape every fifteen seconds.
fn found_after(workload: &Workload, scale: Scale) -> Duration {
    let exporter = workload.exporter();
    exporter.scrape();
    workload.server.run("XGROUP CREATE instrument:new g $ MKSTREAM");
    let began = Instant::now();
    while exporter.scrape().stream("exists", "instrument:new") != Some(1.0) {
        assert!(began.elapsed() < Duration::from_secs(75), "the new stream is not found");
        thread::sleep(scale.of(Duration::from_millis(100), Duration::from_secs(15)));
    }
    began.elapsed()
}
