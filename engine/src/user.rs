//! Users that have a session here, or are about to.

use crate::{
    connection::{NONE, Slab},
    session::Live,
};
use rustc_hash::FxHashMap;
use starling_codec::{DeviceId, Epoch, Place, UserId};

/// What the user's home knows while she is here. Her devices are a list through the slots.
pub(crate) struct User {
    head_seq: u64,
    /// The highest seq that a device of hers has passed.
    pub(crate) passed_seq: u64,
    head_epoch: u32,
    /// Slot of her first session; of an entry that is free, the next free one.
    first: u32,
    /// This turn's deliveries to her, in the outlet's list; `NONE`: there are none.
    pub(crate) fresh: u32,
    /// Connections that are looked at and may become sessions of hers, and commands on their way
    /// that store cursors: until those are in the view, only this entry knows what was passed.
    held: u32,
}

const _: () = assert!(size_of::<User>() <= 32);

impl User {
    fn new(first: u32) -> User {
        User { head_seq: 0, passed_seq: 0, head_epoch: 0, first, fresh: NONE, held: 0 }
    }

    pub(crate) fn head(&self) -> Place {
        Place::new(self.head_seq, Epoch(self.head_epoch))
    }

    /// The inbox reaches at least to `place`.
    pub(crate) fn raise_head(&mut self, place: Place) {
        if place > self.head() {
            (self.head_seq, self.head_epoch) = (place.seq, place.epoch.0);
        }
    }
}

/// All of them. An entry is made before the head is read, so that no delivery falls between.
///
/// Entries stand in pages, and the map has only their numbers: half of what a map of a million
/// has room for may be empty, and growing copies all of it.
pub(crate) struct Users {
    numbers: FxHashMap<UserId, u32>,
    pages: Vec<Box<[User]>>,
    free: u32,
}

const PAGE_USERS: usize = 1_024;

impl Default for Users {
    fn default() -> Self {
        Users { numbers: FxHashMap::default(), pages: Vec::new(), free: NONE }
    }
}

impl Users {
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(crate) fn get(&self, user: UserId) -> Option<&User> {
        let number = *self.numbers.get(&user)? as usize;
        Some(&self.pages[number / PAGE_USERS][number % PAGE_USERS])
    }

    pub(crate) fn get_mut(&mut self, user: UserId) -> Option<&mut User> {
        let number = *self.numbers.get(&user)?;
        Some(self.at_mut(number))
    }

    fn at_mut(&mut self, number: u32) -> &mut User {
        &mut self.pages[number as usize / PAGE_USERS][number as usize % PAGE_USERS]
    }

    /// A connection of `user` is looked at, or a cursor of hers is being stored. Her entry stays
    /// until [`Users::leave`].
    pub(crate) fn enter(&mut self, user: UserId) {
        let number = match self.numbers.get(&user) {
            Some(&number) => number,
            None => self.insert(user),
        };
        self.at_mut(number).held += 1;
    }

    fn insert(&mut self, user: UserId) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let number = self.free;
        let entry = self.at_mut(number);
        let next = std::mem::replace(entry, User::new(NONE)).first;
        self.free = next;
        self.numbers.insert(user, number);
        number
    }

    fn grow(&mut self) {
        let first = (self.pages.len() * PAGE_USERS) as u32;
        let last = first + PAGE_USERS as u32 - 1;
        let page =
            (first..=last).map(|number| User::new(if number == last { NONE } else { number + 1 }));
        self.pages.push(page.collect());
        self.free = first;
    }

    fn remove(&mut self, user: UserId) {
        if let Some(number) = self.numbers.remove(&user) {
            self.at_mut(number).first = std::mem::replace(&mut self.free, number);
        }
    }

    /// What [`Users::enter`] said is over, whatever came of it.
    pub(crate) fn leave(&mut self, user: UserId) {
        if let Some(entry) = self.get_mut(user) {
            entry.held -= 1;
            self.forget_if_gone(user);
        }
    }

    /// The session on `number` is one of its user's.
    pub(crate) fn attach(&mut self, slots: &mut Slab, number: u32) {
        if let Some(live) = slots.live_mut(number)
            && let Some(entry) = self.get_mut(live.user)
        {
            live.sibling = std::mem::replace(&mut entry.first, number);
        }
    }

    /// The session on `number` is about to end.
    pub(crate) fn detach(&mut self, slots: &mut Slab, number: u32) {
        let Some(live) = slots.live(number) else { return };
        let (user, next) = (live.user, live.sibling);
        let Some(entry) = self.get_mut(user) else { return };
        if entry.first == number {
            entry.first = next;
        } else {
            let before = sessions(slots, Some(entry.first).filter(|&first| first != NONE))
                .find(|&at| slots.live(at).is_some_and(|live| live.sibling == number));
            if let Some(live) = before.and_then(|before| slots.live_mut(before)) {
                live.sibling = next;
            }
        }
        self.forget_if_gone(user);
    }

    fn forget_if_gone(&mut self, user: UserId) {
        let gone = |entry: &User| entry.held == 0 && entry.first == NONE;
        if self.get(user).is_some_and(gone) {
            self.remove(user);
        }
    }

    /// The slot of a user's first session; the next one stands there.
    pub(crate) fn first_session(&self, user: UserId) -> Option<u32> {
        self.get(user).map(|entry| entry.first).filter(|&first| first != NONE)
    }

    /// The slot of a device's session.
    pub(crate) fn session_of(&self, slots: &Slab, user: UserId, device: DeviceId) -> Option<u32> {
        sessions(slots, self.first_session(user))
            .find(|&number| slots.live(number).is_some_and(|live| live.device == device))
    }
}

fn sessions(slots: &Slab, first: Option<u32>) -> impl Iterator<Item = u32> {
    std::iter::successors(first, |&number| slots.live(number).and_then(Live::next_session))
}
