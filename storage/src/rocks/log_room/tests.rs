use super::*;
use crate::{
    Backend, Family, Rows, StoreSettings, Tier, View,
    layout::{after_prefix, inbox_key},
    rocks::{RocksBackend, log_check},
};
use starling_codec::UserId;
use std::{fs, ops::ControlFlow};

const USER: UserId = UserId(7);

fn open(directory: &Path) -> RocksBackend {
    let data_dir = directory.to_owned();
    let settings = StoreSettings {
        data_dir,
        block_cache_bytes: 4 << 20,
        // So that it begins no other log unless it is asked to.
        memtable_bytes: 256 << 20,
        ..StoreSettings::default()
    };
    RocksBackend::open(&settings).unwrap()
}

fn put(backend: &RocksBackend, seq: u64, size: usize) {
    let mut rows = Rows::default();
    rows.put(Family::Inbox, &inbox_key(USER, seq), |out| out.extend(std::iter::repeat_n(0, size)));
    backend.write(&rows).unwrap();
}

fn rows(view: &dyn View) -> usize {
    let mut found = 0;
    let (from, end) = (inbox_key(USER, u64::MAX), after_prefix(7));
    let mut each = |_: &[u8], _: &[u8]| {
        found += 1;
        ControlFlow::Continue(())
    };
    view.scan(Tier::All, Family::Inbox, &from, &end, &mut each).unwrap();
    found
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// The log that is written to, where it ends and how long it is.
fn last_log(backend: &RocksBackend) -> (PathBuf, u64, u64) {
    let room = backend.room.lock().unwrap();
    let log = room.log.as_ref().unwrap();
    assert_eq!(length(&log.path), log.length);
    (log.path.clone(), log.end, log.length)
}

/// Everything in a directory as a crash leaves it, but what RocksDB has in buffers of its own.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::create_dir_all(to.path().join("store")).unwrap();
    for folder in ["", "store"] {
        for file in fs::read_dir(from.join(folder)).unwrap().map(Result::unwrap) {
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), to.path().join(folder).join(file.file_name())).unwrap();
            }
        }
    }
    to
}

#[test]
fn a_log_is_longer_than_what_is_written_and_its_end_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    let mut lengths = std::collections::BTreeSet::new();
    for seq in 1..=2_000 {
        put(&backend, seq, (seq as usize * 7_919) % 3_000);
        let (path, end, length) = last_log(&backend);
        assert_eq!(log_check::whole_end(&path), end, "row {seq}");
        assert!(length >= end);
        lengths.insert(length);
    }
    // 3 MB in steps of one.
    assert!((2..=5).contains(&lengths.len()), "{lengths:?}");
    let (path, end, _) = last_log(&backend);
    drop(backend);
    assert_eq!(length(&path), end, "RocksDB cuts off what it did not use");
}

#[test]
fn every_new_log_gets_room_and_an_old_one_none() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    let mut seq = 0;
    let mut paths = Vec::new();
    for _ in 0..5 {
        for _ in 0..20 {
            seq += 1;
            put(&backend, seq, 1_000);
        }
        let (path, end, length) = last_log(&backend);
        assert!(length > end);
        assert!(!paths.contains(&path));
        paths.push(path);
        backend.settle().unwrap();
    }
    assert_eq!(rows(&*backend.view()), seq as usize);
    drop(backend);
    assert_eq!(rows(&*open(directory.path()).view()), seq as usize);
}

#[test]
fn after_a_crash_the_room_goes_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    (1..=100).for_each(|seq| put(&backend, seq, 500));
    backend.sync().unwrap();
    // All of it is promised, and a batch that is not.
    put(&backend, 101, 500);
    let (path, end, _) = last_log(&backend);
    let crashed = copy(directory.path());
    let store = crashed.path().join("store");
    log_check::cut_damaged_logs(&store, 0).unwrap();
    assert_eq!(length(&store.join(path.file_name().unwrap())), end);
    assert_eq!(rows(&*open(crashed.path()).view()), 101);
}

/// A crash just after RocksDB began another log, before it cut the room off the one before.
#[test]
fn a_log_goes_on_in_the_next_one_over_its_room() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    (1..=10).for_each(|seq| put(&backend, seq, 500));
    let (path, end, _) = last_log(&backend);
    let name = path.file_name().unwrap();
    let first = copy(directory.path());
    drop(backend);
    // The same rows once more, of which the last five are in another log.
    let whole = fs::read(&path).unwrap();
    let record = usize::try_from(end).unwrap() / 10;
    assert_eq!(whole.len(), record * 10, "rows of one size, in one block");
    let store = first.path().join("store");
    let (kept, gone) = whole.split_at(record * 5);
    for room in [0, 1, 6, 7, 1 << 20] {
        fs::write(store.join(name), [kept, &vec![0; room]].concat()).unwrap();
        fs::write(store.join("999999.log"), [gone, &vec![0; room]].concat()).unwrap();
        let crashed = copy(first.path());
        assert_eq!(rows(&*open(crashed.path()).view()), 10, "{room} bytes of room");
    }
    // And it does not go on where it should not.
    fs::write(store.join("999999.log"), &gone[record..]).unwrap();
    assert_eq!(rows(&*open(first.path()).view()), 5);
}

/// Without it, what is written goes on.
#[test]
fn no_room_is_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let no_directory = directory.path().join("file");
    fs::write(&no_directory, "").unwrap();
    let mut room = LogRoom::new(&no_directory);
    assert!(room.make_for(100).is_err());
    let backend = open(directory.path());
    *backend.room.lock().unwrap() = room;
    put(&backend, 1, 100);
    backend.sync().unwrap();
    assert_eq!(rows(&*backend.view()), 1);
}
