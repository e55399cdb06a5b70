//! The core of a Starling server, one [`Engine`] per shard: sessions, the door, conversations,
//! routing and fan-out.
//!
//! What is deliberately absent: the engine knows no socket, no file, no clock and no thread, and
//! nothing in it is async. Inputs go in by methods, each with the time; what is to be done comes
//! out as [`Effect`]s and as bytes to write. It knows of the store no more than the commands and
//! questions of `starling-codec`, and of other shards no more than [`Hop`]s and tickets.

mod account;
mod connection;
mod conversation;
mod counters;
mod door;
mod effect;
mod engine;
mod history;
mod hop;
mod input;
mod name;
mod opening;
mod operator;
mod outlet;
mod output;
mod phase;
mod receipts;
mod request;
mod resolve;
pub mod route;
mod secret;
mod session;
mod settings;
mod snowflake;
mod token;
mod user;
mod waiting;
mod wheel;

pub use counters::{Counters, Traffic};
pub use effect::{Effect, HashDone, HashWork, Reading};
pub use engine::Engine;
pub use hop::{DoorSend, Hop, Migrant};
pub use name::normal_name;
pub use phase::{Phase, allowed};
pub use secret::Secret;
pub use settings::{Now, Settings};
use starling_codec::PageDirection;
pub use token::{Identity, Keyring, TOKEN_BYTES};

/// When to try again after a refusal that has no better reason to name a time.
pub(crate) const RETRY_AFTER_MS: u32 = 1_000;
