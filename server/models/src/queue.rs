//! Stand-ins for crossbeam's queues. Their entries are handed over with release and acquire; how
//! many there are is promised no more than that, where crossbeam's is sequentially consistent. So
//! what holds here holds there.

use loom::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::collections::VecDeque;

#[derive(Debug)]
pub struct ArrayQueue<T> {
    entries: Mutex<VecDeque<T>>,
    /// Looked at without the lock, which would order everything.
    count: AtomicUsize,
    capacity: usize,
}

impl<T> ArrayQueue<T> {
    pub fn new(capacity: usize) -> ArrayQueue<T> {
        let (entries, count) = (Mutex::default(), AtomicUsize::new(0));
        ArrayQueue { entries, count, capacity }
    }

    pub fn push(&self, entry: T) -> Result<(), T> {
        if self.count.load(Ordering::Acquire) >= self.capacity {
            return Err(entry);
        }
        self.entries.lock().unwrap().push_back(entry);
        self.count.fetch_add(1, Ordering::Release);
        Ok(())
    }

    pub fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let entry = self.entries.lock().unwrap().pop_front();
        self.count.fetch_sub(1, Ordering::Release);
        entry
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The same without a bound.
#[derive(Debug)]
pub struct SegQueue<T>(ArrayQueue<T>);

impl<T> SegQueue<T> {
    pub fn new() -> SegQueue<T> {
        SegQueue(ArrayQueue::new(usize::MAX))
    }

    pub fn push(&self, entry: T) {
        let pushed = self.0.push(entry);
        assert!(pushed.is_ok());
    }

    pub fn pop(&self) -> Option<T> {
        self.0.pop()
    }
}
