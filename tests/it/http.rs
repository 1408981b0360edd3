//! The HTTP server: routes, formats, limits, clients that misbehave, and the graceful end.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::support::{Exporter, Proxy, SOON, Server, lint, until};

/// What Prometheus 2.42 sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

const HEALTHY: &str = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";

/// An exporter without a Redis, for tests that need none.
fn exporter() -> Exporter {
    Exporter::start_bare(&["--redis.url=redis://127.0.0.1:1"])
}

fn connect(address: &str) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(3 * SOON)).unwrap();
    client
}

fn connect_and_send(address: &str, bytes: &[u8]) -> TcpStream {
    let mut client = connect(address);
    client.write_all(bytes).unwrap();
    client
}

/// Everything the server sends until it closes or resets the connection.
fn read_to_end(mut client: TcpStream) -> String {
    let mut received = Vec::new();
    let _ = client.read_to_end(&mut received);
    String::from_utf8_lossy(&received).into_owned()
}

/// Reads one response without a large body.
fn read_one(client: &mut TcpStream) -> String {
    let mut received = [0; 1024];
    let read = client.read(&mut received).unwrap();
    String::from_utf8_lossy(&received[..read]).into_owned()
}

/// A client that has been answered once, then sends these bytes.
fn kept(address: &str, bytes: &[u8]) -> TcpStream {
    let mut client = connect_and_send(address, HEALTHY.as_bytes());
    assert!(read_one(&mut client).starts_with("HTTP/1.1 200 OK"));
    client.write_all(bytes).unwrap();
    client
}

/// The longest of several scrapes, each over a connection of its own.
fn slowest_scrape(exporter: &Exporter) -> Duration {
    let scrape = |_| {
        let began = Instant::now();
        assert!(exporter.scrape().up());
        began.elapsed()
    };
    (0..5).map(scrape).max().unwrap()
}

/// Lets this process open as many files as the system allows.
fn raise_open_files_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
    });
}

/// Clients that connect and send nothing. Each that is disconnected is replaced by a new one.
pub struct Silent {
    stop: Arc<AtomicBool>,
    connects: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Silent {
    pub fn start(address: &str, clients: usize) -> Self {
        raise_open_files_limit();
        let (stop, connects) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (stop, connects, address) = (Arc::clone(&stop), Arc::clone(&connects), address.to_owned());
            let connect = move || {
                let client = TcpStream::connect(&address).unwrap();
                client.set_nonblocking(true).unwrap();
                connects.fetch_add(1, Ordering::Relaxed);
                client
            };
            move || {
                let mut silent: Vec<_> = (0..clients).map(|_| connect()).collect();
                while !stop.load(Ordering::Relaxed) {
                    for client in &mut silent {
                        if !matches!(client.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
                        {
                            *client = connect();
                        }
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self { stop, connects, thread: Some(thread) }
    }

    /// Waits until there were so many connects.
    pub fn wait_until_renewed(&self, connects: usize) {
        until("silent clients are replaced", || self.connects.load(Ordering::Relaxed) > connects);
    }

    /// Works beside the silent clients once they hold every slot. The work waits only for those that connected before
    /// it and for those that connect while it goes on: a number that does not depend on how busy this machine is.
    pub fn delay(&self, mut work: impl FnMut()) {
        self.wait_until_renewed(1_500);
        for _ in 0..5 {
            let (began, before) = (Instant::now(), self.connects.load(Ordering::Relaxed));
            work();
            let connects = self.connects.load(Ordering::Relaxed) - before;
            println!("beside silent clients: {:?}, {connects} connects (goal: under 1s)", began.elapsed());
            assert!(connects < 2_500 && began.elapsed() < SOON, "{connects} connects in {:?}", began.elapsed());
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

#[test]
fn every_path_has_its_response() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    for path in ["/", "/metrics", "/metrics?a=b", "/-/healthy", "/-/ready"] {
        assert_eq!(exporter.get(path, &[]).status, 200, "{path}");
    }
    for path in ["/nothing", "/metrics/", "//metrics", "/-/reload"] {
        assert_eq!(exporter.get(path, &[]).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let refused = exporter.request(method, "/metrics", &[]);
        assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"), "{method}");
    }
    assert!(exporter.get("/", &[]).text().contains("href=\"./metrics\""));
}

#[test]
fn the_metrics_can_have_another_path() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &["--web.telemetry-path=/redis/streams"]);
    assert!(exporter.get("/redis/streams", &[]).text().contains("redis_up"));
    assert_eq!(exporter.get("/metrics", &[]).status, 404);
    assert!(exporter.get("/", &[]).text().contains("href=\"./redis/streams\""));
}

#[test]
fn the_format_follows_the_accept_header() {
    let server = Server::redis7();
    server.run("XGROUP CREATE instrument:a g $ MKSTREAM");
    let exporter = Exporter::start(&server, &[]);
    let classic = exporter.get("/metrics", &[]);
    assert_eq!(classic.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(lint(&classic.text()), "");
    assert!(!classic.text().contains("# EOF"));
    let openmetrics = exporter.get("/metrics", &[("Accept", PROMETHEUS)]);
    assert_eq!(openmetrics.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(openmetrics.text().ends_with("# EOF\n"));
    assert!(openmetrics.text().contains("# TYPE redis_stream_entries_added counter"));
}

#[test]
fn gzip_compresses_the_same_page() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &["--no-collector.server"]);
    let compressed = exporter.get("/metrics", &[("Accept-Encoding", "gzip")]);
    assert_eq!(compressed.header("content-encoding"), "gzip");
    let mut text = String::new();
    GzDecoder::new(compressed.body.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(lint(&text), "");
    assert!(text.contains("\nredis_up 1\n"));
    assert_eq!(exporter.get("/metrics", &[]).header("content-encoding"), "");
}

#[test]
fn head_has_headers_and_no_body() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    for path in ["/metrics", "/", "/-/healthy"] {
        let head = exporter.request("HEAD", path, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_ne!(head.header("content-length"), "0", "{path}");
    }
}

#[test]
fn silent_clients_in_every_slot_do_not_delay_a_scrape() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    Silent::start(&exporter.address, 1_000).delay(|| assert!(exporter.scrape().up()));
    let log = exporter.logged("ran short: disconnecting");
    assert_eq!(log.matches("ran short: disconnecting").count(), 1, "{log}");
}

#[test]
fn idle_and_slow_clients_in_every_slot_do_not_delay_a_scrape() {
    raise_open_files_limit();
    let server = Server::redis7();
    for begun in ["", "GET /metrics HTTP/1.1\r\nHo"] {
        let exporter = Exporter::start(&server, &[]);
        let mut clients: Vec<_> = (0..600).map(|_| kept(&exporter.address, begun.as_bytes())).collect();
        let slowest = slowest_scrape(&exporter);
        println!("slowest scrape beside 600 kept connections with {begun:?}: {slowest:?} (goal: under 1s)");
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        exporter.logged("ran short: disconnecting");
        // The oldest had to go, the newest is still served.
        assert_eq!(read_to_end(clients.remove(0)), "");
        let mut newest = clients.pop().unwrap();
        let rest = if begun.is_empty() { HEALTHY } else { "st: x\r\n\r\n" };
        newest.write_all(rest.as_bytes()).unwrap();
        assert!(read_one(&mut newest).starts_with("HTTP/1.1 200 OK"), "{begun:?}");
    }
}

#[test]
fn idle_clients_that_use_up_the_file_descriptors_make_room_too() {
    let server = Server::redis7();
    let program = env!("CARGO_BIN_EXE_prompt-redis-exporter");
    let exec = format!("ulimit -n 60; exec {program} --web.listen-address=127.0.0.1:0 --redis.url={}", server.url());
    let exporter = Exporter::spawn(Command::new("sh").args(["-c", &exec]));
    assert!(exporter.scrape().up());
    let _idle: Vec<_> = (0..100).map(|_| connect(&exporter.address)).collect();
    let slowest = slowest_scrape(&exporter);
    println!("slowest scrape without a free file descriptor: {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    exporter.logged("cannot accept connections");
}

#[test]
fn a_scrape_under_way_is_not_disconnected_for_new_clients() {
    let server = Server::redis7();
    server.run("XGROUP CREATE instrument:a g $ MKSTREAM");
    let exporter = Exporter::start(&server, &[]);
    assert!(exporter.scrape().up());
    server.run("CLIENT PAUSE 1500 ALL");
    let mut scrape = connect_and_send(&exporter.address, b"GET /metrics HTTP/1.0\r\n\r\n");
    let silent = Silent::start(&exporter.address, 600);
    silent.wait_until_renewed(1_000);
    let mut page = String::new();
    scrape.read_to_string(&mut page).unwrap();
    assert!(page.contains("\nredis_up 1\n"), "{page}");
}

#[test]
fn fewer_idle_clients_than_slots_are_left_alone() {
    let exporter = exporter();
    let idle: Vec<_> = (0..300).map(|_| kept(&exporter.address, b"")).collect();
    assert_eq!(exporter.get("/-/healthy", &[]).status, 200);
    for mut client in idle {
        client.write_all(HEALTHY.as_bytes()).unwrap();
        assert!(read_one(&mut client).starts_with("HTTP/1.1 200 OK"));
    }
    assert!(!exporter.log().contains("ran short"), "{}", exporter.log());
}

#[test]
fn a_client_that_does_not_finish_a_head_is_disconnected() {
    let exporter = exporter();
    let began = Instant::now();
    let both = format!("{HEALTHY}GET /metr");
    let mut with_two = connect_and_send(&exporter.address, both.as_bytes());
    assert!(read_one(&mut with_two).starts_with("HTTP/1.1 200 OK"));
    let silent = connect(&exporter.address);
    let first = connect_and_send(&exporter.address, b"GET /metr");
    let second = kept(&exporter.address, b"GET /metr");
    // This one sends a byte now and then.
    let mut trickling = kept(&exporter.address, b"GET /");
    let trickling = thread::spawn(move || {
        while trickling.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    });
    for client in [silent, first, second, with_two] {
        assert_eq!(read_to_end(client), "", "closed without a response");
    }
    trickling.join().unwrap();
    let elapsed = began.elapsed();
    assert!(elapsed > Duration::from_secs(5) && elapsed < Duration::from_secs(25), "{elapsed:?}");
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let exporter = exporter();
    let large = format!("GET / HTTP/1.1\r\nX-Large: {}\r\n\r\n", "x".repeat(20_000));
    let client = connect_and_send(&exporter.address, large.as_bytes());
    assert!(read_to_end(client).starts_with("HTTP/1.1 431"));
    // The server does not read the rest, so the response may be lost in a reset.
    let mut client = connect_and_send(&exporter.address, b"GET / HTTP/1.1\r\nX-Large: ");
    let sent = client.write_all(&vec![b'x'; 1 << 20]);
    let response = read_to_end(client);
    assert!(response.is_empty() && sent.is_err() || response.starts_with("HTTP/1.1 431"), "{sent:?} {response}");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(500));
    let client = connect_and_send(&exporter.address, many.as_bytes());
    assert!(read_to_end(client).starts_with("HTTP/1.1 431"));
    assert_eq!(exporter.get("/-/healthy", &[]).status, 200);
}

#[test]
fn one_connection_serves_many_scrapes() {
    let exporter = exporter();
    let mut client = kept(&exporter.address, b"");
    for _ in 0..3 {
        client.write_all(HEALTHY.as_bytes()).unwrap();
        assert!(read_one(&mut client).starts_with("HTTP/1.1 200 OK"));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let exporter = exporter();
    let heads: String = ["/-/healthy", "/nothing", "/-/ready", "/metrics", "/nothing"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .concat();
    let last = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
    let received = read_to_end(connect_and_send(&exporter.address, format!("{heads}{last}").as_bytes()));
    let statuses: Vec<_> = received.split("HTTP/1.1 ").skip(1).map(|response| &response[..3]).collect();
    assert_eq!(statuses, ["200", "404", "200", "200", "404", "200"], "{received}");
}

#[test]
fn odd_requests_get_an_error_or_an_answer_and_never_hold_the_connection() {
    let exporter = exporter();
    for (head, status) in [
        ("BREW / HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"),
        ("get / HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"),
        ("TRACE /metrics HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"),
        ("OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"),
        ("CONNECT x:1 HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"),
        ("GET http://x/-/healthy HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 200"),
        ("GET /-/healthy HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
        ("GET / HTTP/2.0\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 400"),
        // HTTP/2: closed without a response.
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        ("GET /\r\n\r\n", "HTTP/1.1 400"),
        ("GET  / HTTP/1.1\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nBroken header\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", "HTTP/1.1 400"),
        ("\0\0\0\0", "HTTP/1.1 400"),
        ("\u{16}\u{3}\u{1}", "HTTP/1.1 400"),
    ] {
        let began = Instant::now();
        let response = read_to_end(connect_and_send(&exporter.address, head.as_bytes()));
        assert!(response.starts_with(status) && response.is_empty() == status.is_empty(), "{head:?}: {response}");
        assert!(began.elapsed() < Duration::from_secs(5), "{head:?}");
    }
}

#[test]
fn a_body_of_a_request_is_of_no_use_and_does_no_harm() {
    let exporter = exporter();
    for (rest, statuses) in [
        // The whole body is there, so the connection can be used again.
        (format!("Content-Length: 4\r\n\r\nbody{HEALTHY}"), &["200", "200"][..]),
        (format!("Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n{HEALTHY}"), &["200", "200"]),
        // The next request lies within the announced body.
        (format!("Content-Length: 1000\r\n\r\n{HEALTHY}"), &["200"]),
        // The announced body is shorter than what is sent.
        (format!("Content-Length: 1\r\n\r\nbody{HEALTHY}"), &["200", "405"]),
        ("Content-Length: 99999999999\r\n\r\n".into(), &["200"]),
        ("Content-Length: -1\r\n\r\n".into(), &["400"]),
        ("Content-Length: 1\r\nContent-Length: 2\r\n\r\n".into(), &["400"]),
        ("Transfer-Encoding: nonsense\r\n\r\n".into(), &["400"]),
    ] {
        let mut client = connect_and_send(&exporter.address, b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n");
        client.write_all(rest.as_bytes()).unwrap();
        let began = Instant::now();
        let mut received = String::new();
        while received.matches("HTTP/1.1 ").count() < statuses.len() {
            received += &read_one(&mut client);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{rest:?}");
        let found: Vec<_> = received.split("HTTP/1.1 ").skip(1).map(|response| &response[..3]).collect();
        assert_eq!(found, statuses, "{rest:?}: {received}");
    }
    assert_eq!(exporter.get("/-/healthy", &[]).status, 200);
}

/// The files that the exporter has open.
fn open_files(exporter: &Exporter) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", exporter.pid())).unwrap().count()
}

#[test]
fn two_thousand_connects_leave_nothing_open() {
    let exporter = exporter();
    let before = open_files(&exporter);
    for number in 0..2_000 {
        let client = connect_and_send(&exporter.address, HEALTHY.as_bytes());
        match number % 4 {
            0 => drop(client),
            1 => client.shutdown(Shutdown::Both).unwrap(),
            _ => assert!(read_one(&mut { client }).starts_with("HTTP/1.1 200 OK")),
        }
    }
    until("every connection is closed", || open_files(&exporter) <= before);
    assert!(!exporter.log().contains("ran short"), "{}", exporter.log());
}

#[test]
fn a_half_closed_client_is_answered_or_disconnected_at_once() {
    let exporter = exporter();
    let before = open_files(&exporter);
    for bytes in ["", "GET /-/hea", HEALTHY] {
        let client = connect_and_send(&exporter.address, bytes.as_bytes());
        client.shutdown(Shutdown::Write).unwrap();
        let began = Instant::now();
        let response = read_to_end(client);
        assert!(response.is_empty() || bytes == HEALTHY && response.starts_with("HTTP/1.1 200 OK"), "{response}");
        assert!(began.elapsed() < Duration::from_secs(5), "{bytes:?}");
    }
    until("every connection is closed", || open_files(&exporter) <= before);
}

#[test]
fn a_signal_finishes_the_scrape_under_way_and_exits_0() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::redis7();
        let proxy = Proxy::to(&server, Duration::from_millis(200));
        let mut exporter = Exporter::start_bare(&[&proxy.url()]);
        assert!(exporter.scrape().up());
        proxy.round_trips();
        let scrape = connect_and_send(&exporter.address, b"GET /metrics HTTP/1.0\r\n\r\n");
        until("the scrape is under way", || proxy.round_trips() > 0);
        exporter.signal(signal);
        let page = read_to_end(scrape);
        assert!(page.contains("\nredis_up 1\n"), "the scrape under way is finished: {page}");
        assert_eq!(exporter.wait(), 0);
        exporter.logged("message=stopping");
    }
}

#[test]
fn clients_without_a_complete_request_do_not_delay_the_exit() {
    let mut exporter = exporter();
    let silent = connect(&exporter.address);
    let first = connect_and_send(&exporter.address, b"GET /metrics HTTP/1.1\r\nHo");
    let second = kept(&exporter.address, b"GET /metrics HTTP/1.1\r\nHo");
    let idle = kept(&exporter.address, b"");
    let began = Instant::now();
    exporter.signal("-TERM");
    assert_eq!(exporter.wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    drop((silent, first, second, idle));
}
