//! What Redis holds while it is measured.

use redis::Pipeline;

use crate::support::Server;

/// How many streams there are, and what each holds.
pub struct Workload {
    pub name: &'static str,
    pub describes: &'static str,
    pub streams: usize,
    pub groups: usize,
    /// Of each group.
    pub consumers: usize,
    pub entries: usize,
    pub entry_bytes: usize,
    /// Streams in which something waits and something is pending.
    pub behind: usize,
    /// In each group of such a stream.
    pub waiting: usize,
    pub pending: usize,
    /// The exporters get a pattern, not the names.
    pub by_pattern: bool,
    pub only_in_chart: bool,
}

const MANY: Workload = Workload {
    name: "",
    describes: "",
    streams: 1_000,
    groups: 1,
    consumers: 2,
    entries: 10,
    entry_bytes: 1_200,
    behind: 100,
    waiting: 5,
    pending: 2,
    by_pattern: true,
    only_in_chart: false,
};

const NIGHT: Workload = Workload {
    streams: 1,
    consumers: 17_000,
    entries: 1_000,
    behind: 1,
    waiting: 172,
    pending: 0,
    by_pattern: false,
    ..MANY
};

pub const ALL: [Workload; 12] = [
    Workload {
        name: "observing",
        describes: "3 streams, 704 consumers each; 172 messages wait and 3 are pending in each",
        streams: 3,
        consumers: 704,
        behind: 3,
        pending: 3,
        ..NIGHT
    },
    Workload { name: "morning", describes: "1 stream, 17,000 consumers; 172 messages wait", ..NIGHT },
    Workload {
        name: "season",
        describes: "1 stream, 250,000 consumers; 172 messages wait, 3 are pending",
        consumers: 250_000,
        pending: 3,
        ..NIGHT
    },
    Workload {
        name: "wide",
        describes: "100 streams with 2 groups each, a tenth of the streams behind",
        streams: 100,
        groups: 2,
        behind: 10,
        ..MANY
    },
    Workload { name: "heavy", describes: "1,000 streams, a tenth of them behind", ..MANY },
    Workload { name: "quiet", describes: "1,000 streams, nothing waits, nothing is pending", behind: 0, ..MANY },
    Workload { name: "vast", describes: "10,000 streams, 100 of them behind", streams: 10_000, ..MANY },
    Workload {
        name: "entries of 100 kB",
        describes: "10 streams with 20 entries of 100 kB, 1 of them behind",
        streams: 10,
        entries: 20,
        entry_bytes: 100_000,
        behind: 1,
        ..MANY
    },
    Workload {
        name: "entries of 1 MB",
        describes: "10 streams with 8 entries of 1 MB, 1 of them behind",
        streams: 10,
        entries: 8,
        entry_bytes: 1_000_000,
        behind: 1,
        waiting: 2,
        ..MANY
    },
    Workload { name: "1 stream", streams: 1, behind: 0, only_in_chart: true, ..MANY },
    Workload { name: "10 streams", streams: 10, behind: 1, only_in_chart: true, ..MANY },
    Workload { name: "100 streams", streams: 100, behind: 10, only_in_chart: true, ..MANY },
];

/// What one write to Redis may hold while filling it.
const FILL_COMMANDS: usize = 5_000;

impl Workload {
    pub fn key(number: usize) -> String {
        format!("stream:{number:05}")
    }

    /// All keys, or the pattern.
    pub fn selectors(&self) -> Vec<String> {
        if self.by_pattern { vec!["stream:*".to_owned()] } else { (0..self.streams).map(Self::key).collect() }
    }

    /// A server that holds this.
    pub fn load(&self) -> Server {
        let server = Server::redis7();
        let mut connection = server.connection();
        let mut pipeline = redis::pipe();
        for number in 0..self.streams {
            self.fill(number, &mut |words| {
                pipeline.cmd(words[0]).arg(&words[1..]).ignore();
                let bytes = words.iter().map(|word| word.len()).sum::<usize>();
                if pipeline.len() >= FILL_COMMANDS || bytes > 50_000 {
                    flush(&mut pipeline, &mut connection);
                }
            });
        }
        flush(&mut pipeline, &mut connection);
        server
    }

    fn fill(&self, number: usize, run: &mut impl FnMut(&[&str])) {
        let (key, payload) = (Self::key(number), "x".repeat(self.entry_bytes));
        let is_behind = number < self.behind;
        let waiting = if is_behind { self.waiting } else { 0 };
        let pending = if is_behind { self.pending } else { 0 };
        for group in 0..self.groups {
            let group = Self::group(group);
            run(&["XGROUP", "CREATE", &key, &group, "$", "MKSTREAM"]);
            for consumer in 0..self.consumers {
                let consumer = format!("00000000-0000-4000-8000-{consumer:012}");
                run(&["XGROUP", "CREATECONSUMER", &key, &group, &consumer]);
            }
        }
        for _ in 0..self.entries {
            run(&["XADD", &key, "*", "visit", &payload]);
        }
        let worker = "00000000-0000-4000-8000-000000000000";
        for group in 0..self.groups {
            let group = Self::group(group);
            let read = (self.entries - waiting - pending).to_string();
            run(&["XREADGROUP", "GROUP", &group, worker, "COUNT", &read, "NOACK", "STREAMS", &key, ">"]);
            if pending > 0 {
                let pending = pending.to_string();
                run(&["XREADGROUP", "GROUP", &group, worker, "COUNT", &pending, "STREAMS", &key, ">"]);
            }
        }
    }

    pub fn group(number: usize) -> String {
        format!("group_{number}")
    }
}

fn flush(pipeline: &mut Pipeline, connection: &mut redis::Connection) {
    pipeline.query::<()>(connection).unwrap();
    pipeline.clear();
}
