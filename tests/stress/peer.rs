//! Debian's redis_exporter, for comparison.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    meter::Pings,
    support::{Server, free_port, http, until},
};

struct Peer {
    child: Child,
    address: String,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The longest that another client waits while redis_exporter is scraped, some times or ten seconds long.
pub fn longest_stall(server: &Server, streams: &[String]) -> Duration {
    let address = format!("127.0.0.1:{}", free_port());
    let child = Command::new("prometheus-redis-exporter")
        .arg(format!("-redis.addr={}", server.url()))
        .arg(format!("-web.listen-address={address}"))
        .arg(format!("-check-single-streams={}", streams.join(",")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus-redis-exporter is missing: install it with scripts/install-tools.sh stress");
    let peer = Peer { child, address };
    until("redis_exporter serves", || http::send(&peer.address, "GET", "/", &[], None).is_ok());
    let (pings, began) = (Pings::start(server), Instant::now());
    for _ in 0..10 {
        let _ = http::send(&peer.address, "GET", "/metrics", &[], None);
        if began.elapsed() > Duration::from_secs(10) {
            break;
        }
    }
    pings.stop().longest
}
