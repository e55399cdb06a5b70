//! A bounded queue of one writer and one reader, neither of which ever waits for the other.

use super::atomic::{AtomicUsize, Ordering};
use crossbeam::queue::{ArrayQueue, SegQueue};

/// One thread pushes, one pops.
///
/// crossbeam's queues spin while the other side stands between taking a place and filling or
/// emptying it. Usually that is a few nanoseconds. But where both threads want one processor, the
/// other may have lost it just there, to the one that spins: a shard to the committer, for a tick
/// of the kernel's; and a thread that stands back, as those do that hash passwords, to a shard for
/// most of a second. So both sides count what they have done, and neither goes where the other has
/// not been.
///
/// With a second writer or reader nothing is lost; but who reads may spin.
///
/// On an [`ArrayQueue`] it has memory for all its entries from the beginning; on a [`SegQueue`] for
/// those that wait, a block of them at a time, for which an entry costs more of the processor.
#[derive(Debug)]
pub struct SpscQueue<P> {
    places: P,
    capacity: usize,
    /// Entries that were ever put in, and taken out. They wrap.
    pushed: AtomicUsize,
    popped: AtomicUsize,
}

/// Where entries lie: never more than there is room for.
pub trait Places {
    type Entry;

    fn with_room_for(entries: usize) -> Self;
    fn put(&self, entry: Self::Entry) -> Result<(), Self::Entry>;
    fn take(&self) -> Option<Self::Entry>;
}

impl<T> Places for ArrayQueue<T> {
    type Entry = T;

    fn with_room_for(entries: usize) -> Self {
        ArrayQueue::new(entries)
    }

    fn put(&self, entry: T) -> Result<(), T> {
        self.push(entry)
    }

    fn take(&self) -> Option<T> {
        self.pop()
    }
}

impl<T> Places for SegQueue<T> {
    type Entry = T;

    fn with_room_for(_: usize) -> Self {
        SegQueue::new()
    }

    fn put(&self, entry: T) -> Result<(), T> {
        self.push(entry);
        Ok(())
    }

    fn take(&self) -> Option<T> {
        self.pop()
    }
}

impl<P: Places> SpscQueue<P> {
    /// A queue with room for `capacity` entries, at least one.
    pub fn new(capacity: usize) -> SpscQueue<P> {
        let (pushed, popped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        SpscQueue { places: P::with_room_for(capacity), capacity, pushed, popped }
    }

    /// For the writer.
    ///
    /// # Errors
    /// There is no room: here it is again.
    pub fn push(&self, entry: P::Entry) -> Result<(), P::Entry> {
        if self.len() >= self.capacity {
            return Err(entry);
        }
        self.places.put(entry)?;
        self.pushed.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// For the reader.
    pub fn pop(&self) -> Option<P::Entry> {
        if self.is_empty() {
            return None;
        }
        let entry = self.places.take();
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
        bounded::<ArrayQueue<u32>>();
        bounded::<SegQueue<u32>>();
    }

    fn bounded<P: Places<Entry = u32>>() {
        let queue = SpscQueue::<P>::new(2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((queue.pop(), queue.len()), (Some(1), 1));
        assert_eq!(queue.push(3), Ok(()));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(2), Some(3), None));
        assert!(queue.is_empty());
    }

    #[test]
    fn two_threads_lose_and_double_nothing() {
        between_two_threads::<ArrayQueue<u32>>();
        between_two_threads::<SegQueue<u32>>();
    }

    fn between_two_threads<P: Places<Entry = u32> + Send + Sync + 'static>() {
        const ENTRIES: u32 = 200_000;
        let queue = Arc::new(SpscQueue::<P>::new(7));
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
        not_there::<ArrayQueue<u32>>();
        not_there::<SegQueue<u32>>();
    }

    fn not_there<P: Places<Entry = u32>>() {
        let queue = SpscQueue::<P>::new(4);
        queue.push(1).unwrap();
        // As far as it gets before it counts: for the reader the same as halfway.
        queue.places.put(2).unwrap();
        assert_eq!((queue.pop(), queue.pop(), queue.is_empty()), (Some(1), None, true));
        queue.pushed.fetch_add(1, Ordering::Release);
        assert_eq!(queue.pop(), Some(2));
    }

    /// And the other way round: a full queue is full until its reader is done.
    #[test]
    fn a_place_that_is_being_emptied_is_not_free() {
        not_free::<ArrayQueue<u32>>();
        not_free::<SegQueue<u32>>();
    }

    fn not_free<P: Places<Entry = u32>>() {
        let queue = SpscQueue::<P>::new(1);
        queue.push(1).unwrap();
        assert_eq!(queue.places.take(), Some(1));
        assert_eq!(queue.push(2), Err(2));
        queue.popped.fetch_add(1, Ordering::Release);
        assert_eq!(queue.push(2), Ok(()));
    }
}
