//! How long counting what waits may hold Redis, and where it goes on.
//!
//! One call of the script does a bounded amount of work: it counts some two hundred entries of 1.5 kB. Where more entries
//! wait, and the budget of the collection still allows it, another call goes on where the last one stopped.

use std::time::{Duration, Instant};

use super::{
    commands::{self, Counting, GoOn},
    progress::{Evidence, Found},
    replies::Moment,
    streams::Sizes,
};
use crate::{
    config::Groups,
    model::{
        backlog::{self, Count, Position},
        snapshot::{GroupFacts, Name},
    },
};

/// Work of the script, as moment.lua counts it, for an entry beside its bytes: 600, and its share of a call of XREVRANGE.
const WORK_OF_ENTRY: u64 = 850;

/// The time that all counting of one collection may take Redis, and, so that a page does not wait long for one that is far
/// away, twice that on the clock after the first reply. One count is always allowed.
pub(super) struct Budget {
    limit: Duration,
    spent: Duration,
    /// Since the first reply.
    until: Option<Instant>,
}

impl Budget {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, spent: Duration::ZERO, until: None }
    }

    pub(super) fn allows(&self, cost: Duration) -> bool {
        let is_first = self.spent.is_zero() && self.until.is_none();
        is_first
            || self.spent.saturating_add(cost) <= self.limit && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// Takes the estimated cost of a call that is sent.
    pub(super) fn take(&mut self, estimated: Duration) {
        self.spent = self.spent.saturating_add(estimated);
    }

    /// The call cost this, as its reply shows.
    pub(super) fn correct(&mut self, estimated: Duration, real: Duration) {
        self.until.get_or_insert_with(|| Instant::now() + 2 * self.limit);
        self.spent = self.spent.saturating_sub(estimated).saturating_add(real);
    }
}

/// What counting in one stream costs Redis.
pub(super) struct Cost {
    groups: u64,
    /// Bytes of an entry, about.
    entry: u64,
}

impl Cost {
    pub(super) fn new(key: &Name, found: &Found, sizes: &Sizes) -> Self {
        Self { groups: found.stream.group_count, entry: sizes.entry(key) as u64 }
    }

    /// A call that does this work: 100 us, 20 us a group, 3 ns a byte of the first and the last entry, and 2.5 ns for the
    /// work of a byte. Measured on Redis 7.0, the slowest.
    pub(super) fn of_work(&self, work: u64) -> Duration {
        let nanos = (100_000 + 20_000 * self.groups + 3 * self.entry).saturating_add(work.saturating_mul(5) / 2);
        Duration::from_nanos(nanos)
    }

    /// A call that is to count so many entries.
    pub(super) fn of_call(&self, entries: u64) -> Duration {
        self.of_work(self.work(entries.min(self.a_call())))
    }

    /// As many calls as so many entries take.
    fn of_calls(&self, entries: u64) -> Duration {
        let more = u32::try_from(entries / self.a_call()).unwrap_or(u32::MAX);
        self.of_work(0).saturating_mul(more) + self.of_work(self.work(entries))
    }

    fn work(&self, entries: u64) -> u64 {
        entries.saturating_mul(self.entry + WORK_OF_ENTRY)
    }

    /// Entries that one call counts, about.
    fn a_call(&self) -> u64 {
        commands::work_of_call(self.groups) / self.work(1) + 1
    }
}

/// The most entries that a count may meet: the largest lag, where all groups have one.
pub(super) fn waiting(found: &Found, wanted: &Groups) -> u64 {
    let groups = found.groups.iter().flatten().filter(|(name, facts)| wanted.wants(name) && is_between(found, facts));
    let most = groups.map(|(_, facts)| lag(facts)).try_fold(0, |most, lag| Some(lag?.max(most)));
    most.unwrap_or(u64::MAX).min(found.stream.length)
}

fn is_between(found: &Found, facts: &GroupFacts) -> bool {
    backlog::position(&found.stream, facts.last_delivered) == Position::Between
}

fn lag(facts: &GroupFacts) -> Option<u64> {
    facts.lag.and_then(|lag| u64::try_from(lag).ok())
}

/// What another call is to count after this one, and its estimated cost; `None` where all is counted, or where the budget does
/// not reach the nearest group that is left.
pub(super) fn go_on(
    counting: &Counting,
    moment: &Moment,
    found: &Found,
    wanted: &Groups,
    cost: &Cost,
    budget: &Budget,
) -> Option<(Counting, Duration)> {
    let Evidence::OneMoment(counts) = &found.evidence else { return None };
    let is_counted = |facts: &GroupFacts| counts.iter().any(|at| at.after == facts.last_delivered && at.complete);
    let groups = found.groups.iter().flatten().filter(|(name, _)| wanted.wants(name)).map(|(_, facts)| facts);
    let left: Vec<_> = groups.filter(|facts| is_between(found, facts) && !is_counted(facts)).collect();
    let most = u64::from(counting.max).checked_sub(moment.counted).filter(|most| *most > 0)?;
    // A lag that is unknown, or wrong, may be reached by the next call.
    let distance = |facts: &&GroupFacts| lag(facts)?.checked_sub(moment.counted).filter(|distance| *distance > 0);
    let nearest = left.iter().map(|facts| distance(facts).unwrap_or_else(|| cost.a_call())).min()?;
    if !budget.allows(cost.of_calls(nearest.min(most))) {
        return None;
    }
    let mut ids: Vec<_> = left.iter().map(|facts| facts.last_delivered).collect();
    ids.sort_unstable();
    ids.dedup();
    let from = GoOn { lowest: moment.lowest?, entries: moment.counted, ids };
    let counting = Counting { largest: moment.largest.max(counting.largest), from: Some(from), ..counting.clone() };
    Some((counting, cost.of_call(most)))
}

/// Adds what another call counted to what was counted before.
pub(super) fn add(counts: &mut Vec<Count>, more: Vec<Count>) {
    for count in more {
        match counts.iter_mut().find(|before| before.after == count.after) {
            Some(before) => *before = Count { oldest: count.oldest.or(before.oldest), ..count },
            None => counts.push(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::model::snapshot::StreamId;

    #[test]
    fn one_count_is_allowed_and_then_as_much_as_the_budget_holds() {
        let ms = Duration::from_millis;
        let mut budget = Budget::new(ms(25));
        assert!(budget.allows(ms(40)), "the first one");
        budget.take(ms(20));
        assert!(budget.allows(ms(5)) && !budget.allows(ms(6)));
        budget.correct(ms(20), ms(2));
        assert!(budget.allows(ms(23)) && !budget.allows(ms(24)), "it took less than estimated");
        budget.correct(Duration::ZERO, Duration::MAX);
        assert!(!budget.allows(Duration::ZERO), "it took longer than anything");
    }

    #[test]
    fn the_clock_of_the_budget_begins_with_the_first_reply() {
        let ms = Duration::from_millis;
        let mut budget = Budget::new(ms(1));
        budget.take(ms(1) / 2);
        thread::sleep(ms(3));
        assert!(budget.allows(ms(1) / 2), "whatever was asked before");
        budget.correct(ms(1) / 2, Duration::ZERO);
        assert!(budget.allows(ms(1) / 2));
        thread::sleep(ms(3));
        assert!(!budget.allows(Duration::ZERO), "twice the budget has passed since");
    }

    #[test]
    fn a_call_counts_a_visit_and_takes_two_milliseconds_whatever_the_entries() {
        let cost = Cost { groups: 1, entry: 1_500 };
        assert!((189..300).contains(&cost.a_call()), "the entries of one visit, and not of two: {}", cost.a_call());
        assert_eq!(cost.of_call(10_000), cost.of_call(cost.a_call()));
        assert!(cost.of_calls(1_000) > 4 * cost.of_call(200), "{:?}", cost.of_calls(1_000));
        for entry in [0, 100, 10_000, 100_000] {
            let call = Cost { groups: 1, entry }.of_call(u64::MAX);
            assert!(call < Duration::from_millis(2), "{entry}: {call:?}");
        }
        let of_many_groups = Cost { groups: commands::GROUPS_IN_SCRIPT, entry: 1_500 };
        assert!(of_many_groups.of_call(1_000) < Duration::from_micros(3_500), "groups take their share of a call");
    }

    #[test]
    fn a_later_count_replaces_an_earlier_one_and_keeps_its_oldest_entry() {
        let id = |ms| StreamId { ms, seq: 0 };
        let count = |after, entries, oldest, complete| Count { after: id(after), entries, oldest, complete };
        let mut counts = vec![count(5, 3, Some(id(6)), true), count(2, 4, Some(id(3)), false)];
        add(&mut counts, vec![count(2, 8, None, false), count(1, 9, Some(id(2)), true)]);
        assert_eq!(
            counts,
            [count(5, 3, Some(id(6)), true), count(2, 8, Some(id(3)), false), count(1, 9, Some(id(2)), true)]
        );
    }
}
