//! The alerts, the recording rules, the dashboards and the runbook, held against real programs: Redis, the exporter,
//! Prometheus, Alertmanager, and a simulated night. Each module is a subject.
//!
//! `cargo build --examples && cargo test --test e2e` needs what `scripts/install-tools.sh test` installs.
//! `-- --nocapture` also prints the numbers seen: pages for each fault, and what the rules cost.
#![allow(missing_docs, reason = "test names say what they test")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should fail")]
#![allow(unreachable_pub, reason = "everything here is reached from the modules beside it")]
#![allow(clippy::float_cmp, clippy::cast_precision_loss, reason = "values of a panel are small whole numbers")]

mod alerts;
mod dashboards;
mod faults;
mod fixture;
mod grafana;
mod inhibitions;
mod nights;
mod panels;
mod promql;
mod rewrite;
mod rule_cost;
mod runbook;
mod shell;
mod shipped;
mod stack;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other tests use the rest")]
mod support;
mod unaligned;
