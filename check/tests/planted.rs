//! Damaged histories are found out, and by the property that the damage hurts.

mod support;

use starling_check::{Checker, Position, Property, check_records};
use starling_codec::wire::Class;
use support::{World, at, planted};

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
    world.restore_nothing();
    world.online_reset(ada);
    world.online_reset(bob);
    world.send(bob, 1, Class::Durable);
    world.settle();
    let verdict = check_records(&world.records);
    assert!(verdict.holds(), "{:#?}", verdict.violations);
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
