//! Y4: write and fdatasync, nothing else: into a file whose blocks are there already, so that no
//! journal of the file system is waited for, only the bytes.

use crate::{
    clock::{Clock, ns},
    content::{Contents, MIN_PAYLOAD_BYTES},
    latency::{Latencies, Percentiles},
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{os::unix::fs::FileExt, path::Path, time::Duration};

/// Room for the blocks; it is written round and round.
const FILE_BYTES: u64 = 16 << 20;

/// Time between two of the messages that a perfect server gets.
const ARRIVAL_NS: u64 = 10_000;

/// What syncing costs here.
#[derive(Clone, Debug, Serialize)]
pub struct Fsync {
    pub bytes: usize,
    pub syncs_per_s: f64,
    /// Write and fdatasync together.
    pub latency: Percentiles,
    /// What a server with one log would acknowledge messages in, which come evenly, if nothing but
    /// these syncs took time: a message waits for the next sync to begin, and for its end. A long
    /// sync is one of many here, and held up whatever came meanwhile there.
    pub perfect: Percentiles,
    #[serde(skip)]
    pub latencies: Latencies,
    #[serde(skip)]
    pub perfect_latencies: Latencies,
}

/// The messages of a perfect server.
#[derive(Default)]
struct Arrivals {
    /// When the next one comes.
    next_ns: u64,
    waited: Latencies,
}

impl Arrivals {
    /// The next sync took along what had come when it began.
    fn synced(&mut self, begun_ns: u64, ended_ns: u64) {
        while self.next_ns <= begun_ns {
            self.waited.record(ended_ns - self.next_ns);
            self.next_ns += ARRIVAL_NS;
        }
    }
}

/// Writes `bytes` to a file in `directory` and syncs it, again and again for `measured`; between
/// two of them it waits for `pause`.
///
/// # Errors
/// The directory cannot be written to.
pub fn measure(
    bytes: usize,
    measured: Duration,
    pause: Duration,
    directory: &Path,
) -> Result<Fsync> {
    let kept = tempfile::Builder::new().prefix("fsync-").tempfile_in(directory);
    let kept = kept.with_context(|| format!("cannot write to {}", directory.display()))?;
    let file = kept.as_file();
    for megabyte in 0..FILE_BYTES >> 20 {
        file.write_all_at(&vec![1; 1 << 20], megabyte << 20)?;
    }
    file.sync_all()?;
    let (mut latencies, mut arrivals) = (Latencies::default(), Arrivals::default());
    let clock = Clock::start();
    let contents = Contents::new(rand::random(), 0);
    let mut block = Vec::new();
    let (mut syncs, mut place) = (0, 0);
    while clock.now_ns() < ns(measured) {
        block.clear();
        contents.append(syncs, bytes.max(MIN_PAYLOAD_BYTES), &mut block);
        let begun = clock.now_ns();
        file.write_all_at(&block[..bytes], place)?;
        file.sync_data()?;
        let ended = clock.now_ns();
        latencies.record(ended - begun);
        arrivals.synced(begun, ended);
        syncs += 1;
        place = if place + 2 * bytes as u64 > FILE_BYTES { 0 } else { place + bytes as u64 };
        std::thread::sleep(pause);
    }
    let seconds = clock.now_ns() as f64 / 1e9;
    let perfect_latencies = arrivals.waited;
    Ok(Fsync {
        bytes,
        syncs_per_s: syncs as f64 / seconds,
        latency: latencies.percentiles(),
        perfect: perfect_latencies.percentiles(),
        latencies,
        perfect_latencies,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sync_is_one_of_many_and_holds_up_all_that_came_meanwhile() {
        let mut arrivals = Arrivals::default();
        // At once; then, for 1 ms, one that took along nothing but what came at its beginning.
        arrivals.synced(0, 10_000);
        arrivals.synced(10_000, 1_010_000);
        assert_eq!((arrivals.waited.count(), arrivals.waited.at(1.0) / 10_000), (2, 100));
        // Who came after its beginning waits for its end, and for the next one.
        arrivals.synced(1_010_000, 1_030_000);
        assert_eq!(arrivals.waited.count(), 102);
        assert_eq!(arrivals.waited.at(1.0) / 10_000, 101);
        assert_eq!(arrivals.waited.at(0.5) / 10_000, 51);
    }
}
