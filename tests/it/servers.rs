//! What each kind of server makes of the same commands, as golden files: the table of what its counters can be trusted
//! for.

use redis::Value;

use crate::{
    golden::compare,
    support::{Exporter, Flavor, Server},
};

/// A stream for each state in which servers count differently, named after it.
fn play_the_states(server: &Server) {
    for stream in ["bootstrapped", "unread", "trimmed", "trimmed-read-on", "deleted", "deleted-read-on", "pending"] {
        server.run(&format!("XGROUP CREATE {stream} g $ MKSTREAM"));
        if stream != "bootstrapped" {
            server.add(stream, 1..=10);
        }
    }
    for stream in ["trimmed", "trimmed-read-on"] {
        server.read(stream, "g", "w", 4);
        server.run(&format!("XTRIM {stream} MAXLEN 1"));
    }
    for stream in ["deleted", "deleted-read-on"] {
        server.read(stream, "g", "w", 3);
        server.run(&format!("XDEL {stream} 7-0"));
    }
    for stream in ["trimmed-read-on", "deleted-read-on"] {
        server.read(stream, "g", "w", 10);
    }
    server.read("pending", "g", "w", 10);
    server.run("XACK pending g 1-0 2-0 3-0");
    server.add("set-by-hand", 1..=10);
    server.run_all("XGROUP CREATE set-by-hand middle 5-0\nXGROUP CREATE set-by-hand back $");
    server.run("XGROUP SETID set-by-hand back 2-0");
}

#[test]
fn the_same_states_on_each_kind_of_server() {
    for (flavor, name) in [
        (Flavor::Redis8, "states.redis-8.2.txt"),
        (Flavor::Redis7, "states.redis-7.0.txt"),
        (Flavor::Redis6, "states.redis-6.2.txt"),
        (Flavor::Valkey9, "states.valkey-9.txt"),
    ] {
        let server = Server::start(flavor);
        play_the_states(&server);
        let page = Exporter::start(&server, &["--stream=*"]).scrape();
        // The ids are no times, so that there are no ages; how long a message is pending differs from run to run.
        let constant = |line: &&str| line.starts_with("redis_stream_") && !line.contains("_idle_seconds{");
        let samples: String = page.0.lines().filter(constant).flat_map(|line| [line, "\n"]).collect();
        compare(name, &samples);
    }
}

#[test]
fn xtrim_acked_removes_only_what_every_group_has_read_and_acknowledged() {
    let server = Server::start(Flavor::Redis8);
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=10);
    server.read("s", "g", "w", 5);
    let trim = || server.run("XTRIM s MAXLEN 2 ACKED");
    assert_eq!(trim(), Value::Int(0), "five are not acknowledged, five are not read");
    server.run("XACK s g 1-0 2-0 3-0 4-0 5-0");
    assert_eq!(trim(), Value::Int(5), "what is not read stays, though the length is above 2");
    let page = Exporter::start(&server, &["--stream=s"]).scrape();
    assert_eq!(page.group("messages_undelivered", "s", "g"), Some(5.0));
    assert_eq!(page.group("messages_lost", "s", "g"), Some(0.0));
}

#[test]
fn a_group_that_nobody_reads_keeps_xtrim_acked_from_trimming_until_another_was_destroyed_after_it() {
    let server = Server::start(Flavor::Redis8);
    server.run_all("XGROUP CREATE s g $ MKSTREAM\nXGROUP CREATE s abandoned $");
    server.add("s", 1..=10);
    server.read("s", "g", "w", 5);
    server.run("XACK s g 1-0 2-0 3-0 4-0 5-0");
    let trim = || server.run("XTRIM s MAXLEN 2 ACKED");
    assert_eq!(trim(), Value::Int(0), "one group has read nothing");
    server.run("XGROUP DESTROY s abandoned");
    assert_eq!(trim(), Value::Int(0), "8.2.3 still goes by the group that is gone");
    server.run_all("XGROUP CREATE s short-lived 0\nXGROUP DESTROY s short-lived");
    assert_eq!(trim(), Value::Int(5));
}
