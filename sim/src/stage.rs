//! What everything in a world shares: the time, what is to happen, chance, the network, and what
//! is noted.

use crate::{
    coverage::Coverage,
    network::{LinkId, Network, ServerEnd},
    plan::Plan,
    random::Random,
    trace::Trace,
};
use starling_codec::{MessageId, Origin, Query};
use starling_engine::{HashWork, Now};
use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// Bytes, or the end, arrive at the server.
    AtServer(LinkId),
    /// Bytes, or the end, arrive at a device.
    AtDevice(LinkId),
    /// A connection has room again for what the server writes.
    RoomForServer(LinkId),
    /// A connection has room again for what the device writes.
    RoomForDevice(LinkId),
    /// A process of a device has something to do.
    Process(usize),
    /// A person does something.
    Act(usize),
    Fault,
    /// The server starts.
    Start,
    /// Of one life of the server.
    Server(u64, ServerHappening),
}

/// Something that happens in the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerHappening {
    Accept(LinkId),
    Turn(u16),
    Commit,
    /// A sync ends that covers the batches up to this one.
    Synced {
        covers: u64,
        began_us: u64,
    },
    // Boxed, for the agenda moves what happens about, and most of it is small.
    Answer(Box<(Origin, Query)>),
    Hash(Box<(Origin, HashWork)>),
    /// The process looks after itself.
    Watch,
    /// The process has had time enough to end.
    Die,
}

/// Something that is to happen: when, and which. Small, for planning moves many of them about.
struct Entry {
    /// The time; below it a number that rises, so that what was planned first comes first.
    when: u128,
    /// Where it stands among what is planned.
    slot: usize,
}

impl Entry {
    fn at_us(&self) -> u64 {
        (self.when >> 64) as u64
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        other.when.cmp(&self.when)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.when == other.when
    }
}

impl Eq for Entry {}

/// See the module.
pub struct Stage {
    pub now_us: u64,
    pub random: Random,
    pub plan: Plan,
    pub network: Network,
    pub coverage: Coverage,
    pub trace: Trace,
    /// By how much the server's wall clock is off, in milliseconds.
    pub clock_off_ms: i64,
    /// Faults have ended: nothing goes wrong any more.
    pub calm: bool,
    /// Where bytes are read to, kept for its room.
    pub buffer: Vec<u8>,
    agenda: BinaryHeap<Entry>,
    /// What is planned, by slot; and the slots that are free.
    planned: Vec<Option<Happening>>,
    free: Vec<usize>,
    scheduled: u64,
}

impl Stage {
    pub fn new(random: Random, plan: Plan, trace: Trace) -> Stage {
        Stage {
            now_us: 0,
            random,
            plan,
            network: Network::default(),
            coverage: Coverage::default(),
            trace,
            clock_off_ms: 0,
            calm: false,
            buffer: Vec::new(),
            agenda: BinaryHeap::new(),
            planned: Vec::new(),
            free: Vec::new(),
            scheduled: 0,
        }
    }

    /// Has something happen at a time, which is now at the earliest.
    pub fn at(&mut self, at_us: u64, happening: Happening) {
        self.scheduled += 1;
        let at_us = at_us.max(self.now_us);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.planned.push(None);
            self.planned.len() - 1
        });
        self.planned[slot] = Some(happening);
        let when = u128::from(at_us) << 64 | u128::from(self.scheduled);
        self.agenda.push(Entry { when, slot });
    }

    /// Has something happen after about so long. Returns when.
    pub fn after_about(&mut self, mean_us: u64, happening: Happening) -> u64 {
        let at_us = self.now_us + self.random.around(mean_us);
        self.at(at_us, happening);
        at_us
    }

    /// What happens next; the time is then that of it.
    pub fn take_next(&mut self) -> Option<Happening> {
        let next = self.agenda.pop()?;
        self.now_us = next.at_us();
        self.free.push(next.slot);
        self.planned[next.slot].take()
    }

    pub fn note(&mut self, what: &str, numbers: &[u64]) {
        self.trace.note(self.now_us, what, numbers);
    }

    pub fn tell(&self, words: impl FnOnce() -> String) {
        self.trace.tell(self.now_us, words);
    }

    /// The time as the server's engines are told it.
    pub fn now(&self) -> Now {
        let mono_ms = self.now_us / 1_000;
        Now { mono_ms, unix_ms: self.unix_ms() }
    }

    /// The time as the committer is told it.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now_us)
    }

    fn unix_ms(&self) -> u64 {
        /// Long after the zero of message ids, so that a clock may step back.
        const START_MS: u64 = MessageId::TIME_ZERO_MS + 400 * 24 * 3_600 * 1_000;
        (START_MS + self.now_us / 1_000).saturating_add_signed(self.clock_off_ms)
    }
}

/// Moving bytes between the ends of connections.
impl Stage {
    /// The server writes to a connection. Returns how many bytes there was room for.
    pub fn send_to_device(&mut self, link: LinkId, bytes: &[u8]) -> usize {
        let (room, at_us) = (self.plan.buffer_bytes, self.arrival(link));
        let connection = self.network.link(link);
        if connection.dead {
            // The kernel takes what fits, and nobody ever confirms it.
            let room = room.saturating_sub(connection.unheard);
            let taken = bytes.len().min(room);
            connection.unheard += taken;
            return taken;
        }
        let (taken, at_us) = connection.to_device.send(at_us, bytes, room);
        if taken > 0 {
            self.at(at_us, Happening::AtDevice(link));
        }
        taken
    }

    /// A device writes to a connection. Returns how many bytes there was room for.
    pub fn send_to_server(&mut self, link: LinkId, bytes: &[u8]) -> usize {
        let (room, at_us) = (self.plan.buffer_bytes, self.arrival(link));
        let connection = self.network.link(link);
        if connection.dead {
            return bytes.len();
        }
        let (taken, at_us) = connection.to_server.send(at_us, bytes, room);
        connection.starved = taken < bytes.len();
        if taken > 0 {
            self.at(at_us, Happening::AtServer(link));
        }
        taken
    }

    /// The server closes its end: what it wrote before still arrives.
    pub fn close_server_end(&mut self, link: LinkId) {
        let at_us = self.arrival(link);
        let connection = self.network.link(link);
        connection.server_end = ServerEnd::Closed;
        connection.to_server.clear();
        if connection.device_end && !connection.dead {
            let at_us = connection.to_device.end(at_us);
            self.at(at_us, Happening::AtDevice(link));
        }
    }

    /// The device closes its end: what it wrote before still arrives.
    pub fn close_device_end(&mut self, link: LinkId) {
        let at_us = self.arrival(link);
        let connection = self.network.link(link);
        connection.device_end = false;
        connection.to_device.clear();
        if connection.server_end != ServerEnd::Closed && !connection.dead {
            let at_us = connection.to_server.end(at_us);
            self.at(at_us, Happening::AtServer(link));
        }
    }

    fn arrival(&mut self, link: LinkId) -> u64 {
        let latency_us = self.network.link(link).latency_us;
        self.now_us + self.random.around(latency_us)
    }

    /// The server has read: a device that found no room may write again.
    pub fn wake_writer(&mut self, link: LinkId) {
        let connection = self.network.link(link);
        if std::mem::take(&mut connection.starved) && connection.device_end {
            self.at(self.now_us, Happening::RoomForDevice(link));
        }
    }
}

/// What can go wrong with a connection.
impl Stage {
    /// Both ends hear, each in its time, that it is over. What was under way is lost.
    pub fn cut(&mut self, link: LinkId) {
        for to_server in [true, false] {
            let at_us = self.arrival(link);
            let connection = self.network.link(link);
            let (pipe, happening) = match to_server {
                true => (&mut connection.to_server, Happening::AtServer(link)),
                false => (&mut connection.to_device, Happening::AtDevice(link)),
            };
            pipe.lose_flying();
            let at_us = pipe.end(at_us);
            self.at(at_us, happening);
        }
    }

    /// Bytes stand still.
    pub fn stall(&mut self, link: LinkId, until_us: u64) {
        let connection = self.network.link(link);
        connection.to_server.stall(until_us);
        connection.to_device.stall(until_us);
        self.at(until_us, Happening::AtServer(link));
        self.at(until_us, Happening::AtDevice(link));
    }
}
