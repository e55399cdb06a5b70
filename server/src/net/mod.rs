//! Everything that knows monoio or a socket, but for the shard's loop itself.
//!
//! A task here waits for readiness and for nothing else; what then happens is a plain call into
//! the shard, which never awaits. Each file says which fact of monoio it leans on, and
//! tests/monoio_facts.rs pins the fact.

mod accept;
mod alarm;
mod linger;
pub mod listen;
mod readiness;
pub mod ring;
pub mod socket;
mod watch;

pub use accept::accept;
pub use alarm::Alarm;
pub use linger::linger;
pub use readiness::{MAX_READY, Readiness, Ready};
pub use watch::Watch;
