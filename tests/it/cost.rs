//! What a scrape costs Redis: round trips and commands.

use std::{collections::BTreeMap, time::Duration};

use prompt_redis_exporter::{
    cli::Cli,
    config::Config,
    redis::{collect::Collector, endpoint::Endpoint, progress::Progress},
};

use crate::support::{Exporter, Flavor, Page, Proxy, SOON, Server, until};

#[test]
fn a_collection_takes_one_round_trip_or_two() {
    let server = Server::redis7();
    for stream in 0..100 {
        server.run(&format!("XGROUP CREATE s{stream} g $ MKSTREAM"));
    }
    let proxy = Proxy::to(&server, Duration::ZERO);
    let url = proxy.url();
    let streams: Vec<_> = (0..100).map(|stream| format!("--stream=s{stream}")).collect();
    let mut args = vec![url.as_str()];
    args.extend(streams.iter().map(String::as_str));
    let exporter = Exporter::start_bare(&args);
    exporter.scrape();
    proxy.round_trips();
    assert!(exporter.scrape().up());
    assert_eq!(proxy.round_trips(), 1, "nothing waits, nothing is pending");

    server.add("s1", 1..=10);
    assert!(exporter.scrape().up());
    assert_eq!(proxy.round_trips(), 2, "all wait for a group that never read: one script confirms it");

    server.read("s1", "g", "w", 3);
    assert_eq!(exporter.scrape().group("messages_undelivered", "s1", "g"), Some(7.0));
    assert_eq!(proxy.round_trips(), 2, "something waits in the middle, something is pending");
}

#[test]
fn many_streams_take_few_round_trips() {
    const ONE_WAY: Duration = Duration::from_millis(300);
    // Before Redis's first reply the exporter sends no more than the other machine takes while Redis is busy: that is
    // the third round trip of a thousand streams. What is pending is asked for in a second write, in windows of as much.
    for (streams, pending, most) in [(200, false, 1.0), (1_000, false, 2.0), (200, true, 2.0)] {
        let server = Server::redis7();
        let mut pipeline = redis::pipe();
        for stream in 0..streams {
            let stream = format!("s{stream}");
            pipeline.cmd("XGROUP").arg(&["CREATE", &stream, "g", "$", "MKSTREAM"]).ignore();
            pipeline.cmd("XADD").arg(&[&stream, "1-0", "payload", &"x".repeat(10)]).ignore();
            let acknowledge = if pending { "COUNT" } else { "NOACK" };
            let words = ["GROUP", "g", "w", acknowledge, "1", "STREAMS", &stream, ">"];
            let words = words.iter().filter(|word| pending || **word != "1");
            pipeline.cmd("XREADGROUP").arg(words.collect::<Vec<_>>()).ignore();
        }
        pipeline.query::<()>(&mut server.connection()).unwrap();
        let proxy = Proxy::to(&server, ONE_WAY);
        let url = proxy.url();
        let names: Vec<_> = (0..streams).map(|stream| format!("--stream=s{stream}")).collect();
        let mut args = vec![url.as_str(), "--redis.timeout=30s"];
        args.extend(names.iter().map(String::as_str));
        let exporter = Exporter::start_bare(&args);
        exporter.scrape();
        let pages: Vec<_> = (0..2).map(|_| exporter.scrape()).collect();
        assert_eq!(pages[0].0.matches("redis_stream_group_messages_undelivered{").count(), streams);
        // The quicker of two: what is measured is the delay of the proxy, not how busy this machine is.
        let took = |page: &Page| page.value("prompt_redis_exporter_collection_duration_seconds").unwrap();
        let took = pages.iter().map(took).fold(f64::INFINITY, f64::min);
        let round_trips = took / (2.0 * ONE_WAY.as_secs_f64());
        assert!((most..most + 0.9).contains(&round_trips), "{streams} streams: {round_trips} round trips in {took} s");
    }
}

/// How often each command was called, by `INFO commandstats`.
fn calls(server: &Server) -> BTreeMap<String, u64> {
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
    let call = |line: &str| {
        let (command, numbers) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((command.to_owned(), numbers.split(',').next()?.parse().ok()?))
    };
    stats.lines().filter_map(call).collect()
}

#[test]
fn a_scrape_runs_these_commands_and_no_others() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.run("XGROUP CREATE quiet g $ MKSTREAM");
    server.add("s", 1..=10);
    server.read("s", "g", "w", 3);
    server.run("CONFIG RESETSTAT");
    let exporter = Exporter::start(&server, &["--stream=s", "--stream=quiet", "--stream=gone"]);
    for _ in 0..10 {
        assert!(exporter.scrape().up());
    }
    let mut calls = calls(&server);
    // Our own PING and RESETSTAT.
    calls.retain(|command, _| !command.starts_with("config") && command != "ping");
    let expected = [
        ("eval_ro", 10),
        // Once a connection.
        ("hello", 1),
        ("info", 10),
        ("time", 10),
        // Once more in the script that counts.
        ("xinfo|groups", 40),
        ("xinfo|stream", 40),
        // The lowest pending entry, and the summary.
        ("xpending", 20),
        // 7 entries wait. They are read together.
        ("xrevrange", 10),
    ];
    // redis-rs names itself on this test's own connection.
    calls.retain(|command, _| !command.starts_with("client"));
    assert_eq!(calls.into_iter().collect::<Vec<_>>(), expected.map(|(command, count)| (command.to_owned(), count)));
}

#[test]
fn one_call_of_the_script_counts_no_more_tiny_entries_than_its_work_allows() {
    let server = Server::redis7();
    let mut pipeline = redis::pipe();
    for entry in 1..=10_000 {
        pipeline.cmd("XADD").arg(&["s", &format!("{entry}-0"), "a", "b"]).ignore();
    }
    pipeline.query::<()>(&mut server.connection()).unwrap();
    server.run("XGROUP CREATE s g 1-0");
    let options = ["--stream=s", "--collector.undelivered-max=100000", "--collector.undelivered-budget=10s"];
    let page = Exporter::start(&server, &options).scrape();
    assert_eq!(page.group("messages_undelivered", "s", "g"), Some(9_999.0));
    // At 850 and a few for each entry, of 456,704 that a call may do.
    let scripts = calls(&server)["eval_ro"];
    assert!((15..=30).contains(&scripts), "{scripts} calls");
}

#[test]
fn one_call_of_the_script_reads_few_large_entries_after_small_ones() {
    let server = Server::redis7();
    let payload = "x".repeat(1_000_000);
    for entry in 1..=40 {
        let is_large = (2..=20).contains(&entry);
        let payload = if is_large { payload.as_bytes() } else { b"small" };
        server.run_args(&[b"XADD", b"s", format!("{entry}-0").as_bytes(), b"a", payload]);
    }
    server.run("XGROUP CREATE s g 1-0");
    // The budget suffices for one call.
    let exporter = Exporter::start(&server, &["--stream=s", "--collector.undelivered-budget=1us"]);
    let counted = || exporter.scrape().group("messages_undelivered_at_least", "s", "g").unwrap();
    let first = counted();
    assert!((20.0..=28.0).contains(&first), "{first}: 20 small ones, and at most eight large ones");
    let second = counted();
    assert!((1.0..=21.0).contains(&second), "{second}: it knows how large an entry may be");
}

#[test]
fn ten_thousand_streams_are_collected_in_bounded_memory() {
    let server = Server::redis7();
    for thousand in 0..10 {
        let mut pipeline = redis::pipe();
        for stream in 0..1_000 {
            let stream = format!("s{}", thousand * 1_000 + stream);
            pipeline.cmd("XADD").arg(&[&stream, "1-0", "payload", &"x".repeat(1_200)]).ignore();
            pipeline.cmd("XGROUP").arg(&["CREATE", &stream, "g", "0"]).ignore();
        }
        pipeline.query::<()>(&mut server.connection()).unwrap();
    }
    let exporter = Exporter::start(&server, &["--stream=s*", "--redis.timeout=30s"]);
    let mut page = exporter.scrape();
    until("all are found", || {
        page = exporter.scrape();
        page.0.matches("redis_stream_exists{").count() == 10_000
    });
    let resident = page.value("process_resident_memory_bytes").unwrap();
    println!("{:.1} MB resident", resident / 1e6);
    // The payloads alone are 24 MB, twice in every reply.
    assert!(resident < 80e6, "{resident} bytes after the collection, before the page is written");
}

#[test]
fn many_patterns_hold_up_a_page_for_one_round_trip_each() {
    const ROUND_TRIP: Duration = Duration::from_millis(40);
    let server = Server::start_with(Flavor::Redis7, &["--enable-debug-command", "yes"]);
    server.run("DEBUG POPULATE 50000");
    let url = Proxy::to(&server, ROUND_TRIP / 2).url();
    let patterns: Vec<_> = (0..20).map(|number| format!("--stream={number}*")).collect();
    let args: Vec<_> = [&url].into_iter().chain(&patterns).map(String::as_str).collect();
    let page = Exporter::start_bare(&args).scrape();
    let round_trips =
        page.value("prompt_redis_exporter_collection_duration_seconds").unwrap() / ROUND_TRIP.as_secs_f64();
    println!("{round_trips:.1} round trips");
    assert!((20.0..40.0).contains(&round_trips), "{round_trips}");
}

#[test]
fn the_look_up_behind_a_page_ends_when_the_next_collection_begins() {
    let server = Server::start_with(Flavor::Redis7, &["--enable-debug-command", "yes"]);
    server.run("DEBUG POPULATE 200000");
    let proxy = Proxy::to(&server, Duration::from_millis(10));
    let cli = Cli::from_args(["x", &proxy.url(), "--stream=s*"]).unwrap();
    let config = Config::new(cli, None).unwrap();
    let collector = Collector::new(Endpoint::new(config.redis).unwrap(), config.selection, config.collect);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = || {
        let snapshot = runtime.block_on(collector.collect(SOON, &Progress::default(), &|| true)).unwrap();
        assert!(snapshot.patterns.is_empty(), "the look-up has not come to its end");
        runtime.metrics().num_alive_tasks()
    };
    let first = tasks();
    assert_eq!([tasks(), tasks(), tasks()], [first; 3]);
}
