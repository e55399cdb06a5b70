//! A small world that keeps the contract and writes its history: what the tests damage.

// Each test binary uses a part of it.
#![allow(dead_code)]

pub mod planted;

use starling_codec::{
    ConversationId, DeviceId, Epoch, EpochTag, MessageId, Nonce, Place, SendNo, SendWindow, UserId,
    history::{After, At, EventKind, Fact, Message, Reason, Record, StateHash, VERSION, digest},
    wire::Class,
};
use std::collections::BTreeMap;

#[derive(Clone)]
struct Event {
    place: Place,
    kind: EventKind,
    durable: bool,
}

#[derive(Default)]
struct Device {
    /// Of its last welcome.
    opening: Option<(Epoch, EpochTag)>,
    cursor: Place,
    held: Vec<Event>,
    next_send_no: u64,
    /// What was acknowledged: number, nonce, message.
    acked: Vec<(SendNo, Nonce, MessageId)>,
}

/// A server without defects, its users, and what they record.
pub struct World {
    pub records: Vec<Record>,
    store: Store,
    devices: BTreeMap<At, Device>,
    last_tag: u64,
    last_id: u64,
}

/// All that the server keeps. A clone is a backup.
#[derive(Clone, Default)]
pub struct Store {
    inboxes: BTreeMap<UserId, Vec<Event>>,
    conversations: BTreeMap<ConversationId, Vec<MessageId>>,
    windows: BTreeMap<At, SendWindow>,
    openings: Vec<(Epoch, EpochTag)>,
}

impl Store {
    /// A backup that has lost all but the openings.
    pub fn emptied(self) -> Store {
        Store { openings: self.openings, ..Store::default() }
    }

    fn opening(&self) -> (Epoch, EpochTag) {
        self.openings.last().copied().unwrap_or_default()
    }
}

pub const fn at(user: u32, device: u32) -> At {
    At { user: UserId(user), device: DeviceId(device) }
}

impl World {
    pub fn new() -> World {
        let mut world = World {
            records: Vec::new(),
            store: Store::default(),
            devices: BTreeMap::new(),
            last_tag: 0,
            last_id: 1 << 40,
        };
        let header = Fact::History { version: VERSION, complete: true };
        world.records.push(Record::new(header));
        world.open(After::Stop);
        world
    }

    fn tell(&mut self, at: At, fact: Fact) {
        self.records.push(Record { at: Some(at), time_ms: None, fact });
    }

    fn open(&mut self, after: After) {
        self.last_tag += 1_000_003;
        let (epoch, tag) = (Epoch(self.store.opening().0.0 + 1), EpochTag(self.last_tag));
        self.store.openings.push((epoch, tag));
        self.records.push(Record::new(Fact::Opened { after, epoch, tag }));
    }

    fn head(&self, user: UserId) -> Place {
        self.store
            .inboxes
            .get(&user)
            .and_then(|inbox| inbox.last())
            .map_or(Place::START, |event| event.place)
    }

    /// A device connects, and is told to rewind if it holds what is gone, and to begin anew if its
    /// epoch is.
    pub fn online(&mut self, at: At) {
        let head = self.head(at.user);
        let (epoch, tag) = self.store.opening();
        let device = self.devices.entry(at).or_default();
        let known = device.opening.replace((epoch, tag));
        if known.is_some_and(|known| !self.store.openings.contains(&known)) {
            // What was acknowledged is forgotten with all else.
            (device.held, device.acked, device.cursor) = (Vec::new(), Vec::new(), Place::START);
            let window = self.store.windows.get(&at).copied().unwrap_or_default();
            self.tell(at, Fact::Online { epoch, tag, head, window, resumed: false });
            return self.tell(at, Fact::Reset);
        }
        let held = device.held.clone();
        let inbox = self.store.inboxes.get(&at.user).cloned().unwrap_or_default();
        let stays = held.iter().zip(&inbox).take_while(|(held, kept)| held.place == kept.place);
        let stays = stays.count();
        let window = self.store.windows.get(&at).copied().unwrap_or_default();
        let resumed = stays == held.len();
        self.tell(at, Fact::Online { epoch, tag, head, window, resumed });
        if !resumed {
            let place = held[..stays].last().map_or(Place::START, |event| event.place);
            self.tell(at, Fact::Rewind(place));
            let device = self.devices.get_mut(&at).unwrap();
            device.held.truncate(stays);
            device.cursor = place;
        }
        let is_kept =
            |message| self.store.conversations.values().flatten().any(|kept| *kept == message);
        let acked = std::mem::take(&mut self.devices.get_mut(&at).unwrap().acked);
        let (kept, lost): (Vec<_>, Vec<_>) =
            acked.into_iter().partition(|(_, _, message)| is_kept(*message));
        for (send_no, nonce, _) in lost {
            let nonce = Some(nonce);
            self.tell(at, Fact::Unsent { send_no, nonce, reason: Reason::Lost });
        }
        self.devices.get_mut(&at).unwrap().acked = kept;
    }

    /// Writes a message; the server stores and acknowledges it.
    pub fn send(&mut self, at: At, to: u32, class: Class) -> MessageId {
        let (send_no, nonce, conversation, digest) = self.write(at, to, class);
        self.last_id += 1024;
        let id = MessageId(self.last_id);
        let seq = {
            let messages = self.store.conversations.entry(conversation).or_default();
            messages.push(id);
            messages.len() as u64
        };
        self.store.windows.entry(at).or_default().apply(send_no);
        let message = Message {
            id,
            conversation,
            seq,
            sender: at.user,
            device: at.device,
            send_no,
            nonce: Some(nonce),
            class,
            digest: Some(digest),
        };
        let (low, high) = conversation.users().unwrap();
        let durable = class == Class::Durable;
        for user in if low == high { vec![low] } else { vec![low, high] } {
            let nonce = message.nonce.filter(|_| user == at.user);
            self.append(user, EventKind::Message(Message { nonce, ..message }), durable);
        }
        let place = self.head(at.user);
        self.devices.get_mut(&at).unwrap().acked.push((send_no, nonce, id));
        let nonce = Some(nonce);
        self.tell(at, Fact::Sent { send_no, nonce, id, conversation, seq, place, class });
        id
    }

    fn write(&mut self, at: At, to: u32, class: Class) -> (SendNo, Nonce, ConversationId, u64) {
        let device = self.devices.entry(at).or_default();
        device.next_send_no += 1;
        let send_no = SendNo(device.next_send_no);
        let nonce = Nonce(u64::from(at.user.0) << 40 | u64::from(at.device.0) << 32 | send_no.0);
        let conversation = ConversationId::direct(at.user, UserId(to));
        let digest = digest(&nonce.0.to_le_bytes());
        self.tell(at, Fact::Send { send_no, nonce, conversation, class, digest });
        (send_no, nonce, conversation, digest)
    }

    /// Writes a message that the server refuses for good.
    pub fn refuse(&mut self, at: At, to: u32) {
        let (send_no, nonce, ..) = self.write(at, to, Class::Durable);
        self.tell(at, Fact::Refused { send_no, nonce: Some(nonce), code: 44 });
    }

    fn append(&mut self, user: UserId, kind: EventKind, durable: bool) {
        let place = Place::new(self.head(user).seq + 1, self.store.opening().0);
        self.store.inboxes.entry(user).or_default().push(Event { place, kind, durable });
    }

    /// A device applies all that its inbox has, acknowledges it, and the senders get receipts.
    pub fn catch_up(&mut self, at: At) {
        let inbox = self.store.inboxes.get(&at.user).cloned().unwrap_or_default();
        let held = self.devices.entry(at).or_default().held.len();
        let mut receipts = BTreeMap::new();
        for event in &inbox[held..] {
            let prev = event.place.seq - 1;
            self.tell(at, Fact::Event { place: event.place, prev, kind: event.kind.clone() });
            if let EventKind::Message(message) = &event.kind
                && message.sender != at.user
            {
                receipts.insert((message.sender, message.conversation), message.seq);
            }
            self.devices.get_mut(&at).unwrap().held.push(event.clone());
        }
        if let Some(last) = inbox.last() {
            self.devices.get_mut(&at).unwrap().cursor = last.place;
            self.tell(at, Fact::Acked(last.place));
        }
        let has_told = |inbox: &[Event], user: UserId, conversation: ConversationId, seq: u64| {
            inbox.iter().any(|event| match event.kind {
                EventKind::Delivered { conversation: of, user: by, seq: told } => {
                    (of, by) == (conversation, user) && told >= seq
                }
                _ => false,
            })
        };
        for ((sender, conversation), seq) in receipts {
            let told = self.store.inboxes.get(&sender).map(Vec::as_slice).unwrap_or_default();
            if !has_told(told, at.user, conversation, seq) {
                let kind = EventKind::Delivered { conversation, user: at.user, seq };
                self.append(sender, kind, false);
            }
        }
    }

    /// The process dies and comes back.
    pub fn kill(&mut self) {
        self.open(After::Kill);
    }

    /// The process ends in order and comes back.
    pub fn stop(&mut self) {
        self.open(After::Stop);
    }

    pub fn backup(&self) -> Store {
        self.store.clone()
    }

    /// A backup is put in the stead of the store.
    pub fn restore(&mut self, backup: Store) {
        self.store = backup;
        self.open(After::Restore);
    }

    /// The power goes: the buffered end of every inbox is lost, back to the last durable event
    /// of any.
    pub fn power_cut(&mut self) {
        let newest_durable = |inbox: &Vec<Event>| {
            inbox.iter().rposition(|event| event.durable).map_or(0, |last| last + 1)
        };
        let mut kept: Vec<MessageId> = Vec::new();
        let epoch = self.store.opening().0;
        for inbox in self.store.inboxes.values_mut() {
            let end = newest_durable(inbox);
            let old = inbox.iter().take_while(|event| event.place.epoch < epoch).count();
            inbox.truncate(end.max(old));
            kept.extend(inbox.iter().filter_map(|event| match &event.kind {
                EventKind::Message(message) => Some(message.id),
                _ => None,
            }));
        }
        for messages in self.store.conversations.values_mut() {
            messages.retain(|message| kept.contains(message));
        }
        for (at, window) in &mut self.store.windows {
            let inbox = self.store.inboxes.get(&at.user).map(Vec::as_slice).unwrap_or_default();
            let mut left = SendWindow::default();
            for event in inbox {
                if let EventKind::Message(message) = &event.kind
                    && (message.sender, message.device) == (at.user, at.device)
                {
                    left.apply(message.send_no);
                }
            }
            *window = left;
        }
        self.open(After::PowerCut);
    }

    /// Everybody comes online, catches up until nothing is left, and says what she holds.
    pub fn settle(&mut self) {
        let all: Vec<At> = self.devices.keys().copied().collect();
        for at in &all {
            self.online(*at);
        }
        for _ in 0..3 {
            for at in &all {
                self.catch_up(*at);
            }
        }
        for at in &all {
            let (cursor, hash) = self.held_by(*at);
            self.tell(*at, Fact::State { cursor, hash });
        }
    }

    /// A device goes offline in order.
    pub fn leave(&mut self, at: At) {
        let (cursor, hash) = self.held_by(at);
        self.tell(at, Fact::Left { cursor, hash });
    }

    fn held_by(&self, at: At) -> (Place, StateHash) {
        let device = &self.devices[&at];
        let mut hash = StateHash::default();
        for event in &device.held {
            hash.add(event.place, &event.kind);
        }
        (device.cursor, hash)
    }
}

const DEVICES: [At; 4] = [at(1, 1), at(1, 2), at(2, 1), at(3, 1)];

/// Four devices of three users, two classes, every fault but a restore.
pub fn an_evening() -> World {
    let mut world = World::new();
    pass_an_evening(&mut world);
    world
}

/// Before such an evening an older backup was restored. Bob was away after it was made, but for the
/// rest of that epoch, so he goes back; the others begin anew.
pub fn an_evening_after_a_restore() -> World {
    let mut world = World::new();
    let [ada, phone, bob, eve] = DEVICES;
    let talk = |world: &mut World, here: &[At]| {
        for device in here {
            world.online(*device);
        }
        for _ in 0..2 {
            world.send(ada, 2, Class::Durable);
            world.send(eve, 2, Class::Buffered);
            world.send(phone, 3, Class::Durable);
            for device in here {
                world.catch_up(*device);
            }
        }
    };
    talk(&mut world, &DEVICES);
    world.send(bob, 1, Class::Durable);
    for device in [ada, bob] {
        world.catch_up(device);
    }
    world.kill();
    talk(&mut world, &DEVICES);
    let backup = world.backup();
    talk(&mut world, &[]);
    world.catch_up(bob);
    world.catch_up(ada);
    world.kill();
    talk(&mut world, &[ada, phone, eve]);
    world.restore(backup);
    for device in DEVICES {
        world.online(device);
    }
    world.stop();
    pass_an_evening(&mut world);
    world
}

fn pass_an_evening(world: &mut World) {
    let [ada, phone, bob, eve] = DEVICES;
    for device in [ada, phone, bob, eve] {
        world.online(device);
    }
    for _ in 0..3 {
        world.send(ada, 2, Class::Durable);
        world.send(bob, 1, Class::Buffered);
        world.send(bob, 3, Class::Durable);
        world.catch_up(ada);
        world.catch_up(bob);
    }
    world.refuse(eve, 1);
    world.send(phone, 3, Class::Durable);
    world.catch_up(eve);
    world.kill();
    for device in [ada, phone, bob, eve] {
        world.online(device);
    }
    world.send(ada, 2, Class::Durable);
    world.catch_up(bob);
    // Behind a durable message its receipt is safe.
    world.send(ada, 2, Class::Durable);
    world.send(eve, 2, Class::Buffered);
    world.catch_up(bob);
    world.power_cut();
    for device in [bob, ada, eve] {
        world.online(device);
    }
    world.send(bob, 3, Class::Durable);
    world.send(ada, 2, Class::Durable);
    world.settle();
}
