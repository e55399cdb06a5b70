//! The frames that a load consists of, read where they lie: a load tool that allocates for every
//! message measures its allocator. Tests hold this against the generated types of codec.

use super::varint;

/// A field of a protobuf message.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, in order. Ends early, with `broken`, at what is none.
struct Fields<'a> {
    rest: &'a [u8],
    broken: bool,
}

impl<'a> Fields<'a> {
    fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message, broken: false }
    }

    fn take(&mut self) -> Option<(u64, Value<'a>)> {
        let key = varint::take(&mut self.rest)?;
        let value = match key & 7 {
            0 => Value::Number(varint::take(&mut self.rest)?),
            1 => Value::Number(u64::from_le_bytes(*self.split(8)?.first_chunk()?)),
            2 => {
                let length = usize::try_from(varint::take(&mut self.rest)?).ok()?;
                Value::Bytes(self.split(length)?)
            }
            5 => Value::Number(u32::from_le_bytes(*self.split(4)?.first_chunk()?).into()),
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn split(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(part)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.broken {
            return None;
        }
        let field = self.take();
        self.broken = field.is_none();
        field
    }
}

/// Calls `each` for every field; `None` if the message is broken.
fn read<'a>(message: &'a [u8], mut each: impl FnMut(u64, Value<'a>)) -> Option<()> {
    let mut fields = Fields::of(message);
    for (number, value) in &mut fields {
        each(number, value);
    }
    (!fields.broken).then_some(())
}

/// Of a SEND_ACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendAck {
    pub send_no: u64,
    /// What was reached: a class of the protocol, by number.
    pub class: u64,
}

impl SendAck {
    pub fn read(body: &[u8]) -> Option<SendAck> {
        let mut ack = SendAck::default();
        read(body, |number, value| match (number, value) {
            (1, Value::Number(send_no)) => ack.send_no = send_no,
            (7, Value::Number(class)) => ack.class = class,
            _ => {}
        })?;
        Some(ack)
    }
}

/// Of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    pub seq: u64,
    pub epoch: u32,
    pub prev: u64,
    /// Its encoded size.
    pub bytes: usize,
    /// `None`: it is not a message.
    pub message: Option<Message<'a>>,
}

/// Of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    pub conversation: u64,
    pub seq: u64,
    pub sender: u32,
    pub content: &'a [u8],
}

/// Calls `each` for every event of an EVENTS body; `None` if the body is broken.
pub fn events<'a>(body: &'a [u8], mut each: impl FnMut(Event<'a>)) -> Option<()> {
    let mut intact = true;
    read(body, |number, value| {
        if let (1, Value::Bytes(bytes)) = (number, value) {
            match Event::read(bytes) {
                Some(event) => each(event),
                None => intact = false,
            }
        }
    })?;
    intact.then_some(())
}

impl<'a> Event<'a> {
    fn read(bytes: &'a [u8]) -> Option<Event<'a>> {
        let mut event = Event { bytes: bytes.len(), ..Event::default() };
        let mut intact = true;
        read(bytes, |number, value| match (number, value) {
            (1, Value::Number(seq)) => event.seq = seq,
            (2, Value::Number(epoch)) => event.epoch = epoch as u32,
            (3, Value::Number(prev)) => event.prev = prev,
            (4, Value::Bytes(bytes)) => {
                event.message = Message::read(bytes);
                intact &= event.message.is_some();
            }
            _ => {}
        })?;
        intact.then_some(event)
    }
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8]) -> Option<Message<'a>> {
        let mut message = Message::default();
        read(bytes, |number, value| match (number, value) {
            (1, Value::Number(conversation)) => message.conversation = conversation,
            (2, Value::Number(seq)) => message.seq = seq,
            (4, Value::Number(sender)) => message.sender = sender as u32,
            (9, Value::Bytes(content)) => message.content = content,
            _ => {}
        })?;
        Some(message)
    }
}

/// The payload of a content of the opaque kind; empty if it is of another.
pub fn opaque(content: &[u8]) -> &[u8] {
    let mut payload: &[u8] = &[];
    // A broken content has no payload, and that is what the caller sees.
    let _ = read(content, |number, value| {
        if let (9, Value::Bytes(bytes)) = (number, value) {
            payload = bytes;
        }
    });
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_codec::{Decoded, Kind, append_frame, decode_frame, limits, wire};

    fn body_of(kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        match decode_frame(&bytes, limits::MAX_LARGE_FRAME_BYTES) {
            Decoded::Frame(frame) if frame.kind == kind as u8 => frame.body.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_what_the_generated_types_write() {
        let content = [&[0x4A, 3][..], b"abc"].concat();
        let message = wire::Message {
            conversation: u64::MAX - 5,
            seq: 300,
            id: 77,
            sender: 9,
            device: 2,
            send_no: 1 << 40,
            class: 1,
            time_ms: 1_700_000_000_000,
            content: content.clone().into(),
            nonce: 5,
        };
        let delivered = wire::Delivered { conversation: 1, user: 2, seq: 3, time_ms: 4 };
        let events_frame = wire::Events {
            events: vec![
                wire::Event {
                    seq: 500,
                    epoch: 3,
                    prev: 498,
                    kind: Some(wire::event::Kind::Message(message)),
                },
                wire::Event {
                    seq: 501,
                    epoch: 3,
                    prev: 0,
                    kind: Some(wire::event::Kind::Delivered(delivered)),
                },
            ],
            head: 600,
        };
        let bytes = [0, 1].map(|place: usize| {
            let event = &events_frame.events[place];
            body_of(Kind::Events, |out| append_frame(out, Kind::Events, event)).len()
        });
        let body = body_of(Kind::Events, |out| {
            append_frame(out, Kind::Events, &events_frame);
        });
        let mut read = Vec::new();
        events(&body, |event| read.push(event)).unwrap();
        let expected =
            Message { conversation: u64::MAX - 5, seq: 300, sender: 9, content: &content };
        assert_eq!(
            read,
            [
                Event { seq: 500, epoch: 3, prev: 498, bytes: bytes[0], message: Some(expected) },
                Event { seq: 501, epoch: 3, prev: 0, bytes: bytes[1], message: None },
            ]
        );
        assert_eq!(opaque(&content), b"abc");
        // Cut anywhere, it is broken or shorter, never something else.
        for end in 0..body.len() {
            let mut count = 0;
            let _ = events(&body[..end], |event| {
                assert_eq!(event, read[count]);
                count += 1;
            });
        }

        let ack = wire::SendAck { send_no: 9_999, id: 1, seq: 2, class: 1, ..Default::default() };
        let body = body_of(Kind::SendAck, |out| append_frame(out, Kind::SendAck, &ack));
        assert_eq!(SendAck::read(&body), Some(SendAck { send_no: 9_999, class: 1 }));
    }
}
