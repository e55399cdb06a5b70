//! From an open link to a live session, and what ends one.

mod support;

use starling_client::{
    Event, MemoryStore, Session, SessionSettings, StopReason, Store, Wish,
    codec::{ErrorCode, Kind, MAGIC, wire},
};
use support::*;

fn close(code: ErrorCode) -> wire::Close {
    wire::Close { code: code as u32, ..Default::default() }
}

#[test]
fn hello_carries_what_is_kept_and_a_number_that_rises() {
    let mut desk = Desk::new();
    let first = desk.open();
    assert_eq!(first.opening.as_ref().map(|opening| opening.magic), Some(MAGIC));
    assert_eq!((&first.token[..], first.connect_no), (&b"token"[..], 1));
    assert_eq!((first.last_epoch, first.cursor), (0, Some(place(0, 0))));

    desk.give(Kind::Welcome, &welcome());
    desk.give_events([event(1, 1), event(2, 1)]);
    desk.give(Kind::SendAck, &ack(77, 5, 1));
    desk.lose_link();
    // Another process with the same store goes on where this one was.
    let mut desk = Desk::with(desk.session.into_store());
    let second = desk.open();
    assert_eq!(second.connect_no, 2);
    assert_eq!((second.cursor, second.highest), (Some(place(2, 1)), Some(place(5, 1))));
    assert_eq!((second.last_epoch, second.last_tag), (1, 0xA1));
}

#[test]
fn the_number_is_kept_before_the_hello_can_be_sent() {
    let mut desk = Desk::new();
    desk.session.opened(0);
    assert_eq!(desk.session.store().saved().connect_no, 1);
}

#[test]
fn without_a_token_there_is_nothing_to_open() {
    let session = Session::load(MemoryStore::new(), SessionSettings::default(), 1);
    let mut session = session.unwrap();
    assert_eq!(session.wish(), Wish::Close);
    assert_eq!(session.poll_event(), Some(Event::Stopped(StopReason::NotLoggedIn)));
}

#[test]
fn a_welcome_in_any_pieces_is_a_welcome() {
    let mut bytes = Vec::new();
    starling_client::codec::append_frame(&mut bytes, Kind::Welcome, &welcome());
    let events = wire::Events { events: vec![event(1, 1)], head: 0 };
    starling_client::codec::append_frame(&mut bytes, Kind::Events, &events);
    for cut in 0..bytes.len() {
        let mut desk = Desk::new();
        desk.open();
        desk.session.receive(0, &bytes[..cut]);
        desk.session.receive(0, &bytes[cut..]);
        assert_eq!(desk.session.cursor(), place_of(1, 1));
    }
}

#[test]
fn a_winner_with_a_number_never_used_here_stops_the_session_until_it_is_started_again() {
    let mut desk = Desk::live();
    desk.give(Kind::Close, &wire::Close { winner_connect_no: 9, ..close(ErrorCode::Replaced) });
    assert_eq!(desk.session.wish(), Wish::Close);
    assert!(desk.events().contains(&Event::Stopped(StopReason::Replaced { winner: 9 })));
    assert_eq!(Desk::with(desk.session.into_store()).open().connect_no, 10);
}

#[test]
fn a_winner_that_is_this_device_itself_is_no_reason_to_stop() {
    let mut desk = Desk::live();
    desk.give(Kind::Close, &wire::Close { winner_connect_no: 1, ..close(ErrorCode::Replaced) });
    assert!(desk.is_offline());
}

#[test]
fn a_token_that_is_not_taken_needs_a_login_whether_closed_or_refused() {
    for code in [ErrorCode::TokenExpired, ErrorCode::TokenRevoked, ErrorCode::TokenForged] {
        let mut desk = Desk::new();
        desk.open();
        desk.give(Kind::Close, &close(code));
        assert_eq!(desk.session.wish(), Wish::Close);

        let mut desk = Desk::new();
        desk.open();
        desk.give(Kind::Refused, &wire::Refused { code: code as u32, ..Default::default() });
        let events = desk.events();
        let Some(Event::Stopped(StopReason::LoginNeeded(refusal))) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!(refusal.code(), Some(code));
    }
    let mut desk = Desk::new();
    desk.open();
    desk.give(Kind::Close, &close(ErrorCode::VersionUnsupported));
    assert!(desk.events().contains(&Event::Stopped(StopReason::Version)));
}

#[test]
fn a_server_that_asks_for_time_gets_it_and_is_tried_again_for_ever() {
    let mut desk = Desk::new();
    for _ in 0..200 {
        desk.open();
        let busy = wire::Close { retry_after_ms: 9_000, ..close(ErrorCode::Overload) };
        desk.give(Kind::Close, &busy);
        let Wish::OpenAt(at_ms) = desk.session.wish() else { panic!("gave up") };
        assert!((9_000..=9_000 + 30_000).contains(&(at_ms - desk.now_ms)));
    }
    for _ in 0..200 {
        desk.lose_link();
        let Wish::OpenAt(at_ms) = desk.session.wish() else { panic!("gave up") };
        assert!(at_ms - desk.now_ms <= 30_000);
    }
}

#[test]
fn a_hello_without_an_answer_is_given_up_after_ten_seconds() {
    let mut desk = Desk::new();
    desk.open();
    assert_eq!(desk.session.next_deadline(), Some(desk.now_ms + 10_000));
    desk.wait(9_999);
    assert_eq!(desk.session.wish(), Wish::Keep);
    desk.wait(1);
    assert!(desk.is_offline());
}

#[test]
fn a_live_session_beats_and_notices_a_server_that_does_not() {
    let mut desk = Desk::live();
    for _ in 0..5 {
        desk.wait(30_000);
        assert_eq!(kinds(&desk.sent()), [Kind::Ping]);
        desk.session.receive(desk.now_ms, &[1, Kind::Pong as u8]);
    }
    // 1.5 heartbeats of silence.
    desk.wait(30_000);
    desk.wait(14_999);
    assert!(desk.session.is_live());
    assert_eq!(desk.session.next_deadline(), Some(desk.now_ms + 1));
    desk.wait(1);
    assert!(desk.is_offline());
}

#[test]
fn a_ping_is_answered() {
    let mut desk = Desk::live();
    desk.session.receive(desk.now_ms, &[1, Kind::Ping as u8]);
    assert_eq!(kinds(&desk.sent()), [Kind::Pong]);
}

#[test]
fn what_is_not_the_protocol_is_left_and_tried_again() {
    for bytes in [&[0x80, 0x80, 0x80, 0x80, 0x01][..], &[0], &[2, Kind::Welcome as u8, 0xFF]] {
        let mut desk = Desk::new();
        desk.open();
        desk.session.receive(desk.now_ms, bytes);
        assert!(desk.is_offline(), "{bytes:?}");
    }
    // A second WELCOME, and a compressed frame, which was never agreed upon.
    let mut desk = Desk::live();
    desk.give(Kind::Welcome, &welcome());
    assert!(desk.is_offline());
    let mut desk = Desk::live();
    desk.session.receive(desk.now_ms, &[1, Kind::Pong as u8 | Kind::COMPRESSED]);
    assert!(desk.is_offline());
}

#[test]
fn a_kind_of_a_later_version_is_skipped() {
    let mut desk = Desk::live();
    desk.session.receive(desk.now_ms, &[3, 0x7F, 1, 2]);
    assert!(desk.session.is_live());
}

#[test]
fn a_token_is_exchanged_at_half_its_life_and_the_fresh_one_is_kept() {
    let mut desk = Desk::live();
    assert!(desk.sent().is_empty());
    let reconnect = wire::Welcome { time_ms: SERVER_MS + LIFE_MS / 2, ..welcome() };
    desk.lose_link();
    let sent = desk.come_online(reconnect);
    assert_eq!(kinds(&sent), [Kind::Refresh]);
    let grant = wire::Grant {
        request_id: sent[0].read::<wire::Refresh>().request_id,
        user: ME.0,
        device: DEVICE.0,
        token: bytes::Bytes::from_static(b"fresh"),
        expires_ms: SERVER_MS + LIFE_MS / 2 + 60_000,
        ..Default::default()
    };
    desk.give(Kind::Grant, &grant);
    // In a live session the next one is asked for when half of a minute is over.
    assert!(desk.session.next_deadline() <= Some(desk.now_ms + 30_000));
    desk.session.receive(desk.now_ms + 29_000, &[1, Kind::Pong as u8]);
    desk.wait(30_000);
    assert!(kinds(&desk.sent()).contains(&Kind::Refresh));
    // The app sees nothing of it, the next HELLO does.
    assert!(!desk.events().iter().any(|event| matches!(event, Event::Answered { .. })));
    desk.lose_link();
    assert_eq!(&desk.open().token[..], b"fresh");
    let saved = desk.session.into_store().load().unwrap();
    assert_eq!(saved.identity.map(|identity| identity.name).as_deref(), Some("ada"));
}

#[test]
fn a_server_whose_clock_was_set_back_is_not_asked_for_one_token_after_another() {
    let mut desk = Desk::live();
    desk.lose_link();
    let reconnect = wire::Welcome { time_ms: SERVER_MS + LIFE_MS / 2, ..welcome() };
    let sent = desk.come_online(reconnect);
    let grant = wire::Grant {
        request_id: sent[0].read::<wire::Refresh>().request_id,
        user: ME.0,
        device: DEVICE.0,
        token: bytes::Bytes::from_static(b"fresh"),
        // By the clock that WELCOME told of, it is worn out.
        expires_ms: SERVER_MS,
        ..Default::default()
    };
    desk.give(Kind::Grant, &grant);
    desk.wait(1);
    assert_eq!(kinds(&desk.sent()), []);
    assert!(desk.session.next_deadline() > Some(desk.now_ms));
    desk.wait(10_000);
    assert!(kinds(&desk.sent()).contains(&Kind::Refresh));
}

#[test]
fn a_goodbye_acknowledges_what_was_read() {
    let mut desk = Desk::live();
    desk.give_events([event(1, 1)]);
    desk.session.close();
    assert_eq!(kinds(&desk.sent()), [Kind::Ack, Kind::Dishello]);
    assert_eq!(desk.session.wish(), Wish::Close);
}
