//! The note of what was promised, in the file `promised` beside the data: how far the log was
//! synced, and how long the list of tables was by then. RocksDB takes a log or a list that lost
//! its end for one that ended there; an opening that falls short of the note is an error.
//!
//! The note is written after every sync and not synced itself: it may lag behind, never run ahead.

use super::file_error;
use crate::OpenError;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// What stands in the note.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// All rows up to this one are durable.
    pub row: u64,
    /// Number of RocksDB's file MANIFEST, and so many bytes of it are durable.
    pub manifest: u64,
    pub manifest_bytes: u64,
}

impl Promise {
    /// Three numbers of 8 bytes and a checksum, little-endian.
    const BYTES: usize = 28;

    fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (index, number) in [self.row, self.manifest, self.manifest_bytes].iter().enumerate() {
            bytes[index * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None`: it is damaged.
    fn decode(bytes: &[u8; Self::BYTES]) -> Option<Promise> {
        let (numbers, sum) = bytes.split_last_chunk::<4>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [row, manifest, manifest_bytes] = *numbers else { return None };
        let promise = Promise {
            row: u64::from_le_bytes(row),
            manifest: u64::from_le_bytes(manifest),
            manifest_bytes: u64::from_le_bytes(manifest_bytes),
        };
        (promise.encode()[24..] == sum[..]).then_some(promise)
    }
}

/// The file with the note.
pub struct Note {
    file: File,
    store: PathBuf,
    manifest: Mutex<Manifest>,
}

/// The list of tables that is in use.
#[derive(Default)]
struct Manifest {
    file: Option<File>,
    number: u64,
    durable_bytes: u64,
}

impl Note {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("promised")
    }

    /// Whether a store was ever opened here.
    pub fn is_there(data_dir: &Path) -> bool {
        Note::path(data_dir).exists()
    }

    /// Reads the note; there may be none, and one that lost its end says nothing.
    pub fn read(data_dir: &Path) -> Result<Promise, OpenError> {
        let path = Note::path(data_dir);
        let mut bytes = [0; Promise::BYTES];
        match File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, 0)) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                ) =>
            {
                return Ok(Promise::default());
            }
            Err(error) => return Err(file_error(&path, &error)),
        }
        Promise::decode(&bytes)
            .ok_or_else(|| OpenError::Corrupt(format!("the note {}", path.display())))
    }

    /// For the database that was opened in `store`.
    pub fn open(data_dir: &Path, store: &Path) -> Result<Note, OpenError> {
        let path = Note::path(data_dir);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| file_error(&path, &error))?;
        Ok(Note { file, store: store.to_owned(), manifest: Mutex::default() })
    }

    /// Notes that all up to `row` is durable.
    pub fn write(&self, row: u64) -> io::Result<()> {
        // Only the thread that syncs comes here, and a panic would leave numbers that are true.
        let mut manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
        manifest.follow(&self.store)?;
        let promise =
            Promise { row, manifest: manifest.number, manifest_bytes: manifest.durable_bytes };
        self.file.write_all_at(&promise.encode(), 0)
    }

    /// The note itself is durable: from now on it has its length.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Manifest {
    /// Looks how long the list has become; usually that is one call of the system.
    fn follow(&mut self, store: &Path) -> io::Result<()> {
        let file = match &self.file {
            // RocksDB may begin another one, and then removes this one.
            Some(file) if file.metadata()?.nlink() > 0 => file,
            _ => {
                let Some((number, path)) = current_manifest(store)? else { return Ok(()) };
                let file = match File::open(path) {
                    // Gone again already: the next sync sees the one after it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    file => file?,
                };
                (self.number, self.durable_bytes) = (number, 0);
                self.file.insert(file)
            }
        };
        let bytes = file.metadata()?.len();
        if bytes > self.durable_bytes {
            // RocksDB syncs what it appends, but maybe has not done so yet.
            file.sync_data()?;
            // While it grows its end may be half a change.
            if file.metadata()?.len() == bytes {
                self.durable_bytes = bytes;
            }
        }
        Ok(())
    }
}

/// Number and path of the list of tables that CURRENT names; `None`: it does not name one.
pub fn current_manifest(store: &Path) -> io::Result<Option<(u64, PathBuf)>> {
    let current = fs::read(store.join("CURRENT"))?;
    let name = std::str::from_utf8(&current).ok().map(str::trim_end);
    let number = name.and_then(|name| name.strip_prefix("MANIFEST-")?.parse().ok());
    Ok(name.zip(number).map(|(name, number)| (number, store.join(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_and_shows_its_damage() {
        let promise = Promise { row: 1 << 40, manifest: 5, manifest_bytes: 99 };
        let bytes = promise.encode();
        assert_eq!(Promise::decode(&bytes), Some(promise));
        for bit in 0..Promise::BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Promise::decode(&flipped), None);
        }
    }
}
