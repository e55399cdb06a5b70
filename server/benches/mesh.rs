//! What a hop between shards costs: an entry of a lane and the question whether its shard sleeps,
//! alone and in a burst; the way to another thread and back; and to wake a shard that does sleep.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use starling_server::mesh::{Doorbell, Lane};
use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Entries of a lane between two shards.
const ENTRIES: usize = 1_024;

/// As large as what hops.
type Entry = [u64; 16];

/// On one thread: what sender and receiver do, without what moving it between caches takes.
fn hops(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hop");
    for burst in [1u64, 64] {
        group.throughput(Throughput::Elements(burst));
        group.bench_function(BenchmarkId::from_parameter(burst), |bencher| {
            let (lane, bell) = (Lane::new(ENTRIES), Doorbell::new().expect("a descriptor"));
            bencher.iter(|| {
                for number in 0..burst {
                    lane.push(black_box([number; 16])).expect("room");
                }
                bell.ring();
                for _ in 0..burst {
                    black_box(lane.pop()).expect("an entry");
                }
                black_box(lane.has_relieved());
            });
        });
    }
    group.finish();
}

/// To another thread, which never sleeps, and back.
fn there_and_back(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("there_and_back");
    group.throughput(Throughput::Elements(1));
    group.bench_function("spinning", |bencher| {
        let lanes: Arc<[Lane<Entry>; 2]> = Arc::new([Lane::new(ENTRIES), Lane::new(ENTRIES)]);
        let done = Arc::new(AtomicBool::new(false));
        let other = thread::spawn({
            let (lanes, done) = (lanes.clone(), done.clone());
            move || {
                while !done.load(Ordering::Relaxed) {
                    match lanes[0].pop() {
                        Some(entry) => lanes[1].push(entry).expect("room"),
                        // With one core for both, the other has to run.
                        None => thread::yield_now(),
                    }
                }
            }
        });
        bencher.iter(|| {
            lanes[0].push(black_box([7; 16])).expect("room");
            loop {
                match lanes[1].pop() {
                    Some(entry) => break black_box(entry),
                    None => thread::yield_now(),
                }
            }
        });
        done.store(true, Ordering::Relaxed);
        other.join().expect("the other thread");
    });
    group.finish();
}

/// The system calls that a shard which sleeps costs who wakes it, and itself.
fn wakings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wake");
    group.throughput(Throughput::Elements(1));
    group.bench_function("sleeper", |bencher| {
        let bell = Doorbell::new().expect("a descriptor");
        bencher.iter(|| {
            bell.sleeper().lie_down();
            bell.ring();
            bell.silence();
        });
    });
    group.finish();
}

criterion_group!(benches, hops, there_and_back, wakings);
criterion_main!(benches);
