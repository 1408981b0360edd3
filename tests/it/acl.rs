//! The fewest rights: the line of the README is enough, and each right in it is needed for something.

use crate::support::{Exporter, Flavor, Page, Server, until};

const README: &str = include_str!("../../README.md");

/// The words of the line in the README that makes the user.
pub fn rights() -> Vec<&'static str> {
    let line = README.lines().find(|line| line.starts_with("ACL SETUSER ")).expect("README has an ACL line");
    line.split_whitespace().collect()
}

/// A server with a user that has these rights, and a group in every state that takes a command of the exporter's.
fn server(rights: &[&str]) -> Server {
    let server = Server::redis7();
    server.run("XGROUP CREATE instrument:lsstcam g $ MKSTREAM");
    server.run("XGROUP CREATE instrument:lsstcam slow 0");
    for entry in 0..8 {
        server.run(&format!("XADD instrument:lsstcam * detector {entry}"));
    }
    server.read("instrument:lsstcam", "g", "w", 5);
    server.read("instrument:lsstcam", "slow", "w", 1);
    server.run_args(&rights.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    server
}

fn scrape(server: &Server) -> (Page, Exporter) {
    let url = format!("--redis.url=redis://exporter:PASSWORD@127.0.0.1:{}", server.port);
    // Three messages wait for one group, and more than are counted for the other.
    let exporter = Exporter::start_bare(&[&url, "--collector.consumers", "--collector.undelivered-max=3"]);
    (exporter.scrape(), exporter)
}

#[test]
fn the_line_of_the_readme_is_enough() {
    let server = server(&rights());
    let (page, _) = scrape(&server);
    assert!(page.up());
    assert_eq!(page.errors("permission"), 0.0, "{page:?}");
    assert_eq!(page.group("messages_undelivered", "instrument:lsstcam", "g"), Some(3.0));
    assert!(page.group("oldest_pending_age_seconds", "instrument:lsstcam", "g").is_some());
    assert!(page.has("consumer=\"w\"") && page.has("redis_memory_used_bytes"));
    let denied: redis::Value = server.run("ACL LOG");
    assert_eq!(denied, redis::Value::Array(vec![]), "nothing was even tried that is not allowed");
}

/// Whether a page lacks something.
type IsAbsent = fn(&Page) -> bool;

#[test]
fn without_one_right_only_what_it_gives_is_absent() {
    let of = |page: &Page, metric: &str| page.group(metric, "instrument:lsstcam", "g");
    let absent: &[(&str, IsAbsent)] = &[
        ("+time", |page| !page.has("_age_seconds{") && !page.has("_timestamp_seconds{")),
        ("+info", |page| !page.has("redis_memory_used_bytes")),
        ("+scan", |page| !page.has("redis_stream_exists")),
        ("+xinfo|stream", |page| !page.has("redis_stream_length")),
        ("+xinfo|groups", |page| !page.has("redis_stream_group_exists")),
        ("+xinfo|consumers", |page| !page.has("consumer_idle_seconds")),
        ("+xpending", |page| !page.has("oldest_pending_age_seconds")),
        ("+xrange", |page| page.group("oldest_undelivered_age_seconds", "instrument:lsstcam", "slow").is_none()),
        ("+xrevrange", |page| !page.has("messages_undelivered{")),
        ("+eval_ro", |page| !page.has("messages_undelivered{")),
        ("%R~instrument:*", |page| !page.has("redis_stream_length")),
    ];
    let rights = rights();
    let given: Vec<_> = rights.iter().filter(|word| word.starts_with(['+', '%', '~'])).collect();
    assert_eq!(given.len(), absent.len(), "each right of the README is tried: {given:?}");
    for (right, is_absent) in absent {
        let fewer: Vec<_> = rights.iter().filter(|word| *word != right).copied().collect();
        assert_eq!(fewer.len() + 1, rights.len(), "{right} is in the README");
        let server = server(&fewer);
        let (page, exporter) = scrape(&server);
        assert!(page.up(), "without {right}");
        assert!(is_absent(&page), "without {right}:\n{page:?}");
        if matches!(*right, "+eval_ro" | "+xrevrange") {
            assert!(of(&page, "oldest_undelivered_age_seconds").is_some(), "the age comes from XRANGE");
            let next = exporter.scrape();
            assert_eq!(next.errors("permission"), 0.0, "a script that is not allowed is no error");
        } else if *right != "+xrange" {
            // A look-up of patterns rests for a moment before the next one.
            until(&format!("the next error without {right} is counted"), || {
                exporter.scrape().errors("permission") >= 2.0
            });
        }
    }
}

#[test]
fn without_the_right_to_look_up_entries_all_else_is_counted() {
    let rights: Vec<_> = rights().into_iter().filter(|right| *right != "+xrange").collect();
    let server = server(&rights);
    let (_, exporter) = scrape(&server);
    let page = exporter.scrape();
    assert_eq!(page.group("messages_undelivered", "instrument:lsstcam", "g"), Some(3.0), "{page:?}");
    assert_eq!(page.group("messages_undelivered_at_least", "instrument:lsstcam", "slow"), Some(4.0), "{page:?}");
    assert_eq!(page.collected("instrument:lsstcam"), Some(1.0), "{page:?}");
}

#[test]
fn a_key_that_may_not_be_read_affects_no_other() {
    let server = server(&rights());
    server.run("XGROUP CREATE secret g $ MKSTREAM");
    let url = format!("--redis.url=redis://exporter:PASSWORD@127.0.0.1:{}", server.port);
    let page = Exporter::start_bare(&[&url, "--stream=secret=g", "--stream=instrument:lsstcam"]).scrape();
    assert!(page.up());
    assert_eq!(page.collected("secret"), Some(0.0));
    assert_eq!(page.stream("exists", "secret"), None, "unknown");
    assert_eq!(page.group("exists", "secret", "g"), None, "unknown");
    assert_eq!(page.collected("instrument:lsstcam"), Some(1.0));
    assert_eq!(page.errors("permission"), 1.0);
}

#[test]
fn without_the_right_to_scripts_on_6_2_only_the_count_is_absent() {
    let server = Server::start(Flavor::Redis6);
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=5);
    server.read("s", "g", "w", 2);
    server.run("ACL SETUSER default -eval");
    let exporter = Exporter::start(&server, &["--stream=s"]);
    exporter.scrape();
    let page = exporter.scrape();
    assert_eq!(page.group("messages_undelivered", "s", "g"), None);
    assert_eq!(page.collected("s"), Some(1.0));
    assert_eq!(page.errors("permission"), 0.0);
}
