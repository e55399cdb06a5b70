//! The lines of `--json`: docs/json.md describes each, and a test holds the two together.

use crate::{
    Entry, Identity, Peer, Receipt, Refusal, Unsent, Welcomed,
    codec::{
        Place,
        wire::{self, Class, event::Kind},
    },
    text_of,
};
use serde::Serialize;

/// Version of the format. Fields and types of lines may be added in it; anything else raises it.
pub(super) const FORMAT: u32 = 1;

/// One line. Ids are strings, for they have more bits than a JSON number keeps.
#[derive(Debug, Serialize, PartialEq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Line {
    Account {
        user: String,
        name: String,
        device: String,
    },
    Done {
        action: &'static str,
    },
    Sent {
        id: String,
        conversation: String,
        seq: u64,
        inbox_seq: u64,
        epoch: u32,
        send_no: u64,
        class: &'static str,
        time_ms: u64,
    },
    Message {
        id: String,
        conversation: String,
        seq: u64,
        inbox_seq: Option<u64>,
        prev: Option<u64>,
        epoch: Option<u32>,
        from: String,
        device: String,
        send_no: u64,
        class: &'static str,
        text: Option<String>,
        time_ms: u64,
    },
    Delivered {
        conversation: String,
        user: String,
        seq: u64,
        inbox_seq: u64,
        prev: u64,
        epoch: u32,
        time_ms: u64,
    },
    /// An event of a kind that this version does not know.
    Unknown {
        inbox_seq: u64,
        prev: u64,
        epoch: u32,
    },
    Online {
        format: u32,
        user: String,
        device: String,
        head_seq: u64,
        head_epoch: u32,
        resumed: bool,
        time_ms: u64,
    },
    Offline {
        code: Option<u32>,
        name: Option<&'static str>,
        retry_in_ms: u64,
    },
    Rewind {
        inbox_seq: u64,
        epoch: u32,
    },
    Reset,
    Unsent {
        user: Option<String>,
        conversation: Option<String>,
        send_no: u64,
        reason: &'static str,
        text: Option<String>,
    },
    Counter {
        name: String,
        part: String,
        source: String,
        value: u64,
    },
    Error {
        code: u32,
        name: &'static str,
        retryable: bool,
        message: String,
    },
}

pub(super) fn class_name(class: Class) -> &'static str {
    match class {
        Class::Durable => "durable",
        Class::Buffered => "buffered",
        Class::Replicated => "replicated",
    }
}

impl Line {
    pub fn account(identity: &Identity) -> Line {
        Line::Account {
            user: identity.user.to_string(),
            name: identity.name.clone(),
            device: identity.device.to_string(),
        }
    }

    pub fn sent(receipt: &Receipt) -> Line {
        Line::Sent {
            id: receipt.id.to_string(),
            conversation: receipt.conversation.to_string(),
            seq: receipt.seq,
            inbox_seq: receipt.place.seq,
            epoch: receipt.place.epoch.0,
            send_no: receipt.send_no.0,
            class: class_name(receipt.class),
            time_ms: receipt.time_ms,
        }
    }

    /// A message, with its place in the inbox if it came from there.
    pub fn message(message: &wire::Message, event: Option<&wire::Event>) -> Line {
        Line::Message {
            id: message.id.to_string(),
            conversation: message.conversation.to_string(),
            seq: message.seq,
            inbox_seq: event.map(|event| event.seq),
            prev: event.map(|event| event.prev),
            epoch: event.map(|event| event.epoch),
            from: message.sender.to_string(),
            device: message.device.to_string(),
            send_no: message.send_no,
            class: class_name(message.class()),
            text: text_of(&message.content),
            time_ms: message.time_ms,
        }
    }

    pub fn event(event: &wire::Event) -> Line {
        let (inbox_seq, prev, epoch) = (event.seq, event.prev, event.epoch);
        match &event.kind {
            Some(Kind::Message(message)) => Line::message(message, Some(event)),
            Some(Kind::Delivered(delivered)) => Line::Delivered {
                conversation: delivered.conversation.to_string(),
                user: delivered.user.to_string(),
                seq: delivered.seq,
                inbox_seq,
                prev,
                epoch,
                time_ms: delivered.time_ms,
            },
            None => Line::Unknown { inbox_seq, prev, epoch },
        }
    }

    pub fn online(identity: &Identity, welcomed: &Welcomed) -> Line {
        Line::Online {
            format: FORMAT,
            user: identity.user.to_string(),
            device: identity.device.to_string(),
            head_seq: welcomed.head.seq,
            head_epoch: welcomed.head.epoch.0,
            resumed: welcomed.resumed,
            time_ms: welcomed.time_ms,
        }
    }

    pub fn offline(why: Option<Refusal>, retry_in_ms: u64) -> Line {
        let code = why.map(|refusal| refusal.number);
        Line::Offline { code, name: why.map(|refusal| refusal.name()), retry_in_ms }
    }

    pub fn rewind(place: Place) -> Line {
        Line::Rewind { inbox_seq: place.seq, epoch: place.epoch.0 }
    }

    pub fn unsent(entry: &Entry, why: Unsent, text: Option<&str>) -> Line {
        let (user, conversation) = match entry.message.to {
            Peer::User(user) => (Some(user.to_string()), None),
            Peer::Conversation(conversation) => (None, Some(conversation.to_string())),
        };
        let reason = match why {
            Unsent::Lost => "lost",
            Unsent::Stale => "stale",
        };
        let send_no = entry.send_no.0;
        Line::Unsent { user, conversation, send_no, reason, text: text.map(str::to_owned) }
    }
}
