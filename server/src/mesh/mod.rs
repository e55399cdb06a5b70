//! How threads talk: bounded lock-free lanes between every pair of shards, from the committer,
//! the readers and the hashing pool, and a doorbell for each shard.
//!
//! Nobody waits for room, which is why nothing here can deadlock: who finds a lane full keeps what
//! it has and goes on. Each lane says what bounds it.

mod announcements;
mod announcer;
mod doorbell;
mod event;
mod lane;
mod sleeper;

pub use announcements::{Announced, AnnouncementLane};
pub use announcer::{MeshAnnouncer, MeshAnswers};
pub use doorbell::Doorbell;
pub use event::Event;
pub use lane::{Lane, Waiting};
pub use sleeper::Sleeper;

/// With memory for all its entries, as the mesh has few and uses them for every message.
pub type SpscQueue<T> = starling_storage::SpscQueue<crossbeam::queue::ArrayQueue<T>>;

/// Whence the lanes, sleeper and doorbell have their atomics: `server/models` gives them others,
/// which try every order.
mod atomic {
    pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}

/// And their locks.
mod lock {
    pub use std::sync::{Mutex, MutexGuard};
}

use starling_codec::Answer;
use starling_engine::{HashDone, Hop, Migrant};
use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Entries of a lane between two shards.
const LANE_ENTRIES: usize = 1_024;
/// Commits whose deliveries may wait for a shard.
const DELIVERY_ENTRIES: usize = 1_024;
/// Questions and passwords of one shard that may be without an answer.
pub const MAX_REPLIES: usize = 4_096;

/// From shard to shard.
#[derive(Debug)]
pub enum Parcel {
    Hop(Hop),
    /// A connection that moves, nothing pending on it.
    Move {
        socket: OwnedFd,
        migrant: Box<Migrant>,
    },
}

/// From the readers and the hashing pool.
#[derive(Debug)]
pub enum Reply {
    Answer(u64, Answer),
    Hashed(u64, HashDone),
}

/// Where all that concerns one shard arrives.
#[derive(Debug)]
pub struct Port {
    pub doorbell: Doorbell,
    pub announcements: AnnouncementLane,
    /// By the replier that gives them. Each has room: a shard asks only while fewer than
    /// [`MAX_REPLIES`] are without an answer.
    replies: Box<[SpscQueue<Box<Reply>>]>,
    replies_high_water: AtomicUsize,
    /// By sending shard.
    parcels: Box<[Lane<Parcel>]>,
}

/// All lanes of the process.
#[derive(Debug)]
pub struct Mesh {
    ports: Box<[Port]>,
}

impl Mesh {
    /// Lanes for `shards` shards with `credits` each. So many `repliers` answer them: threads
    /// with numbers of their own, from 0.
    ///
    /// # Errors
    /// The process has no descriptors left for the doorbells.
    pub fn new(shards: u16, credits: u32, repliers: usize) -> io::Result<Mesh> {
        let port = |_| {
            Ok(Port {
                doorbell: Doorbell::new()?,
                announcements: AnnouncementLane::new(DELIVERY_ENTRIES, credits as usize),
                replies: (0..repliers).map(|_| SpscQueue::new(MAX_REPLIES)).collect(),
                replies_high_water: AtomicUsize::new(0),
                parcels: (0..shards).map(|_| Lane::new(LANE_ENTRIES)).collect(),
            })
        };
        Ok(Mesh { ports: (0..shards).map(port).collect::<io::Result<_>>()? })
    }

    pub fn shards(&self) -> u16 {
        // Made from a u16.
        self.ports.len() as u16
    }

    pub fn port(&self, shard: u16) -> &Port {
        &self.ports[usize::from(shard)]
    }

    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter()
    }

    /// Hands a reply to the shard that waits for it. Only the replier's own thread does.
    pub fn reply(&self, replier: usize, shard: u16, reply: Reply) {
        self.port(shard).reply(replier, reply);
    }

    /// Wakes every shard that sleeps.
    pub fn ring_all(&self) {
        self.ports.iter().for_each(|port| port.doorbell.ring());
    }
}

impl Port {
    /// The lane from a shard to this one.
    pub fn parcels_from(&self, shard: u16) -> &Lane<Parcel> {
        &self.parcels[usize::from(shard)]
    }

    fn reply(&self, replier: usize, reply: Reply) {
        let replies = &self.replies[replier];
        let pushed = replies.push(Box::new(reply));
        assert!(pushed.is_ok(), "more replies than questions");
        self.replies_high_water.fetch_max(replies.len(), Ordering::Relaxed);
        self.doorbell.ring();
    }

    pub fn pop_reply(&self) -> Option<Reply> {
        self.replies.iter().find_map(SpscQueue::pop).map(|reply| *reply)
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.announcements.is_empty()
            && self.replies.iter().all(SpscQueue::is_empty)
            && self.parcels.iter().all(Lane::is_empty)
    }

    /// The most entries that waited at once: in a lane of another shard, of replies from one
    /// replier.
    pub fn high_water(&self) -> (usize, usize) {
        let parcels = self.parcels.iter().map(Lane::high_water).max().unwrap_or_default();
        (parcels, self.replies_high_water.load(Ordering::Relaxed))
    }
}
