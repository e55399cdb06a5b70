//! A hundred thousand messages wait for a phone that was away. They come in bounded pages, go on
//! where they stopped at any cut, and what is said meanwhile does not wait for them.

mod common;
mod support;

use common::{
    Server,
    wire::{Wire, hello},
};
use prost::Message;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use starling_client::{
    Client, ClientSettings, Event, Events, Identity, MemoryStore, Outgoing, Peer, StopReason,
    codec::{
        Kind, UserId,
        wire::{self, Class, event},
    },
    content_of, text_of,
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{proxy::Proxy, *};
use tokio::{sync::watch, time::timeout};

const WRITERS: usize = 4;
const OF_EACH: usize = 25_000;
const BACKLOG: usize = WRITERS * OF_EACH;
const CUTS: usize = 8;
/// The backlog is divided by so many; in each part of all but the last few, something is said.
const PARTS: usize = 10;
const SAID: usize = 7;

/// What a device was told, as it is told.
struct Ear {
    events: Arc<Mutex<Vec<wire::Event>>>,
    messages: watch::Receiver<usize>,
}

impl Ear {
    fn listen(mut events: Events) -> Ear {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (count, messages) = watch::channel(0);
        let ear = Ear { events: Arc::clone(&told), messages };
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::Applied(event) => {
                        let message = matches!(event.kind, Some(event::Kind::Message(_)));
                        told.lock().unwrap().push(event);
                        count.send_modify(|count| *count += usize::from(message));
                    }
                    Event::Online(_) | Event::Offline { .. } | Event::Sent { .. } => {}
                    Event::Stopped(StopReason::Closed) => return,
                    other => panic!("{other:?}"),
                }
            }
        });
        ear
    }

    /// Waits until so many messages came.
    async fn has(&self, messages: usize) {
        let mut count = self.messages.clone();
        let enough = count.wait_for(|count| *count >= messages);
        timeout(PATIENCE, enough).await.expect("they come").expect("it listens");
    }

    fn messages(&self) -> usize {
        *self.messages.borrow()
    }

    fn check(&self, writers: &[Identity]) {
        let writers: Vec<UserId> = writers.iter().map(|writer| writer.user).collect();
        check(&self.events.lock().unwrap(), &writers);
    }
}

/// Nothing is missing, doubled or out of order: not in the inbox, not in any conversation.
fn check(events: &[wire::Event], writers: &[UserId]) {
    let mut seq = 0;
    let mut texts: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for event in events {
        assert_eq!(event.prev, seq, "a hole or a repeat in the inbox");
        seq = event.seq;
        let Some(event::Kind::Message(message)) = &event.kind else { continue };
        let texts = texts.entry(message.sender).or_default();
        texts.push(text_of(&message.content).unwrap());
        assert_eq!(message.seq, texts.len() as u64, "a hole or a repeat in a conversation");
    }
    for (number, writer) in writers.iter().enumerate() {
        let said = if number == 0 { SAID } else { 0 };
        assert!(texts[&writer.0].iter().cloned().eq(texts_of(number, OF_EACH + said)));
    }
}

/// Planted faults, in what would be right: one event less, one twice, one less or one twice where
/// the others close ranks, two that changed places, and one with another text.
#[test]
fn what_is_missing_doubled_or_out_of_order_is_found_out() {
    let writers: Vec<UserId> = (2..).take(WRITERS).map(UserId).collect();
    let mut right: Vec<wire::Event> = Vec::new();
    for (number, writer) in writers.iter().enumerate() {
        let said = if number == 0 { SAID } else { 0 };
        for (text, seq) in texts_of(number, OF_EACH + said).zip(1..) {
            let (sender, content) = (writer.0, content_of(&text));
            let message = wire::Message { sender, seq, content, ..wire::Message::default() };
            let kind = Some(event::Kind::Message(message));
            right.push(wire::Event { kind, ..wire::Event::default() });
        }
    }
    let close_ranks = |events: &mut Vec<wire::Event>| {
        for (event, seq) in events.iter_mut().zip(1..) {
            (event.prev, event.seq) = (seq - 1, seq);
        }
    };
    close_ranks(&mut right);
    check(&right, &writers);
    let at = BACKLOG / 3;
    let finds = |plant: &dyn Fn(&mut Vec<wire::Event>)| {
        let mut events = right.clone();
        plant(&mut events);
        assert!(
            catch_unwind(AssertUnwindSafe(|| check(&events, &writers))).is_err(),
            "nothing is found"
        );
    };
    finds(&|events| drop(events.remove(at)));
    finds(&|events| events.insert(at, events[at].clone()));
    finds(&|events| {
        events.remove(at);
        close_ranks(events);
    });
    finds(&|events| {
        events.insert(at, events[at].clone());
        close_ranks(events);
    });
    finds(&|events| {
        let kind = events[at].kind.clone();
        events[at].kind = std::mem::replace(&mut events[at + 1].kind, kind);
    });
    finds(&|events| {
        let Some(event::Kind::Message(message)) = &mut events[at].kind else { unreachable!() };
        message.content = content_of("another text");
    });
}

fn texts_of(writer: usize, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{writer}: {number}"))
}

fn start(server: &str, identity: &Identity) -> (Client, Events) {
    let store = MemoryStore::with_identity(identity.clone());
    Client::start(server, store, ClientSettings::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_messages_drain_at_any_cut_and_nobody_waits_for_them() {
    let server = Server::start(&["--shards", "1", "--sends-per-second", "0"]);
    let direct = server.address.to_string();
    let seed = seed();
    let bob = register(&direct, "bob").await;
    let (desk, phone) = (login(&direct, "bob").await, login(&direct, "bob").await);
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        writers.push(register(&direct, &format!("writer{number}")).await);
    }

    let (desk_client, events) = start(&direct, &desk);
    let desk_ear = Ear::listen(events);
    let mut writing = tokio::task::JoinSet::new();
    for (number, writer) in writers.iter().enumerate() {
        let (client, mut events) = start(&direct, writer);
        let to = bob.user;
        writing.spawn(async move {
            tokio::spawn(async move { while events.next().await.is_some() {} });
            let texts = texts_of(number, OF_EACH);
            assert_eq!(write(&client, to, texts, |_| Class::Buffered).await.len(), OF_EACH);
            (number, client)
        });
    }
    let mut said_by = None;
    while let Some(written) = timeout(PATIENCE, writing.join_next()).await.expect("all is kept") {
        let (number, client) = written.unwrap();
        if number == 0 {
            said_by = Some(client);
        } else {
            client.close().await;
        }
    }
    let said_by = said_by.unwrap();
    desk_ear.has(BACKLOG).await;

    // The first device of Bob's was never there: of all that waits it gets one page.
    let address = server.address;
    tokio::task::spawn_blocking(move || gets_one_page(address, &bob)).await.unwrap();

    let proxy = Proxy::start(server.address, seed).await;
    proxy.be_fair();
    let (phone_client, events) = start(&proxy.server(), &phone);
    let phone_ear = Arc::new(Ear::listen(events));
    let cutting = {
        let (proxy, phone_ear) = (proxy.clone(), Arc::clone(&phone_ear));
        let mut rng = StdRng::seed_from_u64(seed);
        let mut places: Vec<usize> = (0..CUTS).map(|_| rng.random_range(1..BACKLOG)).collect();
        places.sort_unstable();
        tokio::spawn(async move {
            for place in places {
                phone_ear.has(place).await;
                proxy.cut();
                // Two places may be next to each other: the later one is for the next link.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    for number in 0..SAID {
        phone_ear.has(BACKLOG * number / PARTS).await;
        let text = texts_of(0, OF_EACH + SAID).nth(OF_EACH + number).unwrap();
        said_by.send(Outgoing::text(Peer::User(phone.user), &text)).await.unwrap();
        desk_ear.has(BACKLOG + number + 1).await;
        let drained = phone_ear.messages();
        println!("with {drained} drained, the desk has what was said with {number} tenths");
        assert!(drained < BACKLOG, "what was said waited for all that the phone drained");
    }
    phone_ear.has(BACKLOG + SAID).await;
    cutting.await.unwrap();
    let [cuts, ..] = proxy.faults();
    println!("{cuts} cuts");
    assert!(cuts >= CUTS as u64 / 2, "{cuts} cuts");
    for ear in [&*phone_ear, &desk_ear] {
        assert_eq!(ear.messages(), BACKLOG + SAID);
        ear.check(&writers);
    }
    for client in [said_by, phone_client, desk_client] {
        client.close().await;
    }
    server.end();
}

/// No more events than the window has room for, as long as none is acknowledged.
fn gets_one_page(address: std::net::SocketAddr, device: &Identity) {
    let mut wire = Wire::connect(address);
    let hello = hello(&device.token, 1);
    wire.send(Kind::Hello, &hello);
    let welcome: wire::Welcome = wire.expect(Kind::Welcome);
    assert!(welcome.head.unwrap().seq >= BACKLOG as u64);
    let mut events = wire.expect::<wire::Events>(Kind::Events).events.len();
    // Whatever else the server would send comes before one of so many answers.
    for _ in 0..100 {
        wire.send_bare(Kind::Ping);
        loop {
            match wire.next().expect("the link stays") {
                (Kind::Pong, _) => break,
                (Kind::Events, body) => {
                    events += wire::Events::decode(&body[..]).unwrap().events.len();
                }
                (kind, _) => panic!("{}", kind.name()),
            }
        }
    }
    println!("a page of {events} events");
    assert!(events <= hello.window_events as usize, "{events} events and none acknowledged");
}
