//! Accounts, the operator, and the requests of a session.

mod world;

use prost::Message;
use starling_codec::{
    ErrorCode, Kind, append_frame,
    wire::{self, history::Start},
};
use world::{
    OPERATOR_KEY, World,
    peer::{Peer, opening, talk},
};

/// Says something and gets the last frame that came back.
fn ask<M: Message>(world: &mut World, link: usize, kind: Kind, body: &M) -> (Kind, Vec<u8>) {
    let mut bytes = Vec::new();
    append_frame(&mut bytes, kind, body);
    world.send(link, &bytes);
    world.run();
    world.frames(link).pop().expect("an answer")
}

fn register(name: &str, password: &str) -> wire::Register {
    let (name, password) = (name.into(), password.into());
    wire::Register { opening: opening(), name, password, platform: "test".into() }
}

fn login(name: &str, password: &str, device: u32) -> wire::Login {
    let (name, password) = (name.into(), password.into());
    wire::Login { opening: opening(), name, password, device, platform: "test".into() }
}

fn granted((kind, body): (Kind, Vec<u8>)) -> wire::Grant {
    assert_eq!(kind, Kind::Grant, "{:?}", wire::Refused::decode(&body[..]));
    wire::Grant::decode(&body[..]).unwrap()
}

fn refused((kind, body): (Kind, Vec<u8>)) -> ErrorCode {
    assert_eq!(kind, Kind::Refused);
    ErrorCode::from_number(wire::Refused::decode(&body[..]).unwrap().code).unwrap()
}

fn closed(world: &mut World, link: usize) -> ErrorCode {
    let (kind, body) = world.frames(link).pop().expect("a frame");
    assert_eq!(kind, Kind::Close);
    ErrorCode::from_number(wire::Close::decode(&body[..]).unwrap().code).unwrap()
}

#[test]
fn register_log_in_and_talk_on_one_connection() {
    for shards in 1..=3 {
        let mut world = World::new(shards);
        let link = world.connect();
        let grant =
            granted(ask(&mut world, link, Kind::Register, &register("Ada", "correct horse")));
        assert_eq!((grant.name.as_str(), grant.request_id), ("ada", 0));
        assert_eq!(grant.expires_ms, world::START_MS / 1_000 * 1_000 + 30 * 86_400_000);

        let again = ask(&mut world, link, Kind::Register, &register("ADA", "another horse"));
        assert_eq!(refused(again), ErrorCode::NameTaken);
        let wrong = ask(&mut world, link, Kind::Login, &login("ada", "wrong horse", 0));
        assert_eq!(refused(wrong), ErrorCode::WrongPassword);
        let nobody = ask(&mut world, link, Kind::Login, &login("nobody", "correct horse", 0));
        assert_eq!(refused(nobody), ErrorCode::WrongPassword);
        let bad = ask(&mut world, link, Kind::Register, &register("a b", "correct horse"));
        assert_eq!(refused(bad), ErrorCode::NameInvalid);
        let short = ask(&mut world, link, Kind::Register, &register("bob", "short"));
        assert_eq!(refused(short), ErrorCode::PasswordInvalid);

        let second = granted(ask(&mut world, link, Kind::Login, &login("ada", "correct horse", 0)));
        assert_eq!((second.user, second.device), (grant.user, 2));
        let hello = Peer::new(second.token.to_vec()).hello();
        world.send(link, &hello);
        world.run();
        assert_eq!(world.frames(link)[0].0, Kind::Welcome);
    }
}

#[test]
fn openers_behind_each_other_wait_their_turn() {
    let mut world = World::new(1);
    let link = world.connect();
    let mut bytes = Vec::new();
    append_frame(&mut bytes, Kind::Register, &register("ada", "correct horse"));
    append_frame(&mut bytes, Kind::Register, &register("ada", "correct horse"));
    append_frame(&mut bytes, Kind::Login, &login("ada", "correct horse", 0));
    world.send(link, &bytes);
    world.run();
    let kinds: Vec<Kind> = world.frames(link).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Grant, Kind::Refused, Kind::Grant]);
}

#[test]
fn a_device_taken_again_loses_its_old_token_and_session() {
    for shards in 1..=3 {
        let mut world = World::new(shards);
        let link = world.connect();
        let first =
            granted(ask(&mut world, link, Kind::Register, &register("ada", "correct horse")));
        let mut old = Peer::new(first.token.to_vec());
        old.connect(&mut world);
        talk(&mut world, &mut [&mut old]);
        for other in 0..3 {
            let link = world.connect();
            let again =
                granted(ask(&mut world, link, Kind::Login, &login("ada", "correct horse", 1)));
            assert_eq!(again.device, first.device);
            old.look(&mut world);
            assert_eq!(old.code(), Some(ErrorCode::TokenRevoked), "{shards} shards, {other}");
            old = Peer::new(again.token.to_vec());
            old.connect(&mut world);
            talk(&mut world, &mut [&mut old]);
            assert!(old.welcome.is_some());
        }
        let mut late = Peer::new(first.token.to_vec());
        late.connect(&mut world);
        talk(&mut world, &mut [&mut late]);
        assert_eq!(late.code(), Some(ErrorCode::TokenRevoked));
    }
}

#[test]
fn a_new_password_ends_the_other_sessions_at_once() {
    let mut world = World::new(1);
    let link = world.connect();
    let grant = granted(ask(&mut world, link, Kind::Register, &register("ada", "correct horse")));
    let second = granted(ask(&mut world, link, Kind::Login, &login("ada", "correct horse", 0)));
    let mut phone = Peer::new(grant.token.to_vec());
    let mut laptop = Peer::new(second.token.to_vec());
    phone.connect(&mut world);
    laptop.connect(&mut world);
    talk(&mut world, &mut [&mut phone, &mut laptop]);
    let mut change = wire::ChangePassword {
        request_id: 4,
        old_password: "wrong horse".into(),
        new_password: "battery staple".into(),
    };
    let link = phone.link.unwrap();
    let answer = ask(&mut world, link, Kind::ChangePassword, &change);
    assert_eq!(refused(answer), ErrorCode::WrongPassword);
    change.old_password = "correct horse".into();
    // A greeting that has read the old serial, but is not done, does not slip through.
    let mut slow = Peer::new(second.token.to_vec());
    slow.connect_no = 7;
    slow.connect(&mut world);
    let read = world.store.read(&starling_codec::Query::Device {
        user: starling_codec::UserId(1),
        device: starling_codec::DeviceId(2),
        highest: starling_codec::Place::START,
        last_epoch: starling_codec::Epoch(0),
        last_tag: starling_codec::EpochTag(0),
    });
    world.hold_reads = true;
    let mut bytes = Vec::new();
    append_frame(&mut bytes, Kind::ChangePassword, &change);
    world.send(link, &bytes);
    world.run();
    world.answer_one();
    world.run();
    world.answer_one_with(read);
    world.hold_reads = false;
    world.run();
    let fresh = granted(world.frames(link).pop().unwrap());
    assert_eq!(fresh.request_id, 4);
    laptop.look(&mut world);
    slow.look(&mut world);
    assert_eq!(laptop.code(), Some(ErrorCode::TokenRevoked));
    assert_eq!(slow.code(), Some(ErrorCode::TokenRevoked));
    assert!(!world.links[link].closed);
    // The new token and the new password are good, the old ones are not.
    let mut next = Peer::new(fresh.token.to_vec());
    next.connect_no = 1;
    next.connect(&mut world);
    talk(&mut world, &mut [&mut next]);
    assert!(next.welcome.is_some());
    let link = world.connect();
    let old = ask(&mut world, link, Kind::Login, &login("ada", "correct horse", 0));
    assert_eq!(refused(old), ErrorCode::WrongPassword);
    granted(ask(&mut world, link, Kind::Login, &login("ada", "battery staple", 0)));
}

#[test]
fn a_token_is_refreshed_and_revoked() {
    let mut world = World::new(1);
    let (_, token) = world.user("ada");
    let mut phone = Peer::new(token.clone());
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    world.wait(5);
    let link = phone.link.unwrap();
    let fresh = granted(ask(&mut world, link, Kind::Refresh, &wire::Refresh { request_id: 9 }));
    assert_eq!((fresh.request_id, fresh.name.as_str()), (9, "ada"));
    assert_ne!(fresh.token, token);

    let mut bytes = Vec::new();
    append_frame(&mut bytes, Kind::Logout, &wire::Logout { request_id: 10 });
    world.send(link, &bytes);
    world.run();
    let kinds: Vec<Kind> = world.frames(link).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Done, Kind::Close]);
    for token in [token, fresh.token.to_vec()] {
        let link = world.connect();
        world.send(link, &Peer::new(token).hello());
        world.run();
        assert_eq!(closed(&mut world, link), ErrorCode::TokenRevoked);
    }
}

#[test]
fn the_operator_makes_users_and_reads_counters() {
    let mut world = World::new(2);
    let link = world.connect();
    let wrong = wire::Operator { opening: opening(), key: b"a guess"[..].into() };
    let mut bytes = Vec::new();
    append_frame(&mut bytes, Kind::Operator, &wrong);
    world.send(link, &bytes);
    world.run();
    assert_eq!(closed(&mut world, link), ErrorCode::WrongOperatorKey);

    let link = world.connect();
    let operator = wire::Operator { opening: opening(), key: OPERATOR_KEY.into() };
    assert_eq!(ask(&mut world, link, Kind::Operator, &operator).0, Kind::Done);
    let names: Vec<String> = (0..1_000).map(|number| format!("User{number}")).collect();
    let create = wire::CreateUsers { request_id: 1, names, token_lifetime_s: 60 };
    let (kind, body) = ask(&mut world, link, Kind::CreateUsers, &create);
    assert_eq!(kind, Kind::CreatedUsers);
    let created = wire::CreatedUsers::decode(&body[..]).unwrap();
    assert_eq!((created.request_id, created.users.len()), (1, 1_000));
    for user in created.users.iter().step_by(99) {
        let mut phone = Peer::new(user.token.to_vec());
        phone.connect(&mut world);
        talk(&mut world, &mut [&mut phone]);
        assert_eq!(phone.welcome.unwrap().user, user.user);
    }
    for names in [vec![], vec!["ada".into(), "a b".into()], vec!["ada".into(); 1_001]] {
        let create = wire::CreateUsers { request_id: 2, names, token_lifetime_s: 0 };
        let code = refused(ask(&mut world, link, Kind::CreateUsers, &create));
        assert!(matches!(code, ErrorCode::BadField | ErrorCode::NameInvalid));
    }
    let (kind, body) = ask(&mut world, link, Kind::Stats, &wire::Stats { request_id: 3 });
    assert_eq!(kind, Kind::StatsPage);
    let page = wire::StatsPage::decode(&body[..]).unwrap();
    let sources = ["shard 0", "shard 1"];
    assert!(sources.iter().all(|source| page.counters.iter().any(|c| c.source == *source)));
    assert!(
        page.counters.iter().any(|c| c.name == "frames_in" && c.part == "HELLO" && c.value > 0)
    );
}

#[test]
fn names_and_users_are_found_both_ways() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let (bob, _) = world.user("bob");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    let link = phone.link.unwrap();
    let by = |who| wire::Resolve { request_id: 5, who: Some(who) };
    let found = |(kind, body): (Kind, Vec<u8>)| {
        assert_eq!(kind, Kind::Resolved);
        wire::Resolved::decode(&body[..]).unwrap()
    };
    use wire::resolve::Who;
    let bob_found = found(ask(&mut world, link, Kind::Resolve, &by(Who::Name("BOB".into()))));
    assert_eq!((bob_found.user, bob_found.name.as_str(), bob_found.request_id), (bob.0, "bob", 5));
    let ada_found = found(ask(&mut world, link, Kind::Resolve, &by(Who::User(ada.0))));
    assert_eq!(ada_found.name, "ada");
    for (resolve, code) in [
        (by(Who::Name("eve".into())), ErrorCode::UnknownUser),
        (by(Who::Name("!".into())), ErrorCode::NameInvalid),
        (by(Who::User(77)), ErrorCode::UnknownUser),
        (by(Who::User(0)), ErrorCode::UnknownUser),
        (wire::Resolve { request_id: 5, who: None }, ErrorCode::BadField),
    ] {
        assert_eq!(refused(ask(&mut world, link, Kind::Resolve, &resolve)), code);
    }
}

#[test]
fn history_is_paged_both_ways() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let (bob, _) = world.user("bob");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    for _ in 0..10 {
        phone.write(&mut world, bob, b"hello");
    }
    talk(&mut world, &mut [&mut phone]);
    let link = phone.link.unwrap();
    let history = |start, limit| wire::History {
        request_id: 1,
        of: Some(wire::history::Of::User(bob.0)),
        start,
        limit,
    };
    let page = |(kind, body): (Kind, Vec<u8>)| {
        assert_eq!(kind, Kind::HistoryPage);
        let page = wire::HistoryPage::decode(&body[..]).unwrap();
        assert_eq!(page.head.unwrap().seq, 10);
        (page.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), page.more)
    };
    for (start, limit, seqs, more) in [
        (None, 3, vec![8, 9, 10], true),
        (Some(Start::BeforeSeq(3)), 3, vec![1, 2], false),
        (Some(Start::BeforeSeq(0)), 3, vec![], false),
        (Some(Start::AfterSeq(0)), 3, vec![1, 2, 3], true),
        (Some(Start::AfterSeq(4)), 2, vec![5, 6], true),
        (Some(Start::AfterSeq(10)), 2, vec![], false),
        (None, 0, (1..=10).collect(), false),
    ] {
        let answer = ask(&mut world, link, Kind::History, &history(start, limit));
        assert_eq!(page(answer), (seqs, more), "{start:?}");
    }

    let other = starling_codec::ConversationId::direct(bob, starling_codec::UserId(9));
    let foreign =
        wire::History { of: Some(wire::history::Of::Conversation(other.0)), ..history(None, 1) };
    let answer = ask(&mut world, link, Kind::History, &foreign);
    assert_eq!(refused(answer), ErrorCode::UnknownConversation);
    assert_eq!(ada.0, 1);
}

#[test]
fn more_requests_at_once_than_may_be_are_refused() {
    let mut world = World::new(1);
    let (ada, token) = world.user("ada");
    let mut phone = Peer::new(token);
    phone.connect(&mut world);
    talk(&mut world, &mut [&mut phone]);
    world.hold_reads = true;
    for request_id in 1..=20 {
        let who = Some(wire::resolve::Who::User(ada.0));
        phone.frame(&mut world, Kind::Resolve, &wire::Resolve { request_id, who });
    }
    world.run();
    let link = phone.link.unwrap();
    let refusals = world.frames(link);
    assert_eq!(refusals.len(), 4);
    assert_eq!(refused(refusals[0].clone()), ErrorCode::TooManyRequests);
    world.hold_reads = false;
    world.run();
    assert_eq!(world.frames(link).len(), 16);
}
