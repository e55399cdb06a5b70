//! The one way out: live, catching up, behind, cut and come back. In virtual time.

mod world;

use prost::Message;
use starling_codec::{
    Command, ConversationId, Kind, Notice, Query, UserId, limits::MAX_CONTENT_BYTES, wire,
};
use world::{
    World,
    peer::{Peer, talk},
};

/// Ada with her phone, and Bob with his.
fn ada_and_bob(world: &mut World) -> [(UserId, Peer); 2] {
    ["ada", "bob"].map(|name| {
        let (user, token) = world.user(name);
        (user, Peer::new(token))
    })
}

/// The EVENTS that came on a peer's link and that nobody has read.
fn unread(world: &mut World, peer: &Peer) -> Vec<wire::Events> {
    let frames = world.frames(peer.link.unwrap());
    let events = frames.iter().filter(|(kind, _)| *kind == Kind::Events);
    events.map(|(_, body)| wire::Events::decode(&body[..]).unwrap()).collect()
}

fn unread_seqs(world: &mut World, peer: &Peer) -> Vec<u64> {
    let frames = unread(world, peer);
    frames.iter().flat_map(|frame| &frame.events).map(|event| event.seq).collect()
}

/// For each cursor of the user that was stored: what it told as delivered.
fn told_by(world: &World, of: UserId) -> Vec<Vec<(ConversationId, u64)>> {
    let receipt = |notice: &Notice| match &notice.event {
        wire::event::Kind::Delivered(told) => {
            let conversation = ConversationId(told.conversation);
            assert_eq!((notice.to, told.user), (conversation.peer_of(of).unwrap(), of.0));
            (conversation, told.seq)
        }
        other => panic!("{other:?}"),
    };
    let told = |command: &Command| match command {
        Command::Advance { user, notices, .. } if *user == of => {
            Some(notices.iter().map(receipt).collect())
        }
        _ => None,
    };
    world.store.advances.iter().filter_map(told).collect()
}

#[test]
fn all_devices_of_both_get_every_message_in_order() {
    for shards in 1..=3 {
        let mut world = World::new(shards);
        let [(ada, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
        let mut ada_laptop = Peer::new(world.device(ada));
        let mut bob_laptop = Peer::new(world.device(bob));
        for round in 0..50 {
            if round == 5 {
                ada_phone.connect(&mut world);
                ada_laptop.connect(&mut world);
                bob_phone.connect(&mut world);
            }
            // Comes late, and catches up.
            if round == 40 {
                bob_laptop.connect(&mut world);
            }
            ada_phone.write(&mut world, bob, b"ping");
            bob_phone.write(&mut world, ada, b"pong");
            let all = &mut [&mut ada_phone, &mut ada_laptop, &mut bob_phone, &mut bob_laptop];
            talk(&mut world, all);
        }
        let expected = world.store.conversation(ada, bob);
        assert_eq!(expected.len(), 100);
        for peer in [&ada_phone, &ada_laptop, &bob_phone, &bob_laptop] {
            assert_eq!(peer.messages(), expected);
            assert_eq!(peer.holes, 0);
        }
    }
}

/// What goes to three devices is encoded for one of them.
#[test]
fn what_all_devices_of_a_user_get_is_encoded_once() {
    const MESSAGES: u64 = 20;
    let mut world = World::new(1);
    let [(ada, mut phone), (_, mut bob_phone)] = ada_and_bob(&mut world);
    let [mut laptop, mut tablet] = [(); 2].map(|()| Peer::new(world.device(ada)));
    for peer in [&mut phone, &mut laptop, &mut tablet, &mut bob_phone] {
        peer.connect(&mut world);
    }
    for _ in 0..MESSAGES {
        bob_phone.write(&mut world, ada, b"to all of them");
        talk(&mut world, &mut [&mut bob_phone, &mut phone, &mut laptop, &mut tablet]);
    }
    for peer in [&phone, &laptop, &tablet] {
        assert_eq!(peer.messages().len() as u64, MESSAGES);
    }
    let counters = world.engines[0].counters();
    assert!(counters.events_repeated >= 2 * MESSAGES, "{counters:?}");
    // One device has nobody to share with.
    assert!(counters.events_out - counters.events_repeated >= 2 * MESSAGES, "{counters:?}");
}

/// Both write, and the link of one is cut after every possible number of bytes that the server
/// wrote, or that it read; and it comes back. Frames end among these, so every boundary is hit.
#[test]
fn nothing_is_lost_or_doubled_wherever_a_link_is_cut() {
    let mut cuts = 0;
    for shards in [1, 2] {
        let mut cut_at = 0;
        loop {
            let mut world = World::new(shards);
            let [(ada, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
            bob_phone.connect(&mut world);
            for _ in 0..3 {
                ada_phone.write(&mut world, bob, b"written offline");
                bob_phone.write(&mut world, ada, b"from bob");
            }
            ada_phone.connect(&mut world);
            let link = ada_phone.link.unwrap();
            world.links[link].takes = cut_at;
            talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
            let whole = world.links[link].takes > 0;
            ada_phone.write(&mut world, bob, b"after");
            world.run();
            // Whatever of the server's output did not get through is lost with the link.
            ada_phone.connect(&mut world);
            talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);

            let sent = world.store.conversation(ada, bob);
            assert_eq!(sent.len(), 7, "cut at {cut_at}");
            for (peer, user) in [(&ada_phone, ada), (&bob_phone, bob)] {
                assert!(peer.outbox.is_empty(), "cut at {cut_at}");
                assert_eq!(peer.messages(), sent, "cut at {cut_at}");
                let own: Vec<u64> =
                    sent.iter().filter(|(from, _)| *from == user.0).map(|(_, no)| *no).collect();
                assert!(own.is_sorted(), "cut at {cut_at}: {own:?}");
            }
            if whole {
                assert!(cut_at > 300);
                break;
            }
            cut_at += 1;
            cuts += 1;
        }
    }
    assert!(cuts >= 1_000, "{cuts}");
}

#[test]
fn what_is_cut_on_the_way_to_the_server_is_sent_again() {
    let mut flight_bytes = 0;
    for cut_at in 0.. {
        let mut world = World::new(2);
        let [(ada, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
        bob_phone.connect(&mut world);
        for _ in 0..4 {
            ada_phone.write(&mut world, bob, b"hello");
        }
        ada_phone.connect(&mut world);
        let link = ada_phone.link.unwrap();
        flight_bytes = world.limit_flight(link, cut_at).max(flight_bytes);
        world.run();
        ada_phone.connect(&mut world);
        talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
        let sent: Vec<u64> =
            world.store.conversation(ada, bob).iter().map(|(_, number)| *number).collect();
        assert_eq!(sent, [1, 2, 3, 4], "cut at {cut_at}");
        assert_eq!(bob_phone.messages().len(), 4);
        if cut_at > flight_bytes {
            break;
        }
    }
}

#[test]
fn a_slow_reader_costs_little_and_misses_nothing() {
    let mut world = World::new(1);
    let [(ada, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    let mut bob_laptop = Peer::new(world.device(bob));
    ada_phone.connect(&mut world);
    bob_phone.connect(&mut world);
    bob_laptop.connect(&mut world);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut bob_laptop]);
    let stuck = bob_phone.link.unwrap();
    world.links[stuck].takes = 0;
    for _ in 0..2_000 {
        ada_phone.write(&mut world, bob, &[7; 500]);
        talk(&mut world, &mut [&mut ada_phone, &mut bob_laptop]);
        let ticket = world.links[stuck].ticket.unwrap();
        assert!(world.engines[0].output(ticket).len() <= 5 * 1024);
    }
    // The other device of the same user was not held up.
    assert_eq!(bob_laptop.messages().len(), 2_000);
    world.links[stuck].takes = usize::MAX;
    world.write(stuck);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut bob_laptop]);
    assert_eq!(bob_phone.messages(), bob_laptop.messages());
    assert_eq!((bob_phone.holes, ada.0), (0, 1));
}

#[test]
fn who_does_not_acknowledge_gets_no_more_than_the_window_and_hears_of_the_rest() {
    let mut world = World::new(1);
    let [(_, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    ada_phone.connect(&mut world);
    bob_phone.window_events = 10;
    bob_phone.acks = false;
    bob_phone.connect(&mut world);
    for _ in 0..30 {
        ada_phone.write(&mut world, bob, b"hello");
    }
    talk(&mut world, &mut [&mut ada_phone]);
    let events = unread(&mut world, &bob_phone);
    assert_eq!(events.iter().map(|events| events.events.len()).sum::<usize>(), 10);
    assert!(events.last().unwrap().head > 10);

    // Acknowledging a part makes room for as much.
    let cursor = Some(wire::Place { seq: 4, epoch: 1 });
    bob_phone.frame(&mut world, Kind::Ack, &wire::Ack { cursor });
    world.run();
    assert_eq!(unread_seqs(&mut world, &bob_phone).len(), 4);

    // A cursor beyond what was sent counts for no more than that.
    let cursor = Some(wire::Place { seq: 1_000_000, epoch: 9 });
    bob_phone.frame(&mut world, Kind::Ack, &wire::Ack { cursor });
    world.run();
    assert_eq!(unread_seqs(&mut world, &bob_phone).len(), 10);
}

#[test]
fn a_device_that_lacks_something_asks_and_gets_it_again() {
    let mut world = World::new(1);
    let [(_, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    ada_phone.connect(&mut world);
    bob_phone.connect(&mut world);
    for _ in 0..5 {
        ada_phone.write(&mut world, bob, b"hello");
    }
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    for (after, expected) in [(2, vec![3, 4, 5]), (5, vec![]), (0, vec![1, 2, 3, 4, 5])] {
        let after = Some(wire::Place { seq: after, epoch: 1 });
        bob_phone.frame(&mut world, Kind::Sync, &wire::Sync { after });
        world.run();
        assert_eq!(unread_seqs(&mut world, &bob_phone), expected);
    }
}

#[test]
fn a_part_that_was_being_read_when_another_was_asked_for_is_read_anew() {
    let mut world = World::new(1);
    let [(_, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    ada_phone.connect(&mut world);
    for _ in 0..5 {
        ada_phone.write(&mut world, bob, b"hello");
    }
    talk(&mut world, &mut [&mut ada_phone]);
    bob_phone.connect(&mut world);
    talk(&mut world, &mut [&mut bob_phone]);
    ada_phone.write(&mut world, bob, b"six");
    world.fold = true;
    world.hold_reads = true;
    world.run();
    // (5, 6] is being read; now the device wants (2, 6].
    let after = Some(wire::Place { seq: 2, epoch: 1 });
    bob_phone.frame(&mut world, Kind::Sync, &wire::Sync { after });
    world.run();
    world.hold_reads = false;
    world.run();
    assert_eq!(unread_seqs(&mut world, &bob_phone), [3, 4, 5, 6]);
}

#[test]
fn folded_deliveries_are_read_from_the_view() {
    let mut world = World::new(2);
    let [(ada, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    ada_phone.connect(&mut world);
    bob_phone.connect(&mut world);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    for round in 0..20 {
        world.fold = round % 3 != 0;
        ada_phone.write(&mut world, bob, b"ping");
        bob_phone.write(&mut world, ada, b"pong");
        talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    }
    assert_eq!(ada_phone.messages(), world.store.conversation(ada, bob));
    assert_eq!(bob_phone.messages(), world.store.conversation(ada, bob));
    assert!(world.engines.iter().map(|engine| engine.counters().folded).sum::<u64>() > 0);
}

#[test]
fn the_largest_messages_get_through_the_smallest_window() {
    let mut world = World::new(1);
    let [(ada, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    bob_phone.window_events = 1;
    ada_phone.connect(&mut world);
    let content = vec![9; MAX_CONTENT_BYTES];
    for _ in 0..5 {
        ada_phone.write(&mut world, bob, &content);
    }
    talk(&mut world, &mut [&mut ada_phone]);
    bob_phone.connect(&mut world);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    assert_eq!(bob_phone.messages(), world.store.conversation(ada, bob));
    assert_eq!(ada_phone.messages().len(), 5);
}

#[test]
fn a_cursor_is_stored_at_most_once_a_second_and_when_the_connection_ends() {
    let mut world = World::new(1);
    let [(ada, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    ada_phone.connect(&mut world);
    bob_phone.connect(&mut world);
    for _ in 0..20 {
        ada_phone.write(&mut world, bob, b"hello");
        talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
        world.advance(100);
    }
    let stored = told_by(&world, bob).len();
    assert!((1..=2).contains(&stored), "{stored}");
    ada_phone.write(&mut world, bob, b"one more");
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    world.cut(bob_phone.link.take().unwrap());
    world.run();
    let told = told_by(&world, bob);
    assert_eq!(told.len(), stored + 1);
    assert_eq!(told[stored], [(ConversationId::direct(ada, bob), 21)]);
}

#[test]
fn a_message_is_told_as_delivered_once_though_two_devices_got_it() {
    let mut world = World::new(1);
    let [(_, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    let mut bob_laptop = Peer::new(world.device(bob));
    for peer in [&mut ada_phone, &mut bob_phone, &mut bob_laptop] {
        peer.connect(&mut world);
    }
    ada_phone.write(&mut world, bob, b"hello");
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut bob_laptop]);
    world.wait(3);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut bob_laptop]);
    assert_eq!(ada_phone.receipts(), [(bob.0, 1)]);
}

/// The device applied what it was sent, but the server died before it had stored the cursor.
#[test]
fn what_was_delivered_before_a_crash_is_told_after_the_next_hello() {
    let mut world = World::new(1);
    let [(_, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    let (_, token) = world.user("eve");
    let mut eve_phone = Peer::new(token);
    for peer in [&mut ada_phone, &mut bob_phone, &mut eve_phone] {
        peer.connect(&mut world);
    }
    for _ in 0..400 {
        ada_phone.write(&mut world, bob, b"hello");
        talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut eve_phone]);
    }
    eve_phone.write(&mut world, bob, b"hello");
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut eve_phone]);
    assert!(world.store.advances.is_empty());
    world.restart_engines();
    for peer in [&mut ada_phone, &mut bob_phone, &mut eve_phone] {
        peer.link = None;
        peer.connect(&mut world);
    }
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut eve_phone]);
    world.wait(2);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut eve_phone]);
    assert_eq!(ada_phone.receipts(), [(bob.0, 400)]);
    assert_eq!(eve_phone.receipts(), [(bob.0, 1)]);
}

/// What a device has passed is on its way to the store, slowly, and nobody of hers is here any
/// more, when another device comes that has not come as far.
#[test]
fn a_receipt_does_not_fall_while_a_higher_one_is_on_its_way() {
    let mut world = World::new(1);
    let [(_, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    let mut bob_laptop = Peer::new(world.device(bob));
    bob_laptop.acks = false;
    ada_phone.connect(&mut world);
    bob_laptop.connect(&mut world);
    ada_phone.write(&mut world, bob, b"one");
    talk(&mut world, &mut [&mut ada_phone, &mut bob_laptop]);
    world.cut(bob_laptop.link.take().unwrap());
    assert_eq!(bob_laptop.cursor.seq, 1);

    ada_phone.write(&mut world, bob, b"two");
    bob_phone.connect(&mut world);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    world.hold_commits = true;
    world.wait(2);
    world.cut(bob_phone.link.take().unwrap());
    assert_eq!(bob_phone.cursor.seq, 2);

    bob_laptop.connect(&mut world);
    world.wait(2);
    world.hold_commits = false;
    talk(&mut world, &mut [&mut ada_phone, &mut bob_laptop]);
    assert_eq!(ada_phone.receipts(), [(bob.0, 2)]);
    // Once it is stored, nothing of her is left here.
    world.cut(bob_laptop.link.take().unwrap());
    world.wait(2);
    assert_eq!(world.engines[0].counters().users, 1);
}

/// A user's device leaves when there is no credit to store her cursor with, and her other one, which
/// is further, the moment after there is one again.
#[test]
fn a_last_cursor_does_not_overtake_one_that_waits_for_a_credit() {
    let mut world = World::with(1, |settings| settings.credits = 1);
    let [(_, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    let mut bob_laptop = Peer::new(world.device(bob));
    for peer in [&mut ada_phone, &mut bob_phone, &mut bob_laptop] {
        peer.connect(&mut world);
    }
    ada_phone.write(&mut world, bob, b"one");
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut bob_laptop]);
    ada_phone.write(&mut world, bob, b"two");
    talk(&mut world, &mut [&mut ada_phone, &mut bob_laptop]);

    // Takes the only credit, until it is stored.
    ada_phone.write(&mut world, bob, b"three");
    world.hold_commits = true;
    world.run();
    world.cut(bob_phone.link.take().unwrap());
    world.commit();
    world.cut(bob_laptop.link.take().unwrap());

    world.hold_commits = false;
    talk(&mut world, &mut [&mut ada_phone]);
    assert_eq!(ada_phone.receipts(), [(bob.0, 1), (bob.0, 2)]);
}

/// What was read for a device joins on to what is new, and another frame comes behind both before
/// the turn ends: the user's other device gets the events, not the end of that output.
#[test]
fn what_comes_behind_events_is_not_repeated_to_another_device() {
    let mut world = World::new(1);
    let [(ada, mut ada_phone), (bob, mut bob_phone)] = ada_and_bob(&mut world);
    let mut ada_laptop = Peer::new(world.device(ada));
    bob_phone.connect(&mut world);
    ada_laptop.connect(&mut world);
    bob_phone.write(&mut world, ada, b"one");
    talk(&mut world, &mut [&mut bob_phone, &mut ada_laptop]);

    world.hold_reads = true;
    ada_phone.connect(&mut world);
    world.run();
    world.answer_one();
    world.run();
    let who = Some(wire::resolve::Who::User(bob.0));
    ada_phone.frame(&mut world, Kind::Resolve, &wire::Resolve { request_id: 1, who });
    world.hold_commits = true;
    bob_phone.write(&mut world, ada, b"two");
    world.run();
    let (max_events, max_bytes) = (9, 9_999);
    let first = world.store.read(&Query::Inbox { user: ada, after_seq: 0, max_events, max_bytes });
    world.commit();
    world.answer_one_with(first);
    world.answer_one();

    (world.hold_reads, world.hold_commits) = (false, false);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone, &mut ada_laptop]);
    assert_eq!(ada_phone.messages(), [(bob.0, 1), (bob.0, 2)]);
    assert_eq!(ada_laptop.messages(), ada_phone.messages());
    assert_eq!(ada_phone.others.len(), 1);
}
