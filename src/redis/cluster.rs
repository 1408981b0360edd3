//! A Cluster: which node has which slots, a connection to each node, and how a command finds its node.
//!
//! Who has which slots is asked at the beginning of each collection; a slot that moves meanwhile is followed. A node that
//! cannot be reached, or sends nothing for as long as the limit, is left out of that collection: its streams are not collected,
//! and the page comes later by that limit.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use redis::ServerError;
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};

use super::{
    commands::{self, Command},
    endpoint::Endpoint,
    errors,
    open::{address_like, first_of, host_and_port, open},
    progress::Progress,
    replies::{self, Reply},
    resp::{Item, Replies},
    wire::Wire,
};
use crate::model::error::{Error, Kind};

/// How often a command is sent elsewhere, or again.
const SENT_ELSEWHERE: usize = 5;
/// How long to wait before a command about a slot that is being migrated is sent again (TRYAGAIN).
const MIGRATING: Duration = Duration::from_millis(50);

/// The host and the port of a node.
pub(super) type Address = (String, u16);

/// The nodes of a Cluster during one collection.
pub(super) struct Cluster {
    endpoint: Arc<Endpoint>,
    /// How long a node may send nothing.
    limit: Duration,
    /// The master of each range of slots, by the last slot of the range.
    slots: BTreeMap<u64, Address>,
    nodes: Mutex<BTreeMap<Address, Arc<Node>>>,
}

/// One node. The connection to it is made when it is first needed.
#[derive(Default)]
struct Node {
    wire: OnceCell<Result<Wire, Error>>,
    /// It was connected, and then sent nothing for too long.
    silent: OnceLock<Error>,
}

impl Node {
    /// Can the next collection use its connection?
    fn is_connected(&self) -> bool {
        matches!(self.wire.get(), Some(Ok(wire)) if !wire.has_ended()) && self.silent.get().is_none()
    }
}

impl Cluster {
    /// Asks who has which slots, over the connections of the collection before where they are left. True where there are
    /// nodes that were not connected then.
    pub(super) async fn connect(
        endpoint: &Arc<Endpoint>,
        before: Option<&Self>,
        limit: Duration,
    ) -> Result<(Self, bool), Error> {
        let mut nodes = before.map(|before| before.lock().clone()).unwrap_or_default();
        nodes.retain(|_, node| node.is_connected());
        let given = endpoint.addresses.iter().filter_map(host_and_port);
        let given = given.filter(|address| !nodes.contains_key(address));
        let asked: Vec<_> = nodes.keys().cloned().chain(given).collect();
        let mut cluster =
            Self { endpoint: Arc::clone(endpoint), limit, slots: BTreeMap::new(), nodes: Mutex::new(nodes) };
        let slots = first_of(asked.iter().map(|address| cluster.slots_as_told_by(address)).collect::<Vec<_>>()).await?;
        cluster.slots = slots;
        let masters = cluster.masters();
        let has_new = {
            let mut nodes = cluster.lock();
            nodes.retain(|address, _| masters.contains(address));
            before.is_none() || nodes.len() < masters.len()
        };
        Ok((cluster, has_new))
    }

    async fn slots_as_told_by(&self, address: &Address) -> Result<BTreeMap<u64, Address>, Error> {
        let replies = self.send_to(address, &[commands::cluster_slots()]).await?;
        match Reply::read(replies.only(), |reply| replies::cluster_slots(reply, &address.0)) {
            Reply::Done(slots) if slots.is_empty() => Err(Error::new(Kind::Connect, "no node has any slots")),
            Reply::Done(slots) => Ok(slots),
            Reply::Gone => Err(Error::protocol("the slots of the Cluster")),
            Reply::Failed(error) => Err(error.context("CLUSTER SLOTS")),
        }
    }

    /// The nodes that have slots.
    pub(super) fn masters(&self) -> BTreeSet<Address> {
        self.slots.values().cloned().collect()
    }

    /// Sends each of these commands to its node, all at the same time, and gives their replies in order.
    pub(super) async fn send(&self, commands: &[Command]) -> Replies {
        let sent = join_all(commands.iter().map(|command| self.send_one(command)));
        let mut replies = Replies::for_commands(commands.len());
        for reply in sent.await {
            replies.push_last(&reply.unwrap_or_else(|error| self.unreachable(error)));
        }
        replies
    }

    async fn send_one(&self, command: &Command) -> Result<Replies, Error> {
        if let Some(key) = command.key() {
            return self.follow(self.owner(key)?, command).await;
        }
        // Any node can answer it.
        let (masters, command) = (self.masters(), std::slice::from_ref(command));
        first_of(masters.iter().map(|master| self.send_to(master, command)).collect::<Vec<_>>()).await
    }

    /// Sends one command to this node.
    pub(super) async fn send_at(&self, address: &Address, command: &Command) -> Replies {
        let sent = self.send_to(address, std::slice::from_ref(command)).await;
        sent.unwrap_or_else(|error| self.unreachable(error))
    }

    /// What stands for the reply of a node that gave none. It costs only what it would have answered.
    fn unreachable(&self, error: Error) -> Replies {
        errors::unreachable(&error.context(&self.endpoint))
    }

    /// Sends a command to this node, or to the one that it names instead.
    async fn follow(&self, first: &Address, command: &Command) -> Result<Replies, Error> {
        let (mut at, mut is_migrating) = (first.clone(), false);
        let mut elsewhere = Error::protocol("a reply");
        for _ in 0..=SENT_ELSEWHERE {
            let replies = if is_migrating {
                self.send_to(&at, &[commands::asking(), command.clone()]).await?
            } else {
                self.send_to(&at, std::slice::from_ref(command)).await?
            };
            if let (true, Some(Item::Error(refused))) = (is_migrating, replies.items().next()) {
                return Err(Error::from(refused).context("ASKING"));
            }
            let Item::Error(error) = replies.last_item() else { return Ok(replies) };
            match (error.code(), named_instead(&error, &at.0)) {
                ("MOVED", Some(to)) => (at, is_migrating) = (to, false),
                ("ASK", Some(to)) => (at, is_migrating) = (to, true),
                ("TRYAGAIN", _) => sleep(MIGRATING).await,
                _ => return Ok(replies),
            }
            elsewhere = error.into();
        }
        Err(elsewhere.of_kind(Kind::Connect))
    }

    /// Sends these commands to this node in one write. What the node answers for all its keys, as that it is loading, is an
    /// error; a missing login is not, since it is the same everywhere.
    async fn send_to(&self, address: &Address, commands: &[Command]) -> Result<Replies, Error> {
        let sent = async {
            let replies = self.send_over(&self.node(address), address, commands).await?;
            match replies.last_item() {
                Item::Error(error) => match Error::from(error) {
                    error if error.is_about_the_server() && error.kind() != Kind::Auth => Err(error),
                    _ => Ok(replies),
                },
                _ => Ok(replies),
            }
        };
        sent.await.map_err(|error| error.context(format_args!("node {}:{}", address.0, address.1)))
    }

    async fn send_over(&self, node: &Node, address: &Address, commands: &[Command]) -> Result<Replies, Error> {
        if let Some(error) = node.silent.get() {
            return Err(error.clone());
        }
        let wire = node.wire.get_or_init(|| self.open(address)).await.as_ref().map_err(Clone::clone)?;
        let mut sending = pin!(wire.send(commands));
        loop {
            let reads = wire.reads();
            match timeout(self.limit, &mut sending).await {
                Ok(replies) => return replies,
                // A long reply is on its way.
                Err(_) if wire.reads() > reads => {}
                Err(_) => return Err(node.silent.get_or_init(|| self.too_slow("no reply")).clone()),
            }
        }
    }

    /// What is known of this node. A connection that broke is made anew.
    fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = self.lock();
        let node = nodes.entry(address.clone()).or_default();
        if matches!(node.wire.get(), Some(Ok(wire)) if wire.has_ended()) {
            *node = Arc::default();
        }
        Arc::clone(node)
    }

    async fn open(&self, (host, port): &Address) -> Result<Wire, Error> {
        let first = self.endpoint.addresses.first().ok_or_else(|| Error::new(Kind::Connect, "no address"))?;
        let (address, login) = (address_like(first, host.clone(), *port), self.endpoint.current_login()?);
        let unseen = Progress::default();
        let opened = timeout(self.limit, open(&self.endpoint, &address, &login, &unseen)).await;
        opened.unwrap_or_else(|_| Err(self.too_slow("no connection")))
    }

    fn too_slow(&self, what: &str) -> Error {
        Error::new(Kind::Timeout, format!("{what} within {:.1?}", self.limit))
    }

    /// Who has the slot of this key.
    fn owner(&self, key: &[u8]) -> Result<&Address, Error> {
        let next = self.slots.range(slot(key)..).next().or_else(|| self.slots.first_key_value());
        next.map(|(_, address)| address).ok_or_else(|| Error::new(Kind::Connect, "no node has any slots"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Address, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node that `MOVED` or `ASK` names: `3999 127.0.0.1:6381`, with the host of the node that says it where it names none.
fn named_instead(error: &ServerError, said_by: &str) -> Option<Address> {
    let (_, address) = error.details()?.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { said_by } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

/// The slot of a key: that of what stands in its first pair of braces, if anything does.
fn slot(key: &[u8]) -> u64 {
    let in_braces = || {
        let from = key.iter().position(|byte| *byte == b'{')? + 1;
        let rest = key.get(from..)?;
        rest.get(..rest.iter().position(|byte| *byte == b'}')?).filter(|tag| !tag.is_empty())
    };
    u64::from(crc16(in_braces().unwrap_or(key)) % 16_384)
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| (crc << 1) ^ if crc >> 15 == 1 { 0x1021 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, same) in
            [("{a}b", "a"), ("x{a}b", "a"), ("x{a}{b}", "a"), ("{a{b}", "a{b"), ("{a", "{a"), ("{}a", "{}a")]
        {
            assert_eq!(slot(key.as_bytes()), u64::from(crc16(same.as_bytes()) % 16_384), "{key}");
        }
        assert_eq!(slot(b"foo"), 12_182);
    }

    #[test]
    fn the_node_that_is_named_instead_is_read() {
        for (details, expected) in [
            ("3999 127.0.0.1:6381", Some(("127.0.0.1", 6381))),
            ("3999 ::1:6381", Some(("::1", 6381))),
            ("3999 :6381", Some(("asked", 6381))),
            ("3999", None),
            ("3999 host", None),
            ("3999 host:port", None),
        ] {
            let error = redis::make_extension_error("MOVED".to_owned(), Some(details.to_owned()));
            let error = ServerError::try_from(error).unwrap();
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(named_instead(&error, "asked"), expected, "{details}");
        }
    }
}
