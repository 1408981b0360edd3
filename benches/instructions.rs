//! Compares two builds of the exporter by the instructions that a scrape takes, counted by valgrind's callgrind. A busy
//! machine changes times, but not these. `make bench-instructions BASE=REVISION` builds both and runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on should fail")]
#![allow(clippy::cast_precision_loss, reason = "far below 2^52")]
#![allow(unreachable_pub, reason = "everything here is reached from the modules beside it")]

#[path = "speed/scraper.rs"]
mod scraper;
#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests")]
mod support;
#[path = "speed/workload.rs"]
#[allow(dead_code, reason = "shared with the other benchmark")]
mod workload;

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use scraper::Scraper;
use support::{Server, free_port};
use workload::Workload;

/// More instructions than this mean: look. The same build counted twice differs by less than a fifth of it.
const LOOK: f64 = 0.02;
/// Workloads, and how many scrapes are counted.
const COUNTED: [(&str, usize); 2] = [("observing", 100), ("heavy", 10)];
/// Scrapes before those that are counted: connections are made, and sizes and buffers settle.
const BEFORE: usize = 5;
/// Under valgrind everything takes fifty times as long.
const PATIENT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let builds: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let [base, new] = &builds[..] else { panic!("two builds of the exporter are compared: {builds:?}") };
    let mut look = false;
    println!("instructions of a scrape:");
    for (name, scrapes) in COUNTED {
        let workload = workload::ALL.iter().find(|workload| workload.name == name).unwrap();
        let server = workload.load();
        let [before, after] = [base, new].map(|build| of_one_scrape(build, workload, &server, scrapes));
        let change = after / before - 1.0;
        look |= change > LOOK;
        let verdict = if change > LOOK { "  look: more than 2 % more" } else { "" };
        println!("{name}: {before:.0} -> {after:.0}, {:+.2} %{verdict}", change * 100.0);
    }
    if look { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The difference of two runs that differ only in the number of scrapes, so that start and end are not counted.
fn of_one_scrape(build: &str, workload: &Workload, server: &Server, scrapes: usize) -> f64 {
    let few = of_run(build, workload, server, BEFORE);
    let many = of_run(build, workload, server, BEFORE + scrapes);
    (many - few) / scrapes as f64
}

fn of_run(build: &str, workload: &Workload, server: &Server, scrapes: usize) -> f64 {
    let port = free_port();
    let counts = Path::new(build).with_extension(format!("{}.callgrind", workload.name));
    let mut child = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", &format!("--callgrind-out-file={}", counts.display()), build])
        .arg(format!("--redis.url={}", server.url()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        // So that no collection ends early, as slow as this is.
        .args(["--redis.timeout=60s", "--collector.undelivered-budget=60s"])
        .args(workload.selectors().iter().map(|selector| format!("--stream={selector}")))
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("valgrind: {error}: scripts/install-tools.sh bench"));
    let address = format!("127.0.0.1:{port}");
    let began = Instant::now();
    while TcpStream::connect(&address).is_err() {
        assert!(began.elapsed() < PATIENT, "{build} does not listen");
        thread::sleep(Duration::from_millis(50));
    }
    let mut client = Scraper::new(&address);
    for _ in 0..scrapes {
        client.get("/metrics", "");
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    child.wait().unwrap();
    let text = fs::read_to_string(&counts).unwrap();
    let totals = text.lines().find_map(|line| line.strip_prefix("totals:")).unwrap();
    totals.trim().parse().unwrap()
}
