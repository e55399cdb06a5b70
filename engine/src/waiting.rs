//! What waits for the world: an outcome, an answer, a hash, the counters.

use crate::{HashDone, account::Account, opening::Greeting, request::Request};
use rustc_hash::FxHashMap;
use starling_codec::{
    Answer, ConversationId, ErrorCode, Origin, Outcome, Ticket, UserId, wire::Counter,
};

/// Who goes on when the reply is there.
pub(crate) enum Waiting {
    /// A HELLO, for the state of its device.
    Greeting(Box<Greeting>),
    /// An account is made, proved or changed.
    Account(Ticket, Box<Account>),
    /// Any other request.
    Request(Ticket, Request),
    /// A session, for at most so many bytes of events of its inbox.
    Inbox(Ticket, usize),
    /// A session, for what its device passed in an earlier connection: up to this seq.
    Regain(Ticket, u64),
    /// The sends parked in a conversation.
    Conversation(ConversationId),
}

/// What came back.
pub(crate) enum Reply {
    Answer(Answer),
    Outcome(Outcome),
    Hash(HashDone),
    Counters(Vec<Counter>),
    /// The session of a revoked token is closed.
    Revoked,
}

impl Reply {
    /// The refusal for a reply that is none of those hoped for.
    pub(crate) fn refusal(&self) -> (ErrorCode, u32) {
        match self {
            Reply::Answer(Answer::Failed(code)) | Reply::Outcome(Outcome::Refused(code)) => {
                (*code, if code.retryable() { crate::RETRY_AFTER_MS } else { 0 })
            }
            Reply::Hash(HashDone::Wrong) => (ErrorCode::WrongPassword, 0),
            Reply::Hash(HashDone::Slowed { retry_after_ms }) => {
                (ErrorCode::LoginSlowed, *retry_after_ms)
            }
            Reply::Hash(HashDone::Busy { retry_after_ms }) => {
                (ErrorCode::Overload, *retry_after_ms)
            }
            _ => (ErrorCode::Internal, crate::RETRY_AFTER_MS),
        }
    }
}

/// All that waits, by the keys given out.
pub(crate) struct Waitlist {
    shard: u16,
    last_key: u64,
    entries: FxHashMap<u64, Waiting>,
}

impl Waitlist {
    /// Keys from here on name the user whose cursor a command stores; those given out begin at 1.
    const CURSORS: u64 = 1 << 63;

    pub(crate) fn new(shard: u16) -> Waitlist {
        Waitlist { shard, last_key: 0, entries: FxHashMap::default() }
    }

    pub(crate) fn wait(&mut self, waiting: Waiting) -> Origin {
        self.last_key += 1;
        self.entries.insert(self.last_key, waiting);
        Origin { shard: self.shard, key: self.last_key }
    }

    /// Where a command comes from that stores a cursor of `user`.
    pub(crate) fn cursor_of(&self, user: UserId) -> Origin {
        Origin { shard: self.shard, key: Self::CURSORS | u64::from(user.0) }
    }

    /// Whose cursor a command was to store, if this is the key of one.
    pub(crate) fn whose_cursor(key: u64) -> Option<UserId> {
        (key >= Self::CURSORS).then_some(UserId(key as u32))
    }

    pub(crate) fn take(&mut self, key: u64) -> Option<Waiting> {
        self.entries.remove(&key)
    }

    pub(crate) fn rest(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// Tokens of `user` were revoked: what was read of her devices before is old, so the
    /// greetings that wait for it ask again.
    pub(crate) fn outdate_greetings(&mut self, user: UserId) {
        for waiting in self.entries.values_mut() {
            if let Waiting::Greeting(greeting) = waiting {
                greeting.outdated |= greeting.identity.user == user;
            }
        }
    }
}
