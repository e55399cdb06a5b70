//! The counters of the whole process, gathered without stopping anybody: who asks raises a
//! number, each shard that sees it in its next turn puts its counters on the board, and when all
//! have, the asker takes them.

use starling_codec::wire::Counter;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Where shards put their counters.
#[derive(Debug)]
pub struct StatsBoard {
    wanted: AtomicU64,
    rows: Box<[Mutex<Row>]>,
}

#[derive(Debug, Default)]
struct Row {
    /// The request that these counters are at least as new as.
    as_of: u64,
    counters: Vec<Counter>,
}

impl StatsBoard {
    pub fn new(shards: u16) -> StatsBoard {
        StatsBoard {
            wanted: AtomicU64::new(0),
            rows: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    /// Asks all shards for counters; they must then be woken. The number of the request.
    pub fn request(&self) -> u64 {
        self.wanted.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The newest request.
    pub fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Relaxed)
    }

    /// For a shard: its counters, for all requests up to `as_of`.
    pub fn put(&self, shard: u16, as_of: u64, counters: Vec<Counter>) {
        *lock(&self.rows[usize::from(shard)]) = Row { as_of, counters };
    }

    /// Whether all shards have answered a request.
    pub fn is_complete(&self, request: u64) -> bool {
        self.rows.iter().all(|row| lock(row).as_of >= request)
    }

    /// What all shards last put here.
    pub fn gather(&self) -> Vec<Counter> {
        self.rows.iter().flat_map(|row| lock(row).counters.clone()).collect()
    }
}

fn lock(row: &Mutex<Row>) -> std::sync::MutexGuard<'_, Row> {
    // A row is replaced whole.
    row.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A counter as the wire shows it.
pub fn counter(source: &str, name: &str, value: u64) -> Counter {
    Counter { name: name.to_owned(), part: String::new(), source: source.to_owned(), value }
}

/// Processor time and memory of the process, as the kernel counts them.
pub fn process_counters() -> Vec<Counter> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the struct it is given; one of zeroes is valid.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let us = |time: libc::timeval| (time.tv_sec * 1_000_000 + time.tv_usec) as u64;
    [
        ("cpu_user_us", us(usage.ru_utime)),
        ("cpu_system_us", us(usage.ru_stime)),
        ("memory_highest_bytes", usage.ru_maxrss as u64 * 1_024),
        ("switches_voluntary", usage.ru_nvcsw as u64),
        ("switches_involuntary", usage.ru_nivcsw as u64),
    ]
    .map(|(name, value)| counter("process", name, value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_complete_when_every_shard_has_answered_it() {
        let board = StatsBoard::new(2);
        let first = board.request();
        board.put(0, first, vec![counter("shard 0", "turns", 1)]);
        assert!(!board.is_complete(first));
        let second = board.request();
        board.put(1, second, vec![counter("shard 1", "turns", 2)]);
        assert!(board.is_complete(first) && !board.is_complete(second));
        let gathered: Vec<u64> = board.gather().iter().map(|counter| counter.value).collect();
        assert_eq!(gathered, [1, 2]);
    }

    #[test]
    fn the_process_has_used_some_processor_time() {
        assert!(process_counters().iter().any(|counter| counter.value > 0));
    }
}
