//! What each path answers, and to whom.

use std::{
    fmt,
    future::Future,
    io::{self, Write},
    net::IpAddr,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};

use crate::{
    exposition::format::Format,
    web::{
        basic_auth::{Admission, Login},
        config::{ReloadingConfig, WebConfig},
        negotiation,
        tls::Tls,
    },
};

/// Where the content of the pages comes from.
pub trait Pages: Send + Sync + 'static {
    /// The metrics page in this format. Takes no longer than `time_limit`, if there is one.
    ///
    /// Dropped before its end if the client disconnects.
    fn metrics(
        &self,
        format: Format,
        time_limit: Option<Duration>,
    ) -> impl Future<Output = Result<String, fmt::Error>> + Send;
}

/// The pages, where they are, and who may see them.
pub struct Site<P> {
    /// The content.
    pub pages: P,
    /// The path of the metrics.
    pub telemetry_path: String,
    /// TLS, users and response headers.
    pub web: ReloadingConfig,
}

enum Route {
    Metrics,
    Landing,
    Health,
}

impl<P: Pages> Site<P> {
    /// Answers a request that came from this address over a connection with this TLS configuration.
    pub(super) async fn respond<B>(
        &self,
        client: IpAddr,
        tls: Option<&Tls>,
        request: &Request<B>,
    ) -> Response<Full<Bytes>> {
        let config = self.web.current();
        let (mut response, is_admitted) = match admit(&config, client, request.headers()).await {
            // The body of a request is of no use to any page, and reading it would hold the connection.
            Admission::Admitted => (self.answer(request.method(), request.uri().path(), request.headers()).await, true),
            Admission::Refused => (unauthorized(), false),
            Admission::Busy => (busy(), false),
        };
        response.headers_mut().extend(config.headers.iter().cloned());
        // Close after a 401, so that the connection frees its slot; and where TLS has changed, so that the client makes
        // a new handshake.
        if !is_admitted || config.tls.as_ref() != tls {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/" => Some(Route::Landing),
            "/-/healthy" | "/-/ready" => Some(Route::Health),
            path if path == self.telemetry_path => Some(Route::Metrics),
            _ => None,
        }
    }

    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let Some(route) = self.route(path) else {
            return text(StatusCode::NOT_FOUND, "404 Not Found: the pages are listed at /\n");
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed: only GET and HEAD\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match route {
            Route::Metrics => self.metrics(headers).await,
            Route::Landing => response("text/html; charset=utf-8", landing_page(&self.telemetry_path)),
            Route::Health => text(StatusCode::OK, "ok\n"),
        }
    }

    async fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let format = negotiation::format(headers);
        let Ok(page) = self.pages.metrics(format, negotiation::time_limit(headers)).await else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error: the page cannot be written\n");
        };
        let compressed = if negotiation::accepts_gzip(headers) { gzip(&page).ok() } else { None };
        let is_compressed = compressed.is_some();
        let mut response = response(format.content_type(), compressed.unwrap_or_else(|| page.into_bytes()));
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if is_compressed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

async fn admit(config: &WebConfig, client: IpAddr, headers: &HeaderMap) -> Admission {
    let Some(users) = &config.users else { return Admission::Admitted };
    match headers.get(header::AUTHORIZATION).and_then(|value| Login::from_header(value.as_bytes())) {
        Some(login) => users.admit(login, client).await,
        None => Admission::Refused,
    }
}

fn unauthorized() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::UNAUTHORIZED, "401 Unauthorized\n");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    response
}

fn busy() -> Response<Full<Bytes>> {
    let reason = "503 Service Unavailable: too many other passwords wait for their check\n";
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, reason);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = response("text/plain; charset=utf-8", text);
    *response.status_mut() = status;
    response
}

fn response(content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
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
    // The fastest level: pages repeat themselves so much that it compresses them to a tenth.
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
