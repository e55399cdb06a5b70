//! The names of things. Each is its own type, so that one cannot stand where another belongs.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A user: a dense number from 1 to [`UserId::MAX`], given by the sequencer.
    UserId(u32)
}
id! {
    /// A device of one user: a dense number from 1, given by the sequencer at login.
    DeviceId(u32)
}
id! {
    /// A message: a snowflake, see [`MessageId::new`].
    MessageId(u64)
}
id! {
    /// The number a device gives a message it sends: rises by one, stable over retries.
    SendNo(u64)
}
id! {
    /// Random, made when the person wrote the message: tells a repeat from a reused number.
    Nonce(u64)
}
id! {
    /// Random name of one epoch: tells it from the same number after a restored backup.
    EpochTag(u64)
}

impl UserId {
    /// Two user numbers and a mark fit a [`ConversationId`], so a user has 31 bits.
    pub const MAX: UserId = UserId(0x7FFF_FFFF);

    /// The user a frame names, if the number can be one.
    pub fn from_wire(number: u32) -> Option<UserId> {
        (1..=Self::MAX.0).contains(&number).then_some(UserId(number))
    }
}

/// A conversation. A direct one is named by its two users, so both are known without a read:
/// the top bit, then 31 bits of the lower user, a zero and 31 bits of the higher. A group is a
/// snowflake, whose top bit is clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ConversationId(pub u64);

impl ConversationId {
    const DIRECT: u64 = 1 << 63;

    /// The conversation of two users; of a user with herself when both are one.
    pub fn direct(one: UserId, other: UserId) -> ConversationId {
        let (low, high) = if one <= other { (one, other) } else { (other, one) };
        ConversationId(Self::DIRECT | u64::from(low.0) << 32 | u64::from(high.0))
    }

    /// The two users of a direct conversation, the lower first; `None` for anything else.
    pub fn users(self) -> Option<(UserId, UserId)> {
        if self.0 & Self::DIRECT == 0 {
            return None;
        }
        let low = UserId::from_wire((self.0 >> 32) as u32 & UserId::MAX.0)?;
        let high = UserId::from_wire(self.0 as u32)?;
        (low <= high).then_some((low, high))
    }

    /// The other user of a direct conversation that `user` is in.
    pub fn peer_of(self, user: UserId) -> Option<UserId> {
        match self.users()? {
            (low, high) if low == user => Some(high),
            (low, high) if high == user => Some(low),
            _ => None,
        }
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl MessageId {
    /// Start of snowflake time: 2026-01-01T00:00:00Z in Unix milliseconds.
    pub const TIME_ZERO_MS: u64 = 1_767_225_600_000;
    /// Bits of the place that made the id: 4 of a node (0 today) and 8 of a shard.
    pub const MAKER_BITS: u32 = 12;
    /// Bits of the counter within one millisecond.
    pub const COUNTER_BITS: u32 = 10;
    /// Highest value of the counter.
    pub const COUNTER_MAX: u16 = (1 << Self::COUNTER_BITS) - 1;

    /// The Snowflake scheme: a clear top bit, 41 bits of milliseconds since
    /// [`Self::TIME_ZERO_MS`], the maker, the counter.
    pub fn new(time_ms: u64, maker: u16, counter: u16) -> MessageId {
        let since = time_ms.saturating_sub(Self::TIME_ZERO_MS) & ((1 << 41) - 1);
        let maker = u64::from(maker) & ((1 << Self::MAKER_BITS) - 1);
        let counter = u64::from(counter) & u64::from(Self::COUNTER_MAX);
        MessageId(
            since << (Self::MAKER_BITS + Self::COUNTER_BITS)
                | maker << Self::COUNTER_BITS
                | counter,
        )
    }

    /// Unix milliseconds in which the id was made: the server time of the message.
    pub fn time_ms(self) -> u64 {
        (self.0 >> (Self::MAKER_BITS + Self::COUNTER_BITS)) + Self::TIME_ZERO_MS
    }

    /// Node and shard that made the id.
    pub fn maker(self) -> u16 {
        (self.0 >> Self::COUNTER_BITS) as u16 & ((1 << Self::MAKER_BITS) - 1)
    }
}

/// A connection seen from elsewhere. A ticket whose generation is old names nothing any more,
/// which is a normal outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub shard: u16,
    pub slot: u32,
    pub generation: u32,
}

impl Ticket {
    /// Slot and generation as one number, for where only this shard's tickets are named.
    pub fn key(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// The ticket of `shard` with this key.
    pub fn from_key(shard: u16, key: u64) -> Ticket {
        Ticket { shard, slot: (key >> 32) as u32, generation: key as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_its_shard_and_its_key() {
        let ticket = Ticket { shard: 3, slot: u32::MAX - 1, generation: 7 };
        assert_eq!(Ticket::from_key(3, ticket.key()), ticket);
    }

    #[test]
    fn a_direct_conversation_names_its_users_whoever_asks() {
        let (ada, bob) = (UserId(7), UserId::MAX);
        let conversation = ConversationId::direct(bob, ada);
        assert_eq!(conversation, ConversationId::direct(ada, bob));
        assert_eq!(conversation.users(), Some((ada, bob)));
        assert_eq!(conversation.peer_of(ada), Some(bob));
        assert_eq!(conversation.peer_of(bob), Some(ada));
        assert_eq!(conversation.peer_of(UserId(8)), None);
    }

    #[test]
    fn what_is_not_a_direct_conversation_has_no_users() {
        assert_eq!(ConversationId(1).users(), None);
        assert_eq!(ConversationId(ConversationId::DIRECT).users(), None);
        // The higher user first, and a user beyond 31 bits.
        assert_eq!(ConversationId(ConversationId::DIRECT | 9 << 32 | 8).users(), None);
        assert_eq!(ConversationId(ConversationId::DIRECT | 9 << 32 | 1 << 31).users(), None);
    }

    #[test]
    fn an_id_tells_its_time_and_maker() {
        let time_ms = MessageId::TIME_ZERO_MS + 123_456_789;
        let id = MessageId::new(time_ms, 0x0305, MessageId::COUNTER_MAX);
        assert_eq!((id.time_ms(), id.maker()), (time_ms, 0x0305));
        assert!(id < MessageId::new(time_ms + 1, 0, 0));
        assert_eq!(id.0 >> 63, 0);
    }
}
