//! The samples of one page: what each is made from, laid out by labels.

use std::{borrow::Cow, collections::BTreeSet};

use super::text::{Kind, Labels};
use crate::model::{
    error,
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

/// A metric: a line of one of the tables in [`super::metrics`].
pub(super) struct Metric<T> {
    pub(super) kind: Kind,
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
    Metric { kind: Kind::Gauge, name, help, absent, value }
}

pub(super) const fn counter<T>(
    name: &'static str,
    help: &'static str,
    absent: &'static str,
    value: fn(&T) -> Option<Number>,
) -> Metric<T> {
    Metric { kind: Kind::Counter, name, help, absent, value }
}

/// What the samples of one set of labels are made from.
pub(super) struct Row<T> {
    pub(super) labels: Labels,
    pub(super) facts: T,
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
    pub(super) streams: Vec<Row<StreamRow<'a>>>,
    pub(super) groups: Vec<Row<GroupRow<'a>>>,
    pub(super) consumers: Vec<Row<&'a Consumer>>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let mut rows = Self::default();
        let mut shown = Shown::default();
        for (name, state) in &snapshot.streams {
            if let Some(label) = shown.first(name) {
                rows.add_stream(snapshot.clock, &label, state);
            }
        }
        rows
    }

    fn add_stream(&mut self, clock: Option<Clock>, label: &str, state: &'a StreamState) {
        let (exists, collected, stream) = match state {
            StreamState::Found(stream) => (Some(true), stream.complete && stream.failures.is_empty(), Some(&**stream)),
            StreamState::Missing { .. } => (Some(false), true, None),
            StreamState::Failed { exists, .. } => (*exists, false, None),
            StreamState::NotCollected => (None, false, None),
        };
        let labels = Labels::default().with("stream", label);
        self.add_groups(clock, &labels, state);
        self.streams.push(Row { labels, facts: StreamRow { clock, exists, collected, stream } });
    }

    fn add_groups(&mut self, clock: Option<Clock>, of_stream: &Labels, state: &'a StreamState) {
        let mut shown = Shown::default();
        let mut add = |name: &'a Name, group: Option<&'a Group>| {
            let Some(label) = shown.first(name) else { return };
            let labels = of_stream.with("group", &label);
            if let Some(group) = group {
                add_consumers(&mut self.consumers, &labels, group);
            }
            self.groups.push(Row { labels, facts: GroupRow { clock, group } });
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

fn add_consumers<'a>(rows: &mut Vec<Row<&'a Consumer>>, of_group: &Labels, group: &'a Group) {
    let mut shown = BTreeSet::new();
    for consumer in &group.busy_consumers {
        let label = consumer.name.shown();
        if shown.insert(label.clone()) {
            rows.push(Row { labels: of_group.with("consumer", &label), facts: consumer });
        }
    }
}

/// The labels so far that contain a replacement character. Only names that are not UTF-8 can get the same label.
#[derive(Default)]
struct Shown<'a>(BTreeSet<Cow<'a, str>>);

impl<'a> Shown<'a> {
    /// The name as a label; `None` where an earlier name has the same label.
    fn first(&mut self, name: &'a Name) -> Option<Cow<'a, str>> {
        let label = name.shown();
        let is_first = !label.contains(char::REPLACEMENT_CHARACTER) || self.0.insert(label.clone());
        is_first.then_some(label)
    }
}

pub(super) fn instance_row(server: &Server) -> Row<&Server> {
    let fields = [
        ("redis_version", &server.redis_version),
        ("redis_mode", &server.mode),
        ("role", &server.role),
        ("maxmemory_policy", &server.maxmemory_policy),
        ("valkey_version", &server.valkey_version),
    ];
    let known = fields.into_iter().filter_map(|(label, value)| Some((label, value.as_deref()?)));
    Row { labels: known.fold(Labels::default(), |labels, (label, value)| labels.with(label, value)), facts: server }
}

pub(super) fn build_row() -> Row<()> {
    let labels = Labels::default().with("version", env!("CARGO_PKG_VERSION"));
    Row { labels: labels.with("revision", env!("BUILD_REVISION")).with("rustc", env!("BUILD_RUSTC")), facts: () }
}

fn row(label: &str, value: &str, count: u64) -> Row<u64> {
    Row { labels: Labels::default().with(label, value), facts: count }
}

pub(super) fn error_rows(errors: &[u64; error::Kind::ALL.len()]) -> Vec<Row<u64>> {
    error::Kind::ALL.into_iter().zip(errors).map(|(kind, count)| row("kind", kind.as_str(), *count)).collect()
}

pub(super) fn server_error_rows(snapshot: &Snapshot) -> Vec<Row<u64>> {
    let errors = snapshot.server.iter().flat_map(|server| &server.errors);
    errors.map(|(error, count)| row("err", error, *count)).collect()
}

pub(super) fn pattern_rows(snapshot: &Snapshot) -> Vec<Row<u64>> {
    snapshot.patterns.iter().map(|(pattern, streams)| row("pattern", pattern, *streams)).collect()
}
