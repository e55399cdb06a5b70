//! The door: what is refused, and that no refusal changes the order of what a person wrote.

mod world;

use proptest::prelude::*;
use prost::Message;
use starling_codec::{ConversationId, ErrorCode, Kind, UserId, limits::MAX_CONTENT_BYTES, wire};
use world::{
    World,
    peer::{Peer, talk},
};

fn send(send_no: u64, oldest: u64, to: UserId) -> wire::Send {
    wire::Send {
        send_no,
        oldest,
        nonce: send_no,
        content: b"hello"[..].into(),
        to: Some(wire::send::To::User(to.0)),
        ..Default::default()
    }
}

/// The send answers of a peer: number, and the code of a refusal.
fn answers(world: &mut World, peer: &Peer) -> Vec<(u64, Option<ErrorCode>)> {
    let frames = world.frames(peer.link.unwrap());
    let answer = |(kind, body): &(Kind, Vec<u8>)| match kind {
        Kind::SendAck => Some((wire::SendAck::decode(&body[..]).unwrap().send_no, None)),
        Kind::SendRefused => {
            let refused = wire::SendRefused::decode(&body[..]).unwrap();
            Some((refused.send_no, ErrorCode::from_number(refused.code)))
        }
        _ => None,
    };
    frames.iter().filter_map(answer).collect()
}

#[test]
fn what_can_never_be_sent_is_refused_for_good_and_holds_up_nothing() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    let other = ConversationId::direct(UserId(8), UserId(9));
    for (send, code) in [
        (wire::Send { content: b""[..].into(), ..send(1, 1, ada) }, ErrorCode::ContentEmpty),
        (
            wire::Send { content: vec![0; MAX_CONTENT_BYTES + 1].into(), ..send(2, 1, ada) },
            ErrorCode::ContentTooLarge,
        ),
        (send(3, 3, UserId(77)), ErrorCode::UnknownUser),
        (send(4, 3, UserId(0)), ErrorCode::UnknownUser),
        (
            wire::Send { to: Some(wire::send::To::Conversation(other.0)), ..send(5, 5, ada) },
            ErrorCode::UnknownConversation,
        ),
        (wire::Send { class: 2, ..send(6, 6, ada) }, ErrorCode::ClassUnavailable),
        (send(71, 7, ada), ErrorCode::SendSpan),
        (send(7, 8, ada), ErrorCode::SendSpan),
        (send(7, 0, ada), ErrorCode::SendSpan),
    ] {
        phone.frame(&mut world, Kind::Send, &send);
        world.run();
        assert_eq!(answers(&mut world, &phone), [(send.send_no, Some(code))]);
    }
    phone.frame(&mut world, Kind::Send, &send(70, 7, ada));
    world.run();
    assert_eq!(answers(&mut world, &phone), [(70, None)]);
}

#[test]
fn a_send_without_a_number_a_recipient_or_a_known_class_breaks_the_protocol() {
    for broken in [
        wire::Send { send_no: 0, ..send(1, 0, UserId(1)) },
        wire::Send { to: None, ..send(1, 1, UserId(1)) },
        wire::Send { class: 9, ..send(1, 1, UserId(1)) },
    ] {
        let mut world = World::new(1);
        let (_, token) = world.user("ada");
        let mut phone = Peer::new(token);
        phone.connect(&mut world);
        talk(&mut world, &mut [&mut phone]);
        phone.frame(&mut world, Kind::Send, &broken);
        talk(&mut world, &mut [&mut phone]);
        assert_eq!(phone.code(), Some(ErrorCode::BadField));
    }
}

#[test]
fn without_a_credit_a_number_and_the_later_ones_wait_and_come_in_order() {
    let mut world = World::with(1, |settings| settings.credits = 2);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    world.hold_commits = true;
    for number in 1..=4 {
        phone.frame(&mut world, Kind::Send, &send(number, 1, ada));
    }
    world.run();
    let expected = [(3, Some(ErrorCode::Overload)), (4, Some(ErrorCode::SendOutOfOrder))];
    assert_eq!(answers(&mut world, &phone), expected);
    world.hold_commits = false;
    world.run();
    assert_eq!(answers(&mut world, &phone), [(1, None), (2, None)]);
    // There is room again, but 5 and 4 may not pass 3.
    phone.frame(&mut world, Kind::Send, &send(5, 3, ada));
    phone.frame(&mut world, Kind::Send, &send(4, 3, ada));
    world.run();
    let out_of_order = Some(ErrorCode::SendOutOfOrder);
    assert_eq!(answers(&mut world, &phone), [(5, out_of_order), (4, out_of_order)]);
    // 3 comes; 5 still may not pass 4, which was refused as well.
    phone.frame(&mut world, Kind::Send, &send(3, 3, ada));
    phone.frame(&mut world, Kind::Send, &send(5, 3, ada));
    phone.frame(&mut world, Kind::Send, &send(4, 3, ada));
    world.run();
    assert_eq!(answers(&mut world, &phone), [(5, out_of_order), (3, None), (4, None)]);
    phone.frame(&mut world, Kind::Send, &send(5, 3, ada));
    world.run();
    assert_eq!(answers(&mut world, &phone), [(5, None)]);
}

#[test]
fn a_number_that_the_client_gave_up_is_not_waited_for() {
    let mut world = World::with(1, |settings| settings.credits = 1);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    world.hold_commits = true;
    for number in 1..=3 {
        phone.frame(&mut world, Kind::Send, &send(number, 1, ada));
    }
    world.run();
    world.hold_commits = false;
    world.run();
    answers(&mut world, &phone);
    phone.frame(&mut world, Kind::Send, &send(4, 4, ada));
    world.run();
    assert_eq!(answers(&mut world, &phone), [(4, None)]);
}

#[test]
fn a_second_holds_so_many_sends() {
    let mut world = World::with(1, |settings| settings.sends_per_second = 5);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    for _ in 0..8 {
        phone.write(&mut world, ada, b"hello");
    }
    talk(&mut world, &mut [&mut phone]);
    assert_eq!(phone.acked.len(), 5);
    assert_eq!(world.engines[0].counters().refusals(ErrorCode::RateLimited), 1);
    assert_eq!(world.engines[0].counters().refusals(ErrorCode::SendOutOfOrder), 2);
    for expected in 6..=8 {
        world.advance(200);
        phone.retry(&mut world);
        talk(&mut world, &mut [&mut phone]);
        assert_eq!(phone.acked.len(), expected);
    }
    let numbers: Vec<u64> = phone.messages().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_full_disk_is_said_at_the_door() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    world.engines[0].refuse_commands(Some(ErrorCode::DiskFull));
    phone.write(&mut world, ada, b"hello");
    talk(&mut world, &mut [&mut phone]);
    assert_eq!(world.engines[0].counters().refusals(ErrorCode::DiskFull), 1);
    world.engines[0].refuse_commands(None);
    phone.retry(&mut world);
    talk(&mut world, &mut [&mut phone]);
    assert_eq!(phone.messages(), [(ada.0, 1)]);
}

/// The store found no room, which the door did not know. What the client then gives up holds its
/// later ones neither here nor there.
#[test]
fn a_number_refused_behind_the_door_and_given_up_holds_no_later_one() {
    let mut world = World::new(2);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    world.store.full = true;
    phone.frame(&mut world, Kind::Send, &send(1, 1, ada));
    phone.frame(&mut world, Kind::Send, &send(2, 1, ada));
    world.run();
    let refused = [(1, Some(ErrorCode::DiskFull)), (2, Some(ErrorCode::SendOutOfOrder))];
    assert_eq!(answers(&mut world, &phone), refused);
    world.store.full = false;
    phone.frame(&mut world, Kind::Send, &send(3, 2, ada));
    world.run();
    assert_eq!(answers(&mut world, &phone), [(3, Some(ErrorCode::SendOutOfOrder))]);
    phone.frame(&mut world, Kind::Send, &send(3, 3, ada));
    world.run();
    assert_eq!(answers(&mut world, &phone), [(3, None)]);
}

#[test]
fn what_waits_for_its_conversation_keeps_its_order() {
    for shards in 1..=3 {
        let mut world = World::new(shards);
        let (_, token) = world.user("ada");
        let mut ada_phone = Peer::new(token);
        let (bob, _) = world.user("bob");
        ada_phone.connect(&mut world);
        talk(&mut world, &mut [&mut ada_phone]);
        world.hold_reads = true;
        for _ in 0..5 {
            ada_phone.write(&mut world, bob, b"hello");
            world.run();
        }
        assert_eq!(world.store.head(bob), 0);
        world.hold_reads = false;
        ada_phone.write(&mut world, bob, b"hello");
        talk(&mut world, &mut [&mut ada_phone]);
        let numbers: Vec<u64> = ada_phone.messages().iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn a_refusal_behind_the_door_gives_the_credit_back() {
    let mut world = World::with(2, |settings| settings.credits = 3);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    for number in 0..20 {
        phone.write(&mut world, UserId(1_000 + number), b"anyone?");
        talk(&mut world, &mut [&mut phone]);
    }
    assert_eq!(phone.refused.len(), 20);
    phone.write(&mut world, ada, b"myself");
    talk(&mut world, &mut [&mut phone]);
    assert_eq!(phone.messages(), [(ada.0, 21)]);
}

/// What happens next in a world of too few credits.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write { to_bob: bool },
    Look,
    Retry,
    Commits(bool),
    Reads(bool),
    Reconnect,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(|to_bob| Step::Write { to_bob }),
        3 => Just(Step::Look),
        2 => Just(Step::Retry),
        1 => any::<bool>().prop_map(Step::Commits),
        1 => any::<bool>().prop_map(Step::Reads),
        1 => Just(Step::Reconnect),
        1 => (1u64..400).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is refused, held up or cut: each message arrives once, and in each conversation
    /// in the order in which it was written.
    #[test]
    fn order_and_number_survive_overload(
        shards in 1u16..4,
        credits in 1u32..6,
        rate in 0u32..20,
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::with(shards, |settings| {
            settings.credits = credits;
            settings.sends_per_second = rate;
        });
        let (ada, token) = world.user("ada");
        let mut phone = Peer::new(token);
        let (bob, token) = world.user("bob");
        let mut bob_phone = Peer::new(token);
        phone.connect(&mut world);
        bob_phone.connect(&mut world);
        let mut written = 0;
        for step in steps {
            match step {
                Step::Write { to_bob } if phone.outbox.len() < 60 => {
                    written += 1;
                    phone.write(&mut world, if to_bob { bob } else { ada }, b"hello");
                }
                Step::Write { .. } => {}
                Step::Look => {
                    phone.look(&mut world);
                }
                Step::Retry => phone.retry(&mut world),
                Step::Commits(held) => world.hold_commits = held,
                Step::Reads(held) => world.hold_reads = held,
                Step::Reconnect => phone.connect(&mut world),
                Step::Pass(ms) => world.advance(ms),
            }
            world.run();
        }
        (world.hold_commits, world.hold_reads) = (false, false);
        for _ in 0..200 {
            talk(&mut world, &mut [&mut phone, &mut bob_phone]);
            phone.retry(&mut world);
            world.advance(500);
        }
        prop_assert!(phone.outbox.is_empty());
        let (to_bob, to_self) = (world.store.conversation(ada, bob), world.store.conversation(ada, ada));
        prop_assert_eq!(to_bob.len() + to_self.len(), written);
        prop_assert!(to_bob.is_sorted() && to_self.is_sorted());
        prop_assert_eq!(phone.messages().len(), written);
        prop_assert_eq!(bob_phone.messages(), to_bob);
    }
}

#[test]
fn who_sends_much_does_not_keep_out_who_sends_little() {
    let mut world = World::with(1, |settings| settings.credits = 200);
    world.batch = 20;
    let (ada, token) = world.user("ada");
    let mut ada_phone = Peer::new(token);
    let mut greedy: Vec<Peer> = (0..20)
        .map(|number| {
            let (_, token) = world.user(&format!("greedy{number}"));
            Peer::new(token)
        })
        .collect();
    ada_phone.connect(&mut world);
    for peer in &mut greedy {
        peer.connect(&mut world);
    }
    world.run();
    for round in 0..400 {
        for peer in &mut greedy {
            while peer.outbox.len() < 64 {
                peer.write(&mut world, UserId(2), b"buy now");
            }
        }
        // When all that may be is under way, she writes now and then, and never has to repeat.
        if round > 100 && ada_phone.outbox.is_empty() {
            ada_phone.write(&mut world, ada, b"a note");
        }
        world.step();
        ada_phone.look(&mut world);
        for peer in &mut greedy {
            peer.look(&mut world);
            peer.retry(&mut world);
        }
    }
    assert!(world.engines[0].counters().refusals(ErrorCode::Overload) > 100);
    assert!(ada_phone.acked.len() > 10, "{}", ada_phone.acked.len());
    assert!(ada_phone.outbox.len() <= 1);
}
