//! Users, devices and bad weather for the end-to-end suite.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod command;
pub mod distance;
pub mod proxy;
pub mod terminal;

use starling_client::{
    Client, Event, Events, Identity, MemoryStore, Outgoing, Peer, Receipt, Sending, account,
    codec::{
        UserId,
        wire::{self, Class, event::Kind},
    },
    content_of, text_of,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

pub const PASSWORD: &str = "correct horse";
/// Longer than any of these tests takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Messages that one writer has under way at most.
const UNDER_WAY: usize = 300;

/// The seed of a run, printed so that the run can be had again: STARLING_SEED sets it.
pub fn seed() -> u64 {
    let seed = match std::env::var("STARLING_SEED") {
        Ok(text) => text.parse().expect("STARLING_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("STARLING_SEED={seed}");
    seed
}

pub async fn register(server: &str, name: &str) -> Identity {
    account::register(server, &mut MemoryStore::new(), name, PASSWORD).await.unwrap()
}

pub async fn login(server: &str, name: &str) -> Identity {
    account::login(server, &mut MemoryStore::new(), name, PASSWORD).await.unwrap()
}

/// Writes texts to a user, in order, and gives the receipts, in that order.
pub async fn write(
    client: &Client,
    to: UserId,
    texts: impl Iterator<Item = String>,
    class: impl Fn(usize) -> Class,
) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    let mut under_way: VecDeque<Sending> = VecDeque::new();
    for (number, text) in texts.enumerate() {
        if under_way.len() >= UNDER_WAY
            && let Some(first) = under_way.pop_front()
        {
            receipts.push(first.await.unwrap());
        }
        let (to, content) = (Peer::User(to), content_of(&text));
        let message = Outgoing { to, content, class: class(number) };
        under_way.push_back(client.post(message).await.unwrap());
    }
    for sending in under_way {
        receipts.push(sending.await.unwrap());
    }
    receipts
}

/// Takes what is told until so many messages came. Nothing may be taken back, given back or end.
pub async fn collect(events: &mut Events, messages: usize) -> Vec<wire::Event> {
    let mut applied = Vec::new();
    let mut count = 0;
    while count < messages {
        match events.next().await {
            Some(Event::Applied(event)) => {
                count += usize::from(matches!(event.kind, Some(Kind::Message(_))));
                applied.push(event);
            }
            Some(Event::Online(_) | Event::Offline { .. } | Event::Sent { .. }) => {}
            other => panic!("after {count} messages: {other:?}"),
        }
    }
    applied
}

/// The messages of an inbox, which is without holes and repeats, as is its one conversation, along
/// which their ids rise.
pub fn messages_of(events: &[wire::Event]) -> Vec<wire::Message> {
    let (mut seq, mut id) = (0, 0);
    let mut messages: Vec<wire::Message> = Vec::new();
    for event in events {
        assert_eq!(event.prev, seq, "a hole or a repeat in the inbox");
        assert!(event.seq > seq);
        seq = event.seq;
        if let Some(Kind::Message(message)) = &event.kind {
            let last = messages.last().map_or(0, |last| last.seq);
            assert_eq!(message.seq, last + 1, "a hole or a repeat in the conversation");
            assert!(message.id > id, "an id that does not rise along the conversation");
            id = message.id;
            messages.push(message.clone());
        }
    }
    messages
}

/// What each device wrote, in the order of the conversation.
pub fn texts_by_device(messages: &[wire::Message]) -> BTreeMap<(u32, u32), Vec<String>> {
    let mut texts: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for message in messages {
        let text = text_of(&message.content).expect("only texts are written here");
        texts.entry((message.sender, message.device)).or_default().push(text);
    }
    texts
}

/// A message without what only the sender's own devices are told.
pub fn without_nonce(messages: &[wire::Message]) -> Vec<wire::Message> {
    let mut messages = messages.to_vec();
    messages.iter_mut().for_each(|message| message.nonce = 0);
    messages
}
