//! Conversations at their home: who is in them, in which order messages reach the committer.
//! Today they are direct ones, whose members their id names; what is to be found out is whether
//! those exist.

use crate::{
    DoorSend, Engine, Hop, Now,
    waiting::{Reply, Waiting},
};
use rustc_hash::{FxHashMap, FxHashSet};
use starling_codec::{
    Answer, Append, Command, ConversationId, ErrorCode, Origin, Query, Recipients,
};

/// What a shard remembers of the conversations it is home to. Bounded: those not used for long
/// are forgotten, but never one in which something is parked.
pub(crate) struct Conversations {
    /// Known to exist, in two generations: when `young` is full, it becomes `old`, and what was
    /// old is forgotten.
    young: FxHashSet<ConversationId>,
    old: FxHashSet<ConversationId>,
    max_young: usize,
    /// Sends that wait for their conversation, in order.
    parked: FxHashMap<ConversationId, Vec<DoorSend>>,
}

impl Conversations {
    pub(crate) fn new(max_known: usize) -> Conversations {
        Conversations {
            young: FxHashSet::default(),
            old: FxHashSet::default(),
            max_young: (max_known / 2).max(1),
            parked: FxHashMap::default(),
        }
    }

    fn is_known(&mut self, conversation: ConversationId) -> bool {
        if self.young.contains(&conversation) {
            return true;
        }
        let known = self.old.remove(&conversation);
        if known {
            self.learn(conversation);
        }
        known
    }

    fn learn(&mut self, conversation: ConversationId) {
        if self.young.len() >= self.max_young {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(conversation);
    }

    /// Forgets what is known to exist: a read tells it again.
    pub(crate) fn rest(&mut self) {
        (self.young, self.old) = Default::default();
        self.parked.shrink_to_fit();
    }

    #[cfg(test)]
    fn known(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

impl Engine {
    /// A send that came through a door, this shard's or another's.
    pub(crate) fn converse(&mut self, now: Now, send: DoorSend) {
        let conversation = send.conversation;
        if let Some(parked) = self.conversations.parked.get_mut(&conversation) {
            // Behind those that wait, whatever is known by now.
            self.counters.parked += 1;
            parked.push(send);
            return;
        }
        let Some(users) = Recipients::direct(conversation) else {
            return self.refuse_at_door(send, ErrorCode::UnknownConversation);
        };
        // Who writes to herself exists.
        let alone = matches!(users, Recipients::One(_));
        if alone || self.conversations.is_known(conversation) {
            return self.append(now, send, users);
        }
        self.counters.parked += 1;
        self.conversations.parked.insert(conversation, vec![send]);
        self.ask(Waiting::Conversation(conversation), Query::Users { users });
    }

    /// What was parked goes on, in order, or is refused for good.
    pub(crate) fn conversation_known(
        &mut self,
        now: Now,
        conversation: ConversationId,
        reply: Reply,
    ) {
        let parked = self.conversations.parked.remove(&conversation).unwrap_or_default();
        let refusal = match reply {
            Reply::Answer(Answer::Users(true)) => None,
            Reply::Answer(Answer::Users(false)) => Some(ErrorCode::UnknownUser),
            reply => Some(reply.refusal().0),
        };
        if refusal.is_none() {
            self.conversations.learn(conversation);
        }
        for send in parked {
            match (refusal, Recipients::direct(conversation)) {
                (None, Some(users)) => self.append(now, send, users),
                (code, _) => {
                    self.refuse_at_door(send, code.unwrap_or(ErrorCode::UnknownConversation))
                }
            }
        }
    }

    fn append(&mut self, now: Now, send: DoorSend, recipients: Recipients) {
        let origin = Origin { shard: send.ticket.shard, key: send.ticket.key() };
        let append = Append {
            conversation: send.conversation,
            sender: send.sender,
            device: send.device,
            send_no: send.send_no,
            oldest: send.oldest,
            nonce: send.nonce,
            id: self.ids.next(now.unix_ms),
            content: send.content,
            recipients,
            class: send.class,
        };
        self.submit(origin, Command::Append(append));
    }

    fn refuse_at_door(&mut self, send: DoorSend, code: ErrorCode) {
        let DoorSend { ticket, send_no, .. } = send;
        if ticket.shard == self.settings.shard {
            self.credits += 1;
            self.tell_refused(ticket, send_no, code);
        } else {
            self.hop_to(ticket.shard, Hop::Refused { ticket, send_no, code });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_known_and_the_rest_is_bounded() {
        let mut conversations = Conversations::new(100);
        for number in 0..10_000 {
            conversations.learn(ConversationId(number));
            assert!(conversations.is_known(ConversationId(number)));
            assert!(conversations.is_known(ConversationId(0)), "{number}");
            assert!(conversations.known() <= 101);
        }
        assert!(!conversations.is_known(ConversationId(1)));
    }
}
