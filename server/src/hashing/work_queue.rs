//! The queue of one hashing thread, and by what it is woken.

use crate::mesh::SpscQueue;
use starling_codec::Origin;
use starling_engine::HashWork;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
};

/// Work that may wait for one thread. At some 20 ms each, the last waits a second.
const MAX_WAITING: usize = 50;

/// Work for one thread: a queue from each shard, so that no shard ever waits for a thread that
/// stands back.
#[derive(Debug)]
pub struct WorkQueue {
    queues: Box<[SpscQueue<(Origin, HashWork)>]>,
    /// In all queues together.
    waiting: AtomicUsize,
    closed: AtomicBool,
    reader: OnceLock<Thread>,
}

impl WorkQueue {
    pub fn new(shards: u16) -> WorkQueue {
        WorkQueue {
            queues: (0..shards).map(|_| SpscQueue::new(MAX_WAITING)).collect(),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            reader: OnceLock::new(),
        }
    }

    /// Who takes from it; named once, before any work comes.
    pub fn set_reader(&self, reader: Thread) {
        // A second thread would be a mistake of this module, and never be woken.
        let _ = self.reader.set(reader);
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// For the shard of the origin. Whether there was room.
    pub fn put(&self, origin: Origin, work: HashWork) -> bool {
        let has_room = self.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING;
        // Each queue has room for all that may wait.
        let queue = &self.queues[usize::from(origin.shard)];
        let put = has_room && queue.push((origin, work)).is_ok();
        if put {
            self.wake();
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        put
    }

    /// For the reader: waits for work, from a shard behind `last` first; `None` when there
    /// will be none.
    pub fn next(&self, last: u16) -> Option<(Origin, HashWork)> {
        let (before, behind) = self.queues.split_at(usize::from(last) + 1);
        loop {
            // Looked at first, so that what was put before the end is found.
            let closed = self.closed.load(Ordering::Acquire);
            if let Some(work) = behind.iter().chain(before).find_map(SpscQueue::pop) {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                return Some(work);
            }
            if closed {
                return None;
            }
            // Returns at once if it was woken since it last returned.
            thread::park();
        }
    }

    /// No work comes any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(reader) = self.reader.get() {
            reader.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_engine::Secret;
    use std::sync::Arc;

    fn work() -> HashWork {
        HashWork::Make { password: Secret::new("correct horse".into()) }
    }

    #[test]
    fn shards_take_turns_and_the_bound_is_that_of_all() {
        let queue = WorkQueue::new(2);
        for key in 0..MAX_WAITING as u64 {
            assert!(queue.put(Origin { shard: u16::from(key >= 40), key }, work()));
        }
        assert!(!queue.put(Origin { shard: 1, key: 99 }, work()));
        assert_eq!(queue.waiting(), MAX_WAITING);
        let mut last = 1;
        let shards: Vec<u16> = (0..6)
            .map(|_| {
                last = queue.next(last).unwrap().0.shard;
                last
            })
            .collect();
        assert_eq!(shards, [0, 1, 0, 1, 0, 1]);
        assert!(queue.put(Origin { shard: 1, key: 99 }, work()));
        queue.close();
        let rest = std::iter::from_fn(|| queue.next(0)).count();
        assert_eq!(rest, MAX_WAITING - 6 + 1, "what was put before the end");
    }

    #[test]
    fn the_reader_that_waits_is_woken() {
        let queue = Arc::new(WorkQueue::new(1));
        let reader = thread::spawn({
            let queue = queue.clone();
            move || {
                let mut done = 0;
                while queue.next(0).is_some() {
                    done += 1;
                }
                done
            }
        });
        queue.set_reader(reader.thread().clone());
        let mut put = 0;
        while put < 2_000 {
            if queue.put(Origin { shard: 0, key: 1 }, work()) {
                put += 1;
            } else {
                thread::yield_now();
            }
        }
        queue.close();
        assert_eq!(reader.join().unwrap(), put);
    }
}
