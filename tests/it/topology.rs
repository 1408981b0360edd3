//! Redis behind Sentinels, and as a Cluster: real failovers, real resharding.

use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use redis::Value;

use crate::support::{Cluster, DeadPort, Exporter, Flavor, Sentinel, Server, free_port, until};

/// The user of the README, with these rights more.
fn make_user(server: &Server, more: &[&str]) {
    let rights = [crate::acl::rights(), more.to_vec()].concat();
    server.run_args(&rights.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
}

fn as_user(args: &[&str]) -> Exporter {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
    command
        .args(["--web.listen-address=127.0.0.1:0", "--redis.username=exporter"])
        .args(args)
        .env("PROMPT_REDIS_EXPORTER_REDIS_PASSWORD", "PASSWORD");
    Exporter::spawn(&mut command)
}

fn nothing_was_denied(server: &Server) {
    assert_eq!(server.run("ACL LOG"), Value::Array(vec![]), "nothing was even tried that is not allowed");
}

#[test]
fn the_exporter_follows_a_failover_within_two_scrapes() {
    let mut master = Server::redis7();
    let replica_of = ["--replicaof", "127.0.0.1", &master.port.to_string()];
    let replicas = [Server::start_with(Flavor::Redis7, &replica_of), Server::start_with(Flavor::Redis7, &replica_of)];
    let sentinels = [Sentinel::of(&master), Sentinel::of(&master), Sentinel::of(&master)];
    until("the Sentinels know all", || sentinels.iter().all(|sentinel| sentinel.knows() == (2, 2)));
    replicas.iter().chain([&master]).for_each(|server| make_user(server, &["+role"]));
    let key = "instrument:lsstcam";
    master.run(&format!("XGROUP CREATE {key} g $ MKSTREAM"));
    master.add(key, 1..=3);
    until("the replicas have it", || replicas.iter().all(|r| r.run(&format!("XLEN {key}")) == Value::Int(3)));

    let urls = sentinels.each_ref().map(|sentinel| format!("--redis.url=redis://127.0.0.1:{}", sentinel.port));
    let mut args: Vec<_> = urls.iter().map(String::as_str).collect();
    args.extend(["--redis.sentinel-master=night", "--stream=instrument:lsstcam=g"]);
    let exporter = as_user(&args);
    let page = exporter.scrape();
    assert!(page.up() && page.has("role=\"master\""), "{}", exporter.log());
    nothing_was_denied(&master);

    let old = master.port.to_string();
    master.kill();
    assert!(!exporter.scrape().up());
    until("there is a new master", || {
        let said: Vec<_> = sentinels.iter().filter_map(Sentinel::master_port).collect();
        said.len() == 3 && said.iter().all(|port| *port != old && port == &said[0])
    });
    let pages = [exporter.scrape(), exporter.scrape()];
    let page = &pages[1];
    assert!(page.up() && page.has("role=\"master\""), "{}", exporter.log());
    assert_eq!(page.group("messages_undelivered", key, "g"), Some(3.0));
    replicas.iter().for_each(nothing_was_denied);
}

#[test]
fn a_master_that_no_sentinel_knows_is_a_failed_connection() {
    let master = Server::redis7();
    let sentinel = Sentinel::of(&master);
    until("the Sentinel answers", || sentinel.master_port().is_some());
    let url = format!("--redis.url=redis://127.0.0.1:{}", sentinel.port);
    let exporter = Exporter::start_bare(&[&url, "--redis.sentinel-master=day"]);
    let page = exporter.scrape();
    assert!(!page.up());
    assert_eq!(page.errors("connect"), 1.0, "{}", exporter.log());
    let log = exporter.logged("Redis cannot be asked");
    assert!(log.contains("master day of the Sentinels redis://127.0.0.1"), "{log}");
}

#[test]
fn a_sentinel_that_does_not_answer_costs_less_than_a_second() {
    let master = Server::redis7();
    let (silent, sentinel) = (Sentinel::of(&master), Sentinel::of(&master));
    until("the Sentinels answer", || [&silent, &sentinel].iter().all(|sentinel| sentinel.master_port().is_some()));
    silent.signal("-STOP");
    let dead = DeadPort::new();
    let ports = [silent.port, dead.port, sentinel.port];
    let urls = ports.map(|port| format!("--redis.url=redis://127.0.0.1:{port}"));
    let mut args: Vec<_> = urls.iter().map(String::as_str).collect();
    args.push("--redis.sentinel-master=night");
    let exporter = Exporter::start_bare(&args);
    let began = Instant::now();
    assert!(exporter.scrape().up(), "{}", exporter.log());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    silent.signal("-CONT");
}

#[test]
fn a_sentinel_that_answers_at_once_is_the_only_one_that_is_asked() {
    let master = Server::redis7();
    let sentinel = Sentinel::of(&master);
    until("the Sentinel answers", || sentinel.master_port().is_some());
    let second = TcpListener::bind("127.0.0.1:0").unwrap();
    second.set_nonblocking(true).unwrap();
    let url = |port| format!("--redis.url=redis://127.0.0.1:{port}");
    let urls = [url(sentinel.port), url(second.local_addr().unwrap().port())];
    let exporter = Exporter::start_bare(&[&urls[0], &urls[1], "--redis.sentinel-master=night"]);
    assert!(exporter.scrape().up(), "{}", exporter.log());
    assert!(second.accept().is_err(), "the second one was asked");
}

#[test]
fn a_database_in_the_url_of_a_sentinel_is_the_masters() {
    let master = Server::redis7();
    let sentinel = Sentinel::of(&master);
    until("the Sentinel answers", || sentinel.master_port().is_some());
    let mut connection = master.connection();
    redis::pipe()
        .cmd("SELECT")
        .arg(2)
        .cmd("XGROUP")
        .arg(&["CREATE", "s", "g", "$", "MKSTREAM"])
        .exec(&mut connection)
        .unwrap();
    let url = format!("--redis.url=redis://127.0.0.1:{}/2", sentinel.port);
    let exporter = Exporter::start_bare(&[&url, "--redis.sentinel-master=night", "--stream=s=g"]);
    assert_eq!(exporter.scrape().group("exists", "s", "g"), Some(1.0), "{}", exporter.log());
}

#[test]
fn a_cluster_is_collected_as_one_and_a_moved_slot_is_followed() {
    let cluster = Cluster::start();
    let keys: Vec<_> = (0..12).map(|number| format!("instrument:{number}")).collect();
    for key in &keys {
        let node = &cluster.nodes[cluster.owner(key)];
        node.run(&format!("XGROUP CREATE {key} g $ MKSTREAM"));
        node.add(key, 1..=5);
        node.read(key, "g", "w", 2);
    }
    let owners: std::collections::BTreeSet<_> = keys.iter().map(|key| cluster.owner(key)).collect();
    assert_eq!(owners.len(), 3, "the streams are on all nodes");

    let exporter = cluster.exporter(&["--stream=instrument:*", "--stream=instrument:0=g"]);
    let check = || {
        let page = exporter.scrape();
        assert!(page.up(), "{}", exporter.log());
        for key in &keys {
            assert_eq!(page.group("messages_undelivered", key, "g"), Some(3.0), "{key}: {}", exporter.log());
            assert_eq!(page.group("messages_pending", key, "g"), Some(2.0), "{key}");
            assert_eq!(page.collected(key), Some(1.0), "{key}: {}", exporter.log());
        }
        assert!(!page.has("redis_memory_used_bytes"), "no one server speaks for a Cluster");
    };
    check();
    let key = &keys[0];
    let from = cluster.owner(key);
    cluster.move_slot(key, from, (from + 1) % 3);
    check();
    check();
}

#[test]
fn the_rights_of_the_readme_are_enough_for_a_cluster() {
    let cluster = Cluster::start();
    cluster.nodes.iter().for_each(|node| make_user(node, &["+cluster|slots", "+asking"]));
    let owner = &cluster.nodes[cluster.owner("instrument:a")];
    owner.run("XGROUP CREATE instrument:a g $ MKSTREAM");
    let exporter = as_user(&[&format!("--redis.url={}", cluster.nodes[0].url()), "--redis.cluster"]);
    let page = exporter.scrape();
    assert!(page.up(), "{}", exporter.log());
    assert_eq!(page.group("exists", "instrument:a", "g"), Some(1.0));
    cluster.nodes.iter().for_each(nothing_was_denied);
}

#[test]
fn a_cluster_with_a_node_down_is_shown_partly_and_comes_back() {
    let mut cluster = Cluster::start();
    let key = |node| (0..1_000).map(|number| format!("s{number}")).find(|key| cluster.owner(key) == node).unwrap();
    let (lost, kept) = (key(2), key(0));
    cluster.nodes[2].run(&format!("XGROUP CREATE {lost} g $ MKSTREAM"));
    cluster.nodes[0].run(&format!("XGROUP CREATE {kept} g $ MKSTREAM"));
    cluster.nodes.iter().for_each(|node| drop(node.run("CONFIG SET cluster-require-full-coverage no")));
    cluster.nodes[0].add(&kept, 1..=5);
    cluster.nodes[0].read(&kept, "g", "w", 2);
    let (named, pattern) = (format!("--stream={lost}=g"), "--stream=s*");
    let exporter = cluster.exporter(&[&named, pattern]);
    assert_eq!(exporter.scrape().group("messages_undelivered", &kept, "g"), Some(3.0), "{}", exporter.log());
    cluster.nodes[2].kill();
    let began = std::time::Instant::now();
    let page = exporter.scrape();
    assert!(page.up(), "{page:?}\n{}", exporter.log());
    assert!(page.errors("connect") >= 1.0, "{page:?}\n{}", exporter.log());
    assert_eq!((page.collected(&lost), page.collected(&kept)), (Some(0.0), Some(1.0)));
    assert_eq!(page.group("exists", &lost, "g"), None, "nobody knows");
    assert_eq!(page.group("messages_undelivered", &kept, "g"), Some(3.0), "counted, though a node is down");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let log = exporter.logged(&format!("stream {lost}"));
    assert!(log.contains("the Cluster of redis://127.0.0.1"), "{log}");
    cluster.nodes[2].spawn();
    cluster.nodes[2].wait();
    until("the Cluster is whole again", || exporter.scrape().collected(&lost) == Some(1.0));
}

#[test]
fn a_failover_of_a_cluster_is_followed() {
    let mut cluster = Cluster::start();
    let key = (0..1_000).map(|number| format!("s{number}")).find(|key| cluster.owner(key) == 2).unwrap();
    let replica = cluster.replica_of(2);
    cluster.nodes[2].run(&format!("XGROUP CREATE {key} g $ MKSTREAM"));
    until("the replica has it", || format!("{:?}", replica.run("INFO keyspace")).contains("keys=1"));
    let exporter = cluster.exporter(&[&format!("--stream={key}=g"), "--stream=s*"]);
    assert_eq!(exporter.scrape().group("exists", &key, "g"), Some(1.0), "{}", exporter.log());
    cluster.nodes[2].kill();
    // Without an election, which takes seconds.
    replica.run("CLUSTER FAILOVER TAKEOVER");
    until("the page shows it", || exporter.scrape().group("exists", &key, "g") == Some(1.0));
    exporter.logged("Redis answers");
}

#[test]
fn a_node_of_a_cluster_that_hangs_costs_only_its_own_streams() {
    let cluster = Cluster::start();
    // Many on each node, so that they are asked a few at first, then more.
    let keys: Vec<_> = (0..60).map(|number| format!("s{number}")).collect();
    cluster.nodes.iter().for_each(|node| drop(node.run("CONFIG SET cluster-require-full-coverage no")));
    for key in &keys {
        cluster.nodes[cluster.owner(key)].run(&format!("XGROUP CREATE {key} g $ MKSTREAM"));
    }
    let owners: Vec<_> = keys.iter().map(|key| cluster.owner(key)).collect();
    for hung in [0, 2] {
        // Node 0 is the one that the exporter is told of first.
        let urls = cluster.nodes.iter().map(|node| format!("--redis.url={}", node.url())).collect::<Vec<_>>();
        let named = keys.iter().map(|key| format!("--stream={key}=g")).collect::<Vec<_>>();
        let mut args = vec!["--redis.cluster", "--stream=s*", "--redis.timeout=3s"];
        args.extend(urls.iter().chain(&named).map(String::as_str));
        let by_pattern = ["--redis.cluster", "--stream=s*", "--redis.timeout=3s", &urls[0], &urls[1]];
        let exporters = [Exporter::start_bare(&args), Exporter::start_bare(&by_pattern)];
        for exporter in &exporters {
            let page = exporter.scrape();
            assert!(keys.iter().all(|key| page.collected(key) == Some(1.0)), "{page:?}\n{}", exporter.log());
        }
        cluster.nodes[hung].signal("-STOP");
        let anew = [Exporter::start_bare(&args), Exporter::start_bare(&by_pattern)];
        for exporter in exporters.iter().chain(&anew).cycle().take(8) {
            let began = Instant::now();
            let page = exporter.scrape();
            assert!(page.up(), "{page:?}\n{}", exporter.log());
            for (key, owner) in keys.iter().zip(&owners) {
                if *owner == hung {
                    assert_ne!(page.collected(key), Some(1.0), "{key}");
                } else {
                    assert_eq!(page.group("exists", key, "g"), Some(1.0), "{key}: {page:?}\n{}", exporter.log());
                }
            }
            assert!(page.errors("connect") >= 1.0, "{page:?}\n{}", exporter.log());
            assert!(began.elapsed() < Duration::from_millis(2_000), "{:?}", began.elapsed());
        }
        cluster.nodes[hung].signal("-CONT");
        for exporter in exporters.iter().chain(&anew) {
            until("the node is back", || {
                let page = exporter.scrape();
                keys.iter().all(|key| page.group("exists", key, "g") == Some(1.0))
            });
        }
    }
}

#[test]
fn a_first_node_of_a_cluster_that_cannot_be_reached_costs_less_than_a_second() {
    let (cluster, dead) = (Cluster::start(), DeadPort::new());
    cluster.nodes[cluster.owner("s")].run("XGROUP CREATE s g $ MKSTREAM");
    let urls = [dead.port, cluster.nodes[0].port].map(|port| format!("--redis.url=redis://127.0.0.1:{port}"));
    let exporter = Exporter::start_bare(&[&urls[0], &urls[1], "--redis.cluster", "--stream=s*"]);
    let began = Instant::now();
    assert_eq!(exporter.scrape().group("exists", "s", "g"), Some(1.0), "{}", exporter.log());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_node_of_a_cluster_that_refuses_everything_costs_only_its_own_streams() {
    let cluster = Cluster::start();
    let key = |node| (0..1_000).map(|number| format!("s{number}")).find(|key| cluster.owner(key) == node).unwrap();
    let keys = [key(0), key(1), key(2)];
    for (node, key) in cluster.nodes.iter().zip(&keys) {
        node.run(&format!("XGROUP CREATE {key} g $ MKSTREAM"));
        node.add(key, 1..=2);
        node.run("CONFIG SET busy-reply-threshold 1");
    }
    for (busy, node) in cluster.nodes.iter().enumerate() {
        let exporter = cluster.exporter(&["--stream=s*"]);
        assert!(exporter.scrape().up(), "{}", exporter.log());
        let (mut connection, mut killer) = (node.connection(), node.connection());
        let script = std::thread::spawn(move || {
            redis::cmd("EVAL").arg(&["while true do end", "0"]).exec(&mut connection).unwrap_err()
        });
        until("it is busy", || node.answers_busy());
        let page = exporter.scrape();
        redis::cmd("SCRIPT").arg("KILL").exec(&mut killer).unwrap();
        script.join().unwrap();
        assert!(page.up() && page.has("_age_seconds{"), "{page:?}\n{}", exporter.log());
        for (owner, key) in keys.iter().enumerate() {
            let expected = (owner != busy).then_some(1.0);
            assert_eq!(page.group("exists", key, "g"), expected, "{key}: {page:?}\n{}", exporter.log());
        }
        exporter.logged("BUSY");
    }
}

#[test]
fn a_stream_whose_reply_is_too_large_costs_no_other_of_its_node() {
    let cluster = Cluster::start();
    let keys: Vec<_> = (0..40).map(|number| format!("{{a}}{number}")).collect();
    let node = &cluster.nodes[cluster.owner("{a}")];
    for key in &keys {
        node.run(&format!("XGROUP CREATE {key} g 0 MKSTREAM"));
    }
    node.run_args(&[b"XADD", keys[17].as_bytes(), b"*", b"image", &vec![b'x'; 9 << 20]]);
    let exporter = cluster.exporter(&["--stream=*"]);
    let mut page = exporter.scrape();
    for _ in 0..3 {
        page = exporter.scrape();
    }
    for key in &keys {
        assert_eq!(page.group("exists", key, "g"), Some(1.0), "{key}: {page:?}\n{}", exporter.log());
    }
}

#[test]
fn a_slot_that_is_on_its_way_is_followed_with_the_rights_of_the_readme() {
    let cluster = Cluster::start();
    cluster.nodes.iter().for_each(|node| make_user(node, &["+cluster|slots", "+asking"]));
    let key = "instrument:a";
    let from = cluster.owner(key);
    let to = (from + 1) % 3;
    cluster.nodes[from].run(&format!("XGROUP CREATE {key} g $ MKSTREAM"));
    let exporter = as_user(&[&format!("--redis.url={}", cluster.nodes[0].url()), "--redis.cluster"]);
    assert_eq!(exporter.scrape().group("exists", key, "g"), Some(1.0), "{}", exporter.log());
    cluster.begin_move(key, from, to);
    assert_eq!(exporter.scrape().group("exists", key, "g"), Some(1.0), "{}", exporter.log());
    cluster.end_move(key, from, to);
    assert_eq!(exporter.scrape().group("exists", key, "g"), Some(1.0), "{}", exporter.log());
    cluster.nodes.iter().for_each(nothing_was_denied);
}

#[test]
fn a_cluster_of_one_node_that_knows_no_address_of_its_own() {
    let bus = free_port().to_string();
    let node = Server::start_with(Flavor::Redis7, &["--cluster-enabled", "yes", "--cluster-port", &bus]);
    node.run("CLUSTER ADDSLOTSRANGE 0 16383");
    until("it serves", || redis::cmd("EXISTS").arg("s").exec(&mut node.connection()).is_ok());
    node.run("XGROUP CREATE s g $ MKSTREAM");
    for kind in ["ip", "unknown-endpoint"] {
        node.run(&format!("CONFIG SET cluster-preferred-endpoint-type {kind}"));
        let exporter = Exporter::start_bare(&[&format!("--redis.url={}", node.url()), "--redis.cluster", "--stream=*"]);
        assert_eq!(exporter.scrape().group("exists", "s", "g"), Some(1.0), "{kind}: {}", exporter.log());
    }
}

#[test]
fn a_database_of_a_cluster_is_selected_or_the_log_says_why_not() {
    let stream = |node: &Server, database: u8| {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SELECT").arg(database).cmd("XGROUP").arg(&["CREATE", "s", "g", "$", "MKSTREAM"]);
        pipeline.exec(&mut node.connection())
    };
    let exporter = |cluster: &Cluster| {
        let url = format!("--redis.url={}/2", cluster.nodes[0].url());
        Exporter::start_bare(&[&url, "--redis.cluster", "--stream=s=g"])
    };
    let valkey = Cluster::with(Flavor::Valkey9, &["--cluster-databases", "3"]);
    stream(&valkey.nodes[valkey.owner("s")], 2).unwrap();
    let watching = exporter(&valkey);
    assert_eq!(watching.scrape().group("exists", "s", "g"), Some(1.0), "{}", watching.log());

    let redis = Cluster::start();
    assert!(stream(&redis.nodes[redis.owner("s")], 2).is_err());
    let refused = exporter(&redis);
    assert!(!refused.scrape().up());
    let log = refused.logged("Redis cannot be asked");
    assert!(log.contains("SELECT is not allowed in cluster mode"), "{log}");
}
