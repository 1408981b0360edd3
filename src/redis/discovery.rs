//! Finds the streams that patterns name, by `SCAN`.
//!
//! `SCAN` walks all keys of Redis. A look-up takes a bounded share of each collection and goes on where it stopped in
//! the next one. What was found is asked meanwhile, and forgotten when it is gone. So in a small key space a new stream
//! is on the next page, and a large one holds up no page.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use super::{
    collect::Stop,
    commands,
    connection::{Connection, Node},
    progress::Progress,
    replies::{self, Reply},
};
use crate::{
    config::Groups,
    model::{error::Error, snapshot::Name},
};

/// How long a step of `SCAN` should take, its way there and back included; its size is adapted to that.
const STEP: Duration = Duration::from_millis(2);
/// Keys that one step walks.
const KEYS_A_STEP: std::ops::RangeInclusive<u32> = 500..=1_500;
/// Steps that all patterns together get in each collection, however slow they are; each pattern gets one.
const FEWEST_STEPS: u32 = 5;

/// A walk that took Redis a while is not repeated at once: of Redis's time, at most one part in so many goes into the
/// look-ups of all patterns.
const SHARE: u32 = 5;

/// The look-ups of all patterns.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    look_ups: BTreeMap<String, LookUp>,
    keys_a_step: Option<u32>,
}

/// The look-up of one pattern.
#[derive(Debug, Default)]
struct LookUp {
    groups: Groups,
    /// Streams that are known to match.
    known: BTreeSet<Name>,
    /// Streams found since this walk began.
    found: BTreeSet<Name>,
    /// Where each node's walk goes on; nodes that are not in it are walked to their end.
    cursors: BTreeMap<Node, u64>,
    /// The last steps found streams that were not known.
    has_new: bool,
    /// All keys were walked at least once.
    complete: bool,
    /// A node is left out of this walk.
    is_partial: bool,
    /// How long the steps of this walk took.
    walked_for: Duration,
    /// When the next walk may begin.
    rests_until: Option<Instant>,
}

impl Discovery {
    pub(super) fn new(patterns: &BTreeMap<String, Groups>) -> Self {
        let look_up = |groups: &Groups| LookUp { groups: groups.clone(), ..LookUp::default() };
        let look_ups = patterns.iter().map(|(pattern, groups)| (pattern.clone(), look_up(groups)));
        Self { look_ups: look_ups.collect(), keys_a_step: None }
    }

    /// The streams that are known, with the groups that are wanted of them.
    pub(super) fn known(&self) -> impl Iterator<Item = (&Name, &Groups)> {
        self.look_ups.values().flat_map(|look_up| look_up.known.iter().map(|key| (key, &look_up.groups)))
    }

    /// These streams are gone.
    pub(super) fn forget(&mut self, gone: &BTreeSet<Name>) {
        for look_up in self.look_ups.values_mut() {
            look_up.known.retain(|key| !gone.contains(key));
            look_up.found.retain(|key| !gone.contains(key));
        }
    }

    /// How many streams each pattern matches, where all keys were walked at least once.
    pub(super) fn matches(&self) -> BTreeMap<String, u64> {
        let complete = self.look_ups.iter().filter(|(_, look_up)| look_up.complete);
        complete.map(|(pattern, look_up)| (pattern.clone(), look_up.known.len() as u64)).collect()
    }

    /// True where the last call of [`Self::advance`] found streams that were not known.
    pub(super) fn has_new(&self) -> bool {
        self.look_ups.values().any(|look_up| look_up.has_new)
    }

    /// True while some keys were not walked since the walk began.
    pub(super) fn is_walking(&self) -> bool {
        self.look_ups.values().any(|look_up| !look_up.cursors.is_empty())
    }

    /// Walks on until this moment, or to the end of the keys.
    pub(super) async fn advance(
        &mut self,
        connection: &Connection,
        until: Instant,
        progress: &Progress,
    ) -> Result<(), Stop> {
        if self.look_ups.is_empty() {
            return Ok(());
        }
        let nodes = connection.nodes();
        let mut keys = self.keys_a_step.unwrap_or(*KEYS_A_STEP.start() * 2);
        let patterns = u32::try_from(self.look_ups.len()).unwrap_or(u32::MAX);
        let (mut left, fewest) = (patterns, fewest_steps(patterns));
        for (pattern, look_up) in &mut self.look_ups {
            let share = Instant::now() + until.saturating_duration_since(Instant::now()) / left;
            left -= 1;
            look_up.begin(&nodes);
            look_up.has_new = false;
            let mut steps = 0;
            while !look_up.cursors.is_empty() && (steps < fewest || Instant::now() < share) {
                steps += 1;
                let began = Instant::now();
                let failures = look_up.step(connection, pattern, keys).await?;
                progress.lock().failures.extend(failures);
                look_up.walked_for += began.elapsed();
                keys = adapt(keys, began.elapsed());
            }
            look_up.rest(patterns);
        }
        self.keys_a_step = Some(keys);
        Ok(())
    }
}

/// Steps that each of so many patterns gets.
fn fewest_steps(patterns: u32) -> u32 {
    (FEWEST_STEPS / patterns).max(1)
}

/// More keys where a step was quick, fewer where it was slow.
fn adapt(keys: u32, took: Duration) -> u32 {
    let keys = if took < STEP { keys.saturating_mul(2) } else { keys / 2 };
    keys.clamp(*KEYS_A_STEP.start(), *KEYS_A_STEP.end())
}

impl LookUp {
    /// Begins a new walk where the last one came to its end. Nodes that left are forgotten.
    fn begin(&mut self, nodes: &[Node]) {
        let rests = self.rests_until.is_some_and(|until| Instant::now() < until);
        if self.cursors.is_empty() && !rests {
            self.walked_for = Duration::ZERO;
            self.is_partial = false;
            self.found.clear();
            self.cursors = nodes.iter().map(|node| (node.clone(), 0)).collect();
        } else {
            self.cursors.retain(|node, _| nodes.contains(node));
        }
    }

    /// A walk that came to its end is followed by a rest, the longer the more patterns are looked up beside it.
    fn rest(&mut self, patterns: u32) {
        if self.cursors.is_empty() && !self.walked_for.is_zero() {
            let rest = (SHARE * patterns - 1) * std::mem::take(&mut self.walked_for);
            self.rests_until = Some(Instant::now() + rest);
        }
    }

    /// One step on each node, at the same time. A node that refuses, or cannot be reached, is left out of this walk.
    async fn step(&mut self, connection: &Connection, pattern: &str, keys: u32) -> Result<Vec<Error>, Stop> {
        let step = |(node, cursor): (&Node, &u64)| {
            let (node, command) = (node.clone(), commands::scan(*cursor, pattern, keys));
            async move { Ok((connection.send_to(&node, &command).await?, node)) }
        };
        let replies = try_join_all(self.cursors.iter().map(step)).await.map_err(Stop::Lost)?;
        let mut failures = Vec::new();
        for (reply, node) in replies {
            let page = Reply::read(reply.only(), replies::scan_page);
            let page = Stop::note(page, format_args!("SCAN MATCH {pattern}"), &mut failures)?;
            self.is_partial |= page.is_none();
            let (cursor, found) = page.unwrap_or_default();
            for key in found {
                if !self.known.contains(&key) {
                    self.known.insert(key.clone());
                    self.has_new = true;
                }
                self.found.insert(key);
            }
            match cursor {
                0 => self.cursors.remove(&node),
                cursor => self.cursors.insert(node, cursor),
            };
        }
        if self.cursors.is_empty() && !self.is_partial {
            // What this walk did not find is not there any more, or no longer a stream.
            self.known = std::mem::take(&mut self.found);
            self.complete = true;
        }
        Ok(failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_where_they_are_quick_and_shrink_where_they_are_slow() {
        let (most, fewest) = (*KEYS_A_STEP.end(), *KEYS_A_STEP.start());
        assert_eq!(adapt(700, STEP / 2), 1_400);
        assert_eq!(adapt(1_000, STEP * 2), fewest);
        assert_eq!((adapt(most, Duration::ZERO), adapt(fewest, STEP)), (most, fewest));
    }

    #[test]
    fn all_patterns_share_the_steps_and_each_gets_one() {
        assert_eq!([1, 2, 5, 20].map(fewest_steps), [5, 2, 1, 1]);
    }

    #[test]
    fn the_walks_of_all_patterns_take_a_fifth_of_the_time() {
        let walked_for = Duration::from_secs(1);
        for patterns in [1, 2, 20] {
            let mut look_up = LookUp { walked_for, ..LookUp::default() };
            let before = Instant::now();
            look_up.rest(patterns);
            let period = walked_for + look_up.rests_until.unwrap().duration_since(before);
            assert!(period >= 5 * patterns * walked_for, "{patterns}: {period:?}");
            assert!(period < 5 * patterns * walked_for + walked_for, "{patterns}: {period:?}");
        }
    }

    #[test]
    fn a_walk_that_ended_is_followed_by_a_rest_four_times_as_long() {
        let ended = |walked_for| {
            let mut look_up = LookUp { walked_for, ..LookUp::default() };
            look_up.rest(1);
            look_up
        };
        let before = Instant::now();
        let mut long = ended(Duration::from_secs(5));
        assert!(long.rests_until.is_some_and(|until| until >= before + Duration::from_secs(20)));
        long.begin(&[Node::Only]);
        assert!(long.cursors.is_empty(), "it rests");
        let mut short = ended(Duration::from_nanos(1));
        while short.cursors.is_empty() {
            short.begin(&[Node::Only]);
        }
        let mut under_way = LookUp { walked_for: Duration::from_secs(5), ..LookUp::default() };
        under_way.begin(&[Node::Only]);
        under_way.rest(1);
        assert_eq!(under_way.rests_until, None, "only an ended walk rests");
    }
}
