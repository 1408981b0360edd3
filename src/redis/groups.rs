//! The second commands of a collection, only where there is something to ask: what is pending, and what waits in the
//! middle of a stream.
//!
//! Everything here has a cost that is estimated before it is sent. What is under way together takes Redis a few
//! milliseconds at most, and what all counting of one collection may take is bounded too ([`super::counting`]). Streams take
//! turns: where the budget ends before all are counted, the next collection begins with those that were left out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesOrdered};

use super::{
    collect::Stop,
    commands::{self, Command, Counting},
    connection::Connection,
    counting::{self, Budget, Cost},
    errors,
    progress::{Evidence, Found, Known, Progress, State},
    replies::{self, Moment, Reply},
    resp::{Item, Replies},
    streams::{COMMANDS_BEFORE_FIRST_REPLY, Sizes},
};
use crate::{
    config::{self, Collect},
    model::{
        backlog::{self, LagTrust, Position},
        error::{Error, Kind},
        snapshot::{Consumer, GroupFacts, Name, StreamFacts, StreamId},
    },
};

/// What may be under way together, by its estimated time in Redis.
const UNDER_WAY: Duration = Duration::from_micros(2_500);
/// What all walks over consumers of one collection may take.
const CONSUMERS_BUDGET: Duration = Duration::from_millis(25);
/// A group with more consumers is not asked for the summary of what is pending, which walks them all: 2.5 ms.
const CONSUMERS_SUMMED: u64 = 50_000;
/// A group with more consumers is not asked for their idle times, which costs far more for each.
const CONSUMERS_LISTED: u64 = 1_000;
/// Bytes of entries that are moved in one collection to learn ages where no script can.
const LOOKED_UP_BYTES: usize = 512 << 10;
/// Entries counted where the lag is exact and more than may be counted.
const SHORT_COUNT: u32 = 50;
/// Groups of one stream whose oldest entry is looked up without a script in one collection.
const LOOKED_UP: usize = 64;

/// What does not fit into one collection is taken up by the next ones.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The last stream that was counted.
    counted: Option<Name>,
    /// The last stream whose oldest entries were looked up without a script.
    looked_up: Option<Name>,
    /// The last stream and group whose consumers were walked.
    walked: Option<(Name, Name)>,
    /// Counts collections.
    number: u32,
}

/// May scripts be run, as far as is known?
#[derive(Debug, Default)]
pub(super) struct Scripts {
    /// When, and with which error.
    refused: Option<(Instant, Error)>,
}

impl Scripts {
    /// A refusal is remembered so long: the right may be given meanwhile.
    const REMEMBERED: Duration = Duration::from_secs(300);

    fn allowed(&self) -> bool {
        self.refusal().is_none()
    }

    /// The refusal that is remembered.
    pub(super) fn refusal(&self) -> Option<&Error> {
        self.refused.as_ref().filter(|(when, _)| when.elapsed() <= Self::REMEMBERED).map(|(_, error)| error)
    }
}

/// Commands about one stream that travel together, and what to do with their replies.
struct Step {
    key: Name,
    ask: Ask,
    /// Estimated time in Redis.
    cost: Duration,
}

/// What a step asks.
enum Ask {
    /// The lowest pending entry of each of these groups.
    OldestPending(Vec<Name>),
    /// The first entry above each of these ids, and the groups again: one that has moved meanwhile waits for another.
    FirstAbove(Vec<StreamId>),
    /// Everything about the stream, at one moment; or the rest of a count.
    Moment(Counting),
    /// Who holds what is pending in this group, and since when they are idle.
    Consumers { group: Name, idle: bool },
}

/// What a collection asks about groups, and what it keeps for the next one.
pub(super) struct Groups<'a> {
    pub(super) options: &'a Collect,
    pub(super) sizes: &'a mut Sizes,
    pub(super) turns: &'a mut Turns,
    pub(super) scripts: &'a mut Scripts,
    /// Bytes of entries that may still be looked up without a script; `None` where none was yet.
    pub(super) look_up_left: Option<usize>,
}

impl Groups<'_> {
    /// Asks, as long as the collection is wanted.
    pub(super) async fn collect(
        &mut self,
        connection: &Connection,
        progress: &Progress,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Stop> {
        self.turns.number = self.turns.number.wrapping_add(1);
        let mut steps = self.plan(&progress.lock());
        expect(&steps, &mut progress.lock());
        let mut budget = Budget::new(self.options.undelivered_budget);
        let mut under_way = FuturesOrdered::new();
        let (mut cost, mut bytes) = (Duration::ZERO, 0);
        loop {
            while let Some(step) = steps.front().filter(|step| {
                let fits = cost + step.cost <= UNDER_WAY && bytes + step.bytes() <= COMMANDS_BEFORE_FIRST_REPLY;
                is_wanted() && (fits || under_way.is_empty())
            }) {
                if step.counts() && !budget.allows(step.cost) {
                    leave_out_counts(&mut steps, &mut progress.lock());
                    continue;
                }
                cost += step.cost;
                bytes += step.bytes();
                let Some(step) = steps.pop_front() else { break };
                self.begins(&step, &mut budget);
                under_way.push_back(async move { (connection.send(&step.commands()).await, step) });
            }
            let Some((replies, step)) = under_way.next().await else { return Ok(()) };
            cost -= step.cost;
            bytes -= step.bytes();
            let replies = replies.map_err(Stop::Lost)?;
            let mut known = progress.lock();
            let again = self.read(&step, &replies, &mut known, &mut budget)?;
            if let Some(found) = known.found(&step.key).filter(|_| again.is_none()) {
                found.open = found.open.saturating_sub(1);
            }
            // Each stream is counted once before one goes on.
            steps.extend(again);
        }
    }

    fn begins(&mut self, step: &Step, budget: &mut Budget) {
        if let Ask::Moment(counting) = &step.ask {
            budget.take(step.cost);
            if counting.from.is_none() {
                self.turns.counted = Some(step.key.clone());
            }
        }
    }

    /// What is to be asked: cheap things first, then counts in turn, then consumers in turn.
    fn plan(&mut self, known: &Known) -> VecDeque<Step> {
        let found = || {
            known.streams.iter().filter_map(|(key, stream)| match &stream.state {
                State::Found(found) => Some((key, stream, &**found)),
                _ => None,
            })
        };
        let mut steps = VecDeque::new();
        let (mut counts, mut look_ups, mut walks) = (Vec::new(), Vec::new(), Vec::new());
        for (key, stream, found) in found() {
            let groups = found.groups.iter().flatten().filter(|(name, _)| stream.wanted.wants(name));
            let groups: Vec<_> = groups.map(|(name, facts)| (name, *facts)).collect();
            steps.extend(oldest_pending(key, &groups));
            walks.extend(self.consumers(key, &groups));
            match self.backlog(key, found, &stream.wanted, &groups, known.trust) {
                Some(BacklogStep::Count(step)) => counts.push(step),
                Some(BacklogStep::LookUp(step)) => look_ups.push(step),
                None => {}
            }
        }
        rotate(&mut look_ups, |step| self.turns.looked_up.as_ref() < Some(&step.key));
        for step in look_ups {
            // The next collection begins with the first that does not fit, however small the others are.
            if !self.may_look_up(&step) {
                break;
            }
            self.turns.looked_up = Some(step.key.clone());
            steps.push_back(step);
        }
        rotate(&mut counts, |step| self.turns.counted.as_ref() < Some(&step.key));
        let group = |step: &Step| match &step.ask {
            Ask::Consumers { group, .. } => Some((step.key.clone(), group.clone())),
            _ => None,
        };
        let walks = in_turn(walks, CONSUMERS_BUDGET, |step| self.turns.walked < group(step));
        if let Some(step) = walks.last() {
            self.turns.walked = group(step);
        }
        steps.extend(counts);
        steps.extend(walks);
        steps
    }

    /// The walks over the consumers of groups that have something pending.
    fn consumers(&self, key: &Name, groups: &[(&Name, GroupFacts)]) -> Vec<Step> {
        let pending = groups.iter().filter(|(_, facts)| facts.pending > 0 && facts.consumers <= CONSUMERS_SUMMED);
        let step = |(name, facts): &(&Name, GroupFacts)| {
            let idle = self.options.consumers_max.is_some() && facts.consumers <= CONSUMERS_LISTED;
            let nanos = 3_000 + facts.consumers * if idle { 1_050 } else { 50 };
            let ask = Ask::Consumers { group: (*name).clone(), idle };
            Step { key: key.clone(), ask, cost: Duration::from_nanos(nanos) }
        };
        pending.map(step).collect()
    }

    /// Takes what a step looks up from what may be; the first one always may.
    fn may_look_up(&mut self, step: &Step) -> bool {
        let Ask::FirstAbove(ids) = &step.ask else { return true };
        let bytes = self.sizes.entry(&step.key) * ids.len();
        let left = match self.look_up_left {
            None => LOOKED_UP_BYTES.saturating_sub(bytes),
            Some(left) if bytes <= left => left - bytes,
            Some(_) => return false,
        };
        self.look_up_left = Some(left);
        true
    }

    /// What is to be asked where that is not known yet.
    fn backlog(
        &self,
        key: &Name,
        found: &Found,
        wanted: &config::Groups,
        groups: &[(&Name, GroupFacts)],
        trust: LagTrust,
    ) -> Option<BacklogStep> {
        if matches!(found.evidence, Evidence::OneMoment(_)) {
            return None;
        }
        let max = self.options.undelivered_max;
        let in_script = max > 0 && self.scripts.allowed() && found.stream.group_count <= commands::GROUPS_IN_SCRIPT;
        let mut unsettled = groups.iter().filter(|(_, facts)| backlog::needs_script(&found.stream, facts)).peekable();
        if in_script && unsettled.peek().is_some() {
            // A full count would only find that there are more than it may count. A short one still shows a lag that was
            // set by hand far too high.
            let beyond = |facts: &GroupFacts| backlog::trusted_lag(facts, trust).is_some_and(|lag| lag > max.into());
            let max = if unsettled.all(|(_, facts)| beyond(facts)) { max.min(SHORT_COUNT) } else { max };
            return Some(BacklogStep::Count(self.moment(key, found, wanted, max)));
        }
        self.look_up(key, found, wanted).map(BacklogStep::LookUp)
    }

    fn moment(&self, key: &Name, found: &Found, wanted: &config::Groups, max: u32) -> Step {
        let named = wanted.named.iter().filter(|_| !wanted.every);
        let counting = Counting {
            max,
            groups: found.stream.group_count,
            turn: self.turns.number,
            largest: self.sizes.largest(key),
            wanted: named.cloned().collect(),
            from: None,
            without_eval_ro: found.stream.entries_added.is_none(),
        };
        let cost = Cost::new(key, found, self.sizes).of_call(counting::waiting(found, wanted).min(max.into()));
        Step { key: key.clone(), ask: Ask::Moment(counting), cost }
    }

    /// The oldest entries of the groups in the middle of the stream, some groups at a time.
    fn look_up(&self, key: &Name, found: &Found, wanted: &config::Groups) -> Option<Step> {
        let groups = found.groups.iter().flatten().filter(|(name, _)| wanted.wants(name));
        let ids = groups.map(|(_, facts)| facts.last_delivered);
        let ids: BTreeSet<_> = ids.filter(|id| backlog::position(&found.stream, *id) == Position::Between).collect();
        if ids.is_empty() {
            return None;
        }
        let start = (self.turns.number as usize).wrapping_mul(LOOKED_UP) % ids.len();
        let entry = self.sizes.entry(key);
        let most = (LOOKED_UP_BYTES / entry.max(1)).clamp(1, LOOKED_UP).min(ids.len());
        let ids: Vec<_> = ids.iter().cycle().skip(start).take(most).copied().collect();
        let cost = Duration::from_nanos(ids.len() as u64 * (3_000 + entry as u64) + found.stream.group_count * 1_000);
        Some(Step { key: key.clone(), ask: Ask::FirstAbove(ids), cost })
    }

    /// Puts the replies where they belong, and says what has to be asked in another way, or in addition.
    fn read(
        &mut self,
        step: &Step,
        replies: &Replies,
        known: &mut Known,
        budget: &mut Budget,
    ) -> Result<Option<Step>, Stop> {
        let Some(found) = known.found(&step.key) else { return Ok(None) };
        let mut replies = replies.items();
        let mut next = || replies.next().unwrap_or(Item::Null);
        match &step.ask {
            Ask::OldestPending(groups) => {
                for group in groups {
                    let oldest = Reply::read(next(), replies::oldest_pending);
                    let oldest = Stop::note(oldest, of_group("XPENDING", group), &mut found.failures)?;
                    found.pending.entry(group.clone()).or_default().oldest = oldest.flatten();
                }
            }
            Ask::FirstAbove(ids) => {
                let mut first_above = BTreeMap::new();
                for id in ids {
                    let first = Reply::read(next(), replies::first_entry);
                    let first = Stop::note(first, "XRANGE", &mut found.failures)?.flatten();
                    // An entry that was added since the stream was read may be one of a stream made anew.
                    first_above
                        .extend(first.filter(|first| Some(*first) <= found.stream.last).map(|first| (*id, first)));
                }
                let groups = Stop::note(Reply::read(next(), replies::groups), "XINFO GROUPS", &mut found.failures)?;
                note_oldest(found, &first_above, groups.unwrap_or_default());
            }
            Ask::Consumers { group, idle } => {
                let summary = Reply::read(next(), replies::pending_consumers);
                let summary = Stop::note(summary, of_group("XPENDING", group), &mut found.failures)?;
                let times = if *idle {
                    let times = Reply::read(next(), replies::idle_consumers);
                    Stop::note(times, of_group("XINFO CONSUMERS", group), &mut found.failures)?
                } else {
                    None
                };
                let pending = found.pending.entry(group.clone()).or_default();
                pending.consumers = summary.as_ref().map(|summary| summary.len() as u64);
                let shown = self.options.consumers_max.unwrap_or(0);
                pending.busiest = busiest(summary.unwrap_or_default(), &times.unwrap_or_default(), shown);
            }
            Ask::Moment(counting) => {
                let moment = Reply::read(next(), replies::moment);
                return self.read_moment(step, counting, moment, known, budget);
            }
        }
        Ok(None)
    }

    fn read_moment(
        &mut self,
        step: &Step,
        counting: &Counting,
        moment: Reply<Option<Moment>>,
        known: &mut Known,
        budget: &mut Budget,
    ) -> Result<Option<Step>, Stop> {
        let Some(stream) = known.streams.get_mut(&step.key) else { return Ok(None) };
        let State::Found(found) = &mut stream.state else { return Ok(None) };
        let moment = match moment {
            Reply::Gone => {
                stream.state = State::Missing;
                return Ok(None);
            }
            Reply::Failed(error)
                if !error.is_about_the_server() && matches!(error.kind(), Kind::Permission | Kind::Other) =>
            {
                if errors::refuses_scripts(&error) {
                    // That is no failure: only the numbers that need a script stay unknown.
                    self.scripts.refused = Some((Instant::now(), error.context("the script that counts")));
                } else {
                    found.failures.push(error.context("reading the stream by script"));
                }
                let look_up = self.without_script(step, found, &stream.wanted);
                return Ok(look_up.filter(|look_up| counting.from.is_none() && self.may_look_up(look_up)));
            }
            moment => Stop::note(moment, "reading the stream by script", &mut found.failures)?.flatten(),
        };
        let Some(mut moment) = moment else { return Ok(None) };
        let cost = Cost::new(&step.key, found, self.sizes);
        budget.correct(step.cost, cost.of_work(moment.work));
        self.sizes.note_largest(&step.key, moment.largest);
        if !note_moment(found, counting, &mut moment) {
            return Ok(None);
        }
        let again = counting::go_on(counting, &moment, found, &stream.wanted, &cost, budget);
        Ok(again.map(|(counting, cost)| Step { key: step.key.clone(), ask: Ask::Moment(counting), cost }))
    }

    /// What is left to ask about a stream of which no script can tell.
    fn without_script(&self, step: &Step, found: &mut Found, wanted: &config::Groups) -> Option<Step> {
        if let Evidence::TwoCommands { no_scripts, .. } = &mut found.evidence {
            *no_scripts = true;
        }
        self.look_up(&step.key, found, wanted)
    }
}

/// Notes how many steps each stream waits for: it is complete when all are read.
fn expect(steps: &VecDeque<Step>, known: &mut Known) {
    for stream in known.streams.values_mut() {
        if let State::Found(found) = &mut stream.state {
            found.open = 0;
        }
    }
    for step in steps {
        if let Some(found) = known.found(&step.key) {
            found.open += 1;
        }
    }
}

/// The budget is spent: these streams keep their lower bounds, and the next collection begins with them.
fn leave_out_counts(steps: &mut VecDeque<Step>, known: &mut Known) {
    steps.retain(|step| {
        if let Some(found) = known.found(&step.key).filter(|_| step.counts()) {
            found.open = found.open.saturating_sub(1);
        }
        !step.counts()
    });
}

/// How to learn what waits in the middle of a stream.
enum BacklogStep {
    Count(Step),
    LookUp(Step),
}

impl Step {
    fn commands(&self) -> Vec<Command> {
        let key = &self.key;
        match &self.ask {
            Ask::OldestPending(groups) => groups.iter().map(|name| commands::oldest_pending(key, name)).collect(),
            Ask::FirstAbove(ids) => {
                let first_above = ids.iter().map(|id| commands::first_entry_after(key, *id));
                first_above.chain([commands::groups(key)]).collect()
            }
            Ask::Moment(counting) => vec![commands::moment(key, counting)],
            Ask::Consumers { group, idle } => {
                let idle = idle.then(|| commands::consumers(key, group));
                [commands::pending_summary(key, group)].into_iter().chain(idle).collect()
            }
        }
    }

    /// How many commands it has.
    fn len(&self) -> usize {
        match &self.ask {
            Ask::OldestPending(groups) => groups.len(),
            Ask::FirstAbove(ids) => ids.len() + 1,
            Ask::Moment(_) => 1,
            Ask::Consumers { idle, .. } => 1 + usize::from(*idle),
        }
    }

    /// Bytes of its commands, about.
    fn bytes(&self) -> usize {
        let length = |name: &Name| name.as_bytes().len();
        let more = match &self.ask {
            Ask::OldestPending(groups) => groups.iter().map(length).sum(),
            Ask::FirstAbove(ids) => ids.len() * 40,
            Ask::Moment(Counting { wanted, from, .. }) => {
                let names: usize = wanted.iter().map(|name| 20 + length(name)).sum();
                200 + commands::script_bytes() + names + from.as_ref().map_or(0, |from| from.ids.len() * 50)
            }
            Ask::Consumers { group, .. } => self.len() * length(group),
        };
        self.len() * (80 + length(&self.key)) + more
    }

    fn counts(&self) -> bool {
        matches!(self.ask, Ask::Moment(_))
    }
}

/// The lowest pending entry of each group that has one, some groups at a time.
fn oldest_pending(key: &Name, groups: &[(&Name, GroupFacts)]) -> Vec<Step> {
    let pending: Vec<_> = groups.iter().filter(|(_, facts)| facts.pending > 0).map(|(name, _)| *name).collect();
    let step = |names: &[&Name]| Step {
        key: key.clone(),
        ask: Ask::OldestPending(names.iter().map(|name| (*name).clone()).collect()),
        cost: Duration::from_micros(3 * names.len() as u64),
    };
    pending.chunks(64).map(step).collect()
}

/// Begins with the first that is `due`.
fn rotate(steps: &mut [Step], due: impl Fn(&Step) -> bool) {
    let first = steps.iter().position(due).unwrap_or(0);
    steps.rotate_left(first);
}

/// As many steps as the budget allows, and at least one, beginning with the first that is `due`.
fn in_turn(mut steps: Vec<Step>, budget: Duration, due: impl Fn(&Step) -> bool) -> Vec<Step> {
    rotate(&mut steps, due);
    let mut spent = Duration::ZERO;
    let affordable = steps.iter().take_while(|step| {
        let first = spent.is_zero();
        spent += step.cost;
        first || spent <= budget
    });
    let affordable = affordable.count();
    steps.truncate(affordable);
    steps
}

/// Notes the oldest entry that waits for each group that stands where it stood before.
fn note_oldest(found: &mut Found, first_above: &BTreeMap<StreamId, StreamId>, now: Vec<(Name, GroupFacts)>) {
    let Evidence::TwoCommands { oldest, .. } = &mut found.evidence else { return };
    let before = found.groups.iter().flatten().map(|(name, facts)| (name, facts.last_delivered));
    let before: BTreeMap<_, _> = before.collect();
    let unmoved = now.into_iter().filter(|(name, facts)| before.get(name) == Some(&facts.last_delivered));
    oldest.extend(unmoved.filter_map(|(name, facts)| Some((name, *first_above.get(&facts.last_delivered)?))));
}

/// Replaces what two commands said by what was read at one moment, or adds the rest of a count. False where the stream has
/// lost entries meanwhile, so that the rest says nothing of the moment when the count began.
fn note_moment(found: &mut Found, counting: &Counting, moment: &mut Moment) -> bool {
    if counting.from.is_none() {
        let entries_added = moment.stream.entries_added.or(found.stream.entries_added);
        found.stream = StreamFacts { entries_added, ..moment.stream };
        found.groups = Some(std::mem::take(&mut moment.groups).into_iter().collect());
        found.evidence = Evidence::OneMoment(std::mem::take(&mut moment.counts));
        return true;
    }
    match &mut found.evidence {
        Evidence::OneMoment(counts) if backlog::nothing_left(&found.stream, &moment.stream) => {
            counting::add(counts, std::mem::take(&mut moment.counts));
            true
        }
        _ => false,
    }
}

/// Consumers that hold something pending, most first, at most so many.
fn busiest(summary: Vec<(Name, u64)>, idle: &BTreeMap<Name, u64>, most: usize) -> Vec<Consumer> {
    let consumer = |(name, pending): (Name, u64)| {
        let idle_ms = idle.get(&name).copied();
        Consumer { name, pending, idle_ms }
    };
    let mut consumers: Vec<_> = summary.into_iter().map(consumer).collect();
    consumers.sort_by(|a, b| b.pending.cmp(&a.pending).then_with(|| a.name.cmp(&b.name)));
    consumers.truncate(most);
    consumers
}

fn of_group(command: &str, group: &Name) -> String {
    format!("{command} of group {}", group.shown())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{commands::GoOn, progress::KnownStream},
        *,
    };

    fn steps(costs: &[u64]) -> Vec<Step> {
        let step = |(number, cost): (usize, &u64)| Step {
            key: format!("s{number}").as_str().into(),
            ask: Ask::Consumers { group: "g".into(), idle: false },
            cost: Duration::from_millis(*cost),
        };
        costs.iter().enumerate().map(step).collect()
    }

    fn keys(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| step.key.shown().into_owned()).collect()
    }

    #[test]
    fn walks_over_consumers_take_turns_within_their_budget() {
        let budget = Duration::from_millis(25);
        let mut last: Option<Name> = None;
        let mut turns = Vec::new();
        for _ in 0..4 {
            let walked = in_turn(steps(&[10, 10, 10, 4, 4]), budget, |step| last.as_ref() < Some(&step.key));
            last = walked.last().map(|step| step.key.clone());
            turns.push(keys(&walked));
        }
        assert_eq!(turns, [vec!["s0", "s1"], vec!["s2", "s3", "s4"], vec!["s0", "s1"], vec!["s2", "s3", "s4"]]);
    }

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    /// A stream with a group in its middle.
    fn behind() -> KnownStream {
        let (first, last) = (Some(id(1)), Some(id(9)));
        let stream =
            StreamFacts { length: 9, group_count: 1, last_generated: id(9), entries_added: Some(9), first, last };
        let group = GroupFacts { consumers: 0, pending: 0, last_delivered: id(5), entries_read: Some(5), lag: Some(4) };
        let groups = Some([("g".into(), group)].into_iter().collect());
        let evidence = Evidence::TwoCommands { oldest: BTreeMap::new(), no_scripts: false };
        let found = Found { stream, groups, evidence, pending: BTreeMap::new(), failures: vec![], open: 1 };
        let wanted = config::Groups { every: true, ..config::Groups::default() };
        KnownStream { wanted, named: true, state: State::Found(Box::new(found)) }
    }

    #[test]
    fn without_scripts_streams_of_large_entries_have_their_turn_beside_small_ones() {
        let entries = [("a", LOOKED_UP_BYTES / 2 + 1), ("b", LOOKED_UP_BYTES / 2 + 1), ("c", 100)];
        let (mut known, mut sizes) = (Known::default(), Sizes::default());
        for (key, entry) in entries {
            let mut stream = behind();
            if let State::Found(found) = &mut stream.state {
                sizes.note(&key.into(), &found.stream, 2 * entry, 1);
            }
            known.streams.insert(key.into(), stream);
        }
        let options = Collect {
            server: false,
            undelivered_max: 1_000,
            undelivered_budget: Duration::from_millis(25),
            consumers_max: None,
        };
        let refusal = Error::new(Kind::Permission, "no");
        let mut scripts = Scripts { refused: Some((Instant::now(), refusal)) };
        let mut turns = Turns::default();
        let mut looked_up = || {
            let (turns, scripts) = (&mut turns, &mut scripts);
            let mut groups = Groups { options: &options, sizes: &mut sizes, turns, scripts, look_up_left: None };
            keys(groups.plan(&known).make_contiguous())
        };
        assert_eq!([looked_up(), looked_up(), looked_up()], [vec!["a"], vec!["b", "c"], vec!["a"]]);
    }

    #[test]
    fn a_stream_about_which_nothing_more_is_asked_is_complete() {
        let mut known = Known::default();
        for key in ["s0", "s1"] {
            known.streams.insert(key.into(), behind());
        }
        expect(&steps(&[1]).into(), &mut known);
        assert_eq!(["s0", "s1"].map(|key| known.found(&key.into()).unwrap().open), [1, 0]);
    }

    #[test]
    fn names_are_counted_in_the_bytes_of_a_step() {
        let (key, long): (Name, Name) = ("k".repeat(1_000).as_str().into(), "g".repeat(3_000).as_str().into());
        let from = GoOn { lowest: id(u64::MAX), entries: 1_000, ids: vec![id(1_700_000_000_000); 3] };
        let counting = Counting { max: 1_000, wanted: vec![long.clone(); 3], from: Some(from), ..Counting::default() };
        for ask in [
            Ask::OldestPending(vec![long.clone(); 3]),
            Ask::FirstAbove(vec![id(1_700_000_000_000); 3]),
            Ask::Moment(counting),
            Ask::Consumers { group: long, idle: true },
        ] {
            let step = Step { key: key.clone(), ask, cost: Duration::ZERO };
            let sent: usize = step.commands().iter().map(|command| command.packed().len()).sum();
            assert!((sent..sent + 1_000).contains(&step.bytes()), "{} of {sent}", step.bytes());
        }
    }

    #[test]
    fn one_is_walked_even_if_it_costs_more_than_the_budget() {
        let walked = in_turn(steps(&[40, 1]), Duration::from_millis(25), |_| true);
        assert_eq!(keys(&walked), ["s0"]);
        assert!(in_turn(vec![], Duration::ZERO, |_| true).is_empty());
    }
}
