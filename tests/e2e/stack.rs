//! Prometheus, Alertmanager and a receiver of notifications, each on a port of its own, ended when dropped.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    rewrite::FASTER,
    shipped::{ALERTMANAGER, ALERTS, RULES, path, text},
    support::free_port,
};

/// 15 s, the interval that the rules ask for, at the pace of [`FASTER`].
pub const INTERVAL: &str = "250ms";
/// Prometheus's own times, at that pace too; but an alert that was not heard is sent again after five minutes of the
/// night and not after one: Alertmanager forgets an alert that is not repeated, and a machine may be busy for a while.
const OPTIONS: [&str; 2] = ["--query.lookback-delta=5s", "--rules.alert.resend-delay=5s"];
/// The labels that the data facility's Prometheus adds.
pub const JOB: &str = "prompt-redis-exporter";
pub const NAMESPACE: &str = "usdfprod-prompt-processing";

/// The two generations that are in use: Debian stable's Prometheus, and Prometheus 3 out of Debian unstable.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Generation {
    Two,
    Three,
}

impl Generation {
    pub const BOTH: [Self; 2] = [Self::Two, Self::Three];

    /// prometheus, promtool, alertmanager or amtool of this generation.
    pub fn program(self, name: &str) -> PathBuf {
        match (self, name) {
            (Self::Two, "alertmanager") => "prometheus-alertmanager".into(),
            (Self::Two, name) => name.into(),
            (Self::Three, name) => path(".tools/bin").join(format!("{name}-3")),
        }
    }
}

/// Waits until there is one; fails with this sentence if that takes too long.
pub fn within<T>(longest: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < longest, "waited {longest:?} in vain: {what}");
        thread::sleep(Duration::from_millis(25));
    }
}

/// A program in a directory of its own. What it says goes into a file there.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(name: &'static str, command: &mut Command, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn();
        let child =
            child.unwrap_or_else(|error| panic!("{name}: {error}: install it with scripts/install-tools.sh test"));
        Self { name, child, log }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it answers that it is ready.
    fn ready(&mut self, address: &str) {
        within(Duration::from_secs(60), "it is ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            fetch(address, "/-/ready").ok().filter(|(status, _)| *status == 200)
        });
    }

    /// Waits until it has ended well, and gives what it said.
    pub fn finish(&mut self) -> String {
        let status = within(Duration::from_secs(120), "it has ended", || self.child.try_wait().unwrap());
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.log());
        self.log()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a tool to its end, and gives what it said.
pub fn tool(generation: Generation, name: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(generation.program(name)).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output =
        output.unwrap_or_else(|error| panic!("{name}: {error}: install it with scripts/install-tools.sh test"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Status and body.
pub fn fetch(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    request(address, &format!("GET {path}"), "")
}

/// HTTP/1.0, so that the answer comes in one piece.
pub fn request(address: &str, asked: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut client = TcpStream::connect(address)?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let length = body.len();
    write!(client, "{asked} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n")?;
    write!(client, "Content-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => escaped.push(byte.into()),
            _ => write!(escaped, "%{byte:02X}").unwrap(),
        }
    }
    escaped
}

/// A Prometheus and its data.
pub struct Prometheus {
    process: Process,
    address: String,
}

impl Prometheus {
    /// Keeps its data below `dir`, under data.
    pub fn start(generation: Generation, dir: &Path, config: &Value, options: &[&str]) -> Self {
        let file = dir.join("prometheus.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(generation.program("prometheus"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.arg(format!("--web.listen-address={address}")).args(options);
        let mut process = Process::start("prometheus", &mut command, dir);
        process.ready(&address);
        Self { process, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the API answers, or the error it gives.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let pairs = parameters.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
        let path = format!("/api/v1/{path}?{}", pairs.collect::<Vec<_>>().join("&"));
        let (status, body) = fetch(&self.address, &path).map_err(|error| format!("{error}: {}", self.process.log()))?;
        let mut answer: Value = serde_json::from_str(&body).map_err(|error| format!("{status} {error}: {body}"))?;
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(answer["error"].to_string()) }
    }

    /// What it says of itself.
    pub fn own_metrics(&self) -> String {
        fetch(&self.address, "/metrics").unwrap().1
    }

    /// An instant query's samples, now.
    pub fn query(&self, expr: &str) -> Vec<Value> {
        let answer = self.ask("query", &[("query", expr)]).unwrap_or_else(|error| panic!("{error}: {expr}"));
        answer["result"].as_array().unwrap().clone()
    }

    /// The one number that an instant query gives, if it gives one.
    pub fn number(&self, expr: &str) -> Option<f64> {
        self.query(expr).first().map(|sample| value(&sample["value"]))
    }
}

/// The number of a sample, which is a time and a text.
pub fn value(sample: &Value) -> f64 {
    sample[1].as_str().unwrap().parse().unwrap()
}

/// A configuration that scrapes these exporters.
pub fn config(interval: &str, exporters: &[&str], rule_files: &[PathBuf]) -> Value {
    json!({
        "global": { "scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval },
        "rule_files": rule_files,
        "scrape_configs": [{
            "job_name": JOB,
            "static_configs": [{ "targets": exporters, "labels": { "namespace": NAMESPACE } }],
        }],
    })
}

/// A notification as it arrived.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The receiver: page, channel or dev-channel.
    pub receiver: String,
    pub body: Value,
    pub at: Instant,
}

impl Notification {
    pub fn alerts(&self) -> &[Value] {
        self.body["alerts"].as_array().unwrap()
    }
}

/// Takes Alertmanager's notifications.
pub struct Receiver {
    address: String,
    received: Arc<Mutex<Vec<Notification>>>,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let received = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&received);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Some(notification) = take(&client) {
                    taken.lock().unwrap().push(notification);
                }
                let _ = (&client).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Self { address, received }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn received(&self) -> Vec<Notification> {
        self.received.lock().unwrap().clone()
    }
}

fn take(client: &TcpStream) -> Option<Notification> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let receiver = line.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let mut length = 0;
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if let Some((name, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Notification { receiver, body: serde_json::from_slice(&body).ok()?, at: Instant::now() })
}

/// All three, with the shipped files at the pace of [`FASTER`].
pub struct Stack {
    pub prometheus: Prometheus,
    pub receiver: Receiver,
    _alertmanager: Process,
    _dir: TempDir,
}

impl Stack {
    /// Watches these exporters. Is there when each was scraped once.
    pub fn watching(generation: Generation, exporters: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let receiver = Receiver::start();
        let (alertmanager, notified) = start_alertmanager(generation, dir.path(), &receiver.address);
        let mut config =
            config(INTERVAL, exporters, &[write_rules(dir.path(), ALERTS), write_rules(dir.path(), RULES)]);
        config["alerting"] = json!({ "alertmanagers": [{ "static_configs": [{ "targets": [notified] }] }] });
        let prometheus = Prometheus::start(generation, dir.path(), &config, &OPTIONS);
        within(Duration::from_secs(60), "every exporter is scraped, and Alertmanager is known", || {
            let scraped = prometheus.number("count(max_over_time(up[1m]) == 1) or vector(0)")?;
            let known = prometheus.ask("alertmanagers", &[]).unwrap()["activeAlertmanagers"].as_array()?.len();
            (scraped == exporters.len() as f64 && known == 1).then_some(())
        });
        Self { prometheus, receiver, _alertmanager: alertmanager, _dir: dir }
    }
}

fn write_rules(dir: &Path, name: &str) -> PathBuf {
    let file = dir.join(Path::new(name).file_name().unwrap());
    fs::write(&file, FASTER.rules(&text(name))).unwrap();
    file
}

/// The process, and where it listens.
pub fn start_alertmanager(generation: Generation, dir: &Path, receiver: &str) -> (Process, String) {
    let (file, data) = (dir.join("alertmanager.yaml"), dir.join("alertmanager"));
    fs::write(&file, FASTER.alertmanager(&text(ALERTMANAGER), receiver)).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(generation.program("alertmanager"));
    command.arg(format!("--config.file={}", file.display())).arg(format!("--storage.path={}", data.display()));
    command.arg(format!("--web.listen-address={address}")).arg("--cluster.listen-address=");
    let mut process = Process::start("alertmanager", &mut command, dir);
    process.ready(&address);
    (process, address)
}
