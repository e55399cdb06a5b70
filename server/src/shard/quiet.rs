//! When a shard has had nothing to do but heartbeats for a while, it gives memory back.

use starling_engine::Counters;

/// How long nothing must have happened.
pub const QUIET_MS: u64 = 10_000;

/// Whether and since when it is quiet.
#[derive(Debug, Default)]
pub struct Quiet {
    activity: u64,
    since_ms: u64,
    told: bool,
}

impl Quiet {
    /// Whether it has just become quiet: told once for each time.
    pub fn begins(&mut self, counters: &Counters, now_ms: u64) -> bool {
        // Heartbeats move none of these.
        let activity = counters.opened + counters.commands + counters.reads + counters.events_out;
        if activity != self.activity {
            *self = Quiet { activity, since_ms: now_ms, told: false };
        }
        let begins = !self.told && now_ms >= self.since_ms + QUIET_MS;
        self.told |= begins;
        begins
    }
}
