//! When outcomes are told: after the sync they wait for, in the order of the log, and never after
//! a failure.

mod common;

use common::{Home, PATIENCE, Running, Send, accepted, faults::Faults, on_each, refused, settings};
use starling_codec::{
    Answer, Command, ConversationId, DeviceId, ErrorCode, MessageId, Origin, Outcome, Place, Query,
    SendNo, Submission, UserId,
};
use starling_storage::{MemoryBackend, Store, StoreSettings};
use std::{sync::Arc, thread, time::Duration};

const ADA: UserId = UserId(1);
const BOB: UserId = UserId(2);

fn open(home: &Home, faults: &Faults) -> Running {
    let mut store = Running::with(faults.around(home.backend()), home.settings());
    store.users(&["ada", "bob", "cy"]);
    // The reservation of ids, which makes any batch durable, is behind us.
    store.sent(Send::new(BOB, BOB, 1));
    store
}

#[test]
fn a_durable_message_waits_for_its_sync_and_a_buffered_one_does_not() {
    on_each(|home| {
        let faults = Faults::new();
        let mut store = open(home, &faults);
        faults.hold_syncs();
        accepted(store.send(Send::new(ADA, BOB, 1).buffered()));
        let durable = store.append(Send::new(ADA, BOB, 2));
        let durable = store.submit(durable);
        // What comes behind it waits too, buffered or not: announcing is in log order.
        let behind = store.append(Send::new(ADA, BOB, 3).buffered());
        let behind = store.submit(behind);
        assert!(!store.hear(Duration::from_millis(200)), "told before the sync was done");
        // Nobody sees what is not promised.
        assert_eq!(store.inbox(BOB, 0).1.seq, 2);
        faults.let_syncs_end();
        assert_eq!(accepted(store.outcome(durable)).seq, 2);
        assert_eq!(accepted(store.outcome(behind)).seq, 3);
        store.close();
    });
}

#[test]
fn the_committer_syncs_little_itself_and_has_much_synced() {
    let faults = Faults::new();
    let mut store = open(&Home::memory(), &faults);
    let mut send_no = 0;
    for (count, by) in [(32, "committer"), (33, "log-sync"), (1, "committer")] {
        let mut next = |store: &mut Running| {
            send_no += 1;
            store.append(Send::new(ADA, BOB, send_no))
        };
        faults.hold_syncs();
        let before = faults.syncing_threads().len();
        let first = next(&mut store);
        let first = store.submit(first);
        while faults.syncing_threads().len() == before {
            thread::yield_now();
        }
        // What comes while that one is synced is the next batch.
        let behind: Vec<u64> = (0..count)
            .map(|_| {
                let command = next(&mut store);
                store.queue(command)
            })
            .collect();
        faults.let_syncs_end();
        for key in [first].into_iter().chain(behind) {
            accepted(store.outcome(key));
        }
        assert_eq!(faults.syncing_threads()[before..], ["committer", by], "{count} messages");
    }
    store.close();
}

#[test]
fn while_a_sync_takes_two_seconds_others_read_and_the_order_holds() {
    let faults = Faults::new();
    let mut store = open(&Home::memory(), &faults);
    faults.slow_syncs(Duration::from_secs(2));
    faults.hold_syncs();
    let before = faults.syncs_begun();
    let first = store.append(Send::new(ADA, BOB, 1));
    let first = store.submit(first);
    while faults.syncs_begun() == before {
        std::thread::yield_now();
    }
    // Only that one is slow.
    faults.slow_syncs(Duration::ZERO);
    let behind: Vec<u64> = (2..=500)
        .map(|send_no| {
            let send = Send::new(ADA, BOB, send_no);
            let command = store.append(if send_no % 3 == 0 { send } else { send.buffered() });
            store.submit(command)
        })
        .collect();
    // Reads go on meanwhile, of what was public before.
    assert_eq!(store.inbox(BOB, 0).1.seq, 1);
    faults.let_syncs_end();
    let mut last = accepted(store.outcome(first)).place;
    for key in behind {
        let place = accepted(store.outcome(key)).place;
        assert_eq!(place.seq, last.seq + 1);
        last = place;
    }
    // One batch was written ahead; all that came later went in the next.
    assert!(store.handle.counters().batches < 20);
    store.close();
}

#[test]
fn after_a_failed_sync_nothing_is_promised_and_nothing_tried_again() {
    on_each(|home| {
        let faults = Faults::new();
        let mut store = open(home, &faults);
        faults.hold_syncs();
        faults.fail_syncs();
        let sent: Vec<u64> = (1..=3)
            .map(|send_no| {
                let command = store.append(Send::new(ADA, BOB, send_no));
                store.submit(command)
            })
            .collect();
        let revoked = store.submit(Command::Revoke { user: ADA, device: DeviceId(1) });
        faults.let_syncs_end();
        for key in sent {
            assert_eq!(refused(store.outcome(key)), ErrorCode::UnknownOutcome);
        }
        assert_eq!(store.outcome(revoked), Outcome::Refused(ErrorCode::UnknownOutcome));
        while store.poisoned.is_none() {
            assert!(store.hear(PATIENCE));
        }
        assert!(store.handle.is_poisoned());
        assert_eq!(
            faults.suspected(),
            Some("the store cannot be written: no sync today".to_owned())
        );
        let syncs = faults.syncs_begun();
        // Whoever still comes hears the same, and reads stay at the last view.
        assert_eq!(refused(store.send(Send::new(ADA, BOB, 4))), ErrorCode::UnknownOutcome);
        assert_eq!(store.inbox(BOB, 0).1.seq, 1);
        assert_eq!(faults.syncs_begun(), syncs);
        assert!(store.deliveries.iter().all(|delivery| delivery.events[0].seq == 1));
        store.close();
    });
}

#[test]
fn after_a_failed_write_the_next_opening_decides() {
    on_each(|home| {
        let faults = Faults::new();
        let mut store = open(home, &faults);
        accepted(store.send(Send::new(ADA, BOB, 1)));
        faults.fail_writes();
        assert_eq!(refused(store.send(Send::new(ADA, BOB, 2))), ErrorCode::UnknownOutcome);
        while store.poisoned.is_none() {
            assert!(store.hear(PATIENCE));
        }
        store.close();
        // Opened again, all is verified, and the send is simply sent again.
        let mut store = home.open();
        assert_eq!(accepted(store.send(Send::new(ADA, BOB, 2))).seq, 2);
        assert_eq!(accepted(store.send(Send::new(ADA, BOB, 1))).seq, 1);
        store.close();
    });
}

#[test]
fn a_defect_in_the_committer_is_told_and_promises_nothing() {
    on_each(|home| {
        let faults = Faults::new();
        let mut store = open(home, &faults);
        faults.panic_in_writes();
        let lost = store.append(Send::new(ADA, BOB, 1));
        let lost = store.submit(lost);
        while store.poisoned.is_none() {
            assert!(store.hear(PATIENCE));
        }
        assert!(faults.suspected().is_some());
        assert_eq!(refused(store.outcome(lost)), ErrorCode::UnknownOutcome);
        assert_eq!(refused(store.send(Send::new(ADA, BOB, 2))), ErrorCode::UnknownOutcome);
        store.close();
    });
}

#[test]
fn a_disk_nearly_full_refuses_what_adds_rows_and_keeps_the_order() {
    let faults = Faults::new();
    let settings = StoreSettings { min_free_bytes: 1_000, ..settings() };
    let mut store = Running::with(faults.around(Arc::new(MemoryBackend::new())), settings);
    store.users(&["ada", "bob"]);
    accepted(store.send(Send::new(ADA, BOB, 1)));
    faults.free_bytes(999);
    // The disk is looked at now and then.
    let mut other = 0;
    let refusal = loop {
        other += 1;
        match store.send(Send::new(BOB, BOB, other)) {
            Outcome::Appended(_) => {}
            refusal => break refused(refusal),
        }
    };
    assert_eq!(refusal, ErrorCode::DiskFull);
    assert_eq!(refused(store.send(Send::new(ADA, BOB, 2))), ErrorCode::DiskFull);
    assert_eq!(refused(store.send(Send::new(ADA, BOB, 3))), ErrorCode::SendOutOfOrder);
    // What is there already is still answered, and what only changes rows is done.
    assert_eq!(accepted(store.send(Send::new(ADA, BOB, 1))).seq, 1);
    let drafts = Vec::new();
    let users = store.run(Command::CreateUsers { drafts, time_ms: 0 });
    assert_eq!(users, Outcome::Refused(ErrorCode::DiskFull));
    assert_eq!(store.run(Command::Revoke { user: ADA, device: DeviceId(1) }), Outcome::Done);
    assert_eq!(store.handle.counters().state, 1);

    faults.free_bytes(1_000);
    while store.handle.counters().state == 1 {
        // Behind the refused one nothing overtakes, room or not.
        assert_eq!(refused(store.send(Send::new(ADA, BOB, 3))), ErrorCode::SendOutOfOrder);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(accepted(store.send(Send::new(ADA, BOB, 2))).seq, 2);
    assert_eq!(accepted(store.send(Send::new(ADA, BOB, 3))).seq, 3);
    store.close();
}

/// Who gives a refused number up says so with the next one, and waits for nothing then.
#[test]
fn a_number_that_was_given_up_holds_no_later_one() {
    let faults = Faults::new();
    let settings = StoreSettings { min_free_bytes: 1_000, ..settings() };
    faults.free_bytes(999);
    let mut store = Running::with(faults.around(Arc::new(MemoryBackend::new())), settings);
    let to_all = |send_no| Send::new(ADA, BOB, send_no);
    assert_eq!(refused(store.send(to_all(1))), ErrorCode::DiskFull);
    assert_eq!(refused(store.send(to_all(2))), ErrorCode::SendOutOfOrder);
    assert_eq!(refused(store.send(to_all(3))), ErrorCode::SendOutOfOrder);
    faults.free_bytes(1_000);
    while refused_for_room(&mut store) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The second one is waited for as well as the first.
    assert_eq!(refused(store.send(to_all(3).oldest(2))), ErrorCode::SendOutOfOrder);
    assert_eq!(accepted(store.send(to_all(3).oldest(3))).seq, 1);
    assert_eq!(accepted(store.send(to_all(4).oldest(4))).seq, 2);
    store.close();
}

/// A refusal is heard of late when a sync takes long, or a shard stands still.
#[test]
fn what_was_refused_holds_the_later_ones_however_late_that_is_heard() {
    let faults = Faults::new();
    let settings = StoreSettings { min_free_bytes: 1_000, ..settings() };
    faults.free_bytes(999);
    let mut store = Running::with(faults.around(Arc::new(MemoryBackend::new())), settings);
    assert_eq!(refused(store.send(Send::new(ADA, BOB, 1))), ErrorCode::DiskFull);
    faults.free_bytes(1_000);
    while refused_for_room(&mut store) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let much_later = MessageId::new(MessageId::TIME_ZERO_MS + (1 << 40), 0, 0);
    let second = store.run(Send::new(ADA, BOB, 2).command(much_later));
    assert_eq!(refused(second), ErrorCode::SendOutOfOrder);
    assert_eq!(accepted(store.send(Send::new(ADA, BOB, 1))).seq, 1);
    assert_eq!(accepted(store.send(Send::new(ADA, BOB, 2))).seq, 2);
    store.close();
}

/// Whether there is still no room for somebody who waits for nothing.
fn refused_for_room(store: &mut Running) -> bool {
    store.send(Send::new(BOB, BOB, 1)) == refusal(1, ErrorCode::DiskFull)
}

fn refusal(send_no: u64, code: ErrorCode) -> Outcome {
    Outcome::SendRefused { send_no: SendNo(send_no), code }
}

/// Whoever heard that the disk is full sends nothing more, so no command may be needed to see that
/// there is room again.
#[test]
fn room_on_the_disk_is_found_though_nobody_sends() {
    let faults = Faults::new();
    let settings = StoreSettings { min_free_bytes: 1_000, ..settings() };
    let mut store = Running::with(faults.around(Arc::new(MemoryBackend::new())), settings);
    faults.free_bytes(999);
    let drafts = Vec::new();
    let users = store.run(Command::CreateUsers { drafts, time_ms: 0 });
    assert_eq!(users, Outcome::Refused(ErrorCode::DiskFull));
    faults.free_bytes(1_000);
    let started = std::time::Instant::now();
    while store.handle.counters().state == 1 {
        assert!(started.elapsed() < PATIENCE, "the room was never seen");
        std::thread::sleep(Duration::from_millis(10));
    }
    store.close();
}

#[test]
fn a_full_mailbox_gives_back_and_loses_nothing() {
    let faults = Faults::new();
    let settings = StoreSettings { mailbox: 8, ..settings() };
    let mut store = Running::with(faults.around(Arc::new(MemoryBackend::new())), settings);
    store.users(&["ada", "bob"]);
    accepted(store.send(Send::new(BOB, BOB, 1)));
    faults.hold_syncs();
    let mut taken = Vec::new();
    let mut given_back = 0;
    for send_no in 1..=100 {
        let command = Send::new(ADA, BOB, send_no).command(MessageId(send_no));
        let origin = Origin { shard: 0, key: 10_000 + send_no };
        match store.handle.submit(0, Submission { origin, command }) {
            Ok(()) => taken.push(10_000 + send_no),
            Err(back) => {
                assert_eq!(back.origin, origin);
                given_back += 1;
            }
        }
    }
    assert!(given_back > 0 && !taken.is_empty());
    faults.let_syncs_end();
    for (index, key) in taken.iter().enumerate() {
        assert_eq!(accepted(store.outcome(*key)).seq, index as u64 + 1);
    }
    store.close();
}

#[test]
fn closing_finishes_what_was_submitted() {
    on_each(|home| {
        let faults = Faults::new();
        let mut store = open(home, &faults);
        faults.slow_syncs(Duration::from_millis(50));
        let keys: Vec<u64> = (1..=200)
            .map(|send_no| {
                let command = store.append(Send::new(ADA, BOB, send_no));
                store.queue(command)
            })
            .collect();
        store.handle.close();
        store.handle.close();
        for key in keys {
            accepted(store.outcome(key));
        }
        let late = Submission {
            origin: Origin { shard: 0, key: 0 },
            command: Command::Revoke { user: ADA, device: DeviceId(1) },
        };
        assert!(store.handle.submit(0, late).is_err());
        let late = Query::NameOf { user: ADA };
        assert!(store.handle.read_later(Origin { shard: 0, key: 0 }, late).is_err());
    });
}

#[test]
fn no_id_is_promised_at_or_above_the_next_floor() {
    on_each(|home| {
        let mut floor_ms = 0;
        let mut send_no = 0;
        for _ in 0..3 {
            let store = Store::open_on(home.backend(), home.settings()).unwrap();
            assert!(store.id_floor_ms() >= floor_ms);
            let mut store = Running::start(store);
            store.users(&["ada"]);
            let mut last_ms = store.handle.id_floor_ms().max(common::TIME_MS);
            // A quiet time, then a busy one.
            for step_ms in [1, 1_000, 1_400, 1_501, 3_000, 60_000, 1, 1] {
                last_ms += step_ms;
                send_no += 1;
                let id = MessageId::new(last_ms, 0, 0);
                accepted(store.run(Send::new(ADA, ADA, send_no).command(id)));
            }
            store.close();
            let store = Store::open_on(home.backend(), home.settings()).unwrap();
            floor_ms = store.id_floor_ms();
            assert!(floor_ms > last_ms && floor_ms <= last_ms + 5_000);
        }
    });
}

#[test]
fn receipts_of_one_commit_are_folded() {
    let faults = Faults::new();
    let mut store = open(&Home::memory(), &faults);
    let conversation = ConversationId::direct(ADA, BOB);
    let place = accepted(store.send(Send::new(ADA, BOB, 1))).place;
    faults.hold_syncs();
    // One commit under way, so that what follows gathers into the next.
    let held = store.append(Send::new(BOB, BOB, 2));
    let held = store.submit(held);
    let advance = |seq| Command::Advance {
        user: BOB,
        device: DeviceId(1),
        cursor: Place::new(seq, place.epoch),
        notices: vec![common::receipt(BOB, conversation, seq, seq)],
    };
    let keys: Vec<u64> = (1..=5).map(|seq| store.queue(advance(seq))).collect();
    faults.let_syncs_end();
    accepted(store.outcome(held));
    for key in keys {
        assert_eq!(store.outcome(key), Outcome::Done);
    }
    let (events, head) = store.inbox(ADA, 1);
    assert_eq!(events.len() as u64, head.seq - 1);
    let folded = store.handle.counters().folded;
    assert_eq!(events.len() as u64 + folded, 5);
    assert!(folded >= 1);
    store.close();
}

#[test]
fn readers_answer_what_is_asked_of_them() {
    on_each(|home| {
        let faults = Faults::new();
        let mut store = open(home, &faults);
        assert_eq!(store.ask_later(Query::NameOf { user: BOB }), Answer::Name(Some("bob".into())));
        assert_eq!(store.ask_later(Query::NameOf { user: UserId(99) }), Answer::Name(None));
        store.close();
    });
}

#[test]
fn a_panic_of_a_reader_costs_its_question_and_nothing_else() {
    on_each(|home| {
        let faults = Faults::new();
        let settings = StoreSettings { reader_threads: 1, ..home.settings() };
        let mut store = Running::with(faults.around(home.backend()), settings);
        store.users(&["ada", "bob"]);
        accepted(store.send(Send::new(ADA, BOB, 1)));
        let name = || Query::NameOf { user: ADA };
        let before = store.ask_later(name());
        faults.panic_in_readers(true);
        assert_eq!(store.ask_later(name()), Answer::Failed(ErrorCode::Internal));
        assert_eq!(store.handle.counters().read_panics, 1);
        faults.panic_in_readers(false);
        // The same thread, as it is the only one.
        assert_eq!(store.ask_later(name()), before);
        assert_eq!(accepted(store.send(Send::new(BOB, ADA, 1))).seq, 2);
        store.close();
    });
}
