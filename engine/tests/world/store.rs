//! A stand-in for the store: a few lines that give numbers. It knows nothing of durability.

use starling_codec::{
    Accepted, Answer, Append, Command, ConversationId, Credential, DeviceId, DeviceState, Epoch,
    EpochTag, ErrorCode, Nonce, Notice, Outcome, Page, PageDirection, Place, Query, Resumption,
    SendNo, SendWindow, Standing, UserGrant, UserId,
    wire::{Event, Message, event::Kind},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Default)]
struct UserRow {
    name: String,
    password_hash: Option<String>,
    devices: Vec<DeviceRow>,
    inbox: Vec<Event>,
    passed_seq: u64,
}

#[derive(Default)]
struct DeviceRow {
    serial: u32,
    cursor: Place,
    window: SendWindow,
    answers: HashMap<SendNo, (Nonce, Accepted)>,
    /// Refused for now: later ones must not overtake.
    held: BTreeSet<SendNo>,
}

pub struct Store {
    pub epoch: Epoch,
    pub tag: EpochTag,
    users: Vec<UserRow>,
    names: HashMap<String, UserId>,
    conversations: HashMap<ConversationId, Vec<Message>>,
    /// All `Advance` commands, in order.
    pub advances: Vec<Command>,
    /// There is no room on the disk, and the engines were not told.
    pub full: bool,
    /// What the next greetings are told instead of `Continues`.
    pub resumption: Resumption,
}

impl Store {
    pub fn new() -> Store {
        Store {
            epoch: Epoch(1),
            tag: EpochTag(77),
            users: Vec::new(),
            names: HashMap::new(),
            conversations: HashMap::new(),
            advances: Vec::new(),
            full: false,
            resumption: Resumption::Continues,
        }
    }

    fn user(&mut self, user: UserId) -> &mut UserRow {
        &mut self.users[user.0 as usize - 1]
    }

    fn exists(&self, user: UserId) -> bool {
        (1..=self.users.len()).contains(&(user.0 as usize))
    }

    /// The texts of a conversation, as (sender, send_no).
    pub fn conversation(&self, one: UserId, other: UserId) -> Vec<(u32, u64)> {
        let messages = self.conversations.get(&ConversationId::direct(one, other));
        let messages = messages.map_or(&[][..], |messages| messages);
        messages.iter().map(|message| (message.sender, message.send_no)).collect()
    }

    pub fn head(&self, user: UserId) -> u64 {
        self.users[user.0 as usize - 1].inbox.len() as u64
    }

    pub fn apply(
        &mut self,
        command: Command,
        deliveries: &mut BTreeMap<UserId, Vec<Event>>,
    ) -> Outcome {
        match command {
            Command::Append(append) => self.append(append, deliveries),
            Command::Advance { user, device, cursor, ref notices } => {
                let notices = notices.clone();
                self.advances.push(command);
                let row = self.user(user);
                row.passed_seq = row.passed_seq.max(cursor.seq);
                row.devices[device.0 as usize - 1].cursor = cursor;
                for Notice { to, event } in notices {
                    self.enter(to, event, deliveries);
                }
                Outcome::Done
            }
            Command::CreateUsers { drafts, .. } => {
                let grants = drafts.into_iter().map(|draft| {
                    if let Some(&user) = self.names.get(&draft.name) {
                        let serial = self.user(user).devices[0].serial;
                        return UserGrant { user, device: DeviceId(1), serial, created: false };
                    }
                    let user = UserId(self.users.len() as u32 + 1);
                    self.names.insert(draft.name.clone(), user);
                    self.users.push(UserRow {
                        name: draft.name,
                        password_hash: draft.password_hash,
                        devices: vec![DeviceRow { serial: 1, ..Default::default() }],
                        ..Default::default()
                    });
                    UserGrant { user, device: DeviceId(1), serial: 1, created: true }
                });
                Outcome::Users(grants.collect())
            }
            Command::OpenDevice { user, device, .. } => {
                let devices = &mut self.user(user).devices;
                let device = device.unwrap_or_else(|| {
                    devices.push(DeviceRow::default());
                    DeviceId(devices.len() as u32)
                });
                match devices.get_mut(device.0 as usize - 1) {
                    Some(row) => {
                        row.serial += 1;
                        let serial = row.serial;
                        Outcome::Granted(UserGrant { user, device, serial, created: false })
                    }
                    None => Outcome::Refused(ErrorCode::WrongPassword),
                }
            }
            Command::SetPassword { user, keep, password_hash } => {
                let row = self.user(user);
                row.password_hash = Some(password_hash);
                for device in &mut row.devices {
                    device.serial += 1;
                }
                let serial = row.devices[keep.0 as usize - 1].serial;
                Outcome::Granted(UserGrant { user, device: keep, serial, created: false })
            }
            Command::Revoke { user, device } => {
                self.user(user).devices[device.0 as usize - 1].serial += 1;
                Outcome::Done
            }
        }
    }

    fn append(&mut self, append: Append, deliveries: &mut BTreeMap<UserId, Vec<Event>>) -> Outcome {
        let Append { sender: user, device, send_no, .. } = append;
        let refused = |code| Outcome::SendRefused { send_no, code };
        let full = self.full;
        let row = &mut self.user(user).devices[device.0 as usize - 1];
        match row.window.standing(send_no) {
            Standing::Stale => return refused(ErrorCode::SendStale),
            Standing::Applied => {
                return match row.answers[&send_no] {
                    (nonce, accepted) if nonce == append.nonce => Outcome::Repeated(accepted),
                    _ => refused(ErrorCode::SendConflict),
                };
            }
            Standing::New => {
                row.held = row.held.split_off(&append.oldest);
                let overtakes = row.held.first().is_some_and(|lowest| *lowest < send_no);
                if overtakes || full {
                    row.held.insert(send_no);
                    let code =
                        if overtakes { ErrorCode::SendOutOfOrder } else { ErrorCode::DiskFull };
                    return refused(code);
                }
                row.held.remove(&send_no);
                row.window.apply(send_no);
            }
        }
        let messages = self.conversations.entry(append.conversation).or_default();
        let message = Message {
            conversation: append.conversation.0,
            seq: messages.len() as u64 + 1,
            id: append.id.0,
            sender: user.0,
            device: device.0,
            send_no: send_no.0,
            class: append.class as i32,
            time_ms: append.id.time_ms(),
            content: append.content,
            nonce: 0,
        };
        messages.push(message.clone());
        let seq = message.seq;
        for recipient in append.recipients.iter() {
            let mut message = message.clone();
            if recipient == user {
                message.nonce = append.nonce.0;
            }
            self.enter(recipient, Kind::Message(message), deliveries);
        }
        let accepted = Accepted {
            send_no,
            id: append.id,
            conversation: append.conversation,
            seq,
            place: Place::new(self.head(user), self.epoch),
            class: append.class,
        };
        let row = &mut self.user(user).devices[device.0 as usize - 1];
        row.answers.insert(send_no, (append.nonce, accepted));
        Outcome::Appended(accepted)
    }

    fn enter(&mut self, user: UserId, kind: Kind, deliveries: &mut BTreeMap<UserId, Vec<Event>>) {
        let epoch = self.epoch.0;
        let inbox = &mut self.user(user).inbox;
        let event = Event { seq: inbox.len() as u64 + 1, epoch, prev: 0, kind: Some(kind) };
        inbox.push(event.clone());
        deliveries.entry(user).or_default().push(event);
    }

    pub fn read(&self, query: &Query) -> Answer {
        let row = |user: &UserId| self.exists(*user).then(|| &self.users[user.0 as usize - 1]);
        let place = |row: &UserRow| {
            row.inbox.last().map_or(Place::START, |last| Place::new(last.seq, Epoch(last.epoch)))
        };
        let credential = |user: &UserId| {
            row(user).map(|row| Credential {
                user: *user,
                name: row.name.clone(),
                password_hash: row.password_hash.clone(),
            })
        };
        match query {
            Query::Device { user, device, .. } => Answer::Device(row(user).and_then(|row| {
                let of_device = row.devices.get(device.0 as usize - 1)?;
                Some(DeviceState {
                    serial: of_device.serial,
                    cursor: of_device.cursor,
                    passed_seq: row.passed_seq,
                    window: of_device.window,
                    head: place(row),
                    epoch: self.epoch,
                    tag: self.tag,
                    resumption: self.resumption,
                })
            })),
            Query::Inbox { user, after_seq, max_events, max_bytes } => {
                let row = row(user).expect("a user");
                let mut bytes = 0;
                let events = row.inbox[*after_seq as usize..]
                    .iter()
                    .take(*max_events)
                    .take_while(|event| {
                        bytes += prost::Message::encoded_len(*event);
                        bytes <= *max_bytes
                    })
                    .collect();
                Answer::Events { events, head: place(row) }
            }
            Query::History(request) => {
                let all = self.conversations.get(&request.conversation);
                let all = all.map_or(&[][..], |messages| messages);
                let limit = request.limit as usize;
                let (messages, more) = match request.direction {
                    PageDirection::Before(seq) => {
                        let below = &all[..all.len().min(seq.saturating_sub(1) as usize)];
                        (&below[below.len().saturating_sub(limit)..], below.len() > limit)
                    }
                    PageDirection::After(seq) => {
                        let above = &all[all.len().min(seq as usize)..];
                        (&above[..above.len().min(limit)], above.len() > limit)
                    }
                };
                Answer::Page(Page {
                    conversation: request.conversation,
                    messages: messages.to_vec(),
                    more,
                    head: place(row(&request.user).expect("a user")),
                })
            }
            Query::Users { users } => Answer::Users(users.iter().all(|user| self.exists(user))),
            Query::NameOf { user } => Answer::Name(row(user).map(|row| row.name.clone())),
            Query::Credential { name } => {
                Answer::Credential(self.names.get(name).and_then(credential))
            }
            Query::CredentialOf { user } => Answer::Credential(credential(user)),
        }
    }
}
