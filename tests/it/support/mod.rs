//! Real servers and a real exporter, each on a port of its own, ended when dropped.

mod cluster;
mod exporter;
pub mod http;
mod page;
mod port;
mod promtool;
mod proxy;
mod sentinel;
mod server;
mod wait;
pub mod writers;

pub use cluster::Cluster;
pub use exporter::Exporter;
pub use http::{Response, exchange, request};
pub use page::Page;
pub use port::{DeadPort, free_port};
pub use promtool::lint;
pub use proxy::{Direction, Proxy};
pub use sentinel::Sentinel;
pub use server::{Flavor, Server};
pub use wait::{SOON, until};
