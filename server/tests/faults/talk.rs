//! People who all write to each other while the server has a hard time, what they were promised,
//! and what became of it.

use super::people::{Device, Person, Truth, part, text, within};
use crate::common::history::{History, Recording};
use rand::{RngExt, rngs::SmallRng};
use starling_client::{QueueError, Receipt};
use starling_codec::{Nonce, UserId, history::After, wire::Class};
use std::{collections::HashMap, mem};

pub struct Talk {
    pub people: Vec<Person>,
    /// From whom, to whom, what: each text once.
    written: Vec<(UserId, UserId, String)>,
    /// What befell the server.
    world: Recording,
}

/// What each device was acknowledged since it was last asked.
pub struct Promises(Vec<HashMap<Nonce, Receipt>>);

/// How many acknowledged messages were there, and how many were not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    pub durable: usize,
    pub durable_lost: usize,
    pub buffered: usize,
    pub buffered_lost: usize,
}

impl Kept {
    pub fn add(&mut self, other: Kept) {
        self.durable += other.durable;
        self.durable_lost += other.durable_lost;
        self.buffered += other.buffered;
        self.buffered_lost += other.buffered_lost;
    }
}

impl Talk {
    pub async fn new(address: &str, names: &[&str], devices: usize) -> Talk {
        let mut people = Vec::new();
        for name in names {
            people.push(Person::new(address, name, devices).await);
        }
        Talk { people, written: Vec::new(), world: Recording::complete() }
    }

    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.people.iter().flat_map(|person| &person.devices)
    }

    pub fn written(&self) -> usize {
        self.written.len()
    }

    /// How often clients had to go back.
    pub fn rewinds(&self) -> usize {
        self.devices().map(|device| device.news.lock().unwrap().rewinds).sum()
    }

    /// Every device writes a few messages to anybody, this share of them durable.
    pub async fn burst(&mut self, random: &mut SmallRng, share_of_durable: f64) {
        self.write(random, share_of_durable, "message").await;
    }

    /// The same with some 20 KB in each message.
    pub async fn burst_of_large(&mut self, random: &mut SmallRng) {
        self.write(random, 0.5, &"large ".repeat(3_500)).await;
    }

    async fn write(&mut self, random: &mut SmallRng, share_of_durable: f64, what: &str) {
        let Talk { people, written, .. } = self;
        let users: Vec<UserId> = people.iter().map(|person| person.user).collect();
        for device in people.iter().flat_map(|person| &person.devices) {
            for _ in 0..random.random_range(0..6) {
                let to = users[random.random_range(0..users.len())];
                let durable = random.random_bool(share_of_durable);
                let class = if durable { Class::Durable } else { Class::Buffered };
                let body = format!("{what} {}", written.len());
                match device.client.post(text(to, &body, class)).await {
                    Ok(_) => written.push((device.user(), to, body)),
                    // It is not taken while too many wait, which is as well.
                    Err(QueueError::OutboxFull(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Everybody's first device writes to these as well, who do not talk here.
    pub async fn greet(&self, others: &[UserId]) {
        for person in &self.people {
            let client = &person.devices[0].client;
            for (number, to) in others.iter().enumerate() {
                let class = if number % 2 == 0 { Class::Durable } else { Class::Buffered };
                match client.post(text(*to, "a greeting", class)).await {
                    Ok(_) | Err(QueueError::OutboxFull(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Waits until all that was written is acknowledged.
    pub async fn flushed(&self) {
        for device in self.devices() {
            within("all is acknowledged", device.client.flushed()).await;
        }
    }

    pub fn promises(&self) -> Promises {
        Promises(
            self.devices()
                .map(|device| mem::take(&mut device.news.lock().unwrap().receipts))
                .collect(),
        )
    }

    /// Waits until all devices have what the server has and nothing is without an answer, then
    /// looks for what was promised. Nothing durable may be missing.
    pub async fn check(&self, address: &str, promised: &Promises) -> Kept {
        let truth = self.settle(address).await;
        let kept = self.kept(&truth, promised);
        assert_eq!(kept.durable_lost, 0, "acknowledged as durable and gone: {kept:?}");
        self.check_written(&truth);
        kept
    }

    /// Waits until all devices have what the server has and nothing is without an answer.
    pub async fn settle(&self, address: &str) -> Truth {
        for person in &self.people {
            person.settle(address).await;
        }
        Truth::of(address, &self.people).await
    }

    /// Looks for what was promised.
    pub fn kept(&self, truth: &Truth, promised: &Promises) -> Kept {
        let mut kept = Kept::default();
        for (device, receipts) in self.devices().zip(&promised.0) {
            for receipt in receipts.values() {
                let held = truth.holds(device.user(), receipt);
                match (receipt.class, held) {
                    (Class::Durable, true) => kept.durable += 1,
                    (Class::Durable, false) => kept.durable_lost += 1,
                    (_, true) => kept.buffered += 1,
                    (_, false) => kept.buffered_lost += 1,
                }
            }
        }
        kept
    }

    /// Every text that was ever written stands once at both ends: what was lost went back to the
    /// app, which sent it again.
    fn check_written(&self, truth: &Truth) {
        let counts: HashMap<UserId, HashMap<String, usize>> = self
            .people
            .iter()
            .map(|person| (person.user, truth.count_texts(person.user)))
            .collect();
        for (from, to, body) in &self.written {
            for user in [from, to] {
                let count = counts[user].get(body).copied().unwrap_or(0);
                assert_eq!(count, 1, "{body:?} from {from} to {to}, at {user}");
            }
        }
    }

    /// What happened to the server before the opening that everybody is welcomed in now.
    pub fn opened(&self, after: After) {
        let store = &self.people[0].devices[0].profile.store;
        self.world.opened(after, store.epoch(), store.tag());
    }

    /// The power failed before the opening that everybody is welcomed in now.
    pub fn power_was_cut(&self) {
        self.opened(After::PowerCut);
    }

    /// How often devices had to begin anew.
    pub fn resets(&self) -> usize {
        self.devices().map(|device| device.profile.history.count("reset")).sum()
    }

    /// Nobody expects any more what was written after so many texts: from whom, to whom, what.
    pub fn forget_behind(&mut self, kept: usize) -> Vec<(UserId, UserId, String)> {
        self.written.split_off(kept)
    }

    /// Everybody leaves; what befell the server, and what the devices recorded.
    pub async fn leave(self, address: &str) -> (Recording, Vec<Recording>) {
        (self.world, part(address, self.people).await)
    }

    pub fn users(&self) -> impl Iterator<Item = UserId> {
        self.people.iter().map(|person| person.user)
    }

    /// Everybody leaves; the history of all of it keeps the contract.
    pub async fn close(self, address: &str) {
        let (world, devices) = self.leave(address).await;
        History::of([&world].into_iter().chain(&devices)).must_hold();
    }
}
