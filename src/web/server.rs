//! Accepts connections, serves each of them, and ends gracefully.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, Ipv6Addr},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::future::join_all;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::yield_now,
    time::{sleep, timeout},
};

use crate::{
    config::ListenAddress,
    web::{
        connections::{Activity, Connections, Slot},
        routes::{Pages, Site},
        stream::Stream,
    },
};

/// A client that does not acknowledge its response is disconnected after this long.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of one request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// How many clients the system queues for each listener. It takes less where `net.core.somaxconn` is less.
const BACKLOG: i32 = 4096;

/// Binds an address: all interfaces, IPv6 and IPv4, where it names no host.
///
/// # Errors
/// The system's, if the address is taken or is not one of this machine.
pub async fn bind(address: &ListenAddress) -> io::Result<TcpListener> {
    let listener = match &address.host {
        Some(host) => TcpListener::bind((host.as_str(), address.port)).await,
        None => match bind_all(address.port) {
            // This system has no IPv6.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind(("0.0.0.0", address.port)).await
            }
            bound => bound,
        },
    }?;
    // Tokio's backlog is 1,024. Beyond it the system ignores a client, which tries again only a second later.
    socket2::SockRef::from(&listener).listen(BACKLOG)?;
    Ok(listener)
}

/// Binds all interfaces for IPv6 and IPv4, also where the system's default is IPv6 only.
fn bind_all(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    socket2::SockRef::from(&socket).set_only_v6(false)?;
    // As tokio does it.
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv6Addr::UNSPECIFIED, port).into())?;
    socket.listen(BACKLOG.unsigned_abs())
}

/// Serves until `shutdown`, then finishes the requests that are being answered, for at most `drain`.
pub async fn serve<P: Pages>(
    listeners: Vec<TcpListener>,
    site: Site<P>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) {
    let (notify_shutdown, _) = watch::channel(());
    let (site, connections) = (Arc::new(site), Connections::new());
    let listeners = listeners.into_iter().map(|socket| Listener {
        socket,
        site: Arc::clone(&site),
        connections: Arc::clone(&connections),
        notify_shutdown: notify_shutdown.clone(),
    });
    tokio::select! {
        _ = join_all(listeners.map(Listener::run)) => {}
        () = shutdown => {}
    }
    // Each connection holds a receiver as long as it is open.
    let _ = notify_shutdown.send(());
    if timeout(drain, notify_shutdown.closed()).await.is_err() {
        tracing::warn!("some requests were not finished in time");
    }
}

/// Accepts connections on one address.
struct Listener<P> {
    socket: TcpListener,
    site: Arc<Site<P>>,
    /// Limits the connections of all listeners together.
    connections: Arc<Connections>,
    notify_shutdown: watch::Sender<()>,
}

impl<P: Pages> Listener<P> {
    /// Does not end by itself.
    async fn run(self) {
        let mut is_failing = false;
        loop {
            match self.socket.accept().await {
                Ok((client, address)) => {
                    is_failing = false;
                    let Some(slot) = self.connections.slot().await else { return };
                    let handler = Handler {
                        site: Arc::clone(&self.site),
                        address: address.ip(),
                        slot,
                        shutdown: self.notify_shutdown.subscribe(),
                    };
                    tokio::spawn(handler.run(client));
                }
                Err(error) => {
                    // Mostly a lack of file descriptors: another client has to make room. Trying again at once would
                    // only keep a core busy.
                    if !is_failing {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    is_failing = true;
                    let pause = if self.connections.disconnect_one() { 5 } else { 100 };
                    sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }
}

/// Serves one connection.
struct Handler<P> {
    site: Arc<Site<P>>,
    address: IpAddr,
    slot: Slot,
    shutdown: watch::Receiver<()>,
}

impl<P: Pages> Handler<P> {
    async fn run(mut self, client: TcpStream) {
        // Without these options a client is only slower, or stays longer.
        let _ = client.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&client).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT));

        let activity = &self.slot.activity;
        let tls = self.site.web.current().tls.clone();
        let stream = Stream::new(client, tls.as_ref(), Arc::clone(activity));
        let (site, tls, address) = (&self.site, tls.as_ref(), self.address);
        let service = service_fn(|request| async move {
            activity.request_received();
            let response = site.respond(address, tls, &request).await;
            activity.response_ready();
            Ok::<_, Infallible>(response)
        });
        let connection = http1::Builder::new()
            // The activity's deadlines are stricter.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            () = until_deadline(connection.as_mut(), activity) => return,
            () = activity.disconnected() => {}
            _ = self.shutdown.changed() => {}
        }
        // The runtime may not have noticed yet that a request has arrived: let it look before the connection is closed.
        tokio::select! {
            biased;
            () = until_deadline(connection.as_mut(), activity) => return,
            () = yield_now() => {}
        }
        if !activity.is_idle() {
            connection.as_mut().graceful_shutdown();
            until_deadline(connection, activity).await;
        }
    }
}

/// Runs the connection to its end, or until the client has been idle or slow for too long.
///
/// Errors are not logged: clients disconnect at any time.
async fn until_deadline<T>(mut connection: Pin<&mut impl Future<Output = T>>, activity: &Activity) {
    let mut timer = pin!(sleep(Duration::ZERO));
    poll_fn(|context| {
        if connection.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // Only the connection's own progress changes its deadline, so it is enough to look here.
        match activity.deadline() {
            None => Poll::Pending,
            Some(deadline) => {
                if timer.deadline() != deadline {
                    timer.as_mut().reset(deadline);
                }
                timer.as_mut().poll(context)
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::{future::pending, io::Write, net};

    use tokio::sync::mpsc;

    use super::*;
    use crate::{exposition::format::Format, report::Report, web::config::ReloadingConfig};

    /// Pages that are never complete. Says when one is begun, and when one is dropped.
    struct Endless(mpsc::UnboundedSender<&'static str>);

    struct Begun<'a>(&'a Endless);

    impl Drop for Begun<'_> {
        fn drop(&mut self) {
            self.0.0.send("dropped").unwrap();
        }
    }

    impl Pages for Endless {
        async fn metrics(&self, _: Format, _: Option<Duration>) -> String {
            self.0.send("begun").unwrap();
            let _begun = Begun(self);
            pending().await
        }

        async fn report(&self) -> Report {
            pending().await
        }

        fn options(&self) -> &[(&'static str, String)] {
            &[]
        }
    }

    #[tokio::test]
    async fn a_page_is_dropped_when_its_client_disconnects() {
        let (events, mut seen) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let web = ReloadingConfig::load(None).unwrap();
        let site = Site { pages: Endless(events), telemetry_path: "/metrics".into(), web };
        tokio::spawn(serve(vec![listener], site, pending(), Duration::ZERO));
        let mut client = net::TcpStream::connect(address).unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(seen.recv().await, Some("begun"));
        drop(client);
        assert_eq!(timeout(Duration::from_secs(5), seen.recv()).await, Ok(Some("dropped")));
    }
}
