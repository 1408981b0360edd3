//! One connection to Redis, and how commands travel over it. Knows nothing of streams.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{
    cluster::{Address, Cluster},
    commands::{self, Command},
    errors,
    replies::{self, Reply},
    resp::Replies,
    wire::Wire,
};
use crate::model::{backlog::LagTrust, error::Error};

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
    /// All nodes of a Cluster.
    Cluster(Arc<Cluster>),
}

/// A server that holds keys of its own, and so has to be walked on its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    /// The only one.
    Only,
    /// A master of a Cluster.
    At(Address),
}

impl Connection {
    pub(super) fn to_one(wire: Wire, peer: String) -> Self {
        Self { link: Link::One(wire), peer }
    }

    pub(super) fn to_cluster(cluster: Cluster, peer: String) -> Self {
        Self { link: Link::Cluster(Arc::new(cluster)), peer }
    }

    pub(super) fn cluster(&self) -> Option<&Cluster> {
        if let Link::Cluster(cluster) = &self.link { Some(cluster) } else { None }
    }

    /// Sends these commands in one write, and gives their replies in order. In a Cluster each node gets its own at the
    /// same time.
    pub(crate) async fn send(&self, commands: &[Command]) -> Result<Replies, Error> {
        match &self.link {
            Link::One(wire) => wire.send(commands).await.map_err(|error| self.lost(error)),
            // A node that cannot be reached costs only what it would have answered.
            Link::Cluster(cluster) => Ok(cluster.send(commands).await),
        }
    }

    /// Sends one command to one node. One of a Cluster that cannot be reached costs only this reply.
    pub(crate) async fn send_to(&self, node: &Node, command: &Command) -> Result<Replies, Error> {
        match (&self.link, node) {
            (Link::Cluster(cluster), Node::At(address)) => Ok(cluster.send_at(address, command).await),
            _ => self.send(std::slice::from_ref(command)).await,
        }
    }

    /// The servers that hold keys.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        match &self.link {
            Link::One(_) => vec![Node::Only],
            Link::Cluster(cluster) => cluster.masters().into_iter().map(Node::At).collect(),
        }
    }

    /// For which groups a lag is exact. `HELLO` tells it, which needs no right. Of a Cluster all masters that can be reached
    /// have to be alike.
    pub(crate) async fn lag_trust(&self) -> Result<LagTrust, Error> {
        let (nodes, hello) = (self.nodes(), commands::hello());
        let replies = join_all(nodes.iter().map(|node| self.send_to(node, &hello))).await;
        let replies = replies.into_iter().collect::<Result<Vec<_>, _>>()?;
        let trust = |replies: &Replies| match Reply::read(replies.only(), replies::lag_trust) {
            Reply::Done(trust) => trust,
            Reply::Gone | Reply::Failed(_) => LagTrust::Never,
        };
        let mut trusts: Vec<_> = replies.iter().filter(|reply| errors::is_reply(&reply.only())).map(trust).collect();
        trusts.dedup();
        Ok(if let [trust] = trusts[..] { trust } else { LagTrust::Never })
    }

    fn lost(&self, error: Error) -> Error {
        error.context(format_args!("lost the connection to {}", self.peer))
    }
}
