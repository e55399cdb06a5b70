//! What the message path pays here: finding a frame, reading a SEND, writing a SEND_ACK and
//! EVENTS, and reading those as a client does.

#[path = "common/frames.rs"]
mod frames;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use frames::{events, frame, send, send_ack};
use starling_codec::{Kind, append_frame, wire};
use std::hint::black_box;

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

    let ack = send_ack();
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

criterion_group!(all, benches);
criterion_main!(all);
