//! What a message costs: in the sequencer alone, and committed, at several messages a commit.
//! 500 pairs, 170 bytes of content. `cargo bench --profile release -p starling-storage`.

#[path = "common/load.rs"]
mod load;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use load::{Load, PAIRS};
use starling_codec::{Announcement, Answer, EpochTag, Origin, wire::Class};
use starling_storage::{
    Announcer, Answers, Backend, MemoryBackend, Reads, Sequencer, Store, StoreSettings, Tier, begin,
};
use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

const BATCHES: [usize; 3] = [64, 256, 800];

/// Sequencing alone: nothing is written, all state is in memory.
fn sequencing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sequenced");
    for size in BATCHES {
        let backend = MemoryBackend::new();
        let epoch = begin(&backend, EpochTag(1)).unwrap().epochs.current().0;
        let view = backend.view();
        let reads = Reads::new(&*view, Tier::All);
        let mut sequencer = Sequencer::new(epoch, 1 << 20, reads).unwrap();
        let mut load = Load::new(Class::Durable);
        sequencer.apply(reads, &mut load.batch(PAIRS as usize), true).unwrap();
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(
                || load.batch(size),
                |mut commands| sequencer.apply(reads, &mut commands, true).unwrap(),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

struct Ears(mpsc::Sender<Announcement>);

impl Announcer for Ears {
    fn announce(&mut self, announcement: Announcement) {
        let _ = self.0.send(announcement);
    }

    fn poisoned(&mut self, reason: &str) {
        panic!("{reason}");
    }
}

struct NoAnswers;

impl Answers for NoAnswers {
    fn answer(&self, _: usize, _origin: Origin, _answer: Answer) {}
}

/// Through the whole committer: two commits' worth of messages in flight, as many more sent as
/// were announced.
fn committed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(if cfg!(feature = "rocksdb") {
        "committed to RocksDB"
    } else {
        "committed to memory"
    });
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for (class, name) in [(Class::Durable, "durable"), (Class::Buffered, "buffered")] {
        for size in BATCHES {
            let directory = tempfile::tempdir().unwrap();
            let settings = StoreSettings {
                data_dir: directory.path().to_owned(),
                max_batch_commands: size,
                ..StoreSettings::default()
            };
            #[cfg(feature = "rocksdb")]
            let store = Store::open(settings).unwrap();
            #[cfg(not(feature = "rocksdb"))]
            let store = Store::in_memory(settings).unwrap();
            let (tell, told) = mpsc::channel();
            let handle = store.start(Ears(tell), NoAnswers).unwrap();
            let mut load = Load::new(class);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_custom(|iterations| {
                    let wanted = iterations * size as u64;
                    let (mut sent, mut heard) = (0, 0);
                    let started = Instant::now();
                    while heard < wanted {
                        while sent < wanted && sent < heard + 2 * size as u64 {
                            handle.queue(0, load.next()).unwrap();
                            sent += 1;
                        }
                        handle.wake();
                        heard += told.recv().unwrap().outcomes.len() as u64;
                    }
                    started.elapsed()
                });
            });
            let counters = handle.counters();
            let used = cpu_us();
            eprintln!(
                "{name} {size}: {} commands, {} batches, {} syncs, process CPU so far {used} us",
                counters.commands, counters.batches, counters.syncs
            );
            handle.close();
        }
    }
    group.finish();
}

fn cpu_us() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills in the structure that it is given; zeroes are one as well.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    us(usage.ru_utime) + us(usage.ru_stime)
}

criterion_group!(benches, sequencing, committed);
criterion_main!(benches);
