//! Meters: how long another client waits, and how much memory a process has taken.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use redis::Value;

use crate::support::Server;

/// A client that sends PING again and again over a connection of its own, and now and then asks for Redis's memory.
pub struct Pings {
    done: Arc<AtomicBool>,
    counts: Arc<AtomicBool>,
    thread: thread::JoinHandle<Seen>,
}

/// What that client saw.
#[derive(Default)]
pub struct Seen {
    /// The longest that it waited for a reply to PING.
    pub longest: Duration,
    /// The most memory that Redis used at a time, in bytes.
    pub memory: u64,
}

/// After so many PINGs Redis is asked for its memory.
const PINGS_A_LOOK: u64 = 10;

impl Pings {
    pub fn start(server: &Server) -> Self {
        let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        client.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let done = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(AtomicBool::new(true));
        let (stop, counting) = (Arc::clone(&done), Arc::clone(&counts));
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (began, counted) = (Instant::now(), counting.load(Ordering::SeqCst));
                client.write_all(b"PING\r\n").unwrap();
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if counted && counting.load(Ordering::SeqCst) {
                    seen.longest = seen.longest.max(began.elapsed());
                }
                if number % PINGS_A_LOOK == 0 {
                    client.write_all(b"INFO memory\r\n").unwrap();
                    seen.memory = seen.memory.max(used_memory(&mut reader));
                }
                thread::sleep(Duration::from_micros(200));
            }
            seen
        });
        Self { done, counts, thread }
    }

    /// Whether waits count from now on: not while a test itself keeps the processor busy.
    pub fn count(&self, counts: bool) {
        self.counts.store(counts, Ordering::SeqCst);
    }

    pub fn stop(self) -> Seen {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    /// What it sees in this time.
    pub fn during(server: &Server, time: Duration) -> Seen {
        let pings = Self::start(server);
        thread::sleep(time);
        pings.stop()
    }
}

/// Reads the reply to `INFO memory`.
fn used_memory(reader: &mut impl BufRead) -> u64 {
    let mut length = String::new();
    reader.read_line(&mut length).unwrap();
    let length: usize = length.trim().trim_start_matches('$').parse().unwrap();
    let mut text = vec![0; length + 2];
    reader.read_exact(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    text.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse().unwrap()
}

/// A field of `/proc/PID/status` in bytes.
pub fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Files and sockets that a process has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A number of Redis's INFO.
pub fn info(server: &Server, name: &str) -> u64 {
    let info: String = redis::cmd("INFO").query(&mut server.connection()).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}

/// Begins to record commands of half a millisecond and more, and the peak of memory.
pub fn begin_slow_log(server: &Server) {
    server.run("CONFIG SET slowlog-log-slower-than 500");
    server.run("CONFIG SET slowlog-max-len 1000");
    server.run("CONFIG RESETSTAT");
    server.run("SLOWLOG RESET");
}

/// The longest command since then; `None` where all were shorter.
pub fn longest_command(server: &Server) -> Option<Duration> {
    let Value::Array(entries) = server.run("SLOWLOG GET 1000") else { panic!("no slow log") };
    let took = entries.into_iter().map(|entry| match entry {
        Value::Array(fields) => match fields[2] {
            Value::Int(micros) => Duration::from_micros(u64::try_from(micros).unwrap()),
            _ => panic!("{fields:?}"),
        },
        _ => panic!("{entry:?}"),
    });
    took.max()
}
