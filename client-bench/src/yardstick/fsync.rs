//! Y4: append and fdatasync, nothing else.

use crate::{
    clock::{Clock, ns},
    content::{Contents, MIN_PAYLOAD_BYTES},
    latency::{Latencies, Percentiles},
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{fs::File, io::Write, path::Path, time::Duration};

/// What syncing costs here.
#[derive(Clone, Debug, Serialize)]
pub struct Fsync {
    pub bytes: usize,
    pub syncs_per_s: f64,
    /// Write and fdatasync together.
    pub latency: Percentiles,
}

/// Appends `bytes` to a file in `directory` and syncs it, again and again for `measured`; between
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
    let path = directory.join("yardstick.fsync");
    let mut file =
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut latencies = Latencies::default();
    let clock = Clock::start();
    let contents = Contents::new(rand::random(), 0);
    let mut block = Vec::new();
    let mut syncs = 0;
    while clock.now_ns() < ns(measured) {
        block.clear();
        contents.append(syncs, bytes.max(MIN_PAYLOAD_BYTES), &mut block);
        let begun = clock.now_ns();
        file.write_all(&block[..bytes])?;
        file.sync_data()?;
        latencies.record(clock.now_ns() - begun);
        syncs += 1;
        std::thread::sleep(pause);
    }
    let seconds = clock.now_ns() as f64 / 1e9;
    drop(file);
    std::fs::remove_file(&path)?;
    Ok(Fsync { bytes, syncs_per_s: syncs as f64 / seconds, latency: latencies.percentiles() })
}
