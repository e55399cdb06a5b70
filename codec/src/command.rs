//! What changes the store, and what came of it.
//!
//! A command is deterministic: its time and ids come in with it and applying it reads only the
//! store. So the same types serve the server, the simulation and a replicated log. `engine` makes
//! commands, `storage` applies them; they meet nowhere else.

use crate::{
    ConversationId, Cursor, DeviceId, ErrorCode, MessageId, Nonce, Place, SendNo, UserId,
    wire::{Class, Event, Message, event::Kind},
};
use bytes::Bytes;

/// Who waits for an outcome or an answer: a shard, and a key that only this shard understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub shard: u16,
    pub key: u64,
}

/// A command on its way to the sequencer.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    pub origin: Origin,
    pub command: Command,
}

/// A deterministic change to the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Outcome: [`Outcome::Appended`], [`Outcome::Repeated`] or [`Outcome::SendRefused`].
    Append(Append),
    /// A device's cursor, with what others are to hear of it: kept both or neither. Class buffered;
    /// outcome [`Outcome::Done`].
    Advance { user: UserId, device: DeviceId, cursor: Cursor, notices: Vec<Notice> },
    /// Makes users that have no name yet. Names are in normal form, each once. Outcome:
    /// [`Outcome::Users`].
    CreateUsers { drafts: Vec<UserDraft>, time_ms: u64 },
    /// Makes a device of a user, or takes an existing one again with a new serial. Outcome:
    /// [`Outcome::Granted`].
    OpenDevice {
        user: UserId,
        /// `None`: a new one.
        device: Option<DeviceId>,
        platform: String,
        time_ms: u64,
    },
    /// Sets the password and revokes the tokens of all the user's devices but that of `keep`,
    /// which gets a new serial. Outcome: [`Outcome::Granted`] for `keep`.
    SetPassword { user: UserId, keep: DeviceId, password_hash: String },
    /// Revokes the tokens of a device. Outcome: [`Outcome::Done`].
    Revoke { user: UserId, device: DeviceId },
}

/// An event that is all there is to tell: it refers to no row, so it stands whole in the inbox that
/// it goes to, and what kind it is of is nothing to the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub to: UserId,
    pub event: Kind,
}

/// A message to be ordered and kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    pub conversation: ConversationId,
    pub sender: UserId,
    pub device: DeviceId,
    pub send_no: SendNo,
    /// The sender waits for no lower number: they have their final answer, or were given up.
    pub oldest: SendNo,
    pub nonce: Nonce,
    /// Its time is the message's time.
    pub id: MessageId,
    /// An encoded `wire::Content`, never looked into.
    pub content: Bytes,
    pub recipients: Recipients,
    pub class: Class,
}

impl Append {
    /// The message as clients get it, at its place in the conversation; the nonce is for the
    /// sender's own inbox alone.
    pub fn to_wire(&self, seq: u64, nonce: Nonce) -> Message {
        Message {
            conversation: self.conversation.0,
            seq,
            id: self.id.0,
            sender: self.sender.0,
            device: self.device.0,
            send_no: self.send_no.0,
            class: self.class as i32,
            time_ms: self.id.time_ms(),
            content: self.content.clone(),
            nonce: nonce.0,
        }
    }
}

/// Whose inboxes a message goes to, the sender's among them, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// A message to oneself.
    One(UserId),
    /// A direct conversation.
    Two(UserId, UserId),
}

impl Recipients {
    /// Those of a direct conversation.
    pub fn direct(conversation: ConversationId) -> Option<Recipients> {
        let (low, high) = conversation.users()?;
        Some(if low == high { Recipients::One(low) } else { Recipients::Two(low, high) })
    }

    pub fn iter(self) -> impl Iterator<Item = UserId> {
        let (first, second) = match self {
            Recipients::One(user) => (user, None),
            Recipients::Two(one, other) => (one, Some(other)),
        };
        std::iter::once(first).chain(second)
    }
}

/// A user to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDraft {
    /// In normal form.
    pub name: String,
    /// A PHC string; `None`: cannot log in by password.
    pub password_hash: Option<String>,
    pub platform: String,
}

/// What the sequencer says of a command once it is as durable as its class demands.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Appended(Accepted),
    /// It was appended before, and this is the answer that it had: nothing changed.
    Repeated(Accepted),
    SendRefused {
        send_no: SendNo,
        code: ErrorCode,
    },
    /// In the order of the drafts. A name that was there already has `created` false.
    Users(Vec<UserGrant>),
    Granted(UserGrant),
    Done,
    Refused(ErrorCode),
}

/// A message in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub send_no: SendNo,
    pub id: MessageId,
    pub conversation: ConversationId,
    pub seq: u64,
    /// In the sender's inbox.
    pub place: Place,
    /// The class that was reached.
    pub class: Class,
}

/// What a token is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserGrant {
    pub user: UserId,
    pub device: DeviceId,
    /// Which tokens of the device are good: see [`crate::serial`].
    pub serial: u32,
    pub created: bool,
}

/// New events of one user from one commit: dense, ascending, the first right after the head
/// before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub user: UserId,
    pub events: Vec<Event>,
}

/// One commit made public: by the time it is told, the view shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Announcement {
    /// In the order of the commands.
    pub outcomes: Vec<(Origin, Outcome)>,
    pub deliveries: Vec<Delivery>,
}
