//! Our door: routes, what the client can read, limits, and a graceful end.
//!
//! Knows hyper and nothing of Redis: it is handed a function that makes the page. Who may come in, and through what, is
//! for [`crate::web::config_file`] to say.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io::{self, Write},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::future::{BoxFuture, join_all};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    config::ListenAddress,
    exposition::format::Format,
    web::basic_auth::Login,
    web::config_file::{Rules, WebConfig},
    web::tls::{Stream, Tls},
};

/// A client that connects has this long for its first request, and for the TLS handshake before it.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// A client that has asked once may stay this long without asking again: two of the longest usual scrape intervals.
const IDLE_FOR: Duration = Duration::from_secs(125);
/// A client that does not take its answer is dropped after this long.
const UNREAD_FOR: Duration = Duration::from_secs(30);
/// The most clients at a time. Further ones wait in the system's queue until one of them leaves.
const CONNECTIONS: usize = 512;
/// The most bytes of one request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// Prometheus sends it. What it says is when the scraper gives up.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// Makes the metrics page in this format; waits no longer than the scraper does, if that is known.
pub type MakePage =
    Box<dyn Fn(Format, Option<Duration>) -> BoxFuture<'static, Result<String, fmt::Error>> + Send + Sync>;

/// What there is to see.
pub struct Site {
    /// Where the metrics are.
    pub telemetry_path: String,
    /// What they are.
    pub make_page: MakePage,
    /// Who may see it.
    pub web: Arc<WebConfig>,
}

/// Binds an address: all interfaces, IPv6 and IPv4, where it names no host.
///
/// # Errors
/// The system's, if the address is taken or not ours.
pub async fn bind(address: &ListenAddress) -> io::Result<TcpListener> {
    match &address.host {
        Some(host) => TcpListener::bind((host.as_str(), address.port)).await,
        None => match TcpListener::bind(("::", address.port)).await {
            // No IPv6 here.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind(("0.0.0.0", address.port)).await
            }
            bound => bound,
        },
    }
}

/// Serves until `shutdown`, then finishes the requests under way, for at most `drain`.
pub async fn serve(listeners: Vec<TcpListener>, site: Site, shutdown: impl Future<Output = ()>, drain: Duration) {
    let door =
        Door { site: Arc::new(site), places: Arc::new(Semaphore::new(CONNECTIONS)), graceful: GracefulShutdown::new() };
    {
        let accept = join_all(listeners.iter().map(|listener| door.accept(listener)));
        tokio::select! {
            _ = accept => {}
            () = shutdown => {}
        }
    }
    drop(listeners);
    if timeout(drain, door.graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were not finished in time");
    }
}

struct Door {
    site: Arc<Site>,
    places: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl Door {
    /// Lets clients in, for ever.
    async fn accept(&self, listener: &TcpListener) {
        let mut refused = false;
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((client, _)) => {
                    refused = false;
                    self.welcome(client, place);
                }
                Err(error) => {
                    // Out of file descriptors, mostly. It passes when a client leaves; trying at once would only spin.
                    if !refused {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    refused = true;
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn welcome(&self, client: TcpStream, place: OwnedSemaphorePermit) {
        // Best effort: without these options a client is only slower, or stays longer.
        let _ = client.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&client).set_tcp_user_timeout(Some(UNREAD_FOR));

        let asked = Arc::new(AtomicBool::new(false));
        let site = Arc::clone(&self.site);
        let tls = site.web.rules().tls.clone();
        let stream = Stream::new(client, tls.as_ref());
        let service = service_fn({
            let asked = Arc::clone(&asked);
            move |request| {
                asked.store(true, Ordering::Relaxed);
                let (site, tls) = (Arc::clone(&site), tls.clone());
                async move { Ok::<_, Infallible>(receive(&site, tls.as_ref(), &request).await) }
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_FOR)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            tokio::select! {
                // A client that breaks off is its own business: nothing to log.
                _ = &mut connection => {}
                () = sleep(FIRST_REQUEST_WITHIN) => {
                    if asked.load(Ordering::Relaxed) {
                        let _ = connection.await;
                    }
                }
            }
            drop(place);
        });
    }
}

/// Answers those who may come in by the rules of this moment, and shows the others out.
async fn receive(site: &Site, came_through: Option<&Tls>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let rules = site.web.rules();
    let admitted = admit(&rules, request.headers()).await;
    let mut response = if admitted { answer(site, request).await } else { unauthorized() };
    let headers = response.headers_mut();
    for (name, value) in &rules.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    // Whoever is refused has to leave its place. So has whoever came in by other certificates, to come in by these.
    if !admitted || rules.tls.as_ref() != came_through {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn admit(rules: &Rules, asked: &HeaderMap) -> bool {
    let Some(users) = &rules.users else { return true };
    match asked.get(header::AUTHORIZATION).and_then(|value| Login::from_header(value.as_bytes())) {
        Some(login) => users.admit(login).await,
        None => false,
    }
}

fn unauthorized() -> Response<Full<Bytes>> {
    let mut refusal = plain(StatusCode::UNAUTHORIZED, "a user and a password, please\n");
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    refusal
}

async fn answer(site: &Site, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let known = [site.telemetry_path.as_str(), "/", "/-/healthy", "/-/ready"].contains(&path);
    if !known {
        return plain(StatusCode::NOT_FOUND, "no such page: see /\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/-/healthy" | "/-/ready" => plain(StatusCode::OK, "ok\n"),
        "/" => respond(StatusCode::OK, "text/html; charset=utf-8", landing_page(&site.telemetry_path)),
        _ => metrics(site, request.headers()).await,
    }
}

async fn metrics(site: &Site, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let format = format_for(asked);
    let Ok(text) = (site.make_page)(format, patience(asked)).await else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be written\n");
    };
    let packed = if takes_gzip(asked) { gzip(&text).ok() } else { None };
    let is_packed = packed.is_some();
    let mut response = respond(StatusCode::OK, format.content_type(), packed.unwrap_or_else(|| text.into_bytes()));
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if is_packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn landing_page(telemetry_path: &str) -> String {
    let path = telemetry_path.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>prompt-redis-exporter</title>\n\
         <h1>prompt-redis-exporter {}</h1>\n<p>Redis Streams consumer groups for Prometheus.</p>\n\
         <p><a href=\"{path}\">Metrics</a></p>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn gzip(text: &str) -> io::Result<Vec<u8>> {
    // Pages are long and alike from line to line: the fastest level packs them to a tenth.
    let mut packer = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    packer.write_all(text.as_bytes())?;
    packer.finish()
}

/// How long the scraper lets us work: half a second less than it waits itself, or half of it where that is little.
fn patience(asked: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = asked.get(SCRAPE_TIMEOUT)?.to_str().ok()?.trim().parse().ok()?;
    let waits = Duration::try_from_secs_f64(seconds).ok().filter(|waits| !waits.is_zero())?;
    Some(waits.saturating_sub(Duration::from_millis(500)).max(waits / 2))
}

/// The format that the client likes best; the classic one if it does not care.
fn format_for(asked: &HeaderMap) -> Format {
    let (mut openmetrics, mut classic) = (0.0_f32, 0.0_f32);
    for (media_type, parameters) in listed(asked, &header::ACCEPT) {
        let version = parameter(parameters, "version");
        match media_type.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" if version.is_none_or(|v| v == "1.0.0") => {
                openmetrics = openmetrics.max(quality(parameters));
            }
            "text/plain" if version.is_none_or(|v| v == "0.0.4") => classic = classic.max(quality(parameters)),
            "text/*" | "*/*" => classic = classic.max(quality(parameters)),
            _ => {}
        }
    }
    if openmetrics > 0.0 && openmetrics >= classic { Format::OpenMetrics } else { Format::Classic }
}

fn takes_gzip(asked: &HeaderMap) -> bool {
    // What is said of gzip itself counts more than what is said of anything.
    let said_of = |coding: &str| {
        listed(asked, &header::ACCEPT_ENCODING)
            .find(|(named, _)| named.eq_ignore_ascii_case(coding))
            .map(|(_, parameters)| quality(parameters) > 0.0)
    };
    said_of("gzip").or_else(|| said_of("*")).unwrap_or(false)
}

/// The items of a header's list, each with its parameters.
fn listed<'a>(asked: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = (&'a str, &'a str)> {
    let values = asked.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| {
        let (item, parameters) = item.split_once(';').unwrap_or((item, ""));
        (item.trim(), parameters)
    })
}

fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.trim().trim_matches('"'))
}

fn quality(parameters: &str) -> f32 {
    parameter(parameters, "q").map_or(1.0, |q| q.parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_format_is_the_one_the_client_likes_best() {
        for (accept, format) in [
            ("", Format::Classic),
            ("*/*", Format::Classic),
            ("text/html,*/*;q=0.8", Format::Classic),
            ("text/plain;version=0.0.4", Format::Classic),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
            ("application/openmetrics-text;version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Classic),
            ("application/openmetrics-text;version=1.0.0;q=0", Format::Classic),
            ("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;q=0.9", Format::Classic),
            // Prometheus 2.42 and Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(format_for(&asked("accept", accept)), format, "{accept}");
        }
        assert_eq!(format_for(&HeaderMap::new()), Format::Classic);
    }

    #[test]
    fn gzip_is_sent_only_to_those_who_take_it() {
        for (accept, takes) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("*, gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("identity", false),
            ("br", false),
        ] {
            assert_eq!(takes_gzip(&asked("accept-encoding", accept)), takes, "{accept}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn we_give_up_before_the_scraper_does() {
        let patience = |seconds| patience(&asked("x-prometheus-scrape-timeout-seconds", seconds));
        assert_eq!(patience("10"), Some(Duration::from_millis(9_500)));
        assert_eq!(patience("0.6"), Some(Duration::from_millis(300)), "never less than half");
        for nonsense in ["", "soon", "-1", "0", "NaN", "inf", "1e300"] {
            assert_eq!(patience(nonsense), None, "{nonsense}");
        }
    }
}
