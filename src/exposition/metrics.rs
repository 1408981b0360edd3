//! Every metric: its name, what it says, when it is absent, and where its value comes from.
//!
//! To add one, add a line to the table of its level below, and run `UPDATE=1 make test` for the golden pages and
//! docs/metrics.md. A value that is `None` prints nothing: what is not known is absent, never 0.
//!
//! A pure function of a [`Page`]: it reads no clock and asks nobody.

use std::time::Duration;

use super::{
    page::Page,
    rows::{
        GroupRow, Metric, Number, Row, Rows, StreamRow, build_row, count, counter, error_rows, flag, gauge,
        instance_row, pattern_rows, server_error_rows,
    },
    text::{Labels, Text},
};
use crate::{
    model::{
        backlog::Oldest,
        snapshot::{Consumer, Server},
    },
    process::Process,
};

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
        list(&instance_metrics(), "redis_version, redis_mode, role, maxmemory_policy; on Valkey valkey_version"),
        list(&server_metrics(), ""),
        list(&server_error_metrics(), "err"),
        list(&stream_metrics(), "stream"),
        list(&group_metrics(), "stream, group"),
        list(&consumer_metrics(), "stream, group, consumer"),
        list(&build_metrics(), "version, revision, rustc"),
        list(&collected_metrics(), "stream"),
        list(&pattern_metrics(), "pattern"),
        list(&self_metrics(), ""),
        list(&error_metrics(), "kind"),
        list(&process_metrics(), ""),
    ]
    .concat()
}

/// Writes every metric of the page.
pub(super) fn write(page: &Page, to: &mut Text) {
    let whole_page = [Row { labels: Labels::default(), facts: page }];
    to.write(&redis_metrics(), &whole_page);
    if let Ok(snapshot) = &*page.outcome {
        let server = snapshot.server.as_slice();
        let plain: Vec<_> = server.iter().map(|server| Row { labels: Labels::default(), facts: server }).collect();
        to.write(&instance_metrics(), &server.iter().map(instance_row).collect::<Vec<_>>());
        to.write(&server_metrics(), &plain);
        to.write(&server_error_metrics(), &server_error_rows(snapshot));
        let rows = Rows::of(snapshot);
        to.write(&stream_metrics(), &rows.streams);
        to.write(&group_metrics(), &rows.groups);
        to.write(&consumer_metrics(), &rows.consumers);
        to.write(&collected_metrics(), &rows.streams);
        to.write(&pattern_metrics(), &pattern_rows(snapshot));
    }
    to.write(&build_metrics(), &[build_row()]);
    to.write(&self_metrics(), &whole_page);
    to.write(&error_metrics(), &error_rows(&page.errors));
    to.write(&process_metrics(), &[Row { labels: Labels::default(), facts: &page.process }]);
}

fn redis_metrics<'a>() -> Vec<Metric<&'a Page>> {
    vec![gauge("redis_up", "1 if Redis answered this collection", "never", |page| Some(flag(page.outcome.is_ok())))]
}

const SERVER_ABSENT: &str = "Redis down, a Cluster, collector off, or no right to INFO";

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
        gauge(
            "redis_aof_last_write_status",
            "1 if the append-only file could be written last time or is off, 0 if not: then writes are refused",
            SERVER_ABSENT,
            |s| s.aof_last_write_ok.map(flag),
        ),
        gauge(
            "redis_rdb_last_bgsave_status",
            "1 if the last snapshot could be saved, 0 if not: then writes may be refused",
            SERVER_ABSENT,
            |s| s.rdb_last_bgsave_ok.map(flag),
        ),
    ]
}

fn server_error_metrics() -> Vec<Metric<u64>> {
    vec![counter(
        "redis_errors_total",
        "Errors that the server answered since it started, by their first word (errorstats)",
        "Redis down, a Cluster, collector off, no right to INFO, or Redis before 6.2",
        |errors| Some(count(*errors)),
    )]
}

const STREAM_ABSENT: &str = "stream missing or not collected";

fn stream_metrics<'a>() -> Vec<Metric<StreamRow<'a>>> {
    vec![
        gauge(
            "redis_stream_exists",
            "1 if the stream is there, 0 if not; for each key that is named or found",
            "Redis down, or no right to look",
            |s| s.exists.map(flag),
        ),
        gauge("redis_stream_length", "Entries in the stream (length)", STREAM_ABSENT, |s| {
            Some(count(s.stream?.facts.length))
        }),
        gauge("redis_stream_groups", "Consumer groups of the stream (groups)", STREAM_ABSENT, |s| {
            Some(count(s.stream?.facts.group_count))
        }),
        counter(
            "redis_stream_entries_added_total",
            "Entries ever added to the stream (entries-added); starts anew when the stream is deleted",
            "stream missing or not collected, or Redis before 7.0",
            |s| s.stream?.facts.entries_added.map(count),
        ),
        gauge(
            "redis_stream_first_entry_timestamp_seconds",
            "When the first entry was added, in seconds since 1970, from its id",
            "stream missing, empty or not collected, or the id is no time",
            |s| s.clock?.timestamp_seconds(s.stream?.facts.first?).map(Number::Float),
        ),
        gauge(
            "redis_stream_last_entry_timestamp_seconds",
            "When the last entry was added, in seconds since 1970, from its id",
            "stream missing, empty or not collected, or the id is no time",
            |s| s.clock?.timestamp_seconds(s.stream?.facts.last?).map(Number::Float),
        ),
    ]
}

const OLDEST_PENDING_ABSENT: &str = "nothing pending, group missing or not collected, or no right to XPENDING";
const GROUP_ABSENT: &str = "group missing or not collected";

fn group_metrics<'a>() -> Vec<Metric<GroupRow<'a>>> {
    vec![
        gauge(
            "redis_stream_group_exists",
            "1 if the group is there, 0 if not; for each group that is named or found",
            "Redis down, or no right to look",
            |g| Some(flag(g.group.is_some())),
        ),
        gauge(
            "redis_stream_group_lag",
            "The lag as Redis reports it (lag), which KEDA scales on; it may count what is gone",
            "group missing or not collected, lag is null, or Redis before 7.0",
            |g| g.group?.facts.lag.map(Number::Int),
        ),
        gauge(
            "redis_stream_group_messages_undelivered",
            "Entries that wait for delivery to the group, exactly",
            "group missing or not collected, or the number is not known exactly",
            |g| g.group?.backlog.undelivered.map(count),
        ),
        gauge(
            "redis_stream_group_messages_undelivered_at_least",
            "Entries that wait for delivery to the group, at least; the exact number where it is known",
            GROUP_ABSENT,
            |g| Some(count(g.group?.backlog.undelivered_at_least)),
        ),
        gauge(
            "redis_stream_group_messages_pending",
            "Entries delivered and not acknowledged (pending)",
            GROUP_ABSENT,
            |g| Some(count(g.group?.facts.pending)),
        ),
        gauge(
            "redis_stream_group_messages_lost",
            "At least this many entries left the stream before the group read them, as far as Redis still shows it",
            "group missing or not collected, or no counter can tell",
            |g| g.group?.backlog.lost.map(count),
        ),
        gauge(
            "redis_stream_group_entries_read",
            "Redis's logical counter of entries the group has read (entries-read)",
            "group missing or not collected, entries-read is null, or Redis before 7.0",
            |g| g.group?.facts.entries_read.map(Number::Int),
        ),
        gauge(
            "redis_stream_group_consumers",
            "Consumers ever created and not removed (consumers); they are not live workers",
            GROUP_ABSENT,
            |g| Some(count(g.group?.facts.consumers)),
        ),
        gauge(
            "redis_stream_group_consumers_with_pending",
            "Consumers that hold something pending",
            "group missing or not collected, more than 50,000 consumers, no right to XPENDING, or not its turn",
            |g| g.group?.consumers_with_pending.map(count),
        ),
        gauge(
            "redis_stream_group_last_delivered_timestamp_seconds",
            "When the last entry delivered to the group was added, in seconds since 1970 (last-delivered-id)",
            "group missing or not collected, nothing was ever delivered (0-0), or the id is no time",
            |g| g.clock?.timestamp_seconds(g.group?.facts.last_delivered).map(Number::Float),
        ),
        gauge(
            "redis_stream_group_oldest_undelivered_age_seconds",
            "How long the oldest entry that waits has been in the stream, by Redis's clock; 0 when none waits",
            "group missing or not collected, no right to look, or the id is no time",
            |g| match g.group?.backlog.oldest {
                Oldest::None => Some(Number::Float(0.0)),
                Oldest::Entry(id) => g.clock?.age_seconds(id).map(Number::Float),
                Oldest::Unknown => None,
            },
        ),
        gauge(
            "redis_stream_group_oldest_pending_age_seconds",
            "How long ago the lowest pending entry was added, by Redis's clock; 0 when none is pending",
            "group missing or not collected, no right to XPENDING, or the id is no time",
            |g| match g.group? {
                group if group.facts.pending == 0 => Some(Number::Float(0.0)),
                group => g.clock?.age_seconds(group.oldest_pending.as_ref()?.id).map(Number::Float),
            },
        ),
        gauge(
            "redis_stream_group_oldest_pending_idle_seconds",
            "Seconds since the lowest pending entry was last delivered",
            OLDEST_PENDING_ABSENT,
            |g| Some(milliseconds(g.group?.oldest_pending.as_ref()?.idle_ms)),
        ),
        gauge(
            "redis_stream_group_oldest_pending_deliveries",
            "How often the lowest pending entry was delivered",
            OLDEST_PENDING_ABSENT,
            |g| Some(count(g.group?.oldest_pending.as_ref()?.deliveries)),
        ),
    ]
}

const CONSUMERS_ABSENT: &str = "unless --collector.consumers; nothing pending; beyond --collector.consumers-max; or \
     consumers_with_pending is absent";

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
            "as before; or the group has more than 1,000 consumers",
            |consumer| consumer.idle_ms.map(milliseconds),
        ),
    ]
}

fn build_metrics() -> Vec<Metric<()>> {
    vec![gauge("prompt_redis_exporter_build_info", "This exporter, in labels; always 1", "never", |()| {
        Some(flag(true))
    })]
}

fn collected_metrics<'a>() -> Vec<Metric<StreamRow<'a>>> {
    vec![gauge(
        "prompt_redis_exporter_stream_collected",
        "1 if this stream was collected completely, 0 if not (wrong type, no right, unknown reply, timeout)",
        "Redis down",
        |s| Some(flag(s.collected)),
    )]
}

fn pattern_metrics() -> Vec<Metric<u64>> {
    vec![gauge(
        "prompt_redis_exporter_pattern_streams",
        "Streams that the pattern matches",
        "Redis down, the first look-up has not come to its end, or the collection ended early",
        |streams| Some(count(*streams)),
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
        counter(
            "prompt_redis_exporter_scrapes_abandoned_total",
            "Requests whose client left before the page was there",
            "never",
            |page| Some(count(page.abandoned)),
        ),
    ]
}

fn error_metrics() -> Vec<Metric<u64>> {
    vec![counter(
        "prompt_redis_exporter_collection_errors_total",
        "Commands that were refused and collections that failed, by kind of error",
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

fn list<T>(metrics: &[Metric<T>], labels: &'static str) -> Vec<Family> {
    let family = |metric: &Metric<T>| Family {
        name: metric.name,
        kind: metric.kind.as_str(),
        labels,
        help: metric.help,
        absent: metric.absent,
    };
    metrics.iter().map(family).collect()
}

fn milliseconds(ms: u64) -> Number {
    Number::Float(Duration::from_millis(ms).as_secs_f64())
}
