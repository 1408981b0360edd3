//! Makes connections: to one server, to the master that Sentinels name, or to a Cluster. Has no deadline of its own: the
//! collection has one.

use std::{io, sync::Arc, time::Duration};

use redis::{
    ConnectionAddr, FromRedisValue, RedisConnectionInfo, Value, cluster::ClusterClientBuilder, io::tcp::TcpSettings,
};
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{connection::Connection, endpoint::Endpoint, progress::Progress, tls, wire::Wire};
use crate::{
    config::Topology,
    model::error::{Cause, Error, Kind},
};

/// How long sent bytes may stay unacknowledged by the other machine: a connection whose other end vanished is noticed
/// while there is still time for a new one. What is under way before Redis's first reply fits into the other machine's
/// buffer, so that a Redis that is only busy is not taken for one that vanished.
const UNACKNOWLEDGED_FOR: Duration = Duration::from_secs(2);

/// A command to a node of a Cluster is repeated so often, with so many milliseconds in between: the node may be handing
/// a slot over.
const CLUSTER_RETRIES: u32 = 3;
const CLUSTER_RETRY_WAIT: (u64, u64) = (20, 200);

/// redis-rs has limits of its own, of seconds, where it is not told others.
const NO_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Connects and logs in.
pub(super) async fn connect(endpoint: &Endpoint, progress: &Progress) -> Result<Connection, Error> {
    let connection = match &endpoint.topology {
        Topology::Single => to_single(endpoint, progress).await,
        Topology::Sentinel(master) => to_master(endpoint, master, progress).await,
        Topology::Cluster => to_cluster(endpoint).await,
    };
    connection.map_err(|error| error.context(format_args!("cannot connect to {endpoint}")))
}

async fn to_single(endpoint: &Endpoint, progress: &Progress) -> Result<Connection, Error> {
    let address = endpoint.addresses.first().ok_or_else(|| Error::new(Kind::Connect, "no address"))?;
    let wire = open(endpoint, address, &endpoint.current_login()?, progress).await?;
    Ok(Connection::to_one(wire, endpoint.to_string()))
}

/// Asks the Sentinels in turn where the master is, and connects to it if it says itself that it is one.
async fn to_master(endpoint: &Endpoint, master: &str, progress: &Progress) -> Result<Connection, Error> {
    let mut last = Error::new(Kind::Connect, "no Sentinel");
    for sentinel in &endpoint.addresses {
        let found = match master_address(endpoint, sentinel, master, progress).await {
            Ok(address) => to_server_that_is_master(endpoint, &address, progress).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn to_server_that_is_master(
    endpoint: &Endpoint,
    address: &ConnectionAddr,
    progress: &Progress,
) -> Result<Connection, Error> {
    let wire = open(endpoint, address, &endpoint.current_login()?, progress).await?;
    let role = answered(wire.send_plain(redis::cmd("ROLE")).await?)?;
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
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let found = answered(wire.send_plain(command).await?)?;
    let found = <Option<(String, u16)>>::from_redis_value(found).map_err(|_| Error::protocol("a host and a port"))?;
    let (host, port) =
        found.ok_or_else(|| Error::new(Kind::Connect, format!("Sentinel {sentinel} knows no master {master}")))?;
    Ok(match sentinel {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    })
}

async fn to_cluster(endpoint: &Endpoint) -> Result<Connection, Error> {
    let login = endpoint.current_login()?;
    let (shortest, longest) = CLUSTER_RETRY_WAIT;
    let mut builder = ClusterClientBuilder::new(endpoint.addresses.clone())
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(shortest)
        .max_retry_wait(longest)
        .connection_timeout(NO_LIMIT)
        .response_timeout(NO_LIMIT)
        .tcp_settings(tcp_settings());
    if let Some(username) = login.username() {
        builder = builder.username(username);
    }
    if let Some(password) = login.password() {
        builder = builder.password(password);
    }
    if endpoint.is_tls() {
        builder = builder.certs(tls::cluster_certificates(&endpoint.tls)?);
    }
    let connection = builder.build()?.get_async_connection().await?;
    Ok(Connection::to_cluster(connection, endpoint.to_string()))
}

fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_FOR);
    settings
}

/// Connects to one server and logs in.
async fn open(
    endpoint: &Endpoint,
    address: &ConnectionAddr,
    login: &RedisConnectionInfo,
    progress: &Progress,
) -> Result<Wire, Error> {
    let wire = match address {
        ConnectionAddr::Unix(path) => Wire::new(UnixStream::connect(path).await.map_err(|error| refused(&error))?),
        ConnectionAddr::Tcp(host, port) => Wire::new(tcp(host, *port).await?),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let config = tls::client_config(&endpoint.tls)?;
            let name = ServerName::try_from(host.clone())
                .map_err(|_| Error::new(Kind::Connect, format!("'{host}' is no name that a certificate can have")))?;
            let connector = TlsConnector::from(Arc::new(config));
            let tcp = tcp(host, *port).await?;
            progress.lock().in_handshake = true;
            let stream = connector.connect(name, tcp).await;
            progress.lock().in_handshake = false;
            Wire::new(stream.map_err(|error| handshake_failed(&error))?)
        }
        _ => return Err(Error::new(Kind::Connect, "an address of an unknown kind")),
    };
    log_in(&wire, login).await?;
    Ok(wire)
}

async fn log_in(wire: &Wire, login: &RedisConnectionInfo) -> Result<(), Error> {
    if let Some(password) = login.password() {
        let mut auth = redis::cmd("AUTH");
        auth.arg(login.username()).arg(password);
        answered(wire.send_plain(auth).await?).map_err(|error| match error.kind() {
            // A password where none is set, or a name where there are no users.
            Kind::Other => error.of_kind(Kind::Auth),
            _ => error,
        })?;
    }
    if login.db() != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(login.db());
        answered(wire.send_plain(select).await?).map_err(|error| error.context("SELECT"))?;
    }
    Ok(())
}

/// The reply, unless it is an error.
fn answered(reply: Value) -> Result<Value, Error> {
    match reply {
        Value::ServerError(error) => Err(error.into()),
        reply => Ok(reply),
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect((host, port)).await.map_err(|error| refused(&error))?;
    stream.set_nodelay(true).map_err(|error| refused(&error))?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_FOR)).map_err(|error| refused(&error))?;
    Ok(stream)
}

fn refused(error: &io::Error) -> Error {
    Error::new(Kind::Connect, error.to_string())
}

fn handshake_failed(error: &io::Error) -> Error {
    let no_tls = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => Some(Cause::NoTls),
        _ => None,
    };
    let hint = if no_tls.is_some() { ": it does not speak TLS; is it a redis:// port?" } else { "" };
    Error::new(Kind::Connect, format!("the TLS handshake failed: {error}{hint}")).because(no_tls)
}
