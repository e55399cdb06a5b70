//! Rows in RocksDB. All that knows the database is in here: options, snapshots, error texts.
//!
//! The log is recovered to a point in time: what a power cut tore is unsynced, and is cut where
//! the first damage is (its pages may reach the disk in any order, so a mode that takes damage
//! before the end for rot would refuse to open after an honest power cut, and one that takes every
//! log's torn end for its end could go on with a later log behind a hole). That alone would also
//! cut silently when promised bytes rot. So what each sync made durable is noted in a file beside
//! the data; an opening that comes out below the note is an error. And some damage RocksDB does
//! not see, or does not outlive: it is looked for before the database is opened.

mod log_check;
mod log_room;
mod options;
mod promise;

use crate::{
    Backend, FAMILIES, Family, OpenError, ReadError, Rows, StoreSettings, Tier, View, WriteError,
    backend::{EachRow, MemoryUse},
    layout::LogKey,
};
use log_room::LogRoom;
use promise::{Note, Promise};
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, ErrorKind, FlushOptions,
    ReadOptions, ReadTier, Snapshot, WriteBatch, WriteOptions, properties,
};
use std::{
    fs::{self, File, TryLockError},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The database and what lives as long as it does.
pub struct RocksBackend {
    inner: Arc<Inner>,
    write_options: WriteOptions,
    note: Note,
    room: Mutex<LogRoom>,
    /// Bytes of rows since the memtables were last flushed at rest.
    unflushed: AtomicUsize,
}

/// Fewer bytes of rows are not worth tables of their own: a store that wakes up now and then for
/// little would make many small ones.
const WORTH_FLUSHING_BYTES: usize = 1 << 20;

struct Inner {
    db: DB,
    cache: Cache,
    data_dir: PathBuf,
    /// Let go of after the database is closed.
    _lock: File,
}

impl Inner {
    fn family(&self, family: Family) -> &ColumnFamily {
        // All families are made or opened with the database.
        self.db.cf_handle(family.spec().name).expect("a family of the table")
    }
}

impl RocksBackend {
    /// Opens or makes the database in `store/` of the data directory.
    pub fn open(settings: &StoreSettings) -> Result<RocksBackend, OpenError> {
        let data_dir = settings.data_dir.clone();
        fs::create_dir_all(&data_dir).map_err(|error| file_error(&data_dir, &error))?;
        let lock = lock(&data_dir)?;
        let path = data_dir.join("store");
        let first = !Note::is_there(&data_dir);
        let promised = Note::read(&data_dir)?;
        if !first {
            check_files(&path, promised)?;
        }
        let cache = Cache::new_lru_cache(settings.block_cache_bytes);
        let options = options::database(settings, first);
        let families = FAMILIES.iter().map(|spec| {
            ColumnFamilyDescriptor::new(spec.name, options::family(spec, settings, &cache))
        });
        let db = DB::open_cf_descriptors(&options, &path, families)
            .map_err(|error| open_error(&data_dir, error))?;
        let found = db.latest_sequence_number();
        if found < promised.row {
            let promised = promised.row;
            let lost = format!("the log ends at {found}, and all up to {promised} was synced");
            return Err(OpenError::Corrupt(lost));
        }
        let note = Note::open(&data_dir, &path)?;
        let mut write_options = WriteOptions::default();
        write_options.set_sync(false);
        let inner = Arc::new(Inner { db, cache, data_dir, _lock: lock });
        let backend = RocksBackend {
            inner,
            write_options,
            note,
            room: Mutex::new(LogRoom::new(&path)),
            unflushed: AtomicUsize::new(0),
        };
        backend.verify_if_suspect()?;
        Ok(backend)
    }

    /// Room in the log for a batch of so many bytes. Without it a sync takes longer, no more.
    fn make_room(&self, bytes: u64) {
        if let Err(error) = self.room().make_for(bytes) {
            tracing::debug!(%error, "no room was made in the log");
        }
    }

    /// Only the thread that writes comes here, and a panic would leave no room, or too much.
    fn room(&self) -> MutexGuard<'_, LogRoom> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspect_mark(&self) -> PathBuf {
        self.inner.data_dir.join("suspect")
    }

    /// After an opening that ended in a failed write or sync: reads all there is, so that what is
    /// damaged shows now.
    fn verify_if_suspect(&self) -> Result<(), OpenError> {
        let mark = self.suspect_mark();
        if !mark.exists() {
            return Ok(());
        }
        tracing::warn!("the last opening ended in a failed write: verifying all tables");
        self.settle()?;
        for spec in &FAMILIES {
            let mut options = ReadOptions::default();
            options.set_verify_checksums(true);
            options.set_total_order_seek(true);
            options.fill_cache(false);
            let mut rows =
                self.inner.db.raw_iterator_cf_opt(self.inner.family(spec.family), options);
            rows.seek_to_first();
            while rows.valid() {
                rows.next();
            }
            rows.status().map_err(|error| open_error(&self.inner.data_dir, error))?;
        }
        fs::remove_file(&mark).map_err(|error| file_error(&mark, &error))
    }
}

impl Backend for RocksBackend {
    fn write(&self, rows: &Rows) -> Result<(), WriteError> {
        // Beside the bytes themselves: a tag, a family and two lengths each.
        const ROW_OVERHEAD_BYTES: usize = 8;
        let bytes = rows.bytes() + rows.len() * ROW_OVERHEAD_BYTES;
        let mut batch = WriteBatch::with_capacity_bytes(bytes);
        let families = FAMILIES.map(|spec| self.inner.family(spec.family));
        for (family, key, value) in rows.iter() {
            batch.put_cf(families[family as usize], key, value);
        }
        self.make_room(batch.size_in_bytes() as u64);
        self.unflushed.fetch_add(rows.bytes(), Ordering::Relaxed);
        self.inner.db.write_opt(batch, &self.write_options).map_err(write_error)
    }

    fn sync(&self) -> Result<(), WriteError> {
        let promised = self.inner.db.latest_sequence_number();
        self.inner.db.flush_wal(true).map_err(write_error)?;
        self.note.write(promised).map_err(|error| WriteError(error.to_string()))
    }

    fn settle(&self) -> Result<(), WriteError> {
        let families = FAMILIES.map(|spec| self.inner.family(spec.family));
        for family in families {
            self.inner.db.flush_cf_opt(family, &FlushOptions::default()).map_err(write_error)?;
        }
        self.room().forget();
        self.sync()?;
        self.note.sync().map_err(|error| WriteError(error.to_string()))
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(RocksView::of(&self.inner))
    }

    fn suspect(&self, reason: &str) {
        let mark = self.suspect_mark();
        if let Err(error) = fs::write(&mark, reason) {
            tracing::error!(%error, mark = %mark.display(), "the mark could not be left");
        }
    }

    fn rest(&self) {
        if self.unflushed.load(Ordering::Relaxed) < WORTH_FLUSHING_BYTES {
            return;
        }
        self.unflushed.store(0, Ordering::Relaxed);
        let mut options = FlushOptions::default();
        options.set_wait(false);
        for spec in &FAMILIES {
            // A flush that fails stops writing too, and then the next write tells.
            if let Err(error) = self.inner.db.flush_cf_opt(self.inner.family(spec.family), &options)
            {
                tracing::warn!(%error, "a memtable could not be flushed");
            }
        }
        self.room().forget();
    }

    fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.inner.data_dir)
    }

    fn memory(&self) -> MemoryUse {
        let of_family = |name| {
            FAMILIES
                .iter()
                .filter_map(|spec| {
                    let family = self.inner.family(spec.family);
                    self.inner.db.property_int_value_cf(family, name).ok()?
                })
                .sum()
        };
        MemoryUse {
            memtables: of_family(properties::SIZE_ALL_MEM_TABLES),
            block_cache: self.inner.cache.get_usage() as u64,
            table_readers: of_family(properties::ESTIMATE_TABLE_READERS_MEM),
        }
    }
}

/// A snapshot, and the database it is of.
struct RocksView {
    // Declared, and so dropped, before the database that it borrows from.
    snapshot: Snapshot<'static>,
    inner: Arc<Inner>,
}

impl RocksView {
    fn of(inner: &Arc<Inner>) -> RocksView {
        let inner = inner.clone();
        // SAFETY: the snapshot borrows `inner.db`, which stands in the heap block of the `Arc`
        // that this value holds: it neither moves nor ends while the value lives, and the
        // snapshot is dropped first (fields are dropped in the order of declaration). The
        // snapshot is private and nothing hands out its 'static.
        let snapshot =
            unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(inner.db.snapshot()) };
        RocksView { snapshot, inner }
    }

    fn options(&self, tier: Tier) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        if tier == Tier::Memory {
            options.set_read_tier(ReadTier::BlockCache);
        }
        options
    }

    /// An iterator over the rows before `end`, which stays in the prefix that it is sent to.
    fn rows(&self, tier: Tier, family: Family, end: &[u8]) -> DBRawIterator<'_> {
        let mut options = self.options(tier);
        options.set_iterate_upper_bound(end);
        options.set_prefix_same_as_start(family.spec().prefix_bytes > 0);
        self.inner.db.raw_iterator_cf_opt(self.inner.family(family), options)
    }
}

impl View for RocksView {
    fn get(
        &self,
        tier: Tier,
        family: Family,
        key: &[u8],
        found: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, ReadError> {
        let family = self.inner.family(family);
        let options = self.options(tier);
        let value = self.inner.db.get_pinned_cf_opt(family, key, &options).map_err(read_error)?;
        Ok(value.map(|value| found(&value)).is_some())
    }

    fn scan(
        &self,
        tier: Tier,
        family: Family,
        from: &[u8],
        end: &[u8],
        each: &mut EachRow<'_>,
    ) -> Result<(), ReadError> {
        walk(&mut self.rows(tier, family, end), from, end, each)
    }

    /// With one iterator, as to make one takes longer than to seek with it.
    fn scan_ranges(
        &self,
        tier: Tier,
        family: Family,
        ranges: &[Range<LogKey>],
        each: &mut EachRow<'_>,
    ) -> Result<(), ReadError> {
        let Some(last) = ranges.last() else { return Ok(()) };
        let mut rows = self.rows(tier, family, &last.end);
        for Range { start, end } in ranges {
            walk(&mut rows, start, end, each)?;
        }
        Ok(())
    }
}

/// Walks the rows from `from` to before `end`, which the iterator may go beyond.
fn walk(
    rows: &mut DBRawIterator<'_>,
    from: &[u8],
    end: &[u8],
    each: &mut EachRow<'_>,
) -> Result<(), ReadError> {
    rows.seek(from);
    while let Some((key, value)) = rows.item()
        && key < end
    {
        if each(key, value).is_break() {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(read_error)
}

/// One process at a time: taken before the files are looked at, which must not change meanwhile.
fn lock(data_dir: &Path) -> Result<File, OpenError> {
    let path = data_dir.join("lock");
    let file = File::create(&path).map_err(|error| file_error(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(file_error(&path, &error)),
    }
}

/// Looks for damage of a store that was open before, where RocksDB would not see it.
fn check_files(store: &Path, promised: Promise) -> Result<(), OpenError> {
    let current = promise::current_manifest(store).map_err(|error| match error.kind() {
        // RocksDB would begin a new store, and delete what is there.
        io::ErrorKind::NotFound => {
            OpenError::Corrupt(format!("{} is gone", store.join("CURRENT").display()))
        }
        _ => file_error(store, &error),
    })?;
    let Some((number, manifest)) = current else {
        let current = store.join("CURRENT");
        return Err(OpenError::Corrupt(format!("{} names no manifest", current.display())));
    };
    if number < promised.manifest {
        let (current, noted) = (store.join("CURRENT"), promised.manifest);
        let older = format!("{} names an older manifest than {noted}", current.display());
        return Err(OpenError::Corrupt(older));
    }
    // A newer one began as a whole.
    let least = if number == promised.manifest { promised.manifest_bytes } else { 0 };
    log_check::check_manifest(&manifest, least)?;
    log_check::cut_damaged_logs(store, promised.row)
}

fn read_error(error: rocksdb::Error) -> ReadError {
    match error.kind() {
        ErrorKind::Incomplete => ReadError::Incomplete,
        ErrorKind::Corruption => ReadError::Corrupt(error.into_string()),
        _ => ReadError::Failed(error.into_string()),
    }
}

fn write_error(error: rocksdb::Error) -> WriteError {
    WriteError(error.into_string())
}

fn file_error(path: &Path, error: &io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => OpenError::NoPermission(path.to_owned()),
        _ => OpenError::Io(format!("{}: {error}", path.display())),
    }
}

/// RocksDB tells these apart only by their text; tests hold it to that.
fn open_error(data_dir: &Path, error: rocksdb::Error) -> OpenError {
    let (kind, text) = (error.kind(), error.into_string());
    if text.contains("lock") && text.contains("LOCK") {
        OpenError::Locked(data_dir.to_owned())
    } else if text.contains("Permission denied") || text.contains("PermissionDenied") {
        OpenError::NoPermission(data_dir.to_owned())
    } else if text.contains("Column families not opened") {
        // A newer format that grew a family; its number cannot be read without opening it.
        OpenError::Io(format!("it was written by a newer program, use that one ({text})"))
    } else if kind == ErrorKind::Corruption {
        OpenError::Corrupt(text)
    } else {
        OpenError::Io(text)
    }
}

/// Bytes that this process may still use on the disk of a directory.
fn free_bytes(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail * found.f_frsize)
}

#[cfg(test)]
mod tests;
