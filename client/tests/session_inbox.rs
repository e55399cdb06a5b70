//! The one rule for events, the acknowledgement of the cursor, REWIND and RESET.

mod support;

use starling_client::{
    Change, EntryState, Event, MemoryStore, Saved, StopReason, Store, StoreError, Unsent,
    codec::{DeviceId, Kind, Nonce, Place, UserId, wire},
};
use support::*;

fn applied(events: &[Event]) -> Vec<u64> {
    let seqs = events.iter().filter_map(|event| match event {
        Event::Applied(event) => Some(event.seq),
        _ => None,
    });
    seqs.collect()
}

#[test]
fn what_joins_on_is_applied_and_what_is_known_is_dropped() {
    let mut desk = Desk::live();
    desk.give_events([event(1, 1), event(2, 1)]);
    desk.give_events([event(1, 1), event(2, 1), event(3, 1)]);
    assert_eq!(applied(&desk.events()), [1, 2, 3]);
    assert_eq!(desk.session.cursor(), place_of(3, 1));
    assert_eq!(desk.session.store().saved().cursor, place_of(3, 1));
}

#[test]
fn numbers_may_have_holes_where_prev_says_so() {
    let mut desk = Desk::live();
    desk.give_events([event(1, 1), wire::Event { prev: 1, ..event(5, 2) }]);
    assert_eq!(desk.session.cursor(), place_of(5, 2));
}

#[test]
fn a_gap_is_asked_for_once() {
    let mut desk = Desk::live();
    desk.give_events([event(1, 1), event(3, 1), event(4, 1)]);
    let sent = desk.sent();
    assert_eq!(kinds(&sent), [Kind::Sync]);
    assert_eq!(sent[0].read::<wire::Sync>().after, Some(place(1, 1)));
    desk.give_events([event(5, 1)]);
    assert!(desk.sent().is_empty());
    desk.give_events([event(2, 1), event(3, 1), event(4, 1), event(5, 1)]);
    assert_eq!(applied(&desk.events()), [1, 2, 3, 4, 5]);
    // The next gap is another one.
    desk.give_events([event(7, 1)]);
    assert_eq!(kinds(&desk.sent()), [Kind::Sync]);
}

#[test]
fn a_gap_that_is_never_filled_ends_the_connection() {
    let mut desk = Desk::live();
    desk.give_events([event(3, 1)]);
    for _ in 0..44 {
        desk.session.receive(desk.now_ms, &[1, Kind::Pong as u8]);
        desk.wait(1_000);
    }
    assert!(desk.session.is_live());
    desk.wait(1_000);
    assert!(desk.is_offline());
}

#[test]
fn anything_else_is_not_to_be_trusted() {
    let mut desk = Desk::live();
    desk.give_events([event(1, 1), event(2, 1), wire::Event { prev: 1, ..event(4, 1) }]);
    assert!(desk.is_offline());
    assert_eq!(desk.session.cursor(), place_of(2, 1));
}

#[test]
fn an_event_of_a_later_version_moves_the_cursor_all_the_same() {
    let mut desk = Desk::live();
    desk.give_events([wire::Event { kind: None, ..event(1, 1) }, event(2, 1)]);
    assert_eq!(desk.session.cursor(), place_of(2, 1));
}

#[test]
fn the_cursor_is_acknowledged_after_a_second() {
    let mut desk = Desk::live();
    desk.give_events([event(1, 1)]);
    desk.wait(500);
    desk.give_events([event(2, 1)]);
    assert!(desk.sent().is_empty());
    assert_eq!(desk.session.next_deadline(), Some(desk.now_ms + 500));
    desk.wait(500);
    let sent = desk.sent();
    assert_eq!(kinds(&sent), [Kind::Ack]);
    assert_eq!(sent[0].read::<wire::Ack>().cursor, Some(place(2, 1)));
    desk.wait(5_000);
    assert!(desk.sent().is_empty());
}

#[test]
fn the_cursor_is_acknowledged_after_32_events() {
    let mut desk = Desk::live();
    desk.give_events((1..32).map(|seq| event(seq, 1)));
    assert!(desk.sent().is_empty());
    desk.give_events([event(32, 1)]);
    assert_eq!(kinds(&desk.sent()), [Kind::Ack]);
}

/// With large events the window was used up long before 32 of them, and catching up then waited
/// for the second to pass, again and again.
#[test]
fn the_cursor_is_acknowledged_before_the_window_is_used_up() {
    let mut desk = Desk::live();
    let large = |seq| {
        let mut large = event(seq, 1);
        if let Some(wire::event::Kind::Message(message)) = &mut large.kind {
            message.content = vec![7; 30 * 1_024].into();
        }
        large
    };
    desk.give_events((1..=2).map(large));
    assert!(desk.sent().is_empty());
    desk.give_events([large(3)]);
    assert_eq!(kinds(&desk.sent()), [Kind::Ack], "of a window of 256 KiB a quarter is used");
}

#[test]
fn the_cursor_rides_before_a_message() {
    let mut desk = Desk::live();
    desk.give_events([event(1, 1)]);
    desk.send(11);
    assert_eq!(kinds(&desk.sent()), [Kind::Ack, Kind::Send]);
    desk.wait(1_000);
    assert!(desk.sent().is_empty());
}

#[test]
fn nothing_is_acknowledged_while_the_app_does_not_keep_up() {
    let mut desk = Desk::live();
    desk.session.set_keeping_up(false);
    desk.give_events((1..=40).map(|seq| event(seq, 1)));
    desk.wait(1_000);
    desk.send(11);
    assert_eq!(kinds(&desk.sent()), [Kind::Send]);
    assert!(desk.session.next_deadline() > Some(desk.now_ms), "nothing is due at once");
    desk.session.set_keeping_up(true);
    let sent = desk.sent();
    assert_eq!(kinds(&sent), [Kind::Ack]);
    assert_eq!(sent[0].read::<wire::Ack>().cursor, Some(place(40, 1)));
}

#[test]
fn a_rewind_takes_back_what_is_above_and_gives_own_messages_to_the_app() {
    let mut desk = Desk::live();
    desk.send(11);
    desk.send(12);
    desk.give_events([event(1, 1), own_event(2, 1, 1, 11), event(3, 1)]);
    desk.give(Kind::SendAck, &ack(2, 4, 1));
    desk.events();
    desk.lose_link();

    let rewound = wire::Welcome {
        epoch: 2,
        tag: 0xA2,
        resumed: false,
        rewind: Some(place(1, 1)),
        head: Some(place(1, 1)),
        ..welcome()
    };
    desk.come_online(rewound);
    let events = desk.events();
    assert!(events.contains(&Event::Rewound(place_of(1, 1))));
    let unsent = events.iter().filter_map(|event| match event {
        Event::Unsent(entry) => Some((entry.nonce, entry.state)),
        _ => None,
    });
    let lost = EntryState::Unsent(Unsent::Lost);
    assert_eq!(unsent.collect::<Vec<_>>(), [(Nonce(12), lost), (Nonce(11), lost)]);
    assert_eq!(desk.session.store().events().keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(desk.session.cursor(), place_of(1, 1));

    // Nothing sends them but the app, and they stay until it took them.
    assert!(desk.sent_numbers().is_empty());
    let mut desk = Desk::with(desk.session.into_store());
    assert_eq!(desk.session.unsent().count(), 2);
    desk.session.discard(Nonce(11));
    desk.session.discard(Nonce(12));
    desk.send(13);
    let again = wire::Welcome { window: window([]), ..welcome() };
    assert_eq!(numbers(&desk.come_online(again)), [3]);
    // The same seq of another epoch is another event.
    desk.give_events([event(2, 2)]);
    assert_eq!(desk.session.cursor(), place_of(2, 2));
    assert_eq!(desk.session.store().saved().outbox.len(), 1);
}

#[test]
fn a_rewind_above_the_cursor_leaves_the_cursor() {
    let mut desk = Desk::live();
    desk.give_events([event(1, 1)]);
    desk.give(Kind::SendAck, &ack(77, 9, 1));
    desk.lose_link();
    desk.come_online(wire::Welcome { rewind: Some(place(5, 1)), ..welcome() });
    assert_eq!(desk.session.cursor(), place_of(1, 1));
    desk.lose_link();
    assert_eq!(desk.open().highest, Some(place(5, 1)));
}

#[test]
fn a_reset_forgets_all_but_the_outbox() {
    let mut desk = Desk::live();
    desk.send(11);
    desk.send(12);
    desk.give_events([event(1, 1), own_event(2, 1, 1, 11)]);
    desk.give(Kind::SendAck, &ack(2, 3, 1));
    desk.lose_link();
    desk.events();

    let restored = wire::Welcome { tag: 0xB0, reset: true, resumed: false, ..welcome() };
    let sent = desk.come_online(restored);
    assert_eq!(desk.session.cursor(), place_of(0, 0));
    assert!(desk.session.store().events().is_empty());
    assert!(desk.events().contains(&Event::Reset));
    // What the backup acknowledged and lacks is sent once more, under its own name.
    assert_eq!(numbers(&sent), [2]);
    assert_eq!(sent[0].read::<wire::Send>().nonce, 12);
}

/// A store that fails from some commit on.
struct Failing {
    inner: MemoryStore,
    commits_left: usize,
}

impl Store for Failing {
    fn load(&mut self) -> Result<Saved, StoreError> {
        self.inner.load()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.commits_left =
            self.commits_left.checked_sub(1).ok_or_else(|| StoreError::new("no room"))?;
        self.inner.commit(changes)
    }

    fn own_above(
        &mut self,
        place: Place,
        user: UserId,
        device: DeviceId,
    ) -> Result<Vec<wire::Message>, StoreError> {
        self.inner.own_above(place, user, device)
    }
}

#[test]
fn a_store_that_fails_stops_the_session_before_anything_is_told_or_sent() {
    let mut desk = Desk::with(Failing { inner: store(), commits_left: 2 });
    desk.come_online(welcome());
    desk.events();
    desk.give_events((1..=40).map(|seq| event(seq, 1)));
    assert!(desk.sent().is_empty());
    let events = desk.events();
    assert!(matches!(&events[..], [Event::Stopped(StopReason::Store(_))]), "{events:?}");
    assert_eq!(desk.session.store().inner.saved().cursor, place_of(0, 0));

    let mut desk = Desk::with(Failing { inner: store(), commits_left: 0 });
    desk.session.opened(0);
    assert!(desk.sent().is_empty(), "a HELLO whose number is not kept");
    let mut desk = Desk::with(Failing { inner: store(), commits_left: 2 });
    desk.come_online(welcome());
    assert!(desk.session.send(0, Nonce(1), text("hello")).is_err());
    assert!(desk.sent().is_empty(), "a message that is not kept");
}
