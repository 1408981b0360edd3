//! What a person should know of a collection: each finding with its severity, a sentence, what it means for the data, and
//! the commands that show or mend it, ready to paste.
//!
//! A pure function of the snapshot, so it sees one moment: what only a trend shows (a backlog that grows, pending that
//! rises) is for the alerts. Names and texts out of Redis are written so that no terminal or browser obeys them.

use std::collections::BTreeSet;

use super::{
    backlog::Oldest,
    error::{Cause, Error, Kind},
    snapshot::{Group, Name, Server, Snapshot, Stream, StreamState},
    text,
};

/// The limits from which on something is a finding. Where an alert has a limit, it is the same one: a test compares them.
pub mod thresholds {
    /// The oldest message has waited so many seconds: late (PromptRedisDeliveryLate).
    pub const LATE_SECONDS: f64 = 60.0;
    /// Much too late (PromptRedisDeliveryTooLate).
    pub const TOO_LATE_SECONDS: f64 = 180.0;
    /// Consumers that ignore messages older than an hour are about to (PromptRedisMessagesExpiring).
    pub const EXPIRING_SECONDS: f64 = 2700.0;
    /// A pending entry that nobody acknowledged for so many seconds stays (PromptRedisPendingNotAcked).
    pub const PENDING_STAYS_SECONDS: f64 = 300.0;
    /// One that was added so many seconds ago is an old one, and no longer news (PromptRedisOrphanedPending).
    pub const ORPHANED_SECONDS: f64 = 3600.0;
    /// Consumers of one group (PromptRedisConsumerLeak).
    pub const CONSUMERS: u64 = 250_000;
    /// Memory in use, of the most that is allowed, in percent (PromptRedisMemoryHigh).
    pub const MEMORY_PERCENT: u64 = 80;
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Messages are lost or not delivered: act now.
    Critical,
    /// Act today.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Redis as a whole, or the collection.
    Redis,
    /// A pattern that was given for streams.
    Pattern(String),
    /// A stream.
    Stream(Name),
    /// A group of a stream.
    Group(Name, Name),
}

impl About {
    /// The stream, where there is one.
    #[must_use]
    pub const fn stream(&self) -> Option<&Name> {
        match self {
            Self::Stream(stream) | Self::Group(stream, _) => Some(stream),
            Self::Redis | Self::Pattern(_) => None,
        }
    }

    /// The group, where there is one.
    #[must_use]
    pub const fn group(&self) -> Option<&Name> {
        match self {
            Self::Group(_, group) => Some(group),
            _ => None,
        }
    }

    /// For people.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Redis => "Redis".into(),
            Self::Pattern(pattern) => format!("pattern {}", text::visible(pattern)),
            Self::Stream(stream) => text::name(stream),
            Self::Group(stream, group) => format!("{} / {}", text::name(stream), text::name(group)),
        }
    }
}

/// A command to paste into a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What it does.
    pub purpose: &'static str,
    /// The command.
    pub line: String,
}

/// One thing that a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A constant name for programs.
    pub code: &'static str,
    /// What it is about.
    pub about: About,
    /// What is the case.
    pub sentence: String,
    /// What that means for the data.
    pub meaning: String,
    /// What shows or mends it. Empty where a name cannot be typed.
    pub commands: Vec<Command>,
}

impl Finding {
    fn new(severity: Severity, code: &'static str, about: About, sentence: impl Into<String>) -> Self {
        Self { severity, code, about, sentence: sentence.into(), meaning: String::new(), commands: Vec::new() }
    }

    fn means(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = meaning.into();
        self
    }

    /// Adds a command, unless one of its words cannot be typed.
    fn run(mut self, purpose: &'static str, line: Option<String>) -> Self {
        self.commands.extend(line.map(|line| Command { purpose, line }));
        self
    }
}

/// How a person reaches the same Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The beginning of a command: `redis-cli -h redis`.
    pub redis_cli: String,
    /// The ACL user that the exporter logs in as.
    pub user: String,
    /// The exporter speaks TLS to it.
    pub tls: bool,
}

impl Access {
    /// A command line out of its words, each either as it is or as a name that has to be quoted.
    fn command(&self, words: &[Word<'_>]) -> Option<String> {
        let mut line = self.redis_cli.clone();
        for word in words {
            line.push(' ');
            match word {
                Word::Plain(word) => line.push_str(word),
                Word::Name(name) => line.push_str(&text::shell_word(name)?),
            }
        }
        Some(line)
    }
}

enum Word<'a> {
    /// Already in the form that a shell reads.
    Plain(&'a str),
    Name(&'a Name),
}
use Word::{Name as N, Plain as P};

/// Everything a person should know, the worst first.
#[must_use]
pub fn findings(outcome: &Result<Snapshot, Error>, access: &Access) -> Vec<Finding> {
    let mut findings = match outcome {
        Err(error) => vec![redis_is_down(error, access)],
        Ok(snapshot) => of_snapshot(snapshot, access),
    };
    let mut said = BTreeSet::new();
    findings.retain(|finding| {
        finding.code != "right_missing" || said.insert((finding.about.clone(), finding.sentence.clone()))
    });
    findings.sort_by(|a, b| (a.severity, &a.about).cmp(&(b.severity, &b.about)));
    findings
}

fn redis_is_down(error: &Error, access: &Access) -> Finding {
    let said = format!("{}.", text::visible(&error.to_string()).trim_end_matches('.'));
    let nothing_is_known = format!(
        "Nothing is known of its streams now. Producers and consumers may be unable to reach it too.{}",
        wrong_protocol(error, access)
    );
    let ping = access.command(&[P("PING")]);
    let critical = |code, sentence: &str| Finding::new(Severity::Critical, code, About::Redis, sentence);
    match error.kind() {
        Kind::Auth => login_refused(error, &said, access),
        Kind::Loading => critical("redis_loading", "Redis is loading its data from disk and answers nothing yet.")
            .means("Reads and writes of streams fail until it has finished. Producers that give up lose messages.")
            .run("shows how far it is", access.command(&[P("INFO persistence")])),
        Kind::Timeout => critical("redis_too_slow", &format!("Redis does not answer in time: {said}"))
            .means(nothing_is_known)
            .run("shows whether it answers at all", ping),
        _ => critical("redis_down", &format!("Redis cannot be asked: {said}"))
            .means(nothing_is_known)
            .run("shows whether it answers", ping),
    }
}

fn login_refused(error: &Error, said: &str, access: &Access) -> Finding {
    let critical = |sentence: String| Finding::new(Severity::Critical, "login_refused", About::Redis, sentence);
    let others = "The exporter alone is refused: producers and consumers may be fine.";
    if error.cause() == Some(&Cause::LoginMissing) {
        return critical(format!("Redis wants a password, and the exporter has none: {said}")).means(format!(
            "{others} Give it one with --redis.password-file or PROMPT_REDIS_EXPORTER_REDIS_PASSWORD."
        ));
    }
    critical(format!("Redis refuses the login of user {}: {said}", access.user))
        .means(format!("{others} Check user and password."))
        .run("shows whether the user exists and is on", access.command(&[P("ACL GETUSER"), P(&user_word(access))]))
}

/// A hint where TLS is spoken to a port without it, or the other way round, or may be.
fn wrong_protocol(error: &Error, access: &Access) -> &'static str {
    match (error.cause(), access.tls) {
        (Some(Cause::NoTls), _) => " This port speaks no TLS: say redis:// instead of rediss://.",
        // A Redis without TLS waits for the end of a line that never comes.
        (Some(Cause::HandshakeUnanswered), _) => {
            " Or this port speaks no TLS, and so never answers the handshake: then say redis:// instead of rediss://."
        }
        (Some(Cause::ConnectionBroke), false) => {
            " Or this port speaks TLS and closed a connection without it: then say rediss:// instead of redis://."
        }
        _ => "",
    }
}

fn user_word(access: &Access) -> String {
    text::shell_word(&access.user.as_str().into()).unwrap_or_else(|| "default".into())
}

fn of_snapshot(snapshot: &Snapshot, access: &Access) -> Vec<Finding> {
    let mut findings: Vec<_> = snapshot.server.iter().flat_map(|server| of_server(server, access)).collect();
    findings.extend(snapshot.failures.iter().map(|error| of_failure(error, None, access)));
    let refused = snapshot.scripts_refused.iter().filter(|error| error.kind() == Kind::Permission);
    findings.extend(refused.map(|error| right_missing(error, About::Redis, access)));
    findings.extend(snapshot.patterns.iter().filter(|(_, matches)| **matches == 0).map(|(p, _)| no_match(p, access)));
    let late = snapshot.streams.values().filter(|state| matches!(state, StreamState::NotCollected)).count() as u64;
    if late > 0 {
        findings.push(
            Finding::new(
                Severity::Warning,
                "not_collected",
                About::Redis,
                format!("{} could not be reached before the time was over.", text::counted(late, "streams")),
            )
            .means("Nothing is known of them now. A longer --redis.timeout gives them more time."),
        );
    }
    for (name, state) in &snapshot.streams {
        match state {
            StreamState::Missing { groups } => findings.extend(missing_stream(name, groups, access)),
            StreamState::Failed { error, .. } => findings.push(of_failure(error, Some(name), access)),
            StreamState::Found(stream) => findings.extend(of_stream(snapshot, name, stream, access)),
            StreamState::NotCollected => {}
        }
    }
    findings
}

fn of_server(server: &Server, access: &Access) -> Vec<Finding> {
    [
        writes_refused(server, access),
        memory_high(server, access),
        snapshots_fail(server, access),
        evicted(server, access),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn writes_refused(server: &Server, access: &Access) -> Option<Finding> {
    let critical = |sentence: String| {
        Finding::new(Severity::Critical, "writes_refused", About::Redis, sentence)
            .means("Producers cannot add messages, and what they do not keep themselves is lost. Nothing waits, so no backlog shows it.")
    };
    if server.aof_last_write_ok == Some(false) {
        let finding = critical("The append-only file could not be written: Redis refuses writes (MISCONF).".into());
        return Some(finding.run(
            "shows the state of the files; a full disk is the usual cause",
            access.command(&[P("INFO persistence")]),
        ));
    }
    let (used, limit) = memory(server)?;
    let refuses = used >= limit && server.maxmemory_policy.as_deref() == Some("noeviction");
    refuses.then(|| {
        critical(format!(
            "Memory is full ({} of {}) and the policy is noeviction: Redis refuses writes (OOM).",
            text::bytes(used),
            text::bytes(limit)
        ))
        .run("shows what memory is used for", access.command(&[P("INFO memory")]))
    })
}

/// Memory in use and its limit, where there is one.
fn memory(server: &Server) -> Option<(u64, u64)> {
    server.used_memory_bytes.zip(server.max_memory_bytes.filter(|limit| *limit > 0))
}

fn memory_high(server: &Server, access: &Access) -> Option<Finding> {
    let (used, limit) = memory(server)?;
    let percent = used.saturating_mul(100) / limit;
    (percent > thresholds::MEMORY_PERCENT).then(|| {
        let policy = text::visible(server.maxmemory_policy.as_deref().unwrap_or("unknown")).into_owned();
        let sentence =
            format!("Redis uses {percent} % of its memory ({} of {}).", text::bytes(used), text::bytes(limit));
        Finding::new(Severity::Warning, "memory_high", About::Redis, sentence)
            .means(format!(
                "At 100 % it refuses writes, or evicts keys, which may be whole streams. Its policy is {policy}."
            ))
            .run("shows what memory is used for", access.command(&[P("INFO memory")]))
    })
}

fn snapshots_fail(server: &Server, access: &Access) -> Option<Finding> {
    (server.rdb_last_bgsave_ok == Some(false)).then(|| {
        Finding::new(Severity::Warning, "snapshot_failed", About::Redis, "The last snapshot to disk failed.")
            .means("Redis may refuse writes (MISCONF), and after a restart the newest messages would be missing.")
            .run("shows the state of the files", access.command(&[P("INFO persistence")]))
    })
}

fn evicted(server: &Server, access: &Access) -> Option<Finding> {
    let evicted = server.evicted_keys.filter(|evicted| *evicted > 0)?;
    let sentence = format!("Redis evicted {} for lack of memory since it started.", text::counted(evicted, "keys"));
    Some(
        Finding::new(Severity::Info, "keys_evicted", About::Redis, sentence)
            .means("An evicted key can be a whole stream with its groups. With the policy noeviction none is evicted.")
            .run("shows the policy", access.command(&[P("CONFIG GET maxmemory-policy")])),
    )
}

fn no_match(pattern: &str, access: &Access) -> Finding {
    let about = About::Pattern(pattern.to_owned());
    Finding::new(Severity::Warning, "pattern_empty", about, "No stream matches.")
        .means("Nothing is watched by this pattern. Check its spelling, and the number of the database in --redis.url.")
        .run(
            "lists the keys that match, whatever their type",
            access.command(&[P("--scan --pattern"), N(&pattern.into())]),
        )
}

/// A command of the exporter that failed.
fn of_failure(error: &Error, stream: Option<&Name>, access: &Access) -> Finding {
    let about = stream.map_or(About::Redis, |stream| About::Stream(stream.clone()));
    let said = text::visible(&error.to_string()).into_owned();
    match (error.kind(), stream) {
        (Kind::Permission, _) => right_missing(error, about, access),
        (Kind::WrongType, Some(stream)) => wrong_type(stream, access),
        _ => Finding::new(Severity::Warning, "not_collected", about, format!("Not everything could be read: {said}"))
            .means("What could not be read is missing here and on the metrics page."),
    }
}

fn wrong_type(stream: &Name, access: &Access) -> Finding {
    let about = About::Stream(stream.clone());
    Finding::new(Severity::Critical, "wrong_type", about, "The key holds something that is not a stream.")
        .means("Producers and consumers fail with WRONGTYPE: messages for this stream are lost.")
        .run("shows its type", access.command(&[P("TYPE"), N(stream)]))
        .run("moves it out of the way, and deletes nothing", moved_away(stream, access))
}

fn moved_away(stream: &Name, access: &Access) -> Option<String> {
    let to = Name::from(&*[stream.as_bytes(), b".moved"].concat());
    access.command(&[P("RENAMENX"), N(stream), N(&to)])
}

fn right_missing(error: &Error, about: About, access: &Access) -> Finding {
    let right = error.cause().and_then(|cause| missing_right(cause, about.stream()));
    let words = right.map(|right| format!("ACL SETUSER {} {right}", user_word(access)));
    let (about, sentence) = match error.cause() {
        // That concerns every stream: it is said once.
        Some(Cause::CommandForbidden(command)) => {
            let command = text::visible(command).to_uppercase().replace('|', " ");
            (About::Redis, format!("The user {} may not run {command}.", access.user))
        }
        _ => (about, format!("The user {} lacks a right: {}", access.user, text::visible(&error.to_string()))),
    };
    Finding::new(Severity::Warning, "right_missing", about, sentence)
        .means("What the command would tell is missing here and on the metrics page.")
        .run("gives the right, if run by an administrator", words.and_then(|words| access.command(&[P(&words)])))
}

/// The right that would have been needed, as a word of a shell command.
fn missing_right(cause: &Cause, stream: Option<&Name>) -> Option<String> {
    let right = match cause {
        Cause::CommandForbidden(command) => format!("+{command}"),
        Cause::KeyForbidden => format!("%R~{}", std::str::from_utf8(stream?.as_bytes()).ok()?),
        _ => return None,
    };
    text::shell_word(&right.as_str().into())
}

fn missing_stream(stream: &Name, groups: &[Name], access: &Access) -> Vec<Finding> {
    if groups.is_empty() {
        let comma = if stream.as_bytes().contains(&b',') {
            " A comma is part of the key: --stream is given once for each."
        } else {
            ""
        };
        return vec![
            Finding::new(
                Severity::Critical,
                "stream_missing",
                About::Stream(stream.clone()),
                format!("There is no such stream.{comma}"),
            )
            .means("Consumers of its groups fail with NOGROUP. A producer's next XADD makes the stream, but no group.")
            .run("shows whether the key is there", access.command(&[P("TYPE"), N(stream)])),
        ];
    }
    let missing = |group: &Name| {
        let about = About::Group(stream.clone(), group.clone());
        Finding::new(Severity::Critical, "group_missing", about, "There is neither the stream nor this group of it.")
            .means("Consumers fail with NOGROUP: no message is processed.")
            .run("makes both; the group gets every message from now on", create(stream, group, "'$' MKSTREAM", access))
    };
    groups.iter().map(missing).collect()
}

fn create(stream: &Name, group: &Name, from: &str, access: &Access) -> Option<String> {
    access.command(&[P("XGROUP CREATE"), N(stream), N(group), P(from)])
}

fn of_stream(snapshot: &Snapshot, name: &Name, stream: &Stream, access: &Access) -> Vec<Finding> {
    let mut findings: Vec<_> = stream.failures.iter().map(|error| of_failure(error, Some(name), access)).collect();
    findings.extend(stream.missing_groups.iter().map(|group| missing_group(name, group, stream, access)));
    if stream.facts.group_count == 0 && stream.facts.length > 0 && stream.missing_groups.is_empty() {
        let sentence =
            format!("The stream has {} and no consumer group.", text::counted(stream.facts.length, "entries"));
        findings.push(
            Finding::new(Severity::Warning, "no_groups", About::Stream(name.clone()), sentence)
                .means("No consumer can read it as a member of a group. If it had one, the group was destroyed."),
        );
    }
    for (group_name, group) in &stream.groups {
        let about = About::Group(name.clone(), group_name.clone());
        let group = InGroup { snapshot, stream, name, group_name, group, about, access };
        let all = [
            group.waiting(),
            group.pending(),
            group.phantom_lag(),
            group.lost(),
            group.lag_unknown(),
            group.consumers(),
        ];
        findings.extend(all.into_iter().flatten());
    }
    findings
}

fn missing_group(name: &Name, group: &Name, stream: &Stream, access: &Access) -> Finding {
    let about = About::Group(name.clone(), group.clone());
    let entries = stream.facts.length;
    let finding = Finding::new(
        Severity::Critical,
        "group_missing",
        about,
        format!("There is no such group. Its stream has {}.", text::counted(entries, "entries")),
    )
    .means("Consumers fail with NOGROUP: no message is processed.");
    if entries == 0 {
        return finding.run("makes the group; it gets every message from now on", create(name, group, "'$'", access));
    }
    finding
        .run("makes the group, which then gets all entries that are there", create(name, group, "0", access))
        .run("or makes the group, which then gets only messages from now on", create(name, group, "'$'", access))
}

/// A group, and all that is known around it.
struct InGroup<'a> {
    snapshot: &'a Snapshot,
    stream: &'a Stream,
    name: &'a Name,
    group_name: &'a Name,
    group: &'a Group,
    about: About,
    access: &'a Access,
}

impl InGroup<'_> {
    fn finding(&self, severity: Severity, code: &'static str, sentence: impl Into<String>) -> Finding {
        Finding::new(severity, code, self.about.clone(), sentence)
    }

    fn xinfo_groups(&self) -> Option<String> {
        self.access.command(&[P("XINFO GROUPS"), N(self.name)])
    }

    fn waiting(&self) -> Option<Finding> {
        let backlog = &self.group.backlog;
        let Oldest::Entry(oldest) = backlog.oldest else { return None };
        let age = self.snapshot.clock?.age_seconds(oldest)?;
        let severity = match age {
            age if age > thresholds::TOO_LATE_SECONDS => Severity::Critical,
            age if age > thresholds::LATE_SECONDS => Severity::Warning,
            _ => return None,
        };
        let number = match backlog.undelivered {
            Some(1) => "1 message waits".into(),
            Some(number) => format!("{} messages wait", text::count(number)),
            None if backlog.undelivered_at_least == 1 => "At least 1 message waits".into(),
            None => format!("At least {} messages wait", text::count(backlog.undelivered_at_least)),
        };
        let meaning = match (age > thresholds::EXPIRING_SECONDS, self.group.facts.consumers) {
            (_, 0) => "The group has no consumers: none runs, or they use another group or database.",
            (true, _) => {
                "Consumers that ignore messages older than an hour are about to drop them: then they are lost."
            }
            (false, _) => "Consumers are too slow, too few, or have stopped reading. Nothing is lost yet.",
        };
        Some(
            self.finding(severity, "messages_waiting", format!("{number}, the oldest for {}.", text::duration(age)))
                .means(meaning)
                .run("shows the consumers and when each last tried to read", self.xinfo_consumers()),
        )
    }

    /// The command walks all consumers, so it is left out for very many.
    fn xinfo_consumers(&self) -> Option<String> {
        match self.group.facts.consumers {
            0..=1000 => self.access.command(&[P("XINFO CONSUMERS"), N(self.name), N(self.group_name)]),
            _ => self.xinfo_groups(),
        }
    }

    fn pending(&self) -> Option<Finding> {
        let oldest = self.group.oldest_pending.as_ref()?;
        let idle = std::time::Duration::from_millis(oldest.idle_ms).as_secs_f64();
        if idle < thresholds::PENDING_STAYS_SECONDS {
            return None;
        }
        let age = self.snapshot.clock.and_then(|clock| clock.age_seconds(oldest.id)).unwrap_or(idle);
        let severity = if age > thresholds::ORPHANED_SECONDS { Severity::Info } else { Severity::Warning };
        let holder = match oldest.consumer.as_bytes() {
            [] => "no consumer holds the oldest".to_owned(),
            _ => format!("consumer {} holds the oldest", text::name(&oldest.consumer)),
        };
        let times = if oldest.deliveries == 1 { "once".into() } else { format!("{} times", oldest.deliveries) };
        let sentence = format!(
            "{} not acknowledged: {holder}, {}, for {}; it was delivered {times}.",
            match self.group.facts.pending {
                1 => "1 message is".into(),
                pending => format!("{} messages are", text::count(pending)),
            },
            oldest.id,
            text::duration(idle)
        );
        let (id, range) = (oldest.id.to_string(), "- + 10");
        Some(
            self.finding(severity, "pending_stays", sentence)
                .means("Its consumer has died or is stuck. Unless somebody claims the message (XAUTOCLAIM), it is never processed.")
                .run("shows who holds what, since when", self.of_group("XPENDING", range))
                .run("acknowledges the oldest without processing it: only if it may be given up", self.of_group("XACK", &id)),
        )
    }

    fn of_group(&self, command: &str, rest: &str) -> Option<String> {
        self.access.command(&[P(command), N(self.name), N(self.group_name), P(rest)])
    }

    fn phantom_lag(&self) -> Option<Finding> {
        let undelivered = self.group.backlog.undelivered?;
        let lag = u64::try_from(self.group.facts.lag?).ok()?;
        let phantom = lag.checked_sub(undelivered).filter(|phantom| *phantom > 0)?;
        let sentence = format!(
            "Redis reports a lag of {}, but {} wait: {} are not there any more.",
            text::count(lag),
            text::count(undelivered),
            text::count(phantom)
        );
        let waits = if undelivered > 0 { " The correction changes nothing while messages wait." } else { "" };
        Some(
            self.finding(Severity::Warning, "phantom_lag", sentence)
                .means(format!("An autoscaler that goes by the lag starts consumers for nothing.{waits}"))
                .run("sets the counter right and touches no message", self.correction()),
        )
    }

    /// Sets the group to where it stands, with all entries counted as read. It does nothing unless the group has read
    /// everything, so it never delivers or skips a message.
    fn correction(&self) -> Option<String> {
        const SCRIPT: &str = concat!(
            r"local function m(a) local t = {} for i = 1, #a, 2 do t[a[i]] = a[i + 1] end return t end ",
            r#"local s = m(redis.call("XINFO", "STREAM", KEYS[1])) "#,
            r#"for _, a in ipairs(redis.call("XINFO", "GROUPS", KEYS[1])) do local g = m(a) "#,
            r#"if g.name == ARGV[1] and g["last-delivered-id"] == s["last-generated-id"] then "#,
            r#"return redis.call("XGROUP", "SETID", KEYS[1], ARGV[1], g["last-delivered-id"], "ENTRIESREAD", s["entries-added"]) "#,
            r#"end end return "nothing changed: messages wait""#
        );
        let script = format!("'{SCRIPT}'");
        self.access.command(&[P("EVAL"), P(&script), P("1"), N(self.name), N(self.group_name)])
    }

    fn lost(&self) -> Option<Finding> {
        let lost = self.group.backlog.lost.filter(|lost| *lost > 0)?;
        let sentence =
            format!("At least {} left the stream before this group read them.", text::counted(lost, "messages"));
        Some(
            self.finding(Severity::Warning, "messages_lost", sentence)
                .means("They were trimmed or deleted, and cannot be got back. On Redis 8.2 and later, XTRIM ... ACKED removes only what every group has read.")
                .run("shows the first entry that is left", self.access.command(&[P("XINFO STREAM"), N(self.name)])),
        )
    }

    fn lag_unknown(&self) -> Option<Finding> {
        let facts = &self.group.facts;
        if facts.lag.is_some() || self.stream.facts.entries_added.is_none() {
            return None;
        }
        let why = match facts.entries_read {
            None => "the group was made or set in the middle of the stream",
            Some(_) => "an entry that the group had not read was deleted",
        };
        let waiting = match self.group.backlog.undelivered {
            Some(number) => format!("{} wait", text::count(number)),
            None => format!("at least {} wait", text::count(self.group.backlog.undelivered_at_least)),
        };
        Some(
            self.finding(Severity::Warning, "lag_unknown", format!("Redis cannot tell the lag: {why}."))
                .means(format!("An autoscaler that goes by the lag sees nothing, though {waiting}. The lag comes back when the group has read everything."))
                .run("shows lag and entries-read", self.xinfo_groups()),
        )
    }

    fn consumers(&self) -> Option<Finding> {
        let consumers = self.group.facts.consumers;
        (consumers > thresholds::CONSUMERS).then(|| {
            self.finding(
                Severity::Warning,
                "too_many_consumers",
                format!("The group has {} consumers.", text::count(consumers)),
            )
            .means(
                "Consumers that end without XGROUP DELCONSUMER stay for ever. They take memory and make XPENDING slow.",
            )
            .run("shows how many there are", self.xinfo_groups())
        })
    }
}

#[cfg(test)]
mod tests;
