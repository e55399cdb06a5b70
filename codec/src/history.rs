//! Histories: what devices wrote, were told and hold, a record a line, so that somebody else can
//! prove that nothing was lost or doubled.
//!
//! docs/history.md describes the lines, starling-check reads them. This is the one place that
//! writes them, for the SDK, the load tool and the simulation alike.

use crate::{
    ConversationId, DeviceId, Epoch, EpochTag, MessageId, Nonce, Place, SendNo, SendWindow, UserId,
    wire::{self, Class, event::Kind},
};
use std::io::Write;

/// Version of the format. Types and fields may be added within it; anything else raises it.
pub const VERSION: u32 = 1;

/// The device that did or saw what a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    pub user: UserId,
    pub device: DeviceId,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `None` where the fact is of no one device.
    pub at: Option<At>,
    /// Unix milliseconds, for people: no proof rests on a clock.
    pub time_ms: Option<u64>,
    pub fact: Fact,
}

/// What a record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The first line of a file. `complete`: every device that took part is in this history, from
    /// its first connection on.
    History { version: u32, complete: bool },
    /// The server opened its store, after something had happened to it.
    Opened { after: After, epoch: Epoch, tag: EpochTag },
    /// The server did not come to open its store, and may have used up an epoch.
    NotOpened,
    /// WELCOME came.
    Online { epoch: Epoch, tag: EpochTag, head: Place, window: SendWindow, resumed: bool },
    /// The connection is gone.
    Offline,
    /// A message was written, and is sent from now on until it is answered; again with another
    /// number if another message had the first.
    Send { send_no: SendNo, nonce: Nonce, conversation: ConversationId, class: Class, digest: u64 },
    /// The server keeps it.
    Sent {
        send_no: SendNo,
        nonce: Option<Nonce>,
        id: MessageId,
        conversation: ConversationId,
        seq: u64,
        place: Place,
        class: Class,
    },
    /// The server refused it for good.
    Refused { send_no: SendNo, nonce: Option<Nonce>, code: u32 },
    /// It went back to whoever wrote it.
    Unsent { send_no: SendNo, nonce: Option<Nonce>, reason: Reason },
    /// An event of the inbox was applied.
    Event { place: Place, prev: u64, kind: EventKind },
    /// A message was read from a conversation's history, not from the inbox.
    Read(Message),
    /// The cursor was acknowledged.
    Acked(Place),
    /// What has a higher place was removed, because the server said so.
    Rewind(Place),
    /// Everything was removed, because the server said so.
    Reset,
    /// The device itself was restored from a backup: it holds what it held at that cursor.
    Restored(Place),
    /// At the end, when all is at rest: how far the device has come, and the hash of what it
    /// holds.
    State { cursor: Place, hash: StateHash },
    /// The device's session ended in order, whatever others do after it: the same of that moment.
    Left { cursor: Place, hash: StateHash },
}

/// What an opening of the store came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The first start, or an orderly stop.
    Stop,
    /// The death of the process.
    Kill,
    /// A loss of power: what was not synced may be gone.
    PowerCut,
    /// An older backup was put in its stead.
    Restore,
}

/// Why a message went back to whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The server had it and lost it.
    Lost,
    /// Its number is too old to tell, and it is not in the inbox.
    Stale,
}

/// What an event of an inbox says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    Message(Message),
    /// Every message up to `seq` is on a device of `user`.
    Delivered {
        conversation: ConversationId,
        user: UserId,
        seq: u64,
    },
    /// A kind that this version does not know.
    Unknown,
}

/// A message as a device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: MessageId,
    pub conversation: ConversationId,
    pub seq: u64,
    pub sender: UserId,
    pub device: DeviceId,
    pub send_no: SendNo,
    /// Told only to the sender's own devices.
    pub nonce: Option<Nonce>,
    pub class: Class,
    /// Of the content, see [`digest`]; `None` if the recorder does not know.
    pub digest: Option<u64>,
}

impl After {
    pub const ALL: [After; 4] = [After::Stop, After::Kill, After::PowerCut, After::Restore];

    pub fn name(self) -> &'static str {
        match self {
            After::Stop => "stop",
            After::Kill => "kill",
            After::PowerCut => "power_cut",
            After::Restore => "restore",
        }
    }
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::Lost => "lost",
            Reason::Stale => "stale",
        }
    }
}

/// The word for a class.
pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Durable => "durable",
        Class::Buffered => "buffered",
        Class::Replicated => "replicated",
    }
}

/// 64-bit FNV-1a: tells contents apart, and keeps them out of the history.
pub fn digest(content: &[u8]) -> u64 {
    fnv(FNV_START, content)
}

const FNV_START: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01B3;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// As [`fnv`] of a number as eight bytes, the lowest first. Most are small, and of a byte that is
/// zero only the multiplication is left: for all that a number ends with one is enough.
fn fnv_number(hash: u64, number: u64) -> u64 {
    const POWERS: [u64; 9] = {
        let mut powers = [1; 9];
        let mut at = 1;
        while at < powers.len() {
            powers[at] = FNV_PRIME.wrapping_mul(powers[at - 1]);
            at += 1;
        }
        powers
    };
    let zeros = number.leading_zeros() as usize / 8;
    fnv(hash, &number.to_le_bytes()[..8 - zeros]).wrapping_mul(POWERS[zeros])
}

/// The sum of the digests of all events that a device holds, so that an event can be taken away
/// again. The digest of an event is that of its numbers, each as eight bytes, the lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateHash(pub u64);

impl StateHash {
    pub fn add(&mut self, place: Place, kind: &EventKind) {
        self.0 = self.0.wrapping_add(event_digest(place, kind));
    }

    pub fn remove(&mut self, place: Place, kind: &EventKind) {
        self.0 = self.0.wrapping_sub(event_digest(place, kind));
    }
}

fn event_digest(place: Place, kind: &EventKind) -> u64 {
    let (kind, rest) = match kind {
        EventKind::Unknown => (0, [0; 4]),
        EventKind::Message(message) => (
            1,
            [message.conversation.0, message.seq, message.id.0, message.digest.unwrap_or_default()],
        ),
        EventKind::Delivered { conversation, user, seq } => {
            (2, [conversation.0, *seq, u64::from(user.0), 0])
        }
    };
    let numbers = [place.seq, u64::from(place.epoch.0), kind].into_iter().chain(rest);
    numbers.fold(FNV_START, fnv_number)
}

impl Message {
    /// Of a message, for whoever knows the digest of its content.
    pub fn with_digest(message: &wire::Message, digest: u64) -> Message {
        Message {
            id: MessageId(message.id),
            conversation: ConversationId(message.conversation),
            seq: message.seq,
            sender: UserId(message.sender),
            device: DeviceId(message.device),
            send_no: SendNo(message.send_no),
            nonce: (message.nonce != 0).then_some(Nonce(message.nonce)),
            class: message.class(),
            digest: Some(digest),
        }
    }
}

impl From<&wire::Message> for Message {
    fn from(message: &wire::Message) -> Message {
        Message::with_digest(message, digest(&message.content))
    }
}

impl From<&wire::Event> for Fact {
    fn from(event: &wire::Event) -> Fact {
        Fact::event(event, |message| digest(&message.content))
    }
}

impl Fact {
    /// An event of an inbox; `digest_of` gives the digest of a message's content.
    pub fn event(event: &wire::Event, digest_of: impl FnOnce(&wire::Message) -> u64) -> Fact {
        let kind = match &event.kind {
            Some(Kind::Message(message)) => {
                EventKind::Message(Message::with_digest(message, digest_of(message)))
            }
            Some(Kind::Delivered(delivered)) => EventKind::Delivered {
                conversation: ConversationId(delivered.conversation),
                user: UserId(delivered.user),
                seq: delivered.seq,
            },
            None => EventKind::Unknown,
        };
        let prev = if event.prev == 0 { event.seq.saturating_sub(1) } else { event.prev };
        Fact::Event { place: Place::new(event.seq, Epoch(event.epoch)), prev, kind }
    }
}

impl Record {
    /// A fact of one device.
    pub fn of(user: UserId, device: DeviceId, fact: Fact) -> Record {
        Record { at: Some(At { user, device }), time_ms: None, fact }
    }

    /// A fact of no one device.
    pub fn new(fact: Fact) -> Record {
        Record { at: None, time_ms: None, fact }
    }

    /// Appends the record as a line, with its end.
    pub fn append(&self, out: &mut Vec<u8>) {
        let mut line = Line::begin(out, self.fact.type_name());
        if let Some(At { user, device }) = self.at {
            line.raw("at", format_args!("\"{user}.{device}\""));
        }
        self.fact.append(&mut line);
        if let Some(time_ms) = self.time_ms {
            line.number("time_ms", time_ms);
        }
        line.end();
    }
}

impl Fact {
    /// The value of the field `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Fact::History { .. } => "history",
            Fact::Opened { .. } => "opened",
            Fact::NotOpened => "not_opened",
            Fact::Online { .. } => "online",
            Fact::Offline => "offline",
            Fact::Send { .. } => "send",
            Fact::Sent { .. } => "sent",
            Fact::Refused { .. } => "refused",
            Fact::Unsent { .. } => "unsent",
            Fact::Event { kind: EventKind::Message(_), .. } | Fact::Read(_) => "message",
            Fact::Event { kind: EventKind::Delivered { .. }, .. } => "delivered",
            Fact::Event { kind: EventKind::Unknown, .. } => "unknown",
            Fact::Acked(_) => "acked",
            Fact::Rewind(_) => "rewind",
            Fact::Reset => "reset",
            Fact::Restored(_) => "restored",
            Fact::State { .. } => "state",
            Fact::Left { .. } => "left",
        }
    }

    fn append(&self, line: &mut Line<'_>) {
        match self {
            Fact::NotOpened | Fact::Offline | Fact::Reset => {}
            Fact::History { version, complete } => {
                line.number("version", u64::from(*version)).raw("complete", complete);
            }
            Fact::Opened { after, epoch, tag } => {
                line.word("after", after.name());
                line.number("epoch", u64::from(epoch.0)).id("tag", tag.0);
            }
            Fact::Online { epoch, tag, head, window, resumed } => {
                line.number("epoch", u64::from(epoch.0)).id("tag", tag.0);
                line.number("head_seq", head.seq).number("head_epoch", u64::from(head.epoch.0));
                line.number("window_highest", window.highest().0);
                line.id("window_bitmap", window.bitmap()).raw("resumed", resumed);
            }
            Fact::Send { send_no, nonce, conversation, class, digest } => {
                line.number("send_no", send_no.0).id("nonce", nonce.0);
                line.id("conversation", conversation.0).word("class", class_name(*class));
                line.id("digest", *digest);
            }
            Fact::Sent { send_no, nonce, id, conversation, seq, place, class } => {
                line.answer(*send_no, *nonce).id("id", id.0).id("conversation", conversation.0);
                line.number("seq", *seq).place(*place).word("class", class_name(*class));
            }
            Fact::Refused { send_no, nonce, code } => {
                line.answer(*send_no, *nonce).number("code", u64::from(*code));
            }
            Fact::Unsent { send_no, nonce, reason } => {
                line.answer(*send_no, *nonce).word("reason", reason.name());
            }
            Fact::Event { place, prev, kind } => {
                line.place(*place).number("prev", *prev);
                match kind {
                    EventKind::Message(message) => line.message(message),
                    EventKind::Delivered { conversation, user, seq } => {
                        line.id("conversation", conversation.0);
                        line.id("user", u64::from(user.0)).number("seq", *seq);
                    }
                    EventKind::Unknown => {}
                }
            }
            Fact::Read(message) => line.message(message),
            Fact::Acked(place) | Fact::Rewind(place) | Fact::Restored(place) => {
                line.place(*place);
            }
            Fact::State { cursor, hash } | Fact::Left { cursor, hash } => {
                line.place(*cursor).id("hash", hash.0);
            }
        }
    }
}

/// A JSON object under way. No text comes from outside, so nothing has to be escaped.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn begin<'a>(out: &'a mut Vec<u8>, type_name: &str) -> Line<'a> {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(type_name.as_bytes());
        out.push(b'"');
        Line(out)
    }

    fn raw(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        // Writing to memory does not fail.
        let _ = write!(self.0, ",\"{name}\":{value}");
        self
    }

    fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.raw(name, value)
    }

    /// As text: it may have more bits than a JSON number keeps.
    fn id(&mut self, name: &str, value: u64) -> &mut Self {
        self.raw(name, format_args!("\"{value}\""))
    }

    fn word(&mut self, name: &str, value: &str) -> &mut Self {
        self.raw(name, format_args!("\"{value}\""))
    }

    fn place(&mut self, place: Place) -> &mut Self {
        self.number("inbox_seq", place.seq).number("epoch", u64::from(place.epoch.0))
    }

    fn answer(&mut self, send_no: SendNo, nonce: Option<Nonce>) -> &mut Self {
        self.number("send_no", send_no.0).nonce(nonce)
    }

    fn nonce(&mut self, nonce: Option<Nonce>) -> &mut Self {
        match nonce {
            Some(nonce) => self.id("nonce", nonce.0),
            None => self,
        }
    }

    fn message(&mut self, message: &Message) {
        self.id("id", message.id.0).id("conversation", message.conversation.0);
        self.number("seq", message.seq).id("from", u64::from(message.sender.0));
        self.id("device", u64::from(message.device.0)).number("send_no", message.send_no.0);
        self.nonce(message.nonce).word("class", class_name(message.class));
        if let Some(digest) = message.digest {
            self.id("digest", digest);
        }
    }

    fn end(self) {
        self.0.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digested_as_its_eight_bytes() {
        let numbers = (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1, u64::MAX << bit]);
        for number in numbers.chain([0, 0x0100_0000_0000_0001, 0x00FF_0000_FF00]) {
            let hash = digest(b"before");
            assert_eq!(fnv_number(hash, number), fnv(hash, &number.to_le_bytes()), "{number:x}");
        }
    }
}
