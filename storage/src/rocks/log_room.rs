//! Room behind the end of RocksDB's log. A file that grows has a new length after each write, and
//! a sync has to bring that to the disk as well: one write more to wait for, or a commit of the
//! file system's journal. So the log is made longer than it is, a good piece at a time. What is
//! behind its end reads as zeros, RocksDB goes on writing where it is, and cuts the room off when
//! it is done with a log; of a process that ended without closing it, [`super::log_check`] does.
//!
//! Only the thread that writes comes here, just before it does: RocksDB begins another log in a
//! write or in a flush that this thread asks for, so none is ever made longer behind its back. One
//! that began in a write gets its room once what was left in the one before is counted as used.

use super::log_check::{BLOCK_BYTES, HEADER_BYTES, numbered};
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// So much is made at once: a log is as much longer than it need be after a crash.
const ROOM_BYTES: u64 = 1 << 20;

/// Keeps the log that is written to longer than what was written.
pub struct LogRoom {
    store: PathBuf,
    /// None until it was looked for.
    log: Option<Log>,
}

struct Log {
    path: PathBuf,
    file: File,
    /// Where the next record begins, in bytes.
    end: u64,
    length: u64,
}

impl LogRoom {
    /// For the database that was opened in `store`.
    pub fn new(store: &Path) -> LogRoom {
        LogRoom { store: store.to_owned(), log: None }
    }

    /// A batch of so many bytes is about to be written.
    ///
    /// # Errors
    /// Those of the file system. The log can be written to without room: only slower.
    pub fn make_for(&mut self, bytes: u64) -> io::Result<()> {
        if !self.log.as_ref().is_some_and(|log| log.has_room(bytes)) {
            self.follow()?;
        }
        let Some(log) = &mut self.log else { return Ok(()) };
        log.end = record_end(log.end, bytes);
        if log.end > log.length {
            let length = log.end + ROOM_BYTES;
            // Never shortens a file.
            fallocate(&log.file, FallocateFlags::empty(), log.length, length - log.length)?;
            log.length = length;
        }
        Ok(())
    }

    /// RocksDB was told to begin another log.
    pub fn forget(&mut self) {
        self.log = None;
    }

    /// Takes the log that RocksDB writes to now.
    fn follow(&mut self) -> io::Result<()> {
        let Some(path) = numbered(&self.store, ".log")?.pop() else { return Ok(()) };
        if self.log.as_ref().is_none_or(|log| log.path != path) {
            let file = OpenOptions::new().write(true).open(&path)?;
            // Nobody made room in it yet.
            let end = file.metadata()?.len();
            self.log = Some(Log { path, file, end, length: end });
        }
        Ok(())
    }
}

impl Log {
    fn has_room(&self, bytes: u64) -> bool {
        record_end(self.end, bytes) <= self.length
    }
}

/// Where a record of so many bytes ends that begins at `at`.
fn record_end(mut at: u64, mut bytes: u64) -> u64 {
    const BLOCK: u64 = BLOCK_BYTES as u64;
    const HEADER: u64 = HEADER_BYTES as u64;
    loop {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
            continue;
        }
        let fits = bytes.min(left - HEADER);
        at += HEADER + fits;
        bytes -= fits;
        if bytes == 0 {
            return at;
        }
    }
}

#[cfg(test)]
mod tests;
