//! Findings by table: a state, and what is said of it.

use super::*;
use crate::model::{
    backlog::Backlog,
    by_name::ByName,
    snapshot::{Clock, GroupFacts, OldestPending, StreamFacts, StreamId},
};

const NOW: Clock = Clock { ms: 1_740_691_320_000 };

fn id_ago(seconds: u64) -> StreamId {
    StreamId { ms: NOW.ms - seconds * 1000, seq: 0 }
}

fn access() -> Access {
    Access { redis_cli: "redis-cli -h redis".into(), user: "exporter".into(), tls: false }
}

/// A group that has read everything, and nothing is wrong with it.
fn group() -> Group {
    Group {
        facts: GroupFacts { consumers: 3, pending: 0, last_delivered: id_ago(5), entries_read: Some(10), lag: Some(0) },
        backlog: Backlog { undelivered: Some(0), undelivered_at_least: 0, oldest: Oldest::None, lost: Some(0) },
        oldest_pending: None,
        consumers_with_pending: Some(0),
        busy_consumers: Vec::new(),
    }
}

fn stream(group: Group) -> Stream {
    let facts = StreamFacts {
        length: 10,
        group_count: 1,
        last_generated: id_ago(5),
        entries_added: Some(10),
        first: Some(id_ago(100)),
        last: Some(id_ago(5)),
    };
    Stream {
        facts,
        groups: [("g".into(), group)].into(),
        missing_groups: Vec::new(),
        failures: Vec::new(),
        complete: true,
    }
}

fn snapshot_of(name: &str, state: StreamState) -> Snapshot {
    Snapshot { clock: Some(NOW), streams: [(name.into(), state)].into(), ..Snapshot::default() }
}

fn found(stream: Stream) -> Snapshot {
    snapshot_of("s", StreamState::Found(Box::new(stream)))
}

/// The findings of a snapshot that has this one group.
fn of_group(change: impl FnOnce(&mut Group)) -> Vec<Finding> {
    let mut group = group();
    change(&mut group);
    of(found(stream(group)))
}

fn of(snapshot: Snapshot) -> Vec<Finding> {
    findings(&Ok(snapshot), &access())
}

fn of_server(server: Server) -> Vec<Finding> {
    of(Snapshot { server: Some(server), ..Snapshot::default() })
}

fn waits(seconds: u64) -> impl FnOnce(&mut Group) {
    move |group| {
        let oldest = Oldest::Entry(id_ago(seconds));
        group.backlog = Backlog { undelivered: Some(7), undelivered_at_least: 7, oldest, lost: Some(0) };
        group.facts.lag = Some(7);
    }
}

fn pends(age: u64, idle: u64) -> impl FnOnce(&mut Group) {
    move |group| {
        group.facts.pending = 4;
        let consumer = "w".into();
        group.oldest_pending = Some(OldestPending { id: id_ago(age), consumer, idle_ms: idle * 1000, deliveries: 2 });
    }
}

#[test]
fn a_healthy_group_gives_no_finding() {
    for change in
        [Box::new(|_: &mut Group| {}) as Box<dyn FnOnce(&mut Group)>, Box::new(waits(60)), Box::new(pends(4000, 299))]
    {
        assert_eq!(of_group(change), []);
    }
}

#[test]
fn each_state_of_a_group_gives_its_finding_and_its_command() {
    use Severity::{Critical, Info, Warning};
    type Case = (Vec<Finding>, Severity, &'static str, &'static [&'static str], &'static [&'static str]);
    let cases: Vec<Case> = vec![
        (of_group(waits(61)), Warning, "messages_waiting", &["7 messages wait", "1 min 1 s"], &["XINFO CONSUMERS s g"]),
        (
            of_group(waits(181)),
            Critical,
            "messages_waiting",
            &["3 min 1 s", "Nothing is lost yet"],
            &["XINFO CONSUMERS s g"],
        ),
        (
            of_group(waits(2701)),
            Critical,
            "messages_waiting",
            &["45 min 1 s", "about to drop"],
            &["XINFO CONSUMERS s g"],
        ),
        (
            of_group(|group| {
                waits(200)(group);
                group.facts.consumers = 0;
                group.backlog.undelivered = None;
            }),
            Critical,
            "messages_waiting",
            &["At least 7", "The group has no consumers"],
            &["XINFO CONSUMERS"],
        ),
        (
            of_group(pends(600, 300)),
            Warning,
            "pending_stays",
            &["4 messages", "consumer w", "5 min", "2 times"],
            &["XPENDING s g - + 10", "XACK s g 1740690720000-0"],
        ),
        (of_group(pends(3601, 300)), Info, "pending_stays", &["4 messages"], &["XPENDING", "XACK"]),
        (
            of_group(|group| group.facts.lag = Some(9)),
            Warning,
            "phantom_lag",
            &["lag of 9", "0 wait", "9 are not there"],
            &["EVAL 'local function"],
        ),
        (
            of_group(|group| group.backlog.lost = Some(9)),
            Warning,
            "messages_lost",
            &["At least 9"],
            &["XINFO STREAM s"],
        ),
        (
            of_group(|group| group.facts.lag = None),
            Warning,
            "lag_unknown",
            &["was deleted", "0 wait"],
            &["XINFO GROUPS s"],
        ),
        (
            of_group(|group| (group.facts.lag, group.facts.entries_read) = (None, None)),
            Warning,
            "lag_unknown",
            &["in the middle"],
            &["XINFO GROUPS s"],
        ),
        (
            of_group(|group| group.facts.consumers = 250_001),
            Warning,
            "too_many_consumers",
            &["250,001"],
            &["XINFO GROUPS s"],
        ),
    ];
    for (findings, severity, code, says, runs) in cases {
        let [finding] = &findings[..] else { panic!("{code}: {findings:?}") };
        assert_eq!((finding.severity, finding.code), (severity, code));
        assert_eq!(finding.about, About::Group("s".into(), "g".into()));
        let text = format!("{} {}", finding.sentence, finding.meaning);
        for part in says {
            assert!(text.contains(part), "{code}: {part} is not in {text}");
        }
        for (command, part) in finding.commands.iter().zip(runs) {
            assert!(command.line.starts_with("redis-cli -h redis ") && command.line.contains(part), "{command:?}");
        }
        assert_eq!(finding.commands.len(), runs.len(), "{code}");
    }
}

#[test]
fn what_is_missing_is_critical_and_comes_with_the_command_that_makes_it() {
    let lines = |findings: &[Finding]| -> Vec<String> {
        findings.iter().flat_map(|finding| finding.commands.iter().map(|command| command.line.clone())).collect()
    };
    let missing = of(snapshot_of("s", StreamState::Missing { groups: vec!["g".into(), "h i".into()] }));
    assert!(missing.iter().all(|finding| (finding.severity, finding.code) == (Severity::Critical, "group_missing")));
    assert_eq!(
        lines(&missing),
        ["redis-cli -h redis XGROUP CREATE s g '$' MKSTREAM", "redis-cli -h redis XGROUP CREATE s 'h i' '$' MKSTREAM"]
    );

    let missing = of(snapshot_of("a,b", StreamState::Missing { groups: vec![] }));
    assert_eq!((missing.len(), missing[0].code), (1, "stream_missing"));
    assert!(missing[0].sentence.contains("comma"), "{missing:?}");

    let with_missing_group = |length| {
        let mut stream = stream(group());
        stream.facts.length = length;
        stream.missing_groups.push("h".into());
        of(found(stream))
    };
    assert_eq!(lines(&with_missing_group(0)), ["redis-cli -h redis XGROUP CREATE s h '$'"]);
    assert_eq!(
        lines(&with_missing_group(10)),
        ["redis-cli -h redis XGROUP CREATE s h 0", "redis-cli -h redis XGROUP CREATE s h '$'"]
    );

    let mut without_groups = stream(group());
    (without_groups.groups, without_groups.facts.group_count) = (ByName::default(), 0);
    assert_eq!(of(found(without_groups))[0].code, "no_groups");

    let error = Error::new(Kind::WrongType, "WRONGTYPE");
    let wrong = of(snapshot_of("s", StreamState::Failed { error, exists: Some(false), groups: vec![] }));
    assert_eq!((wrong[0].severity, wrong[0].code), (Severity::Critical, "wrong_type"));
    assert_eq!(lines(&wrong), ["redis-cli -h redis TYPE s", "redis-cli -h redis RENAMENX s s.moved"]);

    let pattern = of(Snapshot { patterns: [("x*".into(), 0), ("y*".into(), 1)].into(), ..Snapshot::default() });
    assert_eq!((pattern.len(), pattern[0].code), (1, "pattern_empty"));
    assert_eq!(lines(&pattern), ["redis-cli -h redis --scan --pattern 'x*'"]);
}

#[test]
fn a_server_that_refuses_writes_or_is_about_to_is_a_finding() {
    let memory = |used, policy: &str| Server {
        used_memory_bytes: Some(used),
        max_memory_bytes: Some(1000),
        maxmemory_policy: Some(policy.into()),
        ..Server::default()
    };
    let codes = |server| of_server(server).iter().map(|f| (f.severity, f.code)).collect::<Vec<_>>();
    assert_eq!(codes(memory(800, "noeviction")), []);
    assert_eq!(codes(memory(811, "noeviction")), [(Severity::Warning, "memory_high")]);
    assert_eq!(
        codes(memory(1000, "noeviction")),
        [(Severity::Critical, "writes_refused"), (Severity::Warning, "memory_high")]
    );
    assert_eq!(codes(memory(1000, "allkeys-lru")), [(Severity::Warning, "memory_high")]);
    let no_limit = Server { max_memory_bytes: Some(0), ..memory(1000, "noeviction") };
    assert_eq!(codes(no_limit), []);
    let aof = Server { aof_last_write_ok: Some(false), ..Server::default() };
    assert_eq!(codes(aof), [(Severity::Critical, "writes_refused")]);
    let rdb = Server { rdb_last_bgsave_ok: Some(false), ..Server::default() };
    assert_eq!(codes(rdb), [(Severity::Warning, "snapshot_failed")]);
    let evicting = Server { evicted_keys: Some(3), ..Server::default() };
    assert_eq!(codes(evicting), [(Severity::Info, "keys_evicted")]);
}

#[test]
fn a_redis_that_cannot_be_asked_is_the_only_finding() {
    for (kind, code, says) in [
        (Kind::Connect, "redis_down", "refused"),
        (Kind::Auth, "login_refused", "user exporter"),
        (Kind::Timeout, "redis_too_slow", "in time"),
        (Kind::Loading, "redis_loading", "loading"),
        (Kind::Protocol, "redis_down", "refused"),
    ] {
        let findings = findings(&Err(Error::new(kind, "connection refused")), &access());
        assert_eq!((findings.len(), findings[0].severity, findings[0].code), (1, Severity::Critical, code));
        assert!(findings[0].sentence.contains(says) && findings[0].commands.len() == 1, "{findings:?}");
    }
}

#[test]
fn a_login_that_is_missing_is_told_from_one_that_is_wrong() {
    let of = |cause| {
        let error = Error::new(Kind::Auth, "refused").because(cause);
        findings(&Err(error), &access()).remove(0)
    };
    let missing = of(Cause::LoginMissing);
    assert!(missing.meaning.contains("--redis.password-file") && missing.commands.is_empty(), "{missing:?}");
    let wrong = of(Cause::LoginWrong);
    assert_eq!(wrong.commands[0].line, "redis-cli -h redis ACL GETUSER exporter");
    assert!(wrong.sentence.contains("user exporter"), "{wrong:?}");
}

#[test]
fn tls_to_a_plain_port_and_the_other_way_round_are_said() {
    for (tls, kind, cause, hint) in [
        (true, Kind::Timeout, Some(Cause::HandshakeUnanswered), "redis:// instead of rediss://"),
        (true, Kind::Connect, Some(Cause::NoTls), "redis:// instead of rediss://"),
        (false, Kind::Connect, Some(Cause::ConnectionBroke), "rediss:// instead of redis://"),
        (true, Kind::Connect, Some(Cause::ConnectionBroke), ""),
        (true, Kind::Timeout, None, ""),
        (false, Kind::Connect, None, ""),
    ] {
        let outcome = Err(Error::new(kind, "the message does not matter").because(cause));
        let said = &findings(&outcome, &Access { tls, ..access() })[0].meaning;
        assert!(said.ends_with(&if hint.is_empty() { "too.".into() } else { format!("say {hint}.") }), "{said}");
    }
}

#[test]
fn a_missing_right_comes_with_the_line_that_gives_it() {
    let refused = |cause: Option<Cause>| Error::new(Kind::Permission, "the message does not matter").because(cause);
    let command = |name: &str| Some(Cause::CommandForbidden(name.into()));
    let in_general = |error: Error| Snapshot { failures: vec![error], ..Snapshot::default() };
    let in_scripts = |error: Error| Snapshot { scripts_refused: Some(error), ..Snapshot::default() };
    let of_stream = |error| snapshot_of("a b", StreamState::Failed { error, exists: None, groups: vec![] });
    for (snapshot, right) in [
        (in_general(refused(command("info"))), Some("+info")),
        (in_general(refused(command("xinfo|groups"))), Some("'+xinfo|groups'")),
        (in_general(refused(None)), None),
        (in_general(refused(Some(Cause::KeyForbidden))), None),
        (in_scripts(refused(command("eval_ro"))), Some("+eval_ro")),
        (of_stream(refused(command("xinfo|stream"))), Some("'+xinfo|stream'")),
        (of_stream(refused(Some(Cause::KeyForbidden))), Some("'%R~a b'")),
    ] {
        let [finding] = &of(snapshot)[..] else { panic!("{right:?}") };
        assert_eq!((finding.severity, finding.code), (Severity::Warning, "right_missing"));
        let lines: Vec<_> = finding.commands.iter().map(|command| command.line.as_str()).collect();
        let expected = right.map(|right| format!("redis-cli -h redis ACL SETUSER exporter {right}"));
        assert_eq!(lines, expected.iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_right_that_is_missing_for_many_streams_is_said_once() {
    let error = Error::new(Kind::Permission, "NOPERM").because(Cause::CommandForbidden("xinfo|stream".into()));
    let failed = || StreamState::Failed { error: error.clone(), exists: None, groups: vec![] };
    let streams = (0..9).map(|number| (format!("s{number}").as_str().into(), failed())).collect();
    let findings = of(Snapshot { streams, failures: vec![error.clone()], ..Snapshot::default() });
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(
        (&findings[0].about, &*findings[0].sentence),
        (&About::Redis, "The user exporter may not run XINFO STREAM.")
    );
}

#[test]
fn a_server_that_has_no_scripts_is_no_finding() {
    let error = Error::new(Kind::Other, "ERR unknown command 'EVAL_RO'");
    assert_eq!(of(Snapshot { scripts_refused: Some(error), ..Snapshot::default() }), []);
}

#[test]
fn a_name_that_cannot_be_typed_gets_no_command_and_is_shown_harmless() {
    for name in ["a\u{1b}[2Jb", "a\nb", "a\u{202e}b"] {
        let findings = of(snapshot_of(name, StreamState::Missing { groups: vec!["g".into()] }));
        assert_eq!(findings[0].commands, [], "{name:?}");
        assert!(findings[0].about.shown().contains("\\u{"), "{findings:?}");
    }
    let hostile = "'; rm -rf $HOME; '";
    let findings = of(snapshot_of(hostile, StreamState::Missing { groups: vec!["g".into()] }));
    let words = shlex::split(&findings[0].commands[0].line).unwrap();
    assert_eq!(words[5], hostile, "{words:?}");
    assert_eq!(words.len(), 9);
}

#[test]
fn the_worst_comes_first() {
    let mut snapshot = found(stream({
        let mut group = group();
        pends(3601, 300)(&mut group);
        group
    }));
    snapshot.streams.insert("z".into(), StreamState::Missing { groups: vec!["g".into()] });
    snapshot.patterns.insert("a*".into(), 0);
    let severities: Vec<_> = of(snapshot).iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Critical, Severity::Warning, Severity::Info]);
}
