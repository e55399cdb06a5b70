//! What outlives a client: its store, and the history that it recorded.

use super::people::within;
use crate::common::history::Recording;
use starling_client::{
    Change, Client, ClientSettings, Event, Events, Identity, MemoryStore, Saved, Store, StoreError,
};
use starling_codec::{
    DeviceId, Epoch, EpochTag, Place, UserId,
    history::{Fact, Record, StateHash},
    limits::MAX_WINDOW_BYTES,
    wire,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

/// A store that the test looks into while a client holds it.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<MemoryStore>>);

impl Shared {
    pub fn events(&self) -> BTreeMap<u64, wire::Event> {
        self.0.lock().unwrap().events().clone()
    }

    pub fn cursor(&self) -> Place {
        self.0.lock().unwrap().saved().cursor
    }

    pub fn epoch(&self) -> Epoch {
        self.0.lock().unwrap().saved().epoch
    }

    pub fn tag(&self) -> EpochTag {
        self.0.lock().unwrap().saved().tag
    }

    /// The hash of what the device holds.
    pub fn state_hash(&self) -> StateHash {
        self.0.lock().unwrap().state_hash()
    }

    pub fn identity(&self) -> Identity {
        self.0.lock().unwrap().saved().identity.clone().expect("logged in")
    }
}

impl Store for Shared {
    fn load(&mut self) -> Result<Saved, StoreError> {
        self.0.lock().unwrap().load()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.0.lock().unwrap().commit(changes)
    }

    fn own_above(
        &mut self,
        place: Place,
        user: UserId,
        device: DeviceId,
    ) -> Result<Vec<wire::Message>, StoreError> {
        self.0.lock().unwrap().own_above(place, user, device)
    }

    fn held(&mut self) -> Result<Option<StateHash>, StoreError> {
        self.0.lock().unwrap().held()
    }
}

/// A device that is logged in, whether a client runs or not.
#[derive(Clone, Debug)]
pub struct Profile {
    pub store: Shared,
    pub history: Recording,
}

impl Profile {
    pub fn new(identity: Identity) -> Profile {
        let store = Shared(Arc::new(Mutex::new(MemoryStore::with_identity(identity))));
        Profile { store, history: Recording::default() }
    }

    /// The device forgets all but who it is.
    pub fn forget(&mut self) {
        let Identity { user, device, .. } = self.store.identity();
        self.history.write(&Record::of(user, device, Fact::Restored(Place::START)));
        self.store = Profile::new(self.store.identity()).store;
    }

    /// Starts a client that goes on where the last one ended.
    pub fn start(&self, server: &str) -> (Client, Events) {
        self.start_with(server, ClientSettings::default())
    }

    fn start_with(&self, server: &str, settings: ClientSettings) -> (Client, Events) {
        let recorder = self.history.recorder();
        Client::start_recorded(server, self.store.clone(), settings, recorder).unwrap()
    }

    /// Connects until it has all that the server has.
    pub async fn catch_up(&self, server: &str) {
        // There may be much of it.
        let window_bytes = MAX_WINDOW_BYTES;
        let settings = ClientSettings { window_bytes, ..ClientSettings::default() };
        let (client, mut events) = self.start_with(server, settings);
        let mut head = None;
        while head.is_none_or(|head| self.store.cursor() < head) {
            let event = within("it catches up", events.next()).await;
            if let Event::Online(welcomed) = event.expect("a session") {
                head = Some(welcomed.head);
            }
        }
        within("it closes", client.close()).await;
    }

    /// The last line of the device: what it holds, now that all is at rest.
    fn settle(&self) {
        let Identity { user, device, .. } = self.store.identity();
        let store = self.store.0.lock().unwrap();
        let state = Fact::State { cursor: store.saved().cursor, hash: store.state_hash() };
        self.history.write(&Record::of(user, device, state));
    }
}

/// Nobody is connected any more, and all that was written is answered: ends the histories. A
/// receipt that came while clients left is fetched by those who had left before it.
pub async fn come_to_rest(server: &str, profiles: &[Profile]) {
    let agree = || {
        let mut cursors = HashMap::new();
        profiles.iter().all(|profile| {
            let cursor = profile.store.cursor();
            *cursors.entry(profile.store.identity().user).or_insert(cursor) == cursor
        })
    };
    while !agree() {
        for profile in profiles {
            profile.catch_up(server).await;
        }
    }
    profiles.iter().for_each(Profile::settle);
}
