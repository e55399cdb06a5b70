//! Small numbers for conversations, and for the receipts of a user in one.

use rustc_hash::FxHashMap;
use starling_codec::{ConversationId, UserId};

/// What has an order of its own within an inbox: the messages of a conversation, or the receipts
/// of one user in it.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    numbers: FxHashMap<(ConversationId, UserId), u32>,
    names: Vec<(ConversationId, UserId)>,
}

impl Streams {
    /// Nobody is user 0, so with her goes the stream of messages.
    pub fn messages(&mut self, conversation: ConversationId) -> u32 {
        self.receipts(conversation, UserId(0))
    }

    pub fn receipts(&mut self, conversation: ConversationId, user: UserId) -> u32 {
        *self.numbers.entry((conversation, user)).or_insert_with(|| {
            self.names.push((conversation, user));
            self.names.len() as u32 - 1
        })
    }

    pub fn conversation(&self, stream: u32) -> ConversationId {
        self.names[stream as usize].0
    }

    /// Whose receipts a stream has.
    pub fn user(&self, stream: u32) -> UserId {
        self.names[stream as usize].1
    }

    /// The messages of the conversation that a stream of receipts is about, if there are any.
    pub fn messages_beside(&self, stream: u32) -> Option<u32> {
        self.numbers.get(&(self.conversation(stream), UserId(0))).copied()
    }

    pub fn conversations(&self) -> u64 {
        self.names.iter().filter(|(_, user)| user.0 == 0).count() as u64
    }
}
