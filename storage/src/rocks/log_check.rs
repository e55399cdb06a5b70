//! Reads RocksDB's logs before it does: where each one ends, and whether the next goes on there.
//!
//! RocksDB recovers to a point in time: it stops at the first record that is damaged. But in three
//! cases it does not see the damage. A header whose type says "recycled" makes it wait for ever
//! (db/log_reader.cc takes no step past it, facebook/rocksdb#13333). A header of zeros makes it go
//! on with the next block, and a log that lost its end makes it go on with the next log, in both
//! cases over a hole. So a log that is not whole is cut where it stops being so, and a byte too
//! late: a torn header is a damage that RocksDB sees and stops at. Of a log that is whole and has
//! nothing behind it but the room that was made for more (see [`super::log_room`]) just that goes.
//!
//! Only records are looked at, nothing of what is in them but the number of their first row and
//! how many they have: batches follow one another without a gap. Whether a log is still needed is
//! not known here. It need not be: to cut one that is not needed changes nothing.

use crate::OpenError;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

// db/log_format.h
pub const BLOCK_BYTES: usize = 32 * 1_024;
/// Checksum u32, length u16, type u8, all little-endian.
pub const HEADER_BYTES: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Types of logs that are written over older ones, which ours never are.
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];
/// A batch begins with the number of its first row, u64, and how many rows it has, u32.
const BATCH_HEAD_BYTES: usize = 12;

/// Cuts each log in a directory where it stops being whole or the next one does not go on, unless
/// that would take what was promised: then nothing is touched.
pub fn cut_damaged_logs(store: &Path, promised: u64) -> Result<(), OpenError> {
    let mut logs = Vec::new();
    let paths = numbered(store, ".log").map_err(|error| super::file_error(store, &error))?;
    for path in paths {
        let log = Log::read(&path).map_err(|error| super::file_error(&path, &error))?;
        logs.push((path, log));
    }
    let reached = logs.iter().filter_map(|(_, log)| log.next).max().unwrap_or(0);
    let mut follower: Option<u64> = None;
    for (path, log) in logs.iter().rev() {
        let goes_on = follower.is_none() || log.next.is_none() || follower == log.next;
        follower = log.first.or(follower);
        if log.end == log.bytes && goes_on {
            continue;
        }
        // Without a single row in the logs, all may be in tables: the opening will tell.
        if (1..=promised).contains(&reached) {
            return Err(OpenError::Corrupt(format!(
                "{} stops being whole at byte {}, the logs with row {}, and all up to {promised} was synced",
                path.display(),
                log.end,
                reached - 1
            )));
        }
        let (end, lost) = (log.end, log.bytes - log.end);
        let cut = if log.behind == Behind::Zeros && goes_on {
            shorten(path, end)
        } else {
            tracing::warn!(log = %path.display(), end, lost, "the end of a log is not whole: cut");
            tear(path, end)
        };
        cut.map_err(|error| super::file_error(path, &error))?;
    }
    Ok(())
}

/// The list of tables must be whole up to `least`, and behind that there may be a torn change at
/// most: one that never was.
pub fn check_manifest(path: &Path, least: u64) -> Result<(), OpenError> {
    let manifest = Records::open(path).and_then(|records| records.walk(|_| true)).map_err(
        |error| match error.kind() {
            io::ErrorKind::NotFound => OpenError::Corrupt(format!("{} is gone", path.display())),
            _ => super::file_error(path, &error),
        },
    )?;
    if manifest.behind != Behind::Damage && manifest.end >= least {
        return Ok(());
    }
    let end = manifest.end;
    Err(OpenError::Corrupt(format!("{} is not whole behind byte {end}", path.display())))
}

/// Files of RocksDB that are named by a number, ascending by it.
pub fn numbered(store: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(store) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(suffix)?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Leaves nothing behind the last whole record.
fn shorten(path: &Path, end: u64) -> io::Result<()> {
    let log = OpenOptions::new().write(true).open(path)?;
    log.set_len(end)?;
    log.sync_all()
}

/// Leaves one or two bytes of a header behind the last whole record.
fn tear(path: &Path, end: u64) -> io::Result<()> {
    let log = OpenOptions::new().write(true).open(path)?;
    log.set_len(end)?;
    // A block that is full has no torn header at its end.
    let torn = if (end + 1).is_multiple_of(BLOCK_BYTES as u64) { 2 } else { 1 };
    log.set_len(end + torn)?;
    log.sync_all()
}

/// What a log has.
struct Log {
    /// Number of its first row, if it has a batch.
    first: Option<u64>,
    /// Number that the row after its last one has.
    next: Option<u64>,
    /// Where its last whole batch ends, in bytes.
    end: u64,
    bytes: u64,
    behind: Behind,
}

impl Log {
    fn read(path: &Path) -> io::Result<Log> {
        let (mut first, mut next) = (None, None);
        let walked = Records::open(path)?.walk(|head| {
            let Some((row, count)) = batch_head(head) else { return false };
            if next.is_some_and(|next| next != row) {
                return false;
            }
            first = first.or(Some(row));
            next = row.checked_add(count);
            next.is_some()
        })?;
        Ok(Log { first, next, end: walked.end, bytes: walked.bytes, behind: walked.behind })
    }
}

fn batch_head(head: &[u8]) -> Option<(u64, u64)> {
    let (row, count) = head.split_first_chunk::<8>()?;
    let count = u32::from_le_bytes(count.try_into().ok()?);
    Some((u64::from_le_bytes(*row), count.into()))
}

/// The records of a file, which begin anew at every block.
struct Records {
    file: File,
    bytes: u64,
}

/// How far a file is whole.
struct Walked {
    /// Behind the last record that is whole.
    end: u64,
    bytes: u64,
    behind: Behind,
}

/// What is behind the last record that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// Nothing, or the beginning of a record, and perhaps zeros behind that.
    Torn,
    Zeros,
    Damage,
}

/// A header and what belongs to it.
enum Fragment<'a> {
    Whole {
        kind: u8,
        content: &'a [u8],
    },
    /// The block ends before it does.
    Cut,
    Damaged,
}

impl Records {
    fn open(path: &Path) -> io::Result<Records> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Records { file, bytes })
    }

    /// Calls `each` with the first bytes of every record, until it says that one is wrong.
    fn walk(mut self, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<Walked> {
        let mut block = vec![0; BLOCK_BYTES];
        // Of a record whose last fragment has not come.
        let mut begun: Option<Vec<u8>> = None;
        let (mut start, mut end) = (0, 0);
        loop {
            let filled = fill(&mut self.file, &mut block)?;
            let mut rest = &block[..filled];
            while rest.len() >= HEADER_BYTES {
                let (kind, content) = match fragment(rest) {
                    Fragment::Whole { kind, content } => (kind, content),
                    Fragment::Cut if filled < BLOCK_BYTES => {
                        return Ok(self.walked(end, Behind::Torn));
                    }
                    Fragment::Cut | Fragment::Damaged => {
                        let zeros = rest.iter().all(|byte| *byte == 0) && self.only_zeros()?;
                        let behind = match (zeros, begun) {
                            (true, None) => Behind::Zeros,
                            (true, Some(_)) => Behind::Torn,
                            (false, _) => Behind::Damage,
                        };
                        return Ok(self.walked(end, behind));
                    }
                };
                let head = &content[..content.len().min(BATCH_HEAD_BYTES)];
                let whole = match (kind, begun.take()) {
                    (FULL, None) => Some(head.to_vec()),
                    (FIRST, None) => {
                        begun = Some(head.to_vec());
                        None
                    }
                    (MIDDLE | LAST, Some(mut so_far)) => {
                        let missing = BATCH_HEAD_BYTES - so_far.len();
                        so_far.extend_from_slice(&head[..head.len().min(missing)]);
                        match kind {
                            LAST => Some(so_far),
                            _ => {
                                begun = Some(so_far);
                                None
                            }
                        }
                    }
                    (FULL | FIRST | MIDDLE | LAST, _) => {
                        return Ok(self.walked(end, Behind::Damage));
                    }
                    // None of ours; its checksum is right, so it is RocksDB's matter.
                    (_, so_far) => {
                        begun = so_far;
                        None
                    }
                };
                rest = &rest[HEADER_BYTES + content.len()..];
                if whole.is_some_and(|head| !each(&head)) {
                    return Ok(self.walked(end, Behind::Damage));
                }
                if begun.is_none() {
                    end = start + (filled - rest.len()) as u64;
                }
            }
            if filled < BLOCK_BYTES {
                return Ok(self.walked(end, Behind::Torn));
            }
            start += BLOCK_BYTES as u64;
            if begun.is_none() {
                // What is left of a block has no room for a header.
                end = start;
            }
        }
    }

    fn walked(&self, end: u64, behind: Behind) -> Walked {
        Walked { end, bytes: self.bytes, behind }
    }

    /// Whether there are only zeros from here to the end.
    fn only_zeros(&mut self) -> io::Result<bool> {
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let filled = fill(&mut self.file, &mut block)?;
            if block[..filled].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            if filled < BLOCK_BYTES {
                return Ok(true);
            }
        }
    }
}

fn fragment(rest: &[u8]) -> Fragment<'_> {
    let Some((checksum, behind)) = rest.split_first_chunk::<4>() else { return Fragment::Cut };
    let [low, high, kind, ..] = *behind else { return Fragment::Cut };
    // Zeros were never written: at best they are room that was prepared.
    if kind == 0 || RECYCLED.contains(&kind) {
        return Fragment::Damaged;
    }
    let length = usize::from(u16::from_le_bytes([low, high]));
    let Some(content) = rest.get(HEADER_BYTES..HEADER_BYTES + length) else {
        return Fragment::Cut;
    };
    // Over the type and the content, and masked (util/crc32c.h).
    let sum = crc32c::crc32c(&behind[2..3 + length]);
    let masked = sum.rotate_right(15).wrapping_add(0xa282_ead8);
    if masked == u32::from_le_bytes(*checksum) {
        Fragment::Whole { kind, content }
    } else {
        Fragment::Damaged
    }
}

/// As much as there is, at most a block.
fn fill(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Where the last whole batch of a log ends, in bytes.
#[cfg(test)]
pub fn whole_end(path: &Path) -> u64 {
    Log::read(path).unwrap().end
}

#[cfg(test)]
mod tests;
