//! Resident memory of the release build: at 3 streams, at 1,000, and over 10,000 scrapes. `cargo bench --bench memory`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on should fail")]

#[path = "../tests/it/client.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod client;
#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "shared with the tests")]
mod support;
#[path = "../tests/it/tls.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, clippy::float_cmp, reason = "shared with the tests")]
mod tls;

use std::fs;

use client::Client;
use support::{Exporter, Page, Server};

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

/// Resident memory after so many scrapes, each over a TLS connection of its own, with a certificate and a password.
fn resident_behind_tls(server: &Server, scrapes: usize) -> f64 {
    let dir = tempfile::TempDir::new().unwrap();
    let authority = tls::Authority::new();
    authority.write(dir.path(), "ca.crt");
    authority.sign(dir.path(), "server", "localhost", true);
    authority.sign(dir.path(), "client", "prometheus", true);
    let file = dir.path().join("web.yml");
    let text = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: ca.crt\n  \
         client_auth_type: RequireAndVerifyClientCert\nbasic_auth_users:\n  a: {}\n",
        bcrypt::hash("b", 10).unwrap()
    );
    fs::write(&file, text).unwrap();
    let exporter = Exporter::start(server, &["--stream=s*", &format!("--web.config.file={}", file.display())]);
    let client = Client::new(dir.path(), "ca.crt", Some("client"), rustls::DEFAULT_VERSIONS);
    let scrape = || client.get(&exporter.address, "/metrics", &[("Authorization", "Basic YTpi")]).unwrap().text();
    for _ in 1..scrapes {
        scrape();
    }
    Page(scrape()).value("process_resident_memory_bytes").unwrap() / MIB
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

    let behind_tls = resident_behind_tls(&few, 1_000);
    println!(
        "MEMORY 3 streams, TLS both ways and a password: {behind_tls:.2} MiB after 1,000 scrapes (goal: under 16)"
    );

    assert!(behind_tls < 16.0, "with TLS and a password: {behind_tls:.2} MiB");
    assert!(late < 12.0 && late - early < 0.25, "3 streams: {early:.2} MiB, then {late:.2} MiB");
    assert!(wide < 32.0, "1,000 streams: {wide:.2} MiB");
}
