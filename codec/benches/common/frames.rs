//! The frames of the message path, as the benchmark and the instruction counts take them.

use bytes::Bytes;
use starling_codec::{ConversationId, Decoded, Frame, UserId, decode_frame, limits, wire};

const CONTENT_BYTES: usize = 100;

pub fn send(send_no: u64) -> wire::Send {
    wire::Send {
        send_no,
        nonce: 0x1122_3344_5566_7788,
        oldest: send_no.saturating_sub(15).max(1),
        to: Some(wire::send::To::User(9)),
        content: Bytes::from(vec![b'x'; CONTENT_BYTES]),
        ..Default::default()
    }
}

pub fn events(count: u64) -> wire::Events {
    let event = |index: u64| {
        let message = wire::Message {
            conversation: ConversationId::direct(UserId(7), UserId(9)).0,
            seq: 1_000 + index,
            id: 0x0000_2F29_8540_0405 + index,
            sender: 7,
            device: 1,
            send_no: 1_000 + index,
            time_ms: 1_767_225_600_000,
            content: Bytes::from(vec![b'x'; CONTENT_BYTES]),
            ..Default::default()
        };
        let kind = Some(wire::event::Kind::Message(message));
        wire::Event { seq: 5_000 + index, epoch: 3, prev: 0, kind }
    };
    wire::Events { events: (0..count).map(event).collect(), head: 0 }
}

pub fn frame(input: &[u8]) -> (Frame<'_>, usize) {
    match decode_frame(input, limits::MAX_LARGE_FRAME_BYTES) {
        Decoded::Frame(raw) => (raw.known().unwrap().unwrap(), raw.size),
        other => panic!("{other:?}"),
    }
}

/// The answer to a SEND.
pub fn send_ack() -> wire::SendAck {
    wire::SendAck {
        send_no: 7,
        id: 0x0000_2F29_8540_0405,
        conversation: ConversationId::direct(UserId(7), UserId(9)).0,
        seq: 1_000,
        place: Some(wire::Place { seq: 5_000, epoch: 3 }),
        time_ms: 1_767_225_600_000,
        class: 0,
    }
}
