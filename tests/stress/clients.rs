//! Clients of the exporter's own pages that misbehave, and how long a scraper waits beside them.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{
    Scale, Scenario, meter,
    report::Outcome,
    support::{Exporter, SOON, Server, http, until},
};

pub const ALL: &[Scenario] = &[
    Scenario { name: "600 idle clients on kept connections", play: |scale| kept(scale, b"") },
    Scenario { name: "600 clients that do not finish their second request", play: |scale| kept(scale, b"GET /metr") },
    Scenario { name: "1,000 silent clients, each replaced when it is disconnected", play: silent },
    Scenario { name: "300 clients that guess passwords, just after a start", play: guessers },
    Scenario { name: "request heads of 1 MB", play: large_heads },
    Scenario { name: "pipelined requests", play: pipelined },
    Scenario { name: "10,000 connects", play: connects },
];

const HEALTHY: &[u8] = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";

/// A scraper waits at most so long on a quiet machine. In the quick half nothing beside is due to be quiet.
const SLOWEST: Duration = Duration::from_secs(1);
const SLOWEST_QUICK: Duration = Duration::from_secs(5);

fn connect(address: &str) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

fn send(address: &str, bytes: &[u8]) -> TcpStream {
    let mut client = connect(address);
    // The server may have closed it already.
    let _ = client.write_all(bytes);
    client
}

fn answer(client: &mut TcpStream) -> String {
    let mut bytes = [0; 4096];
    let read = client.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

/// Lets this process open as many files as the system allows.
fn raise_open_files_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Scrapes, each over a connection of its own, and says how long the slowest took.
fn scrapes(exporter: &Exporter, scale: Scale, count: (u64, u64), note: &str) -> Outcome {
    scrapes_with(exporter, scale, count, note, &[])
}

fn scrapes_with(exporter: &Exporter, scale: Scale, count: (u64, u64), note: &str, headers: &[(&str, &str)]) -> Outcome {
    let count = scale.of(count.0, count.1);
    let scrape = |_| {
        let began = Instant::now();
        let page = http::request(&exporter.address, "GET", "/metrics", headers).text();
        assert!(page.contains("\nredis_up 1\n"), "{page}");
        began.elapsed()
    };
    let slowest = (0..count).map(scrape).max().unwrap();
    assert!(slowest < scale.of(SLOWEST_QUICK, SLOWEST), "the slowest scrape took {slowest:?}");
    let peak = meter::memory(exporter.pid(), "VmHWM");
    assert!(peak < 48 << 20, "{peak} bytes");
    let note = format!("slowest scrape {slowest:.1?}{note}");
    Outcome { scrapes: count, peak_bytes: Some(peak), note, ..Outcome::default() }
}

fn kept(scale: Scale, begun: &[u8]) -> Outcome {
    raise_open_files_limit();
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    let kept = |_| {
        let mut client = send(&exporter.address, HEALTHY);
        assert!(answer(&mut client).starts_with("HTTP/1.1 200"));
        client.write_all(begun).unwrap();
        client
    };
    let _clients: Vec<_> = (0..600).map(kept).collect();
    scrapes(&exporter, scale, (5, 100), "")
}

fn silent(scale: Scale) -> Outcome {
    raise_open_files_limit();
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    let mut clients: Vec<_> = (0..1_000).map(|_| connect(&exporter.address)).collect();
    let mut replaced = 0;
    let mut replace = || {
        for client in &mut clients {
            client.set_nonblocking(true).unwrap();
            if !matches!(client.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock) {
                *client = connect(&exporter.address);
                replaced += 1;
            }
        }
    };
    let mut slowest = Duration::ZERO;
    let count = scale.of(5, 50);
    for _ in 0..count {
        replace();
        let began = Instant::now();
        assert!(exporter.scrape().up());
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < scale.of(SLOWEST_QUICK, SLOWEST), "the slowest scrape took {slowest:?}");
    assert!(replaced > 0, "the clients held no slot that was needed");
    let peak_bytes = Some(meter::memory(exporter.pid(), "VmHWM"));
    let note = format!("slowest scrape {slowest:.1?}; {replaced} clients replaced");
    Outcome { scrapes: count, peak_bytes, note, ..Outcome::default() }
}

fn guessers(scale: Scale) -> Outcome {
    let server = Server::redis7();
    let file = server.dir.path().join("web.yml");
    let cost = 10;
    let hash = bcrypt::hash("right", cost).unwrap();
    fs::write(&file, format!("basic_auth_users:\n  prometheus: {hash}\n")).unwrap();
    let exporter = Exporter::start(&server, &[&format!("--web.config.file={}", file.display())]);
    // Base64 of prometheus:wrong and prometheus:right.
    let guess = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic cHJvbWV0aGV1czp3cm9uZw==\r\n\r\n";
    let _guesses: Vec<_> = (0..300).map(|_| send(&exporter.address, guess)).collect();
    let right = [("Authorization", "Basic cHJvbWV0aGV1czpyaWdodA==")];
    scrapes_with(&exporter, scale, (3, 20), &format!("; bcrypt's cost {cost}"), &right)
}

fn large_heads(scale: Scale) -> Outcome {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    let head = [b"GET / HTTP/1.1\r\nX-Large: ".as_slice(), &vec![b'x'; 1 << 20]].concat();
    for _ in 0..scale.of(10, 500) {
        let response = answer(&mut send(&exporter.address, &head));
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 431"), "{response}");
    }
    scrapes(&exporter, scale, (5, 50), "")
}

fn pipelined(scale: Scale) -> Outcome {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    let count = scale.of(100, 1_000);
    let last = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let requests = [HEALTHY.repeat(count - 1).as_slice(), last].concat();
    let mut client = connect(&exporter.address);
    let mut writer = client.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&requests).unwrap());
    let mut responses = String::new();
    client.read_to_string(&mut responses).unwrap();
    writing.join().unwrap();
    assert_eq!(responses.matches("HTTP/1.1 200 OK").count(), count);
    scrapes(&exporter, scale, (5, 50), &format!("; {count} requests in one write, {count} responses"))
}

fn connects(scale: Scale) -> Outcome {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    assert!(exporter.scrape().up());
    let before = meter::open_files(exporter.pid());
    for number in 0..scale.of(500, 10_000) {
        let client = connect(&exporter.address);
        if number % 2 == 0 {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
    until("every connection is closed", || meter::open_files(exporter.pid()) <= before);
    scrapes(&exporter, scale, (5, 50), "; no file stays open")
}
