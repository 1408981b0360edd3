//! prompt-redis-exporter: a Prometheus exporter for Redis Streams consumer groups.
//!
//! Every scrape asks Redis anew, and nothing flows back:
//!
//! ```text
//! command line -> Config -> questions -> replies -> Snapshot -> metrics text -> HTTP
//!     cli        config     question      reply    snapshot      metrics       http
//! ```
//!
//! | room | owns |
//! |---|---|
//! | [`cli`] | what a person types, and the help text |
//! | [`config`] | what the program runs on: checked, or refused with a sentence |
//! | [`endpoint`] | where Redis is and how to log in: one server, Sentinels, a Cluster |
//! | `connection` | one connection to Redis, and how questions travel over it |
//! | `question` | every question that we ask Redis, word for word |
//! | [`source`] | what is asked in one collection, and in what order |
//! | [`reply`] | Redis values into plain facts, strictly |
//! | [`snapshot`] | the facts of one collection |
//! | [`backlog`] | what waits, since when, what was lost: arithmetic on the facts |
//! | [`exporter`] | one collection at a time, shared by those who ask at once; deadlines; the log line when a state changes |
//! | [`metrics`] | every metric's name, help and value |
//! | [`exposition`] | the two text formats |
//! | [`process`] | the standard metrics of our own process |
//! | [`http`] | routes, negotiation, limits, and a graceful end |
//! | [`web_config`] | the web configuration file: what it asks for, now |
//! | [`tls`] | TLS at our own door |
//! | [`passwords`] | who may come in, and the check of a password |
//! | [`error`] | what can go wrong with Redis, in a closed set of kinds |
//!
//! Async ends where the [`Snapshot`](snapshot::Snapshot) is complete: everything after it is a pure function of it.
//! Only `endpoint`, `connection`, `question`, `source`, `reply` and `error` know the redis crate, only `metrics` and
//! `exposition` know prometheus-client, only `http` knows hyper, only `tls` knows rustls, only `passwords` knows bcrypt,
//! only `web_config` knows YAML.

pub mod backlog;
pub mod cli;
pub mod config;
mod connection;
pub mod endpoint;
pub mod error;
pub mod exporter;
pub mod exposition;
pub mod http;
pub mod metrics;
pub mod passwords;
pub mod process;
mod question;
pub mod reply;
pub mod snapshot;
pub mod source;
pub mod tls;
pub mod web_config;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::net::TcpListener;

/// Serves on these listeners until `shutdown`, then finishes the scrapes in flight.
pub async fn run(config: config::Config, listeners: Vec<TcpListener>, shutdown: impl Future<Output = ()>) {
    let (timeout, telemetry_path, web) = (config.timeout, config.telemetry_path.clone(), Arc::clone(&config.web));
    let exporter = Arc::new(exporter::Exporter::new(source::Source::new(config), timeout));
    let make_page: http::MakePage = Box::new(move |format, patience| {
        let exporter = Arc::clone(&exporter);
        Box::pin(async move {
            let page = exporter.page(patience).await;
            exposition::render(page, format)
        })
    });
    // A scrape in flight ends at the timeout at the latest; writing it out takes a moment more.
    let drain = timeout + Duration::from_secs(2);
    http::serve(listeners, http::Site { telemetry_path, make_page, web }, shutdown, drain).await;
}
