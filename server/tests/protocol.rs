//! What may be said in which state, and what happens otherwise: over the wire, against the real
//! server.

mod common;

use bytes::Bytes;
use common::{
    Server,
    wire::{Wire, hello, login, opening, register, send_to, sum},
};
use starling_codec::{ErrorCode, Kind, MAGIC, append_frame, append_header, limits, wire as bodies};
use starling_engine::{Phase, allowed};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const PASSWORD: &str = "correct horse";

/// What a browser says; its first letter is a length of 71.
const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:7400\r\nUser-Agent: a browser that is \
                      lost\r\nAccept: */*\r\n\r\n";

/// A server, and a connection in a phase.
struct House {
    server: Server,
    grant: bodies::Grant,
    connect_no: u64,
}

impl House {
    fn new() -> House {
        let server = Server::start(&["--shards", "2"]);
        let grant = Wire::connect(server.address).register("ada", PASSWORD);
        House { server, grant, connect_no: 0 }
    }

    fn connect(&self) -> Wire {
        Wire::connect(self.server.address)
    }

    fn session(&mut self) -> Wire {
        self.connect_no += 1;
        let mut wire = self.connect();
        wire.hello(&self.grant.token, self.connect_no);
        wire
    }

    fn operator(&self) -> Wire {
        let mut wire = self.connect();
        let key = self.server.operator_key().into();
        wire.send(Kind::Operator, &bodies::Operator { opening: opening(), key });
        wire.expect::<bodies::Done>(Kind::Done);
        wire
    }
}

#[test]
fn a_kind_that_its_state_does_not_allow_closes_with_wrong_state() {
    let mut house = House::new();
    for &kind in Kind::ALL {
        for phase in [Phase::Opening, Phase::Session, Phase::Operator] {
            if allowed(kind, phase) {
                continue;
            }
            let mut wire = match phase {
                Phase::Opening => house.connect(),
                Phase::Session => house.session(),
                _ => house.operator(),
            };
            wire.send_bare(kind);
            let code = wire.expect_close();
            assert_eq!(code, ErrorCode::WrongState, "{} in {}", kind.name(), phase.name());
        }
    }
    house.server.end();
}

#[test]
fn what_is_no_frame_closes_with_its_reason() {
    let mut house = House::new();
    let long_length = [0xFF; 10];
    let no_length = [0x00];
    let mut large = Vec::new();
    append_header(&mut large, Kind::Hello, limits::MAX_OPENING_FRAME_BYTES);
    let mut large_in_session = Vec::new();
    append_header(&mut large_in_session, Kind::Send, limits::MAX_FRAME_BYTES);
    let compressed = [0x02, Kind::Hello as u8 | Kind::COMPRESSED, 0x00];
    let not_its_body = [0x03, Kind::Hello as u8, 0xFF, 0xFF];

    let opening: [(&[u8], ErrorCode); 6] = [
        (&long_length, ErrorCode::BadFrame),
        (&no_length, ErrorCode::BadFrame),
        (&large, ErrorCode::FrameTooLarge),
        (&compressed, ErrorCode::BadFrame),
        (&not_its_body, ErrorCode::BadFrame),
        (HTTP, ErrorCode::BadMagic),
    ];
    for (bytes, expected) in opening {
        let mut wire = house.connect();
        wire.send_bytes(bytes);
        assert_eq!(wire.expect_close(), expected, "{bytes:?}");
    }
    for (bytes, expected) in
        [(&long_length[..], ErrorCode::BadFrame), (&large_in_session, ErrorCode::FrameTooLarge)]
    {
        let mut wire = house.session();
        wire.send_bytes(bytes);
        assert_eq!(wire.expect_close(), expected, "{bytes:?}");
    }
    house.server.end();
}

#[test]
fn a_kind_of_the_future_is_skipped_in_a_session() {
    let mut house = House::new();
    let mut wire = house.session();
    wire.send_bytes(&[0x04, 0x7F, 1, 2, 3]);
    wire.send_bare(Kind::Ping);
    wire.expect::<bodies::Done>(Kind::Pong);
    house.server.end();
}

#[test]
fn openers_that_are_not_ours() {
    let house = House::new();
    let with_opening = |change: fn(&mut bodies::Opening)| {
        let mut hello = hello(&house.grant.token, 1);
        change(hello.opening.as_mut().unwrap());
        let mut wire = house.connect();
        wire.send(Kind::Hello, &hello);
        wire.expect_close()
    };
    assert_eq!(with_opening(|opening| opening.magic = MAGIC + 1), ErrorCode::BadMagic);
    assert_eq!(with_opening(|opening| opening.version = 0), ErrorCode::VersionUnsupported);
    assert_eq!(with_opening(|opening| opening.client = "x".repeat(65)), ErrorCode::BadField);
    house.server.end();
}

#[test]
fn tokens_that_are_not_good() {
    let house = House::new();
    let with_token = |token: &[u8]| {
        let mut wire = house.connect();
        wire.send(Kind::Hello, &hello(&Bytes::copy_from_slice(token), 1));
        wire.expect_close()
    };
    let token = house.grant.token.to_vec();
    assert_eq!(with_token(b""), ErrorCode::TokenMalformed);
    assert_eq!(with_token(&[1; limits::MAX_TOKEN_BYTES + 1]), ErrorCode::TokenMalformed);
    let mut forged = token.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(with_token(&forged), ErrorCode::TokenForged);
    let mut unknown = token.clone();
    unknown[1] ^= 0x40;
    assert_eq!(with_token(&unknown), ErrorCode::TokenUnknownKey);
    house.server.end();
}

#[test]
fn a_token_expires() {
    let server = Server::start(&["--token-lifetime-s", "1"]);
    let grant = Wire::connect(server.address).register("ada", PASSWORD);
    let until = Instant::now() + common::PATIENCE;
    loop {
        let mut wire = Wire::connect(server.address);
        wire.send(Kind::Hello, &hello(&grant.token, 1));
        match wire.next().expect("an answer") {
            (Kind::Welcome, _) => assert!(Instant::now() < until, "it never expires"),
            (Kind::Close, body) => {
                let close = <bodies::Close as prost::Message>::decode(&body[..]).unwrap();
                assert_eq!(ErrorCode::from_number(close.code), Some(ErrorCode::TokenExpired));
                break;
            }
            (kind, _) => panic!("{}", kind.name()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    server.end();
}

#[test]
fn a_token_is_revoked_by_logout_and_by_a_new_password() {
    let mut house = House::new();
    let mut other = house.connect();
    other.send(Kind::Login, &login("Ada", PASSWORD));
    let second: bodies::Grant = other.expect(Kind::Grant);
    assert_ne!(second.device, house.grant.device);
    other.hello(&second.token, 1);

    let mut first = house.session();
    let change = bodies::ChangePassword {
        request_id: 3,
        old_password: PASSWORD.into(),
        new_password: "battery staple".into(),
    };
    first.send(Kind::ChangePassword, &change);
    let renewed: bodies::Grant = first.expect(Kind::Grant);
    assert_eq!(other.expect_close(), ErrorCode::TokenRevoked);
    for revoked in [&second.token, &house.grant.token] {
        let mut wire = house.connect();
        wire.send(Kind::Hello, &hello(revoked, 9));
        assert_eq!(wire.expect_close(), ErrorCode::TokenRevoked);
    }
    first.send(Kind::Logout, &bodies::Logout { request_id: 4 });
    first.expect::<bodies::Done>(Kind::Done);
    assert_eq!(first.expect_close(), ErrorCode::LoggedOut);
    let mut wire = house.connect();
    wire.send(Kind::Hello, &hello(&renewed.token, 10));
    assert_eq!(wire.expect_close(), ErrorCode::TokenRevoked);
    house.server.end();
}

#[test]
fn accounts_are_refused_by_rule() {
    let house = House::new();
    // Each on a connection of its own: one alone may not try so often in a second.
    let refused = |kind, name: &str, password: &str| {
        let mut wire = house.connect();
        match kind {
            Kind::Register => wire.send(kind, &register(name, password)),
            _ => wire.send(kind, &login(name, password)),
        }
        wire.expect_refused()
    };
    assert_eq!(refused(Kind::Register, "ada", PASSWORD), ErrorCode::NameTaken);
    assert_eq!(refused(Kind::Register, "ab", PASSWORD), ErrorCode::NameInvalid);
    assert_eq!(refused(Kind::Register, &"a".repeat(33), PASSWORD), ErrorCode::NameInvalid);
    assert_eq!(refused(Kind::Register, "bob", "short"), ErrorCode::PasswordInvalid);
    assert_eq!(refused(Kind::Register, "bob", &"x".repeat(257)), ErrorCode::PasswordInvalid);
    assert_eq!(refused(Kind::Login, "nobody", PASSWORD), ErrorCode::WrongPassword);
    for _ in 0..5 {
        assert_eq!(refused(Kind::Login, "ada", "battery staple"), ErrorCode::WrongPassword);
    }
    assert_eq!(refused(Kind::Login, "ada", PASSWORD), ErrorCode::LoginSlowed);
    // A refused opener leaves the connection as it was.
    let mut wire = house.connect();
    wire.send(Kind::Register, &register("ada", PASSWORD));
    assert_eq!(wire.expect_refused(), ErrorCode::NameTaken);
    wire.register("bob", PASSWORD);
    house.server.end();
}

#[test]
fn the_operator_needs_the_key() {
    let house = House::new();
    let mut wire = house.connect();
    let key = Bytes::from_static(b"not the key");
    wire.send(Kind::Operator, &bodies::Operator { opening: opening(), key });
    assert_eq!(wire.expect_close(), ErrorCode::WrongOperatorKey);
    house.server.end();
}

#[test]
fn sends_are_refused_by_rule() {
    let mut house = House::new();
    let ada = house.grant.user;
    let mut wire = house.session();
    let mut refused = |send: bodies::Send| {
        wire.send(Kind::Send, &send);
        wire.expect_refused()
    };
    let send = |no| send_to(ada, no, "hello");
    assert_eq!(refused(bodies::Send { oldest: 2, ..send(1) }), ErrorCode::SendSpan);
    assert_eq!(refused(bodies::Send { oldest: 1, ..send(65) }), ErrorCode::SendSpan);
    assert_eq!(refused(bodies::Send { content: Bytes::new(), ..send(1) }), ErrorCode::ContentEmpty);
    let content = vec![0; limits::MAX_CONTENT_BYTES + 1].into();
    assert_eq!(refused(bodies::Send { content, ..send(1) }), ErrorCode::ContentTooLarge);
    let class = bodies::Class::Replicated as i32;
    assert_eq!(refused(bodies::Send { class, ..send(1) }), ErrorCode::ClassUnavailable);
    assert_eq!(refused(send_to(ada + 1_000, 1, "hello")), ErrorCode::UnknownUser);
    let to = Some(bodies::send::To::Conversation(12));
    assert_eq!(refused(bodies::Send { to, ..send(1) }), ErrorCode::UnknownConversation);

    wire.send(Kind::Send, &send(1));
    wire.await_kind::<bodies::SendAck>(Kind::SendAck);
    wire.send(Kind::Send, &bodies::Send { nonce: 99, ..send(1) });
    let refused: bodies::SendRefused = wire.await_kind(Kind::SendRefused);
    assert_eq!(ErrorCode::from_number(refused.code), Some(ErrorCode::SendConflict));

    // A class that there is not, and a message to nobody, are no sends at all.
    for broken in [bodies::Send { class: 9, ..send(2) }, bodies::Send { to: None, ..send(2) }] {
        let mut wire = house.session();
        wire.send(Kind::Send, &broken);
        assert_eq!(wire.expect_close(), ErrorCode::BadField);
    }
    house.server.end();
}

#[test]
fn a_newer_connection_of_a_device_takes_over_and_an_older_is_told_so() {
    let mut house = House::new();
    let mut old = house.session();
    let mut new = house.session();
    let close: bodies::Close = old.expect(Kind::Close);
    assert_eq!(ErrorCode::from_number(close.code), Some(ErrorCode::Replaced));
    assert_eq!(close.winner_connect_no, 2);
    let mut late = house.connect();
    late.send(Kind::Hello, &hello(&house.grant.token, 1));
    let close: bodies::Close = late.expect(Kind::Close);
    assert_eq!(close.winner_connect_no, 2);
    new.send_bare(Kind::Ping);
    new.expect::<bodies::Done>(Kind::Pong);
    let mut operator = house.operator();
    assert_eq!(sum(&operator.counters(), "sessions", ""), 1);
    let said = Instant::now();
    new.send_bare(Kind::Dishello);
    assert_eq!(new.next().map(|(kind, _)| kind), None);
    while sum(&operator.counters(), "sessions", "") > 0 {
        assert!(said.elapsed() < common::PATIENCE, "who went is still there");
    }
    house.server.end();
}

#[test]
fn who_does_not_say_hello_is_closed_after_ten_seconds() {
    let server = Server::start(&[]);
    let connected = Instant::now();
    let mut silent = Wire::connect(server.address);
    let mut slow = Wire::connect(server.address);
    slow.send_bytes(&[0x20]);
    assert_eq!(silent.expect_close(), ErrorCode::OpeningTimeout);
    assert_eq!(slow.expect_close(), ErrorCode::OpeningTimeout);
    let elapsed = connected.elapsed();
    assert!(elapsed >= Duration::from_millis(9_500), "{elapsed:?}");
    server.end();
}

#[test]
fn two_talk_across_shards_and_the_operator_sees_it() {
    // With three shards nearly every pair of users, and their conversation, live apart.
    let server = Server::start(&["--shards", "3"]);
    let mut operator = Wire::connect(server.address);
    let key = server.operator_key().into();
    operator.send(Kind::Operator, &bodies::Operator { opening: opening(), key });
    operator.expect::<bodies::Done>(Kind::Done);
    let names = (0..20).map(|index| format!("user{index}")).collect();
    let create = bodies::CreateUsers { request_id: 1, names, token_lifetime_s: 0 };
    operator.send(Kind::CreateUsers, &create);
    let created: bodies::CreatedUsers = operator.expect(Kind::CreatedUsers);
    assert_eq!(created.users.len(), 20);

    let mut wires: Vec<Wire> = created
        .users
        .iter()
        .map(|user| {
            let mut wire = Wire::connect(server.address);
            wire.hello(&user.token, 1);
            wire
        })
        .collect();
    for (index, wire) in wires.iter_mut().enumerate() {
        let to = created.users[(index + 1) % 20].user;
        wire.send(Kind::Send, &send_to(to, 1, "hello"));
    }
    for wire in &mut wires {
        let (mut acknowledged, mut events) = (false, 0);
        while !acknowledged || events < 2 {
            match wire.next().expect("still there") {
                (Kind::SendAck, _) => acknowledged = true,
                (Kind::Events, body) => {
                    let page = <bodies::Events as prost::Message>::decode(&body[..]).unwrap();
                    let messages = page.events.iter().filter(|event| {
                        matches!(event.kind, Some(bodies::event::Kind::Message(_)))
                    });
                    events += messages.count();
                }
                (kind, _) => panic!("{}", kind.name()),
            }
        }
    }

    let counters = operator.counters();
    let sum = |name: &str, part: &str| sum(&counters, name, part);
    assert_eq!(sum("frames_in", "SEND"), 20);
    assert_eq!(sum("sessions", ""), 20);
    assert!(sum("hops_out", "") > 0 && sum("moved_in", "") > 0);
    assert_eq!(sum("moved_in", ""), sum("moved_out", ""));
    assert!(sum("recv_calls", "") > 20 && sum("syncs", "") > 0 && sum("cpu_user_us", "") > 0);
    let sources: BTreeSet<_> = counters.iter().map(|counter| counter.source.as_str()).collect();
    assert!(sources.is_superset(&["shard 0", "shard 1", "shard 2", "committer", "process"].into()));
    server.end();
}

/// Reads until so many events have come.
fn take_events(wire: &mut Wire, mut events: usize) {
    while events > 0 {
        let page: bodies::Events = wire.await_kind(Kind::Events);
        events = events.checked_sub(page.events.len()).expect("no more than were made");
    }
}

#[test]
fn events_of_a_burst_share_frames() {
    let mut house = House::new();
    let bob = house.connect().register("bob", PASSWORD);
    let (mut operator, mut ada, mut at_bob) = (house.operator(), house.session(), house.connect());
    at_bob.hello(&bob.token, 1);
    let told = |operator: &mut Wire| {
        let counters = operator.counters();
        (sum(&counters, "events_out", ""), sum(&counters, "frames_out", "EVENTS"))
    };
    assert_eq!(told(&mut operator), (0, 0));
    for send_no in 1..=10 {
        ada.send(Kind::Send, &send_to(bob.user, send_no, "one at a time"));
        take_events(&mut ada, 1);
        take_events(&mut at_bob, 1);
    }
    assert_eq!(told(&mut operator), (20, 20));
    let mut burst = Vec::new();
    for send_no in 11..=74 {
        append_frame(&mut burst, Kind::Send, &send_to(bob.user, send_no, "all at once"));
    }
    ada.send_bytes(&burst);
    take_events(&mut ada, 64);
    take_events(&mut at_bob, 64);
    let (events, frames) = told(&mut operator);
    assert_eq!(events, 20 + 128);
    assert!((frames - 20) * 2 <= 128, "{frames} frames for {events} events");
    house.server.end();
}

/// docs/counters.md has a row for each name, and the server reports what has a row.
#[test]
fn every_counter_is_documented() {
    let mut house = House::new();
    let mut wire = house.session();
    wire.send(Kind::Send, &send_to(1_000, 1, "nobody has this number"));
    assert_eq!(wire.expect_refused(), ErrorCode::UnknownUser);
    wire.send_bare(Kind::Welcome);
    assert_eq!(wire.expect_close(), ErrorCode::WrongState);

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/counters.md");
    let text = std::fs::read_to_string(path).unwrap();
    // Of each table the word before it says the source.
    let mut source = "";
    let mut documented = BTreeSet::new();
    for line in text.lines() {
        source = line.strip_prefix("## ").unwrap_or(source);
        if let Some(row) = line.strip_prefix("| `") {
            let (name, rest) = row.split_once('`').unwrap();
            assert!(rest.split('|').skip(1).take(2).all(|cell| !cell.trim().is_empty()), "{line}");
            assert!(documented.insert((source, name)), "twice: {line}");
        }
    }
    let counters = house.operator().counters();
    let reported: BTreeSet<(&str, &str)> = counters
        .iter()
        .map(|counter| (counter.source.split(' ').next().unwrap(), counter.name.as_str()))
        .collect();
    assert_eq!(documented, reported);
    house.server.end();
}
