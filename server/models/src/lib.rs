//! The mesh's own files over atomics that try every order of what threads do, as far as the memory
//! model allows one (loom). The queue itself is crossbeam's and proven elsewhere: a stand-in
//! promises less than it does. What is tried here is that nobody sleeps while something waits.

#[path = "../../src/mesh/doorbell.rs"]
mod doorbell;
mod event;
#[path = "../../src/mesh/lane.rs"]
mod lane;
pub mod queue;
#[path = "../../src/mesh/sleeper.rs"]
mod sleeper;

// Where the files of the mesh look for crossbeam, they find the stand-in.
extern crate self as crossbeam;

pub use doorbell::Doorbell;
pub use event::Event;
pub use lane::{Lane, Waiting};
pub use sleeper::Sleeper;

mod atomic {
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}
