//! What a message costs the engine: from the bytes of its SEND to the command, and from the
//! announcement to the bytes of the acknowledgement and of the events to both. One message in
//! flight for each of the pairs, and several; what the store does is made outside the clock.
//! And what time costs it while a million connections are open.

#[path = "common/pairs.rs"]
mod pairs;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pairs::Bench;
use starling_codec::append_ping;
use starling_engine::Settings;
use std::time::{Duration, Instant};

const CONNECTIONS: u32 = 1_000_000;
const HEARTBEAT_S: u32 = 25;

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    for (pairs, in_flight) in [(500u64, 1u64), (50, 16)] {
        group.throughput(Throughput::Elements(pairs * in_flight));
        let name = BenchmarkId::from_parameter(format!("{pairs}x{in_flight}"));
        group.bench_function(name, |bencher| {
            let mut bench = Bench::new(2 * pairs as u32);
            bencher.iter_custom(|rounds| (0..rounds).map(|_| bench.round(in_flight)).sum());
        });
    }
    group.finish();
}

fn heartbeats(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("heartbeat");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ping", |bencher| {
        let mut bench = Bench::new(1);
        bencher.iter(|| bench.heartbeat());
    });
    group.finish();
}

/// The timers of a million connections, each of which is heard every 25 s and may be silent for
/// half as long again: what the engine does of itself in a second. Of a whole core that is a
/// hundredth if it takes 10 ms.
fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers");
    group.sample_size(20);
    // Made once, and not at all if another benchmark is wanted.
    let mut crowd = None;
    group.bench_function("second_of_1000000", |bencher| {
        let crowd = crowd.get_or_insert_with(Crowd::new);
        bencher.iter_custom(|seconds| (0..seconds).map(|_| crowd.second()).sum());
    });
    group.finish();
}

struct Crowd {
    bench: Bench,
    second: usize,
    ping: Vec<u8>,
}

impl Crowd {
    fn new() -> Crowd {
        let settings = Settings { heartbeat_s: HEARTBEAT_S, ..Settings::default() };
        let mut ping = Vec::new();
        append_ping(&mut ping);
        let bench = Bench::with_settings(CONNECTIONS, settings);
        let mut crowd = Crowd { bench, second: 0, ping };
        // All were opened at once; after some heartbeats their deadlines are spread as in life.
        for _ in 0..4 * HEARTBEAT_S {
            crowd.second();
        }
        crowd
    }

    /// A second in which a part of the crowd is heard, and how long its tick took.
    fn second(&mut self) -> Duration {
        let Bench { engine, now, tickets, .. } = &mut self.bench;
        let parts = HEARTBEAT_S as usize;
        for ticket in tickets.iter().skip(self.second % parts).step_by(parts) {
            engine.receive(*now, *ticket, &self.ping);
        }
        self.second += 1;
        self.bench.flush();
        self.bench.now.mono_ms += 1_000;
        let begin = Instant::now();
        self.bench.engine.turn(self.bench.now);
        let took = begin.elapsed();
        assert_eq!(self.bench.engine.counters().connections, u64::from(CONNECTIONS));
        took
    }
}

criterion_group!(benches, messages, heartbeats, timers);
criterion_main!(benches);
