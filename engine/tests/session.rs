//! Sessions from HELLO to the end, in virtual time.

mod world;

use starling_codec::{EpochTag, ErrorCode, Kind, UserId, append_frame, serial::first_serial, wire};
use world::{
    World,
    peer::{Peer, opening, talk},
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
    world.wait(45);
    phone.look(&mut world);
    assert_eq!(phone.code(), None);
    world.wait(2);
    phone.look(&mut world);
    assert_eq!(phone.code(), Some(ErrorCode::Silent));
    assert!(world.links[0].closed);
    assert_eq!(world.engines[0].counters().connections, 0);
}

#[test]
fn who_says_nothing_or_too_little_for_ten_seconds_is_closed() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let silent = world.connect();
    let slow = world.connect();
    let hello = Peer::new(token).hello();
    for second in 0..9 {
        world.send(slow, &hello[second..=second]);
        world.advance(1_000);
    }
    assert!(!world.links[silent].closed && !world.links[slow].closed);
    world.wait(2);
    for link in [silent, slow] {
        assert!(world.links[link].closed);
        assert_eq!(close_code(&mut world, link), ErrorCode::OpeningTimeout);
    }
}

#[test]
fn a_peer_that_does_not_take_its_close_is_closed_all_the_same() {
    let mut world = World::new(1);
    let link = world.connect();
    world.links[link].takes = 0;
    world.wait(11);
    assert!(!world.links[link].closed);
    world.wait(6);
    assert!(world.links[link].closed);
}

#[test]
fn the_highest_connect_no_wins_and_of_equals_the_newer() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let mut phone = Peer::new(token);
    let hello = |phone: &mut Peer, connect_no: u64| {
        phone.connect_no = connect_no - 1;
        phone.hello()
    };
    let mut links = Vec::new();
    for connect_no in [5, 5, 4, 6] {
        let link = world.connect();
        world.send(link, &hello(&mut phone, connect_no));
        world.run();
        links.push(link);
    }
    let closes: Vec<Option<(u64, u32)>> = links
        .iter()
        .map(|&link| {
            let frames = world.frames(link);
            frames.iter().find(|(kind, _)| *kind == Kind::Close).map(|(_, body)| {
                let close = <wire::Close as prost::Message>::decode(&body[..]).unwrap();
                (close.winner_connect_no, close.code)
            })
        })
        .collect();
    let replaced = ErrorCode::Replaced as u32;
    assert_eq!(closes, [Some((5, replaced)), Some((6, replaced)), Some((5, replaced)), None]);
    // When none is open, any number will do.
    world.cut(links[3]);
    let link = world.connect();
    world.send(link, &hello(&mut phone, 1));
    world.run();
    assert_eq!(world.frames(link)[0].0, Kind::Welcome);
}

#[test]
fn what_a_replaced_connection_still_sends_is_ignored() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut old = Peer::new(token.clone());
    old.connect(&mut world);
    world.run();
    let mut new = Peer::new(token);
    new.connect_no = 1;
    new.connect(&mut world);
    // The old one does not take its CLOSE yet, so it is still there, and writes.
    world.links[0].takes = 0;
    world.run();
    old.write(&mut world, ada, b"from the grave");
    world.run();
    assert_eq!(world.store.head(ada), 0);
}

#[test]
fn every_fault_of_a_token_has_its_own_name() {
    let mut world = World::new(2);
    let (ada, token) = world.user("ada");
    let mut forged = token.clone();
    forged[30] ^= 1;
    let mut unknown = token.clone();
    unknown[4] ^= 1;
    let identity =
        starling_engine::Identity { user: ada, device: starling_codec::DeviceId(1), serial: 1 };
    let expired = world.keyring.sign(identity, world::START_MS / 1_000).to_vec();
    let revoked = world.token(ada, 1, 0);
    let nobody = world.token(ada, 9, 1);
    // Who had her number before an older backup was restored.
    let lost = world.token(ada, 1, first_serial(EpochTag(9)));
    for (token, code) in [
        (vec![1, 2, 3], ErrorCode::TokenMalformed),
        (unknown, ErrorCode::TokenUnknownKey),
        (forged, ErrorCode::TokenForged),
        (expired, ErrorCode::TokenExpired),
        (revoked, ErrorCode::TokenRevoked),
        (nobody, ErrorCode::TokenRevoked),
        (lost, ErrorCode::TokenRevoked),
    ] {
        let link = world.connect();
        world.send(link, &Peer::new(token).hello());
        world.run();
        assert_eq!(close_code(&mut world, link), code);
    }
}

/// Whoever opens again at once, and takes little: the answer to the first opener goes along to the
/// shard that the second one leads to.
#[test]
fn what_was_not_taken_before_a_move_is_told_after_it() {
    for takes in [0, 1, usize::MAX] {
        let mut world = World::new(2);
        let (_, token) = world.user("ada");
        for link in [world.connect(), world.connect()] {
            let mut bytes = Vec::new();
            let nobody = wire::Login {
                opening: opening(),
                name: "nobody".into(),
                password: "correct horse".into(),
                ..Default::default()
            };
            append_frame(&mut bytes, Kind::Login, &nobody);
            bytes.extend(Peer::new(token.clone()).hello());
            world.links[link].takes = takes;
            world.send(link, &bytes);
            world.run();
            world.links[link].takes = usize::MAX;
            world.write(link);
            world.run();
            let kinds: Vec<Kind> = world.frames(link).iter().map(|(kind, _)| *kind).collect();
            assert_eq!(kinds[..2], [Kind::Refused, Kind::Welcome], "{takes} on link {link}");
        }
        let moved: u64 = world.engines.iter().map(|engine| engine.counters().moved_in).sum();
        assert_eq!(moved, 1);
    }
}

#[test]
fn what_does_not_belong_is_closed_with_its_reason() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let hello = Peer::new(token.clone()).hello();
    let mut wrong_magic = Vec::new();
    append_frame(&mut wrong_magic, Kind::Hello, &wire::Hello::default());
    let mut no_version = Vec::new();
    let opening = opening().map(|opening| wire::Opening { version: 0, ..opening });
    let opening = wire::Hello { opening, ..Default::default() };
    append_frame(&mut no_version, Kind::Hello, &opening);
    let mut too_large = vec![0xFF, 0xFF, 0x03];
    too_large.extend_from_slice(&hello[2..]);
    let send_first = {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, Kind::Send, &wire::Send::default());
        bytes
    };
    for (bytes, code) in [
        (b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: a browser from long ago, and more\r\n".to_vec(), ErrorCode::BadMagic),
        (wrong_magic, ErrorCode::BadMagic),
        (no_version, ErrorCode::VersionUnsupported),
        (too_large, ErrorCode::FrameTooLarge),
        (vec![0x80; 10], ErrorCode::BadFrame),
        (vec![0], ErrorCode::BadFrame),
        (vec![3, Kind::Hello as u8, 0xFF, 0xFF], ErrorCode::BadFrame),
        (vec![1, Kind::Hello as u8 | 0x80], ErrorCode::BadFrame),
        (send_first, ErrorCode::WrongState),
        (vec![1, Kind::Ping as u8], ErrorCode::WrongState),
        ([hello.clone(), hello.clone()].concat(), ErrorCode::WrongState),
        ([hello.clone(), vec![1, Kind::Welcome as u8]].concat(), ErrorCode::WrongState),
        ([hello.clone(), vec![1, Kind::Stats as u8]].concat(), ErrorCode::WrongState),
    ] {
        let link = world.connect();
        world.send(link, &bytes);
        world.run();
        assert_eq!(close_code(&mut world, link), code, "{bytes:?}");
        assert!(world.links[link].closed);
    }
    // A kind of the future is skipped.
    let link = world.connect();
    world.send(link, &[hello, vec![3, 0x7E, 1, 2], vec![1, Kind::Ping as u8]].concat());
    world.run();
    let kinds: Vec<Kind> = world.frames(link).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Welcome, Kind::Pong]);
    assert_eq!(world.engines[0].counters().skipped.frames, 1);
}

#[test]
fn a_device_that_says_goodbye_is_closed_without_a_word() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    phone.frame(&mut world, Kind::Dishello, &wire::Done::default());
    world.run();
    phone.look(&mut world);
    assert!(world.links[0].closed && phone.close.is_none());
}

#[test]
fn draining_tells_everybody_and_lets_nobody_in() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    let fresh = world.connect();
    let now = world.now;
    world.engines[0].drain(now, ErrorCode::Draining);
    world.run();
    phone.look(&mut world);
    assert_eq!(phone.code(), Some(ErrorCode::Draining));
    assert!(phone.close.unwrap().retry_after_ms > 0);
    assert_eq!(close_code(&mut world, fresh), ErrorCode::Draining);
    assert_eq!(world.engines[0].open(now), Err(ErrorCode::Draining));
    assert_eq!(world.engines[0].counters().connections, 0);
}

#[test]
fn one_connection_more_than_may_be_is_turned_away() {
    let mut world = World::with(1, |settings| settings.max_connections = 2);
    let now = world.now;
    let first = world.engines[0].open(now).unwrap();
    world.engines[0].open(now).unwrap();
    assert_eq!(world.engines[0].open(now), Err(ErrorCode::Overload));
    world.engines[0].closed(now, first);
    assert!(world.engines[0].open(now).is_ok());
}

#[test]
fn a_session_moves_to_its_users_home_with_what_was_sent_behind_hello() {
    for shards in 2..=4 {
        let mut world = World::new(shards);
        let users: Vec<(UserId, Vec<u8>)> =
            (0..12).map(|number| world.user(&format!("user{number}"))).collect();
        let mut peers: Vec<Peer> = Vec::new();
        for (index, (_, token)) in users.iter().enumerate() {
            let mut peer = Peer::new(token.clone());
            // Written before it connects, so sent in the flight of HELLO.
            for other in 0..users.len() {
                peer.write(&mut world, users[(index + other) % users.len()].0, b"hello");
            }
            peers.push(peer);
        }
        for peer in &mut peers {
            peer.connect(&mut world);
        }
        let mut all: Vec<&mut Peer> = peers.iter_mut().collect();
        talk(&mut world, &mut all);
        for (index, peer) in peers.iter().enumerate() {
            assert!(peer.outbox.is_empty());
            // Her own eleven to others and one to herself, and eleven to her.
            assert_eq!(peer.messages().len(), 23);
            assert_eq!(peer.holes, 0);
            let home = world.route.owner_of(users[index].0);
            let link = &world.links[peer.link.unwrap()];
            assert_eq!(link.ticket.unwrap().shard, home);
        }
        let moved: u64 = world.engines.iter().map(|engine| engine.counters().moved_in).sum();
        assert!(moved > 0);
    }
}

#[test]
fn a_server_with_a_shorter_or_another_history_says_so() {
    use starling_codec::{Epoch, Place, Resumption};
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    for _ in 0..5 {
        phone.write(&mut world, ada, b"note");
    }
    talk(&mut world, &mut [&mut phone]);
    assert!(phone.welcome.as_ref().is_some_and(|welcome| welcome.resumed));

    let cursor = phone.cursor;
    world.store.resumption = Resumption::Rewind(Place::new(3, Epoch(1)));
    phone.connect(&mut world);
    world.run();
    let frames = world.frames(phone.link.unwrap());
    let welcome = <wire::Welcome as prost::Message>::decode(&frames[0].1[..]).unwrap();
    assert_eq!((welcome.resumed, welcome.rewind.unwrap().seq, welcome.reset), (false, 3, false));
    // What follows is sent from the place that both have.
    let events = <wire::Events as prost::Message>::decode(&frames[1].1[..]).unwrap();
    assert_eq!(events.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [4, 5]);

    world.store.resumption = Resumption::Reset;
    phone.cursor = cursor;
    phone.connect(&mut world);
    world.run();
    let frames = world.frames(phone.link.unwrap());
    let welcome = <wire::Welcome as prost::Message>::decode(&frames[0].1[..]).unwrap();
    assert_eq!((welcome.resumed, welcome.rewind, welcome.reset), (false, None, true));
    let events = <wire::Events as prost::Message>::decode(&frames[1].1[..]).unwrap();
    assert_eq!(events.events.len(), 5);
}

/// The entry is made before the head is read: what is delivered between the two is not missed.
#[test]
fn a_message_delivered_while_hello_is_looked_at_is_not_missed() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut ada_phone = Peer::new(token);
    let (bob, token) = world.user("bob");
    let mut bob_phone = Peer::new(token);
    bob_phone.connect(&mut world);
    bob_phone.write(&mut world, ada, b"one");
    talk(&mut world, &mut [&mut bob_phone]);

    world.hold_reads = true;
    ada_phone.connect(&mut world);
    world.run();
    // An old view answers late: the message arrives in between.
    let old = world.store.read(&starling_codec::Query::Device {
        user: ada,
        device: starling_codec::DeviceId(1),
        highest: starling_codec::Place::START,
        last_epoch: starling_codec::Epoch(0),
        last_tag: starling_codec::EpochTag(0),
    });
    bob_phone.write(&mut world, ada, b"two");
    world.run();
    world.answer_one_with(old);
    world.hold_reads = false;
    talk(&mut world, &mut [&mut ada_phone, &mut bob_phone]);
    assert_eq!(ada_phone.welcome.as_ref().unwrap().head.unwrap().seq, 2);
    assert_eq!(ada_phone.messages(), [(bob.0, 1), (bob.0, 2)]);
}

fn close_code(world: &mut World, link: usize) -> ErrorCode {
    let frames = world.frames(link);
    let (kind, body) = frames.last().expect("a frame");
    assert_eq!(*kind, Kind::Close);
    let close = <wire::Close as prost::Message>::decode(&body[..]).unwrap();
    ErrorCode::from_number(close.code).unwrap()
}
