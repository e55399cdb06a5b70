//! When messages are to be sent.

use crate::clock::NS_PER_S;
use serde::{Deserialize, Serialize};
use starling_codec::limits;

/// How a load is driven.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drive {
    /// Nobody writes.
    Rest,
    /// Closed loop: so many messages in flight in every pair, acknowledged and delivered before
    /// the next goes out.
    Window(u32),
    /// Open loop: so many messages a second over all pairs, whatever the answers do.
    Rate(f64),
}

impl Drive {
    /// Messages of a pair in flight at most.
    pub fn in_flight(self) -> u64 {
        match self {
            Drive::Rest => 1,
            Drive::Window(window) => window.into(),
            // As many as the protocol lets a device have without an answer.
            Drive::Rate(_) => limits::MAX_SEND_SPAN + 1,
        }
    }
}

/// The times of an open loop. They are fixed before the first message goes out: message `k` of
/// the phase, of pair `k mod pairs`, is meant for `k / rate` after the start. Whoever is late, the
/// server or the tool, moves none of them.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start_ns: u64,
    ns_per_message: f64,
    pairs: u64,
}

impl Schedule {
    pub fn new(start_ns: u64, rate: f64, pairs: usize) -> Schedule {
        Schedule { start_ns, ns_per_message: NS_PER_S as f64 / rate, pairs: pairs as u64 }
    }

    /// When message `index` of the phase is meant to be sent.
    pub fn intended_ns(&self, index: u64) -> u64 {
        self.start_ns + (index as f64 * self.ns_per_message) as u64
    }

    /// The pair that message `index` of the phase belongs to.
    pub fn pair_of(&self, index: u64) -> usize {
        (index % self.pairs) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_gets_its_turn_at_the_rate() {
        let schedule = Schedule::new(1_000, 3_000.0, 3);
        assert_eq!(schedule.intended_ns(0), 1_000);
        assert_eq!(schedule.intended_ns(3_000), 1_000 + NS_PER_S);
        assert_eq!(schedule.pair_of(7), 1);
    }
}
