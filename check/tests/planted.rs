//! Damaged histories are found out, and by the property that the damage hurts.

mod support;

use starling_check::{Checker, Position, Property, Verdict, check_records};
use starling_codec::{
    ConversationId, Epoch, EpochTag, MessageId, Nonce, Place, SendNo, SendWindow, UserId,
    history::{After, EventKind, Fact, Message, Record, VERSION},
    wire::Class,
};
use support::{Store, World, at, planted};

#[test]
fn every_planted_fault_is_found_by_the_right_property() {
    let mut missed = Vec::new();
    for planted in planted::ALL {
        let mut history = planted::true_history();
        (planted.plant)(&mut history);
        let verdict = check_records(&history.0);
        let found = verdict.violations.iter().find(|found| found.property == planted.property);
        match found {
            Some(found) => assert!((1..=3).contains(&found.evidence.len()), "{found:?}"),
            None => missed.push((planted.fault, planted.property, verdict.violations)),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// Nothing is shown that need not be: take one line away, and what is left of the evidence does not
/// show the same any more.
#[test]
fn no_line_of_the_evidence_is_one_too_many() {
    let mut superfluous = Vec::new();
    for planted in planted::ALL {
        let mut history = planted::true_history();
        (planted.plant)(&mut history);
        for violation in check_records(&history.0).violations {
            for &taken in &violation.evidence {
                let mut checker = Checker::new();
                for (line, record) in (1..).zip(&history.0) {
                    let position = Position::new(0, line);
                    if position != taken {
                        checker.record(position, record);
                    }
                }
                let shown = checker.finish().violations.into_iter().find(|found| {
                    let is_part = |position| violation.evidence.contains(position);
                    found.what == violation.what && found.evidence.iter().all(is_part)
                });
                superfluous
                    .extend(shown.map(|shown| (planted.fault, taken, violation.clone(), shown)));
            }
        }
    }
    assert!(superfluous.is_empty(), "{superfluous:#?}");
}

#[test]
fn a_true_history_with_a_restore_holds() {
    let verdict = check_records(&support::an_evening_after_a_restore().records);
    assert!(verdict.holds(), "{:#?}", verdict.violations);
}

/// Where a backup was restored, each property is still one that a fault turns red: each fault is
/// planted in what came after it.
#[test]
fn every_fault_that_is_planted_after_a_restore_is_found_too() {
    let missed: Vec<_> = planted::ALL
        .iter()
        .filter_map(|planted| {
            let (mut records, mut after) = planted::history_with_a_restore();
            (planted.plant)(&mut after);
            records.extend(after.0);
            let verdict = check_records(&records);
            let is_found = verdict.violates(planted.property);
            (!is_found).then_some((planted.fault, planted.property, verdict.violations))
        })
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

/// What the backup must have had is not excused.
#[test]
fn every_fault_of_the_restore_itself_is_found() {
    for planted in planted::OF_A_RESTORE {
        let (mut records, after) = planted::history_with_a_restore();
        records.extend(after.0);
        let mut history = planted::History(records);
        (planted.plant)(&mut history);
        let verdict = check_records(&history.0);
        assert!(verdict.violates(planted.property), "{}: {verdict:#?}", planted.fault);
    }
}

#[test]
fn every_property_finds_a_planted_fault() {
    for property in Property::ALL {
        let finds = planted::ALL.iter().any(|planted| planted.property == *property);
        assert!(finds, "no planted fault turns {property} red");
    }
}

#[test]
fn a_restored_backup_excuses_what_it_lacks() {
    let mut world = World::new();
    let (ada, bob) = (at(1, 1), at(2, 1));
    world.online(ada);
    world.online(bob);
    world.send(ada, 2, Class::Durable);
    world.catch_up(bob);
    world.restore(Store::default());
    world.online(ada);
    world.online(bob);
    world.send(bob, 1, Class::Durable);
    world.settle();
    let verdict = check_records(&world.records);
    assert!(verdict.holds(), "{:#?}", verdict.violations);
}

/// The one that was made earlier is restored first.
#[test]
fn a_second_backup_brings_back_what_the_first_lacked() {
    let mut world = World::new();
    let (ada, bob) = (at(1, 1), at(2, 1));
    world.online(ada);
    world.online(bob);
    let earlier = world.backup();
    world.send(ada, 2, Class::Durable);
    world.catch_up(bob);
    world.kill();
    let later = world.backup();
    for backup in [earlier, later] {
        world.restore(backup);
        world.online(ada);
        world.online(bob);
        world.catch_up(bob);
    }
    world.settle();
    let verdict = check_records(&world.records);
    assert!(verdict.holds(), "{:#?}", verdict.violations);
}

#[test]
fn who_knows_an_epoch_that_the_backup_has_goes_on() {
    let mut records = planted::true_history().0;
    let (epoch, tag) = (Epoch(4), EpochTag(4));
    records.push(Record::new(Fact::Opened { after: After::Restore, epoch, tag }));
    let eve = at(3, 1);
    let (head, window) = (Place::START, SendWindow::default());
    let online = Fact::Online { epoch, tag, head, window, resumed: true };
    let acked = records
        .iter()
        .rfind(|record| record.at == Some(eve) && matches!(record.fact, Fact::Acked(_)));
    let acked = acked.unwrap().clone();
    records.extend([Record::of(eve.user, eve.device, online), acked]);
    let verdict = check_records(&records);
    assert!(!verdict.violates(Property::Epochs), "{:#?}", verdict.violations);
}

/// Each try to open a backup may use up a number, and so its own last epoch may be an earlier one.
#[test]
fn tries_to_open_a_backup_make_it_older_perhaps() {
    let eve = at(3, 1);
    let opened =
        |epoch, after| Record::new(Fact::Opened { after, epoch: Epoch(epoch), tag: EpochTag(5) });
    let online = |epoch, resumed| {
        let (epoch, tag) = (Epoch(epoch), EpochTag(5));
        let (head, window) = (Place::START, SendWindow::default());
        Record::of(eve.user, eve.device, Fact::Online { epoch, tag, head, window, resumed })
    };
    for (tries, may_lack_epoch_2) in [(0, false), (1, false), (2, true)] {
        let mut records = vec![opened(2, After::Stop), online(2, true), opened(3, After::Kill)];
        records.extend((0..tries).map(|_| Record::new(Fact::NotOpened)));
        records.extend([opened(4, After::Restore), online(4, false)]);
        records.push(Record::of(eve.user, eve.device, Fact::Reset));
        let verdict = check_records(&records);
        assert_eq!(verdict.violates(Property::Rewind), !may_lack_epoch_2, "{tries} tries");
    }
}

/// A message was shown before its writer had an answer, and a power cut took it; sent again it is
/// another message, under the same number and nonce.
#[test]
fn what_was_lost_before_its_answer_and_sent_again_was_written_once() {
    let conversation = ConversationId::direct(UserId(1), UserId(2));
    let (send_no, nonce, class) = (SendNo(1), Nonce(9), Class::Buffered);
    let head = Place::START;
    let opened =
        |epoch, after| Record::new(Fact::Opened { after, epoch: Epoch(epoch), tag: EpochTag(7) });
    let online = |device, epoch, resumed| {
        let (epoch, tag, window) = (Epoch(epoch), EpochTag(7), SendWindow::default());
        Record::of(UserId(1), device, Fact::Online { epoch, tag, head, window, resumed })
    };
    let shown = |to: u32, id, epoch| {
        let nonce = (to == 1).then_some(nonce);
        let (sender, device) = (UserId(1), at(1, 1).device);
        let (id, digest) = (MessageId(id), Some(5));
        let message =
            Message { id, conversation, seq: 1, sender, device, send_no, nonce, class, digest };
        let (place, kind) = (Place::new(1, Epoch(epoch)), EventKind::Message(message));
        Record::of(UserId(to), at(to, 2).device, Fact::Event { place, prev: 0, kind })
    };
    let [phone, tablet] = [1, 2].map(|device| at(1, device).device);
    for seen_by in [1, 2] {
        let written = Fact::Send { send_no, nonce, conversation, class, digest: 5 };
        let mut records = vec![
            Record::new(Fact::History { version: VERSION, complete: true }),
            opened(1, After::Stop),
            Record::of(UserId(1), phone, written),
            shown(seen_by, 1 << 40, 1),
            opened(2, After::PowerCut),
            Record::of(UserId(seen_by), tablet, Fact::Rewind(head)),
            shown(seen_by, 2 << 40, 2),
        ];
        if seen_by == 1 {
            records.insert(3, online(tablet, 1, true));
            records.insert(6, online(tablet, 2, false));
        }
        let verdict = check_records(&records);
        assert!(verdict.holds(), "{:#?}", verdict.violations);
    }
}

/// A recorder was killed before it could write that its device was online in a later epoch, and what
/// came there. The next one tells what the device holds.
#[test]
fn what_a_killed_recorder_did_not_write_is_told_by_the_next() {
    let online = |epoch| {
        let (epoch, tag, head) = (Epoch(epoch), EpochTag(7), Place::START);
        Fact::Online { epoch, tag, head, window: SendWindow::default(), resumed: true }
    };
    let event = |seq, epoch| {
        let (place, kind) = (Place::new(seq, Epoch(epoch)), EventKind::Unknown);
        Fact::Event { place, prev: seq - 1, kind }
    };
    let told = |second: &[Fact]| {
        let mut checker = Checker::new();
        for (file, facts) in [&[online(1), event(1, 1)], second].into_iter().enumerate() {
            for (line, fact) in (1..).zip(facts) {
                let record = Record::of(UserId(1), at(1, 1).device, fact.clone());
                checker.record(Position::new(file as u16, line), &record);
            }
        }
        checker.finish()
    };
    let verdict = told(&[event(1, 1), event(2, 3), online(3), event(3, 3)]);
    assert!(verdict.holds(), "{:#?}", verdict.violations);
    // Once it says where it is, nothing comes from further on.
    let verdict = told(&[event(1, 1), online(2), event(2, 3)]);
    assert!(verdict.violates(Property::Epochs), "{:#?}", verdict.violations);
}

/// Whoever leaves while others go on has lost nothing; whoever leaves when all is at rest, and has not
/// what others have, has.
#[test]
fn who_leaves_without_the_last_message_has_lost_it_if_all_was_at_rest() {
    let mut world = World::new();
    let (ada, bob) = (at(1, 1), at(2, 1));
    world.online(ada);
    world.online(bob);
    for _ in 0..2 {
        world.send(ada, 2, Class::Durable);
        world.catch_up(ada);
    }
    world.leave(bob);
    world.leave(ada);
    assert!(check_records(&world.records).holds());
    let verdict = at_rest(&world.records);
    assert!(verdict.violates(Property::Kept), "{:#?}", verdict.violations);
}

/// The line that says what a device held when it left, and the last event of it that is not there.
#[test]
fn an_event_that_is_missing_before_a_device_leaves_is_missed() {
    let mut world = World::new();
    let (ada, bob) = (at(1, 1), at(2, 1));
    world.online(ada);
    world.online(bob);
    world.send(ada, 2, Class::Durable);
    world.catch_up(bob);
    world.leave(bob);
    assert!(check_records(&world.records).holds());
    let is_of_bob = |record: &Record| record.at == Some(bob);
    world.records.retain(|record| {
        !is_of_bob(record) || !matches!(record.fact, Fact::Event { .. } | Fact::Acked(_))
    });
    assert!(check_records(&world.records).violates(Property::Converge));
    // Whoever goes on afterwards had not said his last word.
    world.online(bob);
    assert!(!check_records(&world.records).violates(Property::Converge));
}

/// Sessions were ended when all was at rest.
fn at_rest(records: &[Record]) -> Verdict {
    let mut checker = Checker::new().ended_at_rest();
    for (line, record) in (1..).zip(records) {
        checker.record(Position::new(0, line), record);
    }
    checker.finish()
}

/// The order of devices among each other means nothing: each may be in a file of its own.
#[test]
fn devices_may_be_in_files_of_their_own() {
    let records = planted::true_history().0;
    let mut files: Vec<_> = records.iter().map(|record| record.at).collect();
    files.sort_unstable();
    files.dedup();
    // The server's own lines last: what they excuse was read before.
    files.reverse();
    let mut checker = Checker::new();
    for (file, device) in files.iter().enumerate() {
        let of_device = records.iter().filter(|record| record.at == *device);
        for (line, record) in of_device.enumerate() {
            checker.record(Position::new(file as u16, line as u64 + 1), record);
        }
    }
    let verdict = checker.finish();
    assert!(verdict.holds(), "{:#?}", verdict.violations);
}
