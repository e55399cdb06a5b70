//! What holds for all bytes and all bodies, not only for those of the vectors.

mod support;

use proptest::{prelude::*, strategy::Union};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind as FieldKind, MessageDescriptor, Value,
    prost::Message as _,
};
use starling_codec::{
    Body, Decoded, EncodedEvents, Epoch, ErrorCode, Frame, Kind, MessageAt, Place, append_event,
    append_frame, append_header, decode_frame, limits, wire,
};

/// What a reader of a stream makes of it.
#[derive(Debug, PartialEq)]
enum Seen {
    Body(Body),
    Skipped,
    Refused(ErrorCode),
}

/// Reads a stream that comes in pieces, as a connection does: whole frames where they lie, and
/// only an incomplete rest is kept.
fn read(pieces: impl IntoIterator<Item = Vec<u8>>) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut rest = Vec::new();
    for piece in pieces {
        rest.extend_from_slice(&piece);
        let mut used = 0;
        loop {
            match decode_frame(&rest[used..], limits::MAX_FRAME_BYTES) {
                Decoded::NeedMore => break,
                Decoded::Reject(code) => {
                    seen.push(Seen::Refused(code));
                    return seen;
                }
                Decoded::Frame(raw) => {
                    used += raw.size;
                    seen.push(match raw.known().and_then(|f| f.map(Body::decode).transpose()) {
                        Ok(Some(body)) => Seen::Body(body),
                        Ok(None) => Seen::Skipped,
                        Err(code) => Seen::Refused(code),
                    });
                }
            }
        }
        rest.drain(..used);
    }
    seen
}

/// All vectors that are whole frames, one after the other.
fn stream() -> Vec<u8> {
    let whole = support::all().into_iter().filter(|(_, vector)| {
        let expect = &vector.expect;
        let small = vector.bytes().len() <= 4 * 1024;
        small && (expect.kind.is_some() || expect.skipped)
    });
    whole.flat_map(|(_, vector)| vector.bytes()).collect()
}

#[test]
fn a_stream_cut_anywhere_reads_alike() {
    let stream = stream();
    let whole = read([stream.clone()]);
    assert!(whole.len() > 100);
    for cut in 0..stream.len() {
        let pieces = [stream[..cut].to_vec(), stream[cut..].to_vec()];
        assert_eq!(read(pieces), whole, "cut at {cut}");
    }
    assert_eq!(read(stream.iter().map(|byte| vec![*byte])), whole);
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

fn bytes() -> impl Strategy<Value = bytes::Bytes> {
    proptest::collection::vec(any::<u8>(), 0..200).prop_map(Into::into)
}

/// What a field may say. Small numbers come often, for they are what a default is mistaken for.
fn value(field: &FieldDescriptor) -> BoxedStrategy<Value> {
    let one = match field.kind() {
        FieldKind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        FieldKind::Uint32 | FieldKind::Fixed32 => {
            prop_oneof![0..3_u32, any::<u32>()].prop_map(Value::U32).boxed()
        }
        FieldKind::Uint64 | FieldKind::Fixed64 => {
            prop_oneof![0..3_u64, any::<u64>()].prop_map(Value::U64).boxed()
        }
        FieldKind::String => text().prop_map(Value::String).boxed(),
        FieldKind::Bytes => bytes().prop_map(Value::Bytes).boxed(),
        FieldKind::Enum(_) => (0..4).prop_map(Value::EnumNumber).boxed(),
        FieldKind::Message(of) => message(of).prop_map(Value::Message).boxed(),
        other => panic!("{}: no body has a field of {other:?} yet", field.full_name()),
    };
    if field.is_list() {
        proptest::collection::vec(one, 0..8).prop_map(Value::List).boxed()
    } else {
        one
    }
}

/// Any message of a type of the schema: each field may be there, and of alternatives one.
fn message(of: MessageDescriptor) -> BoxedStrategy<DynamicMessage> {
    let filled = |field: FieldDescriptor| {
        value(&field).prop_map(move |value| (field.clone(), value)).boxed()
    };
    let alone = of.fields().filter(|field| field.containing_oneof().is_none()).map(filled);
    let alternatives = of.oneofs().map(|oneof| Union::new(oneof.fields().map(filled)).boxed());
    let fields: Vec<_> = alone.chain(alternatives).map(proptest::option::of).collect();
    fields
        .prop_map(move |fields| {
            let mut message = DynamicMessage::new(of.clone());
            fields.iter().flatten().for_each(|(field, value)| {
                message.set_field(field, value.clone());
            });
            message
        })
        .boxed()
}

fn event() -> impl Strategy<Value = wire::Event> {
    let of = support::schema().get_message_by_name("starling.v1.Event").unwrap();
    message(of).prop_map(|event| event.transcode_to().unwrap())
}

/// A body of any kind, as the schema has it.
fn body() -> impl Strategy<Value = Body> {
    let schema = support::schema();
    let decode = |kind, body: &[u8]| Body::decode(Frame { kind, body }).unwrap();
    Union::new(Kind::ALL.iter().map(|&kind| {
        if kind.has_body() {
            let message = message(support::body_type(&schema, kind));
            message.prop_map(move |message| decode(kind, &message.encode_to_vec())).boxed()
        } else {
            Just(decode(kind, &[])).boxed()
        }
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn reading_never_panics(input in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        read([input]);
    }

    /// Random bytes are rarely a frame, so these are given a true length and a known kind.
    #[test]
    fn bodies_of_any_bytes_never_panic(
        kind in proptest::sample::select(Kind::ALL),
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut input = Vec::new();
        append_header(&mut input, kind, body.len());
        input.extend_from_slice(&body);
        prop_assert_eq!(read([input]).len(), 1);
    }

    /// A vector with a few bytes changed is nearly a frame.
    #[test]
    fn nearly_frames_never_panic(
        at in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let vectors = support::read("kinds");
        let mut input = vectors[at.index(vectors.len())].bytes();
        for (at, byte) in changes {
            let at = at.index(input.len());
            input[at] = byte;
        }
        read([input]);
    }

    #[test]
    fn what_is_written_is_read_back(bodies in proptest::collection::vec(body(), 1..6)) {
        let mut stream = Vec::new();
        for body in &bodies {
            body.append(&mut stream);
        }
        let expected: Vec<Seen> = bodies.into_iter().map(Seen::Body).collect();
        prop_assert_eq!(read([stream]), expected);
    }

    /// Written by hand, and yet what prost would write.
    #[test]
    fn events_are_written_as_prost_writes_them(event in event()) {
        let mut written = vec![7];
        append_event(&mut written, &event, prost::Message::encoded_len(&event));
        let frame = wire::Events { events: vec![event], ..Default::default() };
        prop_assert_eq!(&written[1..], prost::Message::encode_to_vec(&frame));
    }

    /// Encoded in any order, they are the body of one frame.
    #[test]
    fn encoded_events_are_what_prost_writes(
        events in proptest::collection::vec(event(), 0..6), backwards: bool,
    ) {
        let mut encoded = EncodedEvents::default();
        let mut messages = Vec::new();
        for (index, event) in events.iter().enumerate() {
            match &event.kind {
                Some(wire::event::Kind::Message(message)) if event.prev == 0 => {
                    encoded.push_message(Place::new(event.seq, Epoch(event.epoch)));
                    messages.push((index, message));
                }
                Some(kind) if event.prev == 0 => {
                    let mut notice = Vec::new();
                    kind.encode(&mut notice);
                    let place = Place::new(event.seq, Epoch(event.epoch));
                    prop_assert_eq!(encoded.push_notice(place, &notice), Some(()));
                }
                _ => encoded.push(event),
            }
        }
        if backwards {
            messages.reverse();
        }
        for (index, message) in messages {
            prop_assert!(encoded.field(index).is_empty());
            encoded.tell(index, message.into());
        }
        let fields = (0..events.len()).map(|index| encoded.field(index).to_vec());
        let fields = fields.collect::<Vec<_>>().concat();
        let body = wire::Events { events: events.clone(), head: 0 };
        prop_assert_eq!(fields, prost::Message::encode_to_vec(&body));
        for (encoded, event) in encoded.iter().zip(&events) {
            prop_assert_eq!(encoded.size, prost::Message::encoded_len(event));
            prop_assert_eq!(encoded.message, MessageAt::of(event));
            prop_assert_eq!(encoded.place, Place::new(event.seq, Epoch(event.epoch)));
        }
        let in_order: EncodedEvents = events.iter().collect();
        prop_assert_eq!(&encoded, &in_order);
        prop_assert_eq!(encoded.decode(), events);
    }

    /// Whatever a notice says, it is passed on as it is, in an event that can be read; or refused.
    #[test]
    fn notices_are_passed_on_or_refused(
        notice in proptest::collection::vec(any::<u8>(), 0..40), seq: u64, epoch: u32,
    ) {
        let mut encoded = EncodedEvents::default();
        let place = Place::new(seq, Epoch(epoch));
        match encoded.push_notice(place, &notice) {
            Some(()) => {
                prop_assert!(encoded.field(0).ends_with(&notice));
                let event = &encoded.decode()[0];
                prop_assert_eq!((event.seq, event.epoch, event.prev), (seq, epoch, 0));
            }
            None => prop_assert!(encoded.is_empty()),
        }
    }

    #[test]
    fn any_pieces_read_alike(
        input in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..500),
            proptest::collection::vec(body(), 0..4).prop_map(|bodies| {
                let mut stream = Vec::new();
                bodies.iter().for_each(|body| body.append(&mut stream));
                stream
            }),
        ],
        sizes in proptest::collection::vec(0usize..40, 1..200),
    ) {
        let mut pieces = Vec::new();
        let mut rest = &input[..];
        for size in sizes {
            let (piece, behind) = rest.split_at(size.min(rest.len()));
            pieces.push(piece.to_vec());
            rest = behind;
        }
        pieces.push(rest.to_vec());
        prop_assert_eq!(read(pieces), read([input]));
    }

    /// A length beyond the limit is refused by its first bytes, whatever follows.
    #[test]
    fn what_is_too_large_is_refused_before_it_has_come(
        max in 1usize..limits::MAX_LARGE_FRAME_BYTES,
        beyond in 1usize..1_000,
    ) {
        let mut header = Vec::new();
        append_header(&mut header, Kind::Send, max + beyond - 1);
        // Without the kind byte: the length alone.
        header.pop();
        prop_assert_eq!(decode_frame(&header, max), Decoded::Reject(ErrorCode::FrameTooLarge));
    }
}

#[test]
fn the_largest_lengths_of_each_size_are_read() {
    for body_bytes in [0, 126, 127, 16_382, 16_383, 65_535, 262_143] {
        let mut frame = Vec::new();
        let body = wire::Send { content: vec![b'x'; body_bytes].into(), ..Default::default() };
        append_frame(&mut frame, Kind::Send, &body);
        let Decoded::Frame(raw) = decode_frame(&frame, usize::MAX) else { panic!("{body_bytes}") };
        assert_eq!(raw.size, frame.len());
        assert_eq!(decode_frame(&frame[..frame.len() - 1], usize::MAX), Decoded::NeedMore);
    }
}

#[test]
fn contents_share_the_input_if_that_is_wished() {
    let mut frame = Vec::new();
    let send = wire::Send { send_no: 1, content: vec![b'x'; 500].into(), ..Default::default() };
    append_frame(&mut frame, Kind::Send, &send);
    let input = bytes::Bytes::from(frame);
    let Decoded::Frame(raw) = decode_frame(&input, usize::MAX) else { panic!("{input:?}") };
    let read: wire::Send = raw.known().unwrap().unwrap().body_within(&input).unwrap();
    assert_eq!(read, send);
    let inside = input.as_ptr_range();
    assert!(inside.contains(&read.content.as_ptr()));
}
