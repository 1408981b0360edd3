//! The program under workloads and faults that once broke it. `cargo test --test stress` plays a small form of each in a
//! minute or two; `make stress` plays the whole and writes what it measured into docs/reliability.md.
//!
//! One scenario runs at a time, so that what a client beside it waits is due to it. A word after `--` selects the
//! scenarios whose name contains it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should fail")]
#![allow(unreachable_pub, reason = "everything here is reached from the modules beside it")]
#![allow(clippy::float_cmp, clippy::cast_precision_loss, reason = "values on a page are small whole numbers")]

mod clients;
mod endurance;
mod faults;
mod meter;
mod night;
mod peer;
mod report;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other tests use the rest")]
mod support;
mod workloads;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use report::Outcome;

/// How much of a scenario is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As a part of `make test`: a few seconds.
    Quick,
    /// As `make stress` does.
    Full,
}

impl Scale {
    pub const fn of<T: Copy>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// Something that is done to Redis and the exporter.
pub struct Scenario {
    pub name: &'static str,
    pub play: fn(Scale) -> Outcome,
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let scale = if words.iter().any(|word| word == "full") { Scale::Full } else { Scale::Quick };
    let chosen = |name: &str| words.iter().filter(|word| *word != "full").all(|word| name.contains(word.as_str()));
    let mut failed = Vec::new();
    let mut sections = Vec::new();
    for (section, scenarios) in [
        ("workloads", workloads::ALL),
        ("faults", faults::ALL),
        ("clients", clients::ALL),
        ("endurance", endurance::ALL),
        ("night", night::ALL),
    ] {
        let mut rows = Vec::new();
        for scenario in scenarios.iter().filter(|scenario| chosen(scenario.name)) {
            let began = Instant::now();
            if let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| (scenario.play)(scale))) {
                println!("{}: {outcome} ({:.1?})", scenario.name, began.elapsed());
                rows.push((scenario.name, outcome));
            } else {
                println!("{}: FAILED ({:.1?})", scenario.name, began.elapsed());
                failed.push(scenario.name);
            }
        }
        sections.push((section, rows));
    }
    if scale == Scale::Full && words.len() == 1 && failed.is_empty() {
        report::write(&sections);
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}
