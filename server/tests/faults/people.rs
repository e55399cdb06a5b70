//! People with devices that run the real client, and what must be true of them in the end.

use super::profile::{Profile, Shared, come_to_rest};
use crate::common::{PATIENCE, history::Recording};
use starling_client::{
    Client, EntryState, Event, MemoryStore, Outgoing, Page, Peer, Receipt, RequestError, account,
    text_of,
};
use starling_codec::{
    ConversationId, Nonce, UserId,
    wire::{self, Class, event::Kind},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub const PASSWORD: &str = "correct horse";

/// What a device's client told its app.
#[derive(Debug, Default)]
pub struct News {
    pub receipts: HashMap<Nonce, Receipt>,
    pub refused: Vec<String>,
    pub rewinds: usize,
    /// Codes of refusals that ended a connection.
    pub offline_for: Vec<String>,
    /// Texts of others and when they came.
    pub heard: Arc<Mutex<Vec<(String, Instant)>>>,
    pub stopped: Option<String>,
}

/// A device that is always connected when it can be.
pub struct Device {
    pub profile: Profile,
    pub client: Client,
    pub news: Arc<Mutex<News>>,
}

impl Device {
    pub fn start(server: &str, profile: Profile) -> Device {
        let (client, mut events) = profile.start(server);
        let news = Arc::new(Mutex::new(News::default()));
        let told = news.clone();
        let own = profile.store.identity().user.0;
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let mut news = told.lock().unwrap();
                match event {
                    Event::Applied(wire::Event { kind: Some(Kind::Message(message)), .. })
                        if message.sender != own =>
                    {
                        let heard = (text_in(&message), Instant::now());
                        news.heard.lock().unwrap().push(heard);
                    }
                    Event::Sent { nonce, receipt } => {
                        news.receipts.insert(nonce, receipt);
                    }
                    Event::Refused { refusal, .. } => news.refused.push(refusal.to_string()),
                    Event::Rewound(_) => news.rewinds += 1,
                    Event::Offline { why: Some(why), .. } => {
                        news.offline_for.push(why.name().to_owned());
                    }
                    Event::Stopped(reason) => news.stopped = Some(reason.to_string()),
                    _ => {}
                }
            }
        });
        Device { profile, client, news }
    }

    /// Texts of others and when they came.
    pub fn hear(&self) -> Arc<Mutex<Vec<(String, Instant)>>> {
        self.news.lock().unwrap().heard.clone()
    }

    pub fn user(&self) -> UserId {
        self.profile.store.identity().user
    }

    /// Messages, oldest first, as (sender, text).
    pub fn texts(&self) -> Vec<(UserId, String)> {
        let messages = messages_of(&self.profile.store.events());
        messages.iter().map(|message| (UserId(message.sender), text_in(message))).collect()
    }
}

/// A user with devices, and one more device that is used to look at what the server has.
pub struct Person {
    pub user: UserId,
    pub devices: Vec<Device>,
    /// Connects now and then, each time without knowing anything.
    witness: Profile,
}

impl Person {
    pub async fn new(server: &str, name: &str, devices: usize) -> Person {
        let mut nowhere = MemoryStore::new();
        let witness = account::register(server, &mut nowhere, name, PASSWORD).await.unwrap();
        let user = witness.user;
        let mut person = Person { user, devices: Vec::new(), witness: Profile::new(witness) };
        for _ in 0..devices {
            let mut nowhere = MemoryStore::new();
            let identity = account::login(server, &mut nowhere, name, PASSWORD).await.unwrap();
            person.devices.push(Device::start(server, Profile::new(identity)));
        }
        person
    }

    /// Her inbox as a device sees it that knew nothing.
    pub async fn inbox(&self, server: &str) -> BTreeMap<u64, wire::Event> {
        self.look(server).await.events()
    }

    async fn look(&self, server: &str) -> Shared {
        let mut witness = self.witness.clone();
        witness.forget();
        witness.catch_up(server).await;
        witness.store
    }

    /// Waits until the server that runs now has welcomed all devices, and posts anew what then
    /// went back to the app, until all is acknowledged.
    pub async fn settle(&self, server: &str) {
        // After a restore the number of an epoch comes again, with another tag.
        let opening = |store: &Shared| (store.epoch(), store.tag());
        let now = opening(&self.look(server).await);
        for device in &self.devices {
            let until = Instant::now() + PATIENCE;
            while opening(&device.profile.store) != now {
                assert!(Instant::now() < until, "{:?}", device.news.lock().unwrap());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            loop {
                within("all is acknowledged", device.client.flushed()).await;
                let outbox = device.client.outbox().await;
                let unsent: Vec<_> = outbox
                    .into_iter()
                    .filter(|entry| matches!(entry.state, EntryState::Unsent(_)))
                    .collect();
                if unsent.is_empty() {
                    break;
                }
                for entry in unsent {
                    device.client.discard(entry.nonce).await;
                    device.client.post(entry.message).await.unwrap();
                }
            }
            let news = device.news.lock().unwrap();
            assert_eq!((news.refused.len(), &news.stopped), (0, &None), "{news:?}");
        }
    }
}

/// Everybody leaves; what they and the witnesses recorded.
pub async fn part(server: &str, people: Vec<Person>) -> Vec<Recording> {
    let mut profiles = Vec::new();
    let mut witnesses = Vec::new();
    for person in people {
        for device in person.devices {
            within("it closes", device.client.close()).await;
            profiles.push(device.profile);
        }
        witnesses.push(person.witness);
    }
    come_to_rest(server, &profiles).await;
    profiles.into_iter().chain(witnesses).map(|profile| profile.history).collect()
}

/// What the server has, taken when every device had the same.
pub struct Truth {
    pub inboxes: HashMap<UserId, BTreeMap<u64, wire::Event>>,
}

impl Truth {
    /// Waits until each device has what the server has, event by event, and checks that inboxes
    /// are dense and that they and the histories tell the same.
    pub async fn of(server: &str, people: &[Person]) -> Truth {
        let mut inboxes = HashMap::new();
        for person in people {
            let until = Instant::now() + PATIENCE;
            let inbox = loop {
                let inbox = person.inbox(server).await;
                let others = person.devices.iter().map(|device| device.profile.store.events());
                let other = others.enumerate().find(|(_, events)| *events != inbox);
                let Some((index, events)) = other else { break inbox };
                assert!(
                    Instant::now() < until,
                    "device {index} of {} differs: {}",
                    person.user,
                    difference(&events, &inbox)
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert!((1..).zip(inbox.keys()).all(|(seq, found)| seq == *found), "a hole");
            let epochs: Vec<u32> = inbox.values().map(|event| event.epoch).collect();
            assert!(epochs.is_sorted(), "epochs go back");
            inboxes.insert(person.user, inbox);
        }
        let truth = Truth { inboxes };
        truth.check_histories(people).await;
        truth
    }

    async fn check_histories(&self, people: &[Person]) {
        for person in people {
            let mut by_conversation: HashMap<u64, Vec<wire::Message>> = HashMap::new();
            for mut message in messages_of(&self.inboxes[&person.user]) {
                message.nonce = 0;
                by_conversation.entry(message.conversation).or_default().push(message);
            }
            for (conversation, messages) in by_conversation {
                let of = Peer::Conversation(ConversationId(conversation));
                let history = history(&person.devices[0].client, of).await;
                assert_eq!(messages.len(), history.len(), "{of:?}");
                assert!(messages == history, "history and inbox of {} differ", person.user);
                assert!((1..).zip(&history).all(|(seq, message)| message.seq == seq), "a hole");
            }
        }
    }

    /// The message of a receipt stands where the receipt says, in the sender's inbox, and once in
    /// the other's, if that was looked at.
    pub fn holds(&self, sender: UserId, receipt: &Receipt) -> bool {
        let inbox = &self.inboxes[&sender];
        let Some(event) = inbox.get(&receipt.place.seq) else { return false };
        let Some(Kind::Message(message)) = &event.kind else { return false };
        let other = receipt.conversation.peer_of(sender).expect("a direct conversation");
        let once = |inbox: &BTreeMap<u64, wire::Event>| {
            messages_of(inbox).iter().filter(|found| found.id == message.id).count() == 1
        };
        event.epoch == receipt.place.epoch.0
            && message.id == receipt.id.0
            && message.seq == receipt.seq
            && self.inboxes.get(&other).is_none_or(once)
    }

    /// How often each text stands in a user's inbox.
    pub fn count_texts(&self, user: UserId) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for message in messages_of(&self.inboxes[&user]) {
            *counts.entry(text_in(&message)).or_default() += 1;
        }
        counts
    }
}

async fn history(client: &Client, of: Peer) -> Vec<wire::Message> {
    let (mut messages, mut page) = (Vec::new(), Page::Newest);
    loop {
        let found = match within("history", client.history(of, page, 200)).await {
            Ok(found) => found,
            // The connection may still be on its way back.
            Err(RequestError::Lost) => continue,
            Err(error) => panic!("{error}"),
        };
        if let Some(first) = found.messages.first() {
            page = Page::Before(first.seq);
        }
        messages.splice(0..0, found.messages);
        if !found.more {
            return messages;
        }
    }
}

pub fn messages_of(inbox: &BTreeMap<u64, wire::Event>) -> Vec<wire::Message> {
    let message = |event: &wire::Event| match &event.kind {
        Some(Kind::Message(message)) => Some(message.clone()),
        _ => None,
    };
    inbox.values().filter_map(message).collect()
}

pub fn text_in(message: &wire::Message) -> String {
    text_of(&message.content).expect("a text")
}

pub fn text(to: UserId, text: &str, class: Class) -> Outgoing {
    Outgoing { class, ..Outgoing::text(Peer::User(to), text) }
}

/// Waits for what must come, however busy the machine is.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not: {what}"))
}

fn difference(device: &BTreeMap<u64, wire::Event>, server: &BTreeMap<u64, wire::Event>) -> String {
    let seqs = device.keys().chain(server.keys());
    let first = seqs.filter(|seq| device.get(seq) != server.get(seq)).min();
    let first = first.expect("a difference");
    format!(
        "first at {first}: device {:?}, server {:?} (of {} and {})",
        device.get(first),
        server.get(first),
        device.len(),
        server.len()
    )
}
