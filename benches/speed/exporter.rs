//! The exporters as processes, ended when dropped.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    scraper::Scraper,
    support::{free_port, until},
    usage,
    workload::Workload,
};

pub const OURS: &str = "prompt-redis-exporter";
pub const REDIS_EXPORTER: &str = "redis_exporter";
pub const POLLER: &str = "Python poller";
pub const ALL: [&str; 3] = [OURS, REDIS_EXPORTER, POLLER];

pub struct Exporter {
    pub name: &'static str,
    child: Child,
    pub address: String,
    scraper: Scraper,
}

impl Exporter {
    pub fn start(name: &'static str, workload: &Workload, redis_port: u16) -> Self {
        let port = free_port();
        let child = command(name, workload, redis_port, port).spawn().unwrap();
        let address = format!("127.0.0.1:{port}");
        until("the exporter listens", || TcpStream::connect(&address).is_ok());
        let scraper = Scraper::new(&address);
        Self { name, child, address, scraper }
    }

    /// A page with values that are read now. The poller is made to poll first.
    pub fn scrape(&mut self, headers: &str) -> usize {
        if self.name == POLLER {
            self.scraper.get("/poll", "");
        }
        self.scraper.get("/metrics", headers)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn resident_mib(&self) -> f64 {
        usage::resident_mib(self.child.id())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The release build that is measured.
pub fn binary() -> PathBuf {
    std::env::var_os("EXPORTER").map_or_else(|| root().join("target/release").join(OURS), PathBuf::from)
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn tool(name: &str) -> PathBuf {
    let path = root().join(".tools").join(name);
    assert!(path.exists(), "{} is missing: scripts/install-tools.sh bench", path.display());
    path
}

/// Each is told the streams by name or by pattern, as the workload says, and makes no series per consumer where it can do
/// without.
pub fn command(name: &str, workload: &Workload, redis_port: u16, port: u16) -> Command {
    let selectors = workload.selectors();
    let mut command = match name {
        OURS => {
            let mut command = Command::new(binary());
            command.arg(format!("--redis.url=redis://127.0.0.1:{redis_port}"));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            // Its own limit would end the slowest collections of 10,000 streams over a slow link.
            command.arg("--redis.timeout=60s");
            command.args(selectors.iter().map(|selector| format!("--stream={selector}")));
            command
        }
        REDIS_EXPORTER => {
            let mut command = Command::new(tool("bin/redis_exporter"));
            let option = if workload.by_pattern { "check-streams" } else { "check-single-streams" };
            command.arg(format!("--redis.addr=redis://127.0.0.1:{redis_port}"));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command.arg(format!("--{option}={}", selectors.join(",")));
            command.arg("--streams-exclude-consumer-metrics");
            command
        }
        _ => {
            let mut command = Command::new(tool("venv/bin/python"));
            command.arg(root().join("benches/poller.py")).args([port.to_string(), redis_port.to_string()]);
            command.args(selectors);
            command
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
