//! Whatever a peer sends: no panic, no growth, a reason at the end, and the same however the
//! bytes are split.

mod world;

use proptest::prelude::*;
use prost::Message;
use starling_codec::{
    ErrorCode, Kind, append_frame, append_ping,
    limits::{
        MAX_FRAME_BYTES, MAX_FRUITLESS_FRAMES, MAX_SEND_SPAN, OPENER_FRUITLESS_FRAMES,
        OPENING_TIMEOUT_MS,
    },
    wire,
};
use world::{World, peer::Peer};

/// A frame that a session may send, with odd values.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let frame = |kind: Kind, body: Vec<u8>| {
        let mut bytes = Vec::new();
        starling_codec::append_header(&mut bytes, kind, body.len());
        bytes.extend(body);
        bytes
    };
    prop_oneof![
        Just({
            let mut bytes = Vec::new();
            append_ping(&mut bytes);
            bytes
        }),
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
            move |(kind, body)| {
                let kind = Kind::ALL[usize::from(kind) % Kind::ALL.len()];
                frame(kind, body)
            }
        ),
        (0u64..70, 0u64..70, 0u32..4).prop_map(|(send_no, oldest, to)| {
            let mut bytes = Vec::new();
            let send = wire::Send {
                send_no,
                oldest,
                content: b"hi"[..].into(),
                to: Some(wire::send::To::User(to)),
                ..Default::default()
            };
            append_frame(&mut bytes, Kind::Send, &send);
            bytes
        }),
        (0u64..20, 0u32..3).prop_map(|(seq, epoch)| {
            let mut bytes = Vec::new();
            let cursor = Some(wire::Place { seq, epoch });
            append_frame(&mut bytes, Kind::Ack, &wire::Ack { cursor });
            bytes
        }),
        (0u64..20, 0u32..3).prop_map(|(seq, epoch)| {
            let mut bytes = Vec::new();
            let after = Some(wire::Place { seq, epoch });
            append_frame(&mut bytes, Kind::Sync, &wire::Sync { after });
            bytes
        }),
        (0u32..9, 0u64..9, 0u8..3).prop_map(|(request_id, seq, start)| {
            let mut bytes = Vec::new();
            let history = wire::History {
                request_id,
                start: match start {
                    0 => None,
                    1 => Some(wire::history::Start::BeforeSeq(seq)),
                    _ => Some(wire::history::Start::AfterSeq(seq)),
                },
                of: Some(wire::history::Of::User(1)),
                limit: 3,
            };
            append_frame(&mut bytes, Kind::History, &history);
            bytes
        }),
        proptest::collection::vec(any::<u8>(), 0..30),
    ]
}

/// What the server says to a flight of bytes that comes in the given pieces: the kinds, in any
/// order, as answers may come earlier or later; `None` if it closed, as then some were too late,
/// and of two reasons to close either may come first.
fn answers(flight: &[u8], pieces: &[usize], opened: bool) -> Option<Vec<Kind>> {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let link = world.connect();
    let mut flight = flight.to_vec();
    if opened {
        flight = [Peer::new(token).hello(), flight].concat();
    }
    let mut rest = &flight[..];
    for &piece in pieces.iter().cycle() {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        world.send(link, now);
        world.run();
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    let frames = world.frames(link);
    if world.links[link].closed {
        return None;
    }
    let mut kinds: Vec<Kind> = frames.into_iter().map(|(kind, _)| kind).collect();
    kinds.retain(|kind| *kind != Kind::Events);
    kinds.sort_unstable();
    Some(kinds)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
        pieces in proptest::collection::vec(1usize..50, 1..10),
        opened: bool,
    ) {
        let whole = answers(&bytes, &[usize::MAX], opened);
        prop_assert_eq!(answers(&bytes, &pieces, opened), whole);
    }

    #[test]
    fn odd_frames_do_no_harm(
        frames in proptest::collection::vec(frame(), 0..30),
        pieces in proptest::collection::vec(1usize..50, 1..10),
    ) {
        let bytes = frames.concat();
        let whole = answers(&bytes, &[usize::MAX], true);
        prop_assert_eq!(answers(&bytes, &pieces, true), whole);
    }
}

#[test]
fn a_flood_that_is_not_read_is_not_read_either() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    world.run();
    let link = phone.link.unwrap();
    world.links[link].takes = 0;
    let mut ping = Vec::new();
    append_ping(&mut ping);
    // Nearly as many as may be in a second, until the answers are more than are kept.
    let (flood, times) = (ping.repeat(500), 33);
    for _ in 0..times {
        world.send(link, &flood);
        world.advance(1_000);
        world.run();
        let ticket = world.links[link].ticket.unwrap();
        assert!(world.engines[0].output(ticket).len() <= 33 * 1024);
    }
    let read = world.engines[0].counters().of_kind_in(Kind::Ping).frames;
    assert!(read < 500 * times, "{read} were read");
    // When it reads on, it gets every answer.
    world.links[link].takes = usize::MAX;
    world.write(link);
    world.run();
    let pongs = world.frames(link).iter().filter(|(kind, _)| *kind == Kind::Pong).count();
    assert_eq!(pongs as u64, 500 * times);
}

/// Two thousand hostile clients, some of them with heartbeats as fast as they went, once made the
/// others wait for two seconds.
#[test]
fn a_flood_of_what_brings_nothing_is_closed() {
    let mut ping = Vec::new();
    append_ping(&mut ping);
    let mut refused = Vec::new();
    append_frame(&mut refused, Kind::Resolve, &wire::Resolve::default());
    let mut stale = Vec::new();
    append_frame(&mut stale, Kind::Ack, &wire::Ack { cursor: Some(wire::Place::default()) });
    for flood in [ping, vec![0x02, 0x7F, 0x00], refused, stale] {
        let mut world = World::new(1);
        let (_, token) = world.user("ada");
        let mut phone = Peer::new(token);
        phone.connect(&mut world);
        world.run();
        let link = phone.link.unwrap();
        world.frames(link);
        // One less than may be, each second.
        let most = usize::from(MAX_FRUITLESS_FRAMES) - 2;
        let frames = flood.repeat(most);
        for _ in 0..3 {
            world.send(link, &frames);
            world.run();
            world.advance(1_000);
        }
        assert!(world.frames(link).iter().all(|(kind, _)| *kind != Kind::Close));
        world.send(link, &flood.repeat(10_000));
        world.run();
        assert_eq!(closing(&mut world, link), Some(ErrorCode::RateLimited));
    }
}

#[test]
fn who_sends_on_and_on_too_fast_is_closed_and_who_goes_back_as_told_is_not() {
    let mut world = World::with(1, |settings| settings.sends_per_second = 1);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    world.run();
    let link = phone.link.unwrap();
    world.frames(link);
    let mut all = Vec::new();
    for send_no in 1..=64 {
        append_frame(&mut all, Kind::Send, &send_to(ada.0, send_no));
    }
    for _ in 0..6 {
        world.send(link, &all);
        world.run();
        let frames = world.frames(link);
        let refused = frames.iter().filter(|(kind, _)| *kind == Kind::SendRefused);
        let waits: Vec<u32> = refused
            .map(|(_, body)| wire::SendRefused::decode(&body[..]).unwrap())
            .filter(|refused| refused.code == ErrorCode::RateLimited as u32)
            .map(|refused| refused.retry_after_ms)
            .collect();
        assert!(!waits.is_empty() && frames.iter().all(|(kind, _)| *kind != Kind::Close));
        world.advance(waits[0].into());
    }
    world.send(link, &all.repeat(20));
    world.run();
    assert_eq!(closing(&mut world, link), Some(ErrorCode::RateLimited));
}

#[test]
fn who_says_on_and_on_what_was_acknowledged_is_closed_and_who_says_it_again_is_not() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    world.run();
    let link = phone.link.unwrap();
    let mut all = Vec::new();
    let in_flight = MAX_SEND_SPAN + 1;
    for send_no in 1..=in_flight {
        append_frame(&mut all, Kind::Send, &send_to(ada.0, send_no));
    }
    // Once, and again each second: as who has lost the answers would.
    for _ in 0..4 {
        world.frames(link);
        world.send(link, &all);
        world.run();
        let frames = world.frames(link);
        let acks = frames.iter().filter(|(kind, _)| *kind == Kind::SendAck).count();
        assert_eq!(acks as u64, in_flight);
        assert!(frames.iter().all(|(kind, _)| *kind != Kind::Close));
        world.advance(1_000);
    }
    for _ in 0..=u64::from(MAX_FRUITLESS_FRAMES) / in_flight {
        world.send(link, &all);
        world.run();
    }
    assert_eq!(closing(&mut world, link), Some(ErrorCode::RateLimited));
}

fn send_to(user: u32, send_no: u64) -> wire::Send {
    let to = Some(wire::send::To::User(user));
    let content = b"hi"[..].into();
    wire::Send { send_no, nonce: send_no, oldest: 1, content, to, ..Default::default() }
}

/// The code of the CLOSE that a link was told last, with a time to come back.
fn closing(world: &mut World, link: usize) -> Option<ErrorCode> {
    let frames = world.frames(link);
    let (_, body) = frames.iter().find(|(kind, _)| *kind == Kind::Close)?;
    let close = wire::Close::decode(&body[..]).unwrap();
    assert!(close.retry_after_ms > 0 && frames.len() <= usize::from(MAX_FRUITLESS_FRAMES) + 1);
    ErrorCode::from_number(close.code)
}

#[test]
fn openers_that_are_refused_may_be_few() {
    let mut world = World::new(1);
    world.user("ada");
    let link = world.connect();
    let mut login = Vec::new();
    let wrong = wire::Login {
        opening: world::peer::opening(),
        name: "ada".into(),
        password: "wrong password".into(),
        ..Default::default()
    };
    append_frame(&mut login, Kind::Login, &wrong);
    let most = usize::from(MAX_FRUITLESS_FRAMES / OPENER_FRUITLESS_FRAMES);
    for _ in 0..most {
        world.send(link, &login);
        world.run();
    }
    assert_eq!(world.frames(link).len(), most, "each is answered");
    world.send(link, &login);
    world.run();
    assert_eq!(closing(&mut world, link), Some(ErrorCode::RateLimited));
}

#[test]
fn frames_that_never_come_whole_make_room_for_those_that_do() {
    const HALF_BYTES: usize = MAX_FRAME_BYTES - 1_000;
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    world.run();
    let half = |world: &mut World, number: usize| {
        let (_, token) = world.user(&format!("foe{number}"));
        let link = world.connect();
        world.send(link, &Peer::new(token).hello());
        world.run();
        let mut bytes = Vec::new();
        starling_codec::append_header(&mut bytes, Kind::Send, MAX_FRAME_BYTES - 1);
        bytes.resize(HALF_BYTES, 7);
        world.send(link, &bytes);
        world.run();
        world.frames(link);
        link
    };
    let foes: Vec<usize> = (0..200).map(|number| half(&mut world, number)).collect();
    // Ada's frame comes in two parts, with more foes between than there is room for.
    let held = |world: &World| world.engines[0].counters().unfinished_bytes as usize;
    assert!(held(&world) <= 4 << 20 && held(&world) > 4 << 19, "{}", held(&world));
    let room = held(&world) / HALF_BYTES;
    let mut frame = Vec::new();
    let resolve = wire::Resolve { request_id: 1, ..Default::default() };
    append_frame(&mut frame, Kind::Resolve, &resolve);
    let link = phone.link.unwrap();
    world.frames(link);
    world.send(link, &frame[..2]);
    world.run();
    for number in 0..2 * room {
        half(&mut world, 1_000 + number);
    }
    world.send(link, &frame[2..]);
    world.run();
    assert_eq!(world.frames(link).len(), 1, "the answer");
    let closed = world.engines[0].counters().closings(ErrorCode::Overload) as usize;
    assert_eq!(closed, 200 + 2 * room - room, "those that waited longest");
    assert!(world.links[foes[0]].closed && !world.links[link].closed);
    assert_eq!(world.engines[0].counters().unfinished as usize, closed);
}

/// Of two thousand silent clients a few hundred once came to their end in one turn.
#[test]
fn a_crowd_of_silent_ones_ends_in_small_parts() {
    let mut world = World::new(1);
    let links: Vec<usize> = (0..1_000).map(|_| world.connect()).collect();
    world.run();
    let now = |world: &World| world.now;
    world.now.mono_ms += OPENING_TIMEOUT_MS + 2_000;
    let at = now(&world);
    let mut turns = 0;
    while world.engines[0].counters().closings(ErrorCode::OpeningTimeout) < links.len() as u64 {
        let before = world.engines[0].counters().closings(ErrorCode::OpeningTimeout);
        world.engines[0].turn(at);
        let closed = world.engines[0].counters().closings(ErrorCode::OpeningTimeout) - before;
        assert!((1..=32).contains(&closed), "{closed} in a turn");
        assert_eq!(world.engines[0].wake_at(), Some(0));
        turns += 1;
    }
    assert!(turns >= 30);
    world.run();
    assert!(links.iter().all(|&link| world.links[link].closed));
}

#[test]
fn pages_do_not_pile_up_for_who_does_not_read_them() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    for _ in 0..50 {
        phone.write(&mut world, ada, &[5; 4_000]);
    }
    world::peer::talk(&mut world, &mut [&mut phone]);
    let link = phone.link.unwrap();
    world.links[link].takes = 0;
    for request_id in 1..=16 {
        let history = wire::History {
            request_id,
            of: Some(wire::history::Of::User(ada.0)),
            ..Default::default()
        };
        phone.frame(&mut world, Kind::History, &history);
    }
    world.run();
    let ticket = world.links[link].ticket.unwrap();
    assert!(world.engines[0].output(ticket).len() <= 66 * 1024);
    world.links[link].takes = usize::MAX;
    world.write(link);
    world.run();
    let pages = world.frames(link).iter().filter(|(kind, _)| *kind == Kind::HistoryPage).count();
    assert_eq!(pages, 16);
}
