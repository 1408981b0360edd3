//! A real Sentinel.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use redis::Value;

use super::{Server, free_port};

/// A Sentinel, which is a redis-server that was started as one.
pub struct Sentinel {
    pub port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Sentinel {
    pub fn of(master: &Server) -> Self {
        let (port, dir) = (free_port(), tempfile::TempDir::new().unwrap());
        let config = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor night 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds night 500\nsentinel failover-timeout night 2000\n",
            dir.path().display(),
            master.port
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("redis-server")
            .arg(&config)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: install it with scripts/install-tools.sh test");
        Self { port, child, _dir: dir }
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// This Sentinel's reply, if it serves already.
    fn query(&self, words: &[&str]) -> Option<Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        redis::cmd("SENTINEL").arg(words).query(&mut client.get_connection().ok()?).ok()
    }

    pub fn master_port(&self) -> Option<String> {
        let reply = self.query(&["GET-MASTER-ADDR-BY-NAME", "night"])?;
        let (_, port): (String, String) = redis::from_redis_value(reply).ok()?;
        Some(port)
    }

    /// How many replicas and other Sentinels it knows.
    pub fn knows(&self) -> (usize, usize) {
        let count = |what| match self.query(&[what, "night"]) {
            Some(Value::Array(list)) => list.len(),
            _ => 0,
        };
        (count("REPLICAS"), count("SENTINELS"))
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
