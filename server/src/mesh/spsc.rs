//! A bounded queue of one writer and one reader, neither of which ever waits for the other.

use super::atomic::{AtomicUsize, Ordering};
use crossbeam::queue::ArrayQueue;

/// One thread pushes, one pops.
///
/// crossbeam's queue spins while the other side stands between taking a place and filling or
/// emptying it. Usually that is a few nanoseconds. But where both threads want one processor, the
/// other may have lost it just there, to the one that spins; and a thread that stands back, as
/// those do that hash passwords, does not get it back for most of a second. So both sides count
/// what they have done, and neither goes where the other has not been.
#[derive(Debug)]
pub struct SpscQueue<T> {
    entries: ArrayQueue<T>,
    capacity: usize,
    /// Entries that were ever put in, and taken out. They wrap.
    pushed: AtomicUsize,
    popped: AtomicUsize,
}

impl<T> SpscQueue<T> {
    /// A queue with room for `capacity` entries, at least one.
    pub fn new(capacity: usize) -> SpscQueue<T> {
        let (pushed, popped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        SpscQueue { entries: ArrayQueue::new(capacity), capacity, pushed, popped }
    }

    /// For the writer.
    ///
    /// # Errors
    /// There is no room: here it is again.
    pub fn push(&self, entry: T) -> Result<(), T> {
        if self.len() >= self.capacity {
            return Err(entry);
        }
        self.entries.push(entry)?;
        self.pushed.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// For the reader.
    pub fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let entry = self.entries.pop();
        self.popped.fetch_add(1, Ordering::Release);
        entry
    }

    /// Entries that wait. Either side may see one that the other has dealt with just now.
    pub fn len(&self) -> usize {
        let popped = self.popped.load(Ordering::Acquire);
        self.pushed.load(Ordering::Acquire).wrapping_sub(popped)
    }

    /// Whether nothing waits that is whole.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    #[test]
    fn it_is_bounded_and_keeps_order() {
        let queue = SpscQueue::new(2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((queue.pop(), queue.len()), (Some(1), 1));
        assert_eq!(queue.push(3), Ok(()));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(2), Some(3), None));
        assert!(queue.is_empty());
    }

    #[test]
    fn two_threads_lose_and_double_nothing() {
        const ENTRIES: u32 = 200_000;
        let queue = Arc::new(SpscQueue::new(7));
        let writer = thread::spawn({
            let queue = queue.clone();
            move || {
                for entry in 0..ENTRIES {
                    while queue.push(entry).is_err() {
                        thread::yield_now();
                    }
                }
            }
        });
        for expected in 0..ENTRIES {
            let entry = loop {
                match queue.pop() {
                    Some(entry) => break entry,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(entry, expected);
        }
        writer.join().unwrap();
        assert_eq!(queue.pop(), None);
    }

    /// The writer has lost the processor with its place taken and nothing in it: the reader finds
    /// nothing, and does not spin until it comes back.
    #[test]
    fn a_place_that_is_taken_and_not_filled_is_not_there() {
        let queue = SpscQueue::new(4);
        queue.push(1).unwrap();
        // As far as it gets before it counts: for the reader the same as halfway.
        queue.entries.push(2).unwrap();
        assert_eq!((queue.pop(), queue.pop(), queue.is_empty()), (Some(1), None, true));
        queue.pushed.fetch_add(1, Ordering::Release);
        assert_eq!(queue.pop(), Some(2));
    }

    /// And the other way round: a full queue is full until its reader is done.
    #[test]
    fn a_place_that_is_being_emptied_is_not_free() {
        let queue = SpscQueue::new(1);
        queue.push(1).unwrap();
        assert_eq!(queue.entries.pop(), Some(1));
        assert_eq!(queue.push(2), Err(2));
        queue.popped.fetch_add(1, Ordering::Release);
        assert_eq!(queue.push(2), Ok(()));
    }
}
