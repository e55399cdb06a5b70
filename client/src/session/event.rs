//! What a session tells its app, and what it wants of its transport.

use crate::{Answer, Entry, Receipt, Refusal, RequestError};
use starling_codec::{Epoch, EpochTag, Nonce, Place, SendWindow, wire};

/// What happened, in the order in which it was kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The session is live.
    Online(Welcomed),
    /// The connection is gone; the session comes back by itself.
    Offline { why: Option<Refusal>, retry_in_ms: u64 },
    /// An event of the inbox was applied: each once, in order. `prev` is always present.
    Applied(wire::Event),
    /// A message of the outbox has its place.
    Sent { nonce: Nonce, receipt: Receipt },
    /// A message of the outbox was refused for good and is no longer there.
    Refused { nonce: Nonce, refusal: Refusal },
    /// A message went back to the app. It stays in the outbox, unsent, until the app sends it
    /// again or discards it.
    Unsent(Entry),
    /// Events above the place were taken back: a power cut took them from the server.
    Rewound(Place),
    /// All events were taken back: the server was restored from an older backup.
    Reset,
    /// The answer to a request of the app.
    Answered { request_id: u32, result: Result<Answer, RequestError> },
    /// The session has ended and will not come back.
    Stopped(StopReason),
}

/// What a WELCOME said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcomed {
    pub epoch: Epoch,
    pub tag: EpochTag,
    /// The end of the inbox.
    pub head: Place,
    /// Which numbers of this device were applied.
    pub window: SendWindow,
    /// Server time, Unix milliseconds.
    pub time_ms: u64,
    pub heartbeat_s: u32,
    /// What this device held is a prefix of what the server has.
    pub resumed: bool,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// The app closed it.
    #[error("closed")]
    Closed,
    /// No token is kept: log in first.
    #[error("not logged in")]
    NotLoggedIn,
    /// The server does not take the token: log in again.
    #[error("{0}")]
    LoginNeeded(Refusal),
    /// The device logged out.
    #[error("logged out")]
    LoggedOut,
    /// Another copy of this device has taken over with a number that was never used here.
    #[error("another copy of this device has taken over (connection {winner})")]
    Replaced { winner: u64 },
    /// The server does not speak this version of the protocol.
    #[error("the server does not speak this version of the protocol")]
    Version,
    /// The local store failed; what it holds is what it held.
    #[error("{0}")]
    Store(String),
}

/// What a session wants of its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No link now; a new one from this time on. A link that is open is to be closed.
    OpenAt(u64),
    /// The link stays.
    Keep,
    /// Send what is left of the output, close, and open no more.
    Close,
}
