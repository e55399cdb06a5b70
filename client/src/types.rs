//! What goes between a session and its app.

use bytes::Bytes;
use starling_codec::{
    ConversationId, DeviceId, ErrorCode, MessageId, Nonce, Place, SendNo, UserId,
    history::Fact,
    normal_name,
    wire::{self, Class},
};
use std::fmt;

/// Who this device is.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    pub device: DeviceId,
    /// The user's name in its normal form.
    pub name: String,
    /// Empty after a logout.
    pub token: Bytes,
    /// Server time, Unix milliseconds.
    pub expires_ms: u64,
    /// Server time from which the token is to be exchanged for a fresh one: half its life.
    pub refresh_at_ms: u64,
}

impl Identity {
    /// From a GRANT that came at `now_unix_ms`.
    pub fn granted(grant: &wire::Grant, now_unix_ms: u64) -> Identity {
        let life_ms = grant.expires_ms.saturating_sub(now_unix_ms);
        Identity {
            user: UserId(grant.user),
            device: DeviceId(grant.device),
            name: grant.name.clone(),
            token: grant.token.clone(),
            expires_ms: grant.expires_ms,
            refresh_at_ms: now_unix_ms.saturating_add(life_ms / 2),
        }
    }

    /// Whether `name`, in whatever spelling, is this user's.
    pub fn is_called(&self, name: &str) -> bool {
        // Just as the server wrote it, it is hers even if this program's Unicode is older.
        name == self.name || normal_name(name).is_ok_and(|normal| normal == self.name)
    }

    pub fn is_logged_in(&self) -> bool {
        !self.token.is_empty()
    }
}

/// Tokens stay out of logs.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("user", &self.user)
            .field("device", &self.device)
            .field("name", &self.name)
            .field("logged_in", &self.is_logged_in())
            .finish_non_exhaustive()
    }
}

/// Whom a message goes to, or whose history is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    User(UserId),
    Conversation(ConversationId),
}

/// A message that a person wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub to: Peer,
    /// An encoded `Content`, see [`content_of`](crate::content_of).
    pub content: Bytes,
    pub class: Class,
}

impl Outgoing {
    /// A durable text.
    pub fn text(to: Peer, text: &str) -> Outgoing {
        Outgoing { to, content: crate::content_of(text), class: Class::Durable }
    }
}

/// Where the server put a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub send_no: SendNo,
    pub id: MessageId,
    pub conversation: ConversationId,
    /// In the conversation.
    pub seq: u64,
    /// In the sender's own inbox.
    pub place: Place,
    /// Server time, Unix milliseconds.
    pub time_ms: u64,
    /// The durability that was reached.
    pub class: Class,
}

impl Receipt {
    /// As a history tells it of the message with this nonce.
    pub fn fact(&self, nonce: Nonce) -> Fact {
        let Receipt { send_no, id, conversation, seq, place, time_ms: _, class } = *self;
        Fact::Sent { send_no, nonce: Some(nonce), id, conversation, seq, place, class }
    }
}

/// A message in the outbox. Its nonce is its name: the number may change, the nonce never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub nonce: Nonce,
    pub send_no: SendNo,
    pub message: Outgoing,
    pub state: EntryState,
}

/// How far a message in the outbox has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// The server's answer is not known.
    Unanswered,
    /// Acknowledged; stays until its own event is applied, for a power cut could still take it.
    Acknowledged(Receipt),
    /// Not sent, and nothing will send it but the app.
    Unsent(Unsent),
}

/// Why a message went back to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The server had it and lost it: a power cut, or an older backup.
    Lost,
    /// Its number was too old for the server to tell, and it is not among the user's messages.
    Stale,
}

/// A request to the server. All but changing the password and logging out are repeated after a
/// lost connection.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    History {
        of: Peer,
        page: Page,
        limit: u32,
    },
    /// The user of a name.
    Resolve(String),
    /// The name of a user.
    NameOf(UserId),
    /// A fresh token. The session asks by itself before the old one expires.
    Refresh,
    ChangePassword {
        old: String,
        new: String,
    },
    /// Revokes this device's token.
    Logout,
}

/// Which part of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Newest,
    /// The newest below a seq.
    Before(u64),
    /// The oldest above a seq; 0: from the first message on.
    After(u64),
}

/// Passwords stay out of logs.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Request::History { .. } => "History",
            Request::Resolve(_) => "Resolve",
            Request::NameOf(_) => "NameOf",
            Request::Refresh => "Refresh",
            Request::ChangePassword { .. } => "ChangePassword",
            Request::Logout => "Logout",
        })
    }
}

/// What the server answered to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    History(wire::HistoryPage),
    User {
        user: UserId,
        name: String,
    },
    /// Done, and there is nothing to tell.
    Done,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The server said no.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The connection was lost in between: the request may or may not have been carried out.
    #[error("the connection was lost before the answer came")]
    Lost,
    /// Too many requests wait already.
    #[error("too many requests at once")]
    Busy,
    /// The session has stopped.
    #[error("the session has stopped")]
    Stopped,
}

/// A typed no of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The number of the code, which may be one that this version does not know.
    pub number: u32,
    pub retry_after_ms: u32,
}

impl Refusal {
    pub fn new(number: u32, retry_after_ms: u32) -> Refusal {
        Refusal { number, retry_after_ms }
    }

    pub fn code(&self) -> Option<ErrorCode> {
        ErrorCode::from_number(self.number)
    }

    /// Its name in the protocol's registry.
    pub fn name(&self) -> &'static str {
        self.code().map_or("UNKNOWN", ErrorCode::name)
    }

    /// The same may succeed later, unchanged.
    pub fn retryable(&self) -> bool {
        self.code().is_some_and(ErrorCode::retryable)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused: {} ({})", self.name(), self.number)
    }
}

/// Why a message was not taken into the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    #[error("the outbox is full: {0} messages wait for the server")]
    OutboxFull(usize),
    #[error("the message is empty")]
    Empty,
    /// Its encoded content has so many bytes; the most is the second.
    #[error("the message has {0} bytes; the most is {1}")]
    TooLarge(usize, usize),
    /// The nonce names a message in the outbox already.
    #[error("a message with this nonce waits already")]
    NonceUsed,
    /// The session has stopped.
    #[error("the session has stopped")]
    Stopped,
}
