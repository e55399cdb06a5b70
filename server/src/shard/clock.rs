//! The one clock of a shard. It is read once a turn, so that all inputs of a turn have one time.

use starling_engine::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A shard's clock.
#[derive(Debug)]
pub struct Clock {
    zero: Instant,
    read: Option<(Instant, Now)>,
}

impl Clock {
    pub fn new() -> Clock {
        Clock { zero: Instant::now(), read: None }
    }

    /// The time of this turn.
    pub fn now(&mut self) -> Now {
        self.read().1
    }

    /// How long ago the time of this turn was read.
    pub fn turn_so_far(&mut self) -> Duration {
        self.read().0.elapsed()
    }

    fn read(&mut self) -> (Instant, Now) {
        let zero = self.zero;
        *self.read.get_or_insert_with(|| {
            let read = Instant::now();
            let now = Now {
                mono_ms: read.duration_since(zero).as_millis() as u64,
                // Before 1970 is as good as in 1970: the engine makes ids from its floor on.
                unix_ms: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_millis() as u64),
            };
            (read, now)
        })
    }

    /// The next turn has another time.
    pub fn forget(&mut self) {
        self.read = None;
    }

    /// When `mono_ms` will be.
    pub fn instant_of(&self, mono_ms: u64) -> Instant {
        self.zero + Duration::from_millis(mono_ms)
    }
}
