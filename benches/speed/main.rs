//! What a scrape costs, side by side: this exporter, redis_exporter, the way of working of a poller in Python, and the
//! floor below which none can be. `make bench` runs it, and writes docs/performance.md from its results.
//!
//! For each workload a real redis-server is filled, and all exporters watch it. They are scraped in turn, round after
//! round, so that whatever else the machine does meets all of them alike. Then the same through a proxy that adds a
//! millisecond to each round trip. This program itself is a debug build: what it does between the two clock readings of a
//! scrape is to write a request and to read.
//!
//! `SECONDS_EACH` is the time that each exporter may take in each workload over each link; one that is slow is scraped in
//! fewer rounds. `WORKLOADS`, a list with commas, leaves others out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on should fail")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
#![allow(unreachable_pub, reason = "everything here is reached from the modules beside it")]

#[path = "../../tests/it/client.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod client;
mod exporter;
mod floor;
mod machine;
mod results;
mod scraper;
mod start;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests")]
mod support;
#[path = "../../tests/it/tls.rs"]
#[allow(dead_code, unused_imports, clippy::float_cmp, reason = "shared with the tests")]
mod tls;
mod usage;
mod workload;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use exporter::{Exporter, POLLER};
use floor::Bare;
use results::{Cost, Floor, Gzip, Measured, Results, Stall};
use scraper::Scraper;
use support::{Proxy, Server};
use workload::Workload;

const ROUNDS: usize = 301;
const SECONDS_EACH: f64 = 3.0;
/// Scrapes while another client watches for stalls.
const WATCHED: usize = 21;
/// After a scrape, so that what it leaves behind is counted with it.
const SETTLE: Duration = Duration::from_millis(1);
/// An exporter that takes longer for its first page is not scraped again in that workload.
const TOO_LONG: Duration = Duration::from_secs(5);
/// The poller is left out 1 ms away where a page of it takes longer on the same machine.
const FAR_TOO_LONG: Duration = Duration::from_secs(10);
/// One that takes less is scraped some times more before it is known how many rounds fit into its time.
const SHORT: Duration = Duration::from_millis(500);
const GZIP: &str = "Accept-Encoding: gzip\r\n";
/// What the proxy delays each way: it adds a millisecond to a round trip.
const ONE_WAY: Duration = Duration::from_micros(500);

fn main() {
    let began = Instant::now();
    let mut machine = machine::look();
    let chosen = std::env::var("WORKLOADS").ok();
    let is_chosen = |workload: &&Workload| {
        chosen.as_ref().is_none_or(|chosen| chosen.split(',').any(|name| name.trim() == workload.name))
    };
    let mut measured = Vec::new();
    let mut idle = None;
    for workload in workload::ALL.iter().filter(is_chosen) {
        let server = workload.load();
        idle.get_or_insert_with(|| usage::stall(&server, WATCHED, || thread::sleep(Duration::from_millis(20))));
        let direct = measure(workload, &server, Duration::ZERO, &exporter::ALL);
        let far_too_long = usage::milliseconds(FAR_TOO_LONG);
        let poller_is_slow =
            direct.exporters.iter().any(|cost| cost.exporter == POLLER && cost.latency.p50_ms > far_too_long);
        let exporters: Vec<_> = exporter::ALL.into_iter().filter(|name| *name != POLLER || !poller_is_slow).collect();
        measured.push(direct);
        if !workload.only_in_chart {
            measured.push(measure(workload, &server, ONE_WAY, &exporters));
        }
    }
    let starts = start::measure();
    machine.load_after = machine::load();
    let results = Results {
        machine,
        idle_stall_ms: idle.unwrap_or(Stall { median_ms: 0.0, worst_ms: 0.0 }),
        workloads: measured,
        starts,
        binary_bytes: fs::metadata(exporter::binary()).unwrap().len(),
        build_seconds: seconds("BUILD_SECONDS"),
        run_seconds: began.elapsed().as_secs_f64(),
        all_seconds: seconds("SECONDS_BEFORE").map(|before| before + began.elapsed().as_secs_f64()),
    };
    let file = std::env::var("RESULTS").unwrap_or_else(|_| "target/performance.json".to_owned());
    fs::write(exporter::root().join(&file), serde_json::to_string_pretty(&results).unwrap() + "\n").unwrap();
    println!("{file} is written, after {:.0} s", results.run_seconds);
}

/// The value of an environment variable, in seconds.
fn seconds(name: &str) -> Option<f64> {
    std::env::var(name).ok().and_then(|seconds| seconds.parse().ok())
}

/// Exporter and Redis processor time, and how long it took, of each scrape.
#[derive(Default)]
struct Samples {
    times: Vec<Duration>,
    cpu: Duration,
    redis_cpu: Duration,
}

impl Samples {
    fn take(&mut self, cpu: impl Fn() -> Duration, redis: u32, scrape: impl FnOnce()) {
        let (cpu_before, redis_before) = (cpu(), usage::cpu(redis));
        let began = Instant::now();
        scrape();
        self.times.push(began.elapsed());
        thread::sleep(SETTLE);
        self.cpu += cpu().saturating_sub(cpu_before);
        self.redis_cpu += usage::cpu(redis).saturating_sub(redis_before);
    }

    fn cpu_ms(&self) -> f64 {
        usage::milliseconds(self.cpu) / self.times.len() as f64
    }

    fn redis_cpu_ms(&self) -> f64 {
        usage::milliseconds(self.redis_cpu) / self.times.len() as f64
    }
}

/// An exporter under measurement, and in how many of the rounds it takes part.
struct Candidate {
    exporter: Exporter,
    samples: Samples,
    gzipped: Samples,
    gzip_bytes: usize,
    page_bytes: usize,
    share: Share,
}

/// So many of all rounds, evenly spread.
#[derive(Clone, Copy)]
struct Share(usize);

impl Share {
    /// As many as fit into the time of each exporter, and at least one.
    fn of(scrape: Duration) -> Self {
        Self(((seconds("SECONDS_EACH").unwrap_or(SECONDS_EACH) / scrape.as_secs_f64()) as usize).clamp(1, ROUNDS))
    }

    const fn takes(self, round: usize) -> bool {
        (round + 1) * self.0 / ROUNDS > round * self.0 / ROUNDS
    }
}

impl Candidate {
    fn new(name: &'static str, workload: &Workload, redis: u32, port: u16) -> Self {
        let exporter = Exporter::start(name, workload, port);
        let (samples, gzipped) = Default::default();
        let mut candidate = Self { exporter, samples, gzipped, gzip_bytes: 0, page_bytes: 0, share: Share(0) };
        // Connects, and learns sizes and keys.
        candidate.scrape(redis);
        if candidate.samples.times[0] < TOO_LONG {
            for _ in 0..if candidate.samples.times[0] < SHORT { 4 } else { 1 } {
                candidate.scrape(redis);
            }
            candidate.share = Share::of(candidate.samples.times[1..].iter().min().copied().unwrap_or(TOO_LONG));
            candidate.samples = Samples::default();
        }
        candidate
    }

    fn scrape(&mut self, redis: u32) {
        let (pid, exporter, bytes) = (self.exporter.pid(), &mut self.exporter, &mut self.page_bytes);
        self.samples.take(|| usage::cpu(pid), redis, || *bytes = exporter.scrape(""));
    }

    fn scrape_gzipped(&mut self, redis: u32) {
        let (pid, exporter, bytes) = (self.exporter.pid(), &mut self.exporter, &mut self.gzip_bytes);
        self.gzipped.take(|| usage::cpu(pid), redis, || *bytes = exporter.scrape(GZIP));
    }

    fn finish(mut self, server: &Server, is_direct: bool) -> Cost {
        let watched = if is_direct { self.share.0.min(WATCHED) } else { 0 };
        let resident_mib = self.exporter.resident_mib();
        let exporter = &mut self.exporter;
        let stall = (watched > 0).then(|| usage::stall(server, watched, || _ = exporter.scrape("")));
        let work = (watched > 0).then(|| usage::work(server, || _ = exporter.scrape("")));
        let gzip = (!self.gzipped.times.is_empty()).then(|| Gzip {
            p50_ms: usage::latency(&self.gzipped.times).p50_ms,
            cpu_ms: self.gzipped.cpu_ms(),
            page_bytes: self.gzip_bytes,
        });
        Cost {
            exporter: exporter.name.to_owned(),
            latency: usage::latency(&self.samples.times),
            gzip,
            cpu_ms: self.samples.cpu_ms(),
            redis_cpu_ms: self.samples.redis_cpu_ms(),
            stall,
            work,
            resident_mib,
            page_bytes: self.page_bytes,
        }
    }
}

fn measure(workload: &Workload, server: &Server, one_way: Duration, exporters: &[&'static str]) -> Measured {
    let is_direct = one_way.is_zero();
    let proxy = Proxy::to(server, one_way);
    let port = if is_direct { server.port } else { port_of(&proxy) };
    let redis: u32 = server.pid().parse().unwrap();
    let mut candidates: Vec<_> = exporters.iter().map(|name| Candidate::new(name, workload, redis, port)).collect();
    let mut bare = Bare::new(workload, server, port);
    let mut empty = Scraper::new(&candidates[0].exporter.address);
    let mut floor = |round: &mut Samples| {
        round.take(
            || Duration::ZERO,
            redis,
            || {
                bare.exchange();
                empty.get("/-/healthy", "");
            },
        );
    };
    floor(&mut Samples::default());
    let mut floors = Samples::default();
    // The fastest exporter decides how many rounds there are.
    let floor_share = candidates[0].share;
    for round in 0..ROUNDS {
        if floor_share.takes(round) {
            floor(&mut floors);
        }
        for candidate in candidates.iter_mut().filter(|candidate| candidate.share.takes(round)) {
            candidate.scrape(redis);
            if is_direct && candidate.exporter.name != POLLER {
                candidate.scrape_gzipped(redis);
            }
        }
    }
    let watched = floor_share.0.min(WATCHED);
    let floor = Floor {
        latency: usage::latency(&floors.times),
        redis_cpu_ms: floors.redis_cpu_ms(),
        stall: is_direct.then(|| usage::stall(server, watched, || floor(&mut Samples::default()))),
        work: is_direct.then(|| usage::work(server, || floor(&mut Samples::default()))),
    };
    let measured = Measured {
        workload: workload.name.to_owned(),
        describes: workload.describes.to_owned(),
        streams: workload.streams,
        only_in_chart: workload.only_in_chart,
        added_ms: usage::milliseconds(2 * one_way),
        floor,
        exporters: candidates.into_iter().map(|candidate| candidate.finish(server, is_direct)).collect(),
    };
    print(&measured);
    measured
}

/// A line for who watches the run.
fn print(measured: &Measured) {
    let floor = measured.floor.latency.p50_ms;
    print!("{}, {} ms added: floor {floor:.2} ms", measured.workload, measured.added_ms);
    for cost in &measured.exporters {
        let p50 = cost.latency.p50_ms;
        print!("; {} {p50:.2} ms ({:.2} x), CPU {:.2} ms", cost.exporter, p50 / floor, cost.cpu_ms);
    }
    println!();
}

fn port_of(proxy: &Proxy) -> u16 {
    proxy.url().rsplit(':').next().and_then(|port| port.parse().ok()).unwrap()
}
