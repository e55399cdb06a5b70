//! The store: keys, rows, the sequencer that turns commands into rows and outcomes, the committer
//! that makes them durable and public, and the reads that see only what is public.
//!
//! Knows no session, no connection and no socket. `codec` has the commands and questions.

mod backend;
mod batch;
mod committer;
mod counters;
mod driver;
mod epochs;
mod error;
mod layout;
mod logs;
mod mailbox;
mod memory;
mod queries;
mod readers;
#[cfg(feature = "rocksdb")]
mod rocks;
mod rows;
mod sequencer;
mod settings;
mod spsc;
mod store;
mod syncer;
mod table;
mod varint;

pub use backend::{Backend, EachRow, MemoryUse, Reads, Tier, View};
pub use batch::Rows;
pub use committer::{Committer, Step};
pub use counters::StoreCounters;
pub use epochs::{Epochs, Opening, begin};
pub use error::{OpenError, ReadError, WriteError};
pub use layout::{FAMILIES, FORMAT, Family, FamilySpec};
pub use memory::MemoryBackend;
pub use queries::{answer, read_send_window};
pub use readers::catches_panics;
#[cfg(feature = "rocksdb")]
pub use rocks::RocksBackend;
pub use sequencer::{Absent, Commit, Sequencer, Tally};
pub use settings::StoreSettings;
pub use spsc::SpscQueue;
pub use store::{Announcer, Answers, Store, StoreHandle};

/// Whence the queue has its atomics: `server/models` gives it others, whose every order it tries.
mod atomic {
    pub use std::sync::atomic::{AtomicUsize, Ordering};
}
