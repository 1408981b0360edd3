//! The whole page for a snapshot that never changes, in both formats, linted by promtool.
//!
//! `UPDATE=1 make test` writes the files anew.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use prompt_redis_exporter::{
    exposition::{
        format::{Format, render},
        page::Page,
    },
    model::{
        backlog::{Backlog, Oldest},
        by_name::ByName,
        error::{Error, Kind},
        snapshot::{
            Clock, Consumer, Group, GroupFacts, OldestPending, Server, Snapshot, Stream, StreamFacts, StreamId,
            StreamState,
        },
    },
    process::Process,
};

use crate::support::lint;

const NOW: u64 = 1_740_691_400_000;

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn server() -> Server {
    Server {
        redis_version: Some("7.0.15".into()),
        mode: Some("standalone".into()),
        role: Some("master".into()),
        uptime_seconds: Some(86_400),
        used_memory_bytes: Some(123_456_789),
        max_memory_bytes: Some(0),
        connected_clients: Some(12),
        blocked_clients: Some(3),
        evicted_keys: Some(0),
        maxmemory_policy: Some("noeviction".into()),
        aof_last_write_ok: Some(true),
        rdb_last_bgsave_ok: Some(false),
        errors: BTreeMap::from([("OOM".into(), 2_752), ("WRONGTYPE".into(), 1)]),
        ..Server::default()
    }
}

/// A night that has everything: a group that is behind, an orphan, a fresh group, a missing one, a failed stream.
fn night() -> Snapshot {
    let behind = Group {
        facts: GroupFacts {
            consumers: 704,
            pending: 2,
            last_delivered: id(NOW - 20_500),
            entries_read: Some(72),
            lag: Some(18),
        },
        backlog: Backlog {
            undelivered: Some(9),
            undelivered_at_least: 9,
            oldest: Oldest::Entry(id(NOW - 20_250)),
            lost: Some(9),
        },
        oldest_pending: Some(OldestPending {
            id: id(NOW - 3_600_000),
            consumer: "4b1e".into(),
            idle_ms: 3_599_250,
            deliveries: 1,
        }),
        consumers_with_pending: Some(1),
        busy_consumers: vec![Consumer { name: "4b1e".into(), pending: 2, idle_ms: Some(3_599_250) }],
    };
    let uncounted = Group {
        facts: GroupFacts { consumers: 60_000, pending: 1, entries_read: None, lag: None, ..behind.facts },
        backlog: Backlog { undelivered: None, undelivered_at_least: 1_000, oldest: Oldest::Unknown, lost: None },
        oldest_pending: None,
        consumers_with_pending: None,
        busy_consumers: vec![],
    };
    let fresh = Group {
        facts: GroupFacts {
            consumers: 0,
            pending: 0,
            last_delivered: StreamId::ZERO,
            entries_read: None,
            lag: Some(0),
        },
        backlog: Backlog { undelivered: Some(0), undelivered_at_least: 0, oldest: Oldest::None, lost: Some(0) },
        oldest_pending: None,
        consumers_with_pending: Some(0),
        busy_consumers: vec![],
    };
    let lsstcam = Stream {
        facts: StreamFacts {
            length: 81,
            group_count: 2,
            last_generated: id(NOW - 20_000),
            entries_added: Some(90),
            first: Some(id(NOW - 7_200_000)),
            last: Some(id(NOW - 20_000)),
        },
        groups: ByName::from([("lsstcam_consumer_group".into(), behind), ("uncounted".into(), uncounted)]),
        missing_groups: vec![],
        failures: vec![],
        complete: true,
    };
    let hsc = Stream {
        facts: StreamFacts {
            length: 0,
            group_count: 1,
            last_generated: StreamId::ZERO,
            entries_added: Some(0),
            first: None,
            last: None,
        },
        groups: ByName::from([("hsc_consumer_group".into(), fresh)]),
        missing_groups: vec!["other_group".into()],
        failures: vec![],
        complete: true,
    };
    let denied = Error::new(Kind::Permission, "no right");
    Snapshot {
        clock: Some(Clock { ms: NOW }),
        server: Some(server()),
        streams: BTreeMap::from([
            ("instrument:lsstcam".into(), StreamState::Found(Box::new(lsstcam))),
            ("instrument:hsc".into(), StreamState::Found(Box::new(hsc))),
            ("instrument:latiss".into(), StreamState::Missing { groups: vec!["latiss_consumer_group".into()] }),
            ("secret".into(), StreamState::Failed { error: denied, exists: None, groups: vec!["g".into()] }),
            ("odd \"na\\me\n".into(), StreamState::Missing { groups: vec![] }),
            ("slow".into(), StreamState::NotCollected),
        ]),
        patterns: BTreeMap::from([("instrument:*".into(), 2), ("typo:*".into(), 0)]),
        scripts_refused: None,
        failures: vec![],
    }
}

fn page(outcome: Result<Snapshot, Error>) -> Page {
    Page {
        outcome: Arc::new(outcome),
        duration: Duration::from_micros(1_234),
        collections: 7,
        abandoned: 2,
        errors: [1, 0, 2, 0, 0, 1, 0, 0],
        process: Process {
            cpu_seconds: Some(1.5),
            start_time_seconds: Some(1_740_600_000.25),
            resident_memory_bytes: Some(6_000_000),
            virtual_memory_bytes: Some(14_000_000),
            open_fds: Some(11),
            max_fds: Some(1024),
            threads: Some(1),
        },
    }
}

fn check(name: &str, page: &Page, format: Format) -> String {
    let text = render(page, format);
    // What was built is none of the golden page's business.
    let build = text.lines().find(|line| line.starts_with("prompt_redis_exporter_build_info{")).unwrap();
    let golden = text.replace(build, "prompt_redis_exporter_build_info{version=\"...\"} 1");
    compare(name, &golden);
    text
}

/// Compares a text with the file of this name in tests/golden.
pub fn compare(name: &str, golden: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, golden).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(golden, expected, "{name} is out of date: UPDATE=1 make test writes it anew");
}

#[test]
fn the_page_of_a_night() {
    assert_eq!(lint(&check("night.txt", &page(Ok(night())), Format::Classic)), "");
    check("night.openmetrics.txt", &page(Ok(night())), Format::OpenMetrics);
}

#[test]
fn the_page_when_redis_is_down() {
    let down = || page(Err(Error::new(Kind::Connect, "refused")));
    assert_eq!(lint(&check("down.txt", &down(), Format::Classic)), "");
    check("down.openmetrics.txt", &down(), Format::OpenMetrics);
}
