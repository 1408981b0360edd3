//! Every state in which servers count differently, on each kind of server: the page shows what is true.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::support::{Direction, Exporter, Flavor, Page, Proxy, Server, until};

/// What is true of the group, and what the counters can still show of the loss.
struct Truth {
    waits: f64,
    lost: Option<f64>,
}

fn check(state: &str, flavor: Flavor, page: &Page, truth: &Truth) {
    let of = |metric| page.group(metric, "s", "g");
    assert_eq!(of("messages_undelivered"), Some(truth.waits), "{flavor:?}, {state}: undelivered\n{page:?}");
    // Before 7.0 there is no counter of it.
    let lost = if flavor == Flavor::Redis6 { None } else { truth.lost };
    assert_eq!(of("messages_lost"), lost, "{flavor:?}, {state}: lost\n{page:?}");
}

#[test]
fn the_page_is_right_in_every_state() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor);
        let exporter = Exporter::start(&server, &["--stream=s"]);
        let check = |state: &str, waits, lost| check(state, flavor, &exporter.scrape(), &Truth { waits, lost });
        let afresh = || server.run_all("DEL s\nXGROUP CREATE s g $ MKSTREAM");

        afresh();
        check("just bootstrapped", 0.0, Some(0.0));
        server.add("s", 1..=10);
        check("10 added, none read", 10.0, Some(0.0));
        server.read("s", "g", "w", 4);
        check("4 of 10 read", 6.0, Some(0.0));
        server.run("XTRIM s MAXLEN 1");
        check("then trimmed to 1", 1.0, Some(5.0));
        server.read("s", "g", "w", 1);
        // Valkey forgets the loss when the group reads on.
        check("then the last one read", 0.0, Some(if flavor == Flavor::Redis7 { 5.0 } else { 0.0 }));

        afresh();
        server.add("s", 1..=10);
        server.read("s", "g", "w", 3);
        server.run("XDEL s 7-0");
        check("one deleted unread", 6.0, Some(0.0));
        server.read("s", "g", "w", 10);
        check("then all read", 0.0, Some(0.0));

        afresh();
        server.add("s", 1..=10);
        server.run_all("XGROUP DESTROY s g\nXGROUP CREATE s g 5-0");
        check("created in the middle", 5.0, None);
        server.run("XGROUP SETID s g 2-0");
        check("set back", 8.0, None);

        afresh();
        server.add("s", 1..=81);
        server.read("s", "g", "w", 40);
        server.run("XTRIM s MAXLEN 32");
        server.read("s", "g", "w", 100);
        check("the procedures' own example", 0.0, Some(if flavor == Flavor::Redis7 { 9.0 } else { 0.0 }));
        if flavor == Flavor::Redis7 {
            let page = exporter.scrape();
            assert_eq!(page.group("lag", "s", "g"), Some(9.0), "the lag is shown as Redis has it");
            assert_eq!(page.group("entries_read", "s", "g"), Some(72.0));
        }
    }
}

#[test]
fn beyond_the_limit_the_number_is_absent_and_the_age_is_not() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    let mut pipeline = redis::pipe();
    for detector in 0..12 {
        pipeline.cmd("XADD").arg("s").arg("*").arg("detector").arg(detector).ignore();
    }
    pipeline.query::<()>(&mut server.connection()).unwrap();
    server.read("s", "g", "w", 1);
    let undelivered = |max: &str| {
        let page = Exporter::start(&server, &["--stream=s", "--collector.undelivered-max", max]).scrape();
        assert!(page.group("oldest_undelivered_age_seconds", "s", "g").is_some_and(|age| age < 10.0), "{page:?}");
        page.group("messages_undelivered", "s", "g")
    };
    assert_eq!(undelivered("11"), Some(11.0), "as many as may be counted");
    assert_eq!(undelivered("10"), None, "one more");
    assert_eq!(undelivered("0"), None, "never counts");
    let scripts: String = redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
    assert!(scripts.contains("cmdstat_eval_ro:calls=2"), "0 runs no script: {scripts}");
}

/// A stream of a thousand entries of 1.5 kB, which one call of the script does not count, and two groups.
fn large_backlog(server: &Server) {
    let mut pipeline = redis::pipe();
    for entry in 1..=1_000 {
        pipeline.cmd("XADD").arg(&["s", &format!("{entry}-0"), "payload", &"x".repeat(1_500)]).ignore();
    }
    pipeline.query::<()>(&mut server.connection()).unwrap();
    server.run("XGROUP CREATE s far 50-0");
    server.run("XGROUP CREATE s near 900-0");
}

fn waiting(page: &Page) -> [Option<f64>; 3] {
    let of = |metric, group| page.group(metric, "s", group);
    [of("messages_undelivered", "near"), of("messages_undelivered", "far"), of("messages_undelivered_at_least", "far")]
}

#[test]
fn a_count_that_one_call_does_not_end_goes_on() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor);
        large_backlog(&server);
        let page = Exporter::start(&server, &["--stream=s", "--collector.undelivered-budget=1s"]).scrape();
        assert_eq!(waiting(&page), [Some(100.0), Some(950.0), Some(950.0)], "{flavor:?}\n{page:?}");
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
        let calls = |script: &str| {
            let (_, after) = stats.split_once(&format!("cmdstat_{script}:calls="))?;
            after.split_once(',')?.0.parse::<u32>().ok()
        };
        let calls = calls("eval_ro").or_else(|| calls("eval"));
        assert!(calls > Some(2), "{flavor:?}: 1.4 MB are more than two calls count: {stats}");
    }
}

#[test]
fn a_count_ends_with_a_lower_bound_where_the_stream_changed_below_it() {
    // Of the entries that are still to be counted, of those that were, at the head of the stream; and one that is added.
    for (change, far) in
        [("XDEL s 300-0", None), ("XDEL s 950-0", None), ("XTRIM s MAXLEN 990", None), ("XADD s * a b", Some(950.0))]
    {
        let server = Server::redis7();
        large_backlog(&server);
        let proxy = beside_those(&server, "EVAL", |number| number == 2, change);
        let exporter = Exporter::start_bare(&[&proxy.url(), "--stream=s", "--collector.undelivered-budget=1s"]);
        let page = exporter.scrape();
        let [near, counted, least] = waiting(&page);
        assert_eq!((near, counted), (Some(100.0), far), "{change}\n{page:?}");
        assert!(least.is_some_and(|least| (100.0..=950.0).contains(&least)), "{change}\n{page:?}");
        let again = waiting(&exporter.scrape());
        assert!(again[1].is_some(), "the next one is whole: {again:?}");
    }
}

#[test]
fn a_group_far_behind_takes_no_number_from_one_that_is_near() {
    let server = Server::redis7();
    large_backlog(&server);
    // Never read, far behind, and gone back: none of them is reached.
    server.run("XGROUP CREATE s new 0");
    server.run("XGROUP CREATE s mid 600-0");
    let exporter = Exporter::start(&server, &["--stream=s", "--collector.undelivered-max=500"]);
    let page = exporter.scrape();
    let of = |group| page.group("messages_undelivered", "s", group);
    assert_eq!((of("near"), of("mid"), of("far"), of("new")), (Some(100.0), Some(400.0), None, Some(1_000.0)));
    assert!(waiting(&page)[2].is_some_and(|least| (400.0..=501.0).contains(&least)), "{page:?}");
}

#[test]
fn streams_with_something_pending_leave_time_to_count_others() {
    let server = Server::redis7();
    let mut pipeline = redis::pipe();
    for stream in 0..500 {
        let stream = format!("pending{stream}");
        pipeline.cmd("XGROUP").arg(&["CREATE", &stream, "g", "$", "MKSTREAM"]).ignore();
        pipeline.cmd("XADD").arg(&[&stream, "1-0", "a", "b"]).ignore();
        pipeline.cmd("XREADGROUP").arg(&["GROUP", "g", "w", "STREAMS", &stream, ">"]).ignore();
    }
    for stream in 0..10 {
        let stream = format!("z{stream}");
        for entry in 1..=9 {
            pipeline.cmd("XADD").arg(&[&stream, &format!("{entry}-0"), "a", "b"]).ignore();
        }
        pipeline.cmd("XGROUP").arg(&["CREATE", &stream, "g", "4-0"]).ignore();
    }
    pipeline.query::<()>(&mut server.connection()).unwrap();
    // A round trip takes 20 ms, more than twice the budget, and what is pending is asked first.
    let proxy = Proxy::to(&server, Duration::from_millis(10));
    let options = ["--stream=*", "--collector.undelivered-budget=5ms"];
    let exporter = Exporter::start_bare(&[&[proxy.url().as_str()], &options[..]].concat());
    until("all streams are found", || exporter.scrape().stream("exists", "z9") == Some(1.0));
    let page = exporter.scrape();
    let exact = (0..10).filter(|stream| page.group("messages_undelivered", &format!("z{stream}"), "g") == Some(5.0));
    assert_eq!(exact.count(), 10, "{page:?}");
}

/// Ten streams of large entries, each with a group in the middle.
fn large_entries(server: &Server) {
    let payload = "x".repeat(100_000);
    for stream in 0..10 {
        for entry in 1..=4 {
            let id = format!("1740691320501-{entry}");
            server.run_args(&[b"XADD", format!("s{stream}").as_bytes(), id.as_bytes(), b"a", payload.as_bytes()]);
        }
        server.run(&format!("XGROUP CREATE s{stream} g 1740691320501-1"));
    }
}

#[test]
fn without_a_count_streams_of_large_entries_take_turns_to_show_an_age() {
    let server = Server::redis7();
    large_entries(&server);
    let exporter = Exporter::start(&server, &["--stream=s*", "--collector.undelivered-max=0"]);
    let mut shown = std::collections::BTreeSet::new();
    until("each had its turn", || {
        let page = exporter.scrape();
        let age = |stream: &u32| page.group("oldest_undelivered_age_seconds", &format!("s{stream}"), "g").is_some();
        let now: Vec<_> = (0..10).filter(age).collect();
        assert!(now.len() <= 5, "half a megabyte are five entries: {now:?}");
        shown.extend(now);
        shown.len() == 10
    });
}

#[test]
fn groups_that_are_not_wanted_take_no_turns() {
    let server = Server::redis7();
    large_entries(&server);
    for group in 0..30 {
        server.run(&format!("XGROUP CREATE s0 other{group} 1740691320501-{}", 1 + group % 3));
    }
    let exporter = Exporter::start(&server, &["--stream=s0=g", "--collector.undelivered-max=1"]);
    for _ in 0..5 {
        let page = exporter.scrape();
        assert!(page.group("oldest_undelivered_age_seconds", "s0", "g").is_some(), "{page:?}");
    }
}

#[test]
fn a_stream_deleted_during_the_count_has_nothing_waiting() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor);
        server.run("XGROUP CREATE s g $ MKSTREAM");
        server.add("s", 1..=10);
        server.read("s", "g", "w", 5);
        let proxy = beside_the_count(&server, "DEL s");
        let exporter = Exporter::start_bare(&[&proxy.url(), "--stream=s"]);
        let page = exporter.scrape();
        assert_eq!(page.stream("exists", "s"), Some(0.0), "{flavor:?}\n{page:?}");
        assert_eq!(page.group("messages_undelivered", "s", "g"), None, "{flavor:?}\n{page:?}");
        assert_eq!(page.collected("s"), Some(1.0), "{flavor:?}: {}", exporter.log());
    }
}

#[test]
fn what_is_read_and_deleted_just_before_the_count_is_not_lost() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=10);
    server.read("s", "g", "w", 2);
    let proxy = beside_the_count(
        &server,
        "EVAL redis.call('XREADGROUP','GROUP','g','w','COUNT',3,'STREAMS','s','>')redis.call('XDEL','s','3-0','4-0') 0",
    );
    let exporter = Exporter::start_bare(&[&proxy.url(), "--stream=s"]);
    let page = exporter.scrape();
    assert_eq!(page.group("messages_lost", "s", "g"), Some(0.0), "all numbers are of one moment");
    assert_eq!(page.group("messages_undelivered", "s", "g"), Some(5.0));
    assert_eq!(page.group("entries_read", "s", "g"), Some(5.0));
}

#[test]
fn the_age_is_absent_where_the_group_moved_before_its_oldest_entry_was_looked_up() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    // An age needs ids that are times.
    for entry in 1..=10 {
        server.run(&format!("XADD s 1740691320501-{entry} a b"));
    }
    server.read("s", "g", "w", 2);
    let proxy = beside(&server, "XRANGE", "XGROUP SETID s g 1740691320501-8");
    let exporter = Exporter::start_bare(&[&proxy.url(), "--stream=s", "--collector.undelivered-max=0"]);
    let age = |page: &Page| page.group("oldest_undelivered_age_seconds", "s", "g");
    let page = exporter.scrape();
    assert_eq!(age(&page), None, "the third entry waits for it no longer: {page:?}");
    let page = exporter.scrape();
    assert!(age(&page).is_some(), "it stands where it stood: {page:?}");
}

/// A proxy that has the server run this command just before it is asked to count.
fn beside_the_count(server: &Server, command: &'static str) -> Proxy {
    beside(server, "EVAL", command)
}

/// A proxy that has the server run a command just before each of another one.
fn beside(server: &Server, before: &'static str, command: &'static str) -> Proxy {
    beside_those(server, before, |_| true, command)
}

/// The same, just before those writes with the other one whose number is `chosen`.
fn beside_those(
    server: &Server,
    before: &'static str,
    chosen: impl Fn(u32) -> bool + Send + Sync + 'static,
    command: &'static str,
) -> Proxy {
    let (port, seen) = (server.port, AtomicU32::new(0));
    Proxy::changing(server, Duration::ZERO, move |direction, bytes| {
        if direction == Direction::Commands
            && String::from_utf8_lossy(&bytes).contains(before)
            && chosen(seen.fetch_add(1, Ordering::Relaxed) + 1)
        {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
            let words: Vec<_> = command.split(' ').collect();
            redis::cmd(words[0]).arg(&words[1..]).exec(&mut client.get_connection().unwrap()).unwrap();
        }
        bytes
    })
}

#[test]
fn a_loss_before_the_first_read_is_unknown_and_not_0() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=10);
    server.run("XTRIM s MAXLEN 1");
    let page = Exporter::start(&server, &["--stream=s"]).scrape();
    assert_eq!(page.group("entries_read", "s", "g"), None);
    assert_eq!(
        page.group("messages_lost", "s", "g"),
        None,
        "nine are gone, and no counter says that they were not read"
    );
}

#[test]
fn all_that_waits_is_known_without_counting() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=5_000);
    let page = Exporter::start(&server, &["--stream=s", "--collector.undelivered-max=0"]).scrape();
    assert_eq!(page.group("messages_undelivered", "s", "g"), Some(5000.0));
}

#[test]
fn a_trimmed_entry_that_was_pending_stays_pending() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=3);
    server.read("s", "g", "w", 2);
    server.run("XTRIM s MAXLEN 0");
    let page = Exporter::start(&server, &["--stream=s"]).scrape();
    assert_eq!(page.group("messages_pending", "s", "g"), Some(2.0));
    assert_eq!(page.group("messages_undelivered", "s", "g"), Some(0.0));
    assert_eq!(page.group("messages_lost", "s", "g"), Some(1.0));
}

#[test]
fn huge_and_odd_counters_do_not_overflow() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.run("XADD s 18446744073709551615-18446744073709551614 a b");
    server.run("XSETID s 18446744073709551615-18446744073709551615 ENTRIESADDED 9223372036854775807");
    server.run("XGROUP SETID s g 18446744073709551615-18446744073709551615 ENTRIESREAD 9223372036854775806");
    let exporter = Exporter::start(&server, &["--stream=s"]);
    let page = exporter.scrape();
    assert_eq!(page.group("messages_undelivered", "s", "g"), Some(0.0), "{page:?}");
    assert!(page.has("redis_stream_entries_added_total{stream=\"s\"} 9223372036854775807"), "{page:?}");
    server.run("XGROUP SETID s g 18446744073709551615-18446744073709551613");
    assert_eq!(exporter.scrape().group("messages_undelivered", "s", "g"), Some(1.0));
}
