//! A store that forgets with its process: for tests, simulations and load.

use super::{Change, Saved, Store, StoreError, add_to};
use starling_codec::{
    DeviceId, Epoch, Place, UserId,
    history::StateHash,
    planted::{Fault, is_planted},
    wire::{self, event::Kind},
};
use std::collections::BTreeMap;

/// Keeps everything in memory. A clone is a backup.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    saved: Saved,
    events: BTreeMap<u64, wire::Event>,
    keeps_no_events: bool,
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// A store whose size does not grow with the inbox: it moves the cursor and keeps no events,
    /// so it cannot give back what a power cut of the server took.
    pub fn without_events() -> MemoryStore {
        MemoryStore { keeps_no_events: true, ..MemoryStore::default() }
    }

    /// A device that is logged in.
    pub fn with_identity(identity: crate::Identity) -> MemoryStore {
        let saved = Saved { identity: Some(identity), ..Saved::default() };
        MemoryStore { saved, ..MemoryStore::default() }
    }

    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// The events that were applied and not taken back, by seq.
    pub fn events(&self) -> &BTreeMap<u64, wire::Event> {
        &self.events
    }

    /// The hash of what the device holds, as a history's last line of it has it.
    pub fn state_hash(&self) -> StateHash {
        let mut hash = StateHash::default();
        self.events.values().for_each(|event| add_to(&mut hash, event));
        hash
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Saved, StoreError> {
        Ok(self.saved.clone())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            match change {
                Change::Identity(new) if !self.saved.belongs_to(new.user, new.device) => {
                    self.events.clear();
                }
                Change::Applied(event) if !self.keeps_no_events => {
                    self.events.insert(event.seq, event.clone());
                }
                Change::Rewind(_) if is_planted(Fault::StoreKeeps) => {}
                Change::Rewind(place) => self.events.retain(|_, event| place_of(event) <= *place),
                Change::Reset => self.events.clear(),
                _ => {}
            }
            self.saved.change(change);
        }
        Ok(())
    }

    fn own_above(
        &mut self,
        place: Place,
        user: UserId,
        device: DeviceId,
    ) -> Result<Vec<wire::Message>, StoreError> {
        let above = self.events.values().filter(|event| place_of(event) > place);
        let messages = above.filter_map(|event| match &event.kind {
            Some(Kind::Message(message)) => Some(message),
            _ => None,
        });
        let own = messages.filter(|own| own.sender == user.0 && own.device == device.0);
        Ok(own.cloned().collect())
    }

    fn held(&mut self) -> Result<Option<StateHash>, StoreError> {
        Ok((!self.keeps_no_events).then(|| self.state_hash()))
    }
}

fn place_of(event: &wire::Event) -> Place {
    Place::new(event.seq, Epoch(event.epoch))
}
