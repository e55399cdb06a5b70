//! A sender, a receiver, and what is between them.

use super::{
    flight::{Flights, Landing},
    measured::Measured,
};
use crate::{clock::NS_PER_MS, content::Contents, dialect::Ear};
use std::collections::VecDeque;

/// One pair.
pub struct Pair {
    pub contents: Contents,
    pub flights: Flights,
    /// When the messages that the schedule has asked for, and that did not go out, were meant to.
    pub due: VecDeque<u64>,
    /// Messages go out whenever there is room.
    pub unasked: bool,
    /// The next to go out, again if it was put off; below `transmit_new` only then.
    transmit: u64,
    /// The next that never went out.
    pub transmit_new: u64,
    pub held_until_ns: u64,
    /// The receiver reads again; once it has caught up, the sender waits for it again.
    pub may_rejoin: bool,
    /// The sender's connection is gone, and with it the pair.
    pub broken: bool,
}

impl Pair {
    /// `limit`: messages in flight at most.
    pub fn new(run_id: u64, pair: usize, limit: u64) -> Pair {
        Pair {
            contents: Contents::new(run_id, pair),
            flights: Flights::new(limit),
            due: VecDeque::new(),
            unasked: false,
            transmit: 0,
            transmit_new: 0,
            held_until_ns: 0,
            may_rejoin: false,
            broken: false,
        }
    }

    /// The message that may go out now.
    pub fn next_sequence(&mut self, now_ns: u64) -> Option<u64> {
        let sequence = self.transmit;
        if sequence == self.flights.next() {
            if self.broken || !self.flights.has_room() {
                return None;
            }
            let intended_ns = match self.due.pop_front() {
                Some(intended_ns) => intended_ns,
                None if self.unasked => now_ns,
                None => return None,
            };
            self.flights.take_off(intended_ns, now_ns);
        }
        self.transmit += 1;
        Some(sequence)
    }

    pub fn was_put_off(&self) -> bool {
        self.transmit < self.flights.next()
    }

    /// Its sender is gone.
    pub fn give_up(&mut self) {
        self.broken = true;
        self.due.clear();
    }
}

/// Hears for one connection.
pub struct Listener<'a> {
    /// None: an idle one.
    pub pair: Option<&'a mut Pair>,
    pub measured: &'a mut Measured,
    pub ready: bool,
    pub now_ns: u64,
}

impl Ear for Listener<'_> {
    fn ready(&mut self) {
        self.ready = true;
    }

    fn acknowledged(&mut self, sequence: u64, durable: bool) {
        let Some(pair) = &mut self.pair else { return };
        match pair.flights.acknowledge(sequence) {
            Some(flight) => self.measured.acknowledged(flight, durable, self.now_ns),
            None => self.measured.totals.repeated_acks += 1,
        }
    }

    fn delivered(&mut self, payload: &[u8]) {
        // Nobody writes to an idle one.
        let sequence = self.pair.as_ref().and_then(|pair| pair.contents.sequence_of(payload));
        let (Some(pair), Some(sequence)) = (&mut self.pair, sequence) else {
            self.measured.totals.corrupt += 1;
            return;
        };
        let (landing, in_order) = pair.flights.deliver(sequence);
        self.measured.totals.order_breaks += u64::from(!in_order);
        match landing {
            // How long one waited who did not read says nothing of the server.
            Landing::First(flight) => {
                self.measured.delivered(Some(flight).filter(|flight| !flight.apart), self.now_ns);
            }
            Landing::Late => self.measured.delivered(None, self.now_ns),
            Landing::Again => self.measured.totals.duplicates += 1,
            Landing::Unknown => self.measured.totals.corrupt += 1,
        }
    }

    fn put_off(&mut self, sequence: u64, after_ms: u64) {
        self.measured.totals.put_off += 1;
        let Some(pair) = &mut self.pair else { return };
        // One that waits already is refused for the sake of an earlier one, and waits with it.
        if sequence < pair.transmit {
            pair.transmit = sequence;
            pair.held_until_ns = pair.held_until_ns.max(self.now_ns + after_ms * NS_PER_MS);
        }
    }

    fn gap(&mut self) {
        self.measured.totals.gaps += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes behind a refused message is refused too, and told no time: senders that took that
    /// for leave to go on at once were closed by the server in a run of many.
    #[test]
    fn all_that_is_put_off_waits_as_long_as_the_first_was_told() {
        let (mut pair, mut measured) = (Pair::new(1, 0, 64), Measured::default());
        pair.unasked = true;
        while pair.next_sequence(0).is_some() {}
        let mut listener =
            Listener { pair: Some(&mut pair), measured: &mut measured, ready: false, now_ns: 7 };
        listener.put_off(3, 1_500);
        (4..64).for_each(|sequence| listener.put_off(sequence, 0));
        assert_eq!((pair.transmit, pair.held_until_ns), (3, 7 + 1_500 * NS_PER_MS));
        assert_eq!(measured.totals.put_off, 61);
    }
}
