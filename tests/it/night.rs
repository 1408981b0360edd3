//! A simulated night of observing on a real server: the page says what the server holds, by this test's own count, and
//! so does the simulator.

use std::{collections::HashMap, path::PathBuf, process::Command};

use redis::{Value, from_redis_value};

use crate::support::{Exporter, Flavor, Page, Server};

const STREAM: &str = "instrument:lsstcam";
const GROUP: &str = "lsstcam_consumer_group";

/// The program that plays the night, which cargo builds beside the tests.
pub fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples/observing_night");
    assert!(program.exists(), "{} is missing: cargo build --examples", program.display());
    program
}

/// Plays a night as fast as can be, and gives the numbers it prints.
fn play(server: &Server, options: &[&str]) -> HashMap<String, f64> {
    let output = Command::new(program())
        .args(["--redis.url", &server.url(), "--bootstrap", "--speed-up", "0", "--seed", "7"])
        .args(options)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let pairs = said.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?))).collect()
}

/// What the server holds and was asked to do, counted entry by entry and command by command.
struct Held {
    added: f64,
    acked: f64,
    length: f64,
    undelivered: f64,
    pending: f64,
    consumers: f64,
}

impl Held {
    fn by(server: &Server) -> Self {
        let items = |command: &str| from_redis_value::<Vec<Value>>(server.run(command)).unwrap().len() as f64;
        let groups = server.run(&format!("XINFO GROUPS {STREAM}"));
        let groups: Vec<HashMap<String, Value>> = from_redis_value(groups).unwrap();
        let delivered: String = from_redis_value(groups[0]["last-delivered-id"].clone()).unwrap();
        Self {
            added: calls(server, "xadd"),
            acked: calls(server, "xack"),
            length: items(&format!("XRANGE {STREAM} - +")),
            undelivered: items(&format!("XRANGE {STREAM} ({delivered} +")),
            pending: items(&format!("XPENDING {STREAM} {GROUP} - + 1000000")),
            consumers: items(&format!("XINFO CONSUMERS {STREAM} {GROUP}")),
        }
    }
}

/// How often the server was given this command, by its own statistics.
fn calls(server: &Server, command: &str) -> f64 {
    let statistics: String = from_redis_value(server.run("INFO commandstats")).unwrap();
    let line = statistics.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0.0, |numbers| numbers.split(',').next().unwrap().parse().unwrap())
}

/// Compares the page, and the simulator's own numbers, with what the server holds.
fn check(flavor: Flavor, server: &Server, page: &Page, night: &HashMap<String, f64>) {
    let held = Held::by(server);
    let of = |metric| page.group(metric, STREAM, GROUP);
    for (metric, shown, counted) in [
        ("length", page.stream("length", STREAM), held.length),
        ("undelivered", of("messages_undelivered"), held.undelivered),
        ("pending", of("messages_pending"), held.pending),
        ("workers", of("consumers"), held.consumers),
    ] {
        assert_eq!((shown, night[metric]), (Some(counted), counted), "{flavor:?}: {metric}\n{page:?}");
    }
    assert_eq!((night["added"], night["acked"]), (held.added, held.acked), "{flavor:?}");
    // Nothing was deleted, so what is gone was trimmed.
    assert_eq!(night["trimmed"], held.added - held.length, "{flavor:?}");
    // Before 7.0 Redis does not count these.
    if flavor != Flavor::Redis6 {
        assert_eq!(page.stream("entries_added_total", STREAM), Some(held.added), "{flavor:?}");
    }
    if flavor == Flavor::Redis7 {
        assert_eq!(
            of("entries_read"),
            Some(held.acked + held.pending),
            "each message read was acknowledged, or not yet"
        );
    }
}

fn scrape(server: &Server) -> Page {
    Exporter::start(server, &["--collector.undelivered-max=100000"]).scrape()
}

#[test]
fn a_good_night_leaves_nothing_behind() {
    let server = Server::redis7();
    let night = play(&server, &["--visits", "20"]);
    assert_eq!((night["added"], night["visits"]), (20.0 * 172.0, 20.0));
    let page = scrape(&server);
    check(Flavor::Redis7, &server, &page, &night);
    assert_eq!(page.group("messages_undelivered", STREAM, GROUP), Some(0.0));
    assert_eq!(page.group("messages_lost", STREAM, GROUP), Some(0.0));
    assert_eq!(page.group("oldest_undelivered_age_seconds", STREAM, GROUP), Some(0.0));
}

#[test]
fn workers_that_die_leave_their_messages_pending() {
    let server = Server::redis7();
    let night = play(&server, &["--visits", "10", "--died", "0.05"]);
    assert!(night["died"] > 10.0, "{night:?}");
    assert_eq!(night["died"], night["pending"]);
    let page = scrape(&server);
    check(Flavor::Redis7, &server, &page, &night);
    // A worker dies with the one message that it has just read.
    assert_eq!(page.group("consumers_with_pending", STREAM, GROUP), Some(night["died"]));
}

#[test]
fn a_trim_of_unread_messages_leaves_a_phantom_lag_on_redis_7() {
    let server = Server::redis7();
    let night = play(&server, &["--visits", "10", "--trim-unread", "5"]);
    assert!(night["trimmed_unread"] > 0.0, "{night:?}");
    let page = scrape(&server);
    check(Flavor::Redis7, &server, &page, &night);
    assert_eq!(page.group("messages_lost", STREAM, GROUP), Some(night["trimmed_unread"]));
    assert_eq!(page.group("lag", STREAM, GROUP), Some(night["trimmed_unread"]), "it never falls");
    assert_eq!(page.group("messages_undelivered", STREAM, GROUP), Some(0.0));
}

#[test]
fn a_trim_of_unread_messages_leaves_no_trace_on_redis_8_once_the_group_has_read_on() {
    let server = Server::start(Flavor::Redis8);
    let night = play(&server, &["--visits", "10", "--trim-unread", "5"]);
    assert!(night["trimmed_unread"] > 0.0, "{night:?}");
    let page = scrape(&server);
    check(Flavor::Redis8, &server, &page, &night);
    for metric in ["lag", "messages_undelivered", "messages_lost"] {
        assert_eq!(page.group(metric, STREAM, GROUP), Some(0.0), "{metric}");
    }
}

#[test]
fn a_night_is_shown_truly_on_every_kind_of_server() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor);
        let night = play(&server, &["--visits", "3", "--instrument", "lsstcam", "--died", "0.1"]);
        check(flavor, &server, &scrape(&server), &night);
    }
}
