//! Messages as events, written by hand: they are most of what a server encodes, and prost, byte by byte
//! into a Vec, takes 1.7 times as many instructions for one (990 against 590, measured 2026-11).

use crate::wire::{Delivered, Event, Message, event::Kind};
use bytes::Bytes;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

/// Field number of an event in `wire::Events`.
pub const EVENTS_TAG: u32 = 1;

/// Most bytes of a number: a tag of one byte, and ten more.
const NUMBER_BYTES: usize = 11;

/// A message as an event tells of it: its content may lie anywhere.
#[derive(Clone, Copy, Debug)]
pub struct MessageParts<'a> {
    pub conversation: u64,
    pub seq: u64,
    pub id: u64,
    pub sender: u32,
    pub device: u32,
    pub send_no: u64,
    /// A class of the protocol, by number.
    pub class: i32,
    pub time_ms: u64,
    pub content: &'a [u8],
    pub nonce: u64,
}

impl<'a> From<&'a Message> for MessageParts<'a> {
    fn from(message: &'a Message) -> MessageParts<'a> {
        MessageParts {
            conversation: message.conversation,
            seq: message.seq,
            id: message.id,
            sender: message.sender,
            device: message.device,
            send_no: message.send_no,
            class: message.class,
            time_ms: message.time_ms,
            content: &message.content,
            nonce: message.nonce,
        }
    }
}

impl MessageParts<'_> {
    /// The message itself, with its content in memory of its own.
    pub fn to_wire(self, content: Bytes) -> Message {
        Message {
            conversation: self.conversation,
            seq: self.seq,
            id: self.id,
            sender: self.sender,
            device: self.device,
            send_no: self.send_no,
            class: self.class,
            time_ms: self.time_ms,
            content,
            nonce: self.nonce,
        }
    }
}

impl Kind {
    /// Whether it says all that the other says: whoever is told both at once needs but this one.
    pub fn covers(&self, other: &Kind) -> bool {
        match (self, other) {
            (Kind::Delivered(mine), Kind::Delivered(other)) => {
                let of = |told: &Delivered| (told.conversation, told.user);
                of(mine) == of(other) && mine.seq >= other.seq
            }
            _ => false,
        }
    }
}

/// Appends an event, whose encoded size this is, as a field of EVENTS: as prost would.
pub fn append_event(out: &mut Vec<u8>, event: &Event, size: usize) {
    append_field_head(out, size);
    match &event.kind {
        Some(Kind::Message(message)) => {
            MessageEvent::new(event.seq, event.epoch, event.prev, message.into()).append(out);
        }
        // A Vec grows as needed, so encoding into it cannot run out of room.
        _ => event.encode_raw(out),
    }
}

/// Appends what stands before an event of so many bytes in EVENTS.
pub(crate) fn append_field_head(out: &mut Vec<u8>, size: usize) {
    encode_key(EVENTS_TAG, WireType::LengthDelimited, out);
    encode_varint(size as u64, out);
}

/// An event that tells of a message, encoded but for the content, which stands amid the rest.
pub(crate) struct MessageEvent<'a> {
    /// Of the event, with the length of the message.
    event: Numbers<{ 4 * NUMBER_BYTES }>,
    /// Of the message up to its content, with the length of that.
    message: Numbers<{ 9 * NUMBER_BYTES }>,
    content: &'a [u8],
    nonce: Numbers<NUMBER_BYTES>,
}

impl<'a> MessageEvent<'a> {
    pub(crate) fn new(
        seq: u64,
        epoch: u32,
        prev: u64,
        parts: MessageParts<'a>,
    ) -> MessageEvent<'a> {
        let mut message = Numbers::new();
        message.put(1, parts.conversation);
        message.put(2, parts.seq);
        message.put_fixed(3, parts.id);
        message.put(4, u64::from(parts.sender));
        message.put(5, u64::from(parts.device));
        message.put(6, parts.send_no);
        // As prost does it: a negative one, which no class is, would be ten bytes.
        message.put(7, parts.class as u64);
        message.put(8, parts.time_ms);
        if !parts.content.is_empty() {
            message.put_length(9, parts.content.len());
        }
        let mut nonce = Numbers::new();
        nonce.put_fixed(10, parts.nonce);
        let mut event = Numbers::new();
        event.put(1, seq);
        event.put(2, u64::from(epoch));
        event.put(3, prev);
        event.put_length(4, message.len + parts.content.len() + nonce.len);
        MessageEvent { event, message, content: parts.content, nonce }
    }

    /// Bytes that it takes.
    pub(crate) fn len(&self) -> usize {
        self.event.len + self.message.len + self.content.len() + self.nonce.len
    }

    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.event.bytes());
        out.extend_from_slice(self.message.bytes());
        out.extend_from_slice(self.content);
        out.extend_from_slice(self.nonce.bytes());
    }
}

/// Fields one after the other, at most `MAX` bytes; one of zero is left out.
struct Numbers<const MAX: usize> {
    bytes: [u8; MAX],
    len: usize,
}

impl<const MAX: usize> Numbers<MAX> {
    fn new() -> Numbers<MAX> {
        Numbers { bytes: [0; MAX], len: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn put(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.byte(field << 3);
            self.varint(value);
        }
    }

    fn put_fixed(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.byte(field << 3 | 1);
            self.bytes[self.len..self.len + 8].copy_from_slice(&value.to_le_bytes());
            self.len += 8;
        }
    }

    /// Of a field with so many bytes, which follow.
    fn put_length(&mut self, field: u8, bytes: usize) {
        self.byte(field << 3 | 2);
        self.varint(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_covers_lower_ones_of_the_same_user_and_conversation_and_nothing_else() {
        let receipt = |conversation, user, seq| {
            Kind::Delivered(Delivered { conversation, user, seq, time_ms: seq })
        };
        let one = receipt(7, 1, 5);
        assert!(one.covers(&receipt(7, 1, 4)) && one.covers(&one));
        let others = [receipt(7, 1, 6), receipt(7, 2, 4), receipt(8, 1, 4)];
        assert!(others.iter().all(|other| !one.covers(other)));
        let message = Kind::Message(Message::default());
        assert!(!one.covers(&message) && !message.covers(&one) && !message.covers(&message));
    }
}
