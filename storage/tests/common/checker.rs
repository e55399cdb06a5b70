//! Proves of a store what every acknowledgement said of it, and that inboxes and conversations
//! tell the same.

use super::Running;
use starling_codec::{
    Accepted, ConversationId, Epoch, PageDirection, UserId,
    wire::{Event, event::Kind},
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A send: user, device, number.
pub type SendKey = (u32, u32, u64);

/// All inboxes and conversations of a store.
#[derive(Default)]
pub struct Contents {
    pub inboxes: HashMap<UserId, Vec<Event>>,
    /// Where each send stands: its nonce and place.
    sends: HashMap<SendKey, (u64, Accepted)>,
}

impl Contents {
    /// Reads all of it, and checks that it agrees with itself.
    pub fn read(store: &mut Running, users: impl IntoIterator<Item = UserId>) -> Contents {
        let mut contents = Contents::default();
        let mut conversations: BTreeMap<ConversationId, Vec<(u64, u64)>> = BTreeMap::new();
        for user in users {
            let (events, head) = store.inbox(user, 0);
            assert_eq!(events.len() as u64, head.seq, "the inbox of {user} is dense to its head");
            let mut epoch = 0;
            for (index, event) in events.iter().enumerate() {
                assert_eq!(event.seq, index as u64 + 1);
                assert!(event.epoch >= epoch, "epochs rise along the inbox of {user}");
                epoch = event.epoch;
                let Some(Kind::Message(message)) = &event.kind else { continue };
                let conversation = ConversationId(message.conversation);
                conversations.entry(conversation).or_default().push((message.seq, message.id));
                if message.sender == user.0 {
                    contents.note_send(message, event);
                }
            }
            assert_eq!(head.epoch, Epoch(epoch), "the head of {user} is her last event");
            assert!(head.epoch <= store.handle.epoch(), "{user} has an event of an epoch to come");
            contents.inboxes.insert(user, events);
        }
        for (conversation, mut told) in conversations {
            told.sort_unstable();
            let (low, high) = conversation.users().unwrap();
            let copies = if low == high { 1 } else { 2 };
            let page = store.history(conversation, low, PageDirection::Before(u64::MAX), u32::MAX);
            let kept = page.messages.iter().enumerate().flat_map(|(index, message)| {
                assert_eq!(message.seq, index as u64 + 1, "conversation {conversation} is dense");
                std::iter::repeat_n((message.seq, message.id), copies)
            });
            assert!(kept.eq(told), "inboxes and conversation {conversation} differ");
        }
        contents
    }

    fn note_send(&mut self, message: &starling_codec::wire::Message, event: &Event) {
        let key = (message.sender, message.device, message.send_no);
        let accepted = Accepted {
            send_no: starling_codec::SendNo(message.send_no),
            id: starling_codec::MessageId(message.id),
            conversation: ConversationId(message.conversation),
            seq: message.seq,
            place: starling_codec::Place::new(event.seq, Epoch(event.epoch)),
            class: message.class(),
        };
        let before = self.sends.insert(key, (message.nonce, accepted));
        assert!(before.is_none(), "{key:?} is there twice");
    }

    /// Is what was acknowledged there, in its place?
    pub fn has(&self, key: SendKey, nonce: u64, accepted: &Accepted) -> bool {
        self.sends.get(&key) == Some(&(nonce, *accepted))
    }

    pub fn no_nonce_twice(&self) {
        let nonces: HashSet<u64> = self.sends.values().map(|(nonce, _)| *nonce).collect();
        assert_eq!(nonces.len(), self.sends.len());
    }
}
