//! Every query of every board, asked of one Prometheus: it holds two nights that are past, and scrapes two exporters.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    fixture::night_program,
    grafana::{Grafana, Range, panels},
    nights::{self, DAYS, REDIS6, REDIS7, Truth},
    shipped::{ALERTS, CAPACITY, OBSERVING, RULES, STREAMS, path, text},
    stack::{Generation, Process, Prometheus, config, tool, value, within},
    support::{Exporter, Flavor, Server},
};

/// What may have nothing to show: panel, query, why.
type MayBeEmpty = (&'static str, &'static str, &'static str);

const WHEN_NOTHING_IS_WRONG: [MayBeEmpty; 2] =
    [("Alerts that fire", "A", "nothing fires"), ("Live workers", "A", "there is no kube-state-metrics")];
const ON_REDIS_6: [MayBeEmpty; 9] = [
    ("Alerts that fire", "A", "nothing fires"),
    ("Live workers", "A", "there is no kube-state-metrics"),
    ("Lag against the exact backlog", "B", "it has no lag"),
    ("Arrivals against deliveries", "A", "it does not count what is added"),
    ("Arrivals against deliveries", "B", "it does not count what is read"),
    ("Phantom lag and lost messages", "A", "no counter can tell a loss"),
    ("Phantom lag and lost messages", "B", "it has no lag"),
    ("Memory", "B", "no limit is set on this one"),
    ("Memory, share of the limit", "A", "no limit is set on this one"),
];
/// The same for the neutral board.
const STREAMS_WHEN_NOTHING_IS_WRONG: [MayBeEmpty; 2] = [
    ("Alerts that fire", "A", "the neutral alerts are not loaded here"),
    ("Undelivered against lag", "C", "the exact number is known"),
];
const STREAMS_ON_REDIS_6: [MayBeEmpty; 8] = [
    ("Alerts that fire", "A", "the neutral alerts are not loaded here"),
    ("Undelivered against lag", "B", "it has no lag"),
    ("Undelivered against lag", "C", "the exact number is known"),
    ("Arrivals against deliveries", "A", "it does not count what is added"),
    ("Arrivals against deliveries", "B", "it does not count what is read"),
    ("Lost messages", "A", "no counter can tell a loss"),
    ("Memory", "B", "no limit is set on this one"),
    ("Memory, share of the limit", "A", "no limit is set on this one"),
];

fn places(may_be_empty: &[MayBeEmpty]) -> BTreeSet<(&'static str, &'static str)> {
    may_be_empty.iter().map(|(panel, query, _)| (*panel, *query)).collect()
}

/// The night table: which query fills which column.
pub struct NightTable<'a> {
    panel: &'a Value,
    pub columns: BTreeMap<&'a str, &'a Value>,
}

pub fn night_table(board: &Value) -> NightTable<'_> {
    let panel = panels(board).into_iter().find(|panel| panel["type"] == "table").unwrap();
    let transformations = panel["transformations"].as_array().unwrap();
    let names = &transformations.iter().find(|one| one["id"] == "organize").unwrap()["options"]["renameByName"];
    let column = |target: &'_ Value| names[format!("Value #{}", target["refId"].as_str().unwrap())].as_str();
    let targets = panel["targets"].as_array().unwrap().iter();
    NightTable { panel, columns: targets.filter_map(|target| Some((column(target)?, target))).collect() }
}

impl NightTable<'_> {
    /// The number in a cell, if there is one.
    fn cell(&self, grafana: &Grafana<'_>, column: &str, night: &str, instance: &str) -> Option<f64> {
        let rows = grafana.ask(self.panel, self.columns[column]).unwrap();
        let of_night = |row: &&Value| row["metric"]["day_obs"] == night && row["metric"]["instance"] == instance;
        let found: Vec<_> = rows.iter().filter(of_night).map(|row| value(&row["value"])).collect();
        assert!(found.len() <= 1, "{column} of {night} has {found:?}");
        found.first().copied()
    }
}

/// Two exporters that are scraped, and a Prometheus that also knows two past nights.
struct Site {
    prometheus: Prometheus,
    redis6: String,
    redis7: String,
    truths: Vec<Truth>,
    _running: (Process, [Exporter; 2], Server, Server, TempDir),
}

impl Site {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let truths = backfill(dir.path());
        let (redis7, redis6) = (Server::redis7(), Server::start(Flavor::Redis6));
        redis7.run("CONFIG SET maxmemory 1gb");
        let watchers = [&redis7, &redis6]
            .map(|redis| Exporter::start(redis, &["--stream=instrument:lsstcam", "--collector.consumers"]));
        for redis in [&redis7, &redis6] {
            redis.run("XGROUP CREATE instrument:lsstcam lsstcam_consumer_group $ MKSTREAM");
            redis.run("XADD instrument:lsstcam * detector 1");
            redis.run("XREADGROUP GROUP lsstcam_consumer_group dead COUNT 1 STREAMS instrument:lsstcam >");
            // An error to count.
            let refused = redis::cmd("XINFO").arg("STREAM").arg("none").query::<()>(&mut redis.connection());
            assert!(refused.is_err());
        }
        redis6.run("XADD instrument:lsstcam * detector 1");
        let mut command = Command::new(night_program());
        command.arg(format!("--redis.url={}", redis7.url())).args(["--bootstrap", "--speed-up=60", "--visits=0"]);
        let night = Process::start("observing_night", &mut command, dir.path());
        let addresses: Vec<_> = watchers.iter().map(|watcher| watcher.address.as_str()).collect();
        let config = config("1s", &addresses, &[path(ALERTS), path(RULES)]);
        let prometheus =
            Prometheus::start(Generation::Three, dir.path(), &config, &["--storage.tsdb.retention.time=30y"]);
        within(Duration::from_secs(60), "both are scraped, often enough for a rate", || {
            let scraped = prometheus.number("min(count_over_time(redis_up[1m]))")?;
            let delivered = prometheus.number("min(count_over_time(redis_stream_group_entries_read[1m]))")?;
            let exporters = prometheus.number("count(redis_up)")?;
            (scraped >= 2.0 && delivered >= 2.0 && exporters == 2.0).then_some(())
        });
        let [redis7_at, redis6_at] = [0, 1].map(|index| addresses[index].to_owned());
        Self {
            prometheus,
            redis6: redis6_at,
            redis7: redis7_at,
            truths,
            _running: (night, watchers, redis7, redis6, dir),
        }
    }

    fn open(&self, board: &Value, range: Range) -> Grafana<'_> {
        Grafana::open(&self.prometheus, board, range)
    }
}

/// Writes the nights and what the rules make of them into the data of a Prometheus.
fn backfill(dir: &Path) -> Vec<Truth> {
    let (samples, truths) = nights::play();
    let (file, data) = (dir.join("nights.om"), dir.join("data"));
    fs::write(&file, samples).unwrap();
    let [file, data] = [&file, &data].map(|path| path.to_str().unwrap());
    tool(Generation::Three, "promtool", &["tsdb", "create-blocks-from", "openmetrics", "--quiet", file, data]).unwrap();
    let config = config("15s", &[], &[]);
    let prometheus = Prometheus::start(Generation::Three, dir, &config, &["--storage.tsdb.retention.time=30y"]);
    let (url, output) = (format!("--url={}", prometheus.url()), format!("--output-dir={data}"));
    for night in 0..2 {
        let (start, end) = nights::span(night);
        let (start, end) = (format!("--start={start}"), format!("--end={end}"));
        let options = ["--quiet", "--eval-interval=15s", &start, &end, &url, &output, RULES];
        tool(Generation::Three, "promtool", &[&["tsdb", "create-blocks-from", "rules"], &options[..]].concat())
            .unwrap();
    }
    truths
}

fn board(name: &str) -> Value {
    serde_json::from_str(&text(name)).unwrap()
}

/// Every query of a board, by panel and name, with what it answers.
fn ask_all(grafana: &Grafana<'_>, board: &Value) -> BTreeMap<(String, String), Vec<Value>> {
    let mut answers = BTreeMap::new();
    for panel in panels(board) {
        for target in panel["targets"].as_array().unwrap() {
            let place = [&panel["title"], &target["refId"]].map(|name| name.as_str().unwrap().to_owned());
            answers.insert(place.into(), grafana.ask(panel, target).unwrap());
        }
    }
    for annotation in board["annotations"]["list"].as_array().unwrap() {
        grafana.ask_annotation(annotation).unwrap();
    }
    answers
}

fn empty(answers: &BTreeMap<(String, String), Vec<Value>>) -> BTreeSet<(&str, &str)> {
    let empty = answers.iter().filter(|(_, series)| series.is_empty());
    empty.map(|((panel, query), _)| (&**panel, &**query)).collect()
}

fn instances(answers: &BTreeMap<(String, String), Vec<Value>>) -> BTreeSet<String> {
    let series = answers.values().flatten().filter_map(|series| series["metric"]["instance"].as_str());
    series.map(str::to_owned).collect()
}

#[test]
fn every_panel_has_data_and_the_night_table_is_true() {
    let site = Site::new();
    let capacity = board(CAPACITY);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // A range ends at the last full step, of two minutes at most: the next one sees what was scraped just now.
    let tonight = Range::until(now.next_multiple_of(120), 3 * 3_600);
    for (name, may_be_empty, on_redis_6) in [
        (OBSERVING, &WHEN_NOTHING_IS_WRONG[..], &ON_REDIS_6[..]),
        (STREAMS, &STREAMS_WHEN_NOTHING_IS_WRONG, &STREAMS_ON_REDIS_6),
    ] {
        let board = board(name);
        let mut grafana = site.open(&board, tonight);
        let answers = ask_all(&grafana, &board);
        assert_eq!(empty(&answers), places(may_be_empty), "{name}");
        assert_eq!(instances(&answers), BTreeSet::from([site.redis6.clone(), site.redis7.clone()]));
        // One exporter alone: nothing of the other, and what Redis 6 cannot tell is empty or unknown, and no error.
        for (instance, may_be_empty) in [(&site.redis7, may_be_empty), (&site.redis6, on_redis_6)] {
            grafana.variables.insert("instance".into(), instance.clone());
            let answers = ask_all(&grafana, &board);
            assert_eq!(empty(&answers), places(may_be_empty), "{name}: {instance}");
            assert_eq!(instances(&answers), BTreeSet::from([instance.clone()]));
        }
    }
    let grafana = site.open(&capacity, Range::until(nights::span(1).1, 30 * 86_400));
    let answers = ask_all(&grafana, &capacity);
    assert_eq!(empty(&answers), BTreeSet::new());
    assert_eq!(instances(&answers), [REDIS6, REDIS7].map(str::to_owned).into());
    for (night, truth) in DAYS.into_iter().zip(&site.truths) {
        the_night_table_is_true(&grafana, &capacity, night, truth);
    }
}

fn the_night_table_is_true(grafana: &Grafana<'_>, capacity: &Value, night: &str, truth: &Truth) {
    let table = night_table(capacity);
    let cell = |column| table.cell(grafana, column, night, REDIS7).unwrap_or_else(|| panic!("{column} of {night}"));
    // The rules look once a minute: what came in the minute of a reset, before it, is not seen. That is one visit.
    let unseen = truth.resets as f64;
    for (column, put_in, tolerance) in [
        ("Entries", truth.entries as f64, unseen * 172.0),
        ("Visits", truth.visits(), unseen + 0.001),
        ("Peak backlog", truth.peak_backlog as f64, 0.0),
        ("Worst age", truth.worst_age(), 0.0),
        // Of every second scrape.
        ("p95 age", truth.age_p95(), 15.0),
        ("Above 60 s", truth.minutes_over_60(), 0.25),
        // An outage is looked for once a minute.
        ("Behind", truth.minutes_behind(), 1.25),
        ("Redis down", 0.0, 0.0),
        ("Group missing", truth.minutes_group_missing(), 1.0),
        ("Writes refused", truth.minutes_writes_refused(), 1.0),
        ("Blind", 0.0, 0.0),
        ("New workers", truth.workers as f64, unseen * 20.0),
        // What lies across two minutes of the clock comes out lower.
        ("Peak drain", truth.peak_drain(), 1.0),
        ("Not acknowledged", truth.not_acked as f64, 0.0),
        ("Lost", truth.lost as f64, 0.0),
        ("Resets", truth.resets as f64, 0.0),
        ("Workers at most", truth.workers_running as f64, 0.0),
        ("p95 start delay", truth.start_delay_p95(), 0.01),
    ] {
        let shown = cell(column);
        println!("night {night}: {column}: put in {put_in}, shown {shown}");
        assert!((shown - put_in).abs() <= tolerance, "{column} of {night}: {shown} and not {put_in}");
    }
    // The Redis 6 beside it has rows of its own, and no numbers where it does not count.
    for (column, expected) in [
        ("Peak backlog", Some(0.0)),
        ("Entries", None),
        ("Lost", None),
        ("New workers", Some(0.0)),
        ("Workers at most", None),
    ] {
        assert_eq!(table.cell(grafana, column, night, REDIS6), expected, "{column} of {night}");
    }
}
