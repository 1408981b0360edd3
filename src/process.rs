//! Our own process, as the operating system sees it: what the standard `process_*` metrics want.
//!
//! Linux's procfs alone; elsewhere there are no such metrics.

#[cfg(target_os = "linux")]
use std::sync::LazyLock;

#[cfg(target_os = "linux")]
use procfs::process::{LimitValue, Process as Proc};

/// The process at one moment. A value that the system does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// User and system time, in seconds.
    pub cpu_seconds: Option<f64>,
    /// When it started, in seconds since 1970.
    pub start_time_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub resident_memory_bytes: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_memory_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The most file descriptors it may open (soft limit).
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

/// What does not change while the process runs: ticks a second, the time of boot, and the most open files.
#[cfg(target_os = "linux")]
#[expect(clippy::cast_precision_loss, reason = "ticks a second are a hundred")]
static SYSTEM: LazyLock<(f64, Option<u64>, Option<u64>)> = LazyLock::new(|| {
    let limits = Proc::myself().and_then(|proc| proc.limits()).ok();
    let max_fds = limits.and_then(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Value(most) => Some(most),
        LimitValue::Unlimited => None,
    });
    (procfs::ticks_per_second() as f64, procfs::boot_time_secs().ok(), max_fds)
});

impl Process {
    /// Looks at this process now.
    #[cfg(target_os = "linux")]
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "ticks and seconds since 1970 are far below 2^52")]
    pub fn look() -> Self {
        let Ok(proc) = Proc::myself() else { return Self::default() };
        let stat = proc.stat().ok();
        let stat = stat.as_ref();
        let (ticks_a_second, boot, max_fds) = *SYSTEM;
        Self {
            cpu_seconds: stat.map(|s| (s.utime + s.stime) as f64 / ticks_a_second),
            start_time_seconds: stat.zip(boot).map(|(s, boot)| boot as f64 + s.starttime as f64 / ticks_a_second),
            resident_memory_bytes: stat.map(|s| s.rss * procfs::page_size()),
            virtual_memory_bytes: stat.map(|s| s.vsize),
            open_fds: proc.fd_count().ok().map(|count| count as u64),
            max_fds,
            threads: stat.and_then(|s| u64::try_from(s.num_threads).ok()),
        }
    }

    /// Looks at this process now: there is nothing to see on this system.
    #[cfg(not(target_os = "linux"))]
    #[must_use]
    pub fn look() -> Self {
        Self::default()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_seen() {
        let seen = Process::look();
        assert!(seen.resident_memory_bytes.unwrap() > 100_000);
        assert!(seen.virtual_memory_bytes >= seen.resident_memory_bytes);
        assert!(seen.open_fds.unwrap() >= 3 && seen.threads.unwrap() >= 1);
        assert!(seen.cpu_seconds.unwrap() >= 0.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = seen.start_time_seconds.unwrap();
        assert!(started > now - 86_400.0 && started < now + 2.0, "started {started}, now {now}");
    }
}
