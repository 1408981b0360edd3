//! Resident memory of the release build: at 3 streams, at 1,000, and over 10,000 scrapes. `cargo bench --bench memory`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on should fail")]

#[path = "../tests/it/support.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod support;

use support::{Exporter, Server};

const MIB: f64 = 1024.0 * 1024.0;

fn server(streams: usize, consumers: usize) -> Server {
    let server = Server::redis7();
    let mut connection = server.connection();
    for number in 0..streams {
        let (key, mut pipeline) = (format!("s{number}"), redis::pipe());
        pipeline.cmd("XGROUP").arg(&["CREATE", &key, "g", "$", "MKSTREAM"]).ignore();
        for consumer in 0..consumers {
            pipeline.cmd("XGROUP").arg(&["CREATECONSUMER", &key, "g", &consumer.to_string()]).ignore();
        }
        for _ in 0..10 {
            pipeline.cmd("XADD").arg(&[&key, "*", "visit", &"x".repeat(1_200)]).ignore();
        }
        pipeline.cmd("XREADGROUP").arg(&["GROUP", "g", "w", "COUNT", "5", "STREAMS", &key, ">"]).ignore();
        pipeline.query::<()>(&mut connection).unwrap();
    }
    server
}

/// Resident memory after so many scrapes more, in MiB.
fn resident_after(exporter: &Exporter, scrapes: usize) -> f64 {
    for _ in 1..scrapes {
        exporter.get("/metrics", &[("Accept-Encoding", "gzip")]);
    }
    exporter.scrape().value("process_resident_memory_bytes").unwrap() / MIB
}

fn main() {
    let few = server(3, 704);
    let exporter = Exporter::start(&few, &["--stream=s*"]);
    let early = resident_after(&exporter, 1_000);
    let late = resident_after(&exporter, 10_000);
    println!(
        "MEMORY 3 streams x 704 consumers: {early:.2} MiB after 1,000 scrapes, {late:.2} MiB after 11,000 (goal: under 12, no growth)"
    );

    let many = server(1_000, 1);
    let exporter = Exporter::start(&many, &["--stream=s*"]);
    let wide = resident_after(&exporter, 300);
    println!("MEMORY 1,000 streams: {wide:.2} MiB after 300 scrapes (goal: under 32)");

    assert!(late < 12.0 && late - early < 0.25, "3 streams: {early:.2} MiB, then {late:.2} MiB");
    assert!(wide < 32.0, "1,000 streams: {wide:.2} MiB");
}
