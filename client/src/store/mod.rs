//! What must outlive the process.
//!
//! A session commits before it acts: each [`Store::commit`] is one transaction, and no byte that
//! depends on it leaves before it returned. So an event is applied and the cursor moved together,
//! an outbox entry is kept before its first byte is sent, and a connection number is used once.

#[cfg(feature = "sqlite")]
mod journal;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "sqlite")]
pub use journal::Journal;
pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::{OpenError, SqliteStore};

use crate::{Entry, Identity, KnownNetwork};
use starling_codec::{
    DeviceId, Epoch, EpochTag, Nonce, Place, UserId,
    history::{Fact, StateHash},
    wire,
};

/// Keeps what a device knows.
///
/// After a crash a store holds all of a transaction or nothing of it, and every transaction
/// before one that it holds.
pub trait Store {
    /// All but the events.
    fn load(&mut self) -> Result<Saved, StoreError>;

    /// Makes the changes, in order, in one transaction that survives the process.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Messages that this device of `user` sent and whose event is above `place`, ascending.
    fn own_above(
        &mut self,
        place: Place,
        user: UserId,
        device: DeviceId,
    ) -> Result<Vec<wire::Message>, StoreError>;

    /// The hash of the events that are kept, with which the history of a session ends. `None`: it
    /// is not known, and the history has no such end.
    fn held(&mut self) -> Result<Option<StateHash>, StoreError> {
        Ok(None)
    }
}

/// Adds an event to the hash of what a device holds, as a history's last line of it has it.
fn add_to(hash: &mut StateHash, event: &wire::Event) {
    if let Fact::Event { place, kind, .. } = event.into() {
        hash.add(place, &kind);
    }
}

/// One change of what is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Logged in, or a fresh token. Another user or device begins anew: all else is forgotten.
    Identity(Identity),
    /// The token is worth nothing any more.
    LoggedOut,
    /// The highest connection number that was used, or seen used, by this device.
    ConnectNo(u64),
    /// Of the last WELCOME.
    Epoch(Epoch, EpochTag),
    /// The highest place heard of.
    Highest(Place),
    /// An event is kept and the cursor moves to it.
    Applied(wire::Event),
    /// Events above the place are forgotten; cursor and highest place come down to it.
    Rewind(Place),
    /// All events are forgotten; cursor and highest place go back to the start.
    Reset,
    /// The next send number.
    NextSendNo(u64),
    /// What is known of a network is new or changed.
    Network(KnownNetwork),
    /// An outbox entry is new or changed.
    Outbox(Entry),
    /// An outbox entry is done with.
    Settled(Nonce),
}

/// What is kept of a device, without its events.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    pub identity: Option<Identity>,
    pub connect_no: u64,
    pub epoch: Epoch,
    pub tag: EpochTag,
    pub cursor: Place,
    pub highest: Place,
    pub next_send_no: u64,
    /// The one learnt of last comes last; at most [`MAX_NETWORKS`](crate::MAX_NETWORKS).
    pub networks: Vec<KnownNetwork>,
    /// By number, ascending.
    pub outbox: Vec<Entry>,
}

impl Default for Saved {
    fn default() -> Self {
        Saved {
            identity: None,
            connect_no: 0,
            epoch: Epoch(0),
            tag: EpochTag(0),
            cursor: Place::START,
            highest: Place::START,
            next_send_no: 1,
            networks: Vec::new(),
            outbox: Vec::new(),
        }
    }
}

impl Saved {
    /// Whether a grant for (user, device) goes on with what is kept.
    pub fn belongs_to(&self, user: UserId, device: DeviceId) -> bool {
        self.identity.as_ref().is_none_or(|known| (known.user, known.device) == (user, device))
    }

    /// What a change means for all but the events: the one place that says so.
    pub(crate) fn change(&mut self, change: &Change) {
        match change {
            Change::Identity(identity) => {
                if !self.belongs_to(identity.user, identity.device) {
                    *self = Saved::default();
                }
                self.identity = Some(identity.clone());
            }
            Change::LoggedOut => {
                if let Some(identity) = &mut self.identity {
                    identity.token.clear();
                }
            }
            Change::ConnectNo(number) => self.connect_no = *number,
            Change::Epoch(epoch, tag) => (self.epoch, self.tag) = (*epoch, *tag),
            Change::Highest(place) => self.highest = *place,
            Change::Applied(event) => {
                self.cursor = Place::new(event.seq, Epoch(event.epoch));
                self.highest = self.highest.max(self.cursor);
            }
            Change::Rewind(place) => {
                self.cursor = self.cursor.min(*place);
                self.highest = self.highest.min(*place);
            }
            Change::Reset => (self.cursor, self.highest) = (Place::START, Place::START),
            Change::NextSendNo(number) => self.next_send_no = *number,
            Change::Network(known) => known.clone().keep(&mut self.networks),
            Change::Outbox(entry) => {
                let before = |kept: &Entry| kept.send_no < entry.send_no;
                let at = self.outbox.partition_point(before);
                if let Some(kept) = self.outbox.get_mut(at)
                    && (kept.send_no, kept.nonce) == (entry.send_no, entry.nonce)
                {
                    kept.clone_from(entry);
                    return;
                }
                // It is new, or has another number.
                self.outbox.retain(|kept| kept.nonce != entry.nonce);
                let at = self.outbox.partition_point(before);
                self.outbox.insert(at, entry.clone());
            }
            Change::Settled(nonce) => {
                // A nonce is kept once.
                if let Some(at) = self.outbox.iter().position(|kept| kept.nonce == *nonce) {
                    self.outbox.remove(at);
                }
            }
        }
    }
}

/// The store failed; what it holds is what it held.
#[derive(Debug, thiserror::Error)]
#[error("the local store failed: {0}")]
pub struct StoreError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError(source.into())
    }
}
