//! Rows in RocksDB. All that knows the database is in here: options, snapshots, error texts.
//!
//! The log is recovered to a point in time: what a power cut tore is unsynced, and is cut where
//! the first damage is (its pages may reach the disk in any order, so a mode that takes damage
//! before the end for rot would refuse to open after an honest power cut, and one that takes every
//! log's torn end for its end could go on with a later log behind a hole). That alone would also
//! cut silently when promised bytes rot. So the sequence number that each sync made durable is
//! noted in a file beside the data; an opening that comes out below the note is an error.

mod options;

use crate::{
    Backend, FAMILIES, Family, OpenError, ReadError, Rows, StoreSettings, Tier, View, WriteError,
    backend::{EachRow, MemoryUse},
};
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, ErrorKind, FlushOptions, ReadOptions,
    ReadTier, Snapshot, WriteBatch, WriteOptions, properties,
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::ControlFlow,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The database and what lives as long as it does.
pub struct RocksBackend {
    inner: Arc<Inner>,
    write_options: WriteOptions,
    /// The sequence number up to which the log was synced, 8 bytes.
    promised: File,
}

struct Inner {
    db: DB,
    cache: Cache,
    data_dir: PathBuf,
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
        let path = data_dir.join("store");
        let cache = Cache::new_lru_cache(settings.block_cache_bytes);
        let options = options::database(settings);
        let families = FAMILIES.iter().map(|spec| {
            ColumnFamilyDescriptor::new(spec.name, options::family(spec, settings, &cache))
        });
        let db = DB::open_cf_descriptors(&options, &path, families)
            .map_err(|error| open_error(&data_dir, error))?;
        let noted = data_dir.join("promised");
        let promised = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&noted)
            .map_err(|error| file_error(&noted, &error))?;
        let mut write_options = WriteOptions::default();
        write_options.set_sync(false);
        let inner = Arc::new(Inner { db, cache, data_dir });
        let backend = RocksBackend { inner, write_options, promised };
        backend.check_promise()?;
        backend.verify_if_suspect()?;
        Ok(backend)
    }

    /// The log must have given back all that was ever promised.
    fn check_promise(&self) -> Result<(), OpenError> {
        let mut bytes = [0; 8];
        match self.promised.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            // A first opening, or the note itself was cut: then nothing is known.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(file_error(&self.inner.data_dir, &error)),
        }
        let promised = u64::from_le_bytes(bytes);
        let found = self.inner.db.latest_sequence_number();
        if found >= promised {
            return Ok(());
        }
        let lost = format!("the log ends at {found}, and all up to {promised} was synced");
        Err(OpenError::Corrupt(lost))
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
        self.inner.db.write_opt(batch, &self.write_options).map_err(write_error)
    }

    fn sync(&self) -> Result<(), WriteError> {
        let promised = self.inner.db.latest_sequence_number();
        self.inner.db.flush_wal(true).map_err(write_error)?;
        // Not synced: it may lag behind, never run ahead.
        self.promised
            .write_all_at(&promised.to_le_bytes(), 0)
            .map_err(|error| WriteError(error.to_string()))
    }

    fn settle(&self) -> Result<(), WriteError> {
        let families = FAMILIES.map(|spec| self.inner.family(spec.family));
        for family in families {
            self.inner.db.flush_cf_opt(family, &FlushOptions::default()).map_err(write_error)?;
        }
        self.sync()
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
        let mut options = self.options(tier);
        options.set_iterate_upper_bound(end);
        options.set_prefix_same_as_start(family.spec().prefix_bytes > 0);
        let mut rows = self.inner.db.raw_iterator_cf_opt(self.inner.family(family), options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if let ControlFlow::Break(()) = each(key, value) {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(read_error)
    }
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
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in a zero and `found` has room for what the call fills in.
    let done = unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) };
    if done != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so all of it was filled in.
    let found = unsafe { found.assume_init() };
    Some(found.f_bavail * found.f_frsize)
}

#[cfg(test)]
mod tests;
