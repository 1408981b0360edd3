//! The floor: what no exporter can do without, sent to Redis in one write over a bare socket, with replies that are read
//! and not looked at.
//!
//! That is XINFO STREAM and XINFO GROUPS of each stream; XPENDING, with the lowest entry and in summary, where something
//! is pending; and the count and the first of what waits in the middle of a stream. The keys and ids are known beforehand:
//! the floor looks nothing up.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use redis::{Value, from_redis_value};

use crate::{support::Server, workload::Workload};

/// Counts, and gives the first, of the entries above an id.
const COUNT: &str =
    "local e=redis.call('XRANGE',KEYS[1],'('..ARGV[1],'+','COUNT',ARGV[2]) return {#e,e[1] and e[1][1]}";
/// The exporter's own limits: entries, bytes, and consumers beyond which no summary is asked.
const COUNTED: usize = 1_000;
const COUNTED_BYTES: usize = 1 << 20;
const CONSUMERS_SUMMED: usize = 50_000;
/// Above this a write may have to wait until replies are read.
const FITS_INTO_THE_SOCKET: usize = 50_000;

pub struct Bare {
    stream: TcpStream,
    commands: Vec<u8>,
    buffer: Vec<u8>,
}

impl Bare {
    pub fn new(workload: &Workload, server: &Server, port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, commands: commands(workload, server), buffer: vec![0; 1 << 20] }
    }

    pub fn exchange(&mut self) {
        if self.commands.len() <= FITS_INTO_THE_SOCKET {
            self.stream.write_all(&self.commands).unwrap();
            self.read();
            return;
        }
        let mut writer = self.stream.try_clone().unwrap();
        let commands = std::mem::take(&mut self.commands);
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&commands).unwrap());
            self.read();
        });
        self.commands = commands;
    }

    /// Up to the reply to PING, which is the last command.
    fn read(&mut self) {
        let mut kept = 0;
        loop {
            let read = kept + self.stream.read(&mut self.buffer[kept..]).unwrap();
            assert!(read > kept, "Redis closed the connection");
            if self.buffer[..read].ends_with(b"+PONG\r\n") {
                return;
            }
            // The end may come in two pieces.
            kept = read.min(6);
            self.buffer.copy_within(read - kept..read, 0);
        }
    }
}

fn commands(workload: &Workload, server: &Server) -> Vec<u8> {
    let mut commands = Vec::new();
    for number in 0..workload.streams {
        let key = Workload::key(number);
        push(&mut commands, &["XINFO", "STREAM", &key]);
        push(&mut commands, &["XINFO", "GROUPS", &key]);
        if number < workload.behind {
            push_behind(&mut commands, workload, &key, server);
        }
    }
    push(&mut commands, &["PING"]);
    commands
}

fn push_behind(commands: &mut Vec<u8>, workload: &Workload, key: &str, server: &Server) {
    for group in 0..workload.groups {
        let group = Workload::group(group);
        if workload.pending > 0 {
            push(commands, &["XPENDING", key, &group, "-", "+", "1"]);
            if workload.consumers <= CONSUMERS_SUMMED {
                push(commands, &["XPENDING", key, &group]);
            }
        }
        let count = COUNTED.min(COUNTED_BYTES / workload.entry_bytes + 1).to_string();
        push(commands, &["EVAL_RO", COUNT, "1", key, &last_delivered(server, key, &group), &count]);
    }
}

fn last_delivered(server: &Server, key: &str, group: &str) -> String {
    let Value::Array(groups) = server.run(&format!("XINFO GROUPS {key}")) else { panic!("no groups of {key}") };
    for of_group in groups {
        let Value::Array(fields) = of_group else { continue };
        let text = |at: usize| from_redis_value::<String>(fields[at].clone()).unwrap();
        if text(1) == group {
            let at = (0..fields.len()).step_by(2).find(|at| text(*at) == "last-delivered-id").unwrap();
            return text(at + 1);
        }
    }
    panic!("no group {group} in {key}");
}

fn push(commands: &mut Vec<u8>, words: &[&str]) {
    write!(commands, "*{}\r\n", words.len()).unwrap();
    for word in words {
        write!(commands, "${}\r\n{word}\r\n", word.len()).unwrap();
    }
}
