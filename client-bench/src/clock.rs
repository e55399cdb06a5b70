//! Time as the load sees it: nanoseconds since the process began to measure.

use std::time::{Duration, Instant};

pub const NS_PER_S: u64 = 1_000_000_000;
pub const NS_PER_MS: u64 = 1_000_000;

/// A clock that never goes back. Copies of one clock agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now_ns(self) -> u64 {
        self.ns_of(Instant::now())
    }

    /// An instant on this clock; 0 for one before it started.
    pub fn ns_of(self, instant: Instant) -> u64 {
        ns(instant.saturating_duration_since(self.0))
    }
}

/// A duration in nanoseconds; centuries fit.
pub fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
