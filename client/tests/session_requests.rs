//! Requests, and what becomes of them when the connection is lost.

mod support;

use starling_client::{
    Answer, Event, Page, Peer, Request, RequestError, StopReason, Wish,
    codec::{
        ErrorCode, Kind, UserId,
        wire::{self, history::Start},
    },
};
use support::*;

fn answers(events: &[Event]) -> Vec<(u32, Result<Answer, RequestError>)> {
    let answers = events.iter().filter_map(|event| match event {
        Event::Answered { request_id, result } => Some((*request_id, result.clone())),
        _ => None,
    });
    answers.collect()
}

fn ask(desk: &mut Desk, request: Request) -> u32 {
    desk.session.request(desk.now_ms, request).unwrap()
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let mut desk = Desk::live();
    let first = ask(&mut desk, Request::Resolve("bob".into()));
    let second = ask(&mut desk, Request::NameOf(BOB));
    assert_eq!(kinds(&desk.sent()), [Kind::Resolve, Kind::Resolve]);
    for request_id in [second, first] {
        let resolved = wire::Resolved { request_id, user: 2, name: "bob".into() };
        desk.give(Kind::Resolved, &resolved);
    }
    let user = Answer::User { user: UserId(2), name: "bob".into() };
    assert_eq!(answers(&desk.events()), [(second, Ok(user.clone())), (first, Ok(user))]);
}

#[test]
fn a_page_of_history_names_a_place_that_is_remembered() {
    let mut desk = Desk::live();
    let page = Request::History { of: Peer::User(BOB), page: Page::Before(9), limit: 20 };
    let request_id = ask(&mut desk, page);
    let asked: wire::History = desk.sent()[0].read();
    assert_eq!((asked.start, asked.limit), (Some(Start::BeforeSeq(9)), 20));
    let page = wire::HistoryPage { request_id, head: Some(place(8, 1)), ..Default::default() };
    desk.give(Kind::HistoryPage, &page);
    assert_eq!(answers(&desk.events()), [(request_id, Ok(Answer::History(page)))]);
    desk.lose_link();
    assert_eq!(desk.open().highest, Some(place(8, 1)));
}

#[test]
fn a_page_from_the_first_message_is_not_the_newest_page() {
    let mut desk = Desk::live();
    for (page, start) in [(Page::Newest, None), (Page::After(0), Some(Start::AfterSeq(0)))] {
        ask(&mut desk, Request::History { of: Peer::User(BOB), page, limit: 20 });
        let asked: wire::History = desk.sent()[0].read();
        assert_eq!(asked.start, start);
    }
}

#[test]
fn a_refusal_is_an_answer() {
    let mut desk = Desk::live();
    let request_id = ask(&mut desk, Request::Resolve("nobody".into()));
    let code = ErrorCode::UnknownUser as u32;
    desk.give(Kind::Refused, &wire::Refused { request_id, code, retry_after_ms: 0 });
    let [(_, Err(RequestError::Refused(refusal)))] = answers(&desk.events())[..] else { panic!() };
    assert_eq!((refusal.name(), refusal.retryable()), ("UNKNOWN_USER", false));
}

#[test]
fn what_may_be_repeated_is_asked_again_and_what_may_not_is_lost() {
    let mut desk = Desk::live();
    let kept = ask(&mut desk, Request::Resolve("bob".into()));
    let change = Request::ChangePassword { old: "old".into(), new: "new".into() };
    let lost = ask(&mut desk, change);
    desk.lose_link();
    assert_eq!(answers(&desk.events()), [(lost, Err(RequestError::Lost))]);
    let sent = desk.come_online(welcome());
    assert_eq!(kinds(&sent), [Kind::Resolve]);
    assert_eq!(sent[0].read::<wire::Resolve>().request_id, kept);
}

#[test]
fn sixteen_requests_are_under_way_and_the_others_wait() {
    let mut desk = Desk::live();
    let ids: Vec<u32> = (0..20).map(|_| ask(&mut desk, Request::NameOf(BOB))).collect();
    assert_eq!(desk.sent().len(), 16);
    desk.give(Kind::Resolved, &wire::Resolved { request_id: ids[3], ..Default::default() });
    let sent = desk.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].read::<wire::Resolve>().request_id, ids[16]);
    for _ in 20..257 {
        ask(&mut desk, Request::NameOf(BOB));
    }
    let busy = desk.session.request(desk.now_ms, Request::NameOf(BOB));
    assert_eq!(busy, Err(RequestError::Busy));
}

#[test]
fn a_logout_forgets_the_token_however_it_is_answered() {
    for by_close in [false, true] {
        let mut desk = Desk::live();
        let request_id = ask(&mut desk, Request::Logout);
        if by_close {
            let code = ErrorCode::LoggedOut as u32;
            desk.give(Kind::Close, &wire::Close { code, ..Default::default() });
        } else {
            desk.give(Kind::Done, &wire::Done { request_id });
        }
        let events = desk.events();
        assert_eq!(answers(&events), [(request_id, Ok(Answer::Done))]);
        assert_eq!(events.last(), Some(&Event::Stopped(StopReason::LoggedOut)));
        assert_eq!(desk.session.wish(), Wish::Close);
        let identity = desk.session.store().saved().identity.clone();
        assert!(!identity.unwrap().is_logged_in());
    }
}

#[test]
fn a_changed_password_brings_a_token() {
    let mut desk = Desk::live();
    let change = Request::ChangePassword { old: "old".into(), new: "new".into() };
    let request_id = ask(&mut desk, change);
    let grant = wire::Grant {
        request_id,
        user: ME.0,
        device: DEVICE.0,
        token: bytes::Bytes::from_static(b"fresh"),
        expires_ms: SERVER_MS + 2 * LIFE_MS,
        ..Default::default()
    };
    desk.give(Kind::Grant, &grant);
    assert_eq!(answers(&desk.events()), [(request_id, Ok(Answer::Done))]);
    desk.lose_link();
    assert_eq!(&desk.open().token[..], b"fresh");
}
