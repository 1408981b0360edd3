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

/// Where scripts/install-tools.sh puts the newest one that Debian has.
pub const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/bin/redis_exporter");

/// The longest that another client waits while redis_exporter is scraped so often, or for ten seconds.
pub fn longest_stall(server: &Server, streams: &[String], scrapes: u64) -> Duration {
    let address = format!("127.0.0.1:{}", free_port());
    let child = Command::new(PROGRAM)
        .arg(format!("-redis.addr={}", server.url()))
        .arg(format!("-web.listen-address={address}"))
        .arg(format!("-check-single-streams={}", streams.join(",")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis_exporter is missing: install it with scripts/install-tools.sh stress");
    let peer = Peer { child, address };
    until("redis_exporter serves", || http::send(&peer.address, "GET", "/", &[], None).is_ok());
    let (pings, began) = (Pings::start(server), Instant::now());
    for _ in 0..scrapes {
        let _ = http::send(&peer.address, "GET", "/metrics", &[], None);
        if began.elapsed() > Duration::from_secs(10) {
            break;
        }
    }
    pings.stop().longest
}
