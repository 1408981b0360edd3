//! What waits for a group, since when, and what it lost: arithmetic on a group and its stream.
//!
//! Redis's own `lag` cannot be taken as it is: up to 7.4 it keeps entries that were trimmed before the group read them,
//! later servers forget them, and it may be null. Where a group stands in its stream decides what is known without
//! counting:
//!
//! ```text
//!            first                    last
//!   entries    o----o----o----o----o----o
//!        ^          ^                   ^
//!   AllWait      Between             NoneWait
//! ```
//!
//! `XINFO STREAM` and `XINFO GROUPS` are two commands. Other clients' commands may run between them, so what their
//! replies say together is used only where Redis's counters confirm it. Where they do not, a script reads everything
//! about the stream at one moment ([`Reading::OneMoment`]).

use super::snapshot::{GroupFacts, StreamFacts, StreamId};

/// Where a group's last delivered id stands in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// At or past the last entry, or the stream is empty.
    NoneWait,
    /// Before the first entry: all of them wait.
    AllWait {
        /// The stream's first entry, which is the oldest that waits.
        oldest: StreamId,
    },
    /// In between: how many wait has to be counted.
    Between,
}

/// Finds where a group stands.
#[must_use]
pub fn position(stream: &StreamFacts, last_delivered: StreamId) -> Position {
    match (stream.first, stream.last) {
        (Some(first), _) if last_delivered < first => Position::AllWait { oldest: first },
        (Some(_), Some(last)) if last_delivered < last => Position::Between,
        _ => Position::NoneWait,
    }
}

/// For which groups a lag that is not null is exact on this server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagTrust {
    /// For none: Redis before 8.0, Valkey before 8.1, or a server whose version is not known.
    #[default]
    Never,
    /// For those between the first and the last entry: Valkey 8.1 and later.
    Between,
    /// For all: Redis 8.0 and later.
    Always,
}

/// What the server counted above one id of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Entries above this id were counted.
    pub after: StreamId,
    /// At least this many.
    pub entries: u64,
    /// The first of them; `None` where it is not known, or where there is none.
    pub oldest: Option<StreamId>,
    /// That is all of them.
    pub complete: bool,
}

/// How the facts about a group and its stream were read.
#[derive(Clone, Copy, Debug)]
pub enum Reading<'a> {
    /// By one script, at one moment, with a count for each id that had to be counted and could be.
    OneMoment(&'a [Count]),
    /// By two commands.
    TwoCommands {
        /// The first entry above the group's last delivered id, where that was asked.
        oldest: Option<StreamId>,
        /// No script can be run: then the two replies are taken together unless they contradict each other.
        no_scripts: bool,
    },
}

/// The oldest entry that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oldest {
    /// Nothing waits.
    None,
    /// This one.
    Entry(StreamId),
    /// Not known.
    Unknown,
}

/// What waits for a group, and what it lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Entries that wait for delivery; `None` where that is not known exactly.
    pub undelivered: Option<u64>,
    /// At least this many wait: the exact number where it is known.
    pub undelivered_at_least: u64,
    /// The oldest of them.
    pub oldest: Oldest,
    /// At least this many entries left the stream before the group read them; `None` where no counter can tell.
    pub lost: Option<u64>,
}

impl Backlog {
    /// Works it out.
    #[must_use]
    pub fn new(stream: &StreamFacts, group: &GroupFacts, reading: Reading<'_>, trust: LagTrust) -> Self {
        match reading {
            Reading::OneMoment(counts) => Self::of_one_moment(stream, group, counts, trust),
            Reading::TwoCommands { oldest, no_scripts } => {
                Self::of_two_commands(stream, group, oldest, no_scripts, trust)
            }
        }
    }

    fn of_one_moment(stream: &StreamFacts, group: &GroupFacts, counts: &[Count], trust: LagTrust) -> Self {
        let backlog = match position(stream, group.last_delivered) {
            Position::NoneWait => Self::exact(0, Oldest::None),
            Position::AllWait { oldest } => Self::exact(stream.length, Oldest::Entry(oldest)),
            Position::Between => match counts.iter().find(|count| count.after == group.last_delivered) {
                Some(count) if count.complete => Self::exact(count.entries, known(count.oldest)),
                Some(count) => Self::at_least(count.entries.max(1), known(count.oldest), trusted_lag(group, trust)),
                None => Self::at_least(1, Oldest::Unknown, trusted_lag(group, trust)),
            },
        };
        Self { lost: lost(stream, group, backlog.undelivered), ..backlog }
    }

    fn of_two_commands(
        stream: &StreamFacts,
        group: &GroupFacts,
        oldest: Option<StreamId>,
        no_scripts: bool,
        trust: LagTrust,
    ) -> Self {
        let contradict = contradict(stream, group);
        let (waiting, oldest) = match position(stream, group.last_delivered) {
            Position::NoneWait => (Some(0), Oldest::None),
            // Without a read counter equal numbers do not tell a stream from the one that was made anew in its place.
            Position::AllWait { .. } if !no_scripts && never_read(stream, group) => {
                (Some(stream.length), Oldest::Unknown)
            }
            Position::AllWait { oldest } => (Some(stream.length), Oldest::Entry(oldest)),
            Position::Between => (None, known(oldest)),
        };
        let confirmed = waiting
            .filter(|waiting| !contradict && (stream.entries_added.is_none() || no_scripts || lag_is(group, *waiting)));
        let backlog = match (confirmed, waiting) {
            (Some(waiting), _) => Self::exact(waiting, oldest),
            (None, None) if contradict && trust != LagTrust::Always => Self::at_least(0, oldest, None),
            (None, None) => Self::at_least(u64::from(!contradict), oldest, trusted_lag(group, trust)),
            (None, Some(_)) => Self::at_least(0, Oldest::Unknown, None),
        };
        // A loss that two replies suggest is only believed when one script says the same.
        let lost = match lost(stream, group, backlog.undelivered) {
            Some(0) if !contradict => Some(0),
            _ => None,
        };
        Self { lost, ..backlog }
    }

    const fn exact(entries: u64, oldest: Oldest) -> Self {
        let oldest = if entries == 0 { Oldest::None } else { oldest };
        Self { undelivered: Some(entries), undelivered_at_least: entries, oldest, lost: None }
    }

    /// A lower bound, and the exact number where the server's lag is one. A lag below what was counted is wrong: a
    /// person can set the counter it comes from (`XGROUP SETID ... ENTRIESREAD`).
    fn at_least(least: u64, oldest: Oldest, lag: Option<u64>) -> Self {
        let undelivered = lag.filter(|lag| *lag >= least.max(1));
        Self { undelivered, undelivered_at_least: undelivered.unwrap_or(least), oldest, lost: None }
    }
}

/// Whether the two replies leave open what one script, at one moment, can tell: how many wait in the middle of the
/// stream, which of two contradicting replies is the later one, or whether a suspected loss is real.
#[must_use]
pub fn needs_script(stream: &StreamFacts, group: &GroupFacts) -> bool {
    let waiting = match position(stream, group.last_delivered) {
        Position::NoneWait => 0,
        Position::AllWait { .. } => stream.length,
        Position::Between => return true,
    };
    if stream.entries_added.is_none() {
        // Before 7.0 no counter can confirm the two replies.
        return stream.length > 0 || contradict(stream, group);
    }
    !lag_is(group, waiting)
        || waiting > 0 && never_read(stream, group)
        || contradict(stream, group)
        || lost(stream, group, Some(waiting)).is_some_and(|lost| lost > 0)
}

/// Whether no entry has left the stream between two readings of it, so that a count of its older entries may go on. Where
/// Redis does not count what was added (before 7.0), the stream must not have changed at all.
#[must_use]
pub fn nothing_left(before: &StreamFacts, after: &StreamFacts) -> bool {
    let all_kept = match (before.entries_added, after.entries_added) {
        (Some(added_before), Some(added)) => {
            i128::from(added_before) - i128::from(before.length) == i128::from(added) - i128::from(after.length)
                && added_before <= added
                && before.last_generated <= after.last_generated
        }
        _ => before.length == after.length && before.last_generated == after.last_generated,
    };
    all_kept && before.first == after.first
}

/// The exact number of entries that wait between first and last entry, where this server's lag tells it.
#[must_use]
pub fn trusted_lag(group: &GroupFacts, trust: LagTrust) -> Option<u64> {
    match trust {
        LagTrust::Never => None,
        LagTrust::Between | LagTrust::Always => group.lag.and_then(|lag| u64::try_from(lag).ok()),
    }
}

fn known(oldest: Option<StreamId>) -> Oldest {
    oldest.map_or(Oldest::Unknown, Oldest::Entry)
}

fn lag_is(group: &GroupFacts, waiting: u64) -> bool {
    group.lag.is_some_and(|lag| u64::try_from(lag) == Ok(waiting))
}

/// The server counts what groups read, and has no count for this one.
fn never_read(stream: &StreamFacts, group: &GroupFacts) -> bool {
    stream.entries_added.is_some() && group.entries_read.is_none()
}

/// The two replies cannot be of the same moment: the group was given an entry that the stream did not have yet, or what
/// was read and what is to be read are not what was added.
fn contradict(stream: &StreamFacts, group: &GroupFacts) -> bool {
    let counters = match (stream.entries_added, group.entries_read, group.lag) {
        (Some(added), Some(read), Some(lag)) => i128::from(read) + i128::from(lag) != i128::from(added),
        _ => false,
    };
    counters || group.last_delivered > stream.last_generated
}

/// At least this many entries left the stream before the group read them; `None` when no counter can tell. The stream
/// and the group are of one moment.
///
/// Two differences show a loss. Redis's lag less what really waits: on 7.0 to 7.4 that is what was trimmed unread, for
/// ever. Entries that left the stream less entries the group read: what left and was not read is lost. On 8.0 and Valkey
/// both vanish once the group reads on. A number that is sometimes smaller than before looks like a new loss when it
/// returns, so where the lag could tell, and what waits is not known, there is none.
fn lost(stream: &StreamFacts, group: &GroupFacts, undelivered: Option<u64>) -> Option<u64> {
    let added = i128::from(stream.entries_added?);
    let gone = added - i128::from(stream.length);
    let Some(read) = group.entries_read.map(i128::from) else {
        // Redis does not know what the group has read. Where nothing ever left the stream, nothing is lost.
        return (group.lag.is_some() && gone == 0).then_some(0);
    };
    let gone_unread = gone - read;
    let least = match group.lag {
        Some(lag) => {
            let phantom = i128::from(lag).min(added - read) - i128::from(undelivered?);
            phantom.max(gone_unread)
        }
        None => gone_unread,
    };
    Some(u64::try_from(least.max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    /// A stream that was given `added` entries with the ids 1-0, 2-0, ... and still has those from `first` on.
    fn stream(first: u64, added: u64) -> StreamFacts {
        let length = (added + 1).saturating_sub(first);
        StreamFacts {
            length,
            group_count: 1,
            last_generated: id(added),
            entries_added: Some(added),
            first: (length > 0).then(|| id(first)),
            last: (length > 0).then(|| id(added)),
        }
    }

    fn group(last_delivered: u64, entries_read: Option<i64>, lag: Option<i64>) -> GroupFacts {
        GroupFacts { consumers: 1, pending: 0, last_delivered: id(last_delivered), entries_read, lag }
    }

    fn count(after: u64, entries: u64, complete: bool) -> Count {
        Count { after: id(after), entries, oldest: Some(id(after + 1)), complete }
    }

    fn one_moment(stream: &StreamFacts, group: &GroupFacts, counts: &[Count]) -> Backlog {
        Backlog::new(stream, group, Reading::OneMoment(counts), LagTrust::Never)
    }

    fn two_commands(stream: &StreamFacts, group: &GroupFacts) -> Backlog {
        Backlog::new(stream, group, Reading::TwoCommands { oldest: None, no_scripts: false }, LagTrust::Never)
    }

    fn without_scripts(stream: &StreamFacts, group: &GroupFacts) -> Backlog {
        Backlog::new(stream, group, Reading::TwoCommands { oldest: None, no_scripts: true }, LagTrust::Never)
    }

    /// Every row of the measured states, for each family of servers: what the counters said, and what is true.
    #[test]
    fn each_measured_state_gives_the_true_numbers() {
        struct Row {
            state: &'static str,
            stream: StreamFacts,
            group: GroupFacts,
            counts: Vec<Count>,
            waits: u64,
            lost: Option<u64>,
        }
        let row = |state, stream, group, waits, lost| Row { state, stream, group, counts: vec![], waits, lost };
        let deleted_unread = StreamFacts { length: 9, ..stream(1, 10) };
        let mut rows = vec![
            row("just bootstrapped", stream(1, 0), group(0, None, Some(0)), 0, Some(0)),
            row("10 added, none read", stream(1, 10), group(0, None, Some(10)), 10, Some(0)),
            row("7.x, trimmed unread", stream(10, 10), group(4, Some(4), Some(6)), 1, Some(5)),
            row("8.0, trimmed unread", stream(10, 10), group(4, Some(4), Some(1)), 1, Some(5)),
            row("7.x, then the last one read", stream(10, 10), group(10, Some(5), Some(5)), 0, Some(5)),
            row("8.0 and Valkey, then the last one read", stream(10, 10), group(10, Some(10), Some(0)), 0, Some(0)),
            row("one deleted, then all read", deleted_unread, group(10, Some(10), Some(0)), 0, Some(0)),
            row("phantom lag: 81 added, 72 read", stream(50, 81), group(81, Some(72), Some(9)), 0, Some(9)),
            row("6.2, all wait", StreamFacts { entries_added: None, ..stream(1, 10) }, group(0, None, None), 10, None),
        ];
        let counted = |state, stream, group: GroupFacts, waits, lost| {
            let counts = vec![count(group.last_delivered.ms, waits, true)];
            Row { state, stream, group, counts, waits, lost }
        };
        rows.extend([
            counted("one deleted unread", deleted_unread, group(3, Some(3), None), 6, Some(0)),
            counted("created in the middle", stream(1, 10), group(5, None, None), 5, None),
            counted("set back", stream(1, 10), group(2, None, None), 8, None),
        ]);
        for Row { state, stream, group, counts, waits, lost } in rows {
            let backlog = one_moment(&stream, &group, &counts);
            assert_eq!((backlog.undelivered, backlog.undelivered_at_least), (Some(waits), waits), "{state}");
            assert_eq!(backlog.lost, lost, "{state}: lost");
            // Two commands say the same, or less.
            let less = two_commands(&stream, &group);
            assert!(less.undelivered.is_none_or(|said| said == waits), "{state}: {less:?}");
            assert!(less.undelivered_at_least <= waits, "{state}: {less:?}");
            assert!(less.lost.is_none_or(|said| said == 0), "{state}: {less:?}");
            assert!(less.undelivered.is_some() || needs_script(&stream, &group), "{state}: nothing would settle it");
        }
    }

    #[test]
    fn a_healthy_group_needs_no_script() {
        for (state, stream, group) in [
            ("bootstrapped", stream(1, 0), group(0, None, Some(0))),
            ("all wait, and some were read before", stream(5, 10), group(4, Some(4), Some(6))),
            ("all read", stream(1, 10), group(10, Some(10), Some(0))),
            ("read and trimmed", stream(8, 10), group(10, Some(10), Some(0))),
        ] {
            assert!(!needs_script(&stream, &group), "{state}");
            assert_eq!(two_commands(&stream, &group).lost, Some(0), "{state}");
        }
    }

    #[test]
    fn replies_of_different_moments_say_nothing_for_sure() {
        for (state, stream, group) in [
            ("five added and read in between", stream(1, 10), group(15, Some(15), Some(0))),
            ("five added and five read in between", stream(1, 10), group(10, Some(10), Some(5))),
            ("deleted and created in between", stream(420, 489), group(0, None, Some(0))),
            ("deleted, created and filled in between", stream(1, 70), group(0, Some(0), Some(3))),
        ] {
            assert!(needs_script(&stream, &group), "{state}");
            let backlog = two_commands(&stream, &group);
            assert_eq!((backlog.undelivered, backlog.lost), (None, None), "{state}");
        }
    }

    #[test]
    fn a_group_that_never_read_has_no_age_from_two_replies() {
        let (stream, group) = (stream(1, 10), group(0, None, Some(10)));
        assert!(needs_script(&stream, &group));
        let backlog = two_commands(&stream, &group);
        assert_eq!((backlog.undelivered, backlog.oldest), (Some(10), Oldest::Unknown));
        assert_eq!(one_moment(&stream, &group, &[]).oldest, Oldest::Entry(id(1)));
        assert_eq!(without_scripts(&stream, &group).oldest, Oldest::Entry(id(1)));
    }

    #[test]
    fn without_scripts_only_contradictions_are_left_out() {
        let phantom = without_scripts(&stream(50, 81), &group(81, Some(72), Some(9)));
        assert_eq!((phantom.undelivered, phantom.lost), (Some(0), None), "a loss is never told from two replies");
        let torn = without_scripts(&stream(1, 10), &group(10, Some(10), Some(5)));
        assert_eq!((torn.undelivered, torn.undelivered_at_least), (None, 0));
        assert_eq!(without_scripts(&stream(1, 10), &group(5, Some(5), Some(5))).undelivered_at_least, 1);
    }

    #[test]
    fn without_a_read_counter_nothing_is_said_of_what_left() {
        assert_eq!(one_moment(&stream(10, 10), &group(0, None, Some(1)), &[]).lost, None, "nine left");
        assert_eq!(one_moment(&stream(1, 10), &group(0, None, Some(10)), &[]).lost, Some(0), "nothing ever left");
    }

    #[test]
    fn a_count_that_stopped_early_is_a_lower_bound_and_gives_the_age() {
        let backlog = one_moment(&stream(1, 10), &group(5, None, None), &[count(5, 3, false)]);
        assert_eq!((backlog.undelivered, backlog.undelivered_at_least), (None, 3));
        assert_eq!((backlog.oldest, backlog.lost), (Oldest::Entry(id(6)), None));
        let backlog = one_moment(&stream(1, 10), &group(5, Some(5), Some(5)), &[]);
        assert_eq!((backlog.undelivered, backlog.undelivered_at_least, backlog.oldest), (None, 1, Oldest::Unknown));
    }

    #[test]
    fn a_count_goes_on_only_where_nothing_left_the_stream() {
        let before = stream(3, 10);
        let uncounted = |stream: StreamFacts| StreamFacts { entries_added: None, ..stream };
        for (state, after, expected) in [
            ("unchanged", before, true),
            ("two added", stream(3, 12), true),
            ("trimmed", stream(4, 10), false),
            ("one deleted in the middle", StreamFacts { length: 7, ..before }, false),
            ("one added, one deleted", StreamFacts { length: 8, ..stream(3, 11) }, false),
            ("made anew", stream(1, 5), false),
            ("made anew, with as many gone", StreamFacts { length: 3, entries_added: Some(5), ..before }, false),
        ] {
            assert_eq!(nothing_left(&before, &after), expected, "{state}");
        }
        assert!(nothing_left(&uncounted(before), &uncounted(before)), "before 7.0, unchanged");
        assert!(!nothing_left(&uncounted(before), &uncounted(stream(3, 12))), "before 7.0, two added");
    }

    #[test]
    fn a_lag_is_exact_beyond_a_count_where_the_server_is_trusted() {
        let stream = stream(1, 5_000);
        let group = group(5, Some(5), Some(4_995));
        let counts = [count(5, 1_000, false)];
        for (trust, undelivered) in
            [(LagTrust::Never, None), (LagTrust::Between, Some(4_995)), (LagTrust::Always, Some(4_995))]
        {
            let counted = Backlog::new(&stream, &group, Reading::OneMoment(&counts), trust);
            assert_eq!(counted.undelivered, undelivered, "{trust:?}");
            let asked = Reading::TwoCommands { oldest: Some(id(6)), no_scripts: false };
            let uncounted = Backlog::new(&stream, &group, asked, trust);
            assert_eq!((uncounted.undelivered, uncounted.oldest), (undelivered, Oldest::Entry(id(6))), "{trust:?}");
        }
        // Set by hand: fewer than were counted.
        let wrong = GroupFacts { lag: Some(7), ..group };
        let backlog = Backlog::new(&stream, &wrong, Reading::OneMoment(&counts), LagTrust::Always);
        assert_eq!((backlog.undelivered, backlog.undelivered_at_least), (None, 1_000));
        let complete = [count(5, 9, true)];
        let backlog = Backlog::new(&stream, &wrong, Reading::OneMoment(&complete), LagTrust::Always);
        assert_eq!(backlog.undelivered, Some(9), "a count beats the lag");
    }

    #[test]
    fn nothing_waits_in_an_emptied_stream_or_past_its_last_entry() {
        let emptied = StreamFacts { length: 0, first: None, last: None, ..stream(1, 10) };
        for (stream, group) in [
            (emptied, group(4, Some(4), Some(6))),
            (stream(1, 10), group(10, None, None)),
            (stream(1, 10), group(99, None, None)),
        ] {
            let backlog = one_moment(&stream, &group, &[]);
            assert_eq!((backlog.undelivered, backlog.oldest), (Some(0), Oldest::None));
        }
    }

    #[test]
    fn a_negative_lag_and_huge_counters_neither_wrap_nor_panic() {
        let lost = |stream: &StreamFacts, group: &GroupFacts| one_moment(stream, group, &[]).lost;
        assert_eq!(lost(&stream(1, 10), &group(10, None, Some(-7))), Some(0));
        assert_eq!(lost(&stream(1, 10), &group(10, Some(i64::MIN), Some(i64::MIN))), Some(1 << 63));
        let huge = StreamFacts { entries_added: Some(u64::MAX), ..stream(1, 10) };
        assert_eq!(lost(&huge, &group(10, Some(i64::MIN), None)), Some(u64::MAX));
        assert_eq!(lost(&stream(1, 10), &group(10, None, Some(i64::MAX))), Some(0));
        for group in [group(10, Some(i64::MIN), Some(i64::MIN)), group(10, Some(i64::MAX), Some(i64::MAX))] {
            assert!(needs_script(&huge, &group));
            assert_eq!(two_commands(&huge, &group).undelivered, None);
        }
    }
}
