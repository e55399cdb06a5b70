//! Sessions from HELLO to the end, in virtual time.

mod world;

use starling_codec::ErrorCode;
use world::{
    World,
    peer::{Peer, talk},
};

#[test]
fn two_people_talk() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut ada_phone = Peer::new(token);
    let (bob, token) = world.user("bob");
    let mut bob_phone = Peer::new(token);
    ada_phone.connect(&mut world);
    bob_phone.connect(&mut world);
    ada_phone.write(&mut world, bob, b"hello bob");
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    bob_phone.write(&mut world, ada, b"hello ada");
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    assert_eq!(bob_phone.messages(), [(ada.0, 1), (bob.0, 1)]);
    assert_eq!(ada_phone.messages(), [(ada.0, 1), (bob.0, 1)]);
    assert!(ada_phone.outbox.is_empty() && bob_phone.outbox.is_empty());
    assert_eq!(bob_phone.acked[0].seq, 2);

    // A second later both learn that it was delivered.
    world.advance(1_000);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    assert_eq!(ada_phone.receipts(), [(bob.0, 1)]);
    assert_eq!(bob_phone.receipts(), [(ada.0, 2)]);
    // Receipts of receipts there are none.
    world.wait(5);
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    assert_eq!(world.store.head(ada), 3);
    assert_eq!(world.store.head(bob), 3);
}

#[test]
fn an_unknown_user_is_refused_for_good_and_the_next_message_goes_on() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    phone.write(&mut world, starling_codec::UserId(99), b"anyone?");
    phone.write(&mut world, ada, b"nobody");
    talk(&mut world, &mut [&mut phone]);
    assert_eq!(phone.refused, [(1, ErrorCode::UnknownUser)]);
    assert_eq!(phone.messages(), [(ada.0, 2)]);
}

#[test]
fn heartbeats_keep_a_session_and_silence_ends_it() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    assert_eq!(phone.welcome.as_ref().map(|welcome| welcome.heartbeat_s), Some(30));
    for _ in 0..10 {
        world.wait(30);
        phone.ping(&mut world);
        talk(&mut world, &mut [&mut phone]);
    }
    assert_eq!(phone.code(), None);
    world.wait(47);
    phone.look(&mut world);
    assert_eq!(phone.code(), Some(ErrorCode::Silent));
    assert!(world.links[0].closed);
    assert_eq!(world.engines[0].counters().connections, 0);
}
