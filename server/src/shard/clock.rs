//! The one clock of a shard. It is read once a turn, so that all inputs of a turn have one time.

use starling_engine::Now;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A shard's clock.
#[derive(Debug)]
pub struct Clock {
    zero: Instant,
    read: Option<Now>,
}

impl Clock {
    pub fn new() -> Clock {
        Clock { zero: Instant::now(), read: None }
    }

    /// The time of this turn.
    pub fn now(&mut self) -> Now {
        let zero = self.zero;
        *self.read.get_or_insert_with(|| Now {
            mono_ms: zero.elapsed().as_millis() as u64,
            // Before 1970 is as good as in 1970: the engine makes ids from its floor on.
            unix_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
        })
    }

    /// The next turn has another time.
    pub fn forget(&mut self) {
        self.read = None;
    }

    /// When `mono_ms` will be.
    pub fn instant_of(&self, mono_ms: u64) -> Instant {
        self.zero + std::time::Duration::from_millis(mono_ms)
    }
}
