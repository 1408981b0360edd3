//! What the log is told: one line when a problem begins, changes or ends, and none for a collection that is like the one
//! before.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::model::{
    error::Error,
    snapshot::{Snapshot, StreamState},
};

/// Lines about problems in a minute, at most. What has changed by then is logged when there is room again.
const LINES_A_MINUTE: usize = 8;

/// What the log was told last.
#[derive(Debug, Default)]
pub(super) struct Health {
    redis: Redis,
    /// Each problem, by what it concerns.
    problems: BTreeMap<String, String>,
    lines: Lines,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Redis {
    #[default]
    Unknown,
    /// Why it cannot be asked.
    Down(String),
    Up,
}

/// When lines were written.
#[derive(Debug, Default)]
struct Lines {
    written: VecDeque<Instant>,
    /// The log says already that there is more than it shows.
    is_full: bool,
}

impl Lines {
    fn has_room(&mut self, now: Instant) -> bool {
        self.written.retain(|written| now.duration_since(*written) < Duration::from_secs(60));
        if self.written.len() < LINES_A_MINUTE {
            self.is_full = false;
            self.written.push_back(now);
            return true;
        }
        if !self.is_full {
            self.is_full = true;
            tracing::warn!(
                "more changes than are logged: prompt_redis_exporter_collection_errors_total counts them, \
                 --log.level=debug shows them"
            );
        }
        false
    }
}

impl Health {
    pub(super) fn record(&mut self, outcome: &Result<Snapshot, Error>, now: Instant) {
        match outcome {
            Err(error) => self.redis_is_down(error, now),
            Ok(snapshot) => {
                if self.redis != Redis::Up && self.lines.has_room(now) {
                    self.redis = Redis::Up;
                    tracing::info!("Redis answers");
                }
                self.compare(problems(snapshot), now);
            }
        }
    }

    fn redis_is_down(&mut self, error: &Error, now: Instant) {
        let down = Redis::Down(error.to_string());
        if self.redis != down && self.lines.has_room(now) {
            self.redis = down;
            tracing::error!(kind = %error.kind(), error = %error, "Redis cannot be asked");
        }
    }

    fn compare(&mut self, problems: BTreeMap<String, String>, now: Instant) {
        let ended: Vec<_> = self.problems.keys().filter(|about| !problems.contains_key(*about)).cloned().collect();
        for about in ended {
            if !self.lines.has_room(now) {
                return;
            }
            tracing::info!(about, "the problem has ended");
            self.problems.remove(&about);
        }
        for (about, problem) in problems {
            if self.problems.get(&about) == Some(&problem) {
                continue;
            }
            if !self.lines.has_room(now) {
                return;
            }
            tracing::warn!(about, problem, "a problem");
            self.problems.insert(about, problem);
        }
    }
}

/// Everything a person should know of, by what it concerns.
fn problems(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let mut problems = BTreeMap::<String, String>::new();
    for (stream, error) in snapshot.failures() {
        let about = stream.map_or_else(|| "collection".to_owned(), |stream| format!("stream {}", stream.shown()));
        let problem = problems.entry(about).or_default();
        if !problem.is_empty() {
            problem.push_str("; ");
        }
        problem.push_str(&error.to_string());
    }
    for (name, state) in &snapshot.streams {
        let stream = name.shown();
        match state {
            StreamState::Missing { .. } => {
                let comma = if stream.contains(',') { "; a comma is part of the key: repeat --stream" } else { "" };
                problems.insert(format!("stream {stream}"), format!("there is no such key{comma}"));
            }
            StreamState::Found(found) => {
                for group in &found.missing_groups {
                    let about = format!("group {} of stream {stream}", group.shown());
                    problems.insert(about, "there is no such group".to_owned());
                }
            }
            StreamState::Failed { .. } | StreamState::NotCollected => {}
        }
    }
    for (pattern, matches) in &snapshot.patterns {
        if *matches == 0 {
            let advice = "no stream matches; is the pattern right, and the database?";
            problems.insert(format!("pattern {pattern}"), advice.to_owned());
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::Kind;

    #[test]
    fn lines_are_limited_and_nothing_is_forgotten() {
        let mut health = Health::default();
        let start = Instant::now();
        for number in 0..100 {
            health.record(&Err(Error::new(Kind::Connect, format!("reason {number}"))), start);
        }
        assert_eq!(health.redis, Redis::Down(format!("reason {}", LINES_A_MINUTE - 1)));
        assert!(health.lines.is_full);
        let later = start + Duration::from_secs(61);
        health.record(&Err(Error::new(Kind::Connect, "reason 99")), later);
        assert_eq!(health.redis, Redis::Down("reason 99".into()), "what was not logged is logged when there is room");
    }

    #[test]
    fn the_same_problem_is_told_once_and_another_reason_again() {
        let mut health = Health::default();
        let now = Instant::now();
        let lines = |health: &Health| health.lines.written.len();
        for (error, expected) in [("refused", 1), ("refused", 1), ("certificate expired", 2)] {
            health.record(&Err(Error::new(Kind::Connect, error)), now);
            assert_eq!(lines(&health), expected, "{error}");
        }
        let missing = StreamState::Missing { groups: vec![] };
        let mut snapshot = Snapshot { streams: BTreeMap::from([("a".into(), missing)]), ..Snapshot::default() };
        snapshot.patterns.insert("b*".into(), 0);
        health.record(&Ok(snapshot.clone()), now);
        health.record(&Ok(snapshot), now);
        assert_eq!(lines(&health), 5, "Redis answers, a stream is missing, a pattern matches nothing");
        health.record(&Ok(Snapshot::default()), now);
        assert_eq!(lines(&health), 7, "both have ended");
    }
}
