//! One connection to Redis, and how questions travel over it.
//!
//! Knows nothing of streams, and not how the connection was made ([`crate::redis::endpoint`]).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
    vec,
};

use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use redis::{
    Cmd, Pipeline, RedisResult, ServerError, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};

use crate::{
    model::error::{Error, Kind},
    redis::commands,
    redis::replies::{self, Answer},
};

/// Questions that travel in one write. Four such writes are on their way at a time, so that a thousand streams take one
/// round trip, and ten thousand don't pile up in Redis's output buffer, nor in our memory.
const QUESTIONS_A_WRITE: usize = 1024;
const WRITES_UNDER_WAY: usize = 4;

/// So long a refusal to count is remembered, before it is tried again: a right may be given meanwhile.
const NO_COUNT_FOR: Duration = Duration::from_secs(300);

/// A connection that is made and logged in. Dropping it closes it, whatever is still under way.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Link,
    /// Who is at the other end, for the log.
    peer: String,
    /// When the server last refused to count for us.
    no_count: Mutex<Option<Instant>>,
}

enum Link {
    /// One server.
    One(MultiplexedConnection),
    /// All nodes of a Cluster. Each question finds its node by its key, and follows it when a slot moves.
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::One(_)) { "One" } else { "Cluster" })
    }
}

/// A server that holds keys of its own, and so has to be walked on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// The only one.
    Only,
    /// A master of a Cluster.
    At { host: String, port: u16 },
}

impl Connection {
    pub(crate) fn to_one(connection: MultiplexedConnection, peer: String) -> Self {
        Self { link: Link::One(connection), peer, no_count: Mutex::default() }
    }

    pub(crate) fn to_cluster(connection: ClusterConnection, peer: String) -> Self {
        Self { link: Link::Cluster(connection), peer, no_count: Mutex::default() }
    }

    /// Sends the questions, in as few writes as is good for Redis, and gives their replies in order.
    pub(crate) fn ask<'a>(&'a self, questions: impl Iterator<Item = Cmd> + Send + 'a) -> Replies<'a> {
        let answers = match &self.link {
            Link::One(connection) => stream::iter(writes(questions))
                .map(|write| self.write(connection, write))
                .buffered(WRITES_UNDER_WAY)
                .boxed(),
            // The nodes are asked at the same time; what goes to one node is written together.
            Link::Cluster(connection) => {
                let ask = |question| self.ask_cluster(connection, question, None).map(|reply| Ok(vec![reply?]));
                stream::iter(questions).map(ask).buffered(QUESTIONS_A_WRITE).boxed()
            }
        };
        Replies { answers, ready: Vec::new().into_iter() }
    }

    /// Asks one node one question.
    pub(crate) async fn ask_node(&self, node: &Node, question: Cmd) -> Result<Value, Error> {
        match (&self.link, node) {
            (Link::Cluster(connection), Node::At { host, port }) => {
                let at = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                self.ask_cluster(connection, question, Some(at)).await
            }
            _ => self.ask(std::iter::once(question)).next().await,
        }
    }

    /// The servers that hold keys.
    pub(crate) async fn nodes(&self) -> Result<Vec<Node>, Error> {
        if matches!(self.link, Link::One(_)) {
            return Ok(vec![Node::Only]);
        }
        let reply = self.ask(std::iter::once(commands::cluster_slots())).next().await?;
        match Answer::read(reply, replies::cluster_masters) {
            Answer::Yes(masters) => Ok(masters.into_iter().map(|(host, port)| Node::At { host, port }).collect()),
            Answer::Gone => Err(Error::protocol("the slots of the Cluster")),
            Answer::No(error) => Err(error.context("CLUSTER SLOTS")),
        }
    }

    async fn write(&self, connection: &MultiplexedConnection, write: Pipeline) -> Result<Vec<Value>, Error> {
        let replies = connection.clone().req_packed_commands(&write, 0, write.len()).await;
        // That the connection is lost is also what redis-rs says when it cannot read what came.
        replies.map_err(|error| self.lost(error))
    }

    async fn ask_cluster(
        &self,
        connection: &ClusterConnection,
        question: Cmd,
        node: Option<SingleNodeRoutingInfo>,
    ) -> Result<Value, Error> {
        let mut connection = connection.clone();
        let reply: RedisResult<Value> = match node {
            Some(node) => connection.route_command(question, RoutingInfo::SingleNode(node)).await,
            None => connection.req_packed_command(&question).await,
        };
        // An error that a server answered is a reply like any other, unless it is about the Cluster as a whole. One
        // that still points elsewhere, after all the following, means that the node it points to is not there.
        reply.or_else(|error| match ServerError::try_from(error) {
            Ok(answered) if points_elsewhere(&answered) => {
                Err(self.lost(Error::new(Kind::Connect, answered.to_string())))
            }
            Ok(answered) => Ok(Value::ServerError(answered)),
            Err(error) => Err(self.lost(error)),
        })
    }

    fn lost(&self, error: impl Into<Error>) -> Error {
        error.into().context(format_args!("lost the connection to {}", self.peer))
    }

    /// Does the server let us count with a script, as far as we know?
    pub(crate) fn may_count(&self) -> bool {
        self.no_count().is_none_or(|refused| refused.elapsed() > NO_COUNT_FOR)
    }

    /// The server does not let us count with a script.
    pub(crate) fn stop_counting(&self) {
        *self.no_count() = Some(Instant::now());
    }

    fn no_count(&self) -> MutexGuard<'_, Option<Instant>> {
        self.no_count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn points_elsewhere(error: &ServerError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    matches!(error.kind(), Some(Ask | ClusterDown | Moved | TryAgain))
}

/// The questions, parcelled.
fn writes(questions: impl Iterator<Item = Cmd>) -> impl Iterator<Item = Pipeline> {
    let mut questions = questions.fuse();
    std::iter::from_fn(move || {
        let mut write = Pipeline::new();
        for question in questions.by_ref().take(QUESTIONS_A_WRITE) {
            write.add_command(question);
        }
        (!write.is_empty()).then_some(write)
    })
}

/// Replies on their way.
pub(crate) struct Replies<'a> {
    answers: BoxStream<'a, Result<Vec<Value>, Error>>,
    ready: vec::IntoIter<Value>,
}

impl Replies<'_> {
    /// The next reply, which may be an error of Redis's; the error here is that there is no reply.
    pub(crate) async fn next(&mut self) -> Result<Value, Error> {
        loop {
            if let Some(reply) = self.ready.next() {
                return Ok(reply);
            }
            let more = self.answers.try_next().await?;
            self.ready = more.ok_or_else(|| Error::protocol("one reply for each question"))?.into_iter();
        }
    }
}
