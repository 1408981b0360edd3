//! Two synthetic nights, as the exporter would have shown them, and what was put into them.
//!
//! Both cross midnight UTC. A visit of 172 entries comes every minute, and workers take half a minute to read it.
//! In the first night workers stop for ten minutes, three die between read and acknowledge, and writes are refused for five
//! minutes. In the second, the group is missing for four minutes, 50 entries
//! are trimmed unread, the phantom lag of that is corrected, 30 more are trimmed, and the stream is deleted and made anew. Beside it stands an exporter on a Redis 6, with
//! the same stream and group, which has nothing to count with.

use std::{collections::BTreeMap, fmt::Write};

/// Between two samples, in seconds.
const STEP: u64 = 15;
/// 2024-11-10 23:00:00 UTC and a day later.
const BEGINS: [u64; 2] = [1_731_279_600, 1_731_366_000];
/// Steps from the first visit to the last, and quiet ones before and after.
const VISITING: u64 = 480;
const BEFORE: u64 = 20;
const AFTER: u64 = 60;
const DETECTORS: u64 = 172;
/// More than this the exporter does not count.
const COUNTED: u64 = 1_000;

pub const DAYS: [&str; 2] = ["20241110", "20241111"];
pub const REDIS7: &str = "redis7:10036";
pub const REDIS6: &str = "redis6:10036";
const REDIS7_EXPORTER: &str = "job=\"prompt-redis-exporter\",instance=\"redis7:10036\",namespace=\"prod\"";
const REDIS7_STREAM: &str =
    "job=\"prompt-redis-exporter\",instance=\"redis7:10036\",namespace=\"prod\",stream=\"instrument:lsstcam\"";
const REDIS6_STREAM: &str = "job=\"prompt-redis-exporter\",instance=\"redis6:10036\",stream=\"instrument:lsstcam\"";

/// From the first sample of a night to the last, in seconds since 1970.
pub fn span(night: usize) -> (u64, u64) {
    (BEGINS[night] - BEFORE * STEP, BEGINS[night] + (VISITING + AFTER) * STEP)
}

/// What was put into a night.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub entries: u64,
    pub peak_backlog: u64,
    /// While visits came, or something waited.
    ages: Vec<f64>,
    /// At most, at a time.
    pub workers_running: u64,
    start_delays: Vec<f64>,
    pub workers: u64,
    pub not_acked: u64,
    pub lost: u64,
    pub resets: u64,
    /// In steps.
    writes_refused: u64,
    group_missing: u64,
    /// What was delivered in each step.
    delivered: Vec<u64>,
}

impl Truth {
    pub fn visits(&self) -> f64 {
        self.entries as f64 / DETECTORS as f64
    }

    pub fn worst_age(&self) -> f64 {
        self.ages.iter().copied().fold(0.0, f64::max)
    }

    pub fn age_p95(&self) -> f64 {
        p95(&self.ages)
    }

    pub fn start_delay_p95(&self) -> f64 {
        p95(&self.start_delays)
    }

    pub fn minutes_over_60(&self) -> f64 {
        self.ages.iter().filter(|age| **age > 60.0).count() as f64 * STEP as f64 / 60.0
    }

    pub fn minutes_writes_refused(&self) -> f64 {
        (self.writes_refused * STEP) as f64 / 60.0
    }

    pub fn minutes_group_missing(&self) -> f64 {
        (self.group_missing * STEP) as f64 / 60.0
    }

    pub fn minutes_behind(&self) -> f64 {
        self.minutes_over_60() + self.minutes_writes_refused() + self.minutes_group_missing()
    }

    /// Messages a second, in the best minute.
    pub fn peak_drain(&self) -> f64 {
        let minutes = self.delivered.windows(usize::try_from(60 / STEP).unwrap());
        minutes.map(|minute| minute.iter().sum::<u64>()).max().unwrap_or(0) as f64 / 60.0
    }
}

/// As PromQL's quantile: between the two nearest.
fn p95(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    let below = last * 95 / 100;
    let between = (last * 95 % 100) as f64 / 100.0;
    values[below] + (values[(below + 1).min(last)] - values[below]) * between
}

/// A worker's pod, as kube-state-metrics shows it: one is created with each visit, ends two minutes later, and
/// is removed after ten.
struct Pod {
    number: u64,
    created: u64,
    /// Its container runs from then on.
    started: u64,
}

impl Pod {
    const ENDS: u64 = 120;
    const REMOVED: u64 = 600;

    fn show(&self, now: u64, samples: &mut Samples) -> bool {
        let pod = format!("job=\"kube-state-metrics\",namespace=\"prod\",pod=\"prompt-keda-lsstcam-{}\"", self.number);
        let container = format!("{pod},container=\"lsstcam\"");
        let runs = (self.started..self.created + Self::ENDS).contains(&now);
        samples.add("kube_pod_created", &pod, self.created, now);
        samples.add("kube_pod_container_status_running", &container, u64::from(runs), now);
        if runs {
            samples.add("kube_pod_container_state_started", &container, self.started, now);
        }
        runs
    }
}

/// The stream and its group.
#[derive(Default)]
struct State {
    added: u64,
    read: u64,
    /// What waits: how many, since when.
    waiting: Vec<(u64, u64)>,
    consumers: u64,
    pending: u64,
    /// Trimmed unread: stays in the lag.
    phantom: u64,
    last_entry: u64,
    writes_refused: bool,
    group_missing: bool,
    pods: Vec<Pod>,
}

impl State {
    fn undelivered(&self) -> u64 {
        self.waiting.iter().map(|(count, _)| count).sum()
    }

    fn age(&self, now: u64) -> f64 {
        self.waiting.first().map_or(0.0, |(_, since)| (now - since) as f64 + 0.5)
    }

    fn visit(&mut self, now: u64) {
        self.added += DETECTORS;
        self.consumers += 20;
        self.last_entry = now;
        self.waiting.push((DETECTORS, now));
    }

    fn trim_unread(&mut self, count: u64, truth: &mut Truth) {
        self.waiting.first_mut().expect("a visit waits").0 -= count;
        self.phantom += count;
        truth.lost += count;
    }

    /// Workers read what has waited for half a minute, up to so much. Gives how much they read.
    fn deliver(&mut self, now: u64, most: u64) -> u64 {
        let mut left = most;
        for (count, since) in &mut self.waiting {
            let taken = if now - *since >= 2 * STEP { left.min(*count) } else { 0 };
            *count -= taken;
            left -= taken;
        }
        self.waiting.retain(|(count, _)| *count > 0);
        self.read += most - left;
        most - left
    }
}

/// The samples, and the truth about each night.
pub fn play() -> (String, Vec<Truth>) {
    let (mut samples, mut state) =
        (Samples::default(), State { added: 5_000, read: 5_000, consumers: 40, ..State::default() });
    let truths = (0..2).map(|night| play_night(night, &mut state, &mut samples)).collect();
    (samples.text(), truths)
}

fn play_night(night: usize, state: &mut State, samples: &mut Samples) -> Truth {
    let (mut truth, (begin, end)) = (Truth::default(), span(night));
    for now in (begin..=end).step_by(usize::try_from(STEP).unwrap()) {
        let step = (now - begin) / STEP;
        let visiting = (BEFORE..BEFORE + VISITING).contains(&step);
        if visiting && (step - BEFORE).is_multiple_of(4) {
            state.visit(now);
            truth.entries += DETECTORS;
            truth.workers += 20;
            let delay = 5 + truth.entries / DETECTORS % 20;
            truth.start_delays.push(delay as f64);
            state.pods.push(Pod { number: now, created: now, started: now + delay });
        }
        state.pods.retain(|pod| now < pod.created + Pod::REMOVED);
        let run = state.pods.iter().filter(|pod| pod.show(now, samples)).count();
        truth.workers_running = truth.workers_running.max(run as u64);
        let stalled = night == 0 && (200..240).contains(&step);
        truth.delivered.push(if stalled { 0 } else { state.deliver(now, 300) });
        break_something((night, step), state, &mut truth);
        state.writes_refused = night == 0 && (400..420).contains(&step);
        state.group_missing = night == 1 && (300..316).contains(&step);
        truth.writes_refused += u64::from(state.writes_refused);
        truth.group_missing += u64::from(state.group_missing);
        truth.peak_backlog = truth.peak_backlog.max(state.undelivered());
        if state.age(now) > 0.0 || (step >= BEFORE && now - state.last_entry < 600) {
            truth.ages.push(state.age(now));
        }
        show_redis7(state, now, samples);
        show_redis6(now, samples);
    }
    truth
}

fn break_something(when: (usize, u64), state: &mut State, truth: &mut Truth) {
    match when {
        (0, 300) => {
            state.pending += 3;
            truth.not_acked += 3;
        }
        (1, 101) => state.trim_unread(50, truth),
        (1, 150) => {
            // A correction moves entries-read up, which cannot be told from deliveries.
            state.read += state.phantom;
            *truth.delivered.last_mut().expect("a step was played") += state.phantom;
            state.phantom = 0;
        }
        (1, 181) => state.trim_unread(30, truth),
        (1, 202) => {
            let pods = std::mem::take(&mut state.pods);
            *state = State { last_entry: state.last_entry, pods, ..State::default() };
            truth.resets += 1;
        }
        _ => {}
    }
}

fn show_redis7(state: &State, now: u64, samples: &mut Samples) {
    show_exporter(REDIS7_EXPORTER, now, samples);
    samples.add("redis_aof_last_write_status", REDIS7_EXPORTER, u64::from(!state.writes_refused), now);
    let group = format!("{REDIS7_STREAM},group=\"lsstcam_consumer_group\"");
    let mut of_stream =
        |metric: &str, value: u64| samples.add(&format!("redis_stream_{metric}"), REDIS7_STREAM, value, now);
    of_stream("exists", 1);
    of_stream("length", 1_000 + state.added);
    of_stream("entries_added_total", state.added);
    of_stream("last_entry_timestamp_seconds", state.last_entry);
    let undelivered = state.undelivered();
    let counted = undelivered <= COUNTED;
    let mut of_group =
        |metric: &str, value: u64| samples.add(&format!("redis_stream_group_{metric}"), &group, value, now);
    of_group("exists", u64::from(!state.group_missing));
    of_group("lag", undelivered + state.phantom);
    of_group("entries_read", state.read);
    of_group("messages_pending", state.pending);
    of_group("consumers", state.consumers);
    if counted {
        of_group("messages_undelivered", undelivered);
        of_group("messages_lost", state.phantom);
    }
    samples.add("redis_stream_group_oldest_undelivered_age_seconds", &group, state.age(now), now);
}

/// A quiet Redis 6: no lag, and no counters.
fn show_redis6(now: u64, samples: &mut Samples) {
    let exporter = "job=\"prompt-redis-exporter\",instance=\"redis6:10036\"";
    show_exporter(exporter, now, samples);
    samples.add("redis_aof_last_write_status", exporter, 1, now);
    let group = format!("{REDIS6_STREAM},group=\"lsstcam_consumer_group\"");
    samples.add("redis_stream_exists", REDIS6_STREAM, 1, now);
    samples.add("redis_stream_length", REDIS6_STREAM, 7, now);
    for (metric, value) in [
        ("exists", 1),
        ("messages_undelivered", 0),
        ("messages_pending", 0),
        ("consumers", 11),
        ("oldest_undelivered_age_seconds", 0),
    ] {
        samples.add(&format!("redis_stream_group_{metric}"), &group, value, now);
    }
}

fn show_exporter(labels: &str, now: u64, samples: &mut Samples) {
    for (metric, value) in [
        ("up", 1),
        ("prompt_redis_exporter_build_info", 1),
        ("prompt_redis_exporter_collection_duration_seconds", 0),
        ("redis_up", 1),
        ("redis_uptime_in_seconds", now + 86_400 - BEGINS[0]),
        ("redis_memory_used_bytes", 50_000_000),
        ("redis_memory_max_bytes", 100_000_000),
    ] {
        samples.add(metric, labels, value, now);
    }
}

/// Samples of each metric, in the OpenMetrics text format.
#[derive(Default)]
pub struct Samples(BTreeMap<String, String>);

impl Samples {
    pub fn add(&mut self, metric: &str, labels: &str, value: impl std::fmt::Display, time: u64) {
        let lines = self.0.entry(metric.to_owned()).or_default();
        writeln!(lines, "{metric}{{{labels}}} {value} {time}").unwrap();
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (metric, lines) in &self.0 {
            let kind = if metric.ends_with("_total") { "counter" } else { "gauge" };
            write!(text, "# TYPE {} {kind}\n{lines}", metric.trim_end_matches("_total")).unwrap();
        }
        text + "# EOF\n"
    }
}
