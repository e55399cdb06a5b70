//! The lines of `--json`: docs/json.md describes each, and a test holds the two together.

use crate::{
    Entry, Identity, Peer, Receipt, Refusal, Unsent, Welcomed,
    codec::{
        Place,
        history::{self, class_name},
        wire::{self, event::Kind},
    },
    text_of,
};
use serde::Serialize;

/// Version of the format. Fields and types of lines may be added in it; anything else raises it.
pub(super) const FORMAT: u32 = 1;

/// A line as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct Addressed<'a> {
    #[serde(flatten)]
    pub line: &'a Line,
    /// The device that prints it, as in a history.
    pub at: Option<&'a str>,
}

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
        nonce: Option<String>,
        digest: String,
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
        epoch: u32,
        tag: String,
        window_highest: u64,
        window_bitmap: String,
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
    /// The last line of a listener that was ended: how far it told, and the hash of that.
    Left {
        inbox_seq: u64,
        epoch: u32,
        hash: String,
    },
    Unsent {
        user: Option<String>,
        conversation: Option<String>,
        send_no: u64,
        nonce: String,
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
            nonce: (message.nonce != 0).then(|| message.nonce.to_string()),
            digest: history::digest(&message.content).to_string(),
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
            epoch: welcomed.epoch.0,
            tag: welcomed.tag.to_string(),
            window_highest: welcomed.window.highest().0,
            window_bitmap: welcomed.window.bitmap().to_string(),
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

    pub fn left(place: Place, hash: history::StateHash) -> Line {
        Line::Left { inbox_seq: place.seq, epoch: place.epoch.0, hash: hash.0.to_string() }
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
        let (send_no, nonce) = (entry.send_no.0, entry.nonce.to_string());
        let text = text.map(str::to_owned);
        Line::Unsent { user, conversation, send_no, nonce, reason, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EntryState, Outgoing,
        codec::{
            ConversationId, DeviceId, Epoch, EpochTag, ErrorCode, MessageId, Nonce, SendNo,
            SendWindow, UserId, wire::Class,
        },
        content_of,
    };

    const TIME_MS: u64 = 1_800_000_000_000;
    const ID: u64 = 0x0123_4567_89AB_CDEF;

    fn conversation() -> ConversationId {
        ConversationId::direct(UserId(1), UserId(2))
    }

    fn event(seq: u64, kind: Option<Kind>) -> Line {
        Line::event(&wire::Event { seq, epoch: 1, prev: seq - 1, kind })
    }

    /// One line of every type, made as the commands make them.
    fn examples() -> Vec<Line> {
        let identity = Identity {
            user: UserId(1),
            device: DeviceId(1),
            name: "alice".into(),
            token: "token".into(),
            expires_ms: 0,
            refresh_at_ms: 0,
        };
        let receipt = Receipt {
            send_no: SendNo(1),
            id: MessageId(ID),
            conversation: conversation(),
            seq: 1,
            place: Place::new(1, Epoch(1)),
            time_ms: TIME_MS,
            class: Class::Durable,
        };
        let entry = Entry {
            nonce: Nonce(1),
            send_no: SendNo(2),
            message: Outgoing::text(Peer::Conversation(conversation()), "hello"),
            state: EntryState::Unsent(Unsent::Lost),
        };
        let message = wire::Message {
            conversation: conversation().0,
            seq: 1,
            id: ID,
            sender: 2,
            device: 1,
            send_no: 1,
            class: Class::Durable.into(),
            time_ms: TIME_MS,
            content: content_of("hello"),
            nonce: 0,
        };
        let delivered =
            wire::Delivered { conversation: conversation().0, user: 2, seq: 1, time_ms: TIME_MS };
        let welcomed = Welcomed {
            epoch: Epoch(1),
            tag: EpochTag(ID),
            window: SendWindow::from_parts(SendNo(1), 0),
            head: Place::new(3, Epoch(1)),
            time_ms: TIME_MS,
            heartbeat_s: 30,
            resumed: true,
        };
        let draining = Refusal::new(ErrorCode::Draining as u32, 0);
        let unknown = ErrorCode::UnknownUser;
        vec![
            Line::Error {
                code: unknown as u32,
                name: unknown.name(),
                retryable: unknown.retryable(),
                message: "nobody here is called bob".into(),
            },
            Line::Done { action: "logout" },
            Line::sent(&receipt),
            Line::unsent(&entry, Unsent::Lost, Some("hello")),
            Line::account(&identity),
            event(1, Some(Kind::Message(message))),
            event(2, Some(Kind::Delivered(delivered))),
            event(3, None),
            Line::online(&identity, &welcomed),
            Line::offline(Some(draining), 250),
            Line::rewind(Place::new(1, Epoch(1))),
            Line::Reset,
            Line::left(Place::new(3, Epoch(1)), history::StateHash(ID)),
            Line::Counter {
                name: "frames_in".into(),
                part: "SEND".into(),
                source: "shard 0".into(),
                value: 1,
            },
        ]
    }

    /// Counters and the answers about accounts are of no device.
    fn addressed(line: &Line) -> Addressed<'_> {
        let of_none = matches!(line, Line::Account { .. } | Line::Counter { .. });
        Addressed { line, at: (!of_none).then_some("1.1") }
    }

    /// Fails to compile when a type is added, and then the test until it has an example.
    fn number_of(line: &Line) -> usize {
        match line {
            Line::Error { .. } => 0,
            Line::Done { .. } => 1,
            Line::Sent { .. } => 2,
            Line::Unsent { .. } => 3,
            Line::Account { .. } => 4,
            Line::Message { .. } => 5,
            Line::Delivered { .. } => 6,
            Line::Unknown { .. } => 7,
            Line::Online { .. } => 8,
            Line::Offline { .. } => 9,
            Line::Rewind { .. } => 10,
            Line::Reset => 11,
            Line::Left { .. } => 12,
            Line::Counter { .. } => 13,
        }
    }

    #[test]
    fn the_documented_lines_are_the_printed_ones() {
        let text = include_str!("../../../docs/json.md");
        assert!(text.contains(&format!("**Format {FORMAT}.**")));
        let documented: Vec<&str> =
            text.lines().filter(|line| line.starts_with("{\"type\"")).collect();
        let examples = examples();
        assert!(examples.iter().map(number_of).eq(0..14), "one example of every type");
        let printed: Vec<String> =
            examples.iter().map(|line| serde_json::to_string(&addressed(line)).unwrap()).collect();
        assert_eq!(documented, printed);
    }

    /// docs/history.md says so.
    #[test]
    fn the_printed_lines_are_a_history() {
        for line in examples() {
            let printed = serde_json::to_vec(&addressed(&line)).unwrap();
            let read = starling_check::parse(&printed);
            let is_aside = matches!(
                line,
                Line::Account { .. }
                    | Line::Done { .. }
                    | Line::Error { .. }
                    | Line::Counter { .. }
            );
            match read {
                Ok(starling_check::Parsed::Aside) => assert!(is_aside, "{line:?}"),
                Ok(starling_check::Parsed::Record(_)) => assert!(!is_aside, "{line:?}"),
                other => panic!("{line:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_message_of_history_has_no_place_in_the_inbox() {
        let line = Line::message(&wire::Message::default(), None);
        let value = serde_json::to_value(line).unwrap();
        assert!(value["inbox_seq"].is_null() && value["prev"].is_null());
        assert!(value["epoch"].is_null() && value["text"].is_null());
    }
}
