//! prompt-redis-exporter: a Prometheus exporter for Redis Streams consumer groups.
//!
//! Data flows one way, anew at every scrape:
//!
//! ```text
//! command line -> Config -> commands -> replies -> Snapshot -> metrics text -> HTTP
//!     cli         config    \__ redis _________/     model   |  exposition      web
//!                                                           \-> findings -> report -> status, web
//! ```
//!
//! | module | owns | may know |
//! |---|---|---|
//! | [`cli`] | what a person types, and the help text | clap |
//! | [`config`] | what the program runs on: checked plain values | [`cli`], [`model`] |
//! | [`model`] | the facts of one collection and the arithmetic on them | the standard library, shlex |
//! | [`redis`] | connections, commands, replies, and what one collection sends | the redis crate, rustls, [`config`], [`model`] |
//! | [`exporter`] | one collection at a time, deadlines, and the log line when a state changes | [`redis`], [`model`], [`exposition`] |
//! | [`exposition`] | every metric's name, help and value, and the two text formats | [`model`], [`process`] |
//! | [`report`] | what `status` and the page for people show, also as JSON | [`model`], serde |
//! | [`status`] | the report in a terminal | [`cli`], [`redis`], [`report`], [`model`], comfy-table, crossterm |
//! | [`process`] | the standard metrics of this process | procfs |
//! | [`web`] | listeners, routes, the page for people, TLS, basic authentication and their configuration file | hyper, rustls, bcrypt, YAML, maud, [`report`], [`model`] |
//! | `fuzzing` | what the fuzz targets try; built only for them and for tests | [`cli`], [`config`], [`redis`], [`web`] |
//!
//! Async ends where the [`Snapshot`](model::snapshot::Snapshot) is complete: everything after it is a pure function of
//! it. A test (`tests/it/layout.rs`) holds the table's last column against the imports.

pub mod cli;
pub mod config;
pub mod exporter;
pub mod exposition;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod model;
pub mod process;
pub mod redis;
pub mod report;
pub mod status;
pub mod web;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::net::TcpListener;

use self::{
    config::Config,
    exporter::Exporter,
    exposition::format::{Format, render},
    model::findings::Access,
    redis::{collect::Collector, endpoint::Endpoint},
    report::{Report, Setup},
    web::{
        config::ReloadingConfig,
        routes::{Pages, Site},
        server,
    },
};

/// Serves on these listeners until `shutdown`, then finishes the scrapes in flight.
pub async fn run(
    config: Config,
    endpoint: Endpoint,
    web: ReloadingConfig,
    listeners: Vec<TcpListener>,
    shutdown: impl Future<Output = ()>,
) {
    let (timeout, telemetry_path) = (config.timeout, config.telemetry_path.clone());
    let setup = setup(&endpoint);
    let options = config.shown(&endpoint, endpoint.user());
    let collector = Collector::new(endpoint, config.selection, config.collect);
    let pages = ExporterPages { exporter: Arc::new(Exporter::new(collector, timeout)), setup, options };
    // A scrape in flight ends at the timeout at the latest; sending the page takes a moment more.
    let drain = timeout + Duration::from_secs(2);
    server::serve(listeners, Site { pages, telemetry_path, web }, shutdown, drain).await;
}

/// What a report says of the set-up.
#[must_use]
pub fn setup(endpoint: &Endpoint) -> Setup {
    let access = Access { redis_cli: endpoint.redis_cli(), user: endpoint.user().to_owned(), tls: endpoint.is_tls() };
    Setup { address: endpoint.to_string(), access }
}

/// The pages that show what the exporter collects.
struct ExporterPages {
    exporter: Arc<Exporter>,
    setup: Setup,
    options: Vec<(&'static str, String)>,
}

impl Pages for ExporterPages {
    async fn metrics(&self, format: Format, time_limit: Option<Duration>) -> String {
        render(&self.exporter.page(time_limit).await, format)
    }

    async fn report(&self) -> Report {
        let page = self.exporter.page(None).await;
        Report::new(&page.outcome, page.duration, &self.setup)
    }

    fn options(&self) -> &[(&'static str, String)] {
        &self.options
    }
}
