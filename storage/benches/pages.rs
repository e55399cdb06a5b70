//! What a page of an inbox costs whose rows are in tables and in the block cache, of one
//! conversation and of many. `cargo bench --profile release -p starling-storage --bench pages`.

#[path = "common/inbox.rs"]
mod inbox;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use starling_storage::{Backend, Reads, Tier, answer};
use std::{hint::black_box, path::Path};

#[cfg(feature = "rocksdb")]
fn open(directory: &Path) -> starling_storage::RocksBackend {
    let data_dir = directory.to_owned();
    let settings = starling_storage::StoreSettings { data_dir, ..Default::default() };
    starling_storage::RocksBackend::open(&settings).unwrap()
}

#[cfg(not(feature = "rocksdb"))]
fn open(_directory: &Path) -> starling_storage::MemoryBackend {
    starling_storage::MemoryBackend::new()
}

fn pages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("events of a page");
    group.throughput(Throughput::Elements(inbox::PAGE_EVENTS));
    for senders in [1, 16, inbox::PAGE_EVENTS] {
        let directory = tempfile::tempdir().unwrap();
        let backend = open(directory.path());
        let epochs = inbox::fill(&backend, senders);
        let view = backend.view();
        let reads = Reads::new(&*view, Tier::All);
        let query = inbox::page();
        group.bench_function(BenchmarkId::new("conversations", senders), |bencher| {
            bencher.iter(|| answer(reads, &epochs, black_box(&query)).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, pages);
criterion_main!(benches);
