//! Two people talk over the worst link there is: 300 ms to the server and back, stalls, half-closes,
//! cuts at random, and one every 20 s.

mod common;
mod support;

use common::Server;
use starling_client::{
    Client, ClientSettings, Identity, MemoryStore, Outgoing, Peer, Receipt, codec::wire,
};
use std::time::Duration;
use support::{distance::Distance, proxy::Proxy, *};
use tokio::time::{sleep, timeout};

const ONE_WAY: Duration = Duration::from_millis(150);
const CUT_EVERY: Duration = Duration::from_secs(20);
/// So that writing spans two of those cuts.
const MESSAGES: usize = 500;
const BETWEEN: Duration = Duration::from_millis(90);

/// Writes at an even pace, whatever the link does; everything gets its receipt.
async fn write_slowly(client: &Client, who: &'static str, to: &Identity) -> Vec<Receipt> {
    let mut under_way = Vec::new();
    for text in texts(who) {
        let message = Outgoing::text(Peer::User(to.user), &text);
        under_way.push(client.post(message).await.unwrap());
        sleep(BETWEEN).await;
    }
    let mut receipts = Vec::new();
    for sending in under_way {
        receipts.push(timeout(PATIENCE, sending).await.expect("it is kept").unwrap());
    }
    receipts
}

fn texts(who: &'static str) -> impl Iterator<Item = String> {
    // Of a length at which the link fails some ten times.
    (0..MESSAGES).map(move |number| format!("{who} {number:0150}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_worst_link_each_message_arrives_once_and_coming_back_takes_one_round_trip() {
    let server = Server::start(&["--shards", "1"]);
    let direct = server.address.to_string();
    let (ada, bob) = (register(&direct, "ada").await, register(&direct, "bob").await);
    let distance = Distance::start(server.address, ONE_WAY).await;
    let proxy = Proxy::start(distance.address, seed()).await;

    let mut clients = Vec::new();
    let mut hearing = Vec::new();
    for identity in [&ada, &bob] {
        let store = MemoryStore::with_identity(identity.clone());
        let (client, mut events) =
            Client::start(&proxy.server(), store, ClientSettings::default()).unwrap();
        clients.push(client);
        hearing.push(tokio::spawn(async move { collect(&mut events, 2 * MESSAGES).await }));
    }
    let cutting = tokio::spawn({
        let proxy = proxy.clone();
        async move {
            loop {
                sleep(CUT_EVERY).await;
                proxy.cut();
            }
        }
    });
    let (by_ada, by_bob) = tokio::join!(
        write_slowly(&clients[0], "ada", &bob),
        write_slowly(&clients[1], "bob", &ada)
    );
    let mut seen: Vec<Vec<wire::Message>> = Vec::new();
    for heard in hearing {
        let events = timeout(PATIENCE, heard).await.expect("all arrives").unwrap();
        seen.push(without_nonce(&messages_of(&events)));
    }
    cutting.abort();
    println!(
        "cuts, half-closes, stalls: {:?}; {} times back in one round trip",
        proxy.faults(),
        distance.resumed()
    );
    assert_eq!(seen[0], seen[1]);
    let written = texts_by_device(&seen[0]);
    assert_eq!(written.len(), 2);
    for (writer, who, receipts) in [(&ada, "ada", by_ada), (&bob, "bob", by_bob)] {
        assert!(written[&(writer.user.0, writer.device.0)].iter().cloned().eq(texts(who)));
        let own = seen[0].iter().filter(|message| message.sender == writer.user.0);
        let places = own.map(|message| (message.id, message.seq));
        assert!(receipts.iter().map(|receipt| (receipt.id.0, receipt.seq)).eq(places));
    }
    assert!(proxy.faults().iter().sum::<u64>() >= 3, "the link was too good");
    // Whoever comes back has missed something, as the other goes on talking.
    assert!(distance.resumed() >= 2);
    for client in clients {
        client.close().await;
    }
    server.end();
}
