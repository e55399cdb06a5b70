//! From the committer to one shard: what a commit made public.

use super::{
    SpscQueue,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    lock::{Mutex, MutexGuard},
};
use rustc_hash::FxHashMap;
use starling_codec::{Delivery, Outcome, Place, UserId};
use std::sync::PoisonError;

/// The part of one commit that concerns one shard.
#[derive(Debug, Default, PartialEq)]
pub struct Announced {
    /// With the keys of their origins, in the order of the commands.
    pub outcomes: Vec<(u64, Outcome)>,
    pub deliveries: Vec<Delivery>,
}

/// A bounded lane. Outcomes always find room, since each has a credit of the shard behind it and
/// the lane has an entry for every credit. Deliveries have their own bound: beyond it they are
/// folded to each user's new head, which the shard takes when it comes to it; it then reads the
/// events from the view.
#[derive(Debug)]
pub struct AnnouncementLane {
    queue: SpscQueue<Announced>,
    room_for_deliveries: usize,
    folded: Mutex<FxHashMap<UserId, Place>>,
    any_folded: AtomicBool,
    deliveries_folded: AtomicU64,
    high_water: AtomicUsize,
}

impl AnnouncementLane {
    /// A lane that takes deliveries while fewer than `room_for_deliveries` commits wait, and
    /// outcomes of as many commits more as the shard has credits.
    pub fn new(room_for_deliveries: usize, credits: usize) -> AnnouncementLane {
        AnnouncementLane {
            queue: SpscQueue::new(room_for_deliveries + credits),
            room_for_deliveries,
            folded: Mutex::default(),
            any_folded: AtomicBool::new(false),
            deliveries_folded: AtomicU64::new(0),
            high_water: AtomicUsize::new(0),
        }
    }

    /// For the committer. Returns whether there is anything for the shard to see.
    pub fn announce(&self, mut announced: Announced) -> bool {
        if announced.outcomes.is_empty() && announced.deliveries.is_empty() {
            return false;
        }
        let waiting = self.queue.len();
        if waiting >= self.room_for_deliveries {
            self.fold(std::mem::take(&mut announced.deliveries));
        }
        self.high_water.fetch_max(waiting + 1, Ordering::Relaxed);
        if !announced.deliveries.is_empty() || !announced.outcomes.is_empty() {
            let pushed = self.queue.push(announced);
            assert!(pushed.is_ok(), "an outcome without a credit behind it");
        }
        true
    }

    fn fold(&self, deliveries: Vec<Delivery>) {
        self.deliveries_folded.fetch_add(deliveries.len() as u64, Ordering::Relaxed);
        let mut folded = self.lock();
        for delivery in deliveries {
            let Some(last) = delivery.events.last() else { continue };
            let head = Place { seq: last.seq, epoch: starling_codec::Epoch(last.epoch) };
            let known = folded.entry(delivery.user).or_insert(head);
            *known = head.max(*known);
        }
        self.any_folded.store(!folded.is_empty(), Ordering::Release);
    }

    pub fn pop(&self) -> Option<Announced> {
        self.queue.pop()
    }

    /// The heads of whom deliveries were folded, if any were.
    pub fn take_folded(&self) -> Vec<(UserId, Place)> {
        if !self.any_folded.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut folded = self.lock();
        self.any_folded.store(false, Ordering::Release);
        folded.drain().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.any_folded.load(Ordering::Acquire)
    }

    /// Deliveries that found no room.
    pub fn deliveries_folded(&self) -> u64 {
        self.deliveries_folded.load(Ordering::Relaxed)
    }

    /// The most commits that waited at once.
    pub fn high_water(&self) -> usize {
        self.high_water.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<UserId, Place>> {
        // Heads only rise, so what a panicking thread left is whole.
        self.folded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_codec::{Epoch, wire::Event};

    fn announced(key: Option<u64>, user: u32, seq: u64) -> Announced {
        let event = Event { seq, epoch: 7, ..Event::default() };
        Announced {
            outcomes: key.map(|key| (key, Outcome::Done)).into_iter().collect(),
            deliveries: vec![Delivery { user: UserId(user), events: vec![event] }],
        }
    }

    #[test]
    fn a_full_lane_folds_deliveries_and_keeps_outcomes() {
        let lane = AnnouncementLane::new(1, 2);
        assert!(lane.announce(announced(None, 1, 1)));
        assert!(lane.announce(announced(Some(8), 1, 2)));
        assert!(lane.announce(announced(Some(9), 1, 3)));
        assert!(lane.announce(announced(None, 2, 1)));
        assert_eq!(lane.deliveries_folded(), 3);

        assert_eq!(lane.pop(), Some(announced(None, 1, 1)));
        assert_eq!(lane.pop().unwrap().outcomes, [(8, Outcome::Done)]);
        assert_eq!(lane.pop().unwrap().outcomes, [(9, Outcome::Done)]);
        assert_eq!(lane.pop(), None);
        assert!(!lane.is_empty());
        let mut heads = lane.take_folded();
        heads.sort_unstable();
        let epoch = Epoch(7);
        assert_eq!(heads, [(UserId(1), Place::new(3, epoch)), (UserId(2), Place::new(1, epoch))]);
        assert!(lane.is_empty());
        assert_eq!(lane.take_folded(), []);
    }

    #[test]
    fn nothing_is_not_announced() {
        assert!(!AnnouncementLane::new(1, 1).announce(Announced::default()));
    }
}
