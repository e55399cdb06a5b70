//! Every format that leaves a thread: frames and their bodies, ids, places, the commands that
//! change the store and the questions that read it, with their outcomes and answers.
//!
//! Knows no socket, no file, no clock and no thread. protocol-spec.md is the normative text for
//! what goes over the wire; a test holds its tables against this crate.

mod command;
mod encoded;
mod error;
mod event;
mod frame;
pub mod history;
mod ids;
mod kind;
pub mod limits;
mod name;
mod place;
pub mod planted;
mod query;
pub mod serial;
mod window;

/// The bodies of frames, generated from `proto/starling.proto`.
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/starling.v1.rs"));
}

pub use command::{
    Accepted, Announcement, Append, Command, Delivery, Notice, Origin, Outcome, Recipients,
    Submission, UserDraft, UserGrant,
};
pub use encoded::{EncodedEvent, EncodedEvents, MessageAt};
pub use error::{Blame, ErrorCode};
pub use event::{EVENTS_TAG, MessageParts, append_event};
pub use frame::{
    Decoded, Frame, RawFrame, append_frame, append_header, append_ping, append_pong, decode_frame,
};
pub use ids::{ConversationId, DeviceId, EpochTag, MessageId, Nonce, SendNo, Ticket, UserId};
pub use kind::{Body, Direction, Kind};
pub use name::normal_name;
pub use place::{Cursor, Epoch, Place};
pub use query::{
    Answer, Credential, DeviceState, Direction as PageDirection, HistoryRequest, Page, Query,
    Resumption,
};
pub use window::{SendWindow, Standing};

/// The protocol version this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// First field of every opening frame; on the wire the bytes "STRL".
pub const MAGIC: u32 = u32::from_le_bytes(*b"STRL");
