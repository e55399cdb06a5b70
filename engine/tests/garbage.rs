//! Whatever a peer sends: no panic, no growth, a reason at the end, and the same however the
//! bytes are split.

mod world;

use proptest::prelude::*;
use prost::Message;
use starling_codec::{Kind, append_frame, append_ping, wire};
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
    // As many as may be in a second, for long.
    let flood = ping.repeat(2_000);
    for _ in 0..25 {
        world.send(link, &flood);
        world.advance(1_000);
        world.run();
    }
    let ticket = world.links[link].ticket.unwrap();
    assert!(world.engines[0].output(ticket).len() <= 33 * 1024);
}

/// Two thousand hostile clients, some of them with heartbeats as fast as they went, once made the
/// others wait for two seconds.
#[test]
fn a_flood_of_what_brings_nothing_is_closed() {
    let mut ping = Vec::new();
    append_ping(&mut ping);
    let mut refused = Vec::new();
    append_frame(&mut refused, Kind::Resolve, &wire::Resolve::default());
    for flood in [ping, vec![0x02, 0x7F, 0x00], refused] {
        let mut world = World::new(1);
        let (_, token) = world.user("ada");
        let mut phone = Peer::new(token);
        phone.connect(&mut world);
        world.run();
        let link = phone.link.unwrap();
        world.frames(link);
        world.send(link, &flood.repeat(10_000));
        world.run();
        let frames = world.frames(link);
        let (kind, body) = frames.last().unwrap();
        assert_eq!(*kind, Kind::Close);
        let close = wire::Close::decode(&body[..]).unwrap();
        assert_eq!(close.code, starling_codec::ErrorCode::RateLimited as u32);
        assert!(close.retry_after_ms > 0 && frames.len() <= 2_050);
    }
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
