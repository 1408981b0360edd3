//! Ports that are free.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// A free port: below those that the system gives to clients, and never the same twice in this process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 20;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
