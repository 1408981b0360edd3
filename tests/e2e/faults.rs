//! End to end: something breaks on a real Redis, the right people hear of it once, and it ends when it is mended.

use std::time::Duration;

use crate::{
    stack::{NAMESPACE, Stack, within},
    support::Flavor::{Redis6, Redis7, Valkey9},
    ward::{Bed, Fault, GROUP, STREAM, play},
};

/// The group that the procedures make, named: the exporter says when it is missing.
const NAMED: &str = "instrument:lsstcam=lsstcam_consumer_group";
/// The stream alone: whatever groups it has.
const UNNAMED: &str = "instrument:lsstcam";

#[test]
fn redis_goes_or_its_streams_or_its_groups_or_the_exporter() {
    play(&[
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
            play: |bed| the_stream_is_dropped(bed, "PromptRedisGroupMissing"),
        },
        Fault {
            name: "the stream is dropped, and no group was named",
            flavor: Redis7,
            watch: UNNAMED,
            arrive: &["PromptRedisStreamMissing"],
            held_back: &[],
            pages: 1,
            play: |bed| the_stream_is_dropped(bed, "PromptRedisStreamMissing"),
        },
        Fault {
            name: "the group is destroyed while messages come",
            flavor: Redis7,
            watch: NAMED,
            arrive: &["PromptRedisGroupMissing"],
            held_back: &[],
            pages: 1,
            play: the_group_is_destroyed,
        },
        Fault {
            name: "another key takes the name of the stream",
            flavor: Redis7,
            watch: NAMED,
            arrive: &["PromptRedisGroupMissing"],
            held_back: &["PromptRedisCollectionFailing"],
            pages: 1,
            play: another_key_takes_the_name,
        },
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
    ]);
}

#[test]
fn workers_stop_or_die_or_are_too_slow() {
    play(&[
        Fault {
            name: "workers stop",
            flavor: Redis7,
            watch: NAMED,
            arrive: &["PromptRedisDeliveryStalled"],
            held_back: &["PromptRedisDeliveryLate", "PromptRedisDeliveryTooLate", "PromptRedisBacklogBeyondWorkers"],
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
    ]);
}

#[test]
fn counters_lie() {
    play(&[
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
            held_back: &["PromptRedisDeliveryLate", "PromptRedisDeliveryTooLate"],
            pages: 1,
            play: the_lag_is_null_and_keda_starts_nobody,
        },
        healthy(Valkey9),
    ]);
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
        play: |bed| {
            bed.begin_night(&["--visits=0", "--detectors=10"]);
            within(Duration::from_secs(30), "the night is seen", || {
                bed.exporter().scrape().stream("length", STREAM).filter(|length| *length >= 20.0)
            });
        },
    }
}

/// A few visits, all read.
fn observe(bed: &mut Bed<'_>) {
    bed.begin_night(&["--visits=3", "--detectors=20"]);
    assert_eq!(bed.end_night("undelivered"), 0);
}

fn redis_is_killed_and_comes_back(bed: &mut Bed<'_>) {
    observe(bed);
    bed.server.run("SAVE");
    bed.server.kill();
    let page = bed.arrives("PromptRedisDown");
    assert!(bed.type_printed(&page, "PING").unwrap_err().contains("Connection refused"));
    bed.server.spawn();
    bed.server.wait();
    assert_eq!(bed.type_printed(&page, "PING").unwrap().trim(), "PONG");
    bed.resolves("PromptRedisDown");
}

fn redis_is_killed_and_comes_back_empty(bed: &mut Bed<'_>) {
    observe(bed);
    bed.server.kill();
    bed.arrives("PromptRedisDown");
    bed.server.spawn();
    let page = bed.arrives("PromptRedisGroupMissing");
    assert_eq!(bed.type_printed(&page, "XGROUP CREATE").unwrap().trim(), "OK");
    bed.resolves("PromptRedisDown");
    bed.resolves("PromptRedisGroupMissing");
}

fn the_stream_is_dropped(bed: &mut Bed<'_>, name: &str) {
    observe(bed);
    bed.server.run(&format!("DEL {STREAM}"));
    let page = bed.arrives(name);
    assert_eq!(bed.type_printed(&page, "XGROUP CREATE").unwrap().trim(), "OK");
    assert_eq!(bed.exporter().scrape().group("exists", STREAM, GROUP), Some(1.0), "the same group as before");
    bed.resolves(name);
}

fn the_group_is_destroyed(bed: &mut Bed<'_>) {
    observe(bed);
    bed.server.run(&format!("XGROUP DESTROY {STREAM} {GROUP}"));
    let page = bed.arrives("PromptRedisGroupMissing");
    assert!(page.description().contains("holds 60 entries"), "{}", page.description());
    bed.type_printed(&page, "XRANGE").unwrap();
    // The group was destroyed alone: the entries are old, and must not be processed again.
    assert_eq!(bed.type_printed(&page, "'$'").unwrap().trim(), "OK");
    assert_eq!(bed.exporter().scrape().group("messages_undelivered", STREAM, GROUP), Some(0.0));
    bed.resolves("PromptRedisGroupMissing");
}

fn another_key_takes_the_name(bed: &mut Bed<'_>) {
    observe(bed);
    bed.server.run_all(&format!("DEL {STREAM}\nSET {STREAM} 1"));
    let page = bed.arrives("PromptRedisGroupMissing");
    bed.fires("PromptRedisCollectionFailing");
    assert!(bed.type_printed(&page, "XGROUP CREATE").unwrap_err().contains("WRONGTYPE"));
    bed.server.run(&format!("DEL {STREAM}"));
    assert_eq!(bed.type_printed(&page, "XGROUP CREATE").unwrap().trim(), "OK");
    bed.resolves("PromptRedisGroupMissing");
}

fn a_right_is_taken(bed: &mut Bed<'_>) {
    observe(bed);
    bed.server.run("ACL SETUSER default -xinfo|groups");
    let warning = bed.arrives("PromptRedisCollectionFailing");
    assert!(bed.type_printed(&warning, "XINFO GROUPS").unwrap_err().contains("NOPERM"), "it says why");
    bed.server.run("ACL SETUSER default +xinfo|groups");
    bed.resolves("PromptRedisCollectionFailing");
}

fn redis_evicts_keys(bed: &mut Bed<'_>) {
    observe(bed);
    let mut junk = redis::pipe();
    for key in 0..2_000 {
        junk.cmd("SET").arg(key).arg("x".repeat(2_000)).arg("EX").arg(3_600).ignore();
    }
    junk.query::<()>(&mut bed.server.connection()).unwrap();
    bed.server.run_all("CONFIG SET maxmemory-policy volatile-lru\nCONFIG SET maxmemory 3mb");
    let page = bed.arrives("PromptRedisEvicting");
    bed.type_all(&page);
    bed.server.run("CONFIG SET maxmemory 0");
    bed.resolves("PromptRedisEvicting");
}

fn memory_runs_full(bed: &mut Bed<'_>) {
    observe(bed);
    let used = bed.exporter().scrape().value("redis_memory_used_bytes").unwrap();
    bed.server.run(&format!("CONFIG SET maxmemory {:.0}", used * 1.15));
    bed.type_all(&bed.arrives("PromptRedisMemoryHigh"));
    bed.server.run("CONFIG SET maxmemory 0");
    bed.resolves("PromptRedisMemoryHigh");
}

fn the_exporter_is_killed(bed: &mut Bed<'_>) {
    observe(bed);
    bed.kill_exporter();
    let page = bed.arrives("PromptRedisExporterDown");
    bed.type_all(&page);
    bed.start_exporter();
    bed.resolves("PromptRedisExporterDown");
}

fn workers_stop(bed: &mut Bed<'_>) {
    bed.begin_night(&["--visits=0", "--stall-at=6", "--stall-for=800"]);
    let page = bed.arrives("PromptRedisDeliveryStalled");
    bed.type_all(&page);
    bed.resolves("PromptRedisDeliveryStalled");
}

fn workers_die(bed: &mut Bed<'_>) {
    bed.begin_night(&["--visits=8", "--died=0.1"]);
    let page = bed.arrives("PromptRedisPendingBuildUp");
    bed.type_all(&page);
    assert!(bed.end_night("died") >= 10);
    bed.resolves("PromptRedisPendingBuildUp");
}

fn workers_are_too_slow(bed: &mut Bed<'_>) {
    bed.begin_night(&["--visits=16", "--detectors=60", "--workers-max=30"]);
    bed.type_all(&bed.arrives("PromptRedisDeliveryLate"));
    bed.type_all(&bed.arrives("PromptRedisDeliveryTooLate"));
    bed.resolves("PromptRedisDeliveryTooLate");
    bed.resolves("PromptRedisDeliveryLate");
}

fn entries_are_trimmed_unread(bed: &mut Bed<'_>) {
    bed.begin_night(&["--visits=8", "--stall-at=4", "--stall-for=60", "--trim-unread=5"]);
    let lost = bed.end_night("trimmed_unread");
    assert!(lost > 0);
    let warning = bed.arrives("PromptRedisMessagesLost");
    assert!(warning.description().contains(&format!("lost at least {lost} messages")), "{}", warning.description());
    bed.type_all(&warning);
    let warning = bed.arrives("PromptRedisPhantomLag");
    assert!(warning.description().contains(&format!("{lost} higher")), "{}", warning.description());
    assert_eq!(bed.exporter().scrape().group("lag", STREAM, GROUP), Some(lost as f64));
    assert_eq!(bed.type_printed(&warning, "EVAL").unwrap().trim(), "OK");
    assert_eq!(bed.exporter().scrape().group("lag", STREAM, GROUP), Some(0.0));
    bed.resolves("PromptRedisPhantomLag");
    bed.resolves("PromptRedisMessagesLost");
}

/// Ten entries of now, and their ids.
fn add_ten(bed: &Bed<'_>) -> Vec<String> {
    let add = |_| redis::cmd("XADD").arg(STREAM).arg("*").arg("detector").arg(1).query(&mut bed.server.connection());
    (0..10).map(add).collect::<Result<_, _>>().unwrap()
}

/// A worker reads, and acknowledges at once.
fn read(bed: &Bed<'_>, count: usize) {
    bed.server.run(&format!("XREADGROUP GROUP {GROUP} worker COUNT {count} NOACK STREAMS {STREAM} >"));
}

fn lag(bed: &Bed<'_>) -> Option<f64> {
    bed.exporter().scrape().group("lag", STREAM, GROUP)
}

fn the_lag_is_null_and_nothing_waits(bed: &mut Bed<'_>) {
    bed.server.run(&format!("XGROUP CREATE {STREAM} {GROUP} $ MKSTREAM"));
    let ids = add_ten(bed);
    read(bed, 4);
    bed.server.run(&format!("XDEL {STREAM} {}", ids.last().unwrap()));
    read(bed, 10);
    assert_eq!(lag(bed), None);
    let warning = bed.arrives("PromptRedisLagUnknown");
    assert_eq!(bed.type_printed(&warning, "EVAL").unwrap().trim(), "counted again");
    assert_eq!(lag(bed), Some(0.0));
    bed.resolves("PromptRedisLagUnknown");
}

fn the_lag_is_null_and_keda_starts_nobody(bed: &mut Bed<'_>) {
    let ids = add_ten(bed);
    bed.server.run(&format!("XGROUP CREATE {STREAM} {GROUP} {}", ids[3]));
    assert_eq!(lag(bed), None);
    let page = bed.arrives("PromptRedisDeliveryStalled");
    bed.type_all(&page);
    let warning = bed.arrives("PromptRedisLagUnknown");
    assert_eq!(bed.type_printed(&warning, "EVAL").unwrap().trim(), "counted again");
    assert_eq!(lag(bed), Some(6.0), "KEDA sees it again");
    read(bed, 6);
    bed.resolves("PromptRedisLagUnknown");
    bed.resolves("PromptRedisDeliveryStalled");
}

#[test]
fn a_prometheus_without_exporter_says_only_that() {
    let stack = Stack::watching(&[]);
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
