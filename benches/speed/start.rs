//! From exec to the first page that was answered: what a restarted pod costs.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    client::Client,
    exporter::{self, OURS},
    results::Start,
    scraper::Scraper,
    support::{Flavor, SOON, Server, free_port},
    tls::Authority,
    usage::{latency, milliseconds},
    workload::{self, Workload},
};

const STARTS: usize = 31;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_micros(100);
/// A bcrypt cost whose hash takes about a millisecond: what is measured is the exporter, not bcrypt.
const BCRYPT_COST: u32 = 4;

pub fn measure() -> Vec<Start> {
    let workload = &workload::ALL[0];
    let server = workload.load();
    let mut starts: Vec<_> = exporter::ALL.iter().map(|name| plain(name, workload, &server)).collect();
    drop(server);
    starts.insert(1, secured(workload));
    starts
}

fn plain(name: &str, workload: &Workload, server: &Server) -> Start {
    repeat(name, "plain", || {
        let port = free_port();
        let command = exporter::command(name, workload, server.port, port);
        first_page(command, port, |address| {
            // The poller shows nothing before it has polled.
            let mut scraper = Scraper::new(address);
            if name == exporter::POLLER {
                scraper.get("/poll", "");
            }
            scraper.get("/metrics", "");
        })
    })
}

/// TLS and a password to Redis, TLS and a password for the page.
fn secured(workload: &Workload) -> Start {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "ca.crt");
    authority.sign(dir.path(), "server", "localhost", true);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let hash = bcrypt::hash("b", BCRYPT_COST).unwrap();
    let web = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\nbasic_auth_users:\n  a: {hash}\n"
    );
    fs::write(file("web.yml"), web).unwrap();
    fs::write(file("password"), "secret").unwrap();
    let tls_port = free_port().to_string();
    let (cert, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
    let _server = Server::start_with(
        Flavor::Redis7,
        &[
            ["--tls-port", &tls_port],
            ["--tls-cert-file", &cert],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &ca],
            ["--tls-auth-clients", "no"],
            ["--requirepass", "secret"],
        ]
        .concat(),
    );
    let client = Client::new(dir.path(), "ca.crt", None, rustls::DEFAULT_VERSIONS);
    repeat(OURS, "TLS and a password, to Redis and to the page; bcrypt of cost 4", || {
        let port = free_port();
        let mut command = Command::new(exporter::binary());
        command.arg(format!("--redis.url=rediss://localhost:{tls_port}"));
        command.arg(format!("--redis.tls-ca-file={ca}"));
        command.arg(format!("--redis.password-file={}", file("password")));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg(format!("--web.config.file={}", file("web.yml")));
        command.args(workload.selectors().iter().map(|selector| format!("--stream={selector}")));
        command.stderr(Stdio::null());
        first_page(command, port, |address| {
            let page = client.get(address, "/metrics", &[("Authorization", "Basic YTpi")]).unwrap().text();
            assert!(page.contains("\nredis_up 1\n"), "{page}");
        })
    })
}

fn repeat(name: &str, how: &str, start: impl Fn() -> Duration) -> Start {
    start();
    let times: Vec<_> = (0..STARTS).map(|_| start()).collect();
    let worst = times.iter().max().copied().unwrap_or_default();
    Start {
        exporter: name.to_owned(),
        how: how.to_owned(),
        starts: times.len(),
        p50_ms: latency(&times).p50_ms,
        worst_ms: milliseconds(worst),
    }
}

/// Ended also where the test panics.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn first_page(mut command: Command, port: u16, get: impl FnOnce(&str)) -> Duration {
    let address = format!("127.0.0.1:{port}");
    let began = Instant::now();
    let _child = Ended(command.spawn().unwrap());
    while TcpStream::connect(&address).is_err() {
        assert!(began.elapsed() < SOON, "{command:?} does not listen");
        thread::sleep(PAUSE);
    }
    get(&address);
    began.elapsed()
}
