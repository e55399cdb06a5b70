//! The messages of one pair that are on their way.

use starling_codec::limits::MAX_SEND_SPAN;

/// As many as the protocol lets a device have without an answer.
const MAX_IN_FLIGHT: u64 = MAX_SEND_SPAN + 1;

/// When a message was meant to go out, and when it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    pub intended_ns: u64,
    pub sent_ns: u64,
    /// Its receiver did not read, or was not there, when it went out.
    pub apart: bool,
    pub acknowledged: bool,
    pub delivered: bool,
}

/// A message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    First(Flight),
    /// For the first time, so long after it went out that nothing else is known.
    Late,
    Again,
    /// It was never sent.
    Unknown,
}

/// Messages in flight, by sequence. While the receiver reads, one has landed when it is
/// acknowledged and delivered; else when it is acknowledged. Room is made in order.
#[derive(Debug)]
pub struct Flights {
    /// Message `s` is at `s` modulo the length, a power of two.
    ring: Box<[Flight]>,
    limit: u64,
    /// The receiver does not read, or has not caught up.
    apart: bool,
    /// Below these all are acknowledged, and all have landed.
    unacknowledged: u64,
    oldest: u64,
    next: u64,
    /// All sequences below it were delivered, but for those that are missing still.
    expected: u64,
    /// Acknowledged messages that left the ring undelivered and have not come since.
    overdue: u64,
}

impl Flights {
    /// `limit`: in flight at most, at any time to come.
    pub fn new(limit: u64) -> Flights {
        let limit = limit.clamp(1, MAX_IN_FLIGHT);
        Flights {
            ring: vec![Flight::default(); limit.next_power_of_two() as usize].into(),
            limit,
            apart: false,
            unacknowledged: 0,
            oldest: 0,
            next: 0,
            expected: 0,
            overdue: 0,
        }
    }

    /// From now on so many in flight, but never more than [`Flights::new`] was told.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit.clamp(1, self.ring.len() as u64);
    }

    /// From now on the receiver does not read; or it does again, when it has caught up.
    pub fn set_apart(&mut self, apart: bool) {
        self.apart = apart;
        if apart {
            // What is on its way will not be read either.
            self.ring.iter_mut().for_each(|flight| flight.apart |= !flight.delivered);
        }
        self.land();
    }

    pub fn apart(&self) -> bool {
        self.apart
    }

    /// The sequence of the next message.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn has_room(&self) -> bool {
        let oldest = if self.apart { self.unacknowledged } else { self.oldest };
        self.next - oldest < self.limit
    }

    /// Every message is acknowledged and delivered.
    pub fn all_landed(&self) -> bool {
        self.oldest == self.next && self.overdue == 0
    }

    /// Nothing is missing that went out long ago.
    pub fn caught_up(&self) -> bool {
        self.overdue == 0
    }

    /// The next message goes out; there must be room.
    pub fn take_off(&mut self, intended_ns: u64, sent_ns: u64) {
        let apart = self.apart;
        let flight = Flight { intended_ns, sent_ns, apart, ..Flight::default() };
        if self.next >= self.ring.len() as u64 {
            let gone = *self.at(self.next);
            self.overdue += u64::from(!gone.delivered);
        }
        *self.at(self.next) = flight;
        self.next += 1;
    }

    /// `None`: it is not in flight, or was acknowledged before.
    pub fn acknowledge(&mut self, sequence: u64) -> Option<Flight> {
        let flight = self.known(sequence)?;
        let first = !std::mem::replace(&mut flight.acknowledged, true);
        let flight = *flight;
        self.land();
        first.then_some(flight)
    }

    /// The second answer says whether it came in order.
    pub fn deliver(&mut self, sequence: u64) -> (Landing, bool) {
        if sequence >= self.next {
            return (Landing::Unknown, true);
        }
        let in_order = sequence == self.expected;
        let expected = self.expected;
        self.expected = expected.max(sequence + 1);
        let Some(flight) = self.known(sequence) else {
            // Too long ago to know of each; they come in order, or something is wrong already.
            if sequence < expected || self.overdue == 0 {
                return (Landing::Again, true);
            }
            self.overdue -= 1;
            return (Landing::Late, in_order);
        };
        if std::mem::replace(&mut flight.delivered, true) {
            return (Landing::Again, true);
        }
        let flight = *flight;
        self.land();
        (Landing::First(flight), in_order)
    }

    /// Messages acknowledged but never delivered, and those without an answer.
    pub fn missing(&self) -> (u64, u64) {
        let known = self.next.saturating_sub(self.ring.len() as u64)..self.next;
        let flights = known.map(|sequence| self.ring[self.place(sequence)]);
        flights.fold((self.overdue, 0), |(lost, unanswered), flight| {
            let lost_now = flight.acknowledged && !flight.delivered;
            (lost + u64::from(lost_now), unanswered + u64::from(!flight.acknowledged))
        })
    }

    fn land(&mut self) {
        while self.unacknowledged < self.next && self.at(self.unacknowledged).acknowledged {
            self.unacknowledged += 1;
        }
        // What left the ring no longer takes room.
        self.oldest = self.oldest.max(self.next.saturating_sub(self.ring.len() as u64));
        while self.oldest < self.unacknowledged && self.at(self.oldest).delivered {
            self.oldest += 1;
        }
    }

    fn known(&mut self, sequence: u64) -> Option<&mut Flight> {
        let first = self.next.saturating_sub(self.ring.len() as u64);
        (first..self.next).contains(&sequence).then(|| self.at(sequence))
    }

    fn at(&mut self, sequence: u64) -> &mut Flight {
        &mut self.ring[self.place(sequence)]
    }

    fn place(&self, sequence: u64) -> usize {
        sequence as usize & (self.ring.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_by_acknowledgement_and_delivery_both() {
        let mut flights = Flights::new(2);
        flights.take_off(5, 6);
        flights.take_off(7, 8);
        assert!(!flights.has_room());
        assert_eq!(flights.acknowledge(0).unwrap().intended_ns, 5);
        assert_eq!(flights.acknowledge(0), None);
        assert!(!flights.has_room());
        assert!(matches!(flights.deliver(1), (Landing::First(Flight { sent_ns: 8, .. }), false)));
        assert!(!flights.has_room());
        assert_eq!(flights.missing(), (1, 1));
        assert!(matches!(flights.deliver(0), (Landing::First(_), false)));
        assert_eq!(flights.deliver(0), (Landing::Again, true));
        assert!(flights.has_room() && !flights.all_landed());
        assert!(flights.acknowledge(1).is_some());
        assert!(flights.all_landed());
        assert_eq!(flights.acknowledge(2), None);
        assert_eq!(flights.deliver(2), (Landing::Unknown, true));
    }

    #[test]
    fn a_receiver_that_does_not_read_holds_up_nobody_and_loses_nothing() {
        let mut flights = Flights::new(4);
        flights.set_apart(true);
        for sequence in 0..100 {
            assert!(flights.has_room());
            flights.take_off(sequence, sequence);
            assert!(flights.acknowledge(sequence).is_some());
        }
        assert_eq!(flights.missing(), (100, 0));
        for sequence in 0..96 {
            assert_eq!(flights.deliver(sequence), (Landing::Late, true), "{sequence}");
        }
        assert_eq!(flights.deliver(3), (Landing::Again, true));
        for sequence in 96..100 {
            let (landing, in_order) = flights.deliver(sequence);
            assert!(matches!(landing, Landing::First(Flight { apart: true, .. })) && in_order);
        }
        assert!(flights.all_landed());
        assert_eq!(flights.missing(), (0, 0));
        flights.set_apart(false);
        (0..4).for_each(|_| flights.take_off(0, 0));
        assert!(!flights.has_room());
    }

    #[test]
    fn what_never_comes_to_a_receiver_that_was_away_is_lost() {
        let mut flights = Flights::new(2);
        flights.set_apart(true);
        for sequence in 0..10 {
            flights.take_off(0, 0);
            flights.acknowledge(sequence);
        }
        // The sixth is skipped.
        let breaks = [0, 1, 2, 3, 4, 6, 7, 8, 9].map(|sequence| !flights.deliver(sequence).1);
        assert_eq!(breaks.iter().filter(|broken| **broken).count(), 1);
        assert_eq!(flights.missing(), (1, 0));
        assert!(!flights.all_landed());
    }
}
