//! A lazy timing wheel (Varghese and Lauck, 1987). A heartbeat touches only its slot's `heard`;
//! when a slot comes up, its true deadline is looked at and it is put in again if that is later.
//! The lists run through the slots, so nothing is ever allocated.

use crate::connection::{Link, NONE, Slab};

/// Length of a tick.
pub(crate) const TICK_MS: u64 = 1_000;
/// A deadline further away than this comes up early, and is put in again.
const BUCKETS: u32 = 2_048;
/// Marks `prev` of the first slot of a bucket.
const BUCKET: u32 = 1 << 31;

pub(crate) struct Wheel {
    /// First slot of each bucket.
    first: Box<[u32]>,
    /// All buckets before this tick's are empty of slots that are due.
    tick: u32,
    armed: u32,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel { first: vec![NONE; BUCKETS as usize].into(), tick: 0, armed: 0 }
    }

    /// No slot is armed.
    pub(crate) fn is_idle(&self) -> bool {
        self.armed == 0
    }

    /// The tick up to which all that was due came up.
    pub(crate) fn tick(&self) -> u32 {
        self.tick
    }

    /// Lets `number` come up at tick `at`, at the earliest with the next tick; if it was armed
    /// already, this deadline counts.
    pub(crate) fn arm(&mut self, slots: &mut Slab, number: u32, at: u32) {
        self.disarm(slots, number);
        let bucket = at.clamp(self.tick + 1, self.tick + BUCKETS - 1) % BUCKETS;
        let next = std::mem::replace(&mut self.first[bucket as usize], number);
        slots.at_mut(number).timer = Link { prev: BUCKET | bucket, next };
        if next != NONE {
            slots.at_mut(next).timer.prev = number;
        }
        self.armed += 1;
    }

    pub(crate) fn disarm(&mut self, slots: &mut Slab, number: u32) {
        let Link { prev, next } = std::mem::replace(&mut slots.at_mut(number).timer, Link::LOOSE);
        if prev == NONE {
            return;
        }
        if prev & BUCKET != 0 {
            self.first[(prev & !BUCKET) as usize] = next;
        } else {
            slots.at_mut(prev).timer.next = next;
        }
        if next != NONE {
            slots.at_mut(next).timer.prev = prev;
        }
        self.armed -= 1;
    }

    /// The next slot that comes up by `tick`, now disarmed.
    pub(crate) fn next(&mut self, slots: &mut Slab, tick: u32) -> Option<u32> {
        // After a gap of a whole turn of the wheel each bucket is looked at once.
        self.tick = self.tick.max(tick.saturating_sub(BUCKETS));
        loop {
            let number = self.first[(self.tick % BUCKETS) as usize];
            if number != NONE {
                self.disarm(slots, number);
                return Some(number);
            }
            if self.tick >= tick {
                return None;
            }
            self.tick += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::State;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Slot numbers stay below the mark of a bucket.
    const _: () = assert!(NONE & BUCKET != 0);

    proptest! {
        /// Against a sorted map: each comes up once, at its deadline, unless it was armed anew or
        /// disarmed.
        #[test]
        fn slots_come_up_when_they_are_due(
            steps in proptest::collection::vec((0u32..40, 0u32..3_000, 0u32..40), 1..200),
        ) {
            let mut slots = Slab::new(0);
            for _ in 0..40 {
                slots.insert(State::Fresh { since: 0, known: false }, 0);
            }
            let (mut wheel, mut model, mut tick) = (Wheel::new(), BTreeMap::new(), 0);
            for (number, delay, passed) in steps {
                if delay == 0 {
                    wheel.disarm(&mut slots, number);
                    model.remove(&number);
                } else {
                    wheel.arm(&mut slots, number, tick + delay);
                    model.insert(number, tick + delay);
                }
                tick += passed;
                while let Some(number) = wheel.next(&mut slots, tick) {
                    let deadline = model[&number];
                    if deadline > tick {
                        wheel.arm(&mut slots, number, deadline);
                    } else {
                        model.remove(&number);
                    }
                }
                prop_assert!(model.values().all(|&deadline| deadline > tick));
                prop_assert_eq!(wheel.armed as usize, model.len());
            }
        }
    }
}
