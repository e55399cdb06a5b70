//! Starling's client SDK.
//!
//! Three layers, each complete without the one above it:
//!
//! - the core: [`Session`] is one device's side of the protocol as a state machine. It knows no
//!   socket, no clock, no file and no randomness: bytes, time and entropy are arguments, and what
//!   must outlive the process goes through the [`Store`] trait.
//! - the transport (feature `tokio`): `Client` runs a session over TCP and never gives up;
//!   `operator` speaks for whoever holds the operator key.
//! - the command (feature `command`): `starling`, a terminal client.

mod backoff;
#[cfg(feature = "command")]
pub mod command;
mod content;
#[cfg(feature = "tokio")]
mod net;
mod network;
mod session;
mod store;
mod types;

pub use content::{content_of, text_of};
#[cfg(feature = "tokio")]
pub use net::{
    CallError, Client, ClientSettings, ConnectError, Events, SendError, Sending, Status, account,
    operator,
};
pub use network::{
    KnownNetwork, MAX_NETWORK_NAME_BYTES, MAX_NETWORKS, Network, NetworkError, TooLong,
};
pub use session::{Event, Session, SessionSettings, StopReason, Welcomed, Wish};
pub use store::{Change, MemoryStore, Saved, Store, StoreError};
#[cfg(feature = "sqlite")]
pub use store::{Journal, OpenError, SqliteStore};
pub use types::{
    Answer, Entry, EntryState, Identity, Outgoing, Page, Peer, QueueError, Receipt, Refusal,
    Request, RequestError, Unsent,
};

pub use starling_codec as codec;
