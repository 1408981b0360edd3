//! What waits for a group, since when, and what it lost: arithmetic on a group and its stream.
//!
//! Pure, and knows nothing of where the facts come from. Redis's own `lag` is not trusted: it keeps entries that were
//! trimmed before the group read them (7.0 to 7.4), forgets them (8.0, Valkey), or is null. Where a group stands
//! between the first and the last entry of its stream decides what is known without asking further:
//!
//! ```text
//!            first                    last
//!   entries    o----o----o----o----o----o
//!        ^          ^                   ^
//!   AllWait      Between             NoneWait
//! ```

use crate::model::snapshot::{Group, Stream, StreamId};

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
pub fn position(stream: &Stream, last_delivered: StreamId) -> Position {
    match (stream.first, stream.last) {
        (Some(first), _) if last_delivered < first => Position::AllWait { oldest: first },
        (Some(_), Some(last)) if last_delivered < last => Position::Between,
        _ => Position::NoneWait,
    }
}

/// What waits for delivery to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing.
    None,
    /// At least one entry.
    Some {
        /// How many, exactly; `None` when that is not known.
        entries: Option<u64>,
        /// The oldest of them; `None` when that is not known.
        oldest: Option<StreamId>,
    },
}

impl Waiting {
    /// Entries that wait, where the number is exact.
    #[must_use]
    pub const fn entries(self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Some { entries, .. } => entries,
        }
    }
}

/// What waits for this group, by arithmetic where that is enough, else by what the server counted.
#[must_use]
pub fn waiting(stream: &Stream, group: &Group) -> Waiting {
    match (position(stream, group.last_delivered), group.counted) {
        (Position::NoneWait, _) => Waiting::None,
        (Position::AllWait { oldest }, _) => Waiting::Some { entries: Some(stream.length), oldest: Some(oldest) },
        (Position::Between, None) => Waiting::Some { entries: None, oldest: None },
        // They were deleted between the two questions.
        (Position::Between, Some(counted)) if counted.oldest.is_none() => Waiting::None,
        (Position::Between, Some(counted)) => Waiting::Some { entries: counted.entries, oldest: counted.oldest },
    }
}

/// At least this many entries left the stream before the group read them; `None` when no counter can tell.
///
/// Two witnesses. Redis's lag less what really waits: on 7.0 to 7.4 the difference is what was trimmed unread, for ever.
/// Entries that left the stream less entries the group read: what left and was not read is lost. On 8.0 and Valkey both
/// fall silent once the group reads on. A number that is sometimes less than before looks like a new loss when it comes
/// back, so where the lag could tell, and what waits is not known, there is none.
#[must_use]
pub fn lost(stream: &Stream, group: &Group) -> Option<u64> {
    let added = i128::from(stream.entries_added?);
    let gone = added - i128::from(stream.length);
    let Some(read) = group.entries_read.map(i128::from) else {
        // Redis does not know what the group has read. Where nothing ever left the stream, nothing is lost.
        return (group.lag.is_some() && gone == 0).then_some(0);
    };
    let unread = added - read;
    let phantom = match group.lag {
        // The stream is asked before its groups. What was added in between is in the lag and not in what waits, and is
        // not lost: so the lag counts only as far as the stream's own counter went.
        Some(lag) => Some(i128::from(lag).min(unread) - i128::from(undisturbed_entries(stream, group)?)),
        None => None,
    };
    let gone_unread = gone - read;
    let least = phantom.map_or(gone_unread, |phantom| phantom.max(gone_unread)).max(0);
    Some(u64::try_from(least).unwrap_or(u64::MAX))
}

/// What waits, if it can be held against the lag: an entry that was read and deleted before we came to count would look
/// like one that is lost.
fn undisturbed_entries(stream: &Stream, group: &Group) -> Option<u64> {
    match (position(stream, group.last_delivered), group.counted) {
        (Position::Between, Some(counted)) if !counted.undisturbed => None,
        _ => waiting(stream, group).entries(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::snapshot::Counted;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    /// A stream that was given `added` entries with the ids 1-0, 2-0, ... and still has those from `first` on.
    fn stream(first: u64, added: u64) -> Stream {
        let length = (added + 1).saturating_sub(first);
        Stream {
            length,
            group_count: 1,
            last_generated: id(added),
            entries_added: Some(added),
            first: (length > 0).then(|| id(first)),
            last: (length > 0).then(|| id(added)),
            groups: BTreeMap::new(),
            missing_groups: vec![],
            refused: vec![],
        }
    }

    fn group(last_delivered: u64, entries_read: Option<i64>, lag: Option<i64>) -> Group {
        Group {
            consumers: 1,
            last_delivered: id(last_delivered),
            entries_read,
            lag,
            pending: 0,
            pending_summary: None,
            counted: None,
            busy_consumers: vec![],
        }
    }

    fn counted(group: Group, entries: u64, oldest: u64) -> Group {
        Group {
            counted: Some(Counted { entries: Some(entries), oldest: Some(id(oldest)), undisturbed: true }),
            ..group
        }
    }

    /// Every row of facts/redis-streams.md, for each family of servers: what the counters said, and what is true.
    #[test]
    fn the_truth_is_told_whatever_the_counters_say() {
        struct Row {
            state: &'static str,
            stream: Stream,
            group: Group,
            waits: Option<u64>,
            lost: Option<u64>,
        }
        let row = |state, stream, group, waits, lost| Row { state, stream, group, waits, lost };
        let deleted_unread = Stream { length: 9, ..stream(1, 10) };
        let rows = [
            row("just bootstrapped", stream(1, 0), group(0, None, Some(0)), Some(0), Some(0)),
            row("10 added, none read", stream(1, 10), group(0, None, Some(10)), Some(10), Some(0)),
            row("7.x, trimmed unread", stream(10, 10), group(4, Some(4), Some(6)), Some(1), Some(5)),
            row("8.0, trimmed unread", stream(10, 10), group(4, Some(4), Some(1)), Some(1), Some(5)),
            row("7.x, then the last one read", stream(10, 10), group(10, Some(5), Some(5)), Some(0), Some(5)),
            row(
                "8.0 and Valkey, then the last one read",
                stream(10, 10),
                group(10, Some(10), Some(0)),
                Some(0),
                Some(0),
            ),
            row("one deleted unread", deleted_unread.clone(), counted(group(3, Some(3), None), 6, 4), Some(6), Some(0)),
            row("one deleted, then all read", deleted_unread, group(10, Some(10), Some(0)), Some(0), Some(0)),
            row("created in the middle", stream(1, 10), counted(group(5, None, None), 5, 6), Some(5), None),
            row("set back", stream(1, 10), counted(group(2, None, None), 8, 3), Some(8), None),
            row("the procedures' example", stream(50, 81), group(81, Some(72), Some(9)), Some(0), Some(9)),
            row("6.2, all wait", Stream { entries_added: None, ..stream(1, 10) }, group(0, None, None), Some(10), None),
        ];
        for Row { state, stream, group, waits, lost: expected } in rows {
            assert_eq!(waiting(&stream, &group).entries(), waits, "{state}: waiting");
            assert_eq!(lost(&stream, &group), expected, "{state}: lost");
        }
    }

    #[test]
    fn entries_added_between_the_two_questions_are_not_lost() {
        // The stream said 10 added; two more came before its groups were asked.
        assert_eq!(lost(&stream(1, 10), &group(0, Some(0), Some(12))), Some(0));
        assert_eq!(lost(&stream(1, 10), &group(0, None, Some(12))), Some(0));
        assert_eq!(lost(&stream(10, 10), &group(10, Some(5), Some(7))), Some(5));
    }

    #[test]
    fn without_a_read_counter_nothing_is_said_of_what_left() {
        assert_eq!(lost(&stream(10, 10), &group(0, None, Some(1))), None, "nine left, and nobody knows who read them");
        assert_eq!(lost(&stream(1, 10), &group(0, None, Some(10))), Some(0), "nothing ever left");
    }

    #[test]
    fn a_count_that_was_disturbed_is_not_held_against_the_lag() {
        let disturbed = |undisturbed| Group {
            counted: Some(Counted { entries: Some(2), oldest: Some(id(9)), undisturbed }),
            ..group(5, Some(5), Some(5))
        };
        assert_eq!(lost(&stream(1, 10), &disturbed(true)), Some(3));
        assert_eq!(lost(&stream(1, 10), &disturbed(false)), None);
        assert_eq!(lost(&stream(1, 10), &group(5, Some(5), Some(5))), None, "nor one that was not made");
    }

    #[test]
    fn what_was_not_counted_is_not_known() {
        let waits = waiting(&stream(1, 10), &group(5, Some(5), Some(5)));
        assert_eq!(waits, Waiting::Some { entries: None, oldest: None });
        assert_eq!(lost(&stream(1, 10), &group(5, Some(5), Some(5))), None);
    }

    #[test]
    fn beyond_the_cap_the_oldest_is_known_and_the_number_is_not() {
        let beyond = Group {
            counted: Some(Counted { entries: None, oldest: Some(id(6)), undisturbed: true }),
            ..group(5, None, None)
        };
        let waits = waiting(&stream(1, 10), &beyond);
        assert_eq!(waits, Waiting::Some { entries: None, oldest: Some(id(6)) });
    }

    #[test]
    fn the_oldest_that_waits_is_the_first_entry_when_all_wait() {
        let waits = waiting(&stream(3, 10), &group(1, None, None));
        assert_eq!(waits, Waiting::Some { entries: Some(8), oldest: Some(id(3)) });
    }

    #[test]
    fn nothing_waits_in_an_emptied_stream_or_past_its_last_entry() {
        let emptied = Stream { length: 0, first: None, last: None, ..stream(1, 10) };
        assert_eq!(waiting(&emptied, &group(4, Some(4), Some(6))), Waiting::None);
        assert_eq!(waiting(&stream(1, 10), &group(10, None, None)), Waiting::None);
        assert_eq!(waiting(&stream(1, 10), &group(99, None, None)), Waiting::None);
    }

    #[test]
    fn entries_deleted_between_the_questions_do_not_wait() {
        let gone = Group {
            counted: Some(Counted { entries: Some(0), oldest: None, undisturbed: false }),
            ..group(5, None, None)
        };
        assert_eq!(waiting(&stream(1, 10), &gone), Waiting::None);
    }

    #[test]
    fn a_negative_lag_and_huge_counters_neither_wrap_nor_panic() {
        assert_eq!(lost(&stream(1, 10), &group(10, None, Some(-7))), Some(0));
        assert_eq!(lost(&stream(1, 10), &group(10, Some(i64::MIN), Some(i64::MIN))), Some(1 << 63));
        let huge = Stream { entries_added: Some(u64::MAX), ..stream(1, 10) };
        assert_eq!(lost(&huge, &group(10, Some(i64::MIN), None)), Some(u64::MAX));
        assert_eq!(lost(&stream(1, 10), &group(10, None, Some(i64::MAX))), Some(0));
    }
}
