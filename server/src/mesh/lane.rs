//! A bounded queue between two shards.

use super::{
    SpscQueue,
    atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};
use std::collections::VecDeque;

/// From one shard to another. A full lane says so, and nobody waits.
///
/// What finds no room stays with its sender, in order (see [`Waiting`]), and the receiver, having
/// made room, tells it to try again.
#[derive(Debug)]
pub struct Lane<T> {
    queue: SpscQueue<T>,
    /// The sender has something that found no room.
    starved: AtomicBool,
    high_water: AtomicUsize,
}

impl<T> Lane<T> {
    /// A lane with room for `capacity` entries.
    pub fn new(capacity: usize) -> Lane<T> {
        Lane {
            queue: SpscQueue::new(capacity),
            starved: AtomicBool::new(false),
            high_water: AtomicUsize::new(0),
        }
    }

    /// # Errors
    /// There is no room: here it is again.
    pub fn push(&self, entry: T) -> Result<(), T> {
        self.queue.push(entry)?;
        let waiting = self.queue.len();
        if waiting > self.high_water.load(Ordering::Relaxed) {
            self.high_water.fetch_max(waiting, Ordering::Relaxed);
        }
        Ok(())
    }

    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// For the receiver, after it popped: whether the sender must be told that there is room.
    ///
    /// The sender stores `starved` and then looks for room; the receiver makes room and then
    /// loads `starved`. As with [`Sleeper`](super::Sleeper), the fences on both sides make sure
    /// that one of the two sees the other.
    pub fn has_relieved(&self) -> bool {
        fence(Ordering::SeqCst);
        self.starved.load(Ordering::Relaxed) && self.starved.swap(false, Ordering::Relaxed)
    }

    /// The most entries that waited at once.
    pub fn high_water(&self) -> usize {
        self.high_water.load(Ordering::Relaxed)
    }
}

/// What a sender keeps because its lane was full, in order. Bounded by what bounds the entries
/// themselves: credits, and connections.
#[derive(Debug)]
pub struct Waiting<T> {
    entries: VecDeque<T>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting { entries: VecDeque::new() }
    }
}

impl<T> Waiting<T> {
    /// Sends an entry behind all that wait. Returns whether anything went into the lane.
    pub fn send(&mut self, lane: &Lane<T>, entry: T) -> bool {
        if self.entries.is_empty() {
            let Err(entry) = lane.push(entry) else { return true };
            self.entries.push_back(entry);
        } else {
            self.entries.push_back(entry);
        }
        self.retry(lane)
    }

    /// Tries again what waits. Returns whether anything went into the lane.
    pub fn retry(&mut self, lane: &Lane<T>) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        lane.starved.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut sent = false;
        while let Some(entry) = self.entries.pop_front() {
            match lane.push(entry) {
                Ok(()) => sent = true,
                Err(entry) => {
                    self.entries.push_front(entry);
                    break;
                }
            }
        }
        sent
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_keeps_order_and_calls_its_sender_when_there_is_room() {
        let lane = Lane::new(2);
        let mut waiting = Waiting::default();
        assert!(waiting.send(&lane, 1));
        assert!(waiting.send(&lane, 2));
        assert!(!lane.has_relieved());
        assert!(!waiting.send(&lane, 3));
        assert!(!waiting.send(&lane, 4));
        assert_eq!(waiting.len(), 2);

        assert_eq!(lane.pop(), Some(1));
        assert!(lane.has_relieved());
        assert!(!lane.has_relieved());
        assert!(waiting.retry(&lane));
        // 4 has no room yet: the lane is starved again.
        assert_eq!((lane.pop(), lane.pop(), lane.pop()), (Some(2), Some(3), None));
        assert!(lane.has_relieved());
        assert!(waiting.retry(&lane));
        assert_eq!(lane.pop(), Some(4));
        assert!(waiting.is_empty());
        assert_eq!(lane.high_water(), 2);
    }
}
