//! The samples of one page: what each is made from, laid out by labels, and how they are written.

use std::{borrow::Cow, collections::HashSet, fmt};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::model::{
    error::Kind,
    snapshot::{Clock, Consumer, Group, Name, Server, Snapshot, Stream, StreamState},
};

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Count(u64),
    Int(i64),
    Float(f64),
}

pub(super) const fn count(count: u64) -> Number {
    Number::Count(count)
}

pub(super) fn flag(yes: bool) -> Number {
    Number::Count(u64::from(yes))
}

/// A metric: a line of one of the tables above.
pub(super) struct Metric<T> {
    pub(super) kind: MetricType,
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) absent: &'static str,
    pub(super) value: fn(&T) -> Option<Number>,
}

pub(super) const fn gauge<T>(
    name: &'static str,
    help: &'static str,
    absent: &'static str,
    value: fn(&T) -> Option<Number>,
) -> Metric<T> {
    Metric { kind: MetricType::Gauge, name, help, absent, value }
}

pub(super) const fn counter<T>(
    name: &'static str,
    help: &'static str,
    absent: &'static str,
    value: fn(&T) -> Option<Number>,
) -> Metric<T> {
    Metric { kind: MetricType::Counter, name, help, absent, value }
}

pub(super) type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// What the samples of one set of labels are made from.
pub(super) struct Row<'a, T> {
    pub(super) labels: Labels<'a>,
    pub(super) facts: T,
}

pub(super) fn write<T>(to: &mut DescriptorEncoder<'_>, metrics: &[Metric<T>], rows: &[Row<'_, T>]) -> fmt::Result {
    for metric in metrics {
        let mut samples = rows.iter().filter_map(|row| Some((&row.labels, (metric.value)(&row.facts)?))).peekable();
        if samples.peek().is_none() {
            continue;
        }
        // The crate puts `_total` behind a counter's name itself.
        let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
        let mut family = to.encode_descriptor(name, metric.help, None, metric.kind)?;
        if rows.iter().all(|row| row.labels.is_empty()) {
            // Without labels there is one sample, and the family is the metric itself.
            if let Some((_, number)) = samples.next() {
                number.encode(metric.kind, family)?;
            }
            continue;
        }
        for (labels, number) in samples {
            number.encode(metric.kind, family.encode_family(labels)?)?;
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
pub(super) struct StreamRow<'a> {
    pub(super) clock: Option<Clock>,
    pub(super) exists: Option<bool>,
    pub(super) collected: bool,
    pub(super) stream: Option<&'a Stream>,
}

/// A group's samples come from this: `group` is `None` where it is missing.
#[derive(Clone, Copy)]
pub(super) struct GroupRow<'a> {
    pub(super) clock: Option<Clock>,
    pub(super) group: Option<&'a Group>,
}

/// A snapshot, laid out for the page. Two names that are shown alike would cost the whole page, so only the first of
/// them, in the order of their bytes, is on it.
#[derive(Default)]
pub(super) struct Rows<'a> {
    pub(super) streams: Vec<Row<'a, StreamRow<'a>>>,
    pub(super) groups: Vec<Row<'a, GroupRow<'a>>>,
    pub(super) consumers: Vec<Row<'a, &'a Consumer>>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
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
            StreamState::Found(stream) => (Some(true), stream.complete && stream.failures.is_empty(), Some(&**stream)),
            StreamState::Missing { .. } => (Some(false), true, None),
            StreamState::Failed { exists, .. } => (*exists, false, None),
            StreamState::NotCollected => (None, false, None),
        };
        let labels = vec![("stream", label)];
        self.add_groups(clock, &labels, state);
        self.streams.push(Row { labels, facts: StreamRow { clock, exists, collected, stream } });
    }

    fn add_groups(&mut self, clock: Option<Clock>, stream_labels: &Labels<'a>, state: &'a StreamState) {
        let mut shown = HashSet::new();
        let mut add = |name: &'a Name, group: Option<&'a Group>| {
            let label = name.shown();
            if shown.insert(label.clone()) {
                let mut labels = stream_labels.clone();
                labels.push(("group", label));
                if let Some(group) = group {
                    add_consumers(&mut self.consumers, &labels, group);
                }
                self.groups.push(Row { labels, facts: GroupRow { clock, group } });
            }
        };
        match state {
            StreamState::Found(stream) => {
                for (name, group) in &stream.groups {
                    add(name, Some(group));
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
            StreamState::Failed { .. } | StreamState::NotCollected => {}
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

pub(super) fn instance_row(server: &Server) -> Row<'_, &Server> {
    let fields = [
        ("redis_version", &server.redis_version),
        ("redis_mode", &server.mode),
        ("role", &server.role),
        ("maxmemory_policy", &server.maxmemory_policy),
        ("valkey_version", &server.valkey_version),
    ];
    let labels = fields.into_iter().filter_map(|(label, value)| Some((label, Cow::from(value.as_deref()?))));
    Row { labels: labels.collect(), facts: server }
}

pub(super) fn build_row() -> Row<'static, ()> {
    let labels =
        [("version", env!("CARGO_PKG_VERSION")), ("revision", env!("BUILD_REVISION")), ("rustc", env!("BUILD_RUSTC"))];
    Row { labels: labels.map(|(label, value)| (label, value.into())).into(), facts: () }
}

pub(super) fn error_rows(errors: &[u64; Kind::ALL.len()]) -> Vec<Row<'static, u64>> {
    let row = |(kind, count): (Kind, &u64)| Row { labels: vec![("kind", kind.as_str().into())], facts: *count };
    Kind::ALL.into_iter().zip(errors).map(row).collect()
}

pub(super) fn server_error_rows(snapshot: &Snapshot) -> Vec<Row<'_, u64>> {
    let errors = snapshot.server.iter().flat_map(|server| &server.errors);
    errors.map(|(error, count)| Row { labels: vec![("err", error.into())], facts: *count }).collect()
}

pub(super) fn pattern_rows(snapshot: &Snapshot) -> Vec<Row<'_, u64>> {
    let row = |(pattern, streams): (&'_ String, &u64)| Row {
        labels: vec![("pattern", Cow::Owned(pattern.clone()))],
        facts: *streams,
    };
    snapshot.patterns.iter().map(row).collect()
}
