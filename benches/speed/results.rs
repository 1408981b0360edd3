//! What the benchmark writes to docs/performance.json, and the tables of the documents are made from.

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    /// The longest wait of another client while nobody scrapes, in milliseconds.
    pub idle_stall_ms: Stall,
    pub workloads: Vec<Measured>,
    pub starts: Vec<Start>,
    pub binary_bytes: u64,
    /// A release build of everything, from nothing; absent where the run used a build that was there.
    pub build_seconds: Option<f64>,
    /// How long measuring took, without the build.
    pub run_seconds: f64,
    /// How long `make bench` took up to here, with all builds; absent where the run used a build that was there.
    pub all_seconds: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    pub date: String,
    pub revision: String,
    /// Program and version.
    pub versions: Vec<(String, String)>,
    /// Runnable processes, averaged over the minute before the run and over its last minute.
    pub load_before: f64,
    pub load_after: f64,
}

/// One workload over one link.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    pub workload: String,
    pub describes: String,
    pub streams: usize,
    /// Only a point of the chart, not a table of its own.
    pub only_in_chart: bool,
    /// What the proxy adds to a round trip, in milliseconds; 0 without a proxy.
    pub added_ms: f64,
    pub floor: Floor,
    pub exporters: Vec<Cost>,
}

/// The bare socket, and an empty reply over HTTP.
#[derive(Debug, Serialize, Deserialize)]
pub struct Floor {
    pub latency: Latency,
    pub redis_cpu_ms: f64,
    /// Absent behind a proxy, which changes neither, and for an exporter that is too slow to be asked again.
    pub stall: Option<Stall>,
    pub work: Option<Work>,
}

/// What a scrape of one exporter costs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cost {
    pub exporter: String,
    pub latency: Latency,
    /// The same with `Accept-Encoding: gzip`.
    pub gzip: Option<Gzip>,
    pub cpu_ms: f64,
    pub redis_cpu_ms: f64,
    pub stall: Option<Stall>,
    pub work: Option<Work>,
    pub resident_mib: f64,
    pub page_bytes: usize,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    pub scrapes: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Gzip {
    pub p50_ms: f64,
    pub cpu_ms: f64,
    pub page_bytes: usize,
}

/// The longest wait of another client during a scrape: the median over the scrapes, and the worst.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Stall {
    pub median_ms: f64,
    pub worst_ms: f64,
}

/// What one scrape makes Redis do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Work {
    pub commands: u64,
    pub reads: u64,
    pub reply_bytes: u64,
}

/// From exec to the first page that was answered, in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    pub exporter: String,
    pub how: String,
    pub starts: usize,
    pub p50_ms: f64,
    pub worst_ms: f64,
}
