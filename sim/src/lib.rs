//! A world in a seed: the real engine, the real sequencer and committer, and the real client core,
//! in simulated time, over a simulated network and disk, with everything going wrong that may go
//! wrong. The checker sees all that devices are told, and must find nothing.
//!
//! One seed is one run, replayed exactly. What is simulated here are time, network, disk, lanes
//! and people; RocksDB, the kernel and threads are not, and other suites have those for real.

pub mod command;
mod coverage;
mod digests;
mod disk;
mod life;
mod network;
mod person;
mod plan;
mod process;
mod profile;
mod random;
mod server;
mod shrink;
mod stage;
mod trace;
mod witness;
mod world;

pub use coverage::{Branch, Coverage};
pub use plan::{Plan, Trouble, Troubles};
pub use random::Random;
pub use shrink::{Case, shrink};
pub use world::{Report, World};
