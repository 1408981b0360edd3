//! The program against real servers. Each module is a subject.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should fail")]
#![allow(unreachable_pub, reason = "everything here is reached from the modules beside it")]
#![allow(clippy::float_cmp, clippy::cast_precision_loss, reason = "values on a page are small whole numbers")]

mod acl;
mod any_input;
mod backlog;
mod cli;
mod client;
mod cost;
mod demo;
mod documents;
mod failure;
mod golden;
mod http;
mod keda;
mod layout;
mod night;
mod page;
mod performance;
mod property;
mod scrape;
mod servers;
mod status;
mod support;
mod tls;
mod topology;
mod web_config;
mod writers;
