//! The time of a scrape beside its floor, on a real redis-server, in one run.
//!
//! The floor is what no exporter can do without: a bare socket that sends Redis the same commands in one write and
//! does not parse the replies, plus an empty reply over HTTP (`/-/healthy`). `cargo bench --bench scrape` prints medians,
//! taken in turns, and fails if a scrape takes more than three times its floor.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on should fail")]

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "shared with the tests")]
mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use support::{Exporter, Server};

/// What the bare socket may be multiplied by.
const GOAL: f64 = 3.0;
const ROUNDS: usize = 301;

struct Workload {
    name: &'static str,
    streams: usize,
    consumers: usize,
    entries: usize,
    /// One stream in so many has something waiting in the middle and something pending.
    busy: usize,
}

const WORKLOADS: [Workload; 2] = [
    Workload { name: "3 streams x 704 consumers", streams: 3, consumers: 704, entries: 1_000, busy: 1 },
    Workload { name: "1000 streams", streams: 1_000, consumers: 1, entries: 10, busy: 10 },
];

impl Workload {
    fn load(&self) -> Server {
        let server = Server::redis7();
        let mut connection = server.connection();
        for number in 0..self.streams {
            let (key, mut pipeline) = (format!("s{number}"), redis::pipe());
            pipeline.cmd("XGROUP").arg(&["CREATE", &key, "g", "$", "MKSTREAM"]).ignore();
            for consumer in 0..self.consumers {
                let consumer = format!("00000000-0000-4000-8000-{consumer:012}");
                pipeline.cmd("XGROUP").arg(&["CREATECONSUMER", &key, "g", &consumer]).ignore();
            }
            for _ in 0..self.entries {
                pipeline.cmd("XADD").arg(&[&key, "*", "visit", &"x".repeat(1_200)]).ignore();
            }
            let wait = if number % self.busy == 0 { self.entries.min(172) / 2 } else { 0 };
            let read = (self.entries - wait).to_string();
            let ack = if number % self.busy == 0 { "" } else { "NOACK" };
            let worker = "00000000-0000-4000-8000-000000000000";
            let words = ["GROUP", "g", worker, "COUNT", &read, ack, "STREAMS", &key, ">"];
            pipeline.cmd("XREADGROUP").arg(words.iter().filter(|word| !word.is_empty()).collect::<Vec<_>>()).ignore();
            pipeline.query::<()>(&mut connection).unwrap();
        }
        server
    }
}

/// A keep-alive connection that a scraper holds.
struct Scraper {
    reader: BufReader<TcpStream>,
}

impl Scraper {
    fn new(exporter: &Exporter) -> Self {
        let stream = TcpStream::connect(&exporter.address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::with_capacity(1 << 20, stream) }
    }

    /// The length of the reply's body.
    fn get(&mut self, path: &str, headers: &str) -> usize {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        self.reader.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut self.reader.by_ref().take(length as u64), &mut std::io::sink()).unwrap();
        length
    }
}

/// The bare socket: the same commands as bytes, and a PING that marks the end of the replies.
struct Bare {
    stream: TcpStream,
    commands: Vec<u8>,
    buffer: Vec<u8>,
}

impl Bare {
    /// Reads the commands of one scrape with MONITOR.
    fn repeating(server: &Server, scrape: impl FnOnce()) -> Self {
        let mut monitor = BufReader::new(TcpStream::connect(("127.0.0.1", server.port)).unwrap());
        monitor.get_mut().write_all(b"MONITOR\r\n").unwrap();
        let mut line = String::new();
        monitor.read_line(&mut line).unwrap();
        scrape();
        server.run("PING");
        let mut commands = Vec::new();
        loop {
            line.clear();
            monitor.read_line(&mut line).unwrap();
            let words = words(&line);
            match words[0].as_str() {
                "PING" => break,
                // The test's own connection introduces itself.
                "CLIENT" => {}
                _ if line.contains(" lua] ") => {}
                _ => push(&mut commands, &words),
            }
        }
        push(&mut commands, &["PING".to_owned()]);
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, commands, buffer: vec![0; 1 << 20] }
    }

    fn exchange(&mut self) {
        let mut writer = self.stream.try_clone().unwrap();
        // The commands may be more than fits into the socket while Redis waits for the replies to be read.
        std::thread::scope(|scope| {
            if self.commands.len() > 50_000 {
                scope.spawn(|| writer.write_all(&self.commands).unwrap());
            } else {
                writer.write_all(&self.commands).unwrap();
            }
            loop {
                let read = self.stream.read(&mut self.buffer).unwrap();
                if self.buffer[..read].ends_with(b"+PONG\r\n") {
                    break;
                }
            }
        });
    }
}

fn push(commands: &mut Vec<u8>, words: &[String]) {
    write!(commands, "*{}\r\n", words.len()).unwrap();
    for word in words {
        write!(commands, "${}\r\n{word}\r\n", word.len()).unwrap();
    }
}

/// The words of a line of MONITOR: each in quotes, with quotes and backslashes escaped.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut chars = line.chars();
    while chars.by_ref().any(|c| c == '"') {
        let mut word = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => word.extend(chars.next()),
                c => word.push(c),
            }
        }
        words.push(word);
    }
    words
}

fn time(mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn measure(workload: &Workload) -> bool {
    let server = workload.load();
    let exporter = Exporter::start(&server, &["--stream=s*"]);
    exporter.scrape();
    let mut scraper = Scraper::new(&exporter);
    let mut bare = Bare::repeating(&server, || {
        exporter.scrape();
    });

    let gzip = "Accept-Encoding: gzip\r\n";
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(time(|| bare.exchange()));
        times[1].push(time(|| _ = scraper.get("/-/healthy", "")));
        times[2].push(time(|| _ = scraper.get("/metrics", "")));
        times[3].push(time(|| _ = scraper.get("/metrics", gzip)));
    }
    let [bare, empty, plain, packed] = times.map(|times| median(times).as_secs_f64() * 1e3);
    let floor = bare + empty;
    println!(
        "RATIO {}: bare socket {bare:.3} ms + empty reply {empty:.3} ms = floor {floor:.3} ms; \
         scrape {plain:.3} ms = {:.2} x; with gzip {packed:.3} ms = {:.2} x (medians of {ROUNDS})",
        workload.name,
        plain / floor,
        packed / floor
    );
    plain / floor <= GOAL
}

fn main() {
    let reached: Vec<_> = WORKLOADS.iter().map(measure).collect();
    assert!(reached.iter().all(|reached| *reached), "a scrape takes more than {GOAL} times its floor");
}
