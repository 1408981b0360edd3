//! Every metric: its name, what it says, when it is absent, and where its value comes from.
//!
//! To add one, add a line to the table of its level below, and run `UPDATE=1 make test` for the golden pages and
//! docs/metrics.md. A value that is `None` prints nothing: what is not known is absent, never 0.
//!
//! A pure function of a [`Page`]: it reads no clock and asks nobody.

use std::{borrow::Cow, collections::HashSet, fmt, sync::Arc, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{
    model::backlog::{self, Waiting},
    model::error::{Error, Kind},
    model::snapshot::{Clock, Consumer, Group, Name, PendingSummary, Server, Snapshot, Stream, StreamState},
    process::Process,
};

/// Everything that one page shows.
#[derive(Debug)]
pub struct Page {
    /// What the collection found, or why it found nothing.
    pub outcome: Arc<Result<Snapshot, Error>>,
    /// How long the collection took; for a request that could not wait for its end, how long it waited.
    pub duration: Duration,
    /// Collections begun since the start.
    pub collections: u64,
    /// Errors since the start, in the order of [`Kind::ALL`].
    pub errors: [u64; Kind::ALL.len()],
    /// Our own process.
    pub process: Process,
}

/// A metric as docs/metrics.md lists it.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its full name.
    pub name: &'static str,
    /// `gauge` or `counter`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static str,
    /// What it says.
    pub help: &'static str,
    /// When there is no such sample.
    pub absent: &'static str,
}

/// Every metric there can be, in the order of the page.
#[must_use]
pub fn families() -> Vec<Family> {
    [
        list(&redis_metrics(), ""),
        list(&instance_metrics(), "redis_version, redis_mode, role; on Valkey valkey_version"),
        list(&server_metrics(), ""),
        list(&stream_metrics(), "stream"),
        list(&group_metrics(), "stream, group"),
        list(&consumer_metrics(), "stream, group, consumer"),
        list(&build_metrics(), "version, revision, rustc"),
        list(&collected_metrics(), "stream"),
        list(&self_metrics(), ""),
        list(&error_metrics(), "kind"),
        list(&process_metrics(), ""),
    ]
    .concat()
}

impl Collector for Page {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let page = [Row { labels: vec![], facts: self }];
        write(&mut to, &redis_metrics(), &page)?;
        if let Ok(snapshot) = &*self.outcome {
            let server: Vec<_> = snapshot.server.iter().map(|server| Row { labels: vec![], facts: server }).collect();
            write(&mut to, &instance_metrics(), &snapshot.server.iter().map(instance_row).collect::<Vec<_>>())?;
            write(&mut to, &server_metrics(), &server)?;
            let rows = Rows::of(snapshot);
            write(&mut to, &stream_metrics(), &rows.streams)?;
            write(&mut to, &group_metrics(), &rows.groups)?;
            write(&mut to, &consumer_metrics(), &rows.consumers)?;
            write(&mut to, &collected_metrics(), &rows.streams)?;
        }
        write(&mut to, &build_metrics(), &[build_row()])?;
        write(&mut to, &self_metrics(), &page)?;
        write(&mut to, &error_metrics(), &error_rows(&self.errors))?;
        write(&mut to, &process_metrics(), &[Row { labels: vec![], facts: &self.process }])
    }
}

fn redis_metrics<'a>() -> Vec<Metric<&'a Page>> {
    vec![gauge("redis_up", "1 if Redis answered this collection", "never", |page| Some(flag(page.outcome.is_ok())))]
}

const SERVER_ABSENT: &str = "Redis down, collector off, or no right to INFO";

fn instance_metrics<'a>() -> Vec<Metric<&'a Server>> {
    vec![gauge("redis_instance_info", "The server, in labels from INFO; always 1", SERVER_ABSENT, |_| Some(flag(true)))]
}

fn server_metrics<'a>() -> Vec<Metric<&'a Server>> {
    vec![
        gauge("redis_uptime_in_seconds", "Seconds since the server started (uptime_in_seconds)", SERVER_ABSENT, |s| {
            s.uptime_seconds.map(count)
        }),
        gauge("redis_memory_used_bytes", "Bytes that the server has allocated (used_memory)", SERVER_ABSENT, |s| {
            s.used_memory_bytes.map(count)
        }),
        gauge(
            "redis_memory_max_bytes",
            "Bytes that the server may allocate (maxmemory); 0 is no limit",
            SERVER_ABSENT,
            |s| s.max_memory_bytes.map(count),
        ),
        gauge("redis_connected_clients", "Client connections, ours included (connected_clients)", SERVER_ABSENT, |s| {
            s.connected_clients.map(count)
        }),
        gauge(
            "redis_blocked_clients",
            "Clients that wait in a blocking command (blocked_clients)",
            SERVER_ABSENT,
            |s| s.blocked_clients.map(count),
        ),
        counter(
            "redis_evicted_keys_total",
            "Keys evicted for lack of memory since the server started (evicted_keys): one may be a whole stream",
            SERVER_ABSENT,
            |s| s.evicted_keys.map(count),
        ),
    ]
}

const STREAM_ABSENT: &str = "stream missing or not collected";

fn stream_metrics<'a>() -> Vec<Metric<StreamFacts<'a>>> {
    vec![
        gauge(
            "redis_stream_exists",
            "1 if the stream is there, 0 if not; for each key that is named or found",
            "Redis down, or no right to look",
            |s| s.exists.map(flag),
        ),
        gauge("redis_stream_length", "Entries in the stream (length)", STREAM_ABSENT, |s| {
            Some(count(s.stream?.length))
        }),
        gauge("redis_stream_groups", "Consumer groups of the stream (groups)", STREAM_ABSENT, |s| {
            Some(count(s.stream?.group_count))
        }),
        counter(
            "redis_stream_entries_added_total",
            "Entries ever added to the stream (entries-added); starts anew when the stream is deleted",
            "stream missing or not collected, or Redis before 7.0",
            |s| s.stream?.entries_added.map(count),
        ),
        gauge(
            "redis_stream_first_entry_timestamp_seconds",
            "When the first entry was added, in seconds since 1970, from its id",
            "stream missing, empty or not collected, or the id is no time",
            |s| s.clock?.timestamp_seconds(s.stream?.first?).map(Number::Float),
        ),
        gauge(
            "redis_stream_last_entry_timestamp_seconds",
            "When the last entry was added, in seconds since 1970, from its id",
            "stream missing, empty or not collected, or the id is no time",
            |s| s.clock?.timestamp_seconds(s.stream?.last?).map(Number::Float),
        ),
    ]
}

const GROUP_ABSENT: &str = "group missing or not collected";

fn group_metrics<'a>() -> Vec<Metric<GroupFacts<'a>>> {
    vec![
        gauge(
            "redis_stream_group_exists",
            "1 if the group is there, 0 if not; for each group that is named or found",
            "Redis down, or no right to look",
            |g| Some(flag(g.found.is_some())),
        ),
        gauge(
            "redis_stream_group_lag",
            "The lag as Redis reports it (lag), which KEDA scales on; it may count what is gone",
            "group missing or not collected, lag is null, or Redis before 7.0",
            |g| g.found?.1.lag.map(Number::Int),
        ),
        gauge(
            "redis_stream_group_messages_undelivered",
            "Entries that wait for delivery to the group, exactly",
            "group missing or not collected, more wait than --collector.undelivered-max, or no right to count",
            |g| backlog::waiting(g.found?.0, g.found?.1).entries().map(count),
        ),
        gauge(
            "redis_stream_group_messages_pending",
            "Entries delivered and not acknowledged (pending)",
            GROUP_ABSENT,
            |g| Some(count(g.found?.1.pending)),
        ),
        gauge(
            "redis_stream_group_messages_lost",
            "At least this many entries left the stream before the group read them, as far as Redis still shows it",
            "group missing or not collected, or no counter can tell",
            |g| backlog::lost(g.found?.0, g.found?.1).map(count),
        ),
        gauge(
            "redis_stream_group_entries_read",
            "Redis's logical counter of entries the group has read (entries-read)",
            "group missing or not collected, entries-read is null, or Redis before 7.0",
            |g| g.found?.1.entries_read.map(Number::Int),
        ),
        gauge(
            "redis_stream_group_consumers",
            "Consumers ever created and not removed (consumers); they are not live workers",
            GROUP_ABSENT,
            |g| Some(count(g.found?.1.consumers)),
        ),
        gauge(
            "redis_stream_group_consumers_with_pending",
            "Consumers that hold something pending",
            GROUP_ABSENT,
            |g| match g.found?.1 {
                Group { pending: 0, .. } => Some(count(0)),
                group => group.pending_summary.map(|summary| count(summary.consumers)),
            },
        ),
        gauge(
            "redis_stream_group_last_delivered_timestamp_seconds",
            "When the last entry delivered to the group was added, in seconds since 1970 (last-delivered-id)",
            "group missing or not collected, nothing was ever delivered (0-0), or the id is no time",
            |g| g.clock?.timestamp_seconds(g.found?.1.last_delivered).map(Number::Float),
        ),
        gauge(
            "redis_stream_group_oldest_undelivered_age_seconds",
            "How long the oldest entry that waits has been in the stream, by Redis's clock; 0 when none waits",
            "group missing or not collected, no right to look, or the id is no time",
            |g| match backlog::waiting(g.found?.0, g.found?.1) {
                Waiting::None => Some(Number::Float(0.0)),
                Waiting::Some { oldest, .. } => g.clock?.age_seconds(oldest?).map(Number::Float),
            },
        ),
        gauge(
            "redis_stream_group_oldest_pending_age_seconds",
            "How long ago the lowest pending entry was added, by Redis's clock; 0 when none is pending",
            "group missing or not collected, no right to XPENDING, or the id is no time",
            |g| match g.found?.1 {
                Group { pending: 0, .. } => Some(Number::Float(0.0)),
                Group { pending_summary: Some(PendingSummary { oldest, .. }), .. } => {
                    g.clock?.age_seconds(*oldest).map(Number::Float)
                }
                Group { pending_summary: None, .. } => None,
            },
        ),
    ]
}

const CONSUMERS_ABSENT: &str = "unless --collector.consumers; nothing pending; or beyond --collector.consumers-max";

fn consumer_metrics<'a>() -> Vec<Metric<&'a Consumer>> {
    vec![
        gauge(
            "redis_stream_group_consumer_messages_pending",
            "Entries delivered to this consumer and not acknowledged (pending)",
            CONSUMERS_ABSENT,
            |consumer| Some(count(consumer.pending)),
        ),
        gauge(
            "redis_stream_group_consumer_idle_seconds",
            "Seconds since the consumer was last active (idle); since 7.2 an attempt to read counts too",
            CONSUMERS_ABSENT,
            |consumer| Some(Number::Float(Duration::from_millis(consumer.idle_ms).as_secs_f64())),
        ),
    ]
}

fn build_metrics() -> Vec<Metric<()>> {
    vec![gauge("prompt_redis_exporter_build_info", "This exporter, in labels; always 1", "never", |()| {
        Some(flag(true))
    })]
}

fn collected_metrics<'a>() -> Vec<Metric<StreamFacts<'a>>> {
    vec![gauge(
        "prompt_redis_exporter_stream_collected",
        "1 if every question about this stream was answered, 0 if one failed (wrong type, no right, unknown reply)",
        "Redis down",
        |s| Some(flag(s.collected)),
    )]
}

fn self_metrics<'a>() -> Vec<Metric<&'a Page>> {
    vec![
        gauge(
            "prompt_redis_exporter_collection_duration_seconds",
            "How long this collection took, or how long this request waited for it",
            "never",
            |page| Some(Number::Float(page.duration.as_secs_f64())),
        ),
        counter("prompt_redis_exporter_collections_total", "Collections begun", "never", |page| {
            Some(count(page.collections))
        }),
    ]
}

fn error_metrics() -> Vec<Metric<u64>> {
    vec![counter(
        "prompt_redis_exporter_collection_errors_total",
        "Questions that were not answered and collections that failed, by kind of error",
        "never",
        |errors| Some(count(*errors)),
    )]
}

const PROCESS_ABSENT: &str = "never on Linux";

fn process_metrics<'a>() -> Vec<Metric<&'a Process>> {
    vec![
        counter("process_cpu_seconds_total", "User and system time spent, in seconds", PROCESS_ABSENT, |p| {
            p.cpu_seconds.map(Number::Float)
        }),
        gauge("process_start_time_seconds", "When the exporter started, in seconds since 1970", PROCESS_ABSENT, |p| {
            p.start_time_seconds.map(Number::Float)
        }),
        gauge("process_resident_memory_bytes", "Resident memory in bytes", PROCESS_ABSENT, |p| {
            p.resident_memory_bytes.map(count)
        }),
        gauge("process_virtual_memory_bytes", "Virtual memory in bytes", PROCESS_ABSENT, |p| {
            p.virtual_memory_bytes.map(count)
        }),
        gauge("process_open_fds", "Open file descriptors", PROCESS_ABSENT, |p| p.open_fds.map(count)),
        gauge("process_max_fds", "The most file descriptors that may be open", "no limit", |p| p.max_fds.map(count)),
        gauge("process_threads", "Threads of the exporter", PROCESS_ABSENT, |p| p.threads.map(count)),
    ]
}

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Count(u64),
    Int(i64),
    Float(f64),
}

const fn count(count: u64) -> Number {
    Number::Count(count)
}

fn flag(yes: bool) -> Number {
    Number::Count(u64::from(yes))
}

/// A metric: a line of one of the tables above.
struct Metric<T> {
    kind: MetricType,
    name: &'static str,
    help: &'static str,
    absent: &'static str,
    value: fn(&T) -> Option<Number>,
}

const fn gauge<T>(
    name: &'static str,
    help: &'static str,
    absent: &'static str,
    value: fn(&T) -> Option<Number>,
) -> Metric<T> {
    Metric { kind: MetricType::Gauge, name, help, absent, value }
}

const fn counter<T>(
    name: &'static str,
    help: &'static str,
    absent: &'static str,
    value: fn(&T) -> Option<Number>,
) -> Metric<T> {
    Metric { kind: MetricType::Counter, name, help, absent, value }
}

fn list<T>(metrics: &[Metric<T>], labels: &'static str) -> Vec<Family> {
    let family = |metric: &Metric<T>| Family {
        name: metric.name,
        kind: if matches!(metric.kind, MetricType::Counter) { "counter" } else { "gauge" },
        labels,
        help: metric.help,
        absent: metric.absent,
    };
    metrics.iter().map(family).collect()
}

type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// What the samples of one set of labels are made from.
struct Row<'a, T> {
    labels: Labels<'a>,
    facts: T,
}

fn write<T>(to: &mut DescriptorEncoder<'_>, metrics: &[Metric<T>], rows: &[Row<'_, T>]) -> fmt::Result {
    for metric in metrics {
        let mut samples = rows.iter().filter_map(|row| Some((&row.labels, (metric.value)(&row.facts)?))).peekable();
        if samples.peek().is_none() {
            continue;
        }
        // The crate puts `_total` behind a counter's name itself.
        let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
        let mut family = to.encode_descriptor(name, metric.help, None, metric.kind)?;
        match samples.next_if(|(labels, _)| labels.is_empty()) {
            Some((_, number)) => number.encode(metric.kind, family)?,
            None => {
                for (labels, number) in samples {
                    number.encode(metric.kind, family.encode_family(labels)?)?;
                }
            }
        }
    }
    Ok(())
}

impl Number {
    fn encode(self, kind: MetricType, to: MetricEncoder<'_>) -> fmt::Result {
        match (kind, self) {
            (MetricType::Counter, Self::Count(count)) => ConstCounter::new(count).encode(to),
            (MetricType::Counter, Self::Float(float)) => ConstCounter::new(float).encode(to),
            (_, Self::Count(count)) => ConstGauge::new(count).encode(to),
            (_, Self::Float(float)) => ConstGauge::new(float).encode(to),
            (_, Self::Int(int)) => ConstGauge::new(int).encode(to),
        }
    }
}

/// A stream's samples come from this.
#[derive(Clone, Copy)]
struct StreamFacts<'a> {
    clock: Option<Clock>,
    exists: Option<bool>,
    collected: bool,
    stream: Option<&'a Stream>,
}

/// A group's samples come from this: `found` is the group and its stream, `None` where it is missing.
#[derive(Clone, Copy)]
struct GroupFacts<'a> {
    clock: Option<Clock>,
    found: Option<(&'a Stream, &'a Group)>,
}

/// A snapshot, laid out for the page. Two names that are shown alike would cost the whole page, so only the first of
/// them, in the order of their bytes, is on it.
#[derive(Default)]
struct Rows<'a> {
    streams: Vec<Row<'a, StreamFacts<'a>>>,
    groups: Vec<Row<'a, GroupFacts<'a>>>,
    consumers: Vec<Row<'a, &'a Consumer>>,
}

impl<'a> Rows<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut rows = Self::default();
        let mut shown = HashSet::new();
        for (name, state) in &snapshot.streams {
            let label = name.shown();
            if shown.insert(label.clone()) {
                rows.add_stream(snapshot.clock, label, state);
            }
        }
        rows
    }

    fn add_stream(&mut self, clock: Option<Clock>, label: Cow<'a, str>, state: &'a StreamState) {
        let (exists, collected, stream) = match state {
            StreamState::Found(stream) => (Some(true), stream.refused.is_empty(), Some(&**stream)),
            StreamState::Missing { .. } => (Some(false), true, None),
            StreamState::Failed { exists, .. } => (*exists, false, None),
        };
        let labels = vec![("stream", label)];
        self.add_groups(clock, &labels, state);
        self.streams.push(Row { labels, facts: StreamFacts { clock, exists, collected, stream } });
    }

    fn add_groups(&mut self, clock: Option<Clock>, stream_labels: &Labels<'a>, state: &'a StreamState) {
        let mut shown = HashSet::new();
        let mut add = |name: &'a Name, found: Option<(&'a Stream, &'a Group)>| {
            let label = name.shown();
            if shown.insert(label.clone()) {
                let mut labels = stream_labels.clone();
                labels.push(("group", label));
                if let Some((_, group)) = found {
                    add_consumers(&mut self.consumers, &labels, group);
                }
                self.groups.push(Row { labels, facts: GroupFacts { clock, found } });
            }
        };
        match state {
            StreamState::Found(stream) => {
                for (name, group) in &stream.groups {
                    add(name, Some((stream, group)));
                }
                for name in &stream.missing_groups {
                    add(name, None);
                }
            }
            // Of another type, or not there: so are its groups.
            StreamState::Missing { groups } | StreamState::Failed { exists: Some(false), groups, .. } => {
                for name in groups {
                    add(name, None);
                }
            }
            StreamState::Failed { .. } => {}
        }
    }
}

fn add_consumers<'a>(rows: &mut Vec<Row<'a, &'a Consumer>>, group_labels: &Labels<'a>, group: &'a Group) {
    let mut shown = HashSet::new();
    for consumer in &group.busy_consumers {
        let label = consumer.name.shown();
        if shown.insert(label.clone()) {
            let mut labels = group_labels.clone();
            labels.push(("consumer", label));
            rows.push(Row { labels, facts: consumer });
        }
    }
}

fn instance_row(server: &Server) -> Row<'_, &Server> {
    let fields = [
        ("redis_version", &server.redis_version),
        ("redis_mode", &server.mode),
        ("role", &server.role),
        ("valkey_version", &server.valkey_version),
    ];
    let labels = fields.into_iter().filter_map(|(label, value)| Some((label, Cow::from(value.as_deref()?))));
    Row { labels: labels.collect(), facts: server }
}

fn build_row() -> Row<'static, ()> {
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", env!("PROMPT_REDIS_EXPORTER_REVISION")),
        ("rustc", env!("PROMPT_REDIS_EXPORTER_RUSTC")),
    ];
    Row { labels: labels.map(|(label, value)| (label, value.into())).into(), facts: () }
}

fn error_rows(errors: &[u64; Kind::ALL.len()]) -> Vec<Row<'static, u64>> {
    let row = |(kind, count): (Kind, &u64)| Row { labels: vec![("kind", kind.as_str().into())], facts: *count };
    Kind::ALL.into_iter().zip(errors).map(row).collect()
}
