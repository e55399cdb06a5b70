//! A line of a history, read.

use serde::Deserialize;
use starling_codec::{
    ConversationId, DeviceId, Epoch, EpochTag, MessageId, Nonce, Place, SendNo, SendWindow, UserId,
    history::{
        After, At, EventKind, Fact, Message, Reason, Record, StateHash, VERSION, class_name,
    },
    wire::Class,
};
use std::borrow::Cow;

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Record(Record),
    /// A line that says nothing about delivery, of a type that is known.
    Aside,
    /// A type of a later version.
    Unknown,
}

/// A line that is none of a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("not a line of a history: {0}")]
    Json(String),
    #[error("a line of type {0} needs a {1} that can be read")]
    Field(String, &'static str),
    #[error("version {0} of the format is not known here; version {VERSION} is")]
    Version(u32),
}

/// Types of `starling --json` that say nothing about delivery.
const ASIDES: &[&str] = &["account", "done", "error", "counter"];

/// All fields that any known type has.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    at: Option<&'a str>,
    version: Option<u32>,
    complete: Option<bool>,
    after: Option<&'a str>,
    epoch: Option<u32>,
    tag: Option<&'a str>,
    head_seq: Option<u64>,
    head_epoch: Option<u32>,
    window_highest: Option<u64>,
    window_bitmap: Option<&'a str>,
    resumed: Option<bool>,
    send_no: Option<u64>,
    nonce: Option<&'a str>,
    conversation: Option<&'a str>,
    class: Option<&'a str>,
    digest: Option<&'a str>,
    id: Option<&'a str>,
    seq: Option<u64>,
    inbox_seq: Option<u64>,
    prev: Option<u64>,
    from: Option<&'a str>,
    device: Option<&'a str>,
    user: Option<&'a str>,
    code: Option<u32>,
    reason: Option<&'a str>,
    hash: Option<&'a str>,
    time_ms: Option<u64>,
}

/// What every line has.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// What a line of a type that is not known may say all the same.
#[derive(Deserialize)]
struct Stranger<'a> {
    #[serde(borrow)]
    at: Option<Cow<'a, str>>,
    inbox_seq: Option<u64>,
    prev: Option<u64>,
    epoch: Option<u32>,
}

/// Reads a line.
pub fn parse(line: &[u8]) -> Result<Parsed, Unreadable> {
    match serde_json::from_slice::<Line<'_>>(line) {
        Ok(line) => match line.fact() {
            Some(fact) => {
                let at =
                    line.at.map(|at| read_at(at).ok_or_else(|| line.lacks("at"))).transpose()?;
                Ok(Parsed::Record(Record { at, time_ms: line.time_ms, fact: fact? }))
            }
            None if ASIDES.contains(&&*line.kind) => Ok(Parsed::Aside),
            None => Ok(line.stranger().parsed()),
        },
        // A later type may use a name for something else.
        Err(error) => match serde_json::from_slice::<Kind<'_>>(line) {
            Ok(Kind { kind }) if ASIDES.contains(&&*kind) => Ok(Parsed::Aside),
            Ok(Kind { kind }) if !KNOWN.contains(&&*kind) => {
                let stranger = serde_json::from_slice::<Stranger<'_>>(line);
                Ok(stranger.map_or(Parsed::Unknown, |stranger| stranger.parsed()))
            }
            _ => Err(Unreadable::Json(error.to_string())),
        },
    }
}

/// "7.1": user 7, device 1.
fn read_at(text: &str) -> Option<At> {
    let (user, device) = text.split_once('.')?;
    Some(At { user: UserId(user.parse().ok()?), device: DeviceId(device.parse().ok()?) })
}

impl Stranger<'_> {
    /// Whatever has a place in the inbox is an event: it takes up its place.
    fn parsed(&self) -> Parsed {
        let at = self.at.as_deref().and_then(read_at);
        match (at, self.inbox_seq, self.prev, self.epoch) {
            (Some(at), Some(seq), Some(prev), Some(epoch)) => {
                let place = Place::new(seq, Epoch(epoch));
                let fact = Fact::Event { place, prev, kind: EventKind::Unknown };
                Parsed::Record(Record { at: Some(at), time_ms: None, fact })
            }
            _ => Parsed::Unknown,
        }
    }
}

macro_rules! known {
    ($($kind:literal => $read:ident,)+) => {
        /// Types that are records.
        const KNOWN: &[&str] = &[$($kind),+];

        impl Line<'_> {
            /// What the line tells, if its type is one of a record.
            fn fact(&self) -> Option<Result<Fact, Unreadable>> {
                Some(match &*self.kind {
                    $($kind => self.$read(),)+
                    _ => return None,
                })
            }
        }
    };
}

known! {
    "message" => message,
    "sent" => sent,
    "send" => send,
    "acked" => acked,
    "delivered" => delivered,
    "unknown" => unknown,
    "online" => online,
    "offline" => offline,
    "refused" => refused,
    "unsent" => unsent,
    "rewind" => rewind,
    "reset" => reset,
    "restored" => restored,
    "state" => state,
    "left" => left,
    "not_opened" => not_opened,
    "opened" => opened,
    "history" => history,
}

type Read = Result<Fact, Unreadable>;

impl<'a> Line<'a> {
    fn lacks(&self, field: &'static str) -> Unreadable {
        Unreadable::Field(self.kind.to_string(), field)
    }

    fn need<T>(&self, field: &'static str, value: Option<T>) -> Result<T, Unreadable> {
        value.ok_or_else(|| self.lacks(field))
    }

    fn number<T: std::str::FromStr>(
        &self,
        field: &'static str,
        text: Option<&'a str>,
    ) -> Result<T, Unreadable> {
        self.need(field, text.and_then(|text| text.parse().ok()))
    }

    /// A field that may be missing, but not wrong.
    fn optional(
        &self,
        field: &'static str,
        text: Option<&'a str>,
    ) -> Result<Option<u64>, Unreadable> {
        text.map(|text| self.number(field, Some(text))).transpose()
    }

    fn place(&self) -> Result<Place, Unreadable> {
        let seq = self.need("inbox_seq", self.inbox_seq)?;
        Ok(Place::new(seq, Epoch(self.need("epoch", self.epoch)?)))
    }

    fn class(&self) -> Result<Class, Unreadable> {
        let class = match self.class {
            Some("durable") => Some(Class::Durable),
            Some("buffered") => Some(Class::Buffered),
            Some("replicated") => Some(Class::Replicated),
            _ => None,
        };
        debug_assert!(class.is_none_or(|class| Some(class_name(class)) == self.class));
        self.need("class", class)
    }

    fn send_no(&self) -> Result<SendNo, Unreadable> {
        Ok(SendNo(self.need("send_no", self.send_no)?))
    }

    fn nonce(&self) -> Result<Option<Nonce>, Unreadable> {
        Ok(self.optional("nonce", self.nonce)?.map(Nonce))
    }

    fn conversation(&self) -> Result<ConversationId, Unreadable> {
        Ok(ConversationId(self.number("conversation", self.conversation)?))
    }

    fn history(&self) -> Read {
        let version = self.need("version", self.version)?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        Ok(Fact::History { version, complete: self.complete.unwrap_or_default() })
    }

    fn opened(&self) -> Read {
        let after = After::ALL.into_iter().find(|after| self.after == Some(after.name()));
        Ok(Fact::Opened {
            after: self.need("after", after)?,
            epoch: Epoch(self.need("epoch", self.epoch)?),
            tag: EpochTag(self.number("tag", self.tag)?),
        })
    }

    fn not_opened(&self) -> Read {
        Ok(Fact::NotOpened)
    }

    fn online(&self) -> Read {
        let head_seq = self.need("head_seq", self.head_seq)?;
        let highest = SendNo(self.need("window_highest", self.window_highest)?);
        let bitmap = self.number("window_bitmap", self.window_bitmap)?;
        Ok(Fact::Online {
            epoch: Epoch(self.need("epoch", self.epoch)?),
            tag: EpochTag(self.number("tag", self.tag)?),
            head: Place::new(head_seq, Epoch(self.need("head_epoch", self.head_epoch)?)),
            window: SendWindow::from_parts(highest, bitmap),
            resumed: self.need("resumed", self.resumed)?,
        })
    }

    fn offline(&self) -> Read {
        Ok(Fact::Offline)
    }

    fn send(&self) -> Read {
        Ok(Fact::Send {
            send_no: self.send_no()?,
            nonce: Nonce(self.number("nonce", self.nonce)?),
            conversation: self.conversation()?,
            class: self.class()?,
            digest: self.number("digest", self.digest)?,
        })
    }

    fn sent(&self) -> Read {
        Ok(Fact::Sent {
            send_no: self.send_no()?,
            nonce: self.nonce()?,
            id: MessageId(self.number("id", self.id)?),
            conversation: self.conversation()?,
            seq: self.need("seq", self.seq)?,
            place: self.place()?,
            class: self.class()?,
        })
    }

    fn refused(&self) -> Read {
        let code = self.need("code", self.code)?;
        Ok(Fact::Refused { send_no: self.send_no()?, nonce: self.nonce()?, code })
    }

    fn unsent(&self) -> Read {
        let reason = [Reason::Lost, Reason::Stale];
        let reason = reason.into_iter().find(|reason| self.reason == Some(reason.name()));
        let reason = self.need("reason", reason)?;
        Ok(Fact::Unsent { send_no: self.send_no()?, nonce: self.nonce()?, reason })
    }

    fn message(&self) -> Read {
        let message = Message {
            id: MessageId(self.number("id", self.id)?),
            conversation: self.conversation()?,
            seq: self.need("seq", self.seq)?,
            sender: UserId(self.number("from", self.from)?),
            device: DeviceId(self.number("device", self.device)?),
            send_no: self.send_no()?,
            nonce: self.nonce()?,
            class: self.class()?,
            digest: self.optional("digest", self.digest)?,
        };
        if self.inbox_seq.is_none() {
            return Ok(Fact::Read(message));
        }
        self.event(EventKind::Message(message))
    }

    fn delivered(&self) -> Read {
        self.event(EventKind::Delivered {
            conversation: self.conversation()?,
            user: UserId(self.number("user", self.user)?),
            seq: self.need("seq", self.seq)?,
        })
    }

    fn unknown(&self) -> Read {
        self.event(EventKind::Unknown)
    }

    fn event(&self, kind: EventKind) -> Read {
        Ok(Fact::Event { place: self.place()?, prev: self.need("prev", self.prev)?, kind })
    }

    fn acked(&self) -> Read {
        self.place().map(Fact::Acked)
    }

    fn rewind(&self) -> Read {
        self.place().map(Fact::Rewind)
    }

    fn reset(&self) -> Read {
        Ok(Fact::Reset)
    }

    fn restored(&self) -> Read {
        self.place().map(Fact::Restored)
    }

    fn state(&self) -> Read {
        Ok(Fact::State { cursor: self.place()?, hash: self.state_hash()? })
    }

    fn left(&self) -> Read {
        Ok(Fact::Left { cursor: self.place()?, hash: self.state_hash()? })
    }

    fn state_hash(&self) -> Result<StateHash, Unreadable> {
        self.number("hash", self.hash).map(StateHash)
    }

    fn stranger(&self) -> Stranger<'_> {
        Stranger {
            at: self.at.map(Cow::Borrowed),
            inbox_seq: self.inbox_seq,
            prev: self.prev,
            epoch: self.epoch,
        }
    }
}
