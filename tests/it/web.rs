//! Our own door: routes, formats, limits, and the graceful end.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;

use crate::support::{Exporter, Server, lint};

/// What Prometheus 2.42 sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

#[test]
fn every_path_answers_as_agreed() {
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
    assert!(exporter.get("/", &[]).text().contains("href=\"/metrics\""));
}

#[test]
fn the_metrics_can_be_elsewhere() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &["--web.telemetry-path=/redis/streams"]);
    assert!(exporter.get("/redis/streams", &[]).text().contains("redis_up"));
    assert_eq!(exporter.get("/metrics", &[]).status, 404);
    assert!(exporter.get("/", &[]).text().contains("href=\"/redis/streams\""));
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
fn gzip_packs_the_same_page() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &["--no-collector.server"]);
    let packed = exporter.get("/metrics", &[("Accept-Encoding", "gzip")]);
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut text = String::new();
    GzDecoder::new(packed.body.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(lint(&text), "");
    assert!(text.contains("\nredis_up 1\n"));
    assert_eq!(exporter.get("/metrics", &[]).header("content-encoding"), "");
}

#[test]
fn head_has_the_head_and_no_body() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    for path in ["/metrics", "/", "/-/healthy"] {
        let head = exporter.request("HEAD", path, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_ne!(head.header("content-length"), "0", "{path}");
    }
}

#[test]
fn two_hundred_silent_clients_cost_the_next_one_nothing() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    let mut silent: Vec<_> = (0..200).map(|_| TcpStream::connect(&exporter.address).unwrap()).collect();
    for client in &mut silent[..100] {
        client.write_all(b"GET /metrics HTT").unwrap();
    }
    let began = Instant::now();
    assert!(exporter.scrape().up());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_client_beyond_all_places_is_served_when_one_leaves() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    let silent: Vec<_> = (0..512).map(|_| TcpStream::connect(&exporter.address).unwrap()).collect();
    thread::sleep(Duration::from_millis(300));
    let address = exporter.address.clone();
    let waiting = thread::spawn(move || crate::support::request(&address, "GET", "/-/healthy", &[]).status);
    thread::sleep(Duration::from_millis(200));
    assert!(!waiting.is_finished(), "there is no place yet");
    drop(silent);
    assert_eq!(waiting.join().unwrap(), 200);
}

#[test]
fn a_client_that_never_asks_is_shown_out() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    let began = Instant::now();
    let mut silent = TcpStream::connect(&exporter.address).unwrap();
    silent.write_all(b"GET /metr").unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(silent.read(&mut [0; 64]).unwrap_or(0), 0, "closed without an answer");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    let refused = exporter.get("/metrics", &[("X-Large", &"x".repeat(20_000))]);
    assert_eq!(refused.status, 431);
    assert!(exporter.scrape().up());
}

#[test]
fn one_connection_serves_many_scrapes() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    let mut client = TcpStream::connect(&exporter.address).unwrap();
    for _ in 0..3 {
        client.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 512];
        let read = client.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"));
    }
}

#[test]
fn a_signal_finishes_the_scrape_in_flight_and_exits_0() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::redis7();
        server.run("XGROUP CREATE instrument:a g $ MKSTREAM");
        let mut exporter = Exporter::start(&server, &[]);
        assert!(exporter.scrape().up());
        server.run("CLIENT PAUSE 700 ALL");
        let address = exporter.address.clone();
        let in_flight = thread::spawn(move || crate::support::request(&address, "GET", "/metrics", &[]).text());
        thread::sleep(Duration::from_millis(200));
        exporter.signal(signal);
        assert!(in_flight.join().unwrap().contains("\nredis_up 1\n"), "the scrape in flight is finished");
        assert_eq!(exporter.wait(), 0);
        exporter.logged("message=stopping");
    }
}

#[test]
fn an_idle_client_does_not_hold_up_the_end() {
    let server = Server::redis7();
    let mut exporter = Exporter::start(&server, &[]);
    let _silent = TcpStream::connect(&exporter.address).unwrap();
    thread::sleep(Duration::from_millis(50));
    let began = Instant::now();
    exporter.signal("-TERM");
    assert_eq!(exporter.wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
