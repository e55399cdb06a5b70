//! What we rely on RocksDB for, and must notice if it changes.

use super::*;
use crate::{
    backend::Reads,
    layout::{self, MetaKey},
};
use starling_codec::UserId;
use std::{
    fs::OpenOptions,
    ops::ControlFlow,
    os::unix::fs::{FileExt, PermissionsExt},
};

fn settings(directory: &Path) -> StoreSettings {
    StoreSettings {
        data_dir: directory.to_owned(),
        block_cache_bytes: 4 << 20,
        memtable_bytes: 8 << 20,
        ..StoreSettings::default()
    }
}

fn open(directory: &Path) -> RocksBackend {
    RocksBackend::open(&settings(directory)).unwrap()
}

fn put(backend: &RocksBackend, user: u32, seq: u64) {
    let mut rows = Rows::default();
    let key = layout::inbox_key(UserId(user), seq);
    rows.put(Family::Inbox, &key, |out| out.extend_from_slice(&seq.to_le_bytes()));
    backend.write(&rows).unwrap();
}

fn seqs(view: &dyn View, tier: Tier, user: u32) -> Result<Vec<u64>, ReadError> {
    let mut found = Vec::new();
    let from = layout::inbox_key(UserId(user), u64::MAX);
    let end = layout::after_prefix(u64::from(user));
    view.scan(tier, Family::Inbox, &from, &end, &mut |key, _| {
        found.extend(layout::seq_of(key));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

#[test]
fn a_log_is_walked_newest_first_over_memtables_and_tables() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    for seq in 1..=3 {
        put(&backend, 7, seq);
        put(&backend, 8, seq + 100);
        // 1 ends in a table below, 2 in a table above, 3 stays in the memtable.
        if seq < 3 {
            backend.settle().unwrap();
        }
    }
    let view = backend.view();
    assert_eq!(seqs(&*view, Tier::All, 7).unwrap(), [3, 2, 1]);
    assert_eq!(seqs(&*view, Tier::All, 8).unwrap(), [103, 102, 101]);
    assert_eq!(seqs(&*view, Tier::All, 9).unwrap(), []);
}

/// Whatever memtables do with a prefix: an iterator may be sent to another one.
#[test]
fn one_iterator_walks_ranges_of_several_prefixes() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    for seq in 1..=3 {
        for user in [7, 8, 10] {
            put(&backend, user, seq);
        }
        // As above: a table, another table, the memtable.
        if seq < 3 {
            backend.settle().unwrap();
        }
    }
    let range = |user, to, after| {
        layout::inbox_key(UserId(user), to)..layout::inbox_key(UserId(user), after)
    };
    // The first ends before its prefix does, in the second the walk breaks, the third is empty.
    let ranges = [range(7, 3, 1), range(8, 3, 0), range(9, 3, 0), range(10, 2, 0)];
    let view = backend.view();
    let mut found = Vec::new();
    let each = &mut |key: &[u8], _: &[u8]| {
        let user = u64::from_be_bytes(key[..8].try_into().unwrap());
        found.push((user, layout::seq_of(key).unwrap()));
        if user == 8 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    view.scan_ranges(Tier::All, Family::Inbox, &ranges, each).unwrap();
    view.scan_ranges(Tier::Memory, Family::Inbox, &[], each).unwrap();
    assert_eq!(found, [(7, 3), (7, 2), (8, 3), (10, 2), (10, 1)]);
}

#[test]
fn a_store_at_rest_flushes_what_is_worth_tables() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    let in_memory = || {
        let family = backend.inner.family(Family::User);
        let name = "rocksdb.num-entries-active-mem-table";
        backend.inner.db.property_int_value_cf(family, name).unwrap().unwrap()
    };
    let write = |users: std::ops::Range<u32>| {
        let mut rows = Rows::default();
        for user in users {
            let value = [7; 1_024];
            rows.put(Family::User, &layout::user_key(UserId(user)), |out| out.extend(value));
        }
        backend.write(&rows).unwrap();
    };
    write(0..10);
    backend.rest();
    assert_eq!(in_memory(), 10);
    write(10..1_100);
    backend.rest();
    assert_eq!(in_memory(), 0);
    // Before the flush has ended and after it, all is there.
    assert!(
        Reads::new(&*backend.view(), Tier::All)
            .exists(Family::User, &layout::user_key(UserId(5)))
            .unwrap()
    );
}

/// Why logs are kept newest first: in a memtable hashed by prefix, seeking the last row at or
/// below a key finds nothing when there is none above it.
#[test]
fn a_hashed_memtable_cannot_be_sought_backwards() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    put(&backend, 7, 1);
    let mut options = ReadOptions::default();
    options.set_prefix_same_as_start(true);
    let family = backend.inner.family(Family::Inbox);
    let mut rows = backend.inner.db.raw_iterator_cf_opt(family, options);
    rows.seek(layout::inbox_key(UserId(7), u64::MAX));
    assert!(rows.valid());
    rows.seek_for_prev(layout::inbox_key(UserId(7), 0));
    assert!(!rows.valid(), "it can now: logs could be kept oldest first");
}

#[test]
fn a_view_shows_what_was_there_and_outlives_its_backend() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    put(&backend, 7, 1);
    let before = backend.view();
    put(&backend, 7, 2);
    let after = backend.view();
    drop(backend);
    assert_eq!(seqs(&*before, Tier::All, 7).unwrap(), [1]);
    drop(before);
    assert_eq!(
        std::thread::spawn(move || seqs(&*after, Tier::All, 7)).join().unwrap().unwrap(),
        [2, 1]
    );
    // All views are gone, so the database is closed and its lock free.
    open(directory.path());
}

#[test]
fn a_read_confined_to_memory_does_not_touch_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    put(&backend, 7, 1);
    assert_eq!(seqs(&*backend.view(), Tier::Memory, 7).unwrap(), [1]);
    backend.settle().unwrap();
    drop(backend);
    let backend = open(directory.path());
    let view = backend.view();
    assert_eq!(seqs(&*view, Tier::Memory, 7), Err(ReadError::Incomplete));
    let key = layout::inbox_key(UserId(7), 1);
    let got = view.get(Tier::Memory, Family::Inbox, &key, &mut |_| ());
    assert_eq!(got, Err(ReadError::Incomplete));
    // Once read it is in the cache.
    assert_eq!(seqs(&*view, Tier::All, 7).unwrap(), [1]);
    assert_eq!(seqs(&*view, Tier::Memory, 7).unwrap(), [1]);
    assert!(backend.memory().block_cache > 0 && backend.memory().memtables > 0);
}

/// A shard of the cache does not keep what is larger than itself: with one filter for all of a
/// large table, every look for a name read that filter anew.
#[test]
fn what_says_that_a_row_is_not_in_a_large_table_stays_in_the_cache() {
    const NAMES: u32 = 600_000;
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    let name = |number: u32| layout::name_key(&format!("user-{number}"));
    for first in (0..NAMES).step_by(10_000) {
        let mut rows = Rows::default();
        for number in first..first + 10_000 {
            rows.put(Family::Name, &name(number), |out| out.extend(number.to_le_bytes()));
        }
        backend.write(&rows).unwrap();
    }
    let family = backend.inner.family(Family::Name);
    backend.inner.db.compact_range_cf::<&[u8], &[u8]>(family, None, None);
    let view = backend.view();
    for number in [7, NAMES - 7, NAMES + 7] {
        let found = view.get(Tier::All, Family::Name, &name(number), &mut |_| ());
        assert_eq!(found, Ok(number < NAMES));
        let again = view.get(Tier::Memory, Family::Name, &name(number), &mut |_| ());
        assert_eq!(again, found, "{number} was read just now");
    }
}

#[test]
fn a_second_opening_is_told_who_is_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let second = RocksBackend::open(&settings(directory.path()));
    assert!(matches!(second, Err(OpenError::Locked(path)) if path == directory.path()));
    drop(first);
    open(directory.path());
}

#[test]
fn a_directory_without_rights_is_told_so() {
    // Root may write anywhere.
    // SAFETY: the call only reads.
    if unsafe { libc::geteuid() } == 0 {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(matches!(file_error(Path::new("/x"), &error), OpenError::NoPermission(_)));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let refused = RocksBackend::open(&settings(directory.path()));
    assert!(matches!(refused, Err(OpenError::NoPermission(_))));
}

#[test]
fn another_format_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    let mut rows = Rows::default();
    rows.put(Family::Meta, &MetaKey::Format.bytes(), |out| {
        out.extend_from_slice(&9u32.to_le_bytes())
    });
    backend.write(&rows).unwrap();
    drop(backend);
    let refused = crate::Store::open(settings(directory.path()));
    let Err(error @ OpenError::UnknownFormat { found: 9, known: layout::FORMAT }) = refused else {
        panic!("opened");
    };
    assert!(error.to_string().contains("format 9"));
}

#[test]
fn a_family_of_tomorrow_is_refused_by_a_clear_word() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let names = FAMILIES.map(|spec| spec.name);
    let mut options = rocksdb::Options::default();
    options.create_missing_column_families(true);
    let path = directory.path().join("store");
    let of_tomorrow = names.into_iter().chain(["change"]).map(|name| {
        // As the family was made: a prefix of another length would be refused.
        let mut options = rocksdb::Options::default();
        let spec = FAMILIES.iter().find(|spec| spec.name == name);
        if let Some(prefix) = spec.map(|spec| spec.prefix_bytes).filter(|bytes| *bytes > 0) {
            options.set_prefix_extractor(rocksdb::SliceTransform::create_fixed_prefix(prefix));
        }
        ColumnFamilyDescriptor::new(name, options)
    });
    drop(DB::open_cf_descriptors(&options, &path, of_tomorrow).unwrap());
    let refused = RocksBackend::open(&settings(directory.path()));
    let Err(OpenError::Io(text)) = refused else { panic!("opened") };
    assert!(text.contains("newer program") && text.contains("change"), "{text}");
}

#[test]
fn a_mark_makes_the_next_opening_read_everything() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    for seq in 1..=2_000 {
        put(&backend, 7, seq);
    }
    backend.settle().unwrap();
    backend.suspect("a test");
    drop(backend);
    let mark = directory.path().join("suspect");
    // Whole: the mark goes.
    drop(open(directory.path()));
    assert!(!mark.exists());
    // A block rots. Without a mark nobody looks; with one it is found.
    let tables =
        fs::read_dir(directory.path().join("store")).unwrap().map(|file| file.unwrap().path());
    let largest = tables
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let table = OpenOptions::new().write(true).open(&largest).unwrap();
    table.write_all_at(&[0xAB; 64], 100).unwrap();
    drop(open(directory.path()));
    fs::write(&mark, "a test").unwrap();
    let refused = RocksBackend::open(&settings(directory.path()));
    assert!(matches!(refused, Err(OpenError::Corrupt(_))));
    assert!(mark.exists(), "the next opening looks again");
}

/// RocksDB would begin a new store there, and delete the tables of the old one.
#[test]
fn a_store_without_its_beginning_is_refused_and_nothing_of_it_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    put(&backend, 7, 1);
    backend.settle().unwrap();
    put(&backend, 7, 2);
    drop(backend);
    let store = directory.path().join("store");
    let (_, manifest) = promise::current_manifest(&store).unwrap().unwrap();
    for file in [store.join("CURRENT"), manifest] {
        let aside = directory.path().join("aside");
        fs::rename(&file, &aside).unwrap();
        let refused = RocksBackend::open(&settings(directory.path()));
        let Err(OpenError::Corrupt(text)) = refused else { panic!("opened") };
        assert!(text.contains("is gone"), "{text}");
        fs::rename(&aside, &file).unwrap();
    }
    assert_eq!(seqs(&*open(directory.path()).view(), Tier::All, 7).unwrap(), [2, 1]);
}

/// As after a flush whose change of the list was lost: an older store, and its log may be gone.
#[test]
fn a_list_of_tables_that_lost_a_change_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    let store = directory.path().join("store");
    let (_, manifest) = promise::current_manifest(&store).unwrap().unwrap();
    let before = fs::metadata(&manifest).unwrap().len();
    put(&backend, 7, 1);
    backend.settle().unwrap();
    drop(backend);
    let whole = fs::read(&manifest).unwrap();
    assert!(whole.len() as u64 > before);
    fs::write(&manifest, &whole[..before as usize]).unwrap();
    let refused = RocksBackend::open(&settings(directory.path()));
    assert!(matches!(refused, Err(OpenError::Corrupt(_))));
    fs::write(&manifest, &whole).unwrap();
    assert_eq!(seqs(&*open(directory.path()).view(), Tier::All, 7).unwrap(), [1]);
}

#[test]
fn the_disk_tells_its_room() {
    let directory = tempfile::tempdir().unwrap();
    assert!(free_bytes(directory.path()).unwrap() > 0);
    assert_eq!(free_bytes(&directory.path().join("nowhere")), None);
}
