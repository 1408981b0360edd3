//! Opens a connection to one server and logs in.

use std::{io, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{ConnectionAddr, RedisConnectionInfo, Value};
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    commands::{self, Command},
    endpoint::Endpoint,
    progress::Progress,
    tls,
    wire::Wire,
};
use crate::model::error::{Cause, Error, Kind};

/// How long sent bytes may stay unacknowledged by the other machine: a connection whose other end vanished is noticed
/// while there is still time for a new one. What is under way before Redis's first reply fits into the other machine's
/// buffer, so that a Redis that is only busy is not taken for one that vanished.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_FOR: Duration = Duration::from_secs(2);

/// How long one address is tried alone, where there are others that lead to the same.
const TRIED_ALONE: Duration = Duration::from_millis(300);

/// The first of these attempts that succeeds. The next one begins when the one before failed, or has taken a while; that one
/// goes on beside it.
pub(super) async fn first_of<T, A>(attempts: impl IntoIterator<Item = A>) -> Result<T, Error>
where
    A: Future<Output = Result<T, Error>>,
{
    let mut attempts = attempts.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut failed = Error::new(Kind::Connect, "there is no address");
    loop {
        under_way.extend(attempts.next());
        match timeout(TRIED_ALONE, under_way.next()).await {
            Ok(Some(Ok(found))) => return Ok(found),
            Ok(Some(Err(error))) => failed = error,
            Ok(None) => return Err(failed),
            Err(_) => {}
        }
    }
}

/// Connects to one server and logs in.
pub(super) async fn open(
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

/// The address of another server, with TLS where the known one has it.
pub(super) fn address_like(known: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    match known {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    }
}

/// The host and the port of a server that is reached over the network.
pub(super) fn host_and_port(address: &ConnectionAddr) -> Option<(String, u16)> {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Some((host.clone(), *port)),
        _ => None,
    }
}

async fn log_in(wire: &Wire, login: &RedisConnectionInfo) -> Result<(), Error> {
    if let Some(password) = login.password() {
        ask(wire, commands::auth(login.username(), password)).await.map_err(|error| match error.kind() {
            // A password where none is set, or a name where there are no users.
            Kind::Other => error.of_kind(Kind::Auth),
            _ => error,
        })?;
    }
    if login.db() != 0 {
        ask(wire, commands::select(login.db())).await.map_err(|error| error.context("SELECT"))?;
    }
    Ok(())
}

/// The reply to one command, unless it is an error.
pub(super) async fn ask(wire: &Wire, command: Command) -> Result<Value, Error> {
    match redis::parse_redis_value(wire.send(&[command]).await?.last())? {
        Value::ServerError(error) => Err(error.into()),
        reply => Ok(reply),
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Error> {
    let addresses = lookup_host((host, port)).await.map_err(|error| refused(&error))?;
    let connect = async |address| TcpStream::connect(address).await.map_err(|error| refused(&error));
    let stream = first_of(addresses.map(connect).collect::<Vec<_>>()).await?;
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

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        pin::Pin,
    };

    use tokio::time::{Instant, sleep};

    use super::*;

    type Attempt = Pin<Box<dyn Future<Output = Result<&'static str, Error>>>>;

    fn refuses() -> Attempt {
        Box::pin(ready(Err(Error::new(Kind::Connect, "refused"))))
    }

    async fn found_after(wait: Duration) -> Result<&'static str, Error> {
        sleep(wait).await;
        Ok("found")
    }

    /// What came of these attempts, how long it took, and how many of them were begun.
    async fn tried(attempts: Vec<Attempt>) -> (Option<&'static str>, Duration, usize) {
        let (began, mut count) = (Instant::now(), 0);
        let found = first_of(attempts.into_iter().inspect(|_| count += 1)).await;
        (found.ok(), began.elapsed(), count)
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_where_the_one_before_fails_or_takes_a_while() {
        let (quick, slow) = (TRIED_ALONE / 2, TRIED_ALONE * 3 / 2);
        let cases: [(Vec<Attempt>, _); 6] = [
            (vec![Box::pin(found_after(quick)), Box::pin(ready(Ok("second")))], (Some("found"), quick, 1)),
            (vec![refuses(), Box::pin(ready(Ok("second")))], (Some("second"), Duration::ZERO, 2)),
            (vec![Box::pin(pending()), Box::pin(ready(Ok("second")))], (Some("second"), TRIED_ALONE, 2)),
            // The slow one goes on beside the others.
            (vec![Box::pin(found_after(slow)), Box::pin(pending())], (Some("found"), slow, 2)),
            (vec![refuses(), refuses()], (None, Duration::ZERO, 2)),
            (vec![], (None, Duration::ZERO, 0)),
        ];
        for (attempts, expected) in cases {
            assert_eq!(tried(attempts).await, expected);
        }
    }
}
