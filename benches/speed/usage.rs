//! What processes and Redis used.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use redis::InfoDict;

use crate::{
    results::{Latency, Stall, Work},
    support::Server,
};

/// Between two PINGs of the client that watches for stalls, so that it is no load of its own.
const PAUSE: Duration = Duration::from_micros(200);

/// The time that all threads of a process have run. Linux counts it in nanoseconds.
pub fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map_while(Result::ok);
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.map(of_thread).sum())
}

pub fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// What a scrape makes Redis do.
pub fn work(server: &Server, scrape: impl FnOnce()) -> Work {
    let mut connection = server.connection();
    redis::cmd("CONFIG").arg("RESETSTAT").query::<()>(&mut connection).unwrap();
    scrape();
    let stats: InfoDict = redis::cmd("INFO").arg("all").query(&mut connection).unwrap();
    let text: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
    let calls = text.lines().filter_map(|line| {
        let (command, stats) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        // Two of the commands are ours.
        let calls: u64 = stats.split(',').next()?.parse().ok()?;
        Some(match command {
            "config|resetstat" => 0,
            "info" => calls - 1,
            _ => calls,
        })
    });
    let stat = |name: &str| stats.get::<u64>(name).unwrap();
    Work {
        commands: calls.sum(),
        reads: stat("total_reads_processed") - 1,
        reply_bytes: stat("total_net_output_bytes").saturating_sub("+OK\r\n".len() as u64),
    }
}

/// The longest wait of a client that does nothing but PING, during each of some scrapes.
pub fn stall(server: &Server, scrapes: usize, mut scrape: impl FnMut()) -> Stall {
    let (pinged, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let port = server.port;
    thread::scope(|scope| {
        let pings = scope.spawn(|| ping(port, &pinged, &stop));
        while !pinged.load(Ordering::Acquire) {
            thread::sleep(PAUSE);
        }
        let windows: Vec<_> = (0..scrapes)
            .map(|_| {
                let began = Instant::now();
                scrape();
                (began, Instant::now())
            })
            .collect();
        stop.store(true, Ordering::Release);
        let pings = pings.join().unwrap();
        let longest = windows.iter().map(|(began, ended)| {
            let during = pings.iter().filter(|(sent, took)| sent < ended && *sent + *took > *began);
            during.map(|(_, took)| *took).max().unwrap_or_default()
        });
        let mut longest: Vec<_> = longest.map(milliseconds).collect();
        longest.sort_by(f64::total_cmp);
        Stall { median_ms: longest[longest.len() / 2], worst_ms: longest[longest.len() - 1] }
    })
}

fn ping(port: u16, pinged: &AtomicBool, stop: &AtomicBool) -> Vec<(Instant, Duration)> {
    let mut connection = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    connection.get_ref().set_nodelay(true).unwrap();
    let (mut pings, mut reply) = (vec![], String::new());
    while !stop.load(Ordering::Acquire) {
        let sent = Instant::now();
        connection.get_mut().write_all(b"PING\r\n").unwrap();
        reply.clear();
        connection.read_line(&mut reply).unwrap();
        pings.push((sent, sent.elapsed()));
        pinged.store(true, Ordering::Release);
        thread::sleep(PAUSE);
    }
    pings
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Median and 99th percentile; the longest where there are less than a hundred.
pub fn latency(times: &[Duration]) -> Latency {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |share: usize| milliseconds(times[(times.len() * share / 100).min(times.len() - 1)]);
    Latency { scrapes: times.len(), p50_ms: at(50), p99_ms: at(99) }
}
