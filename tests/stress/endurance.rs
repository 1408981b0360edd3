//! Many scrapes: memory and open files do not grow, and no number is wrong while others write.

use std::{
    io::Write,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    Scale, Scenario, meter,
    report::Outcome,
    support::{
        Cluster, Exporter, Flavor, Proxy, Server, http, until,
        writers::{Collecting, LIMITS, Told, collect_beside_writers, collect_beside_writers_of},
    },
};

pub const ALL: &[Scenario] = &[
    Scenario { name: "scrapes, failing scrapes and aborted scrapes", play: leaks },
    Scenario { name: "200 scrapers for 30 s", play: many_scrapers },
    Scenario { name: "writers at full speed: Redis 7.0", play: |scale| writers(scale, Flavor::Redis7) },
    Scenario { name: "writers at full speed: Redis 8.2", play: |scale| writers(scale, Flavor::Redis8) },
    Scenario { name: "writers at full speed: Valkey 9", play: |scale| writers(scale, Flavor::Valkey9) },
    Scenario { name: "writers at full speed: a Cluster", play: cluster_writers },
    Scenario { name: "writers at full speed: Redis 7.0, entries of 80 kB", play: writers_of_large_entries },
];

/// What memory may grow by between the first and the last scrapes.
const GROWTH: u64 = 4 << 20;

/// Memory and open files of an exporter, once it has nothing to do.
fn taken(exporter: &Exporter) -> (u64, usize) {
    exporter.scrape();
    (meter::memory(exporter.pid(), "VmRSS"), meter::open_files(exporter.pid()))
}

fn leaks(scale: Scale) -> Outcome {
    let mut server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=100);
    server.read("s", "g", "w", 30);
    let exporter = Exporter::start(&server, &["--stream=s=g", "--stream=*"]);
    let (scrapes, failing, aborted) = scale.of((300, 100, 100), (20_000, 5_000, 5_000));
    (0..scale.of(100, 500)).for_each(|_| drop(exporter.scrape()));
    let before = taken(&exporter);
    (0..scrapes).for_each(|_| assert!(exporter.scrape().up()));
    for _ in 0..aborted {
        let mut client = TcpStream::connect(&exporter.address).unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    server.kill();
    // A collection that had begun before may be shared yet.
    until("Redis is down", || !exporter.scrape().up());
    (0..failing).for_each(|_| assert!(!exporter.scrape().up()));
    server.spawn();
    server.wait();
    until("all connections are closed", || taken(&exporter).1 <= before.1 + 1);
    let after = taken(&exporter);
    assert!(after.0 <= before.0 + GROWTH, "{} bytes resident, and {} after all", before.0, after.0);
    let note = format!(
        "{scrapes} whole, {failing} failing, {aborted} aborted: resident {:.1} MiB at first, {:.1} MiB at the end; \
         open files {} and {}",
        mebibytes(before.0),
        mebibytes(after.0),
        before.1,
        after.1
    );
    let peak_bytes = Some(meter::memory(exporter.pid(), "VmHWM"));
    Outcome { scrapes: scrapes + failing + aborted, peak_bytes, note, ..Outcome::default() }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn many_scrapers(scale: Scale) -> Outcome {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=100);
    server.read("s", "g", "w", 30);
    let exporter = Exporter::start(&server, &["--stream=s=g"]);
    (0..100).for_each(|_| drop(exporter.scrape()));
    let before = taken(&exporter);
    let (done, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let client = |_| {
        let (address, done, count) = (exporter.address.clone(), Arc::clone(&done), Arc::clone(&count));
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let page = http::request(&address, "GET", "/metrics", &[]).text();
                assert!(page.contains("\nredis_up 1\n"), "{page}");
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let clients: Vec<_> = (0..scale.of(50, 200)).map(client).collect();
    thread::sleep(Duration::from_secs(scale.of(2, 30)));
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    until("all connections are closed", || taken(&exporter).1 <= before.1 + 1);
    let page = exporter.scrape();
    let collections = page.value("prompt_redis_exporter_collections_total").unwrap();
    let scrapes = count.load(Ordering::Relaxed);
    let peak = meter::memory(exporter.pid(), "VmHWM");
    assert!(peak < 48 << 20, "{peak}");
    let note = format!("up 1 in all, in {collections} collections; open files {} and {}", before.1, taken(&exporter).1);
    Outcome { scrapes, peak_bytes: Some(peak), note, ..Outcome::default() }
}

/// Group pages in `make stress`, for each kind of server.
const GROUP_PAGES: u64 = 25_000;

fn told(told: &[Told]) -> Outcome {
    let sum = |count: fn(&Told) -> u64| told.iter().map(count).sum::<u64>();
    let note = format!(
        "{} groups, {} exact, {} with losses told, {} of them above 0; wrong: none",
        sum(|told| told.groups),
        sum(|told| told.exact),
        sum(|told| told.losses),
        sum(|told| told.lost)
    );
    Outcome { scrapes: sum(|told| told.collections), note, ..Outcome::default() }
}

/// Collections, so that all limits and both ways together show so many groups: about two and a half in each.
fn collections(scale: Scale) -> u64 {
    scale.of(20, GROUP_PAGES * 10 / 24 / 6)
}

fn writers(scale: Scale, flavor: Flavor) -> Outcome {
    let server = Server::start(flavor);
    let proxy = Proxy::cutting(&server, 11);
    let mut all = Vec::new();
    for (url, seed) in [(format!("--redis.url={}", server.url()), 3), (proxy.url(), 4)] {
        for limit in LIMITS {
            let collecting = Collecting::new(&[&url, limit]);
            all.push(collect_beside_writers(&server, &collecting, collections(scale), seed));
            all.last().unwrap().assert_true();
        }
    }
    told(&all)
}

/// One call of the script counts five of these entries, so most counts go on, and others write between the calls.
fn writers_of_large_entries(scale: Scale) -> Outcome {
    let server = Server::redis7();
    let url = format!("--redis.url={}", server.url());
    let collecting = Collecting::new(&[&url, "--collector.undelivered-budget=1s"]);
    let all = collect_beside_writers_of(80_000, &server, &collecting, scale.of(3, 150), 3);
    all.assert_true();
    told(&[all])
}

fn cluster_writers(scale: Scale) -> Outcome {
    let cluster = Cluster::start();
    let owner = cluster.owner_of_writers();
    let mut all = Vec::new();
    let mut collect = |url: &str, seed| {
        for limit in LIMITS {
            let collecting = Collecting::new(&[url, "--redis.cluster", limit]);
            all.push(collect_beside_writers(owner, &collecting, collections(scale), seed));
            all.last().unwrap().assert_true();
        }
    };
    collect(&format!("--redis.url={}", owner.url()), 3);
    let proxies = cluster.behind_proxies();
    collect(&proxies[0].url(), 4);
    told(&all)
}
