//! What the engine wants done, as it says it: a change here is a change of the seam.

mod world;

use prost::Message;
use starling_codec::{Kind, UserId, wire};
use world::{
    World,
    peer::{Peer, talk},
};

/// What a link got, in words.
fn told(world: &mut World, link: usize) -> Vec<String> {
    let name = |(kind, body): &(Kind, Vec<u8>)| match kind {
        Kind::Events => format!("{:#?}", wire::Events::decode(&body[..]).unwrap()),
        Kind::Welcome => format!("{:#?}", wire::Welcome::decode(&body[..]).unwrap()),
        Kind::SendAck => format!("{:?}", wire::SendAck::decode(&body[..]).unwrap()),
        Kind::Close => format!("{:?}", wire::Close::decode(&body[..]).unwrap()),
        kind => kind.name().to_owned(),
    };
    world.frames(link).iter().map(name).collect()
}

#[test]
fn a_session_begins() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    world.run();
    insta::assert_debug_snapshot!(world.log);
    insta::assert_snapshot!(told(&mut world, 0).join("\n"));
}

#[test]
fn a_first_message_asks_for_its_recipient_and_the_next_does_not() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let (bob, _) = world.user("bob");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    world.log.clear();
    phone.write(&mut world, bob, b"one");
    talk(&mut world, &mut [&mut phone]);
    phone.write(&mut world, bob, b"two");
    world.run();
    insta::assert_debug_snapshot!(world.log);
    insta::assert_snapshot!(told(&mut world, 0).join("\n"));
}

#[test]
fn a_connection_moves_and_a_message_hops() {
    let mut world = World::new(2);
    let users: Vec<(UserId, Vec<u8>)> =
        (0..20).map(|number| world.user(&format!("user{number}"))).collect();
    // The first connection is accepted by shard 0: someone whose home is shard 1, and a
    // conversation whose home is shard 0.
    let (ada, token) =
        users.iter().find(|(user, _)| world.route.owner_of(*user) == 1).unwrap().clone();
    let conversation_at = |world: &World, other: UserId| {
        world.route.owner_of(starling_codec::ConversationId::direct(ada, other))
    };
    let (other, _) =
        users.iter().find(|(other, _)| conversation_at(&world, *other) == 0).unwrap().clone();
    let mut phone = Peer::new(token);
    phone.write(&mut world, other, b"hello");
    phone.write(&mut world, UserId(1_000), b"anyone?");
    phone.connect(&mut world);
    world.run();
    insta::assert_debug_snapshot!(world.log);
}

#[test]
fn a_cursor_is_stored_with_what_it_tells() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let mut ada_phone = Peer::new(token);
    let (bob, token) = world.user("bob");
    let mut bob_phone = Peer::new(token);
    ada_phone.connect(&mut world);
    bob_phone.connect(&mut world);
    ada_phone.write(&mut world, bob, b"one");
    ada_phone.write(&mut world, bob, b"two");
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    world.log.clear();
    world.advance(1_000);
    insta::assert_debug_snapshot!(world.log);
}

#[test]
fn a_login_proves_a_password_and_opens_a_device() {
    use starling_codec::append_frame;
    let mut world = World::new(1);
    let link = world.connect();
    let (name, password) = (String::from("Ada"), String::from("correct horse"));
    let opening = world::peer::opening();
    let register = wire::Register {
        opening: opening.clone(),
        name: name.clone(),
        password: password.clone(),
        platform: "test".into(),
    };
    let login = wire::Login { opening, name, password, device: 1, platform: "test".into() };
    let mut bytes = Vec::new();
    append_frame(&mut bytes, Kind::Register, &register);
    append_frame(&mut bytes, Kind::Login, &login);
    world.send(link, &bytes);
    world.run();
    // No password shows here.
    assert!(!world.log.iter().any(|line| line.contains("horse")));
    insta::assert_debug_snapshot!(world.log);
}
