//! What is on the page, for streams and groups in every state.

use crate::support::{Exporter, Flavor, Server, lint};

#[test]
fn a_page_has_every_stream_and_group_that_is_found() {
    let server = Server::redis7();
    server.run_all(
        "XGROUP CREATE instrument:lsstcam lsstcam_consumer_group $ MKSTREAM
         XGROUP CREATE instrument:hsc hsc_consumer_group $ MKSTREAM
         XGROUP CREATE instrument:hsc second $
         XGROUP CREATE other:stream group $ MKSTREAM
         SET instrument:text no",
    );
    let page = Exporter::start(&server, &[]).scrape();
    assert!(page.up());
    for (stream, group) in [
        ("instrument:lsstcam", "lsstcam_consumer_group"),
        ("instrument:hsc", "hsc_consumer_group"),
        ("instrument:hsc", "second"),
    ] {
        assert_eq!(page.group("exists", stream, group), Some(1.0), "{stream} {group}");
        assert_eq!(page.group("messages_pending", stream, group), Some(0.0));
    }
    assert_eq!(page.stream("groups", "instrument:hsc"), Some(2.0));
    assert!(!page.has("other:stream") && !page.has("instrument:text"), "{page:?}");
}

#[test]
fn null_is_not_zero() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s fresh $ MKSTREAM");
    let exporter = Exporter::start(&server, &["--stream=s"]);
    let page = exporter.scrape();
    assert_eq!(page.group("entries_read", "s", "fresh"), None, "entries-read of a fresh group is null");
    assert_eq!(page.group("lag", "s", "fresh"), Some(0.0));
    assert_eq!(page.group("last_delivered_timestamp_seconds", "s", "fresh"), None, "0-0 is not 1970");
    assert_eq!(page.stream("first_entry_timestamp_seconds", "s"), None);

    server.add("s", 1..=10);
    server.run("XGROUP CREATE s middle 5-0");
    let page = exporter.scrape();
    assert_eq!(page.group("lag", "s", "middle"), None, "lag of a group created in the middle is null");
    assert_eq!(page.group("entries_read", "s", "middle"), None);
    assert_eq!(page.group("messages_undelivered", "s", "middle"), Some(5.0));
    assert_eq!(page.group("messages_lost", "s", "middle"), None);
}

#[test]
fn ages_come_from_redis_clock() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    let now: (u64, u64) = redis::cmd("TIME").query(&mut server.connection()).unwrap();
    let ms = now.0 * 1000 + now.1 / 1000;
    let ids = [ms - 90_000, ms - 60_000, ms - 30_000];
    for id in ids {
        server.run(&format!("XADD s {id}-0 detector 1"));
    }
    server.read("s", "g", "worker", 1);
    let page = Exporter::start(&server, &["--stream=s"]).scrape();
    let age = |metric| page.group(metric, "s", "g").unwrap();
    assert!((90.0..95.0).contains(&age("oldest_pending_age_seconds")), "{page:?}");
    assert!((60.0..65.0).contains(&age("oldest_undelivered_age_seconds")), "{page:?}");
    let seconds =
        |ms: u64| f64::from(u32::try_from(ms / 1000).unwrap()) + f64::from(u32::try_from(ms % 1000).unwrap()) / 1000.0;
    assert_eq!(page.group("last_delivered_timestamp_seconds", "s", "g"), Some(seconds(ids[0])));
    assert_eq!(page.stream("first_entry_timestamp_seconds", "s"), Some(seconds(ids[0])));
    assert_eq!(page.stream("last_entry_timestamp_seconds", "s"), Some(seconds(ids[2])));
}

#[test]
fn an_id_that_is_no_time_has_no_age_and_no_timestamp() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=3);
    server.read("s", "g", "worker", 1);
    let page = Exporter::start(&server, &["--stream=s"]).scrape();
    assert_eq!(page.group("messages_undelivered", "s", "g"), Some(2.0));
    for metric in ["oldest_undelivered_age_seconds", "oldest_pending_age_seconds", "last_delivered_timestamp_seconds"] {
        assert_eq!(page.group(metric, "s", "g"), None, "{metric}");
    }
}

#[test]
fn a_missing_stream_or_group_is_shown_and_affects_nothing_else() {
    let server = Server::redis7();
    server.run("XGROUP CREATE there g $ MKSTREAM");
    let page =
        Exporter::start(&server, &["--stream=gone", "--stream=gone2=g", "--stream=there=missing", "--stream=there=g"])
            .scrape();
    assert!(page.up());
    assert_eq!(page.stream("exists", "gone"), Some(0.0));
    assert_eq!(page.stream("length", "gone"), None);
    assert_eq!(page.collected("gone"), Some(1.0), "that it is missing is known");
    assert_eq!(page.group("exists", "gone2", "g"), Some(0.0));
    assert_eq!(page.group("exists", "there", "missing"), Some(0.0));
    assert_eq!(page.group("messages_pending", "there", "missing"), None);
    assert_eq!(page.group("exists", "there", "g"), Some(1.0));
    assert_eq!(page.group("messages_pending", "there", "g"), Some(0.0));
    assert_eq!(page.errors("other"), 0.0);
}

#[test]
fn a_key_of_another_type_is_shown_and_affects_nothing_else() {
    let server = Server::redis7();
    server.run_all("SET text no\nXGROUP CREATE s g $ MKSTREAM");
    let exporter = Exporter::start(&server, &["--stream=text=g", "--stream=s"]);
    let page = exporter.scrape();
    assert!(page.up());
    assert_eq!(page.stream("exists", "text"), Some(0.0));
    assert_eq!(page.group("exists", "text", "g"), Some(0.0));
    assert_eq!(page.collected("text"), Some(0.0));
    assert_eq!(page.collected("s"), Some(1.0));
    assert_eq!(page.errors("wrong_type"), 1.0);
    exporter.scrape();
    let log = exporter.logged("about=\"stream text\"");
    assert_eq!(log.matches("about=\"stream text\"").count(), 1, "one line when it begins:\n{log}");
    server.run("DEL text");
    assert_eq!(exporter.scrape().collected("text"), Some(1.0));
    exporter.logged("there is no such key");
}

#[test]
fn only_the_groups_that_are_named_are_shown() {
    let server = Server::redis7();
    server.run_all("XGROUP CREATE s a $ MKSTREAM\nXGROUP CREATE s b $\nXGROUP CREATE s c $");
    let page = Exporter::start(&server, &["--stream=s=a", "--stream=s=b"]).scrape();
    assert_eq!(page.group("exists", "s", "a"), Some(1.0));
    assert_eq!(page.group("exists", "s", "b"), Some(1.0));
    assert!(!page.has("group=\"c\""));
    assert_eq!(page.stream("groups", "s"), Some(3.0), "the stream has three all the same");
}

#[test]
fn a_stream_named_and_found_appears_once() {
    let server = Server::redis7();
    server.run_all("XGROUP CREATE instrument:a g $ MKSTREAM\nXGROUP CREATE instrument:a h $");
    let args = ["--stream=instrument:a=g", "--stream=instrument:*", "--stream=*:a", "--stream=instrument:a"];
    let page = Exporter::start(&server, &args).scrape();
    assert_eq!(page.stream("exists", "instrument:a"), Some(1.0));
    assert_eq!(page.group("exists", "instrument:a", "h"), Some(1.0), "the pattern wants every group");
    assert_eq!(lint(&page.0), "");
}

#[test]
fn a_pattern_walks_the_whole_key_space() {
    let server = Server::redis7();
    let mut pipeline = redis::pipe();
    for key in 0..5_000 {
        pipeline.cmd("SET").arg(format!("instrument:text:{key}")).arg(1).ignore();
    }
    for stream in 0..50 {
        pipeline.cmd("XGROUP").arg(&["CREATE", &format!("instrument:{stream}"), "g", "$", "MKSTREAM"]).ignore();
    }
    pipeline.query::<()>(&mut server.connection()).unwrap();
    let page = Exporter::start(&server, &["--stream=instrument:*"]).scrape();
    assert_eq!(page.0.matches("redis_stream_exists{").count(), 50);
}

#[test]
fn deleted_streams_and_groups_leave_the_page() {
    let server = Server::redis7();
    server.run_all("XGROUP CREATE instrument:a g $ MKSTREAM\nXGROUP CREATE instrument:b g $ MKSTREAM");
    let exporter = Exporter::start(&server, &[]);
    assert!(exporter.scrape().has("instrument:b"));
    server.run("XGROUP DESTROY instrument:a g");
    server.run("DEL instrument:b");
    let page = exporter.scrape();
    assert!(!page.has("instrument:b") && !page.has("group=\"g\""), "{page:?}");
    assert_eq!(page.stream("exists", "instrument:a"), Some(1.0));
}

#[test]
fn names_of_any_bytes_make_a_valid_page() {
    let server = Server::redis7();
    let names: [&[u8]; 6] =
        [b"quote\"", b"back\\slash", b"new\nline", b"bad\xffone", b"bad\xfeone", "späti\u{1f52d}".as_bytes()];
    for name in names {
        server.run_args(&[b"XGROUP", b"CREATE", name, name, b"$", b"MKSTREAM"]);
        server.run_args(&[b"XADD", name, b"*", name, name]);
        server.run_args(&[b"XREADGROUP", b"GROUP", name, name, b"STREAMS", name, b">"]);
    }
    // Two groups of one stream that are shown alike.
    server.run_args(&[b"XGROUP", b"CREATE", b"quote\"", b"g\xff", b"$"]);
    server.run_args(&[b"XGROUP", b"CREATE", b"quote\"", b"g\xfe", b"$"]);
    let exporter = Exporter::start(&server, &["--stream=*", "--collector.consumers"]);
    let page = exporter.scrape();
    assert_eq!(lint(&page.0), "");
    assert_eq!(page.stream("length", "quote\\\""), Some(1.0));
    assert_eq!(page.stream("length", "back\\\\slash"), Some(1.0));
    assert_eq!(page.stream("length", "new\\nline"), Some(1.0));
    assert_eq!(page.stream("length", "späti\u{1f52d}"), Some(1.0));
    assert_eq!(page.stream("length", "bad\u{fffd}one"), Some(1.0), "the first of two that look alike");
    assert_eq!(page.group("exists", "quote\\\"", "g\u{fffd}"), Some(1.0));
    assert!(page.has("consumer=\"quote\\\"\""));
    assert_eq!(page.errors("protocol"), 0.0);
}

#[test]
fn a_server_before_7_has_no_lag_and_no_number_in_its_place() {
    let server = Server::start(Flavor::Redis6);
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=10);
    server.read("s", "g", "worker", 4);
    let page = Exporter::start(&server, &["--stream=s"]).scrape();
    assert!(page.has("redis_version=\"6.2.14\""));
    assert_eq!(page.group("lag", "s", "g"), None);
    assert_eq!(page.group("entries_read", "s", "g"), None);
    assert_eq!(page.group("messages_lost", "s", "g"), None);
    assert_eq!(page.stream("entries_added_total", "s"), None);
    assert_eq!(page.group("messages_undelivered", "s", "g"), Some(6.0), "counted by EVAL where there is no EVAL_RO");
    assert_eq!(page.group("messages_pending", "s", "g"), Some(4.0));
    assert!(["permission", "other", "protocol"].iter().all(|kind| page.errors(kind) == 0.0), "{page:?}");
}

#[test]
fn valkey_says_both_its_versions() {
    let server = Server::start(Flavor::Valkey9);
    let page = Exporter::start(&server, &[]).scrape();
    assert!(page.has("valkey_version=\"9.1.2\"") && page.has("redis_version=\"7.2.4\""), "{page:?}");
    assert!(page.has("redis_mode=\"standalone\"") && page.has("role=\"master\""), "{page:?}");
}

#[test]
fn the_server_collector_can_be_left_out() {
    let server = Server::redis7();
    let page = Exporter::start(&server, &["--no-collector.server"]).scrape();
    assert!(page.up());
    assert!(!page.has("redis_instance_info") && !page.has("redis_memory_used_bytes"), "{page:?}");
    let asked: String = redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
    assert!(!asked.contains("cmdstat_info:"), "{asked}");
}

#[test]
fn consumers_are_shown_when_asked_for_most_pending_first_up_to_the_limit() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=10);
    server.run("XGROUP CREATECONSUMER s g idle");
    for (consumer, count) in [("one", 1), ("three", 3), ("two", 2)] {
        server.read("s", "g", consumer, count);
    }
    let consumers = ["--stream=s", "--collector.consumers", "--collector.consumers-max=2"];
    let page = Exporter::start(&server, &consumers).scrape();
    let pending = |consumer: &str| {
        let labels = format!("{{stream=\"s\",group=\"g\",consumer=\"{consumer}\"}}");
        page.value(&format!("redis_stream_group_consumer_messages_pending{labels}"))
    };
    assert_eq!([pending("three"), pending("two"), pending("one"), pending("idle")], [Some(3.0), Some(2.0), None, None]);
    assert_eq!(page.0.matches("redis_stream_group_consumer_idle_seconds{").count(), 2);
    assert_eq!(page.group("consumers", "s", "g"), Some(4.0));
    assert_eq!(page.group("consumers_with_pending", "s", "g"), Some(3.0));

    let page = Exporter::start(&server, &["--stream=s"]).scrape();
    assert!(!page.has("consumer=\""), "off unless asked for");
}

#[test]
fn a_replica_shows_its_role() {
    let master = Server::redis7();
    master.run("XGROUP CREATE s g $ MKSTREAM");
    master.add("s", 1..=3);
    let replica = Server::start_with(Flavor::Redis7, &["--replicaof", "127.0.0.1", &master.port.to_string()]);
    crate::support::until("the replica has the stream", || replica.run("EXISTS s") == redis::Value::Int(1));
    let page = Exporter::start(&replica, &["--stream=s"]).scrape();
    assert!(page.has("role=\"slave\""), "{page:?}");
    assert_eq!(page.group("messages_undelivered", "s", "g"), Some(3.0));
}

#[test]
fn a_unix_socket_and_a_database_number_work() {
    let server = Server::start_with(Flavor::Redis7, &["--unixsocket", "redis.sock", "--unixsocketperm", "700"]);
    let mut connection = server.connection();
    redis::cmd("SELECT").arg(3).exec(&mut connection).unwrap();
    redis::cmd("XGROUP").arg(&["CREATE", "s", "g", "$", "MKSTREAM"]).exec(&mut connection).unwrap();
    let socket = server.dir.path().join("redis.sock");
    let page = Exporter::start_bare(&[&format!("--redis.url=unix://{}?db=3", socket.display()), "--stream=s"]).scrape();
    assert_eq!(page.stream("exists", "s"), Some(1.0), "{page:?}");
    let page = Exporter::start_bare(&[&format!("--redis.url={}/3", server.url()), "--stream=s"]).scrape();
    assert_eq!(page.stream("exists", "s"), Some(1.0), "{page:?}");
}
