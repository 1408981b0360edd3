//! What `status` and the page at `/` show: the snapshot of one collection and its findings, in one structure. As JSON it
//! is the output of `status --output=json`, described by docs/status.schema.json.
//!
//! A pure function of what was collected. Names are the raw ones, since programs read them too: whoever shows a report to
//! people passes them through [`text`](crate::model::text).

use std::time::Duration;

use serde::Serialize;

use crate::model::{
    backlog::Oldest,
    error::Error,
    findings::{Access, Finding, Severity, findings},
    snapshot::{Clock, Group, Name, Snapshot, Stream, StreamId, StreamState},
};

/// What does not change from one collection to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Where Redis is, without secrets.
    pub address: String,
    /// How a person reaches it, and who the exporter is there.
    pub access: Access,
}

/// One collection, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Counts up when a field changes its meaning or goes away; new fields may come at any time.
    pub format: u32,
    /// This exporter's version.
    pub exporter_version: &'static str,
    /// How long the collection took.
    pub collection_seconds: f64,
    /// Redis's clock at its start, in seconds since 1970.
    pub time_seconds: Option<f64>,
    /// The server.
    pub redis: Redis,
    /// Each pattern and how many streams it matches.
    pub patterns: Vec<Pattern>,
    /// Each stream, by name.
    pub streams: Vec<StreamReport>,
    /// What a person should know, the worst first.
    pub findings: Vec<FindingReport>,
}

/// The server, as far as it was asked and may be.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields of INFO, under their metrics' names")]
pub struct Redis {
    /// Where it is, without secrets.
    pub address: String,
    /// The ACL user that the exporter logs in as.
    pub user: String,
    /// It answered.
    pub up: bool,
    /// Why it did not.
    pub error: Option<ErrorReport>,
    /// `Redis 7.0.15` or `Valkey 9.1.2`.
    pub server: Option<String>,
    pub mode: Option<String>,
    pub role: Option<String>,
    pub uptime_seconds: Option<u64>,
    pub memory_used_bytes: Option<u64>,
    pub memory_max_bytes: Option<u64>,
}

/// Why Redis could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// As in `prompt_redis_exporter_collection_errors_total`.
    pub kind: &'static str,
    /// What happened.
    pub message: String,
}

/// A pattern of `--stream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pattern {
    /// As it was given.
    pub pattern: String,
    /// Streams that it matches.
    pub streams: u64,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is there.
    Found,
    /// There is no such key.
    Missing,
    /// It could not be read: a finding says why.
    Failed,
    /// It was not reached in time.
    NotCollected,
}

/// A stream. What is not known is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamReport {
    /// Its key.
    pub name: String,
    /// What became of it.
    pub state: State,
    /// Entries in it.
    pub length: Option<u64>,
    /// Entries ever added.
    pub entries_added: Option<u64>,
    /// Seconds since the last entry was added.
    pub last_entry_age_seconds: Option<f64>,
    /// Its groups, by name: those that were named and those that were found.
    pub groups: Vec<GroupReport>,
    /// The worst finding about the stream itself; a warning where it could not be read.
    #[serde(skip)]
    pub severity: Option<Severity>,
}

/// A consumer group. What is not known is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// False where it was named and is not there; null where that is not known.
    pub exists: Option<bool>,
    /// Messages that wait for delivery, exactly.
    pub undelivered: Option<u64>,
    /// The same where it is known, else a lower bound.
    pub undelivered_at_least: Option<u64>,
    /// How long the oldest of them has waited; 0 when none waits.
    pub oldest_undelivered_age_seconds: Option<f64>,
    /// Delivered and not acknowledged.
    pub pending: Option<u64>,
    /// Seconds since the lowest pending entry was added; 0 when none is pending.
    pub oldest_pending_age_seconds: Option<f64>,
    /// The lag as Redis reports it.
    pub lag: Option<i64>,
    /// Redis's logical read counter.
    pub entries_read: Option<i64>,
    /// At least so many entries left the stream before the group read them.
    pub lost: Option<u64>,
    /// Consumers ever created and not removed.
    pub consumers: Option<u64>,
    /// The worst finding about it.
    #[serde(skip)]
    pub severity: Option<Severity>,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FindingReport {
    /// `critical`, `warning` or `info`.
    #[serde(serialize_with = "severity_name")]
    pub severity: Severity,
    /// A constant name.
    pub code: &'static str,
    /// The stream it is about.
    pub stream: Option<String>,
    /// The group it is about.
    pub group: Option<String>,
    /// What it is about, for people.
    pub about: String,
    /// What is the case.
    pub sentence: String,
    /// What that means for the data.
    pub meaning: String,
    /// What shows or mends it.
    pub commands: Vec<CommandReport>,
}

/// A command to paste into a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandReport {
    /// What it does.
    pub purpose: &'static str,
    /// The command.
    pub line: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn severity_name<S: serde::Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(severity.as_str())
}

impl Report {
    /// Makes it.
    #[must_use]
    pub fn new(outcome: &Result<Snapshot, Error>, duration: Duration, setup: &Setup) -> Self {
        let findings = findings(outcome, &setup.access);
        let snapshot = outcome.as_ref().ok();
        let streams = snapshot.map(|snapshot| streams(snapshot, &findings)).unwrap_or_default();
        let patterns = snapshot.map(|snapshot| snapshot.patterns.iter().map(pattern).collect()).unwrap_or_default();
        Self {
            format: 1,
            exporter_version: env!("CARGO_PKG_VERSION"),
            collection_seconds: duration.as_secs_f64(),
            time_seconds: snapshot.and_then(|snapshot| snapshot.clock).map(Clock::seconds),
            redis: redis(outcome, setup),
            patterns,
            streams,
            findings: findings.into_iter().map(FindingReport::new).collect(),
        }
    }

    /// Is there anything that somebody should act on?
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity <= Severity::Warning)
    }

    /// A row for each group, and for each stream that has none: those in trouble first.
    #[must_use]
    pub fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<_> = self.streams.iter().flat_map(StreamReport::rows).collect();
        let rank = |row: &Row<'_>| row.severity().map_or(3, |severity| severity as u8);
        rows.sort_by_key(rank);
        rows
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The stream.
    pub stream: &'a StreamReport,
    /// One of its groups; `None` where it has none.
    pub group: Option<&'a GroupReport>,
}

impl Row<'_> {
    /// The worst finding about stream or group.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        // `None` would sort before every severity.
        self.stream.severity.into_iter().chain(self.group.and_then(|group| group.severity)).min()
    }
}

impl StreamReport {
    fn rows(&self) -> Vec<Row<'_>> {
        if self.groups.is_empty() {
            return vec![Row { stream: self, group: None }];
        }
        self.groups.iter().map(|group| Row { stream: self, group: Some(group) }).collect()
    }

    fn new(name: &Name, state: State) -> Self {
        Self {
            name: name.shown().into_owned(),
            state,
            length: None,
            entries_added: None,
            last_entry_age_seconds: None,
            groups: Vec::new(),
            severity: None,
        }
    }
}

impl FindingReport {
    fn new(finding: Finding) -> Self {
        let Finding { severity, code, about, sentence, meaning, commands } = finding;
        let shown = |name: &Name| name.shown().into_owned();
        let command =
            |command: crate::model::findings::Command| CommandReport { purpose: command.purpose, line: command.line };
        Self {
            severity,
            code,
            stream: about.stream().map(shown),
            group: about.group().map(shown),
            about: about.shown(),
            sentence,
            meaning,
            commands: commands.into_iter().map(command).collect(),
        }
    }
}

fn redis(outcome: &Result<Snapshot, Error>, setup: &Setup) -> Redis {
    let basic = Redis {
        address: setup.address.clone(),
        user: setup.access.user.clone(),
        up: outcome.is_ok(),
        error: outcome
            .as_ref()
            .err()
            .map(|error| ErrorReport { kind: error.kind().as_str(), message: error.to_string() }),
        ..Redis::default()
    };
    let Some(server) = outcome.as_ref().ok().and_then(|snapshot| snapshot.server.as_ref()) else { return basic };
    let name = match (&server.valkey_version, &server.redis_version) {
        (Some(version), _) => Some(format!("Valkey {version}")),
        (None, Some(version)) => Some(format!("Redis {version}")),
        (None, None) => None,
    };
    Redis {
        server: name,
        mode: server.mode.clone(),
        role: server.role.clone(),
        uptime_seconds: server.uptime_seconds,
        memory_used_bytes: server.used_memory_bytes,
        memory_max_bytes: server.max_memory_bytes,
        ..basic
    }
}

fn pattern((pattern, streams): (&String, &u64)) -> Pattern {
    Pattern { pattern: pattern.clone(), streams: *streams }
}

fn streams(snapshot: &Snapshot, findings: &[Finding]) -> Vec<StreamReport> {
    let mut worst = std::collections::BTreeMap::<(&Name, Option<&Name>), Severity>::new();
    for finding in findings {
        if let Some(stream) = finding.about.stream() {
            // The worst come first.
            worst.entry((stream, finding.about.group())).or_insert(finding.severity);
        }
    }
    snapshot.streams.iter().map(|(name, state)| stream(snapshot, name, state, &worst)).collect()
}

type Worst<'a> = std::collections::BTreeMap<(&'a Name, Option<&'a Name>), Severity>;

fn stream(snapshot: &Snapshot, name: &Name, state: &StreamState, worst: &Worst<'_>) -> StreamReport {
    let named = |exists: Option<bool>| {
        move |group: &Name| GroupReport { name: group.shown().into_owned(), exists, ..GroupReport::default() }
    };
    let severity = |group: Option<&Name>| worst.get(&(name, group)).copied();
    let with_severity = |group: &Name, report: GroupReport| GroupReport { severity: severity(Some(group)), ..report };
    let all = |groups: &[Name], exists| groups.iter().map(|g| with_severity(g, named(exists)(g))).collect::<Vec<_>>();
    let mut report = match state {
        StreamState::Missing { groups } => {
            StreamReport { groups: all(groups, Some(false)), ..StreamReport::new(name, State::Missing) }
        }
        StreamState::Failed { groups, .. } => {
            StreamReport { groups: all(groups, None), ..StreamReport::new(name, State::Failed) }
        }
        StreamState::NotCollected => StreamReport::new(name, State::NotCollected),
        StreamState::Found(found) => {
            let mut groups = all(&found.missing_groups, Some(false));
            let known = |(name, group): (&Name, &Group)| with_severity(name, group_report(name, group, snapshot.clock));
            groups.extend(found.groups.iter().map(known));
            StreamReport { groups, ..found_stream(name, found, snapshot.clock) }
        }
    };
    let is_unknown = matches!(report.state, State::Failed | State::NotCollected);
    report.severity = severity(None).or(is_unknown.then_some(Severity::Warning));
    report
}

fn found_stream(name: &Name, stream: &Stream, clock: Option<Clock>) -> StreamReport {
    let facts = &stream.facts;
    StreamReport {
        length: Some(facts.length),
        entries_added: facts.entries_added,
        last_entry_age_seconds: facts.last.and_then(|last| age(clock, last)),
        ..StreamReport::new(name, State::Found)
    }
}

fn age(clock: Option<Clock>, id: StreamId) -> Option<f64> {
    clock.and_then(|clock| clock.age_seconds(id))
}

fn group_report(name: &Name, group: &Group, clock: Option<Clock>) -> GroupReport {
    let (facts, backlog) = (&group.facts, &group.backlog);
    GroupReport {
        name: name.shown().into_owned(),
        exists: Some(true),
        undelivered: backlog.undelivered,
        undelivered_at_least: Some(backlog.undelivered_at_least),
        oldest_undelivered_age_seconds: match backlog.oldest {
            Oldest::None => Some(0.0),
            Oldest::Entry(id) => age(clock, id),
            Oldest::Unknown => None,
        },
        pending: Some(facts.pending),
        oldest_pending_age_seconds: match (facts.pending, &group.oldest_pending) {
            (0, _) => Some(0.0),
            (_, Some(oldest)) => age(clock, oldest.id),
            (_, None) => None,
        },
        lag: facts.lag,
        entries_read: facts.entries_read,
        lost: backlog.lost,
        consumers: Some(facts.consumers),
        severity: None,
    }
}
