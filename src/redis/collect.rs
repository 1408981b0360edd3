//! What is asked of Redis in one collection, and in what order.
//!
//! It has no deadline: dropping [`Source::collect`]'s future ends the collection and closes the connection, with
//! whatever is still under way on it. Two round trips at the most for up to a thousand streams; a pattern takes those of
//! its `SCAN` before:
//!
//! 1. `TIME`, `INFO` if wanted, and for every stream `XINFO STREAM` and `XINFO GROUPS`;
//! 2. only where there is something to ask: `XPENDING` for a group with something pending, and for a group that stands
//!    in the middle of its stream the count of what waits, with `XINFO STREAM` once more behind it.
//!
//! Streams go on living between two questions. What the second round trip counts therefore ends at the id that the
//! stream had last in the first; and whether something left the stream meanwhile is asked behind the count, since what
//! was read and deleted would look like what is lost. A server that refuses the count costs a third round trip, once in
//! a while.

use std::{
    collections::BTreeMap,
    fmt, iter,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redis::{Cmd, Value};

use crate::{
    config::{Collect, Config, Groups, Selection},
    model::backlog::{Position, position},
    model::error::{Error, Kind},
    model::snapshot::{Group, Name, Snapshot, Stream, StreamState},
    redis::commands::{self, Range},
    redis::connection::{Connection, Node},
    redis::endpoint::Endpoint,
    redis::replies::{self, Answer},
};

/// The streams of one Redis, ready to be asked about.
#[derive(Debug)]
pub struct Source {
    endpoint: Endpoint,
    selection: Selection,
    collect: Collect,
    /// The connection of the last collection that went well.
    kept: Mutex<Option<Connection>>,
}

impl Source {
    /// Connects to nothing yet: Redis may come later than we do.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { endpoint, selection, collect, .. } = config;
        Self { endpoint, selection, collect, kept: Mutex::new(None) }
    }

    /// Where Redis is, without secrets.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks everything once.
    ///
    /// # Errors
    /// When Redis as a whole cannot be asked: it is not there, refuses us, or is loading. What goes wrong with one
    /// stream is a fact about that stream.
    pub async fn collect(&self) -> Result<Snapshot, Error> {
        let kept = self.kept().take();
        if let Some(connection) = kept {
            match self.collect_over(connection).await {
                // Redis may have been restarted since the last scrape, or the password changed: only a new connection
                // can tell what it is like now.
                Err(error) if matches!(error.kind(), Kind::Connect | Kind::Auth) => {}
                outcome => return outcome,
            }
        }
        self.collect_over(self.endpoint.connect().await?).await
    }

    async fn collect_over(&self, connection: Connection) -> Result<Snapshot, Error> {
        let mut snapshot = Snapshot::default();
        let chosen = self.choose(&connection, &mut snapshot).await?;
        self.ask_about_streams(&connection, &chosen, &mut snapshot).await?;
        let mut questions = self.questions_about_groups(&connection, &snapshot);
        while !questions.is_empty() {
            questions = ask_about_groups(&connection, questions, &mut snapshot).await?;
        }
        *self.kept() = Some(connection);
        Ok(snapshot)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streams that are named and those that are found, each once.
    async fn choose(&self, connection: &Connection, snapshot: &mut Snapshot) -> Result<BTreeMap<Name, Groups>, Error> {
        let mut chosen = self.selection.exact.clone();
        if self.selection.patterns.is_empty() {
            return Ok(chosen);
        }
        for node in connection.nodes().await? {
            for (pattern, groups) in &self.selection.patterns {
                for key in scan(connection, &node, pattern, &mut snapshot.refused).await? {
                    chosen.entry(key).or_default().merge(groups);
                }
            }
        }
        Ok(chosen)
    }

    async fn ask_about_streams(
        &self,
        connection: &Connection,
        chosen: &BTreeMap<Name, Groups>,
        snapshot: &mut Snapshot,
    ) -> Result<(), Error> {
        // A Cluster has no one server to ask about.
        let ask_server = self.collect.server && !self.endpoint.is_cluster();
        let about_server = iter::once(commands::time()).chain(ask_server.then(commands::info));
        let about_streams = chosen.keys().flat_map(|key| [commands::stream(key), commands::groups(key)]);
        let mut replies = connection.ask(about_server.chain(about_streams));

        let clock = Answer::read(replies.next().await?, replies::clock);
        snapshot.clock = keep(clock, "TIME", &mut snapshot.refused)?;
        if ask_server {
            let server = Answer::read(replies.next().await?, replies::server);
            snapshot.server = keep(server, "INFO", &mut snapshot.refused)?;
        }
        for (key, wanted) in chosen {
            let stream = Answer::read(replies.next().await?, replies::stream);
            let groups = Answer::read(replies.next().await?, replies::groups);
            let state = stream_state(stream, groups, wanted)?;
            // One that was only found, and has gone since, is none of ours any more.
            if !matches!(state, StreamState::Missing { .. }) || self.selection.exact.contains_key(key) {
                snapshot.streams.insert(key.clone(), state);
            }
        }
        Ok(())
    }

    /// What is left to ask about the groups that were found.
    fn questions_about_groups(&self, connection: &Connection, snapshot: &Snapshot) -> Vec<Question> {
        let mut questions = Vec::new();
        for (key, state) in &snapshot.streams {
            let StreamState::Found(stream) = state else { continue };
            for (name, group) in &stream.groups {
                let about = |what| Question { key: key.clone(), group: name.clone(), what };
                questions.extend(self.about_pending(group).into_iter().flatten().map(about));
                questions.extend(self.about_backlog(connection, stream, group).into_iter().flatten().map(about));
            }
        }
        questions
    }

    fn about_pending(&self, group: &Group) -> [Option<What>; 2] {
        if group.pending == 0 {
            return [None, None];
        }
        [Some(What::Pending), self.collect.consumers_max.map(|max| What::Consumers { max })]
    }

    fn about_backlog(&self, connection: &Connection, stream: &Stream, group: &Group) -> [Option<What>; 2] {
        let after = group.last_delivered.next();
        let (Position::Between, Some(from)) = (position(stream, group.last_delivered), after) else {
            return [None, None];
        };
        let waiting = Range { from, to: stream.last_generated };
        let max = self.collect.undelivered_max;
        if max == 0 || !connection.may_count() {
            return [Some(What::Oldest { waiting }), None];
        }
        // EVAL_RO came with 7.0, and so did entries-added. Before, no counter tells what left the stream.
        let has_eval_ro = stream.entries_added.is_some();
        [Some(What::Count { waiting, max, has_eval_ro }), removed(stream).map(|before| What::Disturbed { before })]
    }
}

/// How many entries ever left the stream, where that is counted.
fn removed(stream: &Stream) -> Option<u64> {
    stream.entries_added?.checked_sub(stream.length)
}

/// A question about one group.
#[derive(Clone, Debug)]
struct Question {
    key: Name,
    group: Name,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Pending,
    Consumers {
        max: usize,
    },
    Count {
        waiting: Range,
        max: u32,
        has_eval_ro: bool,
    },
    Oldest {
        waiting: Range,
    },
    /// Asked behind the count: has anything left the stream since it was asked first?
    Disturbed {
        before: u64,
    },
}

impl Question {
    fn command(&self) -> Cmd {
        match self.what {
            What::Pending => commands::pending(&self.key, &self.group),
            What::Consumers { .. } => commands::consumers(&self.key, &self.group),
            What::Count { waiting, max, has_eval_ro } => commands::count(&self.key, waiting, max, has_eval_ro),
            What::Oldest { waiting } => commands::oldest(&self.key, waiting),
            What::Disturbed { .. } => commands::stream(&self.key),
        }
    }

    /// Puts the answer where it belongs.
    fn answer(&self, reply: Value, group: &mut Group) -> Answer<()> {
        match self.what {
            What::Pending => Answer::read(reply, replies::pending).map(|(count, summary)| {
                group.pending = count;
                group.pending_summary = summary;
            }),
            What::Consumers { max } => {
                Answer::read(reply, |reply| replies::busy_consumers(reply, max)).map(|busy| group.busy_consumers = busy)
            }
            What::Count { max, .. } => {
                Answer::read(reply, |reply| replies::counted(reply, max)).map(|counted| group.counted = Some(counted))
            }
            What::Oldest { .. } => Answer::read(reply, replies::oldest).map(|oldest| group.counted = Some(oldest)),
            What::Disturbed { before } => Answer::read(reply, replies::stream).map(|stream| {
                if let Some(counted) = &mut group.counted {
                    counted.undisturbed = removed(&stream) == Some(before);
                }
            }),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = match self.what {
            What::Pending => "XPENDING",
            What::Consumers { .. } => "XINFO CONSUMERS",
            What::Count { .. } => "counting",
            What::Oldest { .. } => "XRANGE",
            What::Disturbed { .. } => "XINFO STREAM",
        };
        write!(f, "{command} for group {}", self.group.shown())
    }
}

/// Walks all keys of a node once, for the streams among them that match.
async fn scan(
    connection: &Connection,
    node: &Node,
    pattern: &str,
    refused: &mut Vec<Error>,
) -> Result<Vec<Name>, Error> {
    let (mut found, mut cursor) = (Vec::new(), 0);
    loop {
        let reply = connection.ask_node(node, commands::scan(cursor, pattern)).await?;
        let page = Answer::read(reply, replies::scan_page);
        let Some((next, keys)) = keep(page, format_args!("SCAN MATCH {pattern}"), refused)? else {
            return Ok(found);
        };
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            return Ok(found);
        }
    }
}

/// Asks, and returns what has to be asked in another way.
async fn ask_about_groups(
    connection: &Connection,
    questions: Vec<Question>,
    snapshot: &mut Snapshot,
) -> Result<Vec<Question>, Error> {
    let mut again = Vec::new();
    let mut replies = connection.ask(questions.iter().map(Question::command));
    for question in &questions {
        let reply = replies.next().await?;
        let Some(StreamState::Found(stream)) = snapshot.streams.get_mut(&question.key) else { continue };
        let Some(group) = stream.groups.get_mut(&question.group) else { continue };
        match (question.answer(reply, group), question.what) {
            // No scripts for us, or not this one. Only the number stays unknown: no error at every scrape.
            (Answer::No(error), What::Count { waiting, .. })
                if matches!(error.kind(), Kind::Permission | Kind::Other) && !error.is_about_the_server() =>
            {
                if error.kind() == Kind::Permission {
                    connection.stop_counting();
                }
                again.push(Question { what: What::Oldest { waiting }, ..question.clone() });
            }
            (answer, _) => {
                keep(answer, question, &mut stream.refused)?;
            }
        }
    }
    Ok(again)
}

/// Keeps an answer, or else notes why there is none. An error about the server as a whole ends the collection.
fn keep<T>(answer: Answer<T>, question: impl fmt::Display, refused: &mut Vec<Error>) -> Result<Option<T>, Error> {
    match answer {
        Answer::Yes(fact) => Ok(Some(fact)),
        Answer::Gone => Ok(None),
        Answer::No(error) if error.is_about_the_server() => Err(error),
        Answer::No(error) => {
            refused.push(error.context(question));
            Ok(None)
        }
    }
}

/// Puts a stream and its groups together.
fn stream_state(
    stream: Answer<Stream>,
    groups: Answer<Vec<(Name, Group)>>,
    wanted: &Groups,
) -> Result<StreamState, Error> {
    let named = || wanted.named.iter().cloned().collect();
    let mut stream = match (stream, &groups) {
        (Answer::Yes(stream), Answer::Yes(_) | Answer::No(_)) => stream,
        (Answer::Gone, _) | (_, Answer::Gone) => return Ok(StreamState::Missing { groups: named() }),
        (Answer::No(error), _) if error.is_about_the_server() => return Err(error),
        (Answer::No(error), _) => {
            let exists = (error.kind() == Kind::WrongType).then_some(false);
            return Ok(StreamState::Failed { error: error.context("XINFO STREAM"), exists, groups: named() });
        }
    };
    if let Some(found) = keep(groups, "XINFO GROUPS", &mut stream.refused)? {
        stream.groups = found.into_iter().filter(|(name, _)| wanted.wants(name)).collect();
        stream.missing_groups =
            wanted.named.iter().filter(|name| !stream.groups.contains_key(*name)).cloned().collect();
    }
    Ok(StreamState::Found(Box::new(stream)))
}
