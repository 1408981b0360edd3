//! `make demo`, after the build: what it prints, what its page shows, and that it ends cleanly.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use crate::{night, support::request};

#[test]
fn the_demo_gives_the_address_of_its_page_and_says_what_to_try_next() {
    let mut demo = Command::new("scripts/demo.sh")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("EXPORTER", env!("CARGO_BIN_EXE_prompt-redis-exporter"))
        .env("NIGHT", night::program())
        .env("DEMO_SECONDS", "4")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(demo.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("Ctrl-C ends it") {
        assert!(out.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let after = |label: &str| said.split_once(label).unwrap_or_else(|| panic!("{label}: {said}")).1.trim_start();
    let port: String = after("http://localhost:").chars().take_while(char::is_ascii_digit).collect();
    let page = request(&format!("127.0.0.1:{port}"), "GET", "/", &[]).text();
    for part in ["XGROUP CREATE instrument:comcam", "instrument:lsstcam", "instrument:hsc", "instrument:latiss"] {
        assert!(page.contains(part), "{part} is not on the page:\n{page}");
    }
    let server = after("Redis:").lines().next().unwrap();
    assert!(server.starts_with("Redis ") || server.starts_with("Valkey "), "{said}");
    let redis: u16 = after("on port ").chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
    let line = after("Terminal:").lines().next().unwrap();
    assert!(line.contains(&format!(" status --redis.url=redis://127.0.0.1:{redis} ")), "{said}");
    let status = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains("XGROUP CREATE instrument:comcam"), "{status:?}");
    out.read_to_string(&mut said).unwrap();
    assert!(demo.wait().unwrap().success(), "{said}");
    assert!(said.contains("undelivered") && said.contains("cargo install --locked"), "{said}");
    let gone = std::net::TcpStream::connect(("127.0.0.1", redis));
    assert!(gone.is_err(), "its Redis ended with it");
}
