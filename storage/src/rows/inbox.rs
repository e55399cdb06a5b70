//! An inbox row: the epoch, and all that one user got in one commit. A message is a reference: its
//! body is never here. Everything else is a notice, whose kind and bytes are passed on as they are.

use crate::{
    layout,
    varint::{self, Bytes},
};
use starling_codec::{ConversationId, DeviceId, Epoch, Nonce, Place, SendNo, UserId};

const RECEIVED: u8 = 0;
const OWN: u8 = 1;
const NOTICE: u8 = 2;
const KIND: u8 = 0x0f;
/// The conversation is direct and named by the other user alone.
const BY_PEER: u8 = 0x10;

/// One event of an inbox, as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Somebody else's message.
    Received { conversation: ConversationId, seq: u64 },
    /// A message that this user sent.
    Own {
        conversation: ConversationId,
        seq: u64,
        device: DeviceId,
        send_no: SendNo,
        nonce: Nonce,
        /// Seq in this inbox of the device's own message before it; 0: there is none.
        previous_own: u64,
    },
    /// All that there is to tell: an event's kind and what it says, as clients get them.
    Notice(Box<[u8]>),
}

impl Entry {
    /// The longest that refers to a message, in bytes, as long as no number needs more than 49 bits.
    pub const REFERENCE_BYTES: usize = 48;

    /// Appends it. `inbox_seq` is its own place in the inbox of `user`.
    pub fn encode(&self, user: UserId, inbox_seq: u64, out: &mut Vec<u8>) {
        match *self {
            Entry::Received { conversation, seq } => {
                put_head(RECEIVED, conversation, user, seq, out);
            }
            Entry::Own { conversation, seq, device, send_no, nonce, previous_own } => {
                put_head(OWN, conversation, user, seq, out);
                varint::put(out, u64::from(device.0));
                varint::put(out, send_no.0);
                out.extend_from_slice(&nonce.0.to_le_bytes());
                // As a distance it is short; none is as far as nothing else can be: 0.
                let distance = if previous_own == 0 { 0 } else { inbox_seq - previous_own };
                varint::put(out, distance);
            }
            Entry::Notice(ref notice) => {
                out.push(NOTICE);
                varint::put_sized(out, notice);
            }
        }
    }

    fn decode(user: UserId, inbox_seq: u64, bytes: &mut Bytes<'_>) -> Option<Entry> {
        let tag = bytes.byte()?;
        if tag == NOTICE {
            return Some(Entry::Notice(bytes.sized()?.into()));
        }
        let conversation = if tag & BY_PEER != 0 {
            ConversationId::direct(user, UserId(bytes.varint_u32()?))
        } else {
            ConversationId(bytes.u64()?)
        };
        let seq = bytes.varint()?;
        Some(match tag & KIND {
            RECEIVED => Entry::Received { conversation, seq },
            OWN => Entry::Own {
                conversation,
                seq,
                device: DeviceId(bytes.varint_u32()?),
                send_no: SendNo(bytes.varint()?),
                nonce: Nonce(bytes.u64()?),
                previous_own: match bytes.varint()? {
                    0 => 0,
                    distance => inbox_seq.checked_sub(distance)?,
                },
            },
            _ => return None,
        })
    }
}

fn put_head(kind: u8, conversation: ConversationId, user: UserId, seq: u64, out: &mut Vec<u8>) {
    match conversation.peer_of(user) {
        Some(peer) => {
            out.push(kind | BY_PEER);
            varint::put(out, u64::from(peer.0));
        }
        None => {
            out.push(kind);
            out.extend_from_slice(&conversation.0.to_le_bytes());
        }
    }
    varint::put(out, seq);
}

/// Appends the value of a row from entries that were encoded before.
pub fn encode_inbox_row(epoch: Epoch, events: u64, entries: &[u8], out: &mut Vec<u8>) {
    varint::put(out, u64::from(epoch.0));
    varint::put(out, events);
    out.extend_from_slice(entries);
}

/// An inbox row, borrowed from the store.
#[derive(Clone, Copy, Debug)]
pub struct InboxRow<'a> {
    pub user: UserId,
    pub epoch: Epoch,
    /// Seq of its first event.
    pub first: u64,
    /// Seq of its last event.
    pub last: u64,
    entries: &'a [u8],
}

impl<'a> InboxRow<'a> {
    pub fn decode(user: UserId, key: &[u8], row: &'a [u8]) -> Option<InboxRow<'a>> {
        let first = layout::seq_of(key)?;
        let mut bytes = Bytes(row);
        let epoch = Epoch(bytes.varint_u32()?);
        let events = bytes.varint()?;
        let last = first.checked_add(events.checked_sub(1)?)?;
        if last > layout::MAX_SEQ {
            return None;
        }
        Some(InboxRow { user, epoch, first, last, entries: bytes.0 })
    }

    /// Place of its last event.
    pub fn end(&self) -> Place {
        Place::new(self.last, self.epoch)
    }

    /// Seq and entry of each event, ascending; `None` when the row is damaged.
    pub fn entries(&self) -> Option<Vec<(u64, Entry)>> {
        let mut found = Vec::new();
        self.each_entry(|seq, entry| found.push((seq, entry)))?;
        Some(found)
    }

    /// Calls `each` with seq and entry of each event, ascending; `None` when the row is
    /// damaged, which may show behind some that are not.
    pub fn each_entry(&self, each: impl FnMut(u64, Entry)) -> Option<()> {
        let behind = each_entry(self.user, self.first, self.entries, each)?;
        (behind == self.last + 1).then_some(())
    }
}

/// Decodes entries whose first one is at `first`.
pub fn entries(user: UserId, first: u64, encoded: &[u8]) -> Option<Vec<(u64, Entry)>> {
    let mut found = Vec::new();
    each_entry(user, first, encoded, |seq, entry| found.push((seq, entry)))?;
    Some(found)
}

/// As [`entries`], one after the other. Says which seq the next one would have.
fn each_entry(
    user: UserId,
    first: u64,
    encoded: &[u8],
    mut each: impl FnMut(u64, Entry),
) -> Option<u64> {
    let mut bytes = Bytes(encoded);
    let mut seq = first;
    while !bytes.is_empty() {
        each(seq, Entry::decode(user, seq, &mut bytes)?);
        seq = seq.checked_add(1)?;
    }
    Some(seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USER: UserId = UserId(500);
    const SEQ: std::ops::Range<u64> = 1..1 << 35;

    fn any_entry() -> impl Strategy<Value = Entry> {
        let conversation = prop_oneof![
            (1..=UserId::MAX.0).prop_map(|peer| ConversationId::direct(USER, UserId(peer))),
            (0..1u64 << 63).prop_map(ConversationId),
        ];
        (conversation, SEQ, 0..3, 1u32.., SEQ, any::<u64>(), 0..1_000u64, any::<Vec<u8>>())
            .prop_map(|(conversation, seq, kind, device, number, nonce, previous_own, notice)| {
                match kind {
                    0 => Entry::Received { conversation, seq },
                    1 => Entry::Own {
                        conversation,
                        seq,
                        device: DeviceId(device),
                        send_no: SendNo(number),
                        nonce: Nonce(nonce),
                        previous_own,
                    },
                    _ => Entry::Notice(notice.into()),
                }
            })
    }

    proptest! {
        #[test]
        fn entries_come_back_and_are_small(
            list in proptest::collection::vec(any_entry(), 1..20), first in 1_000..1u64 << 35,
        ) {
            let mut encoded = Vec::new();
            for (index, entry) in list.iter().enumerate() {
                let before = encoded.len();
                entry.encode(USER, first + index as u64, &mut encoded);
                let most = match entry {
                    Entry::Notice(notice) => 3 + notice.len(),
                    Entry::Received { .. } | Entry::Own { .. } => Entry::REFERENCE_BYTES,
                };
                prop_assert!(encoded.len() - before <= most);
            }
            let mut value = Vec::new();
            encode_inbox_row(Epoch(7), list.len() as u64, &encoded, &mut value);
            let row = InboxRow::decode(USER, &layout::inbox_key(USER, first), &value).unwrap();
            prop_assert_eq!(row.end(), Place::new(first + list.len() as u64 - 1, Epoch(7)));
            let back: Vec<_> = row.entries().unwrap().into_iter().map(|(_, one)| one).collect();
            prop_assert_eq!(back, list);
        }

        #[test]
        fn damaged_rows_are_no_rows(value: Vec<u8>) {
            if let Some(row) = InboxRow::decode(USER, &layout::inbox_key(USER, 9), &value) {
                let _ = row.entries();
            }
        }
    }
}
