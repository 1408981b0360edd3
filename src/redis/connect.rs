//! Makes connections: to one server, to the master that Sentinels name, or to a Cluster. Only a node of a Cluster has a
//! limit of its own here; the collection has one for all the rest.

use std::{sync::Arc, time::Duration};

use redis::{ConnectionAddr, FromRedisValue};

use super::{
    cluster::Cluster,
    commands,
    connection::Connection,
    endpoint::Endpoint,
    open::{address_like, ask, first_of, open},
    progress::Progress,
};
use crate::{
    config::Topology,
    model::error::{Error, Kind},
};

/// The part of a collection's time after which a node of a Cluster that sends nothing is left out of the collection.
const LIMIT_OF_NODE: u32 = 3;

/// Connects and logs in, or goes on with the connection of the collection before. True where a server may be another one
/// than before.
pub(super) async fn connect(
    endpoint: &Arc<Endpoint>,
    before: Option<Connection>,
    limit: Duration,
    progress: &Progress,
) -> Result<(Connection, bool), Error> {
    let connected = match (&endpoint.topology, before) {
        (Topology::Cluster, before) => to_cluster(endpoint, before, limit).await,
        (_, Some(before)) => return Ok((before, false)),
        (Topology::Single, None) => to_single(endpoint, progress).await.map(|connection| (connection, true)),
        (Topology::Sentinel(master), None) => {
            to_master(endpoint, master, progress).await.map(|connection| (connection, true))
        }
    };
    // An attempt that was given up may have left a handshake unanswered.
    progress.lock().in_handshake &= connected.is_err();
    connected.map_err(|error| error.context(format_args!("cannot connect to {endpoint}")))
}

async fn to_single(endpoint: &Endpoint, progress: &Progress) -> Result<Connection, Error> {
    let address = endpoint.addresses.first().ok_or_else(|| Error::new(Kind::Connect, "no address"))?;
    let wire = open(endpoint, address, &endpoint.current_login()?, progress).await?;
    Ok(Connection::to_one(wire, endpoint.to_string()))
}

async fn to_cluster(
    endpoint: &Arc<Endpoint>,
    before: Option<Connection>,
    limit: Duration,
) -> Result<(Connection, bool), Error> {
    let before = before.as_ref().and_then(Connection::cluster);
    let (cluster, has_new) = Cluster::connect(endpoint, before, limit / LIMIT_OF_NODE).await?;
    Ok((Connection::to_cluster(cluster, endpoint.to_string()), has_new))
}

/// Asks the Sentinels where the master is, and connects to it if it says itself that it is one. The first Sentinel is the
/// only one that is asked, unless it does not lead there soon.
async fn to_master(endpoint: &Endpoint, master: &str, progress: &Progress) -> Result<Connection, Error> {
    let through = |sentinel| async move {
        let address = master_address(endpoint, sentinel, master, progress).await?;
        to_server_that_is_master(endpoint, &address, progress).await
    };
    first_of(endpoint.addresses.iter().map(through).collect::<Vec<_>>()).await
}

async fn to_server_that_is_master(
    endpoint: &Endpoint,
    address: &ConnectionAddr,
    progress: &Progress,
) -> Result<Connection, Error> {
    let wire = open(endpoint, address, &endpoint.current_login()?, progress).await?;
    let role = ask(&wire, commands::role()).await?;
    let role = role.into_sequence().ok().and_then(|role| role.into_iter().next());
    match role.map(String::from_redis_value) {
        Some(Ok(role)) if role == "master" => Ok(Connection::to_one(wire, endpoint.to_string())),
        _ => Err(Error::new(Kind::Connect, format!("{address} is not the master that the Sentinel says it is"))),
    }
}

/// Where this Sentinel says that the master is.
async fn master_address(
    endpoint: &Endpoint,
    sentinel: &ConnectionAddr,
    master: &str,
    progress: &Progress,
) -> Result<ConnectionAddr, Error> {
    let wire = open(endpoint, sentinel, &endpoint.sentinel_login, progress).await?;
    let found = ask(&wire, commands::master_address(master)).await?;
    let found = <Option<(String, u16)>>::from_redis_value(found).map_err(|_| Error::protocol("a host and a port"))?;
    let (host, port) =
        found.ok_or_else(|| Error::new(Kind::Connect, format!("Sentinel {sentinel} knows no master {master}")))?;
    Ok(address_like(sentinel, host, port))
}
