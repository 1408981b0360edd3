//! What each path answers, and to whom.

use std::{
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
    report::Report,
    web::{
        basic_auth::{Admission, Login},
        config::{ReloadingConfig, WebConfig},
        negotiation, page,
        tls::Tls,
    },
};

/// Where the content of the pages comes from.
pub trait Pages: Send + Sync + 'static {
    /// The metrics page in this format. Takes no longer than `time_limit`, if there is one.
    ///
    /// Dropped before its end if the client disconnects.
    fn metrics(&self, format: Format, time_limit: Option<Duration>) -> impl Future<Output = String> + Send;

    /// What the page for people shows.
    fn report(&self) -> impl Future<Output = Report> + Send;

    /// The options in effect, without secrets.
    fn options(&self) -> &[(&'static str, String)];
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
    /// The page for people.
    Status,
    /// A part of that page: its type and its content.
    Part(&'static str, &'static str),
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
        for (name, value) in &config.headers {
            // In place of a header of the page's own.
            response.headers_mut().insert(name, value.clone());
        }
        // Close after a 401, so that the connection frees its slot; and where TLS has changed, so that the client makes
        // a new handshake.
        if !is_admitted || config.tls.as_ref() != tls {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/" => Some(Route::Status),
            page::STYLE_PATH => Some(Route::Part("text/css; charset=utf-8", page::STYLE)),
            page::SCRIPT_PATH => Some(Route::Part("text/javascript; charset=utf-8", page::SCRIPT)),
            page::ICON_PATH => Some(Route::Part("image/svg+xml", page::ICON)),
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
            Route::Status => self.status(headers).await,
            Route::Part(content_type, content) => compressed(headers, content_type, content.to_owned()),
            Route::Health => text(StatusCode::OK, "ok\n"),
        }
    }

    async fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let format = negotiation::format(headers);
        let page = self.pages.metrics(format, negotiation::time_limit(headers)).await;
        let mut response = compressed(headers, format.content_type(), page);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        response
    }

    async fn status(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let report = self.pages.report().await;
        let page = page::render(&report, &self.telemetry_path, self.pages.options());
        let mut response = compressed(headers, "text/html; charset=utf-8", page);
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-store"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The text, gzipped for clients that accept it.
fn compressed(headers: &HeaderMap, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let compressed = if negotiation::accepts_gzip(headers) { gzip(&text).ok() } else { None };
    let is_compressed = compressed.is_some();
    let mut response = response(content_type, compressed.unwrap_or_else(|| text.into_bytes()));
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
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

fn gzip(text: &str) -> io::Result<Vec<u8>> {
    // The fastest level: pages repeat themselves so much that it compresses them to a tenth.
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
