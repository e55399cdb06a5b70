//! All messages of a history, by id, with what was told of them first.

use crate::{Position, Property, evidence::Violations};
use rustc_hash::FxHashMap;
use starling_codec::{Epoch, MessageId, SendNo, wire::Class};

/// No message.
pub(crate) const NO_MESSAGE: u32 = u32::MAX;

/// What one line tells of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub id: MessageId,
    /// Number of its conversation's stream.
    pub stream: u32,
    pub seq: u64,
    /// Number of the device that wrote it.
    pub sender: u32,
    pub send_no: SendNo,
    pub class: Class,
    /// 0: not told.
    pub epoch: Epoch,
    pub digest: Option<u64>,
    /// Where it was told first, and in which opening.
    pub position: Position,
    pub opening: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Messages {
    numbers: FxHashMap<MessageId, u32>,
    pub list: Vec<Message>,
}

impl Messages {
    /// Takes in what a line tells of a message. `true`: nothing was told of it before.
    pub fn sight(&mut self, told: Message, violations: &mut Violations) -> (u32, bool) {
        let next = self.list.len() as u32;
        let number = *self.numbers.entry(told.id).or_insert(next);
        let Some(known) = self.list.get_mut(number as usize) else {
            self.list.push(told);
            return (number, true);
        };
        if let Some(difference) = known.differs(&told) {
            violations.add(Property::SameMessage, [known.position, told.position], || {
                format!("message {} has two {difference}", told.id)
            });
        }
        if known.epoch == Epoch(0) {
            known.epoch = told.epoch;
        }
        known.digest = known.digest.or(told.digest);
        (number, false)
    }
}

impl Message {
    /// What two lines tell differently of one message.
    fn differs(&self, other: &Message) -> Option<&'static str> {
        let both = |one: Option<u64>, other: Option<u64>| one.zip(other);
        if self.stream != other.stream {
            Some("conversations")
        } else if self.seq != other.seq {
            Some("places in its conversation")
        } else if (self.sender, self.send_no) != (other.sender, other.send_no) {
            Some("writers, or send numbers")
        } else if self.class != other.class {
            Some("classes")
        } else if both(self.digest, other.digest).is_some_and(|(one, other)| one != other) {
            Some("contents")
        } else if self.epoch != other.epoch && self.epoch.0 != 0 && other.epoch.0 != 0 {
            Some("epochs")
        } else {
            None
        }
    }
}
