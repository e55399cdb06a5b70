//! The table of families: what is kept where, under which key, and how it is stored.
//!
//! | family | key | value |
//! |---|---|---|
//! | message | conversation u64, !seq u64 | one message: its body stands here and nowhere else |
//! | inbox | user u64, !first seq u64 | the events that one user got in one commit: references, notices |
//! | user | user u64 | name, password hash, when made |
//! | name | tenant u32 (0), name | user |
//! | device | user u64, device u32, part u8 | part 0: record; 1: send window; 2: cursor |
//! | meta | tag u8, number u32 | format, epochs, highest user, snowflake high-water |
//!
//! Keys are big-endian, so that their order is their meaning. The logs (message, inbox) are kept
//! newest first, by the complement of the seq: their memtables are hashed by the prefix and can
//! only be walked forwards (RocksDB's SeekForPrev misses the newest rows there), and the newest
//! row is what is asked for most. For the same reason an inbox row is named by its first seq: the
//! row that holds an event is then the first at or after the event's own key.
//!
//! A read stays within one prefix: a walk across prefixes would copy and sort a hashed memtable.

use starling_codec::{ConversationId, DeviceId, Epoch, UserId};

/// The format of keys and rows that this code writes. Another one is refused.
pub const FORMAT: u32 = 2;

/// A kind of rows: a column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    Message,
    Inbox,
    User,
    Name,
    Device,
    Meta,
}

/// How a family is kept.
#[derive(Clone, Copy, Debug)]
pub struct FamilySpec {
    pub family: Family,
    pub name: &'static str,
    /// Every message adds rows here: memtables are hashed by the prefix, table filters hold
    /// prefixes.
    pub log: bool,
    /// Leading bytes of a key that every read fixes; 0: keys are read whole.
    pub prefix_bytes: usize,
    /// Share of the memtable budget that one memtable of the family may take, in percent.
    pub memtable_percent: usize,
}

/// All families, in the order of [`Family`].
pub const FAMILIES: [FamilySpec; 6] = [
    spec(Family::Message, "message", true, 8, 25),
    spec(Family::Inbox, "inbox", true, 8, 20),
    spec(Family::User, "user", false, 0, 5),
    spec(Family::Name, "name", false, 0, 5),
    spec(Family::Device, "device", false, 8, 10),
    spec(Family::Meta, "meta", false, 0, 1),
];

const fn spec(
    family: Family,
    name: &'static str,
    log: bool,
    prefix_bytes: usize,
    memtable_percent: usize,
) -> FamilySpec {
    FamilySpec { family, name, log, prefix_bytes, memtable_percent }
}

const _: () = {
    let mut at = 0;
    while at < FAMILIES.len() {
        assert!(FAMILIES[at].family as usize == at);
        at += 1;
    }
};

impl Family {
    pub fn spec(self) -> &'static FamilySpec {
        &FAMILIES[self as usize]
    }
}

/// Key of a row in a log, whose rows are read newest first.
pub type LogKey = [u8; 16];

fn log_key(owner: u64, seq: u64) -> LogKey {
    (u128::from(owner) << 64 | u128::from(!seq)).to_be_bytes()
}

/// Key of a message.
pub fn message_key(conversation: ConversationId, seq: u64) -> LogKey {
    log_key(conversation.0, seq)
}

/// Key of the inbox row whose first event is `first_seq`.
pub fn inbox_key(user: UserId, first_seq: u64) -> LogKey {
    log_key(u64::from(user.0), first_seq)
}

/// No log gets this long: a number above it is damage, and there is room for those that follow.
pub const MAX_SEQ: u64 = 1 << 62;

/// The seq in a key of `message` or `inbox`; `None`: it is not such a key.
pub fn seq_of(key: &[u8]) -> Option<u64> {
    let (_, seq) = key.split_first_chunk::<8>()?;
    Some(!u64::from_be_bytes(seq.try_into().ok()?)).filter(|seq| *seq <= MAX_SEQ)
}

/// Key after the last one with this prefix.
pub fn after_prefix(prefix: u64) -> [u8; 8] {
    prefix.saturating_add(1).to_be_bytes()
}

/// Key of a user.
pub fn user_key(user: UserId) -> [u8; 8] {
    u64::from(user.0).to_be_bytes()
}

/// Key of a name in normal form. There is one tenant so far, 0.
pub fn name_key(name: &str) -> Vec<u8> {
    [&0u32.to_be_bytes()[..], name.as_bytes()].concat()
}

/// What of a device stands in a row. They change at different times, so each is its own row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DevicePart {
    Record = 0,
    Window = 1,
    Cursor = 2,
}

/// Key of a part of a device.
pub fn device_key(user: UserId, device: DeviceId, part: DevicePart) -> [u8; 13] {
    let mut key = [0; 13];
    key[..8].copy_from_slice(&user_key(user));
    key[8..12].copy_from_slice(&device.0.to_be_bytes());
    key[12] = part as u8;
    key
}

/// Device and part in a key of `device`; `None`: it is not such a key.
pub fn device_of(key: &[u8]) -> Option<(DeviceId, DevicePart)> {
    let key: &[u8; 13] = key.try_into().ok()?;
    let device = u32::from_be_bytes([key[8], key[9], key[10], key[11]]);
    let part = match key[12] {
        0 => DevicePart::Record,
        1 => DevicePart::Window,
        2 => DevicePart::Cursor,
        _ => return None,
    };
    Some((DeviceId(device), part))
}

/// Keys of `meta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// The version of the format, u32.
    Format,
    /// No message id of this or a later Unix millisecond was promised, u64.
    HighWater,
    /// The highest user that was given, u32.
    LastUser,
    /// The tag of an epoch, u64.
    Epoch(Epoch),
}

impl MetaKey {
    pub fn bytes(self) -> [u8; 5] {
        let (tag, number) = match self {
            MetaKey::Format => (0, 0),
            MetaKey::HighWater => (1, 0),
            MetaKey::LastUser => (2, 0),
            MetaKey::Epoch(epoch) => (3, epoch.0),
        };
        let mut key = [tag, 0, 0, 0, 0];
        key[1..].copy_from_slice(&number.to_be_bytes());
        key
    }

    /// First key after the epochs.
    pub const AFTER_EPOCHS: [u8; 1] = [4];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_ordered_newest_first() {
        let (ada, bob) = (UserId(1), UserId(2));
        assert!(inbox_key(ada, 2) < inbox_key(ada, 1));
        assert!(inbox_key(ada, 1) < inbox_key(bob, 1));
        assert!(inbox_key(ada, 1)[..] < after_prefix(1)[..]);
        assert_eq!(seq_of(&inbox_key(ada, 77)), Some(77));
        assert_eq!(&message_key(ConversationId(9), 1)[..8], &9u64.to_be_bytes());
    }

    #[test]
    fn a_device_key_names_its_part() {
        let key = device_key(UserId(5), DeviceId(6), DevicePart::Cursor);
        assert_eq!(device_of(&key), Some((DeviceId(6), DevicePart::Cursor)));
        assert_eq!(device_of(&key[..12]), None);
    }
}
