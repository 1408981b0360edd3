//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The longest anything here may take to start, stop or be seen.
pub const SOON: Duration = Duration::from_secs(10);

/// Waits until the condition holds; fails with this sentence if that takes too long.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
