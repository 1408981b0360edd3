//! One connection to Redis, and how commands travel over it. Knows nothing of streams.

use futures_util::future::join_all;
use redis::{
    RedisResult, ServerError, ServerErrorKind, Value,
    aio::ConnectionLike,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};

use super::{
    commands::{self, Command},
    errors,
    replies::{self, Reply},
    resp::Replies,
    wire::Wire,
};
use crate::model::{
    backlog::LagTrust,
    error::{Error, Kind},
};

/// A connection that is made and logged in. Dropping it closes it, whatever is still under way.
#[derive(Clone)]
pub(crate) struct Connection {
    link: Link,
    /// Who is at the other end, for the log.
    peer: String,
}

#[derive(Clone)]
enum Link {
    /// One server.
    One(Wire),
    /// All nodes of a Cluster. Each command finds its node by its key, and follows it when a slot moves.
    Cluster(ClusterConnection),
}

/// A server that holds keys of its own, and so has to be walked on its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    /// The only one.
    Only,
    /// A master of a Cluster.
    At { host: String, port: u16 },
}

impl Connection {
    pub(super) fn to_one(wire: Wire, peer: String) -> Self {
        Self { link: Link::One(wire), peer }
    }

    pub(crate) fn to_cluster(connection: ClusterConnection, peer: String) -> Self {
        Self { link: Link::Cluster(connection), peer }
    }

    /// Sends these commands in one write, and gives their replies in order. In a Cluster each node gets its own at the
    /// same time.
    pub(crate) async fn send(&self, commands: &[Command]) -> Result<Replies, Error> {
        match &self.link {
            Link::One(wire) => wire.send(commands).await.map_err(|error| self.lost(error)),
            // A node that cannot be reached costs only what it would have answered.
            Link::Cluster(connection) => {
                let send = |command| self.send_to_cluster(connection, command, None);
                let values = join_all(commands.iter().map(send)).await;
                let mut replies = Replies::default();
                for (value, command) in values.into_iter().zip(commands) {
                    let value = value.unwrap_or_else(|error| errors::unreachable(&error));
                    replies.push_value(&value, command.carries_entries());
                }
                Ok(replies)
            }
        }
    }

    /// Sends one command to one node. One of a Cluster that cannot be reached costs only this reply.
    pub(crate) async fn send_to(&self, node: &Node, command: &Command) -> Result<Replies, Error> {
        if let (Link::Cluster(connection), Node::At { host, port }) = (&self.link, node) {
            let at = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
            let value = self.send_to_cluster(connection, command, Some(RoutingInfo::SingleNode(at))).await;
            let value = value.unwrap_or_else(|error| errors::unreachable(&error));
            let mut replies = Replies::default();
            replies.push_value(&value, command.carries_entries());
            return Ok(replies);
        }
        self.send(std::slice::from_ref(command)).await
    }

    /// The servers that hold keys.
    pub(crate) async fn nodes(&self) -> Result<Vec<Node>, Error> {
        if matches!(self.link, Link::One(_)) {
            return Ok(vec![Node::Only]);
        }
        let replies = self.send(&[commands::cluster_slots()]).await?;
        match Reply::read(replies.only(), replies::cluster_masters) {
            Reply::Done(masters) => Ok(masters.into_iter().map(|(host, port)| Node::At { host, port }).collect()),
            Reply::Gone => Err(Error::protocol("the slots of the Cluster")),
            Reply::Failed(error) => Err(error.context("CLUSTER SLOTS")),
        }
    }

    /// For which groups a lag is exact. `HELLO` tells it, which needs no right. Of a Cluster all masters have to be alike.
    pub(crate) async fn lag_trust(&self) -> Result<LagTrust, Error> {
        let hello = commands::hello();
        let replies = match &self.link {
            Link::One(..) => vec![self.send(&[hello]).await?],
            Link::Cluster(_) => {
                let Ok(nodes) = self.nodes().await else { return Ok(LagTrust::Never) };
                let replies = join_all(nodes.iter().map(|node| self.send_to(node, &hello))).await;
                replies.into_iter().collect::<Result<Vec<_>, _>>()?
            }
        };
        let trust = |replies: &Replies| match Reply::read(replies.only(), replies::lag_trust) {
            Reply::Done(trust) => trust,
            Reply::Gone | Reply::Failed(_) => LagTrust::Never,
        };
        let mut trusts: Vec<_> = replies.iter().map(trust).collect();
        trusts.dedup();
        Ok(if let [trust] = trusts[..] { trust } else { LagTrust::Never })
    }

    async fn send_to_cluster(
        &self,
        connection: &ClusterConnection,
        command: &Command,
        route: Option<RoutingInfo>,
    ) -> Result<Value, Error> {
        let mut connection = connection.clone();
        let reply: RedisResult<Value> = match route {
            Some(route) => connection.route_command(command.cmd(), route).await,
            None => connection.req_packed_command(&command.cmd()).await,
        };
        // An error that a server answered is a reply like any other, unless it concerns the Cluster as a whole. One that
        // still points elsewhere, after all the following, means that the node it points to is not there.
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
}

fn points_elsewhere(error: &ServerError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    matches!(error.kind(), Some(Ask | ClusterDown | Moved | TryAgain))
}
