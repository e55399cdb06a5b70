//! Logs as RocksDB writes them, then damaged: flipped, overwritten, zeroed, cut, grown, removed.
//! What is left of them when the damaged ends were cut is read as RocksDB reads: over a hole of
//! zeros, and on from a log that lost its end. Whatever was done: nothing panics; whole logs stay as
//! they are, and with room behind them nothing in them is lost; what is read has no hole; what was
//! promised is not cut off the last log, and a refusal touches nothing; a second look changes
//! nothing.
#![no_main]

// What is read of logs is not all that is in there.
#[allow(dead_code)]
#[path = "../../storage/src/rocks/log_check.rs"]
mod log_check;

use libfuzzer_sys::fuzz_target;
use log_check::{check_manifest, cut_damaged_logs};
use starling_fuzz::Script;
use starling_storage::OpenError;
use std::{collections::BTreeMap, fs, io, ops::Range, path::Path, sync::LazyLock};

const BLOCK_BYTES: usize = 32 * 1_024;
const HEADER_BYTES: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

type Logs = BTreeMap<u64, Vec<u8>>;

fuzz_target!(|input: &[u8]| {
    static DIRECTORY: LazyLock<tempfile::TempDir> =
        LazyLock::new(|| tempfile::tempdir().expect("a directory"));
    let script = &mut Script::new(input);
    let directory = DIRECTORY.path();

    let (mut logs, rows) = write_logs(script);
    let promised = (script.number()).min(rows);
    let whole = logs.clone();
    let mut begins_foreign = false;
    while !script.is_over() {
        begins_foreign |= damage(script, &mut logs);
    }
    put(directory, &logs);
    let result = cut_damaged_logs(directory, promised);
    let left = get(directory);
    match result {
        Err(OpenError::Corrupt(_)) => assert!(left == logs, "a refusal touches nothing"),
        Err(other) => panic!("{other}"),
        Ok(()) => {
            let read = read_as_rocksdb(&left);
            let mut neighbours = read.iter().zip(read.iter().skip(1));
            assert!(neighbours.all(|(one, next)| one.end == next.start), "a hole in {read:?}");
            // Of rows that an earlier log lost, or all logs, it is not known here whether they are
            // in tables; the opening itself looks at what is there in the end. A log that begins
            // with the rows of another looks as if the one before it had lost its end.
            let only_last = !begins_foreign
                && logs.len() == whole.len()
                && logs.iter().zip(&whole).rev().skip(1).all(|(log, whole)| log == whole);
            if let Some(last) = read.last().filter(|_| only_last && left != logs) {
                assert!(last.end > promised, "{promised} was promised, there is {read:?}");
            }
            assert!(logs != whole || left == logs, "whole logs stay");
            if have_room_alone(&logs, &whole) {
                assert_eq!(read.last().map_or(1, |last| last.end), rows + 1);
            }
            cut_damaged_logs(directory, promised).expect("what was cut is whole");
            assert!(get(directory) == left, "a second look changes nothing");
        }
    }
    if let Some((number, log)) = logs.first_key_value() {
        let path = directory.join(format!("{number:06}.log"));
        fs::write(&path, log).expect("room for a file");
        check_manifest(&path, promised).ok();
    }
    for number in get(directory).into_keys() {
        fs::remove_file(directory.join(format!("{number:06}.log"))).expect("our file");
    }
});

/// Whether the logs are as they were written, but for zeros behind them.
fn have_room_alone(logs: &Logs, whole: &Logs) -> bool {
    let is_room = |(log, whole): (&Vec<u8>, &Vec<u8>)| {
        log.strip_prefix(&whole[..]).is_some_and(|room| room.iter().all(|byte| *byte == 0))
    };
    logs.keys().eq(whole.keys()) && logs.values().zip(whole.values()).all(is_room)
}

/// For log_check, which knows the error of a file by this.
fn file_error(path: &Path, error: &io::Error) -> OpenError {
    OpenError::Io(format!("{}: {error}", path.display()))
}

/// Logs that follow one another, and how many rows they have, from 1.
fn write_logs(script: &mut Script) -> (Logs, u64) {
    let (mut logs, mut next) = (Logs::new(), 1);
    for number in 0..=script.below(3) as u64 {
        let mut log = Vec::new();
        for _ in 0..script.below(12) {
            let count = 1 + script.below(3) as u64;
            let size = script.one_of(&[0, 3, 30, 700, 5_000, 32_700, 32_742, 40_000, 70_000]);
            append_batch(&mut log, next, count as u32, size);
            next += count;
        }
        logs.insert(4 + 3 * number, log);
    }
    (logs, next - 1)
}

/// A batch, in as many fragments as there are blocks.
fn append_batch(log: &mut Vec<u8>, row: u64, count: u32, size: usize) {
    let mut batch = row.to_le_bytes().to_vec();
    batch.extend(count.to_le_bytes());
    batch.resize(batch.len() + size, 0xA5);
    let (mut rest, mut is_first) = (&batch[..], true);
    loop {
        let mut room = BLOCK_BYTES - log.len() % BLOCK_BYTES;
        if room < HEADER_BYTES {
            log.resize(log.len() + room, 0);
            room = BLOCK_BYTES;
        }
        let (now, later) = rest.split_at(rest.len().min(room - HEADER_BYTES));
        let kind = match (is_first, later.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        append_fragment(log, kind, now);
        (rest, is_first) = (later, false);
        if rest.is_empty() {
            return;
        }
    }
}

fn append_fragment(log: &mut Vec<u8>, kind: u8, content: &[u8]) {
    log.extend(checksum(kind, content).to_le_bytes());
    log.extend((content.len() as u16).to_le_bytes());
    log.push(kind);
    log.extend_from_slice(content);
}

/// Masked, over the type and the content.
fn checksum(kind: u8, content: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), content);
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Whether it put a record that is whole where a log had none.
fn damage(script: &mut Script, logs: &mut Logs) -> bool {
    let numbers: Vec<u64> = logs.keys().copied().collect();
    if numbers.is_empty() {
        // The script goes on all the same.
        script.byte();
        return false;
    }
    let number = script.one_of(&numbers);
    let log = logs.get_mut(&number).expect("one of them");
    let what = script.byte() % 9;
    let at = place(script, log);
    match what {
        0 if at < log.len() => log[at] ^= 1 << script.below(8),
        1 => log.truncate(at),
        2 => log.extend_from_slice(script.some_bytes()),
        3 => {
            let end = (at + 1 + script.index(BLOCK_BYTES)).min(log.len());
            log[at..end].fill(0);
        }
        4 => log.resize(log.len() + 1 + script.index(2 * BLOCK_BYTES), 0),
        5 => {
            // `place` names no place behind the end.
            for (byte, new) in log[at..].iter_mut().zip(script.some_bytes()) {
                *byte = *new;
            }
        }
        // As when a page of the disk was lost, and the one behind it was not.
        6 => {
            let start = at / 4_096 * 4_096;
            let end = (start + 4_096).min(log.len());
            log[start.min(end)..end].fill(0);
        }
        7 => {
            logs.remove(&number);
        }
        // A record that is whole and not in its place.
        8 => {
            let kind = script.one_of(&[FULL, FIRST, MIDDLE, LAST, 5, 6, 7, 8, 9, 11, 130, 131]);
            let row = script.number();
            let content = [&row.to_le_bytes()[..], &[1, 0, 0, 0, 7]].concat();
            let begins_foreign = read_log(log).0.is_empty();
            append_fragment(log, kind, &content);
            return begins_foreign;
        }
        _ => {}
    }
    false
}

/// Anywhere, or near the beginning of a record or of a block.
fn place(script: &mut Script, log: &[u8]) -> usize {
    match script.below(3) {
        0 => script.index(log.len() + 1) * (1 + script.below(2)),
        1 => {
            let starts = record_starts(log);
            let start = starts.get(script.below(starts.len().max(1))).copied().unwrap_or(0);
            start + script.below(HEADER_BYTES + 4)
        }
        _ => (script.below(8) * BLOCK_BYTES).saturating_add(script.below(16)).saturating_sub(8),
    }
    .min(log.len())
}

fn record_starts(log: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (Vec::new(), 0);
    while at + HEADER_BYTES <= log.len() {
        starts.push(at);
        at += HEADER_BYTES + usize::from(u16::from_le_bytes([log[at + 4], log[at + 5]]));
        if BLOCK_BYTES - at % BLOCK_BYTES < HEADER_BYTES {
            at = at.next_multiple_of(BLOCK_BYTES);
        }
    }
    starts
}

/// The rows that RocksDB would recover, as ranges. At damage that it sees it stops, and a later log
/// counts only if it goes on there; what it does not see it goes over.
fn read_as_rocksdb(logs: &Logs) -> Vec<Range<u64>> {
    let mut rows: Vec<Range<u64>> = Vec::new();
    let mut has_stopped = false;
    for log in logs.values() {
        let (batches, is_whole) = read_log(log);
        let next = rows.last().map(|last| last.end);
        let goes_on = batches.first().map(|first| first.start) == next.or(Some(1));
        if has_stopped && !batches.is_empty() && !goes_on {
            continue;
        }
        has_stopped = (has_stopped && batches.is_empty()) || !is_whole;
        rows.extend(batches);
    }
    rows
}

/// The batches of a log, and whether nothing was seen to be wrong with it.
fn read_log(log: &[u8]) -> (Vec<Range<u64>>, bool) {
    let mut batches = Vec::new();
    let mut begun: Option<Vec<u8>> = None;
    let mut at = 0;
    loop {
        let room = BLOCK_BYTES - at % BLOCK_BYTES;
        if room < HEADER_BYTES {
            at += room;
        }
        let rest = &log[at.min(log.len())..];
        let block = &rest[..rest.len().min(BLOCK_BYTES - at % BLOCK_BYTES)];
        if block.len() < HEADER_BYTES {
            // Else it is the beginning of a header, or of a record.
            return (batches, block.is_empty() && begun.is_none());
        }
        let length = usize::from(u16::from_le_bytes([block[4], block[5]]));
        let kind = block[6];
        // Room that was prepared, it believes, and so is the rest of the block.
        if kind == 0 && length == 0 {
            at += block.len();
            continue;
        }
        let Some(content) = block.get(HEADER_BYTES..HEADER_BYTES + length) else {
            return (batches, false);
        };
        if checksum(kind, content).to_le_bytes() != block[..4] {
            return (batches, false);
        }
        at += HEADER_BYTES + length;
        let whole = match (kind, begun.take()) {
            (FULL, None) => content.to_vec(),
            (FIRST, None) => {
                begun = Some(content.to_vec());
                continue;
            }
            (MIDDLE, Some(so_far)) => {
                begun = Some([&so_far[..], content].concat());
                continue;
            }
            (LAST, Some(so_far)) => [&so_far[..], content].concat(),
            _ => return (batches, false),
        };
        let (Some(row), Some(count)) = (whole.first_chunk::<8>(), whole.get(8..12)) else {
            return (batches, false);
        };
        let row = u64::from_le_bytes(*row);
        let count = u32::from_le_bytes(count.try_into().expect("four bytes"));
        let Some(next) = row.checked_add(count.into()) else { return (batches, false) };
        batches.push(row..next);
    }
}

fn put(directory: &Path, logs: &Logs) {
    for (number, log) in logs {
        fs::write(directory.join(format!("{number:06}.log")), log).expect("room for a file");
    }
}

fn get(directory: &Path) -> Logs {
    let files = fs::read_dir(directory).expect("our directory").map(|file| file.expect("a file"));
    let log = |file: fs::DirEntry| {
        let number = file.path().file_stem()?.to_str()?.parse().ok()?;
        Some((number, fs::read(file.path()).expect("our file")))
    };
    files.filter_map(log).collect()
}
