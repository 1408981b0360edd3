//! What scenarios measured, and the tables of docs/reliability.md.

use std::{fmt, fs, path::Path, process::Command, time::Duration};

use crate::{
    peer::PROGRAM,
    support::{Flavor, Server},
};

/// What one scenario measured. What does not belong to it is `None`.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Scrapes, or collections.
    pub scrapes: u64,
    /// The longest that another client waited meanwhile.
    pub stall: Option<Duration>,
    /// The same client's longest wait in as much time without scrapes.
    pub idle_stall: Option<Duration>,
    /// The longest command, by Redis's slow log.
    pub command: Option<Duration>,
    /// The longest that another client waited while redis_exporter was scraped.
    pub peer_stall: Option<Duration>,
    /// The exporter's peak resident memory.
    pub peak_bytes: Option<u64>,
    /// By how much Redis's memory peaked above what it used before.
    pub redis_bytes: Option<u64>,
    /// What else is worth knowing.
    pub note: String,
}

fn milliseconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".into(), |duration| format!("{:.1} ms", duration.as_secs_f64() * 1000.0))
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".into(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} scrapes, stall {} (idle {}, redis_exporter {}), longest command {}, peak {}, Redis {}; {}",
            self.scrapes,
            milliseconds(self.stall),
            milliseconds(self.idle_stall),
            milliseconds(self.peer_stall),
            milliseconds(self.command),
            mebibytes(self.peak_bytes),
            mebibytes(self.redis_bytes),
            self.note
        )
    }
}

/// A section's name, and its rows.
pub type Section = (&'static str, Vec<(&'static str, Outcome)>);

/// Writes the tables between their markers.
pub fn write(sections: &[Section]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let mut text = fs::read_to_string(&path).unwrap();
    replace(&mut text, "machine", &machine());
    for (section, rows) in sections {
        replace(&mut text, section, &table(section, rows));
    }
    fs::write(path, text).unwrap();
}

fn replace(text: &mut String, marker: &str, new: &str) {
    let (begin, end) = (format!("<!-- {marker} -->\n"), format!("<!-- /{marker} -->"));
    let from = text.find(&begin).unwrap() + begin.len();
    let to = text.find(&end).unwrap();
    text.replace_range(from..to, new);
}

fn table(section: &str, rows: &[(&'static str, Outcome)]) -> String {
    let (head, row): (&str, fn(&str, &Outcome) -> String) = if section == "workloads" {
        let head = "| what | scrapes | longest wait of another client | without scrapes | with redis_exporter | longest command | exporter's peak | Redis above its use before | |\n|---|---|---|---|---|---|---|---|---|\n";
        (head, |name, outcome| {
            format!(
                "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                outcome.scrapes,
                milliseconds(outcome.stall),
                milliseconds(outcome.idle_stall),
                milliseconds(outcome.peer_stall),
                milliseconds(outcome.command),
                mebibytes(outcome.peak_bytes),
                mebibytes(outcome.redis_bytes),
                outcome.note
            )
        })
    } else {
        ("| what | scrapes | exporter's peak | |\n|---|---|---|---|\n", |name, outcome| {
            format!("| {name} | {} | {} | {} |\n", outcome.scrapes, mebibytes(outcome.peak_bytes), outcome.note)
        })
    };
    rows.iter().fold(head.to_owned(), |table, (name, outcome)| table + &row(name, outcome))
}

/// The machine, and the versions of what ran on it.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_matches([':', ' ', '\t']);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let versions: Vec<_> = [Flavor::Redis7, Flavor::Redis8, Flavor::Valkey9].map(version).into();
    let peer = Command::new(PROGRAM).arg("-version").output().unwrap();
    let peer = String::from_utf8_lossy(&[peer.stdout, peer.stderr].concat()).into_owned();
    let peer = peer.split("Exporter ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or("?").to_owned();
    let kind = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("{cores} cores of {model}; {kind} build; {}; redis_exporter {peer}.\n", versions.join(", "))
}

fn version(flavor: Flavor) -> String {
    let info: String = redis::cmd("INFO").arg("server").query(&mut Server::start(flavor).connection()).unwrap();
    let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    of("valkey_version:")
        .map_or_else(|| format!("Redis {}", of("redis_version:").unwrap()), |version| format!("Valkey {version}"))
}
