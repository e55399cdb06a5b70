//! Lines of a history are read as they were written, and what is not known is passed over.

mod support;

use starling_check::{Checker, Parsed, Unreadable, check_records, parse};
use starling_codec::{
    Place,
    history::{EventKind, Fact, Record},
};

#[test]
fn every_record_is_read_as_it_was_written() {
    for record in support::an_evening().records {
        let mut line = Vec::new();
        record.append(&mut line);
        assert_eq!(parse(&line), Ok(Parsed::Record(record)), "{}", String::from_utf8_lossy(&line));
    }
}

#[test]
fn a_true_history_holds() {
    let world = support::an_evening();
    let verdict = check_records(&world.records);
    assert!(verdict.holds(), "{:#?}", verdict.violations);
    assert_eq!((verdict.devices, verdict.settled), (4, 4));
    assert!(verdict.complete);
}

#[test]
fn types_of_a_later_version_are_passed_over_and_counted() {
    let line = br#"{"type":"typing","user":7,"at":{"deep":[1]}}"#;
    assert_eq!(parse(line), Ok(Parsed::Unknown));
    let mut checker = Checker::new();
    checker.skip();
    assert_eq!(checker.finish().skipped, 1);
}

#[test]
fn an_event_of_a_later_version_takes_up_its_place() {
    let line = br#"{"type":"recalled","at":"7.1","inbox_seq":3,"prev":2,"epoch":1,"seq":"x"}"#;
    let Ok(Parsed::Record(Record { fact, .. })) = parse(line) else { panic!("no record") };
    let place = Place::new(3, starling_codec::Epoch(1));
    assert_eq!(fact, Fact::Event { place, prev: 2, kind: EventKind::Unknown });
}

#[test]
fn what_is_no_history_is_refused() {
    assert!(matches!(parse(b"hello"), Err(Unreadable::Json(_))));
    assert!(matches!(parse(br#"{"type":"rewind","at":"7.1"}"#), Err(Unreadable::Field(..))));
    assert!(matches!(parse(br#"{"type":"reset","at":"7"}"#), Err(Unreadable::Field(_, "at"))));
    assert_eq!(parse(br#"{"type":"history","version":2}"#), Err(Unreadable::Version(2)));
}

#[test]
fn the_documented_lines_are_the_written_ones() {
    let text = include_str!("../../docs/history.md");
    assert!(text.contains(&format!("**Version {}.**", starling_codec::history::VERSION)));
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("{\"type\"")).collect();
    let mut types: Vec<&str> = Vec::new();
    for line in &lines {
        let Ok(Parsed::Record(record)) = parse(line.as_bytes()) else { panic!("{line}") };
        let mut written = Vec::new();
        record.append(&mut written);
        assert_eq!(String::from_utf8_lossy(&written).trim_end(), *line);
        types.push(record.fact.type_name());
    }
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), 18, "an example of every type");
}
