//! Events of an inbox as they stand in a frame, encoded by the thread that reads them, so that
//! the one that sends them need but copy.

use crate::{
    ConversationId, Epoch, Place, UserId,
    event::{MessageEvent, MessageParts, append_event, append_field_head},
    wire::{self, Event, event::Kind},
};
use prost::Message as _;
use std::ops::Index;

/// Events of one inbox, ascending. Their bytes lie in the order in which they were encoded.
#[derive(Clone, Debug, Default)]
pub struct EncodedEvents {
    events: Vec<EncodedEvent>,
    bytes: Vec<u8>,
}

/// What one must know of an encoded event to send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    pub place: Place,
    /// Size of the event, without the key and the length that go before it in a frame.
    pub size: usize,
    /// `None`: it does not tell of a message.
    pub message: Option<MessageAt>,
    /// Where it begins, with that key, and ends.
    begin: usize,
    end: usize,
}

/// Where a message stands in its conversation, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageAt {
    pub conversation: ConversationId,
    pub seq: u64,
    pub sender: UserId,
}

impl MessageAt {
    /// The message that an event tells of.
    pub fn of(event: &Event) -> Option<MessageAt> {
        match &event.kind {
            Some(Kind::Message(message)) => Some(MessageAt {
                conversation: ConversationId(message.conversation),
                seq: message.seq,
                sender: UserId(message.sender),
            }),
            _ => None,
        }
    }
}

impl EncodedEvents {
    /// Makes room for so many more, of so many bytes in all.
    pub fn reserve(&mut self, events: usize, bytes: usize) {
        self.events.reserve(events);
        self.bytes.reserve(bytes);
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &EncodedEvent> {
        self.events.iter()
    }

    /// An event as a field of EVENTS; empty while it is not encoded yet.
    pub fn field(&self, index: usize) -> &[u8] {
        let EncodedEvent { begin, end, .. } = self.events[index];
        &self.bytes[begin..end]
    }

    /// Adds an event behind the others.
    pub fn push(&mut self, event: &Event) {
        let size = event.encoded_len();
        let begin = self.bytes.len();
        append_event(&mut self.bytes, event, size);
        self.events.push(EncodedEvent {
            place: Place::new(event.seq, Epoch(event.epoch)),
            size,
            message: MessageAt::of(event),
            begin,
            end: self.bytes.len(),
        });
    }

    /// Adds an event behind the others, of which this much is known: its kind and what it says, as
    /// [`Kind`] encodes them. They are passed on as they are, also of a kind that is not known here;
    /// `None` and nothing is added when they cannot be that.
    pub fn push_notice(&mut self, place: Place, notice: &[u8]) -> Option<()> {
        let event = Event::decode(notice).ok()?;
        let placed = (event.seq, event.epoch, event.prev) != (0, 0, 0);
        if notice.is_empty() || placed {
            return None;
        }
        let message = MessageAt::of(&event);
        let head = Event { seq: place.seq, epoch: place.epoch.0, prev: 0, kind: None };
        let size = head.encoded_len() + notice.len();
        let begin = self.bytes.len();
        append_field_head(&mut self.bytes, size);
        // A Vec grows as needed, so encoding into it cannot run out of room.
        head.encode_raw(&mut self.bytes);
        self.bytes.extend_from_slice(notice);
        let end = self.bytes.len();
        self.events.push(EncodedEvent { place, size, message, begin, end });
        Some(())
    }

    /// Adds an event that tells of a message, behind the others. It is nothing before
    /// [`Self::tell`] was called, with the index that it has.
    pub fn push_message(&mut self, place: Place) {
        self.events.push(EncodedEvent { place, size: 0, message: None, begin: 0, end: 0 });
    }

    /// Encodes the event at `index`, which has been pushed, with the message that it tells of.
    pub fn tell(&mut self, index: usize, message: MessageParts<'_>) {
        let place = self.events[index].place;
        let encoded = MessageEvent::new(place.seq, place.epoch.0, 0, message);
        let size = encoded.len();
        let begin = self.bytes.len();
        append_field_head(&mut self.bytes, size);
        encoded.append(&mut self.bytes);
        let message = MessageAt {
            conversation: ConversationId(message.conversation),
            seq: message.seq,
            sender: UserId(message.sender),
        };
        let end = self.bytes.len();
        self.events[index] = EncodedEvent { place, size, message: Some(message), begin, end };
    }

    /// Lets go of all but the first so many.
    pub fn truncate(&mut self, events: usize) {
        self.events.truncate(events);
    }

    /// The events themselves: for whoever is not to send them but to look at them.
    pub fn decode(&self) -> Vec<Event> {
        let mut body = Vec::with_capacity(self.bytes.len());
        (0..self.len()).for_each(|index| body.extend_from_slice(self.field(index)));
        // What was encoded here can be decoded.
        wire::Events::decode(&body[..]).expect("events").events
    }
}

impl Index<usize> for EncodedEvents {
    type Output = EncodedEvent;

    fn index(&self, index: usize) -> &EncodedEvent {
        &self.events[index]
    }
}

impl<'a> FromIterator<&'a Event> for EncodedEvents {
    fn from_iter<I: IntoIterator<Item = &'a Event>>(events: I) -> EncodedEvents {
        let mut encoded = EncodedEvents::default();
        events.into_iter().for_each(|event| encoded.push(event));
        encoded
    }
}

/// They say the same, wherever it lies.
impl PartialEq for EncodedEvents {
    fn eq(&self, other: &EncodedEvents) -> bool {
        let field = |index| self.field(index) == other.field(index);
        self.len() == other.len() && (0..self.len()).all(field)
    }
}
