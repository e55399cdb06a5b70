//! Events on their way out, as a delivery brings them or as they were encoded where they were
//! read, and the frames that they are put into.

use crate::connection::Mark;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use starling_codec::{
    EVENTS_TAG, EncodedEvents, Kind, MessageAt, UserId, append_event, append_header, wire::Event,
};

/// A frame of events is ended when it is this large.
const FRAME_BYTES: usize = 16 * 1024;

/// Field number of the head in `wire::Events`.
const HEAD_TAG: u32 = 2;

/// Events of one inbox, ascending, by their index.
pub(crate) trait Events {
    fn count(&self) -> usize;

    fn seq(&self, index: usize) -> u64;

    /// Encoded size, without what a frame puts before it.
    fn size(&self, index: usize) -> usize;

    /// What is to be told to the sender once the user has passed the event.
    fn mark(&self, index: usize, user: UserId, passed_seq: u64) -> Option<Mark>;

    /// Appends an event, whose encoded size is known, as a field of EVENTS.
    fn append(&self, index: usize, size: usize, output: &mut Vec<u8>);
}

impl Events for [Event] {
    fn count(&self) -> usize {
        self.len()
    }

    fn seq(&self, index: usize) -> u64 {
        self[index].seq
    }

    fn size(&self, index: usize) -> usize {
        self[index].encoded_len()
    }

    fn mark(&self, index: usize, user: UserId, passed_seq: u64) -> Option<Mark> {
        let event = &self[index];
        mark(event.seq, MessageAt::of(event), user, passed_seq)
    }

    fn append(&self, index: usize, size: usize, output: &mut Vec<u8>) {
        append_event(output, &self[index], size);
    }
}

impl Events for EncodedEvents {
    fn count(&self) -> usize {
        self.len()
    }

    fn seq(&self, index: usize) -> u64 {
        self[index].place.seq
    }

    fn size(&self, index: usize) -> usize {
        self[index].size
    }

    fn mark(&self, index: usize, user: UserId, passed_seq: u64) -> Option<Mark> {
        let event = &self[index];
        mark(event.place.seq, event.message, user, passed_seq)
    }

    fn append(&self, index: usize, _size: usize, output: &mut Vec<u8>) {
        output.extend_from_slice(self.field(index));
    }
}

/// Nothing is told of one's own messages, and nothing of receipts.
fn mark(seq: u64, message: Option<MessageAt>, user: UserId, passed_seq: u64) -> Option<Mark> {
    let message = message.filter(|message| message.sender != user && seq > passed_seq)?;
    let MessageAt { conversation, seq: of, .. } = message;
    Some(Mark { inbox_seq: seq, conversation, seq: of, before: 0 })
}

/// Appends one frame with as many of the events from `first` on, at least one, as fit it; the
/// encoded sizes of those that may go are known. Says how many those were. `head` goes with it if
/// the events do not reach it.
pub(crate) fn append_frame_of(
    output: &mut Vec<u8>,
    events: &(impl Events + ?Sized),
    first: usize,
    sizes: &[usize],
    head: u64,
) -> usize {
    let framed = |bytes: usize| key_len(EVENTS_TAG) + encoded_len_varint(bytes as u64) + bytes;
    let mut body_bytes = framed(sizes[0]);
    let mut count = 1;
    while count < sizes.len() && body_bytes + framed(sizes[count]) <= FRAME_BYTES {
        body_bytes += framed(sizes[count]);
        count += 1;
    }
    let behind = events.seq(first + count - 1) < head;
    let head_bytes = if behind { key_len(HEAD_TAG) + encoded_len_varint(head) } else { 0 };
    append_header(output, Kind::Events, body_bytes + head_bytes);
    for (index, &size) in (first..).zip(&sizes[..count]) {
        events.append(index, size, output);
    }
    if behind {
        encode_key(HEAD_TAG, WireType::Varint, output);
        encode_varint(head, output);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use starling_codec::{Decoded, decode_frame, wire};

    fn event(seq: u64, content_bytes: usize) -> Event {
        let content = Bytes::from(vec![7; content_bytes]);
        let message = wire::Message { seq, content, sender: 2, ..Default::default() };
        let kind = Some(wire::event::Kind::Message(message));
        Event { seq, epoch: 1, prev: 0, kind }
    }

    fn frames(events: &(impl Events + ?Sized), head: u64) -> Vec<u8> {
        let sizes: Vec<usize> = (0..events.count()).map(|index| events.size(index)).collect();
        let mut output = Vec::new();
        let mut written = 0;
        while written < sizes.len() {
            written += append_frame_of(&mut output, events, written, &sizes[written..], head);
        }
        output
    }

    /// The encoding by hand is that of the generated message, by whomever it is done.
    #[test]
    fn frames_of_events_are_what_prost_would_write() {
        let events: Vec<Event> = (1..=40).map(|seq| event(seq, seq as usize * 30)).collect();
        let encoded: EncodedEvents = events.iter().collect();
        for head in [40, 99] {
            let output = frames(events.as_slice(), head);
            assert_eq!(frames(&encoded, head), output);
            let (mut read, mut frames) = (Vec::new(), 0);
            let mut rest = &output[..];
            while let Decoded::Frame(raw) = decode_frame(rest, 1 << 20) {
                let body: wire::Events = raw.known().unwrap().unwrap().body().unwrap();
                assert!(raw.body.len() <= FRAME_BYTES + 3);
                assert_eq!(body.encode_to_vec(), raw.body);
                read.extend(body.events);
                let all = read.len() == events.len() && head == 40;
                assert_eq!(body.head, if all { 0 } else { head });
                frames += 1;
                rest = &rest[raw.size..];
            }
            assert_eq!(read, events);
            assert!(frames > 1 && rest.is_empty());
        }
    }

    #[test]
    fn only_what_others_sent_and_nobody_has_passed_is_marked() {
        let receipt = wire::event::Kind::Delivered(wire::Delivered::default());
        let receipt = Event { seq: 5, epoch: 1, prev: 0, kind: Some(receipt) };
        let events = vec![event(3, 1), event(4, 1), receipt];
        let encoded: EncodedEvents = events.iter().collect();
        let marked = |events: &dyn Fn(usize) -> Option<Mark>| {
            (0..3).filter_map(events).map(|mark| mark.inbox_seq).collect::<Vec<_>>()
        };
        for (user, passed, expected) in [(1, 3, vec![4]), (1, 0, vec![3, 4]), (2, 0, vec![])] {
            let user = UserId(user);
            assert_eq!(marked(&|at| events.as_slice().mark(at, user, passed)), expected);
            assert_eq!(marked(&|at| encoded.mark(at, user, passed)), expected);
        }
    }
}
