//! prompt-redis-exporter: a Prometheus exporter for Redis Streams consumer groups.
//!
//! Data flows one way, anew at every scrape:
//!
//! ```text
//! command line -> Config -> commands -> replies -> Snapshot -> metrics text -> HTTP
//!     cli         config    \__ redis _________/     model      exposition      web
//! ```
//!
//! | module | owns | may know |
//! |---|---|---|
//! | [`cli`] | what a person types, and the help text | clap |
//! | [`config`] | what the program runs on: checked plain values | [`cli`], [`model`] |
//! | [`model`] | the facts of one collection and the arithmetic on them | the standard library |
//! | [`redis`] | connections, commands, replies, and what one collection sends | the redis crate, [`config`], [`model`] |
//! | [`exporter`] | one collection at a time, deadlines, and the log line when a state changes | [`redis`], [`model`], [`exposition`] |
//! | [`exposition`] | every metric's name, help and value, and the two text formats | prometheus-client, [`model`], [`process`] |
//! | [`process`] | the standard metrics of this process | procfs |
//! | [`web`] | listeners, routes, TLS, basic authentication and their configuration file | hyper, rustls, bcrypt, YAML |
//!
//! Async ends where the [`Snapshot`](model::snapshot::Snapshot) is complete: everything after it is a pure function of
//! it. A test (`tests/it/documents.rs`) holds the table's last column against the imports.

pub mod cli;
pub mod config;
pub mod exporter;
pub mod exposition;
pub mod model;
pub mod process;
pub mod redis;
pub mod web;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::net::TcpListener;

/// Serves on these listeners until `shutdown`, then finishes the scrapes in flight.
pub async fn run(config: config::Config, listeners: Vec<TcpListener>, shutdown: impl Future<Output = ()>) {
    let (timeout, telemetry_path, web) = (config.timeout, config.telemetry_path.clone(), Arc::clone(&config.web));
    let exporter = Arc::new(exporter::Exporter::new(redis::collect::Source::new(config), timeout));
    let make_page: web::server::MakePage = Box::new(move |format, patience| {
        let exporter = Arc::clone(&exporter);
        Box::pin(async move {
            let page = exporter.page(patience).await;
            exposition::format::render(page, format)
        })
    });
    // A scrape in flight ends at the timeout at the latest; writing it out takes a moment more.
    let drain = timeout + Duration::from_secs(2);
    web::server::serve(listeners, web::server::Site { telemetry_path, make_page, web }, shutdown, drain).await;
}
