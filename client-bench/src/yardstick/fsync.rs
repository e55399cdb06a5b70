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

/// What syncing costs here.
#[derive(Clone, Debug, Serialize)]
pub struct Fsync {
    pub bytes: usize,
    pub syncs_per_s: f64,
    /// Write and fdatasync together.
    pub latency: Percentiles,
    #[serde(skip)]
    pub latencies: Latencies,
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
    let mut latencies = Latencies::default();
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
        latencies.record(clock.now_ns() - begun);
        syncs += 1;
        place = if place + 2 * bytes as u64 > FILE_BYTES { 0 } else { place + bytes as u64 };
        std::thread::sleep(pause);
    }
    let seconds = clock.now_ns() as f64 / 1e9;
    let latency = latencies.percentiles();
    Ok(Fsync { bytes, syncs_per_s: syncs as f64 / seconds, latency, latencies })
}
