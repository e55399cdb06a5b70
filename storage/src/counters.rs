//! What the store counts: plain integers, written by one thread each and read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A picture of the store's counters.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StoreCounters { $($(#[$doc])* pub $name: u64,)* }

        impl StoreCounters {
            /// Name and value of each, in the order of declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        /// The live counters.
        #[derive(Debug, Default)]
        pub(crate) struct LiveCounters { $(pub(crate) $name: AtomicU64,)* }

        impl LiveCounters {
            pub(crate) fn picture(&self) -> StoreCounters {
                StoreCounters { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Batches written to the log.
    batches,
    commands,
    rows,
    /// Bytes of rows handed to the log.
    log_bytes,
    syncs,
    sync_time_us,
    /// The longest sync.
    sync_longest_us,
    /// Most commands that ever waited for the committer.
    mailbox_high_water,
    /// Notices that another one of the same batch covered.
    folded,
    /// Sends answered from what was there already.
    repeats,
    /// Commands refused because the disk was nearly full.
    refused_disk_full,
    /// Reads answered on the asking thread.
    reads_now,
    /// Reads answered by a reader thread.
    reads_later,
    /// Reads that panicked on a reader thread: questions that got no answer but INTERNAL.
    read_panics,
    hot_users,
    hot_conversations,
    evicted,
    /// 0: serving; 1: the disk is nearly full; 2: poisoned; 3: closed.
    state,
    memtable_bytes,
    block_cache_bytes,
    table_reader_bytes,
}

/// Adds to a counter that only the calling thread writes.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}

/// Adds to a counter that several threads write.
pub(crate) fn add_shared(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

/// Raises a counter to a new highest value.
pub(crate) fn raise(counter: &AtomicU64, to: u64) {
    counter.fetch_max(to, Relaxed);
}
