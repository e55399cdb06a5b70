//! The disk of the server: the store's in-memory backend behind a log that fails, fills and
//! loses what was not synced, and behind a cache that misses.
//!
//! A log entry is whole or gone: the log of a database checks each. So a write that tears leaves
//! nothing of its batch, or all of it.

use crate::random::Random;
use starling_storage::{
    Backend, EachRow, Family, MemoryBackend, MemoryUse, ReadError, Rows, Tier, View, WriteError,
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// A disk. Its clones are one disk.
#[derive(Clone)]
pub struct Disk {
    rows: MemoryBackend,
    shared: Arc<Shared>,
}

struct Shared {
    random: Mutex<Random>,
    /// The next write fails.
    fail_write: AtomicBool,
    /// The next sync fails.
    fail_sync: AtomicBool,
    full: AtomicBool,
    /// Reads that miss the cache, in percent.
    cold_percent: AtomicU64,
    failed_writes: AtomicU64,
    failed_syncs: AtomicU64,
    suspected: AtomicBool,
}

impl Disk {
    pub fn new(random: Random, cold_percent: u64) -> Disk {
        Disk {
            rows: MemoryBackend::new(),
            shared: Arc::new(Shared {
                random: Mutex::new(random),
                fail_write: AtomicBool::new(false),
                fail_sync: AtomicBool::new(false),
                full: AtomicBool::new(false),
                cold_percent: AtomicU64::new(cold_percent),
                failed_writes: AtomicU64::new(0),
                failed_syncs: AtomicU64::new(0),
                suspected: AtomicBool::new(false),
            }),
        }
    }

    pub fn fail_next_write(&self) {
        self.shared.fail_write.store(true, Relaxed);
    }

    pub fn fail_next_sync(&self) {
        self.shared.fail_sync.store(true, Relaxed);
    }

    pub fn set_full(&self, full: bool) {
        self.shared.full.store(full, Relaxed);
    }

    /// The disk is as good as new: nothing fails, there is room.
    pub fn heal(&self) {
        self.shared.fail_write.store(false, Relaxed);
        self.shared.fail_sync.store(false, Relaxed);
        self.set_full(false);
    }

    /// Number of the last batch that was written: what a sync that begins now covers.
    pub fn written(&self) -> u64 {
        self.rows.log_ends().1
    }

    /// A sync that covered the batches up to `last` ends.
    pub fn end_sync(&self, last: u64) -> Result<(), WriteError> {
        self.may_sync()?;
        self.rows.synced_to(last);
        Ok(())
    }

    fn may_sync(&self) -> Result<(), WriteError> {
        match self.shared.fail_sync.swap(false, Relaxed) {
            true => {
                self.shared.failed_syncs.fetch_add(1, Relaxed);
                Err(WriteError("the disk did not sync".to_owned()))
            }
            false => Ok(()),
        }
    }

    /// Loses some of what was not synced: all from some batch on. How many batches that were.
    pub fn cut_power(&self) -> u64 {
        let (synced, written) = self.rows.log_ends();
        let last = self.lock().range(synced, written + 1);
        self.rows.lose_after(last);
        written - last
    }

    /// A copy of what is synced, or of all that is written.
    pub fn backup(&self) -> MemoryBackend {
        self.rows.backup(self.rows.log_ends().1)
    }

    /// What is in the database now.
    pub fn rows(&self) -> &MemoryBackend {
        &self.rows
    }

    /// The database is replaced by a backup.
    pub fn restore(&mut self, backup: &MemoryBackend) {
        self.rows = backup.backup(backup.log_ends().1);
    }

    /// Writes that failed so far.
    pub fn failed_writes(&self) -> u64 {
        self.shared.failed_writes.load(Relaxed)
    }

    /// Syncs that failed so far.
    pub fn failed_syncs(&self) -> u64 {
        self.shared.failed_syncs.load(Relaxed)
    }

    /// Whether a failure left its mark beside the data; it is gone then.
    pub fn take_suspicion(&self) -> bool {
        self.shared.suspected.swap(false, Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Random> {
        // A number is replaced whole, so a panic elsewhere cannot have left half of one.
        self.shared.random.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Disk {
    fn write(&self, rows: &Rows) -> Result<(), WriteError> {
        if self.shared.fail_write.swap(false, Relaxed) {
            self.shared.failed_writes.fetch_add(1, Relaxed);
            // The entry may be in the log all the same.
            if self.lock().chance(50) {
                self.rows.write(rows)?;
            }
            return Err(WriteError("the disk did not write".to_owned()));
        }
        self.rows.write(rows)
    }

    fn sync(&self) -> Result<(), WriteError> {
        self.may_sync()?;
        self.rows.sync()
    }

    fn settle(&self) -> Result<(), WriteError> {
        self.sync()
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(Cached { rows: self.rows.view(), disk: self.clone() })
    }

    fn suspect(&self, _reason: &str) {
        self.shared.suspected.store(true, Relaxed);
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(if self.shared.full.load(Relaxed) { 0 } else { u64::MAX })
    }

    fn memory(&self) -> MemoryUse {
        self.rows.memory()
    }
}

/// Rows behind a cache that misses some.
struct Cached {
    rows: Arc<dyn View>,
    disk: Disk,
}

impl Cached {
    fn look_in_cache(&self, tier: Tier) -> Result<(), ReadError> {
        let shared = &self.disk.shared;
        let cold_percent = shared.cold_percent.load(Relaxed);
        if tier == Tier::Memory && cold_percent > 0 && self.disk.lock().chance(cold_percent) {
            return Err(ReadError::Incomplete);
        }
        Ok(())
    }
}

impl View for Cached {
    fn get(
        &self,
        tier: Tier,
        family: Family,
        key: &[u8],
        found: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, ReadError> {
        self.look_in_cache(tier)?;
        self.rows.get(tier, family, key, found)
    }

    fn scan(
        &self,
        tier: Tier,
        family: Family,
        from: &[u8],
        end: &[u8],
        each: &mut EachRow<'_>,
    ) -> Result<(), ReadError> {
        self.look_in_cache(tier)?;
        self.rows.scan(tier, family, from, end, each)
    }
}
