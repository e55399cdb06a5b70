//! A store whose rows say anything at all, and everything that may be asked of it and sent to it.

use super::{Running, Send, TIME_MS, receipt, settings};
use starling_codec::{
    Command, ConversationId, Cursor, DeviceId, Epoch, EpochTag, HistoryRequest, MessageId, Origin,
    PageDirection, Place, Query, Recipients, Submission, UserId,
};
use starling_storage::{
    Backend, FAMILIES, Family, MemoryBackend, ReadError, Reads, Rows, Sequencer, Store,
    StoreSettings, Tier, answer, begin,
};
use std::{ops::ControlFlow, sync::Arc};

pub const USERS: [UserId; 3] = [UserId(1), UserId(2), UserId(3)];

/// Of the one epoch that the store has had, so that clients may know it.
const TAG: EpochTag = EpochTag(1);

/// Its family, key and value.
pub type Row = (Family, Vec<u8>, Vec<u8>);

/// What happens to a key or a value.
#[derive(Clone, Debug)]
pub enum Garbling {
    Flip { at: usize, bit: u8 },
    Cut(usize),
    Grow(Vec<u8>),
    Replace(Vec<u8>),
}

impl Garbling {
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Garbling::Flip { at, bit } => {
                if let Some(at) = at.checked_rem(bytes.len()) {
                    bytes[at] ^= 1 << bit;
                }
            }
            Garbling::Cut(at) => bytes.truncate(at.checked_rem(bytes.len()).unwrap_or(0)),
            Garbling::Grow(more) => bytes.extend_from_slice(more),
            Garbling::Replace(other) => bytes.clone_from(other),
        }
    }
}

/// A row of an inbox, which says whatever it says.
#[derive(Clone, Debug)]
pub struct InboxRow {
    pub first_seq: u64,
    pub events: u64,
    pub epoch: u32,
    pub references: Vec<u8>,
}

/// The rows of a store, with these in the stead of a user's inbox: they need not join on, nor
/// rise, nor hold what they say.
pub fn with_inbox(rows: &[Row], user: UserId, inbox: &[InboxRow]) -> Vec<Row> {
    let prefix = u64::from(user.0).to_be_bytes();
    let others = rows
        .iter()
        .filter(|(family, key, _)| *family != Family::Inbox || !key.starts_with(&prefix));
    let inbox = inbox.iter().map(|row| {
        // The newest comes first.
        let key = [prefix, (!row.first_seq).to_be_bytes()].concat();
        let mut value = Vec::new();
        for number in [u64::from(row.epoch), row.events] {
            put_varint(&mut value, number);
        }
        value.extend_from_slice(&row.references);
        (Family::Inbox, key, value)
    });
    others.cloned().chain(inbox).collect()
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// All rows of a small store.
pub fn rows() -> Vec<Row> {
    let backend = MemoryBackend::new();
    let opened = Store::open_with_tag(Arc::new(backend.clone()), settings(), TAG).unwrap();
    let mut store = Running::start(opened);
    store.users(&["ada", "bob", "cy"]);
    for send_no in 1..=70 {
        store.sent(Send::new(USERS[0], USERS[1], send_no));
        store.sent(Send::new(USERS[2], USERS[0], send_no).buffered());
    }
    let cursor = Cursor { seq: 9, epoch: Epoch(1) };
    store.advance(USERS[0], cursor, &[(ConversationId::direct(USERS[0], USERS[2]), 4)]);
    store.close();
    let mut rows = Vec::new();
    let view = backend.view();
    for spec in &FAMILIES {
        let all = view.scan(Tier::All, spec.family, &[], &[0xff; 20], &mut |key, value| {
            rows.push((spec.family, key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        });
        all.unwrap();
    }
    rows
}

/// Everything that may be asked.
pub fn questions() -> Vec<Query> {
    let mut questions = Vec::new();
    for user in USERS {
        for seq in [0, 3, 139, u64::MAX - 1] {
            questions.push(Query::Inbox {
                user,
                after_seq: seq,
                max_events: 300,
                max_bytes: 9_000,
            });
            for other in USERS {
                let conversation = ConversationId::direct(user, other);
                for direction in [PageDirection::Before(seq), PageDirection::After(seq)] {
                    let request = HistoryRequest { conversation, user, direction, limit: 200 };
                    questions.push(Query::History(request));
                }
            }
            let highest = Place::new(seq, Epoch(1));
            let (device, last_epoch, last_tag) = (DeviceId(1), Epoch(1), TAG);
            questions.push(Query::Device { user, device, highest, last_epoch, last_tag });
        }
        questions.push(Query::NameOf { user });
        questions.push(Query::CredentialOf { user });
        questions.push(Query::Users { users: Recipients::One(user) });
    }
    questions.push(Query::Credential { name: "ada".to_owned() });
    questions
}

/// Everything that may be sent.
pub fn commands() -> Vec<Command> {
    let id = |number| MessageId::new(TIME_MS + 1_000 + number, 0, 0);
    let cursor = Cursor { seq: 90, epoch: Epoch(1) };
    let conversation = ConversationId::direct(USERS[0], USERS[2]);
    let notices = vec![receipt(USERS[0], conversation, 60, TIME_MS)];
    vec![
        Send::new(USERS[0], USERS[1], 71).command(id(1)),
        // Repeats, which look for what was answered first.
        Send::new(USERS[0], USERS[1], 70).command(id(2)),
        Send::new(USERS[0], USERS[1], 10).command(id(3)),
        Send::new(USERS[2], USERS[0], 12).command(id(4)),
        Command::Advance { user: USERS[0], device: DeviceId(1), cursor, notices },
        Command::Revoke { user: USERS[1], device: DeviceId(1) },
        Command::CreateUsers { drafts: Vec::new(), time_ms: TIME_MS },
    ]
}

/// An answer, or an error that says what is wrong.
fn typed<T>(result: Result<T, ReadError>) -> bool {
    matches!(result, Ok(_) | Err(ReadError::Corrupt(_)))
}

/// A store that has these rows answers each question and each command, or says what is damaged.
pub fn answer_or_name(rows: &[Row], questions: &[Query], commands: Vec<Command>) {
    let mut batch = Rows::default();
    for (family, key, value) in rows {
        batch.put(*family, key, |out| out.extend_from_slice(value));
    }
    batch.sort();
    let backend = MemoryBackend::new();
    backend.write(&batch).unwrap();

    let settings = StoreSettings::default();
    let Ok(opening) = begin(&backend, EpochTag(7)) else { return };
    let view = backend.view();
    let reads = Reads::new(&*view, Tier::All);
    for question in questions {
        let answered = answer(reads, &opening.epochs, question);
        assert!(typed(answered), "{question:?}");
    }
    let (epoch, _) = opening.epochs.current();
    for command in commands {
        let Ok(mut sequencer) = Sequencer::new(epoch, settings.hot_entries, reads) else { break };
        let origin = Origin { shard: 0, key: 0 };
        let mut commands = vec![Submission { origin, command }];
        assert!(typed(sequencer.apply(reads, &mut commands, true).map(|_| ())));
    }
}
