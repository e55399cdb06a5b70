//! Rows in memory, every version of them, with a log whose unsynced end can be lost: what tests
//! and the simulation stand on.

use crate::{
    Backend, Family, ReadError, Rows, Tier, View, WriteError,
    backend::{EachRow, MemoryUse},
};
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// A store in memory. Its clones are one store.
#[derive(Clone, Default)]
pub struct MemoryBackend {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// By family and key: its versions, ascending.
    rows: RwLock<BTreeMap<(Family, Vec<u8>), Versions>>,
    /// Rises with every batch.
    written: AtomicU64,
    synced: AtomicU64,
}

type Versions = Vec<(u64, Vec<u8>)>;

impl State {
    // A panic while the lock is held leaves whole rows behind: each is put in one step.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<(Family, Vec<u8>), Versions>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<(Family, Vec<u8>), Versions>> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryBackend {
    pub fn new() -> MemoryBackend {
        MemoryBackend::default()
    }

    /// Numbers of the last batch that was synced and of the last that was written.
    pub fn log_ends(&self) -> (u64, u64) {
        (self.state.synced.load(Ordering::SeqCst), self.state.written.load(Ordering::SeqCst))
    }

    /// Loses all batches after `last`, as a power cut may lose those that were not synced.
    pub fn lose_after(&self, last: u64) {
        self.state.write().retain(|_, versions| {
            versions.retain(|(version, _)| *version <= last);
            !versions.is_empty()
        });
        self.state.written.store(last, Ordering::SeqCst);
        self.state.synced.fetch_min(last, Ordering::SeqCst);
    }
}

impl Backend for MemoryBackend {
    fn write(&self, rows: &Rows) -> Result<(), WriteError> {
        let mut kept = self.state.write();
        let version = self.state.written.load(Ordering::SeqCst) + 1;
        for (family, key, value) in rows.iter() {
            kept.entry((family, key.to_vec())).or_default().push((version, value.to_vec()));
        }
        self.state.written.store(version, Ordering::SeqCst);
        Ok(())
    }

    fn sync(&self) -> Result<(), WriteError> {
        self.state.synced.fetch_max(self.state.written.load(Ordering::SeqCst), Ordering::SeqCst);
        Ok(())
    }

    fn settle(&self) -> Result<(), WriteError> {
        self.sync()
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(MemoryView {
            state: self.state.clone(),
            version: self.state.written.load(Ordering::SeqCst),
        })
    }

    fn suspect(&self, _reason: &str) {}

    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }
}

struct MemoryView {
    state: Arc<State>,
    version: u64,
}

impl MemoryView {
    fn visible<'a>(&self, versions: &'a Versions) -> Option<&'a [u8]> {
        let (_, value) = versions.iter().rev().find(|(version, _)| *version <= self.version)?;
        Some(value)
    }
}

impl View for MemoryView {
    fn get(
        &self,
        _tier: Tier,
        family: Family,
        key: &[u8],
        found: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, ReadError> {
        let rows = self.state.read();
        let value = rows.get(&(family, key.to_vec())).and_then(|versions| self.visible(versions));
        Ok(value.map(found).is_some())
    }

    fn scan(
        &self,
        _tier: Tier,
        family: Family,
        from: &[u8],
        end: &[u8],
        each: &mut EachRow<'_>,
    ) -> Result<(), ReadError> {
        if from >= end {
            return Ok(());
        }
        let rows = self.state.read();
        let range =
            (Bound::Included((family, from.to_vec())), Bound::Excluded((family, end.to_vec())));
        for ((_, key), versions) in rows.range(range) {
            let Some(value) = self.visible(versions) else { continue };
            if let ControlFlow::Break(()) = each(key, value) {
                break;
            }
        }
        Ok(())
    }
}
