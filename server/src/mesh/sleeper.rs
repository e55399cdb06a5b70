//! Whether a thread sleeps, so that it is woken only then.
//!
//! Knows no queue and no descriptor: what it promises is about memory order only, and small
//! enough to be model-checked.

use super::atomic::{AtomicBool, Ordering, fence};

/// One thread lies down and gets up; any other asks whether it must be woken.
///
/// The sleeper says that it sleeps, then looks at its queues once more; a producer puts something
/// into a queue, then asks whether the sleeper sleeps. Both are a store followed by a load of
/// something else, which a processor may swap. The fences forbid that: of any two that cross,
/// at least one sees what the other stored. So either the sleeper finds the entry, or the
/// producer finds the sleeper.
#[derive(Debug, Default)]
pub struct Sleeper {
    sleeping: AtomicBool,
}

impl Sleeper {
    /// For the sleeping thread: from now on it must be woken. It looks at its queues after this,
    /// and gets up again if there is something.
    pub fn lie_down(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// For the sleeping thread: it need not be woken any more.
    pub fn get_up(&self) {
        // Only this thread ever sets the flag, so reading first saves a write to a shared line.
        if self.sleeping.load(Ordering::Relaxed) {
            self.sleeping.store(false, Ordering::Relaxed);
        }
    }

    /// For a producer, after its entry is in the queue: whether it is the one to wake the
    /// sleeper. Of several, one is told so.
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        // Only the one that wakes it writes. With a swap, who finds it up by now would write that
        // once more, and in what order with its lying down again only C++ knows, not loom.
        self.sleeping.load(Ordering::Relaxed)
            && self
                .sleeping
                .compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::queue::ArrayQueue;
    use std::{sync::Arc, thread};

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let sleeper = Sleeper::default();
        assert!(!sleeper.must_wake());
        sleeper.lie_down();
        assert!(sleeper.must_wake());
        assert!(!sleeper.must_wake());
        sleeper.lie_down();
        sleeper.get_up();
        assert!(!sleeper.must_wake());
    }

    /// Were an entry ever left behind, the consumer would park for good and the test hang.
    #[test]
    fn no_entry_is_left_with_a_sleeping_consumer() {
        const ENTRIES: u32 = 200_000;
        let shared = Arc::new((Sleeper::default(), ArrayQueue::<u32>::new(8)));
        let consumer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let (sleeper, queue) = &*shared;
                let mut next = 0;
                while next < ENTRIES {
                    while let Some(entry) = queue.pop() {
                        assert_eq!(entry, next);
                        next += 1;
                    }
                    sleeper.lie_down();
                    if next < ENTRIES && queue.is_empty() {
                        thread::park();
                    }
                    sleeper.get_up();
                }
            }
        });
        let (sleeper, queue) = &*shared;
        for entry in 0..ENTRIES {
            while queue.push(entry).is_err() {
                thread::yield_now();
            }
            if sleeper.must_wake() {
                consumer.thread().unpark();
            }
        }
        consumer.join().unwrap();
    }
}
