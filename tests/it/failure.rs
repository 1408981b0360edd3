//! Redis that is away, hangs, refuses, loads or restarts: the page says so in time, and the first scrape after it is back
//! shows it.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Direction, Exporter, Flavor, Page, Proxy, Server, free_port, request, until};

#[test]
fn the_exporter_starts_before_redis() {
    let mut server = Server::redis7();
    server.kill();
    let exporter = Exporter::start(&server, &["--stream=s"]);
    let page = exporter.scrape();
    assert!(!page.up());
    assert_eq!(page.errors("connect"), 1.0);
    assert!(!page.has("redis_stream"), "what is not known is absent: {page:?}");
    assert!(page.has("prompt_redis_exporter_build_info{") && page.has("process_resident_memory_bytes "));
    server.spawn();
    server.wait();
    assert!(exporter.scrape().up(), "the first scrape after it is there");
}

#[test]
fn a_restart_is_seen_by_the_first_scrape_after_it() {
    let mut server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    let exporter = Exporter::start(&server, &["--stream=s"]);
    assert!(exporter.scrape().up());
    // Without a scrape while it was away.
    server.kill();
    server.spawn();
    server.wait();
    let page = exporter.scrape();
    assert!(page.up(), "{}", exporter.log());
    assert_eq!(page.stream("exists", "s"), Some(0.0), "the new one has no such stream");
    // With scrapes while it was away.
    server.kill();
    assert!(!exporter.scrape().up());
    assert!(!exporter.scrape().up());
    server.spawn();
    server.wait();
    assert!(exporter.scrape().up());
    let log = exporter.whole_log();
    assert_eq!(log.matches("Redis answers").count(), 2, "{log}");
    assert_eq!(log.matches("Redis cannot be asked").count(), 1, "one line for a change, none for a scrape:\n{log}");
}

#[test]
fn a_redis_that_hangs_is_down_within_the_timeout() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &["--redis.timeout=300ms"]);
    assert!(exporter.scrape().up());
    server.signal("-STOP");
    let began = Instant::now();
    let page = exporter.scrape();
    let took = began.elapsed();
    server.signal("-CONT");
    assert!(!page.up());
    assert_eq!(page.errors("timeout"), 1.0);
    assert!((300..3000).contains(&took.as_millis()), "{took:?}");
    assert!(page.value("prompt_redis_exporter_collection_duration_seconds").unwrap() >= 0.3);
    assert!(exporter.scrape().up(), "the first scrape after it is back");
}

#[test]
fn the_scraper_gets_its_answer_before_it_gives_up() {
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[]);
    server.signal("-STOP");
    let began = Instant::now();
    let page = Page(exporter.get("/metrics", &[("X-Prometheus-Scrape-Timeout-Seconds", "1")]).text());
    let took = began.elapsed();
    assert!(!page.up());
    assert_eq!(page.errors("timeout"), 1.0);
    assert!((500..1000).contains(&took.as_millis()), "{took:?}");
    server.signal("-CONT");
    assert!(exporter.scrape().up());
}

#[test]
fn a_scraper_with_little_time_does_not_end_the_collection_of_another() {
    let server = Server::redis7();
    let proxy = Proxy::to(&server, Duration::ZERO);
    let exporter = Exporter::start_bare(&[&proxy.url()]);
    assert!(exporter.scrape().up());
    proxy.round_trips();
    server.signal("-STOP");
    let address = exporter.address.clone();
    let patient = thread::spawn(move || Page(request(&address, "GET", "/metrics", &[]).text()));
    until("the first collection has begun", || proxy.round_trips() > 0);
    let hasty = Page(exporter.get("/metrics", &[("X-Prometheus-Scrape-Timeout-Seconds", "1")]).text());
    assert!(!hasty.up());
    server.signal("-CONT");
    let patient = patient.join().unwrap();
    assert!(patient.up());
    assert_eq!(patient.value("prompt_redis_exporter_collections_total"), Some(2.0), "both shared the second one");
    assert_eq!(patient.errors("timeout"), 1.0, "of the hasty one");
    let log = exporter.whole_log();
    assert!(!log.contains("Redis cannot be asked"), "it could be asked: {log}");
}

/// Sends the request, and does not wait for the reply.
fn begin_scrape(exporter: &Exporter) -> TcpStream {
    let mut scraper = TcpStream::connect(&exporter.address).unwrap();
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    scraper
}

#[test]
fn scrapes_that_arrive_together_share_one_collection_and_later_ones_get_a_later_one() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    let exporter = Exporter::start(&server, &["--stream=s"]);
    assert!(exporter.scrape().up());
    server.signal("-STOP");
    let scrapers: Vec<_> = (0..20).map(|_| begin_scrape(&exporter)).collect();
    // The exporter reads its connections in turn, so it has read those when this one is answered.
    assert_eq!(exporter.get("/-/healthy", &[]).status, 200);
    server.signal("-CONT");
    for mut scraper in scrapers {
        let mut reply = String::new();
        scraper.read_to_string(&mut reply).unwrap();
        let page = Page(reply);
        assert!(page.up());
        assert_eq!(page.value("prompt_redis_exporter_collections_total"), Some(2.0));
    }
    for added in 1..=3 {
        server.add("s", added..=added);
        assert_eq!(exporter.scrape().group("lag", "s", "g"), Some(added as f64), "nothing is kept between scrapes");
    }
}

#[test]
fn a_collection_that_nobody_waits_for_ends_and_leaves_nothing_behind() {
    let server = Server::redis7();
    let proxy = Proxy::to(&server, Duration::ZERO);
    let exporter = Exporter::start_bare(&[&proxy.url()]);
    let clients = || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.connection()).unwrap();
        list.lines().count() - 1
    };
    assert!(exporter.scrape().up());
    assert_eq!(clients(), 1, "one connection is kept");
    proxy.round_trips();
    // Redis is stopped, so that it does not answer before the scraper leaves.
    server.signal("-STOP");
    let mut scraper = begin_scrape(&exporter);
    until("the collection has begun", || proxy.round_trips() > 0);
    scraper.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    // Ends when the exporter has closed its side too.
    let _ = scraper.read_to_end(&mut reply);
    assert_eq!(String::from_utf8_lossy(&reply), "", "there was nothing to reply yet");
    server.signal("-CONT");
    let page = exporter.scrape();
    assert!(page.up());
    assert_eq!(clients(), 1, "the connection is kept, and no other is made");
    assert_eq!(page.value("prompt_redis_exporter_scrapes_abandoned_total"), Some(1.0));
    assert_eq!(page.errors("timeout"), 0.0, "Redis is not to blame");
}

#[test]
fn a_redis_that_is_loading_says_so() {
    let mut server = Server::start_with(
        Flavor::Redis7,
        &["--dbfilename", "night.rdb", "--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"],
    );
    let mut pipeline = redis::pipe();
    for key in 0..1_000 {
        pipeline.cmd("SET").arg(key).arg("x".repeat(100)).ignore();
    }
    pipeline.query::<()>(&mut server.connection()).unwrap();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.run("SAVE");
    let exporter = Exporter::start(&server, &["--stream=s"]);
    server.kill();
    server.spawn();
    let mut last = None;
    until("it says that it is loading", || {
        let page = exporter.scrape();
        assert!(!page.up());
        let loading = page.errors("loading") > 0.0;
        last = Some(page);
        loading
    });
    assert!(!last.unwrap().has("redis_stream"), "whether a stream is missing is not known yet");
    until("it has loaded", || exporter.scrape().up());
    assert_eq!(exporter.scrape().stream("exists", "s"), Some(1.0));
}

#[test]
fn a_password_is_asked_for_refused_taken_and_rotated() {
    let mut server = Server::start_with(Flavor::Redis7, &["--requirepass", "first-s3cret"]);
    let down = |exporter: &Exporter| {
        let page = exporter.scrape();
        assert!(!page.up());
        assert_eq!(page.errors("auth"), 1.0, "{page:?} {}", exporter.log());
    };
    down(&Exporter::start(&server, &[]));
    let wrong = Exporter::start_bare(&[&format!("--redis.url=redis://:wr0ng@127.0.0.1:{}", server.port)]);
    down(&wrong);
    let log = wrong.whole_log();
    assert!(log.contains("Redis cannot be asked") && !log.contains("wr0ng"), "{log}");

    let file = server.dir.path().join("password");
    std::fs::write(&file, "first-s3cret\n").unwrap();
    let exporter = Exporter::start(&server, &["--redis.password-file", file.to_str().unwrap(), "--log.level=debug"]);
    assert!(exporter.scrape().up(), "a newline at the end is no part of it");

    server.run("CONFIG SET requirepass second-s3cret");
    server.log_in("", "second-s3cret");
    std::fs::write(&file, "second-s3cret").unwrap();
    server.run("CLIENT KILL TYPE normal SKIPME yes");
    assert!(exporter.scrape().up(), "the file is read again at every connect: {}", exporter.log());
    assert!(!exporter.scrape().has("s3cret"));
    let log = exporter.whole_log();
    assert!(log.contains("collected") && !log.contains("s3cret"), "{log}");
}

#[test]
fn the_password_comes_from_the_environment_too() {
    let server = Server::start_with(Flavor::Redis7, &["--requirepass", "s3cret"]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
    command
        .args(["--web.listen-address=127.0.0.1:0", &format!("--redis.url=redis://127.0.0.1:{}", server.port)])
        .env("PROMPT_REDIS_EXPORTER_REDIS_PASSWORD", "s3cret");
    assert!(Exporter::spawn(&mut command).scrape().up());
}

/// A server that is not Redis: it sends this to each client and closes the connection.
fn peer(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--redis.url=redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(answer);
        }
    });
    url
}

#[test]
fn a_connection_that_is_closed_in_the_middle_is_a_failed_connection() {
    for answer in [&b""[..], b"*2\r\n$10\r\n179539", b"*2\r\n$10\r\n1795393553\r\n$1\r\n0\r\n$5\r\nredis"] {
        let exporter = Exporter::start_bare(&[&peer(answer), "--stream=s"]);
        for scrape in 1..=2 {
            let page = exporter.scrape();
            assert!(!page.up());
            assert_eq!(page.errors("connect"), f64::from(scrape), "{page:?} {}", exporter.log());
        }
    }
}

#[test]
fn a_server_that_is_not_redis_is_a_protocol_error() {
    let url = peer(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let exporter = Exporter::start_bare(&[&url, "--stream=s"]);
    let page = exporter.scrape();
    assert!(!page.up());
    assert_eq!(page.errors("protocol"), 1.0, "{page:?} {}", exporter.log());
    exporter.logged(&format!("lost the connection to {}", url.split_once('=').unwrap().1));
}

#[test]
fn a_name_that_cannot_be_resolved_is_a_failed_connection() {
    let exporter = Exporter::start_bare(&["--redis.url=redis://prompt-redis.invalid:6379", "--redis.timeout=2s"]);
    let page = exporter.scrape();
    assert!(!page.up());
    assert_eq!(page.errors("connect") + page.errors("timeout"), 1.0, "{page:?}");
}

#[test]
fn a_reply_of_another_shape_affects_only_its_stream() {
    let server = Server::redis7();
    server.run_all("XGROUP CREATE a g $ MKSTREAM\nXGROUP CREATE b odd $ MKSTREAM\nXGROUP CREATE c g $ MKSTREAM");
    // The group called odd has no field "consumers" any more.
    let proxy = Proxy::changing(&server, Duration::ZERO, |direction, bytes| {
        let (from, to) = (b"$3\r\nodd\r\n$9\r\nconsumers", b"$3\r\nodd\r\n$9\r\nkonsumers");
        match bytes.windows(from.len()).position(|window| window == from) {
            Some(at) if direction == Direction::Replies => [&bytes[..at], to, &bytes[at + from.len()..]].concat(),
            _ => bytes,
        }
    });
    let url = proxy.url();
    let page = Exporter::start_bare(&[&url, "--stream=a", "--stream=b", "--stream=c"]).scrape();
    assert!(page.up());
    assert_eq!(["a", "b", "c"].map(|stream| page.collected(stream)), [Some(1.0), Some(0.0), Some(1.0)]);
    assert_eq!(page.errors("protocol"), 1.0);
    assert_eq!(page.group("exists", "c", "g"), Some(1.0));
    assert!(!page.has("group=\"odd\""), "{page:?}");
}

#[test]
fn a_stream_of_many_groups_is_read_after_a_connection_was_refused() {
    let server = Server::redis7();
    for group in 0..101 {
        server.run(&format!("XGROUP CREATE s g{group} $ MKSTREAM"));
    }
    let mut connection = server.connection();
    let mut allow = |clients: u32| {
        redis::cmd("CONFIG").arg(&["SET", "maxclients"]).arg(clients).exec(&mut connection).unwrap();
    };
    allow(1);
    let exporter = Exporter::start(&server, &["--stream=s"]);
    assert!(!exporter.scrape().up());
    allow(100);
    // The refusal looked as if the reply had been too large, and the script does not read so many groups.
    until("it is read", || exporter.scrape().collected("s") == Some(1.0));
}

#[test]
fn a_stream_whose_groups_were_not_asked_about_in_time_is_not_complete() {
    let server = Server::redis7();
    for stream in ["a", "b", "odd"] {
        server.run(&format!("XGROUP CREATE {stream} {stream} $ MKSTREAM"));
    }
    server.add("a", 1..=1);
    server.read("a", "a", "w", 1);
    // The reply about the last stream never comes. The first two are asked before it.
    let proxy = Proxy::changing(&server, Duration::ZERO, |direction, bytes| {
        let is_odd = bytes.windows(9).any(|window| window == b"$3\r\nodd\r\n");
        if direction == Direction::Replies && is_odd { vec![] } else { bytes }
    });
    let url = proxy.url();
    let options = ["--redis.timeout=500ms", "--stream=a", "--stream=b", "--stream=odd"];
    let page = Exporter::start_bare(&[&[url.as_str()], &options[..]].concat()).scrape();
    assert!(page.up());
    assert_eq!(page.group("messages_pending", "a", "a"), Some(1.0), "{page:?}");
    assert_eq!(page.group("oldest_pending_age_seconds", "a", "a"), None, "{page:?}");
    assert_eq!(["a", "b", "odd"].map(|stream| page.collected(stream)), [Some(0.0); 3]);
}

#[test]
fn a_redis_that_is_busy_with_a_script_is_down() {
    let server = Server::start_with(Flavor::Redis7, &["--busy-reply-threshold", "50"]);
    let exporter = Exporter::start(&server, &["--stream=s"]);
    let mut connection = server.connection();
    let script = thread::spawn(move || {
        let _ = redis::cmd("EVAL").arg("while true do end").arg(0).query::<redis::Value>(&mut connection);
    });
    until("it says that it is busy", || !exporter.scrape().up());
    exporter.logged("BUSY");
    assert!(!exporter.scrape().has("redis_stream"), "unknown");
    // A connection of the fixture would send PING first, which is refused now.
    let client = redis::Client::open(server.url()).unwrap();
    redis::cmd("SCRIPT").arg("KILL").exec(&mut client.get_connection().unwrap()).unwrap();
    script.join().unwrap();
    assert!(exporter.scrape().up());
}

#[test]
fn without_a_command_that_was_renamed_only_its_values_are_absent() {
    let server = Server::start_with(Flavor::Redis7, &["--rename-command", "XPENDING", ""]);
    server.run_all("XGROUP CREATE s g $ MKSTREAM\nXGROUP CREATE t g $ MKSTREAM");
    server.add("s", 1..=1);
    server.read("s", "g", "w", 1);
    let exporter = Exporter::start(&server, &["--stream=s", "--stream=t"]);
    let page = exporter.scrape();
    assert!(page.up());
    assert_eq!((page.collected("s"), page.collected("t")), (Some(0.0), Some(1.0)));
    assert_eq!(page.group("messages_pending", "s", "g"), Some(1.0), "known from XINFO GROUPS");
    assert_eq!(page.group("oldest_pending_age_seconds", "s", "g"), None);
    assert_eq!(page.errors("other"), 2.0);
    exporter.logged("XPENDING");
}

#[test]
fn an_exporter_whose_port_is_taken_exits_1() {
    let port = free_port();
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&port.to_string()) && said.contains("--web.listen-address"), "{said}");
}

#[test]
fn a_stream_of_huge_entries_is_read_by_script_and_costs_the_others_nothing() {
    let server = Server::redis7();
    server.run_all("XGROUP CREATE huge g $ MKSTREAM\nXGROUP CREATE small g $ MKSTREAM");
    let field = vec![b'x'; 9 << 20];
    for _ in 0..3 {
        server.run_args(&[b"XADD", b"huge", b"*", b"field", &field]);
    }
    server.add("small", 1..=5);
    server.read("huge", "g", "w", 1);
    server.read("small", "g", "w", 2);
    let exporter = Exporter::start(&server, &["--stream=huge=g", "--stream=small=g"]);
    until("both are shown, over a connection that does not break", || {
        let page = exporter.scrape();
        assert!(page.up(), "{page:?}");
        page.collected("huge") == Some(1.0) && page.collected("small") == Some(1.0)
    });
    let page = exporter.scrape();
    assert_eq!(page.group("messages_undelivered", "small", "g"), Some(3.0));
    assert!(page.group("messages_undelivered_at_least", "huge", "g").is_some_and(|least| (1.0..=2.0).contains(&least)));
    assert!(page.group("oldest_undelivered_age_seconds", "huge", "g").is_some(), "{page:?}");
    assert!(page.value("process_resident_memory_bytes").unwrap() < 64e6, "{page:?}");
}

/// As on a full disk. Redis goes on saying err once the file is off, though it then accepts writes.
#[test]
fn an_append_only_file_that_cannot_be_written_is_shown_until_it_is_off() {
    let server = Server::start_limitable(Flavor::Redis8);
    let exporter = Exporter::start(&server, &[]);
    // One connection throughout: meanwhile Redis refuses the PING with which the others begin.
    let mut connection = server.connection();
    let mut run = |command: &str| {
        let mut words = command.split(' ');
        redis::cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>()).query::<redis::Value>(&mut connection)
    };
    run("CONFIG SET appendonly yes").unwrap();
    until("the append-only file is there", || {
        let info: String = redis::from_redis_value(run("INFO persistence").unwrap()).unwrap();
        let is = |line| info.lines().any(|other| other == line);
        is("aof_enabled:1") && is("aof_rewrite_in_progress:0") && is("aof_rewrite_scheduled:0")
    });
    server.limit_files(1);
    until("a write is refused", || run("SET a 1").is_err());
    assert!(run("PING").is_err());
    let status = || exporter.scrape().value("redis_aof_last_write_status");
    assert_eq!(status(), Some(0.0));
    run("CONFIG SET appendonly no").unwrap();
    assert_eq!(status(), Some(1.0));
    run("SET a 2").unwrap();
}
