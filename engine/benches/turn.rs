//! What a message costs the engine: from the bytes of its SEND to the command, and from the
//! announcement to the bytes of the acknowledgement and of the events to both. One message in
//! flight for each of the pairs, and several; what the store does is made outside the clock.

#[path = "common/pairs.rs"]
mod pairs;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pairs::Bench;

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

criterion_group!(benches, messages, heartbeats);
criterion_main!(benches);
