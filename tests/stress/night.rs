//! A whole night of observing, sped up, with faults now and then: two scrapers, and every page held against what the
//! server counted before and after it.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use redis::{Value, from_redis_value};

use crate::{
    Scale, Scenario, meter,
    report::Outcome,
    support::{Exporter, Page, Server, http},
};

pub const ALL: &[Scenario] = &[Scenario { name: "a whole night, with faults", play: night }];

const STREAM: &str = "instrument:lsstcam";
const GROUP: &str = "lsstcam_consumer_group";

/// What the server has counted: numbers that only grow.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    added: f64,
    read: f64,
    consumers: f64,
}

impl Counted {
    fn now(connection: &mut redis::Connection) -> Self {
        let map = |value: Value| from_redis_value::<HashMap<String, Value>>(value).unwrap();
        let number = |map: &HashMap<String, Value>, name: &str| match map[name] {
            Value::Int(number) => number as f64,
            _ => 0.0,
        };
        let stream = map(redis::cmd("XINFO").arg(&["STREAM", STREAM]).query(connection).unwrap());
        let groups: Vec<Value> = redis::cmd("XINFO").arg(&["GROUPS", STREAM]).query(connection).unwrap();
        let group = map(groups.into_iter().next().unwrap());
        Self {
            added: number(&stream, "entries-added"),
            read: number(&group, "entries-read"),
            consumers: number(&group, "consumers"),
        }
    }
}

/// Fails where the page says what was not so between the two moments.
fn hold(page: &Page, before: Counted, after: Counted) {
    let within = |said: Option<f64>, least: f64, most: f64, what: &str| {
        assert!(
            said.is_none_or(|said| (least..=most).contains(&said)),
            "{what} {said:?}: {before:?} {after:?}\n{page:?}"
        );
    };
    let of = |metric| page.group(metric, STREAM, GROUP);
    within(page.stream("entries_added_total", STREAM), before.added, after.added, "added");
    within(of("entries_read"), before.read, after.read, "read");
    within(of("consumers"), before.consumers, after.consumers, "consumers");
    let (fewest, most) = ((before.added - after.read).max(0.0), after.added - before.read);
    within(of("messages_undelivered"), fewest, most, "undelivered");
    within(of("messages_undelivered_at_least"), 0.0, most, "at least");
    within(of("messages_pending"), 0.0, after.read, "pending");
    within(of("messages_lost"), 0.0, 0.0, "lost");
}

/// The program that plays the night, which cargo builds beside the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples/observing_night");
    assert!(
        program.exists(),
        "{} is missing: cargo build --examples, with --release for make stress",
        program.display()
    );
    program
}

fn night(scale: Scale) -> Outcome {
    let server = Server::redis7();
    server.run(&format!("XGROUP CREATE {STREAM} {GROUP} $ MKSTREAM"));
    let exporter = Exporter::start(&server, &["--redis.timeout=1s"]);
    let done = Arc::new(AtomicBool::new(false));
    let (pages, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let scraper = |_| {
        let (mut connection, address) = (server.connection(), exporter.address.clone());
        let (done, pages, down) = (Arc::clone(&done), Arc::clone(&pages), Arc::clone(&down));
        thread::spawn(move || {
            // A collection that two scrapers share may have begun before the second asked.
            let mut before = Counted::now(&mut connection);
            while !done.load(Ordering::Relaxed) {
                let asked = Counted::now(&mut connection);
                let page = Page(http::request(&address, "GET", "/metrics", &[]).text());
                hold(&page, before, Counted::now(&mut connection));
                before = asked;
                pages.fetch_add(1, Ordering::Relaxed);
                down.fetch_add(u64::from(!page.up()), Ordering::Relaxed);
            }
        })
    };
    let scrapers: Vec<_> = (0..2).map(scraper).collect();
    let faults = thread::spawn({
        let (done, pid, mut connection) = (Arc::clone(&done), server.pid(), server.connection());
        move || {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_secs(2));
                number += 1;
                // The night's own connection must not be killed: only the exporter's is of a client that reads scripts.
                if number % 2 == 0 {
                    signal("-STOP", &pid);
                    thread::sleep(Duration::from_millis(1_200));
                    signal("-CONT", &pid);
                } else {
                    kill_exporter(&mut connection);
                }
            }
        }
    });
    let visits = scale.of("20", "1000");
    let played = Command::new(program())
        .args(["--redis.url", &server.url(), "--speed-up", scale.of("0", "1500"), "--seed", "7", "--visits", visits])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(played.stdout).unwrap();
    assert!(played.status.success(), "{said}");
    done.store(true, Ordering::Relaxed);
    faults.join().unwrap();
    for scraper in scrapers {
        scraper.join().unwrap();
    }
    let end = Counted::now(&mut server.connection());
    let page = exporter.scrape();
    hold(&page, end, end);
    assert_eq!(page.group("messages_undelivered", STREAM, GROUP), Some(end.added - end.read), "{page:?}");
    let peak_bytes = meter::memory(exporter.pid(), "VmHWM");
    assert!(peak_bytes < 48 << 20, "{peak_bytes}");
    assert!(!exporter.whole_log().contains("panic"));
    let note = format!(
        "{} entries, {} consumers; up 0 in {} pages, while Redis was stopped or the connection was killed; wrong: none",
        end.added,
        end.consumers,
        down.load(Ordering::Relaxed)
    );
    Outcome { scrapes: pages.load(Ordering::Relaxed), peak_bytes: Some(peak_bytes), note, ..Outcome::default() }
}

fn signal(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// Kills the connections whose last command is one that only the exporter sends.
fn kill_exporter(connection: &mut redis::Connection) {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(connection).unwrap();
    let sent = ["cmd=eval_ro", "cmd=xpending", "cmd=scan"];
    for line in list.lines().filter(|line| sent.iter().any(|command| line.contains(command))) {
        let id = line.split([' ', '=']).nth(1).unwrap();
        let _ = redis::cmd("CLIENT").arg(&["KILL", "ID", id]).exec(connection);
    }
}
