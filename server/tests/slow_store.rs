//! The store's slow path under the real server: a sync that takes long, one that fails, a disk
//! that runs full in the middle of a write, a queue without room, a shard that stands still. In
//! each: order holds, nothing acknowledged is lost, nothing is there twice, others go on.
//!
//! Nothing here is decided by how long something takes: what is to be slow is held until the test
//! has seen what it wants to see.

mod common;
mod faults;

use common::{
    Server,
    history::History,
    wire::{Wire, hello, login, send_to},
};
use faults::{
    Control, HELD_MS, House,
    people::{Device, PASSWORD, Person, Truth, part, text, within},
};
use starling_client::{Outgoing, Page, Peer, Sending, operator::Operator};
use starling_codec::{
    ConversationId, ErrorCode, Kind, SendNo, UserId, wire as bodies, wire::Class,
};
use starling_engine::route::Route;
use std::time::{Duration, Instant};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Posts texts `from..to` of a stream: each third is buffered.
async fn post(device: &Device, to: UserId, from: usize, end: usize) -> Vec<Sending> {
    let mut sendings = Vec::new();
    for number in from..end {
        let class = if number % 3 == 0 { Class::Buffered } else { Class::Durable };
        let body = format!("{} to {to}: {number}", device.user());
        sendings.push(device.client.post(text(to, &body, class)).await.unwrap());
    }
    sendings
}

async fn acknowledged(sendings: Vec<Sending>) {
    for sending in sendings {
        within("it is acknowledged", sending).await.unwrap();
    }
}

/// Every device has what the server has, and of each stream every text once and in order.
async fn check_streams(address: &str, people: &[Person], streams: &[(UserId, UserId, usize)]) {
    let truth = Truth::of(address, people).await;
    for &(from, to, count) in streams {
        let expected: Vec<String> =
            (0..count).map(|number| format!("{from} to {to}: {number}")).collect();
        for user in [from, to] {
            let conversation = ConversationId::direct(from, to).0;
            let messages = faults::people::messages_of(&truth.inboxes[&user]);
            let found: Vec<String> = messages
                .iter()
                .filter(|message| message.conversation == conversation && message.sender == from.0)
                .map(faults::people::text_in)
                .collect();
            assert_eq!(found, expected, "at {user}");
        }
    }
}

/// Logs a new device in; its token.
fn log_in(wire: &mut Wire, name: &str) -> bytes::Bytes {
    wire.send(Kind::Login, &login(name, PASSWORD));
    wire.expect::<bodies::Grant>(Kind::Grant).token
}

/// Everybody leaves. What some here say frame by frame is in no history, so it is not complete.
async fn end(server: Server, people: Vec<Person>) {
    let recordings = part(&server.address.to_string(), people).await;
    History::of(&recordings).must_hold();
    server.end();
}

/// What is acknowledged waits; reading, logging in with a token and heartbeats do not.
#[test]
fn while_a_sync_takes_long_promises_wait_and_all_else_goes_on() {
    runtime().block_on(async {
        let house = House::new(&["--shards", "2"]);
        let server = house.start();
        let address = house.address();
        let ada = Person::new(&address, "ada", 1).await;
        let bob = Person::new(&address, "bob", 1).await;
        let (from, to) = (&ada.devices[0], bob.user);
        acknowledged(post(from, to, 0, 10).await).await;

        let token = log_in(&mut Wire::connect(server.address), "bob");

        house.set(Control::SyncDelayMs, HELD_MS);
        let (begun, done) = (house.get(Control::SyncsBegun), house.get(Control::SyncsDone));
        let held = post(from, to, 10, 30).await;
        house.above(Control::SyncsBegun, begun).await;

        // The session that waits for its acknowledgement is served: history and names.
        let page = from.client.history(Peer::User(to), Page::Newest, 200).await.unwrap();
        assert_eq!(page.messages.len(), 10, "nobody sees what is not yet promised");
        assert_eq!(from.client.resolve("bob").await.unwrap(), to);
        // Others open sessions, catch up, and are heard.
        let inbox = bob.inbox(&address).await;
        assert_eq!(faults::people::messages_of(&inbox).len(), 10);
        let mut wire = Wire::connect(server.address);
        wire.send(Kind::Hello, &hello(&token, 1));
        wire.await_kind::<bodies::Welcome>(Kind::Welcome);
        wire.send_bare(Kind::Ping);
        wire.await_kind::<bodies::Done>(Kind::Pong);
        // A wrong password is found out without the disk.
        let mut wrong = Wire::connect(server.address);
        wrong.send(Kind::Login, &login("bob", "wrong password"));
        assert_eq!(wrong.expect_refused(), ErrorCode::WrongPassword);
        // A buffered send behind a durable one waits with it, as announcing follows the log.
        wire.send(
            Kind::Send,
            &bodies::Send { class: Class::Buffered as i32, ..send_to(to.0, 1, "to myself") },
        );
        wire.send_bare(Kind::Ping);
        let answers = std::iter::from_fn(|| wire.next().map(|(kind, _)| kind));
        let until_pong: Vec<Kind> = answers.take_while(|kind| *kind != Kind::Pong).collect();
        assert!(until_pong.iter().all(|kind| *kind == Kind::Events), "{until_pong:?}");
        assert_eq!(house.get(Control::SyncsDone), done, "all of this was during the one sync");
        assert!(from.news.lock().unwrap().receipts.len() <= 10);
        drop((wire, wrong));

        // From now on each sync takes two seconds.
        house.set(Control::SyncDelayMs, 2_000);
        acknowledged(held).await;
        let more = post(from, to, 30, 60).await;
        let back = post(&bob.devices[0], ada.user, 0, 30).await;
        acknowledged(more).await;
        acknowledged(back).await;
        house.heal();
        let people = [ada, bob];
        let streams = [(people[0].user, people[1].user, 60), (people[1].user, people[0].user, 30)];
        check_streams(&address, &people, &streams).await;
        end(server, people.into()).await;
    });
}

/// The process says that nobody knows, ends by itself with 3, and the next one has it all.
fn a_store_that_fails(break_it: fn(&House)) {
    runtime().block_on(async {
        let house = House::new(&["--shards", "2"]);
        let server = house.start();
        let address = house.address();
        let mut people = Vec::new();
        for name in ["ada", "bob", "eve"] {
            people.push(Person::new(&address, name, 1).await);
        }
        let users: Vec<UserId> = people.iter().map(|person| person.user).collect();
        let next = |index: usize| (index + 1) % users.len();
        // One that speaks frames, and one that never says a word.
        let mut wire = Wire::connect(server.address);
        let token = log_in(&mut wire, "eve");
        wire.hello(&token, 1);
        let stuck = Wire::connect(server.address);
        for (index, person) in people.iter().enumerate() {
            acknowledged(post(&person.devices[0], users[next(index)], 0, 20).await).await;
        }

        break_it(&house);
        let mut sendings = Vec::new();
        for (index, person) in people.iter().enumerate() {
            sendings.extend(post(&person.devices[0], users[next(index)], 20, 40).await);
        }
        wire.send(Kind::Send, &send_to(users[2].0, 1, "to myself"));
        let told = Instant::now();
        let refused = refusal_of(&mut wire, SendNo(1));
        assert_eq!(refused, ErrorCode::UnknownOutcome);
        let (status, said) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
        let took = told.elapsed();
        assert_eq!(status.code(), Some(3), "{said}");
        assert!(took < Duration::from_secs(5), "it took {took:?} to end");
        assert!(said.contains("the store failed"), "{said}");
        drop(stuck);
        for person in &people {
            let news = person.devices[0].news.lock().unwrap();
            assert!(news.refused.is_empty() && news.stopped.is_none(), "{news:?}");
        }

        house.heal();
        let server = house.start();
        acknowledged(sendings).await;
        let streams: Vec<_> =
            users.iter().enumerate().map(|(index, &from)| (from, users[next(index)], 40)).collect();
        check_streams(&address, &people, &streams).await;
        assert!(!house.data().join("suspect").exists(), "the tables were verified");
        end(server, people).await;
    });
}

fn refusal_of(wire: &mut Wire, number: SendNo) -> ErrorCode {
    loop {
        let (kind, body) = wire.next().expect("an answer before the end");
        let code = match kind {
            Kind::SendRefused => {
                let refused: bodies::SendRefused = prost::Message::decode(&*body).unwrap();
                assert_eq!(refused.send_no, number.0);
                refused.code
            }
            Kind::Close => {
                let close: bodies::Close = prost::Message::decode(&*body).unwrap();
                close.code
            }
            Kind::SendAck => panic!("nothing was promised"),
            _ => continue,
        };
        return ErrorCode::from_number(code).unwrap();
    }
}

#[test]
fn a_sync_that_fails_ends_the_process_and_repeats_end_exactly_once() {
    a_store_that_fails(|house| house.set(Control::SyncErrno, libc::EIO as u32));
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_write_ends_the_process() {
    a_store_that_fails(|house| house.set(Control::WriteErrno, libc::ENOSPC as u32));
}

/// Planted faults: a server that goes on when its disk fails, which is one to whom the disk lies.
#[test]
#[should_panic(expected = "nothing was promised")]
fn a_server_that_minds_no_failing_sync_is_found_out() {
    a_store_that_fails(|house| {
        house.set(Control::HidesFailures, 1);
        house.set(Control::SyncErrno, libc::EIO as u32);
    });
}

#[test]
#[should_panic(expected = "nothing was promised")]
fn a_server_that_minds_no_failing_write_is_found_out() {
    a_store_that_fails(|house| {
        house.set(Control::HidesFailures, 1);
        house.set(Control::WriteErrno, libc::ENOSPC as u32);
    });
}

/// With a credit or two a shard refuses most of what comes, and a slow sync keeps it so.
#[test]
fn a_queue_without_room_refuses_and_loses_and_reorders_nothing() {
    runtime().block_on(async {
        let house = House::new(&["--shards", "2", "--credits", "4"]);
        let server = house.start();
        let address = house.address();
        let mut people = Vec::new();
        for name in ["ada", "bob", "eve", "kim"] {
            people.push(Person::new(&address, name, 1).await);
        }
        let users: Vec<UserId> = people.iter().map(|person| person.user).collect();
        let count = 20;

        house.set(Control::SyncDelayMs, HELD_MS);
        let begun = house.get(Control::SyncsBegun);
        let mut sendings = Vec::new();
        for (index, person) in people.iter().enumerate() {
            let to = users[(index + 1) % users.len()];
            sendings.extend(post(&person.devices[0], to, 0, count).await);
        }
        house.above(Control::SyncsBegun, begun).await;
        // The queue is full, and who wants to read does not wait.
        let device = &people[0].devices[0];
        device.client.history(Peer::User(users[1]), Page::Newest, 200).await.unwrap();
        assert_eq!(device.client.name_of(users[2]).await.unwrap(), "eve");
        people[3].inbox(&address).await;

        house.set(Control::SyncDelayMs, 20);
        acknowledged(sendings).await;
        house.heal();
        let streams: Vec<_> = (0..users.len())
            .map(|index| (users[index], users[(index + 1) % users.len()], count))
            .collect();
        check_streams(&address, &people, &streams).await;
        let mut operator = Operator::connect(&address, &server.operator_key()).await.unwrap();
        let counters = operator.stats().await.unwrap();
        let refused: u64 = counters
            .iter()
            .filter(|counter| counter.name == "refusals" && counter.part == "OVERLOAD")
            .map(|counter| counter.value)
            .sum();
        assert!(refused > 0, "the queue was never full");
        drop(operator);
        end(server, people).await;
    });
}

/// Whoever lives on the other shard does not notice; whoever waits gets it all in order.
#[test]
fn a_shard_that_stands_still_holds_up_nobody_else() {
    runtime().block_on(async {
        let house = House::new(&["--shards", "2"]);
        let server = house.start();
        let address = house.address();
        let mut people = Vec::new();
        for number in 0..8 {
            people.push(Person::new(&address, &format!("user{number}"), 1).await);
        }
        let route = Route::even(2);
        let home = |person: &&Person| route.owner_of(person.user);
        let (still, others): (Vec<&Person>, Vec<&Person>) =
            people.iter().partition(|person| home(person) == 0);
        // Two on the other shard whose conversation lives there too, and one that does not.
        let pair = others.iter().flat_map(|one| others.iter().map(move |two| (*one, *two))).find(
            |(one, two)| {
                one.user != two.user
                    && route.owner_of(ConversationId::direct(one.user, two.user)) == 1
            },
        );
        let ((one, two), held) = (pair.expect("a pair on shard 1"), still[0]);
        assert!(still.len() >= 2);

        house.set(Control::PauseMs, HELD_MS);
        house.pause(&server, "shard-0");
        house.above(Control::PausesBegun, 0).await;
        let paused = Instant::now();
        // Some to and from the shard that stands still, more than a turn takes.
        let mut sendings = post(&one.devices[0], held.user, 0, 300).await;
        sendings.extend(post(&held.devices[0], still[1].user, 0, 60).await);
        let mut rounds = 0;
        while rounds < 50 || paused.elapsed() < Duration::from_secs(1) {
            for (from, to) in [(one, two), (two, one)] {
                let body = format!("{} to {}: {rounds}", from.user, to.user);
                let message: Outgoing = text(to.user, &body, Class::Durable);
                within("others go on", from.devices[0].client.send(message)).await.unwrap();
            }
            rounds += 1;
        }
        let page = one.devices[0].client.history(Peer::User(two.user), Page::Newest, 200).await;
        assert!(!page.unwrap().messages.is_empty());
        assert_eq!(house.get(Control::PausesDone), 0, "all of this was during the pause");
        house.heal();
        acknowledged(sendings).await;
        let streams = [
            (one.user, held.user, 300),
            (held.user, still[1].user, 60),
            (one.user, two.user, rounds),
            (two.user, one.user, rounds),
        ];
        check_streams(&address, &people, &streams).await;
        end(server, people).await;
    });
}
