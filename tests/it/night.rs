//! A simulated night of observing on a real server: what the night says it did is what the page says.

use std::{collections::HashMap, path::PathBuf, process::Command};

use crate::support::{Exporter, Flavor, Page, Server};

const STREAM: &str = "instrument:lsstcam";
const GROUP: &str = "lsstcam_consumer_group";

/// The program that plays the night, which cargo builds beside the tests.
fn program() -> PathBuf {
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

/// Holds the page against the night.
fn check(page: &Page, night: &HashMap<String, f64>) {
    let of = |metric| page.group(metric, STREAM, GROUP);
    let did = |key: &str| Some(night[key]);
    assert_eq!(page.stream("entries_added_total", STREAM), did("added"));
    assert_eq!(page.stream("length", STREAM), did("length"));
    assert_eq!(of("entries_read"), did("read"));
    assert_eq!(of("messages_pending"), did("pending"));
    assert_eq!(of("messages_undelivered"), did("undelivered"));
    assert_eq!(of("consumers"), did("workers"));
    assert_eq!(night["read"] - night["acked"], night["pending"]);
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
    check(&page, &night);
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
    check(&page, &night);
    // A worker dies with the one message that it has just read.
    assert_eq!(page.group("consumers_with_pending", STREAM, GROUP), Some(night["died"]));
}

#[test]
fn a_trim_of_unread_messages_leaves_a_phantom_lag_and_its_size_is_what_was_lost() {
    let server = Server::redis7();
    let night = play(&server, &["--visits", "10", "--trim-unread", "5"]);
    assert!(night["trimmed_unread"] > 0.0, "{night:?}");
    let page = scrape(&server);
    check(&page, &night);
    assert_eq!(page.group("messages_lost", STREAM, GROUP), Some(night["trimmed_unread"]));
    assert_eq!(page.group("lag", STREAM, GROUP), Some(night["trimmed_unread"]), "Redis calls it lag, for ever");
    assert_eq!(page.group("messages_undelivered", STREAM, GROUP), Some(0.0));
}

#[test]
fn the_night_can_be_played_on_every_kind_of_server() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor);
        let night = play(&server, &["--visits", "3", "--instrument", "lsstcam", "--died", "0.1"]);
        let page = scrape(&server);
        assert_eq!(page.group("messages_pending", STREAM, GROUP), Some(night["pending"]), "{flavor:?}");
        assert_eq!(page.group("messages_undelivered", STREAM, GROUP), Some(night["undelivered"]), "{flavor:?}");
        assert_eq!(page.stream("length", STREAM), Some(night["length"]), "{flavor:?}");
    }
}
