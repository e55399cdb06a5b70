//! The ring of a shard, and whether this system has one to give.

use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use std::io;

/// Entries of the submission queue; when it is full monoio submits early.
pub const ENTRIES: u32 = 4_096;

/// What a shard runs on: without monoio's timers, for which see `Alarm`.
pub type ShardRuntime = Runtime<IoUringDriver>;

/// A runtime for the calling thread, the only one that may use it.
///
/// # Errors
/// The kernel gives no ring.
pub fn runtime() -> io::Result<ShardRuntime> {
    RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).uring_builder(builder()).build()
}

/// Tries whether the kernel gives rings as shards need them.
///
/// # Errors
/// It does not.
pub fn probe() -> io::Result<()> {
    builder().build(8).map(drop)
}

fn builder() -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    // One thread submits, and completions are taken when it enters the kernel anyway, without an
    // interrupt for each. DEFER_TASKRUN was measured (2026-11, Linux 6.18, 500 pairs with one in
    // flight, four interleaved runs each): medians of 29.9 us a message against 26.4 us, as one
    // enter then returns at most 20 completions and turns are five times as many and as small.
    // It would also need another way to turn again at once: monoio's submit takes no completions
    // then.
    builder.setup_single_issuer().setup_coop_taskrun();
    builder
}
