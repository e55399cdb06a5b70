//! Numbers, nonces, and what becomes of a message that a connection was lost over.

mod support;

use starling_client::{
    EntryState, Event, Outgoing, Peer, QueueError, Unsent,
    codec::{ErrorCode, Kind, Nonce, limits, wire},
};
use support::*;

/// Nonces of the messages that were told to have arrived.
fn arrived(events: &[Event]) -> Vec<u64> {
    let sent = events.iter().filter_map(|event| match event {
        Event::Sent { nonce, .. } => Some(nonce.0),
        _ => None,
    });
    sent.collect()
}

#[test]
fn a_message_is_kept_before_it_is_sent_and_until_its_own_event_is_applied() {
    let mut desk = Desk::live();
    desk.send(11);
    assert_eq!(desk.session.store().saved().outbox.len(), 1);
    let sent = desk.sent();
    let send: wire::Send = sent[0].read();
    assert_eq!((send.send_no, send.nonce, send.oldest), (1, 11, 1));

    desk.give(Kind::SendAck, &ack(1, 7, 1));
    let events = desk.events();
    let Some(Event::Sent { receipt, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((receipt.seq, receipt.place), (7, place_of(7, 1)));
    let saved = desk.session.store().saved();
    assert_eq!(saved.outbox[0].state, EntryState::Acknowledged(*receipt));

    desk.give_events([wire::Event { prev: 0, ..own_event(1, 1, 1, 11) }]);
    assert!(desk.session.store().saved().outbox.is_empty());
    assert_eq!(arrived(&desk.events()), [0; 0], "told once");
}

#[test]
fn an_own_event_is_an_answer_too() {
    let mut desk = Desk::live();
    desk.send(11);
    desk.give_events([own_event(1, 1, 1, 11)]);
    assert_eq!(arrived(&desk.events()), [11]);
    desk.give(Kind::SendAck, &ack(1, 1, 1));
    assert_eq!(arrived(&desk.events()), [0; 0]);
    assert_eq!(desk.session.unanswered(), 0);
}

#[test]
fn a_message_of_another_own_device_answers_nothing() {
    let mut desk = Desk::live();
    desk.send(11);
    let mut other = own_event(1, 1, 1, 11);
    if let Some(wire::event::Kind::Message(message)) = &mut other.kind {
        message.device = 2;
    }
    desk.give_events([other]);
    assert_eq!(desk.session.unanswered(), 1);
}

#[test]
fn messages_written_offline_go_out_in_order_with_the_first_connection() {
    let mut desk = Desk::new();
    (1..=5).for_each(|nonce| desk.send(nonce));
    // A later process sends them.
    let mut desk = Desk::with(desk.session.into_store());
    assert_eq!(numbers(&desk.come_online(welcome())), [1, 2, 3, 4, 5]);
}

#[test]
fn no_number_is_more_than_63_above_the_oldest() {
    let mut desk = Desk::live();
    (1..=100).for_each(|nonce| desk.send(nonce));
    assert_eq!(desk.sent_numbers(), (1..=64).collect::<Vec<_>>());
    // An answer in the middle moves nothing; that of the oldest does.
    desk.give(Kind::SendAck, &ack(2, 1, 1));
    assert!(desk.sent().is_empty());
    desk.give(Kind::SendAck, &ack(1, 2, 1));
    let sent = desk.sent();
    assert_eq!(numbers(&sent), [65, 66]);
    assert_eq!(sent[0].read::<wire::Send>().oldest, 3);
}

#[test]
fn the_servers_own_limit_of_sends_in_flight_is_kept() {
    let mut desk = Desk::new();
    let limits = Some(wire::Limits { max_sends_in_flight: 2, ..Default::default() });
    desk.come_online(wire::Welcome { limits, ..welcome() });
    (1..=5).for_each(|nonce| desk.send(nonce));
    assert_eq!(desk.sent_numbers(), [1, 2]);
    desk.give(Kind::SendAck, &ack(1, 1, 1));
    assert_eq!(desk.sent_numbers(), [3]);
}

#[test]
fn after_a_lost_connection_only_what_did_not_arrive_is_sent_again() {
    let mut desk = Desk::live();
    (1..=4).for_each(|nonce| desk.send(nonce * 11));
    desk.lose_link();
    let back = wire::Welcome { window: window([1, 3]), head: Some(place(2, 1)), ..welcome() };
    let sent = desk.come_online(back);
    assert_eq!(numbers(&sent), [2, 4]);
    assert_eq!(sent[0].read::<wire::Send>().nonce, 22);
    // The others are found in the inbox.
    desk.give_events([own_event(1, 1, 1, 11), own_event(2, 1, 3, 33)]);
    assert_eq!(arrived(&desk.events()), [11, 33]);
    assert!(desk.sent_numbers().is_empty());
}

#[test]
fn a_device_restored_from_an_old_backup_numbers_anew_above_the_window() {
    let mut desk = Desk::live();
    desk.send(11);
    desk.give(Kind::SendAck, &ack(1, 1, 1));
    let backup = desk.session.store().clone();
    // It went on to send number 2 and 3; then the backup comes back and writes another one.
    let mut desk = Desk::with(backup);
    desk.send(44);
    let back = wire::Welcome { window: window([1, 2, 3]), head: Some(place(3, 1)), ..welcome() };
    assert_eq!(numbers(&desk.come_online(back.clone())), [0; 0]);
    desk.give_events([own_event(1, 1, 1, 11), own_event(2, 1, 2, 22), own_event(3, 1, 3, 33)]);
    // The server is asked, for 44 may have gone out with another number before.
    assert_eq!(desk.sent_numbers(), [2]);
    desk.refuse(2, ErrorCode::SendConflict, 0);
    let sent = desk.come_online(back);
    assert_eq!(numbers(&sent), [4]);
    assert_eq!(sent.last().map(|send| send.read::<wire::Send>().nonce), Some(44));
    // What is written next comes after it.
    desk.send(55);
    assert_eq!(desk.sent_numbers(), [5]);
    assert_eq!(desk.session.store().saved().next_send_no, 6);
}

/// An older life of the device had numbered the message anew, and the server had let that in, but
/// not decided it, when WELCOME was made: a shard between them stood still.
#[test]
fn a_message_under_way_with_another_number_is_not_numbered_anew() {
    let mut desk = Desk::new();
    desk.send(44);
    let back = wire::Welcome { window: window([1]), head: Some(place(1, 1)), ..welcome() };
    desk.come_online(back);
    desk.give_events([own_event(1, 1, 1, 11)]);
    assert_eq!(desk.sent_numbers(), [1], "nothing is numbered anew");
    desk.refuse(1, ErrorCode::SendConflict, 0);
    let back = wire::Welcome { window: window([1, 2]), head: Some(place(2, 1)), ..welcome() };
    assert_eq!(numbers(&desk.come_online(back)), [0; 0]);
    desk.give_events([own_event(2, 1, 2, 44)]);
    assert_eq!(arrived(&desk.events()), [44]);
    assert!(desk.sent_numbers().is_empty());
    assert_eq!(desk.session.unanswered(), 0);
}

#[test]
fn a_conflict_told_by_the_server_ends_the_same() {
    let mut desk = Desk::live();
    desk.send(44);
    desk.refuse(1, ErrorCode::SendConflict, 0);
    assert!(desk.is_offline());
    let back = wire::Welcome { window: window([1]), head: Some(place(1, 1)), ..welcome() };
    desk.come_online(back.clone());
    // That connection is lost before the device has caught up.
    desk.lose_link();
    desk.come_online(back);
    desk.give_events([own_event(1, 1, 1, 99)]);
    assert_eq!(desk.sent_numbers(), [2]);
}

#[test]
fn a_conflict_waits_for_the_answers_to_the_others() {
    let mut desk = Desk::live();
    (1..=3).for_each(|nonce| desk.send(nonce * 11));
    assert_eq!(desk.sent_numbers(), [1, 2, 3]);
    desk.refuse(1, ErrorCode::SendConflict, 0);
    desk.send(44);
    desk.refuse(2, ErrorCode::SendConflict, 0);
    assert!(!desk.is_offline());
    desk.give(Kind::SendAck, &ack(3, 1, 1));
    assert!(desk.is_offline());
    let back = wire::Welcome { window: window([1, 2, 3]), ..welcome() };
    let sent = desk.come_online(back);
    assert_eq!(numbers(&sent), [4, 5, 6]);
    let nonces = sent.iter().map(|send| send.read::<wire::Send>().nonce);
    assert_eq!(nonces.collect::<Vec<_>>(), [44, 11, 22]);
}

#[test]
fn a_number_too_old_to_tell_is_looked_for_and_then_given_back() {
    let mut desk = Desk::live();
    desk.send(11);
    desk.send(22);
    desk.lose_link();
    let back = wire::Welcome { window: window(150..=200), head: Some(place(2, 1)), ..welcome() };
    assert!(numbers(&desk.come_online(back.clone())).is_empty());
    desk.give_events([event(1, 1)]);
    assert_eq!(desk.session.unsent().count(), 0);
    desk.give_events([own_event(2, 1, 1, 11)]);
    assert_eq!(arrived(&desk.events()), [11]);
    assert_eq!(desk.sent_numbers(), [2]);
    assert_eq!(desk.session.unsent().count(), 0);
    desk.refuse(2, ErrorCode::SendStale, 0);
    desk.come_online(back);
    let events = desk.events();
    let Some(Event::Unsent(entry)) = events.last() else { panic!("{events:?}") };
    assert_eq!((entry.nonce, entry.state), (Nonce(22), EntryState::Unsent(Unsent::Stale)));
    desk.send(33);
    assert_eq!(desk.sent_numbers(), [201]);
}

#[test]
fn a_refusal_for_now_goes_back_to_that_number() {
    let mut desk = Desk::live();
    (1..=4).for_each(|nonce| desk.send(nonce));
    desk.sent();
    desk.give(Kind::SendAck, &ack(1, 1, 1));
    desk.refuse(2, ErrorCode::Overload, 300);
    for number in [3, 4] {
        desk.refuse(number, ErrorCode::SendOutOfOrder, 300);
    }
    // What is written meanwhile waits behind them.
    desk.send(5);
    assert!(desk.sent_numbers().is_empty());
    assert_eq!(desk.session.next_deadline(), Some(desk.now_ms + 300));
    desk.wait(299);
    assert!(desk.sent_numbers().is_empty());
    desk.wait(1);
    assert_eq!(desk.sent_numbers(), [2, 3, 4, 5]);
}

#[test]
fn a_late_echo_of_a_refusal_doubles_nothing() {
    let mut desk = Desk::live();
    desk.send(1);
    desk.send(2);
    desk.refuse(1, ErrorCode::RateLimited, 50);
    desk.sent();
    desk.wait(50);
    assert_eq!(desk.sent_numbers(), [1, 2]);
    // The refusal of 2 from the first round comes only now.
    desk.refuse(2, ErrorCode::SendOutOfOrder, 50);
    desk.give(Kind::SendAck, &ack(1, 1, 1));
    desk.give(Kind::SendAck, &ack(2, 2, 1));
    desk.wait(50);
    assert!(desk.sent_numbers().is_empty());
    assert_eq!(arrived(&desk.events()), [1, 2]);
}

#[test]
fn a_refusal_for_good_is_told_and_the_others_go_on() {
    let mut desk = Desk::live();
    (1..=65).for_each(|nonce| desk.send(nonce));
    assert_eq!(desk.sent_numbers().len(), 64);
    desk.refuse(1, ErrorCode::UnknownUser, 0);
    assert_eq!(desk.sent_numbers(), [65]);
    let refused = desk.events().into_iter().find_map(|event| match event {
        Event::Refused { nonce, refusal } => Some((nonce, refusal.code())),
        _ => None,
    });
    assert_eq!(refused, Some((Nonce(1), Some(ErrorCode::UnknownUser))));
    assert_eq!(desk.session.store().saved().outbox.len(), 64);
}

#[test]
fn an_unknown_outcome_keeps_the_number_and_repeats_it_after_reconnecting() {
    let mut desk = Desk::live();
    desk.send(11);
    desk.refuse(1, ErrorCode::UnknownOutcome, 700);
    assert!(desk.is_offline());
    let sent = desk.come_online(welcome());
    assert_eq!(numbers(&sent), [1]);
    assert_eq!(sent[0].read::<wire::Send>().nonce, 11);
}

#[test]
fn what_cannot_be_sent_is_not_taken() {
    let mut desk = Desk::new();
    let with = |content: Vec<u8>| Outgoing {
        to: Peer::User(BOB),
        content: content.into(),
        class: wire::Class::Durable,
    };
    let most = limits::MAX_CONTENT_BYTES;
    let session = &mut desk.session;
    assert_eq!(session.send(0, Nonce(1), with(vec![])), Err(QueueError::Empty));
    let large = session.send(0, Nonce(1), with(vec![0; most + 1]));
    assert_eq!(large, Err(QueueError::TooLarge(most + 1, most)));
    assert_eq!(session.send(0, Nonce(1), with(vec![0; most])), Ok(()));
    assert_eq!(session.send(0, Nonce(1), text("again")), Err(QueueError::NonceUsed));
    (2..=1_024).for_each(|nonce| session.send(0, Nonce(nonce), text("more")).unwrap());
    let full = session.send(0, Nonce(2_000), text("one too many"));
    assert_eq!(full, Err(QueueError::OutboxFull(1_024)));
}
