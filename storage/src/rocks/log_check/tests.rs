//! Every damage that RocksDB does not see, made on logs that it wrote.

use super::*;
use crate::{
    Backend, Family, Rows, StoreSettings, Tier,
    layout::{inbox_key, seq_of},
    rocks::RocksBackend,
};
use starling_codec::UserId;
use std::{ops::ControlFlow, sync::mpsc, thread, time::Duration};

const USER: UserId = UserId(7);
/// An opening takes some 50 ms; only one that hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings(directory: &Path) -> StoreSettings {
    StoreSettings {
        data_dir: directory.to_owned(),
        block_cache_bytes: 4 << 20,
        memtable_bytes: 8 << 20,
        ..StoreSettings::default()
    }
}

/// A store whose log has rows of one user, one a batch, of these sizes; none is synced.
fn store(sizes: &[usize]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let backend = RocksBackend::open(&settings(directory.path())).unwrap();
    for (seq, size) in (1..).zip(sizes) {
        put(&backend, seq, *size);
    }
    directory
}

fn put(backend: &RocksBackend, seq: u64, size: usize) {
    let mut rows = Rows::default();
    rows.put(Family::Inbox, &inbox_key(USER, seq), |out| {
        out.extend(std::iter::repeat_n(0xA5, size))
    });
    backend.write(&rows).unwrap();
}

/// Opens it, which must not hang, and reads which rows are there.
fn reopen(directory: &Path) -> Result<Vec<u64>, OpenError> {
    let settings = settings(directory);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || drop(tell.send(RocksBackend::open(&settings))));
    let backend = told.recv_timeout(PATIENCE).expect("an opening that ends")?;
    let mut seqs = Vec::new();
    let (from, end) = (inbox_key(USER, u64::MAX), crate::layout::after_prefix(7));
    let mut each = |key: &[u8], _: &[u8]| {
        seqs.extend(seq_of(key));
        ControlFlow::Continue(())
    };
    backend.view().scan(Tier::All, Family::Inbox, &from, &end, &mut each).unwrap();
    seqs.reverse();
    Ok(seqs)
}

fn logs(directory: &Path) -> Vec<PathBuf> {
    numbered(&directory.join("store"), ".log").unwrap()
}

fn append(path: &Path, bytes: &[u8]) {
    let mut log = fs::read(path).unwrap();
    log.extend_from_slice(bytes);
    fs::write(path, log).unwrap();
}

/// Where each record of a log ends.
fn record_ends(log: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at + HEADER_BYTES <= log.len() {
        if BLOCK_BYTES - at % BLOCK_BYTES < HEADER_BYTES {
            at = at.next_multiple_of(BLOCK_BYTES);
            continue;
        }
        let length = u16::from_le_bytes([log[at + 4], log[at + 5]]);
        let kind = log[at + 6];
        at += HEADER_BYTES + usize::from(length);
        if kind == FULL || kind == LAST {
            ends.push(at);
        }
    }
    ends
}

#[test]
fn a_whole_log_is_left_as_it_is() {
    // Over several blocks, with rows that end anywhere in them.
    let sizes: Vec<usize> = (0..300).map(|index| index * 37 % 1_500).collect();
    let directory = store(&sizes);
    let [path] = &logs(directory.path())[..] else { panic!("one log") };
    let before = fs::read(path).unwrap();
    let log = Log::read(path).unwrap();
    assert_eq!((log.end, log.bytes), (before.len() as u64, before.len() as u64));
    assert_eq!(log.next.unwrap() - log.first.unwrap(), 300);
    cut_damaged_logs(&directory.path().join("store"), 0).unwrap();
    assert!(fs::read(path).unwrap() == before);
    assert_eq!(reopen(directory.path()).unwrap(), (1..=300).collect::<Vec<_>>());
}

#[test]
fn rubbish_of_every_type_behind_the_last_record_is_cut() {
    let directory = store(&[100, 200]);
    let store = directory.path().join("store");
    let [path] = &logs(directory.path())[..] else { panic!("one log") };
    let whole = fs::read(path).unwrap();
    for kind in 0..=u8::MAX {
        for length in [0u8, 5, 255] {
            let header = [0xDE, 0xAD, 0xBE, 0xEF, length, 0, kind];
            let rubbish = [&header[..], &[0x5A; 40]].concat();
            fs::write(path, [&whole[..], &rubbish].concat()).unwrap();
            cut_damaged_logs(&store, 0).unwrap();
            let left = fs::read(path).unwrap();
            assert_eq!(left, [&whole[..], &[0]].concat(), "type {kind}, length {length}");
        }
    }
}

#[test]
fn an_opening_ends_whatever_type_the_tail_claims() {
    for kind in RECYCLED.into_iter().chain([0, 1, 2, 3, 4, 9, 10, 42, 130, 200]) {
        let directory = store(&[100, 200]);
        let [path] = &logs(directory.path())[..] else { panic!("one log") };
        append(path, &[0xDE, 0xAD, 0xBE, 0xEF, 5, 0, kind, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(reopen(directory.path()).unwrap(), [1, 2], "type {kind}");
    }
}

/// Zeros where a record should begin, and behind them a block that begins with a whole one: as
/// when a power cut kept a page of the disk and lost the one before.
#[test]
fn nothing_is_read_from_behind_a_hole_of_zeros() {
    let directory = store(&[1_000; 200]);
    let [path] = &logs(directory.path())[..] else { panic!("one log") };
    let mut log = fs::read(path).unwrap();
    let ends = record_ends(&log);
    let record = ends[1] - ends[0];
    // Put whole records at the beginning of the third block, with numbers that follow nothing.
    let second = BLOCK_BYTES..2 * BLOCK_BYTES;
    let last_before = ends.iter().rposition(|end| *end <= second.start).unwrap();
    let later = log[ends[60] - record..ends[60]].to_vec();
    log.truncate(2 * BLOCK_BYTES);
    log[ends[last_before]..].fill(0);
    let later = if later[6] == FULL { later } else { panic!("a record within its block") };
    log.extend_from_slice(&later);
    fs::write(path, &log).unwrap();

    let without = tempfile::tempdir().unwrap();
    copy(directory.path(), without.path());
    fs::remove_file(without.path().join("promised")).unwrap();
    let seqs = reopen(without.path()).unwrap();
    assert_eq!(seqs.last(), Some(&61), "RocksDB goes on over a hole: without the check it is lost");

    let seqs = reopen(directory.path()).unwrap();
    assert_eq!(seqs, (1..=last_before as u64 + 1).collect::<Vec<_>>());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("store")).unwrap();
    for directory in ["", "store"] {
        for file in fs::read_dir(from.join(directory)).unwrap().map(Result::unwrap) {
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), to.join(directory).join(file.file_name())).unwrap();
            }
        }
    }
}

#[test]
fn a_log_that_lost_its_end_to_the_next_one_says_so() {
    let (one, two) = (store(&[100; 20]), store(&[100; 20]));
    let store = one.path().join("store");
    let [first] = &logs(one.path())[..] else { panic!("one log") };
    let [other] = &logs(two.path())[..] else { panic!("one log") };
    let log = fs::read(first).unwrap();
    let ends = record_ends(&log);
    // As it is the second begins with the same numbers: no continuation.
    let second = store.join("999999.log");
    for (kept, follows) in [(20, false), (10, true), (9, false)] {
        fs::write(first, &log[..ends[kept - 1]]).unwrap();
        fs::write(&second, &fs::read(other).unwrap()[record_ends(&log)[9]..]).unwrap();
        cut_damaged_logs(&store, 0).unwrap();
        let torn = fs::metadata(first).unwrap().len() - ends[kept - 1] as u64;
        assert_eq!(torn, u64::from(!follows), "{kept} kept");
    }
}

#[test]
fn a_torn_header_never_ends_with_its_block() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("000001.log");
    for (end, bytes) in [(0, 1), (32_766, 32_767), (32_767, 32_769), (32_768, 32_769)] {
        fs::write(&path, vec![7; 40_000]).unwrap();
        tear(&path, end).unwrap();
        let left = fs::read(&path).unwrap();
        assert_eq!(left.len(), bytes);
        assert!(left[end as usize..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_was_promised_is_never_cut() {
    let directory = store(&[100; 20]);
    let store = directory.path().join("store");
    let [path] = &logs(directory.path())[..] else { panic!("one log") };
    let mut log = fs::read(path).unwrap();
    let last = Log::read(path).unwrap().next.unwrap() - 1;
    let middle = record_ends(&log)[9] + 20;
    log[middle] ^= 1;
    fs::write(path, &log).unwrap();
    // Up to the tenth: the damage is behind it.
    let refused = cut_damaged_logs(&store, last - 9);
    assert!(matches!(refused, Err(OpenError::Corrupt(_))));
    assert!(fs::read(path).unwrap() == log, "nothing was touched");
    cut_damaged_logs(&store, last - 10).unwrap();
    assert_eq!(reopen(directory.path()).unwrap(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_list_of_tables_is_whole_or_torn_or_damaged() {
    let directory = store(&[100]);
    let (_, path) =
        super::super::promise::current_manifest(&directory.path().join("store")).unwrap().unwrap();
    let whole = fs::read(&path).unwrap();
    let bytes = whole.len() as u64;
    let check = |content: &[u8], least| {
        fs::write(&path, content).unwrap();
        check_manifest(&path, least).is_ok()
    };
    assert!(check(&whole, bytes));
    assert!(!check(&whole, bytes + 1));
    // An end that is torn is of a change that was not made, or the note would know it.
    assert!(check(&whole[..whole.len() - 3], bytes - 100));
    assert!(!check(&whole[..whole.len() - 3], bytes));
    assert!(check(&[&whole[..], &[0; 500]].concat(), bytes));
    assert!(!check(&[&whole[..], &[0; 500], &[1]].concat(), bytes));
    for kind in RECYCLED {
        assert!(!check(&[&whole[..], &[1, 2, 3, 4, 0, 0, kind, 0, 0, 0, 0]].concat(), bytes));
    }
}
