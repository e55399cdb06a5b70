//! The messages of one pair that are on their way.

use crate::schedule::Drive;
use starling_codec::limits::MAX_SEND_SPAN;

/// As many as the protocol lets a device have without an answer.
const MAX_IN_FLIGHT: u64 = MAX_SEND_SPAN + 1;

/// When a message was meant to go out, and when it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    pub intended_ns: u64,
    pub sent_ns: u64,
    acknowledged: bool,
    delivered: bool,
}

/// Messages in flight, by sequence. One has landed when it is acknowledged and delivered; room
/// is made in order.
#[derive(Debug)]
pub struct Flights {
    /// Message `s` is at `s` modulo the length, a power of two.
    ring: Box<[Flight]>,
    limit: u64,
    /// Below it all have landed.
    oldest: u64,
    next: u64,
}

impl Flights {
    pub fn new(drive: Drive) -> Flights {
        let limit = match drive {
            Drive::Window(window) => u64::from(window).clamp(1, MAX_IN_FLIGHT),
            Drive::Rate(_) => MAX_IN_FLIGHT,
        };
        let length = limit.next_power_of_two() as usize;
        Flights { ring: vec![Flight::default(); length].into(), limit, oldest: 0, next: 0 }
    }

    /// The sequence of the next message.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn has_room(&self) -> bool {
        self.next - self.oldest < self.limit
    }

    pub fn all_landed(&self) -> bool {
        self.next == self.oldest
    }

    /// The next message goes out; there must be room.
    pub fn take_off(&mut self, intended_ns: u64, sent_ns: u64) {
        let flight = Flight { intended_ns, sent_ns, ..Flight::default() };
        *self.at(self.next) = flight;
        self.next += 1;
    }

    /// `None`: it is not in flight, or was acknowledged before.
    pub fn acknowledge(&mut self, sequence: u64) -> Option<Flight> {
        let flight = self.in_flight(sequence)?;
        let first = !std::mem::replace(&mut flight.acknowledged, true);
        let flight = *flight;
        self.land();
        first.then_some(flight)
    }

    /// `None`: it is not in flight, or was delivered before.
    pub fn deliver(&mut self, sequence: u64) -> Option<Flight> {
        let flight = self.in_flight(sequence)?;
        let first = !std::mem::replace(&mut flight.delivered, true);
        let flight = *flight;
        self.land();
        first.then_some(flight)
    }

    /// Messages acknowledged but never delivered, and those without an answer.
    pub fn missing(&self) -> (u64, u64) {
        let flights = (self.oldest..self.next).map(|sequence| self.ring[self.place(sequence)]);
        flights.fold((0, 0), |(lost, unanswered), flight| {
            let lost_now = flight.acknowledged && !flight.delivered;
            (lost + u64::from(lost_now), unanswered + u64::from(!flight.acknowledged))
        })
    }

    fn land(&mut self) {
        while self.oldest < self.next {
            let Flight { acknowledged: true, delivered: true, .. } = self.at(self.oldest) else {
                break;
            };
            self.oldest += 1;
        }
    }

    fn in_flight(&mut self, sequence: u64) -> Option<&mut Flight> {
        (self.oldest..self.next).contains(&sequence).then(|| self.at(sequence))
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
        let mut flights = Flights::new(Drive::Window(2));
        flights.take_off(5, 6);
        flights.take_off(7, 8);
        assert!(!flights.has_room());
        assert_eq!(flights.acknowledge(0).unwrap().intended_ns, 5);
        assert_eq!(flights.acknowledge(0), None);
        assert!(!flights.has_room());
        assert_eq!(flights.deliver(1).unwrap().sent_ns, 8);
        assert!(!flights.has_room());
        assert_eq!(flights.missing(), (1, 1));
        assert!(flights.deliver(0).is_some());
        assert_eq!(flights.deliver(0), None);
        assert!(flights.has_room() && !flights.all_landed());
        assert!(flights.acknowledge(1).is_some());
        assert!(flights.all_landed());
        assert_eq!(flights.acknowledge(2), None);
    }
}
