//! The first commands of a collection: `XINFO STREAM` and `XINFO GROUPS` of every stream.
//!
//! `XINFO STREAM` carries two whole entries. Replies wait in Redis's output buffer, which counts as its memory, and Redis
//! serves nobody else while it runs what one read of 16 KiB holds. So the bytes that are under way are bounded, by the
//! size of each stream's last reply; streams with large entries are asked one at a time, and streams of which nothing is
//! known a few at first.

use std::{
    collections::{BTreeMap, HashMap},
    iter::Peekable,
};

use futures_util::{StreamExt, stream::FuturesOrdered};

use super::{
    collect::Stop,
    commands::{self, Command, Counting},
    connection::Connection,
    errors,
    progress::{Evidence, Found, Known, Progress, State},
    replies::{self, Moment, Reply},
    resp::{Item, Replies},
};
use crate::model::{
    error::{Cause, Error, Kind},
    snapshot::{GroupFacts, Name, StreamFacts},
};

/// Bytes of replies that may be under way.
const REPLIES_UNDER_WAY: usize = 4 << 20;
/// A stream whose reply has so many bytes is asked when nothing else is under way.
const ASKED_ALONE: usize = 256 << 10;
/// A stream whose reply has more bytes is read by the script, which moves no entries.
const READ_BY_SCRIPT: usize = 8 << 20;
/// Streams in one write. Their commands fit into one read of Redis's.
const STREAMS_A_WRITE: usize = 64;
/// Bytes of commands that may be under way before Redis answered the first. The other machine takes them even while
/// Redis is busy; more of them would look as if that machine had vanished.
pub(super) const COMMANDS_BEFORE_FIRST_REPLY: usize = 48 << 10;
/// Streams of unknown size that are asked at first; twice as many after each reply, as long as they fit if they are as
/// large as the largest so far.
const UNKNOWN_AT_FIRST: usize = 2;

/// What each stream's last replies showed of its size, kept from collection to collection.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    streams: HashMap<Name, Size>,
    /// The server is older than `EVAL_RO`, as its replies show.
    without_eval_ro: bool,
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    reply: usize,
    /// Of an entry, about: half of the first and the last.
    entry: usize,
    /// Of the largest entry that was counted of late.
    largest: usize,
}

impl Sizes {
    fn known(&self, key: &Name) -> Option<usize> {
        self.streams.get(key).map(|size| size.reply)
    }

    pub(super) fn note(&mut self, key: &Name, stream: &StreamFacts, payload: usize, groups: usize) {
        self.without_eval_ro = stream.entries_added.is_none();
        let size = self.streams.entry(key.clone()).or_default();
        (size.reply, size.entry) = (payload + 400 + 200 * groups, payload / 2);
    }

    fn note_reply(&mut self, key: &Name, reply: usize) {
        self.streams.entry(key.clone()).or_default().reply = reply;
    }

    /// How large one entry of this stream is, about.
    pub(super) fn entry(&self, key: &Name) -> usize {
        self.streams.get(key).map_or(0, |size| size.entry)
    }

    /// The largest entry of this stream that was counted of late.
    pub(super) fn largest(&self, key: &Name) -> usize {
        self.streams.get(key).map_or(0, |size| size.largest)
    }

    /// A large entry that is met no longer is forgotten slowly: it may be in the part that is counted next time.
    pub(super) fn note_largest(&mut self, key: &Name, largest: usize) {
        if let Some(size) = self.streams.get_mut(key) {
            size.largest = largest.max(size.largest - size.largest / 16);
        }
    }

    /// Forgets the streams that are no longer asked.
    pub(super) fn keep(&mut self, asked: impl Fn(&Name) -> bool) {
        self.streams.retain(|key, _| asked(key));
    }

    /// The connection ended while these were read: each is asked alone next time, and one that was is read by script.
    fn suspect(&mut self, keys: &[Name]) {
        let reply = if keys.len() == 1 { READ_BY_SCRIPT + 1 } else { ASKED_ALONE };
        for key in keys {
            let known = self.known(key).unwrap_or(0);
            self.note_reply(key, reply.max(known));
        }
    }

    /// Those whose reply may be above Redis's output buffer limit, which makes it close the connection.
    fn may_be_large(&self, keys: &[Name]) -> Vec<Name> {
        let is_large = |key: &&Name| self.known(key).is_none_or(|size| (ASKED_ALONE..=READ_BY_SCRIPT).contains(&size));
        keys.iter().filter(is_large).cloned().collect()
    }
}

/// What may be sent while something is under way.
struct Window {
    reply_bytes: usize,
    command_bytes: usize,
    /// Streams of unknown size that are under way, and how many of them may be.
    unknown: usize,
    unknown_at_most: usize,
    /// The largest reply so far: those of unknown size may be as large.
    largest: usize,
    answered: bool,
}

/// Streams that are asked in one write.
struct Batch {
    keys: Vec<Name>,
    by_script: bool,
    reply_bytes: usize,
    command_bytes: usize,
    unknown: usize,
}

impl Window {
    const fn new(answered: bool) -> Self {
        Self { reply_bytes: 0, command_bytes: 0, unknown: 0, unknown_at_most: UNKNOWN_AT_FIRST, largest: 0, answered }
    }

    /// The next streams that may be asked now; none where something has to be answered first.
    fn next(&mut self, keys: &mut Peekable<impl Iterator<Item = Name>>, sizes: &Sizes) -> Option<Batch> {
        let mut batch = Batch { keys: vec![], by_script: false, reply_bytes: 0, command_bytes: 0, unknown: 0 };
        while batch.keys.len() < STREAMS_A_WRITE && !batch.by_script {
            let Some(key) = keys.next_if(|key| self.admits(&batch, key, sizes)) else { break };
            let size = sizes.known(&key);
            batch.by_script = size.is_some_and(|size| size > READ_BY_SCRIPT);
            batch.unknown += usize::from(size.is_none());
            batch.reply_bytes += size.unwrap_or(0);
            batch.command_bytes += 2 * (40 + key.as_bytes().len());
            batch.keys.push(key);
        }
        if batch.keys.is_empty() {
            return None;
        }
        self.reply_bytes += batch.reply_bytes;
        self.command_bytes += batch.command_bytes;
        self.unknown += batch.unknown;
        Some(batch)
    }

    fn admits(&self, batch: &Batch, key: &Name, sizes: &Sizes) -> bool {
        let reply_bytes = self.reply_bytes + batch.reply_bytes;
        let idle = self.command_bytes + batch.command_bytes == 0;
        let commands = self.answered
            || idle
            || self.command_bytes + batch.command_bytes + 2 * (40 + key.as_bytes().len())
                <= COMMANDS_BEFORE_FIRST_REPLY;
        let replies = match sizes.known(key) {
            // Not together with a large reply: if Redis closes the connection, one of the two is the reason, and it has to
            // be known which.
            None => self.unknown + batch.unknown < self.unknown_at_most && reply_bytes < ASKED_ALONE,
            Some(size) if size >= ASKED_ALONE => idle,
            // Nothing joins one that is asked alone.
            Some(size) => reply_bytes < ASKED_ALONE || reply_bytes + size <= REPLIES_UNDER_WAY,
        };
        let alone = batch.keys.len() == 1 && batch.reply_bytes >= ASKED_ALONE;
        commands && replies && !alone
    }

    /// `largest` is the size of the largest reply of the batch.
    fn answered(&mut self, batch: &Batch, largest: usize) {
        self.reply_bytes -= batch.reply_bytes;
        self.command_bytes -= batch.command_bytes;
        self.unknown -= batch.unknown;
        self.largest = self.largest.max(largest);
        let fit = REPLIES_UNDER_WAY / self.largest.max(1);
        self.unknown_at_most = self.unknown_at_most.saturating_mul(2).min(fit).max(1);
        self.answered = true;
    }
}

/// Asks about these streams, in this order, as long as the collection is wanted.
pub(super) async fn collect(
    connection: &Connection,
    keys: Vec<Name>,
    sizes: &mut Sizes,
    progress: &Progress,
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<(), Stop> {
    let mut keys = keys.into_iter().peekable();
    let mut window = Window::new(progress.lock().answered);
    let mut under_way = FuturesOrdered::new();
    loop {
        while is_wanted()
            && let Some(batch) = window.next(&mut keys, sizes)
        {
            let without_eval_ro = sizes.without_eval_ro;
            under_way.push_back(async move {
                let commands = batch.commands(without_eval_ro);
                (connection.send(&commands).await, batch)
            });
        }
        let Some((replies, batch)) = under_way.next().await else { return Ok(()) };
        let replies = replies.map_err(|error| {
            // The reply may be larger than the limits here, or than Redis's output buffer limit: these streams are asked in
            // another way next time.
            match error.kind() {
                Kind::Protocol => sizes.suspect(&batch.keys),
                _ => sizes.suspect(&sizes.may_be_large(&batch.keys)),
            }
            Stop::Lost(error)
        })?;
        let mut known = progress.lock();
        known.answered |= replies.items().any(|reply| errors::is_reply(&reply));
        batch.read(&replies, sizes, &mut known)?;
        let largest = batch.keys.iter().filter_map(|key| sizes.known(key)).max();
        window.answered(&batch, largest.unwrap_or(0));
    }
}

impl Batch {
    fn commands(&self, without_eval_ro: bool) -> Vec<Command> {
        if self.by_script {
            let nothing = Counting { without_eval_ro, ..Counting::default() };
            return self.keys.iter().map(|key| commands::moment(key, &nothing)).collect();
        }
        self.keys.iter().flat_map(|key| [commands::stream(key), commands::groups(key)]).collect()
    }

    fn read(&self, replies: &Replies, sizes: &mut Sizes, known: &mut Known) -> Result<(), Stop> {
        let mut replies = replies.items();
        let mut next = || replies.next().unwrap_or(Item::Null);
        let mut broke = Vec::new();
        for key in &self.keys {
            let state = if self.by_script {
                let moment = Reply::read(next(), replies::moment);
                match &moment {
                    // Entries that are small are read like any others.
                    Reply::Done(Some(moment)) if moment.payload < ASKED_ALONE => {
                        sizes.note(key, &moment.stream, moment.payload, moment.groups.len());
                    }
                    // The script may be refused, or leave out a stream of so many groups, and it is not certain that the
                    // stream is large: XINFO STREAM is tried again.
                    Reply::Failed(_) | Reply::Done(None) => sizes.note_reply(key, ASKED_ALONE),
                    Reply::Done(Some(_)) | Reply::Gone => {}
                }
                by_script(moment)?
            } else {
                let stream = Reply::read(next(), replies::stream);
                let groups = Reply::read(next(), replies::groups);
                if let (Reply::Done((facts, payload)), Reply::Done(groups)) = (&stream, &groups) {
                    sizes.note(key, facts, *payload, groups.len());
                }
                state(stream, groups)?
            };
            if matches!(&state, State::Failed { error, .. } if error.cause() == Some(&Cause::ConnectionBroke)) {
                broke.push(key.clone());
            }
            if let Some(stream) = known.streams.get_mut(key) {
                stream.state = state;
            }
        }
        // Of a Cluster, the connection to one node.
        sizes.suspect(&broke);
        Ok(())
    }
}

/// Puts a stream and its groups together.
fn state(stream: Reply<(StreamFacts, usize)>, groups: Reply<Vec<(Name, GroupFacts)>>) -> Result<State, Stop> {
    let stream = match (stream, &groups) {
        (Reply::Done((stream, _)), Reply::Done(_) | Reply::Failed(_)) => stream,
        (Reply::Gone, _) | (_, Reply::Gone) => return Ok(State::Missing),
        (Reply::Failed(error), _) => return failed(error, "XINFO STREAM"),
    };
    let mut failures = Vec::new();
    let groups = Stop::note(groups, "XINFO GROUPS", &mut failures)?.map(|groups| groups.into_iter().collect());
    let evidence = Evidence::TwoCommands { oldest: BTreeMap::new(), no_scripts: false };
    Ok(State::Found(Box::new(Found { stream, groups, evidence, pending: BTreeMap::new(), failures, open: 1 })))
}

fn by_script(moment: Reply<Option<Moment>>) -> Result<State, Stop> {
    match moment {
        Reply::Done(Some(moment)) => Ok(State::Found(Box::new(Found {
            stream: moment.stream,
            groups: Some(moment.groups.into_iter().collect()),
            // Nothing was counted here: what has to be counted is asked later, as for any stream.
            evidence: Evidence::TwoCommands { oldest: BTreeMap::new(), no_scripts: false },
            pending: BTreeMap::new(),
            failures: vec![],
            open: 1,
        }))),
        Reply::Done(None) => {
            let message = "its entries may be too large to be read, and the script does not read so many groups";
            failed(Error::new(Kind::Other, message), "XINFO STREAM")
        }
        Reply::Gone => Ok(State::Missing),
        Reply::Failed(error) => failed(error, "reading a stream of large entries by script"),
    }
}

fn failed(error: Error, command: &str) -> Result<State, Stop> {
    if error.is_about_the_server() {
        return Err(Stop::Refused(error));
    }
    let exists = (error.kind() == Kind::WrongType).then_some(false);
    Ok(State::Failed { error: error.context(command), exists })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<Name> {
        (0..count).map(|number| format!("stream{number:05}").as_str().into()).collect()
    }

    fn sizes(names: &[Name], size: usize) -> Sizes {
        let mut sizes = Sizes::default();
        for name in names {
            sizes.note_reply(name, size);
        }
        sizes
    }

    /// Everything that may be under way at once.
    fn at_once(window: &mut Window, names: &[Name], sizes: &Sizes) -> Vec<Batch> {
        let mut keys = names.iter().cloned().peekable();
        std::iter::from_fn(|| window.next(&mut keys, sizes)).collect()
    }

    fn streams(batches: &[Batch]) -> usize {
        batches.iter().map(|batch| batch.keys.len()).sum()
    }

    #[test]
    fn of_unknown_streams_a_few_are_asked_first_and_more_if_they_are_small() {
        let (mut window, names, unknown) = (Window::new(false), names(1_000), Sizes::default());
        let first = at_once(&mut window, &names, &unknown);
        assert_eq!(streams(&first), UNKNOWN_AT_FIRST);
        for batch in &first {
            window.answered(batch, 600);
        }
        assert_eq!(streams(&at_once(&mut window, &names, &unknown)), 2 * UNKNOWN_AT_FIRST);
        let mut window = Window::new(false);
        for batch in at_once(&mut window, &names, &unknown) {
            window.answered(&batch, 2 << 20);
        }
        assert_eq!(streams(&at_once(&mut window, &names, &unknown)), 2, "they may all be as large");
    }

    #[test]
    fn the_bytes_of_replies_under_way_are_bounded() {
        let names = names(10_000);
        for size in [600, 3_000, 30_000, 250_000] {
            let mut window = Window::new(true);
            let batches = at_once(&mut window, &names, &sizes(&names, size));
            let under_way = streams(&batches) * size;
            assert!(under_way <= REPLIES_UNDER_WAY, "{size}: {under_way}");
            assert!(under_way > REPLIES_UNDER_WAY - size - 1 || streams(&batches) == 10_000, "{size}: {under_way}");
        }
    }

    #[test]
    fn a_stream_of_large_entries_is_asked_alone_and_one_of_huge_entries_by_script() {
        let names = names(10);
        for (size, by_script) in [(ASKED_ALONE, false), (2 << 20, false), (READ_BY_SCRIPT + 1, true)] {
            let batches = at_once(&mut Window::new(true), &names, &sizes(&names, size));
            assert_eq!((streams(&batches), batches[0].by_script), (1, by_script), "{size}");
        }
    }

    #[test]
    fn before_the_first_reply_no_more_is_sent_than_a_busy_redis_takes() {
        let names = names(10_000);
        let small = sizes(&names, 100);
        let bytes = |batches: &[Batch]| batches.iter().map(|batch| batch.command_bytes).sum::<usize>();
        let mut window = Window::new(false);
        let first = at_once(&mut window, &names, &small);
        assert!(bytes(&first) <= COMMANDS_BEFORE_FIRST_REPLY && streams(&first) > 400, "{}", streams(&first));
        assert!(
            first
                .iter()
                .all(|batch| batch.commands(false).iter().map(|c| c.packed().len()).sum::<usize>()
                    <= batch.command_bytes)
        );
        window.answered(&first[0], 100);
        assert!(streams(&at_once(&mut window, &names, &small)) > 1_000);
    }

    #[test]
    fn a_large_entry_is_forgotten_slowly() {
        let names = names(1);
        let mut sizes = sizes(&names, 600);
        sizes.note_largest(&names[0], 1_000_000);
        sizes.note_largest(&names[0], 100);
        assert_eq!(sizes.largest(&names[0]), 937_500);
        for _ in 0..200 {
            sizes.note_largest(&names[0], 100);
        }
        assert_eq!(sizes.largest(&names[0]), 100);
    }

    #[test]
    fn a_stream_whose_reply_ended_the_connection_is_asked_otherwise() {
        let names = names(3);
        let mut sizes = Sizes::default();
        sizes.suspect(&names);
        assert_eq!(sizes.known(&names[0]), Some(ASKED_ALONE), "one of three: each is asked alone");
        assert_eq!(sizes.may_be_large(&names), names);
        sizes.suspect(&names[..1]);
        assert_eq!(sizes.may_be_large(&names), names[1..], "what is read by script is not large");
        sizes.note_reply(&names[1], 600);
        assert_eq!(sizes.may_be_large(&names), names[2..], "nor is what was small");
        assert!(sizes.known(&names[0]).unwrap() > READ_BY_SCRIPT);
    }
}
