//! What a device keeps: the SDK's store in memory, which several hands may hold, and which fails
//! when it is told to.

use rustc_hash::FxHashMap;
use starling_client::{Change, Entry, EntryState, MemoryStore, Saved, Store, StoreError};
use starling_codec::{DeviceId, Epoch, Nonce, Place, SendNo, UserId, wire};
use std::{cell::RefCell, rc::Rc, slice};

/// A profile. Its clones are one profile.
#[derive(Clone, Default)]
pub struct Profile(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    store: MemoryStore,
    fails: bool,
    /// Messages that got a number, or another one, since somebody looked.
    written: Vec<Entry>,
    numbers: FxHashMap<Nonce, SendNo>,
    /// A fresh token came for a device that had one.
    refreshed: bool,
    /// What it was told to remove and still had: the place that it was told.
    kept: Option<Place>,
}

impl Profile {
    pub fn new(store: MemoryStore) -> Profile {
        let entries = store.saved().outbox.iter();
        let numbers = entries.map(|entry| (entry.nonce, entry.send_no)).collect();
        Profile(Rc::new(RefCell::new(Inner { store, numbers, ..Inner::default() })))
    }

    /// The next commit fails.
    pub fn fail_next(&self) {
        self.0.borrow_mut().fails = true;
    }

    /// A copy of what is kept.
    pub fn backup(&self) -> MemoryStore {
        self.0.borrow().store.clone()
    }

    pub fn look<T>(&self, look: impl FnOnce(&MemoryStore) -> T) -> T {
        look(&self.0.borrow().store)
    }

    /// Whether a fresh token came since this was called last.
    pub fn take_refreshed(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().refreshed)
    }

    /// Events above which place were to be removed and were not, if that happened since this was
    /// called last. At the end nothing may be left of it: what comes anew stands in the same places.
    pub fn take_kept(&self) -> Option<Place> {
        self.0.borrow_mut().kept.take()
    }

    /// Messages that got a number, or another one, since this was called last.
    pub fn take_written(&self) -> Vec<Entry> {
        std::mem::take(&mut self.0.borrow_mut().written)
    }
}

impl Store for Profile {
    fn load(&mut self) -> Result<Saved, StoreError> {
        self.0.borrow_mut().store.load()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let inner = &mut *self.0.borrow_mut();
        if std::mem::take(&mut inner.fails) {
            return Err(StoreError::new("the device's disk is full"));
        }
        for change in changes {
            if let Change::Identity(new) = change {
                let known = inner.store.saved().identity.as_ref();
                inner.refreshed |= known.is_some_and(|known| known.token != new.token);
            }
            if let Change::Outbox(entry) = change
                && entry.state == EntryState::Unanswered
                && inner.numbers.insert(entry.nonce, entry.send_no) != Some(entry.send_no)
            {
                inner.written.push(entry.clone());
            }
            inner.store.commit(slice::from_ref(change))?;
            let removed_above = match change {
                Change::Rewind(place) => *place,
                Change::Reset => Place::START,
                _ => continue,
            };
            let place_of = |event: &wire::Event| Place::new(event.seq, Epoch(event.epoch));
            if inner.store.events().values().any(|event| place_of(event) > removed_above) {
                inner.kept = Some(removed_above);
            }
        }
        Ok(())
    }

    fn own_above(
        &mut self,
        place: Place,
        user: UserId,
        device: DeviceId,
    ) -> Result<Vec<wire::Message>, StoreError> {
        self.0.borrow_mut().store.own_above(place, user, device)
    }
}
