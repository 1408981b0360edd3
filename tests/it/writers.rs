//! Collections while others write at full speed: what is shown was true at a moment between the collection's beginning
//! and its end. `make stress` does the same for 100,000 groups.

use crate::support::{
    Cluster, Flavor, Proxy, Server,
    writers::{Collecting, LIMITS, collect_beside_writers},
};

/// With each limit.
const COLLECTIONS: u64 = 60;

fn what_is_shown_was_true(flavor: Flavor) {
    let server = Server::start(flavor);
    let proxy = Proxy::cutting(&server, 7);
    for (url, seed) in [(format!("--redis.url={}", server.url()), 1), (proxy.url(), 2)] {
        for limit in LIMITS {
            let told = collect_beside_writers(&server, &Collecting::new(&[&url, limit]), COLLECTIONS, seed);
            told.assert_true();
            assert!(limit != LIMITS[0] || told.exact * 10 > told.groups * 9, "few exact numbers: {told:?}");
        }
    }
}

#[test]
fn what_is_shown_was_true_on_redis_8() {
    what_is_shown_was_true(Flavor::Redis8);
}

#[test]
fn what_is_shown_was_true_on_redis_7() {
    what_is_shown_was_true(Flavor::Redis7);
}

#[test]
fn what_is_shown_was_true_on_valkey_9() {
    what_is_shown_was_true(Flavor::Valkey9);
}

/// Without its counters nothing but the script can tell two streams of the same name apart.
#[test]
fn what_is_shown_was_true_on_redis_6_where_scripts_are_run() {
    let server = Server::start(Flavor::Redis6);
    let proxy = Proxy::cutting(&server, 7);
    for (url, seed) in [(format!("--redis.url={}", server.url()), 1), (proxy.url(), 2)] {
        collect_beside_writers(&server, &Collecting::new(&[&url, LIMITS[0]]), COLLECTIONS, seed).assert_true();
    }
}

#[test]
fn what_is_shown_was_true_where_scripts_are_refused() {
    for flavor in [Flavor::Redis8, Flavor::Redis7, Flavor::Valkey9] {
        let server = Server::start(flavor);
        server.run("ACL SETUSER default -eval_ro");
        let proxy = Proxy::cutting(&server, 7);
        for (url, seed) in [(format!("--redis.url={}", server.url()), 1), (proxy.url(), 2)] {
            collect_beside_writers(&server, &Collecting::new(&[&url]), COLLECTIONS, seed).assert_true();
        }
    }
}

#[test]
fn what_is_shown_was_true_in_a_cluster() {
    let cluster = Cluster::start();
    let owner = cluster.owner_of_writers();
    for limit in LIMITS {
        let collecting = Collecting::new(&[&format!("--redis.url={}", owner.url()), "--redis.cluster", limit]);
        collect_beside_writers(owner, &collecting, COLLECTIONS, 1).assert_true();
    }
    let proxies = cluster.behind_proxies();
    for limit in LIMITS {
        let collecting = Collecting::new(&[&proxies[0].url(), "--redis.cluster", limit]);
        collect_beside_writers(owner, &collecting, COLLECTIONS, 2).assert_true();
    }
}
