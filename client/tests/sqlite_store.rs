//! The store in a folder: it agrees with the one in memory, and a kill leaves all of a
//! transaction or nothing.
#![cfg(feature = "sqlite")]

mod support;

use proptest::prelude::*;
use starling_client::{
    Change, Entry, EntryState, Event, Journal, KnownNetwork, MemoryStore, Network, OpenError,
    Outgoing, Peer, Saved, SqliteStore, Store, TooLong, Unsent,
    codec::{ConversationId, DeviceId, Epoch, EpochTag, Nonce, Place, SendNo, UserId, wire::Class},
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};
use support::*;

fn change() -> impl Strategy<Value = Change> {
    let place = (0u64..20, 0u32..4).prop_map(|(seq, epoch)| place_of(seq, epoch));
    let state = prop_oneof![
        Just(EntryState::Unanswered),
        Just(EntryState::Acknowledged(receipt())),
        Just(EntryState::Unsent(Unsent::Lost)),
        Just(EntryState::Unsent(Unsent::Stale)),
    ];
    let peer = prop_oneof![
        any::<u32>().prop_map(|user| Peer::User(UserId(user))),
        any::<u64>().prop_map(|number| Peer::Conversation(ConversationId(number))),
    ];
    // Few nonces, so that entries change and are settled; a number of its own for each.
    let entry = (0u64..8, peer, state).prop_map(|(which, to, state)| Entry {
        nonce: Nonce(u64::MAX - which),
        send_no: SendNo(which + 1),
        message: Outgoing { to, content: vec![which as u8].into(), class: Class::Durable },
        state,
    });
    let event = (1u64..20, 0u32..4, any::<bool>()).prop_map(|(seq, epoch, own)| match own {
        true => own_event(seq, epoch, seq, seq + 100),
        false => event(seq, epoch),
    });
    // More networks than are kept.
    let too_long = prop::option::of((any::<u32>(), any::<u64>()));
    let network = (0u8..20, any::<u32>(), too_long).prop_map(|(which, heartbeat_s, too_long)| {
        let network = Network::named(&"x".repeat(which.into())).unwrap();
        let too_long = too_long.map(|(heartbeat_s, at_ms)| TooLong { heartbeat_s, at_ms });
        KnownNetwork { network, heartbeat_s, too_long }
    });
    prop_oneof![
        1 => (1u32..3).prop_map(|device| {
            let device = DeviceId(device);
            Change::Identity(starling_client::Identity { device, ..identity() })
        }),
        1 => Just(Change::LoggedOut),
        1 => Just(Change::Reset),
        2 => any::<u64>().prop_map(Change::ConnectNo),
        2 => (any::<u32>(), any::<u64>()).prop_map(|(e, t)| Change::Epoch(Epoch(e), EpochTag(t))),
        2 => place.clone().prop_map(Change::Highest),
        2 => place.prop_map(Change::Rewind),
        2 => any::<u64>().prop_map(Change::NextSendNo),
        4 => network.prop_map(Change::Network),
        8 => event.prop_map(Change::Applied),
        8 => entry.prop_map(Change::Outbox),
        4 => (0u64..8).prop_map(|which| Change::Settled(Nonce(u64::MAX - which))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_kept_on_disk_is_what_is_kept_in_memory(
        commits in prop::collection::vec(prop::collection::vec(change(), 1..6), 1..12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = SqliteStore::open(folder.path()).unwrap();
        let mut memory = MemoryStore::new();
        for changes in &commits {
            disk.commit(changes).unwrap();
            memory.commit(changes).unwrap();
        }
        drop(disk);
        let mut disk = SqliteStore::open(folder.path()).unwrap();
        prop_assert_eq!(&disk.load().unwrap(), memory.saved());
        prop_assert_eq!(disk.state_hash().unwrap(), memory.state_hash());
        for place in [Place::START, place_of(5, 1), place_of(0, 3)] {
            let own = disk.own_above(place, ME, DEVICE).unwrap();
            prop_assert_eq!(own, memory.own_above(place, ME, DEVICE).unwrap());
        }
    }
}

#[test]
fn one_process_owns_a_profile() {
    let folder = tempfile::tempdir().unwrap();
    let first = SqliteStore::open(folder.path()).unwrap();
    let second = SqliteStore::open(folder.path());
    assert!(matches!(second, Err(OpenError::Locked(_))));
    drop(first);
    assert!(SqliteStore::open(folder.path()).is_ok());
}

#[cfg(unix)]
#[test]
fn a_folder_that_holds_a_token_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("a/b");
    drop(SqliteStore::open(&profile).unwrap());
    assert_eq!(profile.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_later_format_is_refused_and_what_is_no_database_too() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let database = rusqlite::Connection::open(folder.path().join("profile.db")).unwrap();
    database.pragma_update(None, "user_version", 3).unwrap();
    drop(database);
    let opened = SqliteStore::open(folder.path());
    assert!(matches!(opened, Err(OpenError::UnknownFormat { format: 3, .. })));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("profile.db"), [b'x'; 4_096]).unwrap();
    assert!(matches!(SqliteStore::open(folder.path()), Err(OpenError::Broken { .. })));
}

/// Format 1 had no networks.
#[test]
fn a_profile_of_the_first_format_is_read_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let applied =
        [Change::Identity(identity()), Change::ConnectNo(7), Change::Applied(event(1, 1))];
    store.commit(&applied).unwrap();
    let (before, hash) = (store.load().unwrap(), store.state_hash().unwrap());
    drop(store);
    let database = rusqlite::Connection::open(folder.path().join("profile.db")).unwrap();
    database.execute_batch("DROP TABLE network; PRAGMA user_version = 1").unwrap();
    drop(database);

    let mut store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!((store.load().unwrap(), store.state_hash().unwrap()), (before, hash));
    let network = Network::named("wifi").unwrap();
    let known = KnownNetwork { network, heartbeat_s: 240, too_long: None };
    store.commit(&[Change::Network(known.clone())]).unwrap();
    drop(store);
    assert_eq!(SqliteStore::open(folder.path()).unwrap().load().unwrap().networks, [known]);
}

#[test]
fn what_was_shown_is_not_shown_again_and_what_replaces_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    let seqs = |journal: &Journal| -> Vec<u64> {
        journal.unshown().unwrap().iter().map(|event| event.seq).collect()
    };
    let applied = |seq, epoch| Change::Applied(event(seq, epoch));
    store.commit(&[applied(1, 1), applied(2, 1), applied(3, 1)]).unwrap();
    assert_eq!(seqs(&journal), [1, 2, 3]);
    journal.set_shown(place_of(3, 1)).unwrap();
    assert_eq!(seqs(&journal), [0; 0]);
    assert_eq!(journal.taken_back().unwrap(), None);
    store.commit(&[Change::Rewind(place_of(1, 1)), applied(2, 2)]).unwrap();
    assert_eq!(seqs(&journal), [2]);
    let rewound = Some(Event::Rewound(place_of(1, 1)));
    assert_eq!(journal.taken_back().unwrap(), rewound, "until it is told");
    journal.set_shown(place_of(1, 1)).unwrap();
    assert_eq!((journal.taken_back().unwrap(), seqs(&journal)), (None, vec![2]));
    journal.set_shown(place_of(2, 2)).unwrap();
    journal.keep_name(BOB, "bob").unwrap();
    assert_eq!(journal.name_of(BOB).unwrap().as_deref(), Some("bob"));
    // An older backup has epochs that were seen before.
    store.commit(&[Change::Reset, applied(1, 1)]).unwrap();
    assert_eq!(seqs(&journal), [1]);
    // Whoever is still printing what came before it does not hide that it came.
    journal.set_shown(place_of(2, 2)).unwrap();
    assert_eq!(journal.shown().unwrap(), None);
    assert_eq!((journal.taken_back().unwrap(), seqs(&journal)), (Some(Event::Reset), vec![1]));
    journal.told_reset().unwrap();
    assert_eq!(journal.shown().unwrap(), Some(Place::START));
    assert_eq!((journal.taken_back().unwrap(), seqs(&journal)), (None, vec![1]));
}

const CHILD: &str = "STARLING_TEST_STORE";

/// Not a test of its own: the process that the next one kills. Each commit applies one event,
/// takes one message in and moves the next number, and is announced after it returned.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let mut store = SqliteStore::open(Path::new(&folder)).unwrap();
    let saved = store.load().unwrap();
    for number in saved.next_send_no.. {
        let entry = Entry {
            nonce: Nonce(number),
            send_no: SendNo(number),
            message: text("hello"),
            state: EntryState::Unanswered,
        };
        let changes = [
            Change::Applied(event(number, 1)),
            Change::Outbox(entry),
            Change::NextSendNo(number + 1),
        ];
        store.commit(&changes).unwrap();
        println!("committed {number}");
    }
}

#[test]
fn a_kill_leaves_all_of_a_transaction_or_nothing_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut last_told = 0;
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_commits_until_it_is_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut heard = 0;
        while heard < 5 + round * 7 {
            if let Some(number) = committed(&lines.next().unwrap().unwrap()) {
                last_told = number;
                heard += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        last_told = lines
            .map_while(Result::ok)
            .filter_map(|line| committed(&line))
            .last()
            .unwrap_or(last_told);

        let Saved { cursor, next_send_no, outbox, .. } =
            SqliteStore::open(folder.path()).unwrap().load().unwrap();
        let kept = next_send_no - 1;
        assert!(kept == last_told || kept == last_told + 1, "told {last_told}, kept {kept}");
        assert_eq!((cursor.seq, outbox.len() as u64), (kept, kept));
        let journal = Journal::open(folder.path()).unwrap();
        assert!(journal.unshown().unwrap().iter().map(|event| event.seq).eq(1..=kept));
    }
}

fn committed(line: &str) -> Option<u64> {
    line.split("committed ").nth(1)?.trim().parse().ok()
}
