//! What the sequencer remembers, in slots that a hand walks around: what was not used since the
//! hand came by last may go (the clock algorithm).

use rustc_hash::FxHashMap;

/// Values by key. A slot number is good until the next [`Shelf::sweep`].
#[derive(Debug)]
pub struct Shelf<V> {
    index: FxHashMap<u64, u32>,
    slots: Vec<Slot<V>>,
    hand: usize,
}

#[derive(Debug)]
struct Slot<V> {
    key: u64,
    used: bool,
    value: V,
}

impl<V> Default for Shelf<V> {
    fn default() -> Self {
        Shelf { index: FxHashMap::default(), slots: Vec::new(), hand: 0 }
    }
}

impl<V> Shelf<V> {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot of a key, marked as used.
    pub fn find(&mut self, key: u64) -> Option<usize> {
        let slot = *self.index.get(&key)? as usize;
        self.slots[slot].used = true;
        Some(slot)
    }

    pub fn contains(&self, key: u64) -> bool {
        self.index.contains_key(&key)
    }

    /// Adds a value that is not there yet.
    pub fn insert(&mut self, key: u64, value: V) -> usize {
        let slot = self.slots.len();
        self.index.insert(key, slot as u32);
        self.slots.push(Slot { key, used: true, value });
        slot
    }

    pub fn key(&self, slot: usize) -> u64 {
        self.slots[slot].key
    }

    pub fn at(&mut self, slot: usize) -> &mut V {
        &mut self.slots[slot].value
    }

    /// Moves the hand `steps` slots on. What was not used since it came by last is offered to
    /// `let_go`, which says whether it goes. Returns how many went.
    pub fn sweep(&mut self, steps: usize, mut let_go: impl FnMut(u64, &mut V) -> bool) -> usize {
        let mut gone = 0;
        for _ in 0..steps.min(self.slots.len()) {
            if self.slots.is_empty() {
                break;
            }
            self.hand = if self.hand < self.slots.len() { self.hand } else { 0 };
            let slot = &mut self.slots[self.hand];
            if std::mem::take(&mut slot.used) || !let_go(slot.key, &mut slot.value) {
                self.hand += 1;
                continue;
            }
            self.index.remove(&slot.key);
            self.slots.swap_remove(self.hand);
            if let Some(moved) = self.slots.get(self.hand) {
                self.index.insert(moved.key, self.hand as u32);
            }
            gone += 1;
        }
        if self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to_fit();
            self.index.shrink_to_fit();
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_goes_and_the_rest_is_found() {
        let mut shelf = Shelf::default();
        for key in 0..100u64 {
            shelf.insert(key, key * 2);
        }
        assert_eq!(shelf.sweep(100, |_, _| true), 0, "all were used");
        for key in (0..100).step_by(2) {
            shelf.find(key).unwrap();
        }
        // One that may not go stays.
        shelf.sweep(150, |key, _| key != 1);
        for key in 0..100 {
            let slot = shelf.find(key);
            assert_eq!(slot.is_some(), key % 2 == 0 || key == 1, "{key}");
            if let Some(slot) = slot {
                assert_eq!((shelf.key(slot), *shelf.at(slot)), (key, key * 2));
            }
        }
        shelf.sweep(1_000, |_, _| true);
        shelf.sweep(1_000, |_, _| true);
        assert_eq!(shelf.len(), 0);
    }
}
