//! What the store asks of the thing that keeps its rows. RocksDB and memory both answer.

use crate::{Family, ReadError, Rows, WriteError, layout::LogKey};
use std::{
    ops::{ControlFlow, Range},
    sync::Arc,
};

/// Where a read may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Memory only, without blocking: memtables and block cache. What is elsewhere gives
    /// [`ReadError::Incomplete`].
    Memory,
    /// The disk too.
    All,
}

/// Is called with each row found: key, value. Says whether to go on.
pub type EachRow<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// The rows as they were at one moment.
pub trait View: Send + Sync + 'static {
    /// Calls `found` with the value and returns true, or returns false when there is no row.
    fn get(
        &self,
        tier: Tier,
        family: Family,
        key: &[u8],
        found: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, ReadError>;

    /// Walks the rows from `from` to before `end`, ascending by key. Both are in one prefix of
    /// the family, `end` may be the first key after it.
    fn scan(
        &self,
        tier: Tier,
        family: Family,
        from: &[u8],
        end: &[u8],
        each: &mut EachRow<'_>,
    ) -> Result<(), ReadError>;

    /// Walks several ranges of a log, ascending and apart, one after the other as [`Self::scan`]
    /// does: a break ends the walk of its range alone.
    fn scan_ranges(
        &self,
        tier: Tier,
        family: Family,
        ranges: &[Range<LogKey>],
        each: &mut EachRow<'_>,
    ) -> Result<(), ReadError> {
        for Range { start, end } in ranges {
            self.scan(tier, family, start, end, each)?;
        }
        Ok(())
    }
}

/// Keeps rows. One thread writes and takes views, one syncs, any reads views.
pub trait Backend: Send + Sync + 'static {
    /// Appends all of the rows to the log as one, or none, and makes them readable. They survive
    /// the death of the process, not the loss of power.
    fn write(&self, rows: &Rows) -> Result<(), WriteError>;

    /// Makes durable what was written before the call.
    fn sync(&self) -> Result<(), WriteError>;

    /// Makes all that an earlier opening left durable, whatever the log still owed.
    fn settle(&self) -> Result<(), WriteError>;

    /// The rows as they are now.
    fn view(&self) -> Arc<dyn View>;

    /// Leaves a mark, beside the data, that makes the next opening verify all of it.
    fn suspect(&self, reason: &str);

    /// Nothing has been written for a while: what is in memory and in the log alone may go to
    /// where it stays. Does not wait for that.
    fn rest(&self) {}

    /// Room left on the disk, in bytes; `None`: nobody knows.
    fn free_bytes(&self) -> Option<u64>;

    fn memory(&self) -> MemoryUse;
}

/// Memory the backend says it uses, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    pub memtables: u64,
    pub block_cache: u64,
    pub table_readers: u64,
}

/// All that pure code needs of a view: what is there, and that is that.
#[derive(Clone, Copy)]
pub struct Reads<'a> {
    view: &'a dyn View,
    tier: Tier,
}

impl<'a> Reads<'a> {
    pub fn new(view: &'a dyn View, tier: Tier) -> Reads<'a> {
        Reads { view, tier }
    }

    /// The row under a key, decoded. A row that does not decode is damage.
    pub fn get<T>(
        &self,
        family: Family,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, ReadError> {
        let mut row = None;
        let found = self.view.get(self.tier, family, key, &mut |value| row = decode(value))?;
        match (found, row) {
            (false, _) => Ok(None),
            (true, Some(row)) => Ok(Some(row)),
            (true, None) => Err(damaged(family, key)),
        }
    }

    pub fn exists(&self, family: Family, key: &[u8]) -> Result<bool, ReadError> {
        self.view.get(self.tier, family, key, &mut |_| ())
    }

    /// Walks rows as [`View::scan`]; `each` answers `None` for a row that does not decode.
    pub fn scan(
        &self,
        family: Family,
        from: &[u8],
        end: &[u8],
        each: impl FnMut(&[u8], &[u8]) -> Option<ControlFlow<()>>,
    ) -> Result<(), ReadError> {
        undamaged(family, each, |each| self.view.scan(self.tier, family, from, end, each))
    }

    /// Walks rows as [`View::scan_ranges`]; `each` answers `None` for a row that does not decode.
    pub fn scan_ranges(
        &self,
        family: Family,
        ranges: &[Range<LogKey>],
        each: impl FnMut(&[u8], &[u8]) -> Option<ControlFlow<()>>,
    ) -> Result<(), ReadError> {
        undamaged(family, each, |each| self.view.scan_ranges(self.tier, family, ranges, each))
    }

    /// The first row of a range.
    pub fn first<T>(
        &self,
        family: Family,
        from: &[u8],
        end: &[u8],
        decode: impl Fn(&[u8], &[u8]) -> Option<T>,
    ) -> Result<Option<T>, ReadError> {
        let mut first = None;
        self.scan(family, from, end, |key, value| {
            first = Some(decode(key, value)?);
            Some(ControlFlow::Break(()))
        })?;
        Ok(first)
    }
}

/// Shows `each` the rows of a walk; one that does not decode is what comes of it.
fn undamaged(
    family: Family,
    mut each: impl FnMut(&[u8], &[u8]) -> Option<ControlFlow<()>>,
    walk: impl FnOnce(&mut EachRow<'_>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut damage = None;
    walk(&mut |key, value| {
        each(key, value).unwrap_or_else(|| {
            damage = Some(damaged(family, key));
            ControlFlow::Break(())
        })
    })?;
    damage.map_or(Ok(()), Err)
}

fn damaged(family: Family, key: &[u8]) -> ReadError {
    ReadError::Corrupt(format!("{} {}", family.spec().name, hex(key)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
