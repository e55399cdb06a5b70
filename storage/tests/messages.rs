//! Messages on both backends: ordered, answered once, delivered, and found again.

mod common;

use common::{Home, Running, Send, accepted, on_each, refused};
use starling_codec::{
    Answer, ConversationId, Epoch, ErrorCode, PageDirection, Place, Query, Resumption, SendNo,
    UserId,
    wire::{Class, Event, event::Kind},
};
use starling_storage::{Family, Rows};

const ADA: UserId = UserId(1);
const BOB: UserId = UserId(2);

fn open(home: &Home) -> Running {
    let mut store = home.open();
    store.users(&["ada", "bob", "cy"]);
    store
}

fn message(event: &Event) -> &starling_codec::wire::Message {
    match &event.kind {
        Some(Kind::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_is_answered_delivered_and_found_again() {
    on_each(|home| {
        let mut store = open(home);
        let first = store.sent(Send::new(ADA, BOB, 1));
        let second = store.sent(Send::new(BOB, ADA, 1).buffered());
        let conversation = ConversationId::direct(ADA, BOB);
        let epoch = store.handle.epoch();
        assert_eq!((first.conversation, first.seq), (conversation, 1));
        assert_eq!((second.seq, second.class), (2, Class::Buffered));
        assert_eq!(first.place, Place::new(1, epoch));
        assert_eq!(second.place, Place::new(2, epoch));

        // What was pushed live is what is read later, to the byte; only the sender sees the nonce.
        for user in [ADA, BOB] {
            let live = store.deliveries.iter().filter(|delivery| delivery.user == user);
            let live: Vec<Event> = live.flat_map(|delivery| delivery.events.clone()).collect();
            let (read, head) = store.inbox(user, 0);
            assert_eq!(read, live);
            assert_eq!(head, Place::new(2, epoch));
            let nonces = read.iter().map(|event| message(event).nonce);
            let own = |sender: UserId| if sender == user { 1_000 } else { 0 };
            assert!(nonces.eq([own(ADA), own(BOB)]));
        }
        let page = store.history(conversation, ADA, PageDirection::Before(u64::MAX), 10);
        assert_eq!(page.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(page.messages[0].content, "1 to 2: 1/1");
        assert_eq!(page.messages[0].time_ms, first.id.time_ms());
        assert_eq!((page.more, page.head), (false, Place::new(2, epoch)));
        store.close();
    });
}

#[test]
fn a_message_to_oneself_is_one_event() {
    on_each(|home| {
        let mut store = open(home);
        let sent = store.sent(Send::new(ADA, ADA, 1));
        let (events, head) = store.inbox(ADA, 0);
        assert_eq!((events.len(), head), (1, sent.place));
        assert_eq!(message(&events[0]).nonce, 1_000);
        store.close();
    });
}

#[test]
fn a_repeat_gets_the_first_answer_and_writes_nothing() {
    on_each(|home| {
        let mut store = open(home);
        let mut first = Vec::new();
        for send_no in 1..=40 {
            first.push(store.sent(Send::new(ADA, BOB, send_no)));
        }
        // In one batch, too: each number once more, and a new one twice.
        let repeat = |store: &mut Running| {
            let again: Vec<u64> = (1..=40)
                .map(|send_no| {
                    let command = store.append(Send::new(ADA, BOB, send_no));
                    store.queue(command)
                })
                .collect();
            store.handle.wake();
            again.into_iter().map(|key| accepted(store.outcome(key))).collect::<Vec<_>>()
        };
        assert_eq!(repeat(&mut store), first);
        let twice: Vec<u64> = (0..2)
            .map(|_| {
                let command = store.append(Send::new(ADA, BOB, 41));
                store.queue(command)
            })
            .collect();
        store.handle.wake();
        let [one, other] = [twice[0], twice[1]].map(|key| accepted(store.outcome(key)));
        assert_eq!(one, other);
        assert_eq!(store.inbox(BOB, 0).1.seq, 41);
        // After a restart the same.
        store.close();
        let mut store = home.open();
        assert_eq!(repeat(&mut store), first);
        assert_eq!(store.sent(Send::new(ADA, BOB, 42)).seq, 42);
        store.close();
    });
}

#[test]
fn another_nonce_conflicts_and_below_the_window_nothing_is_known() {
    on_each(|home| {
        let mut store = open(home);
        for send_no in 1..=66 {
            store.sent(Send::new(ADA, BOB, send_no));
        }
        let conflict = refused(store.send(Send::new(ADA, BOB, 66).nonce(7)));
        assert_eq!(conflict, ErrorCode::SendConflict);
        assert_eq!(refused(store.send(Send::new(ADA, BOB, 2).nonce(7))), ErrorCode::SendConflict);
        assert_eq!(refused(store.send(Send::new(ADA, BOB, 1))), ErrorCode::SendStale);
        // Another device of the user has numbers of its own.
        assert_eq!(store.sent(Send::new(ADA, BOB, 1).device(2)).seq, 67);
        assert_eq!(store.inbox(BOB, 0).1.seq, 67);
        store.close();
    });
}

#[test]
fn a_window_outlives_restarts_at_any_number_of_sends() {
    on_each(|home| {
        let mut store = open(home);
        let mut next = 1;
        for sends in [1, 63, 64, 65, 130, 2] {
            for _ in 0..sends {
                store.sent(Send::new(ADA, BOB, next));
                store.sent(Send::new(ADA, BOB, next + 100_000).device(2));
                next += 1;
            }
            let before = store.fresh_device(ADA, 1).window;
            assert_eq!(before.highest(), SendNo(next - 1));
            store.close();
            store = home.open();
            assert_eq!(store.fresh_device(ADA, 1).window, before);
            let repeated = store.send(Send::new(ADA, BOB, next - 1));
            assert_eq!(accepted(repeated).send_no, SendNo(next - 1));
        }
        store.close();
    });
}

#[test]
fn a_replicated_message_is_refused_on_one_node() {
    on_each(|home| {
        let mut store = open(home);
        let send = Send { class: Class::Replicated, ..Send::new(ADA, BOB, 1) };
        assert_eq!(refused(store.send(send)), ErrorCode::ClassUnavailable);
        // The number is still free.
        assert_eq!(store.sent(Send::new(ADA, BOB, 1)).seq, 1);
        store.close();
    });
}

#[test]
fn an_inbox_is_read_from_anywhere_in_pages_of_any_size() {
    on_each(|home| {
        let mut store = open(home);
        // Rows of many events: queued while the committer cannot take them one by one.
        let mut keys = Vec::new();
        for send_no in 1..=300 {
            let command = store.append(Send::new(ADA, BOB, send_no).buffered());
            keys.push(store.queue(command));
        }
        store.handle.wake();
        for key in keys {
            accepted(store.outcome(key));
        }
        let (all, head) = store.inbox(BOB, 0);
        assert!(all.iter().map(|event| event.seq).eq(1..=300));
        assert_eq!(head.seq, 300);
        for (after, max_events) in
            [(0, 1), (0, 7), (5, 300), (299, 3), (300, 3), (400, 3), (17, 256)]
        {
            let (page, _) = store.inbox_page(BOB, after, max_events, 1 << 30);
            let expected = all.iter().skip(after as usize).take(max_events);
            assert!(page.iter().eq(expected), "{max_events} after {after}");
        }
        // Room for none still brings one, so that a reader gets on.
        assert_eq!(store.inbox_page(BOB, 9, 100, 1).0, all[9..10]);
        let bytes = prost::Message::encoded_len(&all[0]);
        let (page, _) = store.inbox_page(BOB, 0, 100, bytes * 3);
        assert_eq!(page, all[..3]);
        store.close();
    });
}

#[test]
fn an_inbox_of_several_conversations_is_read_in_its_order() {
    const CY: UserId = UserId(3);
    on_each(|home| {
        let mut store = open(home);
        for send_no in 1..=20 {
            for (from, to) in [(ADA, BOB), (BOB, CY), (CY, BOB)] {
                store.sent(Send::new(from, to, send_no).buffered());
            }
            // Beside them, so that ranges are seen to end.
            store.sent(Send::new(ADA, CY, send_no).device(2).buffered());
        }
        let (all, _) = store.inbox(BOB, 0);
        assert!(all.iter().map(|event| event.seq).eq(1..=60));
        let told = all.iter().map(message).map(|message| (message.sender, message.seq));
        let of_turn = |turn| [(ADA.0, turn), (BOB.0, 2 * turn - 1), (CY.0, 2 * turn)];
        assert!(told.eq((1..=20).flat_map(of_turn)));
        assert_eq!(store.inbox_page(BOB, 7, 11, 1 << 30).0, all[7..18]);
        store.close();
    });
}

/// Bodies are read for 256 events at once.
#[test]
fn an_inbox_goes_on_where_a_row_ends_with_what_is_read_at_once() {
    on_each(|home| {
        let mut store = open(home);
        for send_no in 1..=260 {
            store.sent(Send::new(ADA, BOB, send_no).buffered());
        }
        let (all, head) = store.inbox(BOB, 0);
        assert!(all.iter().map(|event| event.seq).eq(1..=260));
        assert_eq!(head.seq, 260);
        for (max_events, reaches) in [(255, 255..=260), (256, 256..=260), (300, 260..=260)] {
            let (page, head) = store.inbox_page(BOB, 0, max_events, 1 << 30);
            assert_eq!(page, all[..max_events.min(260)]);
            assert!(reaches.contains(&head.seq), "{head:?}");
        }
        store.close();
    });
}

#[test]
fn history_is_paged_both_ways() {
    on_each(|home| {
        let mut store = open(home);
        let conversation = ConversationId::direct(ADA, BOB);
        let empty = store.history(conversation, ADA, PageDirection::Before(u64::MAX), 10);
        assert_eq!((empty.messages.len(), empty.more), (0, false));
        for send_no in 1..=25 {
            store.sent(Send::new(ADA, BOB, send_no).buffered());
            // Beside it, so that ranges are seen to end.
            store.sent(Send::new(ADA, UserId(3), send_no).device(2).buffered());
        }
        let mut page = |direction, limit| {
            let page = store.history(conversation, BOB, direction, limit);
            (page.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), page.more)
        };
        assert_eq!(page(PageDirection::Before(u64::MAX), 3), (vec![23, 24, 25], true));
        assert_eq!(page(PageDirection::Before(4), 3), (vec![1, 2, 3], false));
        assert_eq!(page(PageDirection::Before(5), 3), (vec![2, 3, 4], true));
        assert_eq!(page(PageDirection::Before(1), 3), (vec![], false));
        assert_eq!(page(PageDirection::After(0), 2), (vec![1, 2], true));
        assert_eq!(page(PageDirection::After(22), 3), (vec![23, 24, 25], false));
        assert_eq!(page(PageDirection::After(25), 3), (vec![], false));
        store.close();
    });
}

#[test]
fn a_client_goes_on_or_is_told_what_was_lost() {
    on_each(|home| {
        let mut store = open(home);
        let (epoch, tag) = (store.handle.epoch(), store.handle.tag());
        let last = store.sent(Send::new(ADA, BOB, 1)).place;
        let ask = |store: &mut Running, highest, epoch, tag| {
            store.device(ADA, 1, (highest, epoch, tag)).resumption
        };
        assert_eq!(ask(&mut store, Place::START, Epoch(0), tag), Resumption::Continues);
        assert_eq!(ask(&mut store, last, epoch, tag), Resumption::Continues);
        let lost = Place::new(last.seq + 1, epoch);
        assert_eq!(ask(&mut store, lost, epoch, tag), Resumption::Rewind(last));
        let other = starling_codec::EpochTag(tag.0 ^ 1);
        assert_eq!(ask(&mut store, last, epoch, other), Resumption::Reset);
        assert_eq!(ask(&mut store, last, Epoch(epoch.0 + 1), tag), Resumption::Reset);
        store.close();

        // In the next epoch the place that was lost is another event.
        let mut store = home.open();
        for send_no in 2..=9 {
            store.sent(Send::new(ADA, BOB, send_no));
        }
        assert_eq!(store.handle.epoch(), Epoch(epoch.0 + 1));
        assert_eq!(ask(&mut store, last, epoch, tag), Resumption::Continues);
        assert_eq!(ask(&mut store, lost, epoch, tag), Resumption::Rewind(last));
        let state = store.device(ADA, 1, (last, epoch, tag));
        assert_eq!((state.epoch, state.tag), (store.handle.epoch(), store.handle.tag()));
        assert_eq!(state.head, Place::new(9, store.handle.epoch()));
        store.close();
    });
}

/// As the store of a later version has it, or of this one once it knows more kinds.
#[test]
fn an_event_of_a_kind_that_is_not_known_here_reaches_its_reader_whole() {
    on_each(|home| {
        let mut store = open(home);
        store.sent(Send::new(BOB, ADA, 1));
        let epoch = store.handle.epoch();
        store.close();
        // Field 99 of an event, which no version has: three bytes.
        let event = [0x9a, 0x06, 3, b'n', b'e', b'w'];
        let mut row = vec![epoch.0 as u8, 1, 2, event.len() as u8];
        row.extend(event);
        let key = [1_u64.to_be_bytes(), (!2_u64).to_be_bytes()].concat();
        let mut rows = Rows::default();
        rows.put(Family::Inbox, &key, |out| out.extend_from_slice(&row));
        home.backend().write(&rows).unwrap();

        let mut store = home.open();
        let sent = store.sent(Send::new(ADA, BOB, 1));
        assert_eq!(sent.place.seq, 3);
        let query = Query::Inbox { user: ADA, after_seq: 1, max_events: 2, max_bytes: 1 << 20 };
        let Answer::Events { events, head } = store.ask(query) else { panic!("no events") };
        assert_eq!((events.len(), head), (2, sent.place));
        assert_eq!((events[0].place, events[0].message), (Place::new(2, epoch), None));
        let field = events.field(0);
        assert!(field.ends_with(&event), "{field:02x?}");
        // A client that does not know it either sees an event that tells it nothing.
        let [unknown, own] = &events.decode()[..] else { panic!("two events") };
        assert_eq!((unknown.seq, unknown.epoch, &unknown.kind), (2, epoch.0, &None));
        assert_eq!(message(own).seq, 2);
        // Nothing else minds it.
        assert_eq!(store.fresh_device(ADA, 1).head, sent.place);
        store.close();
    });
}

#[test]
fn a_cursor_is_kept_and_the_sender_hears_of_it() {
    on_each(|home| {
        let mut store = open(home);
        let conversation = ConversationId::direct(ADA, BOB);
        store.sent(Send::new(ADA, BOB, 1));
        let place = store.sent(Send::new(ADA, BOB, 2)).place;
        store.advance(BOB, place, &[(conversation, 2)]);
        // Going back changes nothing.
        store.advance(BOB, Place::new(1, place.epoch), &[]);
        let state = store.fresh_device(BOB, 1);
        assert_eq!((state.cursor, state.passed_seq), (place, place.seq));
        let (events, _) = store.inbox(ADA, 2);
        let Some(Kind::Delivered(delivered)) = &events[0].kind else { panic!("{events:?}") };
        assert_eq!((delivered.user, delivered.seq), (BOB.0, 2));
        assert_eq!(delivered.conversation, conversation.0);
        assert_eq!(store.deliveries.last().unwrap().events, events);
        // Bob hears nothing of his own cursor.
        assert_eq!(store.inbox(BOB, 0).1.seq, 2);
        store.close();
        // A restart keeps both, and a receipt counts as an event like any other.
        let mut store = home.open();
        assert_eq!(store.fresh_device(BOB, 1).cursor, place);
        assert_eq!(store.sent(Send::new(BOB, ADA, 1)).seq, 3);
        assert_eq!(store.inbox(ADA, 0).1.seq, 4);
        store.close();
    });
}
