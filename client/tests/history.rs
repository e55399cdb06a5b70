//! A session tells its history: what it wrote, was told and applied, in the order in which it was
//! kept.

mod support;

use starling_check::{Property, check_records};
use starling_client::codec::{
    Kind, Nonce, Place, SendNo,
    history::{At, EventKind, Fact, Reason, Record},
    wire,
};
use support::*;

fn records(desk: &mut Desk) -> Vec<Fact> {
    let records = std::iter::from_fn(|| desk.session.poll_record());
    let own = Some(At { user: ME, device: DEVICE });
    let facts = records.map(|Record { at, fact, .. }| {
        assert_eq!(at, own);
        fact
    });
    facts.collect()
}

fn types(facts: &[Fact]) -> Vec<&'static str> {
    facts.iter().map(Fact::type_name).collect()
}

#[test]
fn what_a_session_does_and_hears_is_recorded_in_order() {
    let mut desk = Desk::new();
    desk.session.start_recording();
    desk.come_online(welcome());
    desk.send(11);
    desk.send(12);
    desk.give(Kind::SendAck, &ack(1, 1, 1));
    desk.give_events([own_event(1, 1, 1, 11), event(2, 1)]);
    desk.refuse(2, starling_client::codec::ErrorCode::UnknownUser, 0);
    desk.now_ms += 1_000;
    desk.session.tick(desk.now_ms);

    let facts = records(&mut desk);
    let expected = ["online", "send", "send", "sent", "message", "message", "refused", "acked"];
    assert_eq!(types(&facts), expected);
    let Fact::Send { send_no, nonce, .. } = facts[1] else { panic!("{facts:?}") };
    assert_eq!((send_no, nonce), (SendNo(1), Nonce(11)));
    let Fact::Event { place, prev, kind: EventKind::Message(message) } = &facts[4] else {
        panic!("{facts:?}")
    };
    assert_eq!((*place, *prev, message.nonce), (place_of(1, 1), 0, Some(Nonce(11))));
    assert_eq!(facts[7], Fact::Acked(place_of(2, 1)));
}

#[test]
fn a_rewind_is_recorded_before_what_it_gives_back() {
    let mut desk = Desk::live();
    desk.session.start_recording();
    desk.send(11);
    desk.give_events([own_event(1, 1, 1, 11)]);
    records(&mut desk);
    desk.session.closed(desk.now_ms);
    desk.come_online(wire::Welcome {
        epoch: 2,
        resumed: false,
        rewind: Some(place(0, 0)),
        ..welcome()
    });
    let facts = records(&mut desk);
    assert_eq!(types(&facts), ["offline", "acked", "online", "rewind", "unsent"]);
    assert_eq!(facts[1], Fact::Acked(place_of(1, 1)), "HELLO names the cursor");
    assert_eq!(facts[3], Fact::Rewind(Place::START));
    let Fact::Unsent { nonce, reason, .. } = facts[4] else { panic!("{facts:?}") };
    assert_eq!((nonce, reason), (Some(Nonce(11)), Reason::Lost));
}

/// The last record of a session says what it holds, so what is missing before it is missed; and what
/// it never got, once whoever recorded says that all was at rest.
#[test]
fn an_event_that_is_lost_at_the_end_of_a_session_is_seen() {
    let mut desk = Desk::new();
    desk.session.start_recording();
    desk.come_online(welcome());
    desk.give_events([own_event(1, 1, 1, 11), own_event(2, 1, 2, 12)]);
    desk.session.close();
    let mut history: Vec<Record> = std::iter::from_fn(|| desk.session.poll_record()).collect();
    let last = history.last().unwrap();
    assert!(matches!(last.fact, Fact::Left { cursor, .. } if cursor == place_of(2, 1)), "{last:?}");
    assert!(check_records(&history).holds());

    let is_second = |fact: &Fact| match fact {
        Fact::Event { place, .. } | Fact::Acked(place) => *place == place_of(2, 1),
        _ => false,
    };
    history.retain(|record| !is_second(&record.fact));
    let verdict = check_records(&history);
    assert!(verdict.violates(Property::Converge), "{verdict:#?}");
}

/// What was there before the recorder came is not counted as missing.
#[test]
fn a_session_that_goes_on_ends_its_history_with_all_that_it_holds() {
    let mut desk = Desk::live();
    desk.give_events([own_event(1, 1, 1, 11)]);
    let mut desk = Desk::with(desk.session.into_store());
    desk.session.start_recording();
    desk.come_online(welcome());
    desk.session.close();
    let history: Vec<Record> = std::iter::from_fn(|| desk.session.poll_record()).collect();
    let Fact::Left { cursor, hash } = history.last().unwrap().fact else { panic!("{history:?}") };
    assert_eq!((cursor, hash), (place_of(1, 1), desk.session.store().state_hash()));
    let verdict = check_records(&history);
    assert!(verdict.holds(), "{verdict:#?}");
}

#[test]
fn a_session_that_is_not_asked_records_nothing() {
    let mut desk = Desk::live();
    desk.send(11);
    assert_eq!(desk.session.poll_record(), None);
}
