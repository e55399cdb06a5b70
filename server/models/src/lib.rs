//! The mesh's own files over atomics that try every order of what threads do, as far as the memory
//! model allows one (loom). The queue itself is crossbeam's and proven elsewhere: a stand-in
//! promises less than it does. What is tried here is that nobody sleeps while something waits.

#[path = "../../src/mesh/announcements.rs"]
mod announcements;
mod codec;
#[path = "../../src/mesh/doorbell.rs"]
mod doorbell;
mod event;
#[path = "../../src/mesh/lane.rs"]
mod lane;
pub mod queue;
#[path = "../../src/mesh/sleeper.rs"]
mod sleeper;
#[path = "../../../storage/src/spsc.rs"]
mod spsc;

// Where the files of the mesh look for other crates, they find the stand-ins.
extern crate self as crossbeam;
extern crate self as rustc_hash;
extern crate self as starling_codec;

pub use announcements::{Announced, AnnouncementLane};
pub use codec::{Delivery, Epoch, Event as InboxEvent, Outcome, Place, UserId};
pub use doorbell::Doorbell;
pub use event::Event;
pub use lane::{Lane, Waiting};
pub use sleeper::Sleeper;

/// As in the mesh.
pub type SpscQueue<T> = spsc::SpscQueue<queue::ArrayQueue<T>>;

mod atomic {
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}

mod lock {
    pub use loom::sync::{Mutex, MutexGuard};
}

/// Without chance in it, as a model has to take the same way each time.
pub type FxHashMap<K, V> =
    std::collections::HashMap<K, V, std::hash::BuildHasherDefault<std::hash::DefaultHasher>>;
