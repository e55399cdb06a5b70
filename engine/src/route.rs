//! Who owns what: the only place that computes an owner.

use starling_codec::{ConversationId, UserId};

/// What has one home shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKey {
    User(UserId),
    Conversation(ConversationId),
}

impl From<UserId> for RouteKey {
    fn from(user: UserId) -> Self {
        RouteKey::User(user)
    }
}

impl From<ConversationId> for RouteKey {
    fn from(conversation: ConversationId) -> Self {
        RouteKey::Conversation(conversation)
    }
}

/// The slot of a key: never changes, whatever owns the slot.
pub fn slot_of(key: impl Into<RouteKey>) -> u16 {
    let number = match key.into() {
        RouteKey::User(user) => u64::from(user.0),
        RouteKey::Conversation(conversation) => conversation.0,
    };
    // Dense numbers must spread: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) as u16 % Route::SLOTS
}

/// The table from slots to shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    owners: Box<[u16]>,
}

impl Route {
    /// Slots of the table.
    pub const SLOTS: u16 = 4_096;

    /// The table that gives each of `shards` (at least one) the same share.
    pub fn even(shards: u16) -> Route {
        let shards = shards.max(1);
        Route { owners: (0..Self::SLOTS).map(|slot| slot % shards).collect() }
    }

    /// The shard that owns a user or a conversation.
    pub fn owner_of(&self, key: impl Into<RouteKey>) -> u16 {
        self.owners[usize::from(slot_of(key))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_dense_users_spread_evenly() {
        let mut filled = vec![0u32; usize::from(Route::SLOTS)];
        for number in 1..=409_600 {
            filled[usize::from(slot_of(UserId(number)))] += 1;
        }
        // A hundred each on average; a fair spread stays within six standard deviations.
        assert!(filled.iter().all(|&users| (40..=160).contains(&users)), "{filled:?}");
    }

    #[test]
    fn every_shard_owns_a_share_and_one_shard_owns_all() {
        let mut owned = [0u32; 3];
        for number in 1..=30_000 {
            owned[usize::from(Route::even(3).owner_of(UserId(number)))] += 1;
            assert_eq!(Route::even(1).owner_of(UserId(number)), 0);
        }
        assert!(owned.iter().all(|&users| (9_000..=11_000).contains(&users)), "{owned:?}");
    }

    /// A table on disk or another node counts on these: they may never change.
    #[test]
    fn slots_are_pinned() {
        let slots = [slot_of(UserId(1)), slot_of(UserId(2)), slot_of(UserId::MAX)];
        let conversation = slot_of(ConversationId::direct(UserId(1), UserId(2)));
        assert_eq!((slots, conversation), ([3265, 1742, 3047], 2793));
    }
}
