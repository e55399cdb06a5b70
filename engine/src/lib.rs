//! The core of a Starling server, one [`Engine`] per shard: sessions, the door, conversations,
//! routing and fan-out.
//!
//! What is deliberately absent: the engine knows no socket, no file, no clock and no thread, and
//! nothing in it is async. Inputs go in by methods, each with the time; what is to be done comes
//! out as [`Effect`]s and as bytes to write. It knows of the store no more than the commands and
//! questions of `starling-codec`, and of other shards no more than [`Hop`]s and tickets.
//!
//! # The way of a message
//!
//! `input` makes frames of bytes and hands SEND to `door`, the only place that refuses retryably.
//! `conversation`, at the home that `route` computes, gives it an id and a command. The outcome
//! comes back to the door; the delivery goes to `outlet`, the only place that writes events; how
//! far devices have come goes back by `receipts`.
//!
//! # What is always true
//!
//! - A connection is a slot of at most 128 bytes. What it needs only while it is busy is taken
//!   from a pool and given back; an idle heartbeat allocates nothing.
//! - A user's entry is there while she has a session or is about to, and is made before her head
//!   is read: no delivery falls between.
//! - A session gets no event twice and none out of order: (sent, head] and nothing else, whether
//!   from this turn's deliveries or from the view.
//! - Every command and every hop has a credit behind it, which the outcome gives back.
//! - Nothing is queued without a bound: output by not reading from who does not read, events by
//!   the client's window, parked sends by credits.
//!
//! # How it is driven
//!
//! Inputs in any order; then [`Engine::turn`]; then all of [`Engine::next_effect`], whose answers
//! may be given at once; then the output of all of [`Engine::next_dirty`]. [`Engine::wake_at`]
//! says when the next turn is due though nothing comes in.

mod account;
mod backlog;
mod connection;
mod conversation;
mod counters;
mod door;
mod effect;
mod engine;
mod events;
mod history;
mod hop;
mod input;
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
pub use phase::{Phase, allowed};
pub use secret::Secret;
pub use settings::{Now, Settings};
use starling_codec::PageDirection;
pub use token::{Identity, Keyring, TOKEN_BYTES};

/// When to try again after a refusal that has no better reason to name a time.
pub(crate) const RETRY_AFTER_MS: u32 = 1_000;
