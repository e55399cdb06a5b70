//! What is read from the view, and what came of it. Reads change nothing and see only what was
//! announced.

use crate::{
    ConversationId, DeviceId, EncodedEvents, Epoch, EpochTag, ErrorCode, Place, SendWindow, UserId,
    wire::Message,
};

/// A question to the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// All that a session starts from. Answer: [`Answer::Device`].
    Device {
        user: UserId,
        device: DeviceId,
        /// The highest place the client has heard of, and the epoch and tag of its last WELCOME.
        highest: Place,
        last_epoch: Epoch,
        last_tag: EpochTag,
    },
    /// A user's events after a seq, ascending, as many as fit. Answer: [`Answer::Events`].
    Inbox { user: UserId, after_seq: u64, max_events: usize, max_bytes: usize },
    /// Answer: [`Answer::Page`].
    History(HistoryRequest),
    /// Are there such users? Answer: [`Answer::Users`].
    Users { users: crate::Recipients },
    /// Answer: [`Answer::Name`].
    NameOf { user: UserId },
    /// By name in normal form. Answer: [`Answer::Credential`].
    Credential { name: String },
    /// As `Credential`, by user. Answer: [`Answer::Credential`].
    CredentialOf { user: UserId },
}

/// A page of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRequest {
    pub conversation: ConversationId,
    /// Who asks: the page names her inbox head.
    pub user: UserId,
    pub direction: Direction,
    pub limit: u32,
}

/// Which way a page goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The newest below a seq; `u64::MAX` is from the end.
    Before(u64),
    /// The oldest above a seq; 0: from the first on.
    After(u64),
}

/// What a question found.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `None`: no such device.
    Device(Option<DeviceState>),
    Events {
        events: EncodedEvents,
        /// How far the inbox reaches in the view that was read, as far as was looked: its head, or
        /// a place before it that none of the events is above.
        head: Place,
    },
    Page(Page),
    /// Whether all of them exist.
    Users(bool),
    Name(Option<String>),
    Credential(Option<Credential>),
    /// The store could not be read.
    Failed(ErrorCode),
}

/// How a user proves who she is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub user: UserId,
    /// In normal form.
    pub name: String,
    /// A PHC string; `None`: there is no password.
    pub password_hash: Option<String>,
}

/// What a session starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// Which tokens of the device are good: see [`crate::serial`].
    pub serial: u32,
    /// As stored; the device itself may know better.
    pub cursor: Place,
    /// The highest seq that any device of the user is known to have passed: messages up to it
    /// were announced as delivered.
    pub passed_seq: u64,
    pub window: SendWindow,
    /// Of the user's inbox.
    pub head: Place,
    pub epoch: Epoch,
    pub tag: EpochTag,
    pub resumption: Resumption,
}

/// How the history a client holds stands to the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// It is a prefix of the store's.
    Continues,
    /// A power cut took its end: what has a higher place is gone.
    Rewind(Place),
    /// An older backup was restored: nothing the client holds can be trusted.
    Reset,
}

/// Messages of one conversation, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub conversation: ConversationId,
    pub messages: Vec<Message>,
    /// There are more in the direction asked for.
    pub more: bool,
    /// Of the asker's inbox in the view that was read.
    pub head: Place,
}
