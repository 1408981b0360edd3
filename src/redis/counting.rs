//! How long counting what waits may hold Redis, and where it goes on.
//!
//! One call of the script counts a few hundred entries at most. Where more wait, and the budget of the collection still
//! allows it, another call goes on where the last one stopped.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

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
        snapshot::{Name, StreamId},
    },
};

/// The time that all counting of one collection may take Redis, and, so that a page does not wait long for one that is far
/// away, twice that on the clock. One count is always allowed.
pub(super) struct Budget {
    limit: Duration,
    spent: Duration,
    until: Instant,
}

impl Budget {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, spent: Duration::ZERO, until: Instant::now() + 2 * limit }
    }

    pub(super) fn allows(&self, cost: Duration) -> bool {
        self.spent.is_zero() || self.spent + cost <= self.limit && Instant::now() < self.until
    }

    /// Takes the estimated cost of a call that is sent.
    pub(super) fn take(&mut self, estimated: Duration) {
        self.spent += estimated;
    }

    /// The call cost this, as its reply shows.
    pub(super) fn correct(&mut self, estimated: Duration, real: Duration) {
        self.spent = (self.spent + real).saturating_sub(estimated);
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

    /// Entries that one call counts at most.
    fn a_call(&self) -> u64 {
        commands::counted_bytes(self.groups) as u64 / self.entry.max(1) + 1
    }

    /// A call that counts so many: 100 us, 20 us a group, 1.5 us an entry and 2.5 ns a byte, those of the first and the last
    /// entry among them. Measured on Redis 7.0, the slowest.
    pub(super) fn of(&self, entries: u64) -> Duration {
        Duration::from_nanos(100_000 + 20_000 * self.groups + entries * (1_500 + self.entry * 5 / 2) + 3 * self.entry)
    }

    /// A call that is to count so many.
    pub(super) fn of_call(&self, entries: u64) -> Duration {
        self.of(entries.min(self.a_call()))
    }

    /// As many calls as that takes.
    fn of_calls(&self, entries: u64) -> Duration {
        let calls = u32::try_from(entries / self.a_call()).unwrap_or(u32::MAX);
        self.of(0).saturating_mul(calls) + self.of(entries)
    }
}

/// The most entries that a count may meet: the largest lag, where all groups have one.
pub(super) fn waiting(found: &Found) -> u64 {
    let groups = found.groups.iter().flatten().filter(|(_, facts)| backlog::needs_script(&found.stream, facts));
    let mut lags = groups.map(|(_, facts)| facts.lag.and_then(|lag| u64::try_from(lag).ok()));
    let most = lags.try_fold(0, |most, lag| Some(lag?.max(most)));
    most.unwrap_or(u64::MAX).min(found.stream.length)
}

/// What another call is to count after this one, and its estimated cost; `None` where all is counted, or too much is left.
pub(super) fn go_on(
    counting: &Counting,
    moment: &Moment,
    found: &Found,
    wanted: &Groups,
    cost: &Cost,
    budget: &Budget,
) -> Option<(Counting, Duration)> {
    let Evidence::OneMoment(counts) = &found.evidence else { return None };
    let is_counted = |id: StreamId| counts.iter().any(|count| count.after == id && count.complete);
    let groups = found.groups.iter().flatten().filter(|(name, _)| wanted.wants(name));
    let ids = groups.map(|(_, facts)| facts.last_delivered);
    let ids = ids.filter(|id| backlog::position(&found.stream, *id) == Position::Between && !is_counted(*id));
    let ids: Vec<_> = ids.collect::<BTreeSet<_>>().into_iter().collect();
    let max = u64::from(counting.max);
    let most = if waiting(found) > moment.counted { waiting(found).min(max) } else { max };
    let left = most.saturating_sub(moment.counted);
    if ids.is_empty() || left == 0 || !budget.allows(cost.of_calls(left)) {
        return None;
    }
    let from = GoOn { lowest: moment.lowest?, entries: moment.counted, ids };
    let counting = Counting { largest: moment.largest.max(counting.largest), from: Some(from), ..counting.clone() };
    Some((counting, cost.of_call(left)))
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
    use super::*;

    #[test]
    fn one_count_is_allowed_and_then_as_much_as_the_budget_holds() {
        let ms = Duration::from_millis;
        let mut budget = Budget::new(ms(25));
        assert!(budget.allows(ms(40)), "the first one");
        budget.take(ms(20));
        assert!(budget.allows(ms(5)) && !budget.allows(ms(6)));
        budget.correct(ms(20), ms(2));
        assert!(budget.allows(ms(23)) && !budget.allows(ms(24)), "it took less than estimated");
        let spent = Budget { until: Instant::now(), ..budget };
        assert!(!spent.allows(ms(1)), "twice the budget has passed on the clock");
    }

    #[test]
    fn more_calls_cost_more_than_one() {
        let cost = Cost { groups: 1, entry: 1_500 };
        assert!((189..300).contains(&cost.a_call()), "the entries of one visit, and not of two: {}", cost.a_call());
        assert_eq!(cost.of_call(10_000), cost.of(cost.a_call()));
        assert_eq!(cost.of_calls(1_000), cost.of(1_000) + 3 * cost.of(0));
        assert!(cost.of_call(1_000) < Duration::from_millis(2), "{:?}", cost.of_call(1_000));
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
