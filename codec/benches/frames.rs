//! What the message path pays here: finding a frame, reading a SEND, writing a SEND_ACK and
//! EVENTS, and reading those as a client does.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use starling_codec::{
    ConversationId, Decoded, Frame, Kind, UserId, append_frame, decode_frame, limits, wire,
};
use std::hint::black_box;

const CONTENT_BYTES: usize = 100;

fn send(send_no: u64) -> wire::Send {
    wire::Send {
        send_no,
        nonce: 0x1122_3344_5566_7788,
        oldest: send_no.saturating_sub(15).max(1),
        to: Some(wire::send::To::User(9)),
        content: Bytes::from(vec![b'x'; CONTENT_BYTES]),
        ..Default::default()
    }
}

fn events(count: u64) -> wire::Events {
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

fn frame(input: &[u8]) -> (Frame<'_>, usize) {
    match decode_frame(input, limits::MAX_LARGE_FRAME_BYTES) {
        Decoded::Frame(raw) => (raw.known().unwrap().unwrap(), raw.size),
        other => panic!("{other:?}"),
    }
}

fn benches(criterion: &mut Criterion) {
    let mut stream = Vec::new();
    for send_no in 1..=16 {
        append_frame(&mut stream, Kind::Send, &send(send_no));
    }
    let mut group = criterion.benchmark_group("16 sends");
    group.throughput(Throughput::Elements(16));
    group.bench_function("find", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(&stream[..]);
            while !rest.is_empty() {
                rest = &rest[frame(rest).1..];
            }
        });
    });
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(&stream[..]);
            while !rest.is_empty() {
                let (frame, size) = frame(rest);
                black_box(frame.body::<wire::Send>().unwrap());
                rest = &rest[size..];
            }
        });
    });
    group.finish();

    let ack = wire::SendAck {
        send_no: 7,
        id: 0x0000_2F29_8540_0405,
        conversation: ConversationId::direct(UserId(7), UserId(9)).0,
        seq: 1_000,
        place: Some(wire::Place { seq: 5_000, epoch: 3 }),
        time_ms: 1_767_225_600_000,
        class: 0,
    };
    criterion.bench_function("write SEND_ACK", |bencher| {
        let mut out = Vec::with_capacity(4 * 1024);
        bencher.iter(|| {
            out.clear();
            append_frame(&mut out, Kind::SendAck, black_box(&ack));
        });
    });

    let events = events(32);
    let mut written = Vec::new();
    append_frame(&mut written, Kind::Events, &events);
    let shared = Bytes::from(written.clone());
    let mut group = criterion.benchmark_group("32 events");
    group.throughput(Throughput::Elements(32));
    group.bench_function("write", |bencher| {
        let mut out = Vec::with_capacity(64 * 1024);
        bencher.iter(|| {
            out.clear();
            append_frame(&mut out, Kind::Events, black_box(&events));
        });
    });
    group.bench_function("read", |bencher| {
        bencher.iter_batched(
            || frame(&written).0,
            |frame| frame.body::<wire::Events>().unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("read, contents shared", |bencher| {
        bencher.iter_batched(
            || frame(&shared).0,
            |frame| frame.body_within::<wire::Events>(&shared).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(frames, benches);
criterion_main!(frames);
