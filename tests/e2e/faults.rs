//! End to end: something breaks on a real Redis, the right people hear of it once, and it ends when it is mended.

use std::time::Duration;

use crate::{
    fixture::{Fault, Fixture, GROUP, STREAM, play},
    stack::{Generation, NAMESPACE, Stack, within},
    support::Flavor::{Redis6, Redis7, Redis8, Valkey9},
};

/// The group that the procedures make, named: the exporter says when it is missing.
const NAMED: &str = "instrument:lsstcam=lsstcam_consumer_group";
/// The default.
const PATTERN: &str = "instrument:*";
/// The stream alone: whatever groups it has.
const UNNAMED: &str = "instrument:lsstcam";

#[test]
fn redis_goes_or_its_streams_or_its_groups() {
    play(
        Generation::Three,
        &[
            Fault {
                name: "Redis is killed and comes back",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisDown"],
                held_back: &[],
                pages: 1,
                play: redis_is_killed_and_comes_back,
            },
            Fault {
                // The second page asks for a second act, and it alone has the command.
                name: "Redis is killed and comes back empty",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisDown", "PromptRedisGroupMissing"],
                held_back: &[],
                pages: 2,
                play: redis_is_killed_and_comes_back_empty,
            },
            Fault {
                name: "the stream is dropped",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisGroupMissing"],
                held_back: &[],
                pages: 1,
                play: |fixture| the_stream_is_dropped(fixture, "PromptRedisGroupMissing"),
            },
            Fault {
                name: "the stream is dropped, and no group was named",
                flavor: Redis7,
                watch: UNNAMED,
                arrive: &["PromptRedisStreamMissing"],
                held_back: &[],
                pages: 1,
                play: |fixture| the_stream_is_dropped(fixture, "PromptRedisStreamMissing"),
            },
            Fault {
                name: "the group is destroyed while messages come",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisGroupMissing"],
                held_back: &[],
                pages: 1,
                play: |fixture| the_group_is_destroyed(fixture, "PromptRedisGroupMissing"),
            },
            Fault {
                name: "the group is destroyed, and none was named",
                flavor: Redis8,
                watch: UNNAMED,
                arrive: &["PromptRedisGroupGone"],
                held_back: &[],
                pages: 1,
                play: |fixture| the_group_is_destroyed(fixture, "PromptRedisGroupGone"),
            },
            Fault {
                name: "Redis comes back empty, nothing was named, and visits arrive",
                flavor: Redis8,
                watch: PATTERN,
                arrive: &["PromptRedisGroupGone"],
                held_back: &[],
                pages: 1,
                play: redis_comes_back_empty_and_visits_arrive,
            },
            healthy(Redis7),
        ],
    );
}

#[test]
fn another_key_takes_the_name_or_a_pattern_finds_less() {
    play(
        Generation::Three,
        &[
            Fault {
                name: "another key takes the name of the stream",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisWrongType"],
                held_back: &[],
                pages: 1,
                play: another_key_takes_the_name,
            },
            Fault {
                name: "another key takes the name of the stream, which a pattern had found",
                flavor: Redis8,
                watch: PATTERN,
                arrive: &["PromptRedisWrongType"],
                held_back: &[],
                pages: 1,
                play: another_key_takes_the_name,
            },
            Fault {
                name: "the stream is dropped, which a pattern had found",
                flavor: Redis8,
                watch: PATTERN,
                arrive: &["PromptRedisStreamMissing"],
                held_back: &[],
                pages: 1,
                play: |fixture| {
                    observe(fixture);
                    known_for_ten_minutes(fixture);
                    drop_the_stream(fixture, "PromptRedisStreamMissing", "EVAL");
                },
            },
            healthy(Redis7),
        ],
    );
}

#[test]
fn redis_asks_for_a_password_or_reads_its_file() {
    play(
        Generation::Three,
        &[
            Fault {
                name: "Redis asks for a password",
                flavor: Redis8,
                watch: NAMED,
                arrive: &["PromptRedisAccessRefused"],
                held_back: &[],
                pages: 1,
                play: redis_asks_for_a_password,
            },
            Fault {
                name: "Redis asks for a password that clients have",
                flavor: Redis8,
                watch: NAMED,
                arrive: &["PromptRedisAccessRefused"],
                held_back: &[],
                pages: 1,
                play: redis_asks_for_a_password_that_clients_have,
            },
            Fault {
                name: "Redis is killed while it reads a large file",
                flavor: Redis8,
                watch: NAMED,
                arrive: &["PromptRedisDown"],
                held_back: &[],
                pages: 1,
                play: redis_is_killed_while_it_reads_a_large_file,
            },
            healthy(Redis7),
        ],
    );
}

#[test]
fn rights_go_or_keys_or_memory_or_the_exporter() {
    play(
        Generation::Three,
        &[
            Fault {
                name: "a right is taken from the exporter",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisCollectionFailing"],
                held_back: &[],
                pages: 0,
                play: a_right_is_taken,
            },
            Fault {
                name: "Redis evicts keys",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisEvicting"],
                held_back: &[],
                pages: 1,
                play: redis_evicts_keys,
            },
            Fault {
                name: "memory runs full",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisMemoryHigh"],
                held_back: &[],
                pages: 0,
                play: memory_runs_full,
            },
            Fault {
                name: "the exporter is killed",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisExporterDown"],
                held_back: &[],
                pages: 1,
                play: the_exporter_is_killed,
            },
            healthy(Redis7),
        ],
    );
}

#[test]
fn workers_stop_or_die_or_are_too_slow() {
    play(
        Generation::Three,
        &[
            Fault {
                name: "workers stop",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisDeliveryStalled"],
                held_back: &["PromptRedisBacklogBeyondWorkers"],
                pages: 1,
                play: workers_stop,
            },
            Fault {
                name: "workers die between read and acknowledge",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisPendingBuildUp"],
                held_back: &["PromptRedisPendingNotAcked"],
                pages: 1,
                play: workers_die,
            },
            Fault {
                // It is late before it is too late: the warning comes first, and has nothing to be held back by.
                name: "workers are too slow",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisDeliveryLate", "PromptRedisDeliveryTooLate"],
                held_back: &[],
                pages: 1,
                play: workers_are_too_slow,
            },
            healthy(Redis6),
        ],
    );
}

#[test]
fn counters_lie() {
    play(
        Generation::Three,
        &[
            Fault {
                name: "entries are trimmed unread",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisMessagesLost", "PromptRedisPhantomLag"],
                held_back: &[],
                pages: 0,
                play: entries_are_trimmed_unread,
            },
            Fault {
                name: "the lag is null and nothing waits",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisLagUnknown"],
                held_back: &[],
                pages: 0,
                play: the_lag_is_null_and_nothing_waits,
            },
            Fault {
                name: "the lag is null and KEDA starts nobody",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisLagUnknown", "PromptRedisDeliveryStalled"],
                held_back: &[],
                pages: 1,
                play: the_lag_is_null_and_keda_starts_nobody,
            },
            healthy(Valkey9),
        ],
    );
}

#[test]
fn writes_are_refused() {
    play(
        Generation::Three,
        &[
            Fault {
                name: "memory is full and nothing may be evicted",
                flavor: Redis8,
                watch: NAMED,
                arrive: &["PromptRedisWritesRefused"],
                held_back: &[],
                pages: 1,
                play: memory_is_full_and_nothing_may_be_evicted,
            },
            Fault {
                name: "a snapshot cannot be written",
                flavor: Redis8,
                watch: NAMED,
                arrive: &["PromptRedisWritesRefused"],
                held_back: &[],
                pages: 1,
                play: a_snapshot_cannot_be_written,
            },
            Fault {
                name: "the append-only file cannot be written",
                flavor: Redis8,
                watch: NAMED,
                arrive: &["PromptRedisWritesRefused"],
                held_back: &[],
                pages: 1,
                play: the_append_only_file_cannot_be_written,
            },
            Fault {
                name: "the append-only file of Redis 7 cannot be written",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisWritesRefused"],
                held_back: &[],
                pages: 1,
                play: the_append_only_file_cannot_be_written,
            },
            Fault {
                name: "Redis has become a replica",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisWritesRefused"],
                held_back: &[],
                pages: 1,
                play: redis_has_become_a_replica,
            },
            healthy(Redis8),
        ],
    );
}

/// The same on Debian stable's Prometheus, in short: one alert by a value, one by a range, and nothing.
#[test]
fn prometheus_2_says_the_same() {
    play(
        Generation::Two,
        &[
            Fault {
                name: "the stream is dropped",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisGroupMissing"],
                held_back: &[],
                pages: 1,
                play: |fixture| the_stream_is_dropped(fixture, "PromptRedisGroupMissing"),
            },
            Fault {
                name: "workers die between read and acknowledge",
                flavor: Redis7,
                watch: NAMED,
                arrive: &["PromptRedisPendingBuildUp"],
                held_back: &["PromptRedisPendingNotAcked"],
                pages: 1,
                play: workers_die,
            },
            healthy(Redis7),
        ],
    );
}

/// A neighbour with the same streams and groups, with a night on it: of this one nothing may be said.
fn healthy(flavor: crate::support::Flavor) -> Fault {
    Fault {
        name: "nothing",
        flavor,
        watch: NAMED,
        arrive: &[],
        held_back: &[],
        pages: 0,
        play: |fixture| {
            fixture.begin_night(&["--visits=0", "--detectors=10"]);
            within(Duration::from_secs(30), "the night is seen", || {
                fixture.exporter().scrape().stream("length", STREAM).filter(|length| *length >= 20.0)
            });
        },
    }
}

/// A few visits, all read.
fn observe(fixture: &mut Fixture<'_>) {
    fixture.begin_night(&["--visits=3", "--detectors=20"]);
    assert_eq!(fixture.end_night("undelivered"), 0);
}

fn redis_is_killed_and_comes_back(fixture: &mut Fixture<'_>) {
    observe(fixture);
    fixture.server.run("SAVE");
    fixture.loses();
    fixture.server.kill();
    let page = fixture.arrives("PromptRedisDown");
    assert!(fixture.type_printed(&page, "PING").unwrap_err().contains("Connection refused"));
    fixture.server.spawn();
    fixture.server.wait();
    assert_eq!(fixture.type_printed(&page, "PING").unwrap().trim(), "PONG");
    fixture.resolves("PromptRedisDown");
}

fn redis_is_killed_and_comes_back_empty(fixture: &mut Fixture<'_>) {
    observe(fixture);
    fixture.loses();
    fixture.server.kill();
    fixture.arrives("PromptRedisDown");
    fixture.server.spawn();
    let page = fixture.arrives("PromptRedisGroupMissing");
    assert_eq!(fixture.type_printed(&page, "XGROUP CREATE").unwrap().trim(), "OK");
    fixture.resolves("PromptRedisDown");
    fixture.resolves("PromptRedisGroupMissing");
}

fn the_stream_is_dropped(fixture: &mut Fixture<'_>, name: &str) {
    observe(fixture);
    drop_the_stream(fixture, name, "XGROUP CREATE");
}

fn drop_the_stream(fixture: &mut Fixture<'_>, name: &str, command: &str) {
    fixture.loses();
    fixture.server.run(&format!("DEL {STREAM}"));
    let page = fixture.arrives(name);
    assert_eq!(fixture.type_printed(&page, command).unwrap().trim(), "OK");
    shows_the_group(fixture);
    fixture.resolves(name);
}

/// The same group as before. A look-up of patterns rests for a moment after each walk.
fn shows_the_group(fixture: &Fixture<'_>) {
    within(Duration::from_secs(10), "the exporter shows the group", || {
        fixture.exporter().scrape().group("exists", STREAM, GROUP).filter(|exists| *exists == 1.0)
    });
}

/// Ten minutes of the night, which are ten seconds here.
fn known_for_ten_minutes(fixture: &Fixture<'_>) {
    let read = format!("redis_stream_group_entries_read{{instance=\"{}\"}} offset 10s == 60", fixture.address());
    within(Duration::from_secs(60), "Prometheus has known for a while what the group has read", || {
        fixture.stack().prometheus.number(&read)
    });
}

fn the_group_is_destroyed(fixture: &mut Fixture<'_>, name: &str) {
    observe(fixture);
    known_for_ten_minutes(fixture);
    fixture.loses();
    fixture.server.run(&format!("XGROUP DESTROY {STREAM} {GROUP}"));
    let page = fixture.arrives(name);
    add_ten(fixture);
    let said = fixture.type_first(&page);
    // What came since waits, and at most what was written in the very millisecond of the last delivery is repeated.
    let waits = fixture.exporter().scrape().group("messages_undelivered", STREAM, GROUP).unwrap();
    assert!((10.0..=30.0).contains(&waits), "{waits} wait: {}", page.description());
    assert_eq!((said, lag(fixture)), (format!("{waits} wait"), Some(waits)), "KEDA sees what waits");
    read(fixture, 100);
    fixture.resolves(name);
}

fn another_key_takes_the_name(fixture: &mut Fixture<'_>) {
    observe(fixture);
    known_for_ten_minutes(fixture);
    fixture.server.run_all(&format!("DEL {STREAM}\nSET {STREAM} 1"));
    let write = format!("redis-cli XADD {STREAM} '*' detector 1");
    fixture.loses();
    let page = fixture.arrives_while("PromptRedisWrongType", || {
        let said = fixture.shell.run(&write).unwrap_err();
        assert!(said.contains("WRONGTYPE"), "{said}");
    });
    assert_eq!(fixture.type_first(&page), "OK");
    shows_the_group(fixture);
    fixture.shell.run(&write).unwrap();
    read(fixture, 1);
    fixture.resolves("PromptRedisWrongType");
}

fn redis_comes_back_empty_and_visits_arrive(fixture: &mut Fixture<'_>) {
    observe(fixture);
    known_for_ten_minutes(fixture);
    fixture.loses();
    fixture.server.run("FLUSHALL");
    add_ten(fixture);
    let page = fixture.arrives("PromptRedisGroupGone");
    assert_eq!(fixture.type_first(&page), "OK");
    assert_eq!(lag(fixture), Some(10.0), "all of it waits, and KEDA sees it");
    read(fixture, 10);
    fixture.resolves("PromptRedisGroupGone");
}

fn redis_asks_for_a_password(fixture: &mut Fixture<'_>) {
    observe(fixture);
    fixture.server.run("CONFIG SET requirepass secret");
    fixture.kill_exporter();
    fixture.start_exporter();
    let page = fixture.arrives("PromptRedisAccessRefused");
    assert!(fixture.type_printed(&page, "PING").unwrap_err().contains("NOAUTH"), "it says what Redis asks for");
    let [_, take_away] = *page.commands() else { panic!("{}", page.description()) };
    assert!(fixture.shell.run(take_away).unwrap_err().contains("NOAUTH"), "it needs the password");
    fixture.shell.run(&format!("export REDISCLI_AUTH=secret; {take_away}")).unwrap();
    fixture.resolves("PromptRedisAccessRefused");
}

/// Then the exporter gets it too. To take it away, which the page does not print first, would refuse the others.
fn redis_asks_for_a_password_that_clients_have(fixture: &mut Fixture<'_>) {
    observe(fixture);
    fixture.server.run("CONFIG SET requirepass secret");
    fixture.kill_exporter();
    fixture.start_exporter();
    let page = fixture.arrives("PromptRedisAccessRefused");
    assert!(page.commands()[0].ends_with(" PING"), "the first command changes nothing: {}", page.description());
    let as_worker = "redis-cli -a secret --no-auth-warning XLEN";
    fixture.shell.run(&format!("{as_worker} {STREAM}")).unwrap();
    fixture.kill_exporter();
    fixture.start_exporter_with_password("secret");
    fixture.resolves("PromptRedisAccessRefused");
    fixture.shell.run(&format!("{as_worker} {STREAM}")).unwrap();
    fixture.shell.run("export REDISCLI_AUTH=secret; redis-cli CONFIG SET requirepass ''").unwrap();
    // redis-cli goes on after that; other clients end.
    assert!(fixture.shell.run(&format!("{as_worker} {STREAM}")).unwrap().contains("AUTH failed"));
}

/// Redis with a large append-only file takes a while to start, and is killed once more while it does.
fn redis_is_killed_while_it_reads_a_large_file(fixture: &mut Fixture<'_>) {
    observe(fixture);
    append_only(fixture);
    for thousand in 0..40 {
        let mut writes = redis::pipe();
        for key in 0..1_000 {
            writes.cmd("SET").arg(thousand * 1_000 + key).arg("x".repeat(100)).ignore();
        }
        writes.query::<()>(&mut fixture.server.connection()).unwrap();
    }
    fixture.server.args = ["--appendonly", "yes", "--key-load-delay", "500"].map(str::to_owned).to_vec();
    fixture.loses();
    fixture.server.kill();
    fixture.server.spawn();
    let page = fixture.arrives("PromptRedisDown");
    assert!(fixture.type_printed(&page, "PING").unwrap_err().contains("LOADING"), "it says that Redis reads its file");
    fixture.server.kill();
    fixture.server.args.truncate(2);
    fixture.server.spawn();
    fixture.server.wait();
    assert_eq!(fixture.type_printed(&page, "PING").unwrap().trim(), "PONG");
    assert_eq!(fixture.exporter().scrape().group("exists", STREAM, GROUP), Some(1.0), "the file has the group");
    fixture.resolves("PromptRedisDown");
}

/// From now on with an append-only file, as Prompt Redis runs.
fn append_only(fixture: &Fixture<'_>) {
    fixture.server.run("CONFIG SET appendonly yes");
    within(Duration::from_secs(30), "the append-only file is there", || {
        let said = fixture.shell.run("redis-cli INFO persistence").unwrap();
        let is = |line| said.lines().any(|other| other.trim_end() == line);
        (is("aof_enabled:1") && is("aof_rewrite_in_progress:0") && is("aof_rewrite_scheduled:0")).then_some(())
    });
}

/// As on a full disk: what is written goes no further.
fn the_append_only_file_cannot_be_written(fixture: &mut Fixture<'_>) {
    observe(fixture);
    append_only(fixture);
    fixture.server.limit_files(1);
    // Redis hears of it with the first write, which it has accepted.
    fixture.shell.run(&format!("redis-cli XADD {STREAM} '*' detector 1")).unwrap();
    within(Duration::from_secs(30), "the write has failed", || {
        let status = fixture.exporter().scrape().value("redis_aof_last_write_status");
        status.filter(|status| *status == 0.0)
    });
    let said = fixture.shell.run("redis-cli PING").unwrap_err();
    assert!(said.contains("MISCONF"), "the runbook says so: {said}");
    refused_until_mended(fixture, "MISCONF");
}

fn a_right_is_taken(fixture: &mut Fixture<'_>) {
    observe(fixture);
    fixture.server.run("ACL SETUSER default -xinfo|groups");
    let warning = fixture.arrives("PromptRedisCollectionFailing");
    assert!(fixture.type_printed(&warning, "XINFO GROUPS").unwrap_err().contains("NOPERM"), "it says why");
    fixture.server.run("ACL SETUSER default +xinfo|groups");
    fixture.resolves("PromptRedisCollectionFailing");
}

/// Fan-out tries to write, until somebody is called. Then the first command of the page lets it.
fn refused_until_mended(fixture: &mut Fixture<'_>, error: &str) {
    let write = format!("redis-cli XADD {STREAM} '*' detector 1");
    fixture.loses();
    let page = fixture.arrives_while("PromptRedisWritesRefused", || {
        let said = fixture.shell.run(&write).unwrap_err();
        assert!(said.contains(error), "{said}");
    });
    assert_eq!(page.label("err"), error);
    assert_eq!(fixture.type_first(&page), "OK");
    fixture.shell.run(&write).unwrap();
    // The command leaves little room, of which another alert would tell.
    fixture.server.run("CONFIG SET maxmemory 0");
    read(fixture, 10);
    fixture.resolves("PromptRedisWritesRefused");
}

fn memory_is_full_and_nothing_may_be_evicted(fixture: &mut Fixture<'_>) {
    observe(fixture);
    fixture.server.run_all("CONFIG SET maxmemory-policy noeviction");
    let used = fixture.exporter().scrape().value("redis_memory_used_bytes").unwrap();
    fixture.server.run(&format!("CONFIG SET maxmemory {:.0}", used * 0.95));
    refused_until_mended(fixture, "OOM");
}

fn a_snapshot_cannot_be_written(fixture: &mut Fixture<'_>) {
    observe(fixture);
    std::fs::remove_dir_all(fixture.server.dir.path()).unwrap();
    fixture.server.run_args(&[b"CONFIG", b"SET", b"save", b"3600 1"]);
    fixture.server.run("BGSAVE");
    within(Duration::from_secs(30), "the snapshot has failed", || {
        let status = fixture.exporter().scrape().value("redis_rdb_last_bgsave_status");
        status.filter(|status| *status == 0.0)
    });
    refused_until_mended(fixture, "MISCONF");
}

fn redis_has_become_a_replica(fixture: &mut Fixture<'_>) {
    observe(fixture);
    // Nobody answers there.
    fixture.server.run("REPLICAOF 127.0.0.1 1");
    refused_until_mended(fixture, "READONLY");
}

fn redis_evicts_keys(fixture: &mut Fixture<'_>) {
    observe(fixture);
    let mut junk = redis::pipe();
    for key in 0..2_000 {
        junk.cmd("SET").arg(key).arg("x".repeat(2_000)).arg("EX").arg(3_600).ignore();
    }
    junk.query::<()>(&mut fixture.server.connection()).unwrap();
    fixture.loses();
    fixture.server.run_all("CONFIG SET maxmemory-policy volatile-lru\nCONFIG SET maxmemory 3mb");
    let page = fixture.arrives("PromptRedisEvicting");
    fixture.type_all(&page);
    fixture.server.run("CONFIG SET maxmemory 0");
    fixture.resolves("PromptRedisEvicting");
}

fn memory_runs_full(fixture: &mut Fixture<'_>) {
    observe(fixture);
    let used = fixture.exporter().scrape().value("redis_memory_used_bytes").unwrap();
    fixture.server.run(&format!("CONFIG SET maxmemory {:.0}", used * 1.15));
    fixture.type_all(&fixture.arrives("PromptRedisMemoryHigh"));
    fixture.server.run("CONFIG SET maxmemory 0");
    fixture.resolves("PromptRedisMemoryHigh");
}

fn the_exporter_is_killed(fixture: &mut Fixture<'_>) {
    observe(fixture);
    fixture.kill_exporter();
    let page = fixture.arrives("PromptRedisExporterDown");
    fixture.type_all(&page);
    fixture.start_exporter();
    fixture.resolves("PromptRedisExporterDown");
}

fn workers_stop(fixture: &mut Fixture<'_>) {
    fixture.begin_night(&["--visits=0", "--stall-at=6", "--stall-for=800"]);
    let page = fixture.arrives("PromptRedisDeliveryStalled");
    // It does not fall while nobody reads.
    let age = fixture.exporter().scrape().group("oldest_undelivered_age_seconds", STREAM, GROUP).unwrap();
    fixture.loses_since(Duration::from_secs_f64(age));
    fixture.type_all(&page);
    fixture.resolves("PromptRedisDeliveryStalled");
}

fn workers_die(fixture: &mut Fixture<'_>) {
    fixture.begin_night(&["--visits=8", "--died=0.1"]);
    let page = fixture.arrives("PromptRedisPendingBuildUp");
    fixture.type_all(&page);
    assert!(fixture.end_night("died") >= 10);
    fixture.resolves("PromptRedisPendingBuildUp");
}

fn workers_are_too_slow(fixture: &mut Fixture<'_>) {
    fixture.begin_night(&["--visits=16", "--detectors=60", "--workers-max=30"]);
    fixture.type_all(&fixture.arrives("PromptRedisDeliveryLate"));
    fixture.type_all(&fixture.arrives("PromptRedisDeliveryTooLate"));
    fixture.resolves("PromptRedisDeliveryTooLate");
    fixture.resolves("PromptRedisDeliveryLate");
}

fn entries_are_trimmed_unread(fixture: &mut Fixture<'_>) {
    fixture.begin_night(&["--visits=8", "--stall-at=4", "--stall-for=60", "--trim-unread=5"]);
    let lost = fixture.end_night("trimmed_unread");
    assert!(lost > 0);
    let warning = fixture.arrives("PromptRedisMessagesLost");
    assert!(warning.description().contains(&format!("lost at least {lost} messages")), "{}", warning.description());
    fixture.type_all(&warning);
    let warning = fixture.arrives("PromptRedisPhantomLag");
    assert!(warning.description().contains(&format!("{lost} higher")), "{}", warning.description());
    assert_eq!(fixture.exporter().scrape().group("lag", STREAM, GROUP), Some(lost as f64));
    assert_eq!(fixture.type_printed(&warning, "EVAL").unwrap().trim(), "OK");
    assert_eq!(fixture.exporter().scrape().group("lag", STREAM, GROUP), Some(0.0));
    fixture.resolves("PromptRedisPhantomLag");
    fixture.resolves("PromptRedisMessagesLost");
}

/// Ten entries of now, and their ids.
fn add_ten(fixture: &Fixture<'_>) -> Vec<String> {
    let add =
        |_| redis::cmd("XADD").arg(STREAM).arg("*").arg("detector").arg(1).query(&mut fixture.server.connection());
    (0..10).map(add).collect::<Result<_, _>>().unwrap()
}

/// A worker reads, and acknowledges at once.
fn read(fixture: &Fixture<'_>, count: usize) {
    fixture.server.run(&format!("XREADGROUP GROUP {GROUP} worker COUNT {count} NOACK STREAMS {STREAM} >"));
}

fn lag(fixture: &Fixture<'_>) -> Option<f64> {
    fixture.exporter().scrape().group("lag", STREAM, GROUP)
}

fn the_lag_is_null_and_nothing_waits(fixture: &mut Fixture<'_>) {
    fixture.server.run(&format!("XGROUP CREATE {STREAM} {GROUP} $ MKSTREAM"));
    let ids = add_ten(fixture);
    read(fixture, 4);
    fixture.server.run(&format!("XDEL {STREAM} {}", ids.last().unwrap()));
    read(fixture, 10);
    assert_eq!(lag(fixture), None);
    let warning = fixture.arrives("PromptRedisLagUnknown");
    assert_eq!(fixture.type_printed(&warning, "EVAL").unwrap().trim(), "counted again");
    assert_eq!(lag(fixture), Some(0.0));
    fixture.resolves("PromptRedisLagUnknown");
}

fn the_lag_is_null_and_keda_starts_nobody(fixture: &mut Fixture<'_>) {
    let ids = add_ten(fixture);
    fixture.server.run(&format!("XGROUP CREATE {STREAM} {GROUP} {}", ids[3]));
    assert_eq!(lag(fixture), None);
    let page = fixture.arrives("PromptRedisDeliveryStalled");
    fixture.type_all(&page);
    let warning = fixture.arrives("PromptRedisLagUnknown");
    assert_eq!(fixture.type_printed(&warning, "EVAL").unwrap().trim(), "counted again");
    assert_eq!(lag(fixture), Some(6.0), "KEDA sees it again");
    read(fixture, 6);
    fixture.resolves("PromptRedisLagUnknown");
    fixture.resolves("PromptRedisDeliveryStalled");
}

#[test]
fn a_prometheus_without_exporter_says_only_that() {
    let stack = Stack::watching(Generation::Two, &[]);
    let received = within(Duration::from_secs(60), "somebody is told", || {
        Some(stack.receiver.received()).filter(|received| !received.is_empty())
    });
    let [page] = received[0].alerts() else { panic!("{received:?}") };
    assert_eq!((&*received[0].receiver, received.len()), ("page", 1));
    assert_eq!(page["labels"]["alertname"], "PromptRedisExporterDown");
    assert_eq!(page["labels"]["severity"], "critical");
    assert!(page["labels"].get("namespace").is_none_or(|namespace| namespace != NAMESPACE));
    let fired = stack.prometheus.query("group by (alertname) (ALERTS)");
    assert_eq!(fired.len(), 1, "{fired:?}");
}
