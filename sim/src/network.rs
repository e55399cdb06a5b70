//! The simulated network: connections that carry bytes in order, late, in pieces, not at all.
//!
//! Between connections nothing is in order. It knows nothing of who is at either end.

use starling_codec::Ticket;
use std::collections::VecDeque;

/// Names a connection; never used again.
pub type LinkId = usize;

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Pipe {
    /// What has arrived and was not read, and behind it what is flying.
    bytes: VecDeque<u8>,
    /// How many of them have arrived.
    here: usize,
    /// When each piece that is flying arrives, ascending, and how many bytes it has.
    flying: VecDeque<(u64, usize)>,
    /// When the end of it arrives, once it was ended.
    ends_us: Option<u64>,
    /// The end has arrived, behind all bytes.
    ended: bool,
    /// Nothing arrives before this time.
    stalled_until_us: u64,
}

impl Pipe {
    /// Puts bytes on the way, as many as there is room for. Returns how many, and when they
    /// arrive. Behind the end nothing arrives.
    pub fn send(&mut self, at_us: u64, bytes: &[u8], room: usize) -> (usize, u64) {
        let at_us = self.not_before(at_us);
        if self.ends_us.is_some() {
            return (bytes.len(), at_us);
        }
        let taken = bytes.len().min(room.saturating_sub(self.bytes.len()));
        if taken > 0 {
            self.bytes.extend(&bytes[..taken]);
            self.flying.push_back((at_us, taken));
        }
        (taken, at_us)
    }

    /// Ends the direction. Returns when the other side learns it.
    pub fn end(&mut self, at_us: u64) -> u64 {
        let at_us = self.not_before(at_us);
        *self.ends_us.get_or_insert(at_us)
    }

    /// What arrives next does not arrive before what is under way.
    fn not_before(&self, at_us: u64) -> u64 {
        let last = self.flying.back().map_or(0, |(last, _)| *last);
        at_us.max(last).max(self.stalled_until_us)
    }

    /// Holds back all that is under way, and what comes after it.
    pub fn stall(&mut self, until_us: u64) {
        self.stalled_until_us = self.stalled_until_us.max(until_us);
        for (at_us, _) in &mut self.flying {
            *at_us = (*at_us).max(until_us);
        }
        if let Some(ends_us) = &mut self.ends_us {
            *ends_us = (*ends_us).max(until_us);
        }
    }

    /// Takes in what has arrived by now.
    pub fn arrive(&mut self, now_us: u64) {
        while let Some((_, bytes)) = self.flying.pop_front_if(|(at_us, _)| *at_us <= now_us) {
            self.here += bytes;
        }
        self.ended |= self.flying.is_empty() && self.ends_us.is_some_and(|at_us| at_us <= now_us);
    }

    /// Reads up to `most` bytes of what has arrived.
    pub fn read(&mut self, most: usize, into: &mut Vec<u8>) {
        let count = most.min(self.here);
        let (front, back) = self.bytes.as_slices();
        let split = count.min(front.len());
        into.clear();
        into.extend_from_slice(&front[..split]);
        into.extend_from_slice(&back[..count - split]);
        self.bytes.drain(..count);
        self.here -= count;
    }

    pub fn has_bytes(&self) -> bool {
        self.here > 0
    }

    /// All bytes were read and the end has come.
    pub fn is_over(&self) -> bool {
        self.ended && self.here == 0
    }

    /// Loses what is under way.
    pub fn lose_flying(&mut self) {
        self.bytes.truncate(self.here);
        self.flying.clear();
    }

    /// Loses all of it.
    pub fn clear(&mut self) {
        *self = Pipe::default();
    }
}

/// Where a connection is on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEnd {
    /// Not accepted, or on its way from shard to shard.
    Between,
    At(Ticket),
    Closed,
}

/// A connection between a process of a device and the server.
#[derive(Debug)]
pub struct Link {
    /// The process that opened it.
    pub process: usize,
    pub to_server: Pipe,
    pub to_device: Pipe,
    pub server_end: ServerEnd,
    /// The device's side is open.
    pub device_end: bool,
    /// The server reads from it.
    pub reading: bool,
    /// The server has more to write than there was room for.
    pub blocked: bool,
    /// The device has more to write than there was room for.
    pub starved: bool,
    /// Nothing that anyone says arrives any more, and nobody hears that.
    pub dead: bool,
    /// Bytes of the server that went into a dead connection.
    pub unheard: usize,
    /// Mean time that bytes are under way.
    pub latency_us: u64,
}

/// All connections there ever were.
#[derive(Debug, Default)]
pub struct Network {
    links: Vec<Link>,
}

impl Network {
    pub fn open(&mut self, process: usize, latency_us: u64) -> LinkId {
        self.links.push(Link {
            process,
            to_server: Pipe::default(),
            to_device: Pipe::default(),
            server_end: ServerEnd::Between,
            device_end: true,
            reading: false,
            blocked: false,
            starved: false,
            dead: false,
            unheard: 0,
            latency_us,
        });
        self.links.len() - 1
    }

    pub fn link(&mut self, link: LinkId) -> &mut Link {
        &mut self.links[link]
    }

    /// Connections of which both ends are open.
    pub fn alive(&self) -> Vec<LinkId> {
        let is_alive = |link: &Link| link.device_end && link.server_end != ServerEnd::Closed;
        (0..self.links.len()).filter(|&link| is_alive(&self.links[link])).collect()
    }

    /// Connections that have an end on the server.
    pub fn on_server(&self) -> Vec<LinkId> {
        let is_there = |link: &Link| link.server_end != ServerEnd::Closed;
        (0..self.links.len()).filter(|&link| is_there(&self.links[link])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_and_before_the_end() {
        let mut pipe = Pipe::default();
        assert_eq!(pipe.send(50, b"abc", 5), (3, 50));
        // No earlier than what is under way, and no more than fits.
        assert_eq!(pipe.send(20, b"def", 5), (2, 50));
        assert_eq!(pipe.end(10), 50);
        let mut read = Vec::new();
        pipe.arrive(49);
        assert!(!pipe.has_bytes());
        pipe.arrive(50);
        assert!(pipe.has_bytes() && !pipe.is_over());
        pipe.read(4, &mut read);
        assert_eq!(read, b"abcd");
        pipe.read(4, &mut read);
        assert_eq!(read, b"e");
        assert!(pipe.is_over());
        // Who has not heard of the end goes on writing.
        assert_eq!(pipe.send(60, b"fgh", 5), (3, 60));
        pipe.arrive(60);
        assert!(pipe.is_over());
    }

    #[test]
    fn what_is_lost_under_way_leaves_what_is_here() {
        let mut pipe = Pipe::default();
        pipe.send(1, b"here", 100);
        pipe.arrive(1);
        pipe.send(2, b"lost", 100);
        pipe.lose_flying();
        assert_eq!(pipe.send(3, b"later", 100), (5, 3));
        pipe.arrive(3);
        let mut read = Vec::new();
        pipe.read(100, &mut read);
        assert_eq!((&read[..], pipe.has_bytes()), (&b"herelater"[..], false));
    }

    #[test]
    fn a_stall_holds_back_the_end_too() {
        let mut pipe = Pipe::default();
        pipe.send(10, b"abc", 100);
        pipe.end(10);
        pipe.stall(99);
        pipe.arrive(98);
        assert!(!pipe.has_bytes() && !pipe.is_over());
        assert_eq!(pipe.send(11, b"d", 100).1, 99);
    }
}
