//! What a session did and was told, as a history that can be checked: docs/history.md.

use super::Event;
use crate::{Answer, Entry, EntryState, Identity, Unsent};
use starling_codec::{
    ConversationId, UserId,
    history::{At, Fact, Message, Reason, Record, digest},
};
use std::collections::VecDeque;

/// Keeps facts until they are committed, and then as records until they are taken.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// Facts that are no events, each with the number of events that were there before it.
    noted: Vec<(usize, Fact)>,
    records: VecDeque<Record>,
}

impl Recorder {
    /// Takes note of a fact, after so many events that are not told yet.
    pub fn note(&mut self, events: usize, fact: Fact) {
        self.noted.push((events, fact));
    }

    /// What was noted and the events that come with it are kept.
    pub fn committed(&mut self, identity: Option<&Identity>, events: &[Event]) {
        let at = identity.map(|identity| At { user: identity.user, device: identity.device });
        let mut noted = self.noted.drain(..).peekable();
        let records = &mut self.records;
        let mut tell = |fact| records.push_back(Record { at, time_ms: None, fact });
        for (index, event) in events.iter().enumerate() {
            while let Some((_, fact)) = noted.next_if(|(before, _)| *before <= index) {
                tell(fact);
            }
            facts_of(event, &mut tell);
        }
        noted.for_each(|(_, fact)| tell(fact));
    }

    /// Nothing of it was kept.
    pub fn failed(&mut self) {
        self.noted.clear();
    }

    pub fn next(&mut self) -> Option<Record> {
        self.records.pop_front()
    }
}

/// That a message is sent from now on. `own` is whose it is.
pub(super) fn send(entry: &Entry, own: UserId) -> Fact {
    let conversation = match entry.message.to {
        crate::Peer::User(user) => ConversationId::direct(own, user),
        crate::Peer::Conversation(conversation) => conversation,
    };
    Fact::Send {
        send_no: entry.send_no,
        nonce: entry.nonce,
        conversation,
        class: entry.message.class,
        digest: digest(&entry.message.content),
    }
}

fn facts_of(event: &Event, tell: &mut impl FnMut(Fact)) {
    match event {
        Event::Online(welcomed) => tell(Fact::Online {
            epoch: welcomed.epoch,
            tag: welcomed.tag,
            head: welcomed.head,
            window: welcomed.window,
            resumed: welcomed.resumed,
        }),
        Event::Offline { .. } | Event::Stopped(_) => tell(Fact::Offline),
        Event::Applied(event) => tell(event.into()),
        Event::Sent { nonce, receipt } => tell(receipt.fact(*nonce)),
        Event::Unsent(entry) => {
            let reason = match entry.state {
                EntryState::Unsent(Unsent::Stale) => Reason::Stale,
                _ => Reason::Lost,
            };
            tell(Fact::Unsent { send_no: entry.send_no, nonce: Some(entry.nonce), reason });
        }
        Event::Rewound(place) => tell(Fact::Rewind(*place)),
        Event::Reset => tell(Fact::Reset),
        Event::Answered { result: Ok(Answer::History(page)), .. } => {
            page.messages.iter().map(Message::from).map(Fact::Read).for_each(tell);
        }
        // Noted with its number, which the event has not.
        Event::Refused { .. } | Event::Answered { .. } => {}
    }
}
