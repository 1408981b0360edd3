//! Faults: a number on the page is true or absent, `redis_up` is 0 only where Redis did not answer, nothing panics, and
//! the first scrape after the fault is whole.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    Scale, Scenario, meter,
    report::Outcome,
    support::{Cluster, Direction, Exporter, Flavor, Page, Proxy, Sentinel, Server, until},
};

pub const ALL: &[Scenario] = &[
    Scenario { name: "SIGSTOP", play: stopped },
    Scenario { name: "kill -9 and a restart", play: killed },
    Scenario { name: "snapshots fail: MISCONF", play: snapshots_fail },
    Scenario { name: "a replica without its master: READONLY, MASTERDOWN", play: replica },
    Scenario { name: "maxclients reached", play: no_more_clients },
    Scenario { name: "replies above the output buffer limit", play: output_buffer_limit },
    Scenario { name: "the password changes", play: password_changes },
    Scenario { name: "CLIENT KILL in a loop", play: clients_killed },
    Scenario {
        name: "a proxy cuts after each byte of the first 2 kB, on one connection",
        play: |scale| cut(scale, false),
    },
    Scenario { name: "the same on every connection", play: |scale| cut(scale, true) },
    Scenario { name: "a proxy swallows all after a byte", play: swallowed },
    Scenario { name: "a proxy answers 60 ms late", play: late },
    Scenario { name: "a proxy mangles a byte", play: mangled },
    Scenario { name: "a proxy sends a piece twice", play: duplicated },
    Scenario { name: "no answer from a step on", play: silent_from_a_step },
    Scenario { name: "FLUSHALL, DEL, XGROUP DESTROY between the steps", play: changed_between_steps },
    Scenario {
        name: "a reply of 2 GB is announced",
        play: |scale| hostile(scale, "$2000000000\r\n", b"x".repeat(1 << 20)),
    },
    Scenario {
        name: "a reply of 2 GB comes in strings of 1 MB",
        play: |scale| {
            let string = [b"$1048576\r\n", b"x".repeat(1 << 20).as_slice(), b"\r\n"].concat();
            hostile(scale, "*2000\r\n", string)
        },
    },
    Scenario { name: "a master busy for 600 ms at connect, through Sentinel and Cluster", play: busy_at_connect },
    Scenario { name: "300 clients leave during a collection", play: clients_leave },
];

/// A server whose stream has 7 waiting of 10, in the middle, and one pending.
fn server(args: &[&str]) -> Server {
    let server = Server::start_with(Flavor::Redis7, args);
    fill(&server);
    server
}

fn fill(server: &Server) {
    server.run("XGROUP CREATE s g $ MKSTREAM");
    server.add("s", 1..=10);
    server.read("s", "g", "w", 3);
    server.run("XACK s g 1-0 2-0");
}

const TRUE: [(&str, f64); 5] = [
    ("messages_undelivered", 7.0),
    ("messages_pending", 1.0),
    ("messages_lost", 0.0),
    ("entries_read", 3.0),
    ("exists", 1.0),
];

/// Fails where a number of the page is not true.
fn is_true(page: &Page) {
    for (metric, value) in TRUE {
        assert!(page.group(metric, "s", "g").is_none_or(|said| said == value), "{metric}: {page:?}");
    }
    let least = page.group("messages_undelivered_at_least", "s", "g");
    assert!(least.is_none_or(|least| least <= 7.0), "{page:?}");
    assert!(page.stream("length", "s").is_none_or(|length| length == 10.0), "{page:?}");
    assert!(page.stream("exists", "s").is_none_or(|exists| exists == 1.0), "{page:?}");
}

fn is_whole(page: &Page) -> bool {
    page.up() && TRUE.iter().all(|(metric, value)| page.group(metric, "s", "g") == Some(*value))
}

/// Fails where the page is not whole.
fn whole(exporter: &Exporter) {
    let page = exporter.scrape();
    let shown: Vec<_> =
        page.0.lines().filter(|line| line.contains("group=\"g\"") || line.starts_with("redis_up")).collect();
    assert!(is_whole(&page), "{shown:#?}\n{}", exporter.log());
}

/// Ends the exporter, which must not have panicked nor filled the log.
fn ended(exporter: Exporter, scrapes: u64, note: impl Into<String>) -> Outcome {
    let peak_bytes = meter::memory(exporter.pid(), "VmHWM");
    let log = exporter.whole_log();
    assert!(!log.contains("panic"), "{log}");
    assert!(log.lines().count() < 60, "the log has {} lines:\n{log}", log.lines().count());
    assert!(peak_bytes < 48 << 20, "the exporter's peak was {peak_bytes} bytes");
    Outcome { scrapes, peak_bytes: Some(peak_bytes), note: note.into(), ..Outcome::default() }
}

fn stopped(scale: Scale) -> Outcome {
    let server = server(&[]);
    let exporter = Exporter::start(&server, &["--stream=s=g", "--redis.timeout=200ms"]);
    let rounds = scale.of(3, 30);
    for _ in 0..rounds {
        whole(&exporter);
        server.signal("-STOP");
        assert!(!exporter.scrape().up());
        server.signal("-CONT");
        whole(&exporter);
    }
    ended(exporter, 3 * rounds, "up 0 while it was stopped; the next page whole")
}

fn killed(scale: Scale) -> Outcome {
    let mut server = server(&["--appendonly", "yes", "--appendfsync", "always"]);
    let exporter = Exporter::start(&server, &["--stream=s=g"]);
    let rounds = scale.of(2, 20);
    whole(&exporter);
    for _ in 0..rounds {
        server.signal("-KILL");
        server.kill();
        assert!(!exporter.scrape().up());
        server.spawn();
        server.wait();
        let page = exporter.scrape();
        // Redis 7.0 forgets what the group has read.
        assert!(page.up() && page.group("messages_undelivered", "s", "g") == Some(7.0), "{page:?}");
        is_true(&page);
    }
    ended(exporter, 2 * rounds + 1, "up 0 while it was away; the next page has what waits and is pending")
}

fn snapshots_fail(_: Scale) -> Outcome {
    let server = server(&[]);
    let exporter = Exporter::start(&server, &["--stream=s=g"]);
    let mut connection = server.connection();
    redis::cmd("CONFIG").arg(&["SET", "save", "3600 1000000"]).exec(&mut connection).unwrap();
    std::fs::create_dir(server.dir.path().join("dump.rdb")).unwrap();
    let _ = redis::cmd("BGSAVE").exec(&mut connection);
    until("writes are refused", || {
        let refused = redis::cmd("SET").arg(&["a", "b"]).exec(&mut connection);
        refused.is_err_and(|error| error.to_string().contains("MISCONF") || error.code() == Some("MISCONF"))
    });
    whole(&exporter);
    let page = exporter.scrape();
    assert_eq!(page.value("redis_rdb_last_bgsave_status"), Some(0.0), "{page:?}");
    ended(exporter, 2, "pages whole; redis_rdb_last_bgsave_status 0")
}

fn replica(_: Scale) -> Outcome {
    let mut master = server(&[]);
    let replica = Server::start_with(Flavor::Redis7, &["--replicaof", "127.0.0.1", &master.port.to_string()]);
    until("the replica has it", || replica.run("EXISTS s") == redis::Value::Int(1));
    let exporter = Exporter::start(&replica, &["--stream=s=g"]);
    whole(&exporter);
    master.kill();
    whole(&exporter);
    let mut admin = replica.connection();
    redis::cmd("CONFIG").arg(&["SET", "replica-serve-stale-data", "no"]).exec(&mut admin).unwrap();
    let mut page = exporter.scrape();
    until("it refuses", || {
        page = exporter.scrape();
        is_true(&page);
        !is_whole(&page)
    });
    let note = format!("whole from a read-only replica; stale and told not to serve: up {}", u8::from(page.up()));
    redis::cmd("CONFIG").arg(&["SET", "replica-serve-stale-data", "yes"]).exec(&mut admin).unwrap();
    whole(&exporter);
    ended(exporter, 4, note)
}

fn no_more_clients(_: Scale) -> Outcome {
    let server = server(&[]);
    let mut admin = server.connection();
    let _held = server.connection();
    redis::cmd("CONFIG").arg(&["SET", "maxclients", "2"]).exec(&mut admin).unwrap();
    let exporter = Exporter::start(&server, &["--stream=s=g"]);
    for _ in 0..3 {
        assert!(!exporter.scrape().up());
    }
    redis::cmd("CONFIG").arg(&["SET", "maxclients", "100"]).exec(&mut admin).unwrap();
    whole(&exporter);
    ended(exporter, 4, "up 0 while refused; the next page whole")
}

fn output_buffer_limit(_: Scale) -> Outcome {
    let server = server(&[]);
    server.run("CONFIG SET proto-max-bulk-len 1048576");
    let payload = "x".repeat(900_000);
    for stream in 0..8 {
        server.run_args(&[b"XADD", format!("large{stream}").as_bytes(), b"1-0", b"payload", payload.as_bytes()]);
    }
    let mut connection = server.connection();
    let limit = "normal 1000000 0 0";
    redis::cmd("CONFIG").arg(&["SET", "client-output-buffer-limit", limit]).exec(&mut connection).unwrap();
    let names: Vec<_> = (0..8).map(|stream| format!("--stream=large{stream}")).collect();
    let options: Vec<_> = ["--stream=s=g"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let exporter = Exporter::start(&server, &options);
    let mut whole_since = None;
    for scrape in 1..=20 {
        let page = exporter.scrape();
        is_true(&page);
        assert!(page.up(), "{scrape}: {page:?}");
        let shown = page.0.matches("redis_stream_length{").count();
        whole_since = (shown == 9).then(|| whole_since.unwrap_or(scrape));
    }
    let whole_since = whole_since.expect("all streams are shown in the end");
    redis::cmd("CONFIG").arg(&["SET", "client-output-buffer-limit", "normal 0 0 0"]).exec(&mut connection).unwrap();
    whole(&exporter);
    ended(exporter, 21, format!("up in all pages; all streams on each from page {whole_since} on"))
}

fn password_changes(scale: Scale) -> Outcome {
    let mut server = server(&[]);
    let file = server.dir.path().join("password");
    std::fs::write(&file, "p0").unwrap();
    server.run("CONFIG SET requirepass p0");
    server.log_in("", "p0");
    let exporter = Exporter::start(&server, &["--stream=s=g", "--redis.password-file", file.to_str().unwrap()]);
    let rounds = scale.of(3, 50);
    for round in 1..=rounds {
        whole(&exporter);
        let password = format!("p{round}");
        server.run(&format!("CONFIG SET requirepass {password}"));
        server.log_in("", &password);
        server.run("CLIENT KILL TYPE normal SKIPME yes");
        assert!(!exporter.scrape().up(), "the old password");
        std::fs::write(&file, &password).unwrap();
        whole(&exporter);
    }
    ended(exporter, 3 * rounds, "up 0 until the file has the new one; the next page whole")
}

fn clients_killed(scale: Scale) -> Outcome {
    let server = server(&[]);
    let exporter = Exporter::start(&server, &["--stream=s=g"]);
    let done = Arc::new(AtomicBool::new(false));
    let (mut killer, stop) = (server.connection(), Arc::clone(&done));
    let thread = thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut killer).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
    });
    let scrapes = scale.of(100, 2_000);
    let (mut up, mut complete) = (0, 0);
    for _ in 0..scrapes {
        let page = exporter.scrape();
        is_true(&page);
        up += u64::from(page.up());
        complete += u64::from(is_whole(&page));
    }
    done.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    whole(&exporter);
    ended(exporter, scrapes, format!("killed every millisecond: up in {up}, whole in {complete}, wrong in none"))
}

/// Closes a connection after so many bytes of replies: only the first connection after each time `armed` is set, or all.
fn cut(scale: Scale, always: bool) -> Outcome {
    let server = server(&[]);
    let (after, armed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let port = cutting_proxy(&server, Arc::clone(&after), Arc::clone(&armed), always);
    let exporter = Exporter::start_bare(&[
        &format!("--redis.url=redis://127.0.0.1:{port}"),
        "--stream=s=g",
        "--redis.timeout=2s",
        "--no-collector.server",
    ]);
    let (mut up, mut complete, mut scrapes) = (0_u64, 0_u64, 0);
    for bytes in (0..2_048).step_by(scale.of(61, 1)) {
        after.store(bytes, Ordering::SeqCst);
        armed.store(true, Ordering::SeqCst);
        server.run("CLIENT KILL TYPE normal SKIPME yes");
        let page = exporter.scrape();
        is_true(&page);
        scrapes += 1;
        up += u64::from(page.up());
        complete += u64::from(is_whole(&page));
        armed.store(false, Ordering::SeqCst);
    }
    server.run("CLIENT KILL TYPE normal SKIPME yes");
    whole(&exporter);
    ended(exporter, scrapes, format!("up in {up}, whole in {complete}, wrong in none"))
}

fn cutting_proxy(server: &Server, after: Arc<AtomicUsize>, armed: Arc<AtomicBool>, always: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), server.port);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = std::net::TcpStream::connect(("127.0.0.1", to)).unwrap();
            let is_armed = if always { armed.load(Ordering::SeqCst) } else { armed.swap(false, Ordering::SeqCst) };
            let limit = if is_armed { after.load(Ordering::SeqCst) as u64 } else { u64::MAX };
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut up, &mut down));
            thread::spawn(move || {
                let _ = std::io::copy(&mut (&server).take(limit), &mut &client);
                let _ = server.shutdown(std::net::Shutdown::Both);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

/// Scrapes through a proxy that does something to replies, each time over a new connection.
fn through(
    scale: Scale,
    step: usize,
    timeout: &str,
    change: impl Fn(usize, usize, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
) -> (Exporter, u64, u64, Vec<Page>) {
    let server = server(&[]);
    let (at, seen) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicUsize::new(0)));
    let (at_byte, passed) = (Arc::clone(&at), Arc::clone(&seen));
    let proxy = Proxy::changing(&server, Duration::ZERO, move |direction, bytes| {
        if direction == Direction::Commands {
            return bytes;
        }
        let from = passed.fetch_add(bytes.len(), Ordering::SeqCst);
        change(at_byte.load(Ordering::SeqCst), from, bytes)
    });
    let exporter = Exporter::start_bare(&[&proxy.url(), "--stream=s=g", "--no-collector.server", timeout]);
    let (mut scrapes, mut up, mut pages) = (0, 0, Vec::new());
    for byte in (0..2_048).step_by(scale.of(step * 8, step)) {
        at.store(usize::MAX, Ordering::SeqCst);
        server.run("CLIENT KILL TYPE normal SKIPME yes");
        seen.store(0, Ordering::SeqCst);
        at.store(byte, Ordering::SeqCst);
        let page = exporter.scrape();
        scrapes += 1;
        up += u64::from(page.up());
        pages.push(page);
    }
    at.store(usize::MAX, Ordering::SeqCst);
    server.run("CLIENT KILL TYPE normal SKIPME yes");
    let page = exporter.scrape();
    is_true(&page);
    assert!(page.up() && page.collected("s") == Some(1.0), "{page:?}\n{}", exporter.log());
    (exporter, scrapes, up, pages)
}

fn swallowed(scale: Scale) -> Outcome {
    let (exporter, scrapes, up, pages) = through(scale, 16, "--redis.timeout=100ms", |at, from, mut bytes| {
        bytes.truncate(at.saturating_sub(from));
        bytes
    });
    pages.iter().for_each(is_true);
    ended(exporter, scrapes, format!("up in {up}, wrong in none"))
}

fn mangled(scale: Scale) -> Outcome {
    let (exporter, scrapes, up, _) = through(scale, 1, "--redis.timeout=100ms", |at, from, mut bytes| {
        if let Some(byte) = at.checked_sub(from).and_then(|at| bytes.get_mut(at)) {
            *byte = byte.wrapping_add(1);
        }
        bytes
    });
    ended(exporter, scrapes, format!("no panic; up in {up}. A digit that is another cannot be noticed"))
}

fn duplicated(scale: Scale) -> Outcome {
    let (exporter, scrapes, up, _) = through(scale, 4, "--redis.timeout=100ms", |at, from, mut bytes| {
        if let Some(at) = at.checked_sub(from).filter(|at| *at < bytes.len()) {
            let again = bytes[at..].to_vec();
            bytes.extend(again);
        }
        bytes
    });
    ended(exporter, scrapes, format!("no panic; up in {up}"))
}

fn late(scale: Scale) -> Outcome {
    let server = server(&[]);
    let proxy = Proxy::to(&server, Duration::from_millis(30));
    let exporter = Exporter::start_bare(&[&proxy.url(), "--stream=s=g"]);
    let scrapes = scale.of(5, 50);
    (0..scrapes).for_each(|_| whole(&exporter));
    ended(exporter, scrapes, "pages whole")
}

fn silent_from_a_step(_: Scale) -> Outcome {
    let mut notes = Vec::new();
    let mut scrapes = 0;
    let mut last = None;
    for step in ["HELLO", "TIME", "SCAN", "XINFO", "XPENDING", "EVAL_RO"] {
        let server = server(&[]);
        let silent = Arc::new(AtomicBool::new(false));
        let is_silent = Arc::clone(&silent);
        let proxy = Proxy::changing(&server, Duration::ZERO, move |direction, bytes| {
            let found = bytes.windows(step.len()).any(|window| window == step.as_bytes());
            if direction == Direction::Commands && found {
                is_silent.store(true, Ordering::SeqCst);
            }
            if direction == Direction::Replies && is_silent.load(Ordering::SeqCst) { vec![] } else { bytes }
        });
        let exporter = Exporter::start_bare(&[&proxy.url(), "--stream=s=g", "--stream=t*", "--redis.timeout=300ms"]);
        let began = Instant::now();
        let page = exporter.scrape();
        assert!(began.elapsed() < Duration::from_secs(3), "{step}: {:?}", began.elapsed());
        is_true(&page);
        scrapes += 1;
        notes.push(format!("{step} up {}", u8::from(page.up())));
        assert!(page.up() || !["XPENDING", "EVAL_RO"].contains(&step), "{step}: the first replies had come: {page:?}");
        last = Some(exporter);
    }
    ended(last.unwrap(), scrapes, notes.join(", "))
}

fn changed_between_steps(scale: Scale) -> Outcome {
    let mut scrapes = 0;
    let mut last_page = None;
    for change in ["FLUSHALL", "DEL s", "XGROUP DESTROY s g", "XGROUP SETID s g 0", "XTRIM s MAXLEN 0"] {
        for step in ["XPENDING", "EVAL_RO"] {
            let server = Server::redis7();
            let port = server.port;
            let proxy = Proxy::changing(&server, Duration::ZERO, move |direction, bytes| {
                let is_there = bytes.windows(step.len()).any(|window| window == step.as_bytes());
                if direction == Direction::Commands && is_there {
                    run_inline(port, change);
                }
                bytes
            });
            let exporter = Exporter::start_bare(&[&proxy.url(), "--stream=s=g"]);
            for _ in 0..scale.of(2, 20) {
                server.run("FLUSHALL");
                fill(&server);
                let page = exporter.scrape();
                scrapes += 1;
                assert!(page.up(), "{change} before {step}: {page:?}");
                let undelivered = page.group("messages_undelivered", "s", "g");
                assert!(
                    [None, Some(0.0), Some(7.0), Some(10.0)].contains(&undelivered),
                    "{change} before {step}: {page:?}"
                );
                let shown = page.group("messages_lost", "s", "g");
                let most = if change.starts_with("XTRIM") { 7.0 } else { 0.0 };
                assert!(shown.is_none_or(|lost| lost <= most), "{change} before {step}: {page:?}");
                assert_eq!(page.errors("other") + page.errors("protocol"), 0.0, "{change} before {step}: {page:?}");
            }
            last_page = Some(exporter);
        }
    }
    ended(last_page.unwrap(), scrapes, "up 1, wrong in none")
}

/// Runs a command, and waits until it is done.
fn run_inline(port: u16, command: &str) {
    let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    assert!(client.read(&mut [0; 64]).unwrap() > 0);
}

/// A peer that answers with this beginning of a reply, and then with this piece again and again, as fast as it is taken.
fn hostile(scale: Scale, head: &'static str, piece: Vec<u8>) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let piece = piece.clone();
            thread::spawn(move || {
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(head.as_bytes());
                while client.write_all(&piece).is_ok() {}
            });
        }
    });
    let exporter =
        Exporter::start_bare(&[&format!("--redis.url=redis://{address}"), "--stream=s=g", "--redis.timeout=2s"]);
    let scrapes = scale.of(3, 30);
    for _ in 0..scrapes {
        let page = exporter.scrape();
        assert!(!page.up() && page.errors("protocol") >= 1.0, "{page:?}");
    }
    ended(exporter, scrapes, "kind protocol")
}

fn busy_at_connect(_: Scale) -> Outcome {
    let busy = |server: &Server| {
        let mut connection = server.connection();
        thread::spawn(move || redis::cmd("DEBUG").arg(&["SLEEP", "0.6"]).exec(&mut connection).unwrap());
        thread::sleep(Duration::from_millis(20));
    };
    let master = server(&["--enable-debug-command", "yes"]);
    let sentinel = Sentinel::of(&master);
    until("the Sentinel knows the master", || sentinel.master_port().is_some());
    let url = format!("--redis.url=redis://127.0.0.1:{}", sentinel.port);
    let exporter = Exporter::start_bare(&[&url, "--redis.sentinel-master=night", "--stream=s=g", "--redis.timeout=5s"]);
    busy(&master);
    whole(&exporter);
    ended(exporter, 1, "");

    let cluster = Cluster::with(Flavor::Redis7, &["--enable-debug-command", "yes"]);
    let node = &cluster.nodes[cluster.owner("s")];
    fill(node);
    let exporter = cluster.exporter(&["--stream=s=g"]);
    busy(node);
    whole(&exporter);
    ended(exporter, 2, "pages whole")
}

fn clients_leave(_: Scale) -> Outcome {
    let server = server(&[]);
    let exporter = Exporter::start(&server, &["--stream=s=g"]);
    whole(&exporter);
    // The page may be there before the line.
    until("the log says that Redis answers", || exporter.log().contains("Redis answers"));
    let connections = meter::info(&server, "total_connections_received");
    let lines = exporter.log().lines().count();
    server.signal("-STOP");
    for _ in 0..300 {
        let mut client = std::net::TcpStream::connect(&exporter.address).unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    }
    server.signal("-CONT");
    whole(&exporter);
    let page = exporter.scrape();
    // One whose end is read together with its request is not begun.
    let abandoned = page.value("prompt_redis_exporter_scrapes_abandoned_total").unwrap();
    assert!((1.0..=300.0).contains(&abandoned), "{page:?}");
    assert_eq!(page.errors("timeout"), 0.0, "{page:?}");
    // One of them is this test's own.
    assert_eq!(meter::info(&server, "total_connections_received") - connections, 1);
    assert_eq!(exporter.log().lines().count(), lines, "{}", exporter.log());
    ended(exporter, 300, format!("no connection to Redis, no line in the log; {abandoned} counted as abandoned"))
}
