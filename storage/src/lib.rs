//! The store: keys, rows, the sequencer that turns commands into rows and outcomes, the committer
//! that makes them durable and public, and the reads that see only what is public.
//!
//! Knows no session, no connection and no socket. `codec` has the commands and questions.

mod counters;
mod error;
mod settings;
mod store;

pub use counters::StoreCounters;
pub use error::{OpenError, ReadError, WriteError};
pub use settings::StoreSettings;
pub use store::{Announcer, Answers, Store, StoreHandle};
