//! Rows in memory, every version of them, with a log whose unsynced end can be lost: what tests
//! and the simulation stand on.

use crate::{
    Backend, FAMILIES, Family, ReadError, Rows, Tier, View, WriteError,
    backend::{EachRow, MemoryUse},
    table::Table,
};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A store in memory. Its clones are one store.
#[derive(Clone, Default)]
pub struct MemoryBackend {
    state: Arc<RwLock<State>>,
}

#[derive(Clone, Default)]
struct State {
    /// By family. A version of a row is the number of the batch that wrote it.
    rows: [Table; FAMILIES.len()],
    /// Rises with every batch.
    written: u64,
    synced: u64,
}

impl State {
    fn lose_after(&mut self, last: u64) {
        if self.written <= last {
            return;
        }
        self.rows.iter_mut().for_each(|table| table.lose_after(last));
        self.written = last;
        self.synced = self.synced.min(last);
    }
}

impl MemoryBackend {
    pub fn new() -> MemoryBackend {
        MemoryBackend::default()
    }

    // A panic while the lock is held leaves whole rows behind: each is put in one step.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of the last batch that was synced and of the last that was written.
    pub fn log_ends(&self) -> (u64, u64) {
        let state = self.read();
        (state.synced, state.written)
    }

    /// Notes that a sync that began when `last` was the last batch has ended.
    pub fn synced_to(&self, last: u64) {
        let state = &mut *self.state();
        state.synced = state.synced.max(last.min(state.written));
    }

    /// Loses all batches after `last`, as a power cut may lose those that were not synced.
    pub fn lose_after(&self, last: u64) {
        self.state().lose_after(last);
    }

    /// A store of its own, with all batches up to `last`.
    pub fn backup(&self, last: u64) -> MemoryBackend {
        let mut state = self.read().clone();
        state.lose_after(last);
        state.synced = state.written;
        MemoryBackend { state: Arc::new(RwLock::new(state)) }
    }
}

impl Backend for MemoryBackend {
    fn write(&self, rows: &Rows) -> Result<(), WriteError> {
        let state = &mut *self.state();
        state.written += 1;
        for (family, key, value) in rows.iter() {
            state.rows[family as usize].put(key, state.written, value);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), WriteError> {
        let state = &mut *self.state();
        state.synced = state.written;
        Ok(())
    }

    fn settle(&self) -> Result<(), WriteError> {
        self.sync()
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(MemoryView { backend: self.clone(), version: self.read().written })
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
    backend: MemoryBackend,
    version: u64,
}

impl View for MemoryView {
    fn get(
        &self,
        _tier: Tier,
        family: Family,
        key: &[u8],
        found: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, ReadError> {
        let state = self.backend.read();
        Ok(state.rows[family as usize].get(key, self.version).map(found).is_some())
    }

    fn scan(
        &self,
        _tier: Tier,
        family: Family,
        from: &[u8],
        end: &[u8],
        each: &mut EachRow<'_>,
    ) -> Result<(), ReadError> {
        let state = self.backend.read();
        state.rows[family as usize].scan(from, end, self.version, each);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(backend: &MemoryBackend, value: u8) {
        let mut rows = Rows::default();
        rows.put(Family::Meta, b"key", |out| out.push(value));
        backend.write(&rows).unwrap();
    }

    fn value(backend: &MemoryBackend) -> Option<u8> {
        let mut value = None;
        let view = backend.view();
        view.get(Tier::All, Family::Meta, b"key", &mut |row| value = row.first().copied()).unwrap();
        value
    }

    #[test]
    fn a_sync_covers_what_was_written_when_it_began() {
        let backend = MemoryBackend::new();
        write(&backend, 1);
        let (_, began) = backend.log_ends();
        write(&backend, 2);
        backend.synced_to(began);
        assert_eq!(backend.log_ends(), (1, 2));
        backend.lose_after(1);
        assert_eq!((backend.log_ends(), value(&backend)), ((1, 1), Some(1)));
    }

    #[test]
    fn a_backup_goes_its_own_way() {
        let backend = MemoryBackend::new();
        write(&backend, 1);
        write(&backend, 2);
        let backup = backend.backup(1);
        write(&backend, 3);
        assert_eq!((value(&backup), backup.log_ends()), (Some(1), (1, 1)));
        write(&backup, 4);
        assert_eq!((value(&backend), value(&backup)), (Some(3), Some(4)));
    }
}
