//! Messages over links that fail at random, and over a server that dies again and again: each
//! arrives once, in order, at every device. What all of them recorded goes to `starling-check`.

mod common;
mod faults;
mod support;

use common::{
    Server,
    history::{History, Recording},
};
use faults::profile::{Profile, come_to_rest};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use starling_check::Property;
use starling_client::{
    Change, Client, ClientSettings, Identity, Journal, Page, Peer, Receipt, SqliteStore, Store,
    codec::wire::{self, Class},
};
use starling_engine::route::Route;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};
use support::{proxy::Proxy, *};
use tokio::task::block_in_place;

/// How much the two write.
#[derive(Clone, Copy)]
struct Load {
    messages: usize,
    replies: usize,
}

const LOAD: Load = Load { messages: 10_000, replies: 1_000 };

/// Ada and Bob with two devices each.
struct People {
    ada: [Identity; 2],
    bob: [Identity; 2],
    /// Of the same devices, in the same order.
    profiles: Vec<Profile>,
}

impl People {
    async fn join(server: &str) -> People {
        let (ada, bob) = (register(server, "ada").await, register(server, "bob").await);
        let (ada_too, bob_too) = (login(server, "ada").await, login(server, "bob").await);
        let (ada, bob) = ([ada, ada_too], [bob, bob_too]);
        let profiles = ada.iter().chain(&bob).cloned().map(Profile::new).collect();
        People { ada, bob, profiles }
    }

    /// All that was recorded, with what others recorded as well, keeps the contract.
    async fn check(self, server: &str, others: &[Recording]) {
        self.history(server, others).await.must_hold();
    }

    async fn history(self, server: &str, others: &[Recording]) -> History {
        come_to_rest(server, &self.profiles).await;
        let own = self.profiles.iter().map(|profile| &profile.history);
        History::of([&Recording::complete()].into_iter().chain(own).chain(others))
    }
}

/// What came of a long talk: every device's inbox, and what the two writers were told.
struct Talk {
    load: Load,
    inboxes: Vec<Vec<wire::Event>>,
    by_ada: Vec<Receipt>,
    by_bob: Vec<Receipt>,
}

fn texts(who: &'static str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{who} {number}"))
}

/// The first devices write to each other; all four hear everything.
async fn talk(server: &str, people: &People, load: Load, class: fn(usize) -> Class) -> Talk {
    let Load { messages, replies } = load;
    let mut clients = Vec::new();
    let mut hearing = Vec::new();
    for profile in &people.profiles {
        let (client, mut events) = profile.start(server);
        clients.push(client);
        hearing.push(tokio::spawn(async move { collect(&mut events, messages + replies).await }));
    }
    let (ada, bob) = (people.ada[0].user, people.bob[0].user);
    let writing = async {
        tokio::join!(
            write(&clients[0], bob, texts("ada", messages), class),
            write(&clients[2], ada, texts("bob", replies), class),
        )
    };
    let (by_ada, by_bob) = tokio::time::timeout(PATIENCE, writing).await.expect("all is kept");
    let mut inboxes = Vec::new();
    for heard in hearing {
        inboxes.push(tokio::time::timeout(PATIENCE, heard).await.expect("all arrives").unwrap());
    }
    for client in clients {
        client.close().await;
    }
    Talk { load, inboxes, by_ada, by_bob }
}

impl Talk {
    /// Each message once, in order, everywhere; and what was acknowledged is what was delivered.
    fn check(&self, people: &People) -> Vec<wire::Message> {
        let seen: Vec<_> = self.inboxes.iter().map(|events| messages_of(events)).collect();
        for messages in &seen {
            assert_eq!(without_nonce(messages), without_nonce(&seen[0]));
        }
        let written = texts_by_device(&seen[0]);
        assert_eq!(written.len(), 2);
        let sides = [
            (&people.ada[0], &self.by_ada, texts("ada", self.load.messages)),
            (&people.bob[0], &self.by_bob, texts("bob", self.load.replies)),
        ];
        for (writer, receipts, texts) in sides {
            assert!(written[&(writer.user.0, writer.device.0)].iter().cloned().eq(texts));
            let own = seen[0].iter().filter(|message| message.sender == writer.user.0);
            let places = own.map(|message| (message.id, message.seq));
            assert!(receipts.iter().map(|receipt| (receipt.id.0, receipt.seq)).eq(places));
        }
        without_nonce(&seen[0])
    }
}

/// All that the server has of the conversation, page by page.
async fn history(client: &Client, of: Peer) -> Vec<wire::Message> {
    let mut messages: Vec<wire::Message> = Vec::new();
    loop {
        let after = messages.last().map_or(0, |last| last.seq);
        let page = client.history(of, Page::After(after), 200).await.unwrap();
        messages.extend(page.messages);
        if !page.more {
            return messages;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_over_bad_links_arrive_once_and_in_order_at_every_device() {
    let server = Server::start(&["--shards", "2"]);
    let proxy = Proxy::start(server.address, seed()).await;
    let people = People::join(&server.address.to_string()).await;
    let talk = talk(&proxy.server(), &people, LOAD, |_| Class::Durable).await;
    println!("cuts, half-closes, stalls: {:?}", proxy.faults());
    assert!(proxy.faults().iter().all(|count| *count > 3));
    let seen = talk.check(&people);

    let direct = server.address.to_string();
    let (client, _) = people.profiles[3].start(&direct);
    let kept = history(&client, Peer::User(people.ada[0].user)).await;
    assert_eq!(without_nonce(&kept), seen);
    client.close().await;
    people.check(&direct, &[]).await;
    server.end();
}

/// Where two people of different shards write at once, one shard orders what they write and hands
/// it to the committer: what it numbered first comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_write_at_once_on_different_shards_have_one_order() {
    let server = Server::start(&["--shards", "3"]);
    let address = server.address.to_string();
    let people = People::join(&address).await;
    let home = |who: &[Identity; 2]| Route::even(3).owner_of(who[0].user);
    assert_ne!(home(&people.ada), home(&people.bob));
    let load = Load { messages: 5_000, replies: 5_000 };
    talk(&address, &people, load, |_| Class::Buffered).await.check(&people);
    people.check(&address, &[]).await;
    server.end();
}

/// A planted fault: one device is told another text once, so that it has one text never and another
/// twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_one_device_never_gets_and_one_that_it_gets_twice_are_found_out() {
    let server = Server::start(&["--shards", "2"]);
    let proxy = Proxy::start(server.address, seed()).await;
    proxy.be_fair();
    proxy.lie_once("ada 77", "ada 78");
    let direct = server.address.to_string();
    let people = People::join(&direct).await;
    let load = Load { messages: 200, replies: 20 };
    let talk = talk(&proxy.server(), &people, load, |_| Class::Durable).await;
    assert!(proxy.has_lied());
    let checked = catch_unwind(AssertUnwindSafe(|| talk.check(&people)));
    assert!(checked.is_err(), "the suite finds nothing");
    let verdict = people.history(&direct, &[]).await.verdict();
    assert!(verdict.violates(Property::SameMessage), "{verdict:#?}");
    server.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let start = |data: &Path| Server::start_in(data, &["--shards", "2"]);
    let server = start(data.path());
    let direct = server.address.to_string();
    let people = People::join(&direct).await;
    // A third device of Bob's lives on disk, and goes and comes as it likes.
    let phone_folder = tempfile::tempdir().unwrap();
    let phone = login(&direct, "bob").await;
    let mut store = SqliteStore::open(phone_folder.path()).unwrap();
    store.commit(&[Change::Identity(phone)]).unwrap();
    drop(store);
    let phone = Recording::default();

    let proxy = Proxy::start(server.address, seed).await;
    let killing = {
        let (proxy, data) = (proxy.clone(), data.path().to_owned());
        async move {
            let mut server = server;
            for _ in 0..15 {
                tokio::time::sleep(Duration::from_millis(rng.random_range(100..700))).await;
                server = block_in_place(|| {
                    server.kill();
                    start(&data)
                });
                proxy.lead_to(server.address);
            }
            server
        }
    };
    let killing = tokio::spawn(killing);
    let restless = {
        let (server, folder) = (proxy.server(), phone_folder.path().to_owned());
        let phone = phone.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                let store = SqliteStore::open(&folder).unwrap();
                let settings = ClientSettings::default();
                let (client, events) =
                    Client::start_recorded(&server, store, settings, phone.recorder()).unwrap();
                drop(events);
                tokio::time::sleep(Duration::from_millis(600)).await;
                client.close().await;
            }
        })
    };
    let class = |number| if number % 3 == 0 { Class::Buffered } else { Class::Durable };
    let talk = talk(&proxy.server(), &people, LOAD, class).await;
    let server = killing.await.unwrap();
    restless.await.unwrap();
    let seen = talk.check(&people);

    let store = SqliteStore::open(phone_folder.path()).unwrap();
    let direct = server.address.to_string();
    let settings = ClientSettings::default();
    let (client, mut events) =
        Client::start_recorded(&direct, store, settings, phone.recorder()).unwrap();
    // Answers come although nobody takes the thousands of events.
    let kept = history(&client, Peer::User(people.ada[0].user)).await;
    assert_eq!(without_nonce(&kept), seen);
    let journal = Journal::open(phone_folder.path()).unwrap();
    let head = talk.inboxes[2].last().map_or(0, |event| event.seq);
    while journal.unshown().unwrap().last().is_none_or(|event| event.seq < head) {
        tokio::time::timeout(PATIENCE, events.next()).await.expect("all arrives");
    }
    let on_phone = messages_of(&journal.unshown().unwrap());
    assert_eq!(without_nonce(&on_phone), seen);
    client.close().await;
    people.check(&direct, &[phone]).await;
    server.end();
}
