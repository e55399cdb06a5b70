//! The ring of a shard, and whether this system has one to give.

use monoio::{IoUringDriver, Runtime, RuntimeBuilder, time::TimeDriver};
use std::io;

/// Entries of the submission queue; when it is full monoio submits early.
const ENTRIES: u32 = 4_096;

/// What a shard runs on.
pub type ShardRuntime = Runtime<TimeDriver<IoUringDriver>>;

/// A runtime for the calling thread, the only one that may use it.
///
/// # Errors
/// The kernel gives no ring.
pub fn runtime() -> io::Result<ShardRuntime> {
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(ENTRIES)
        .uring_builder(builder())
        .enable_timer()
        .build()
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
    // One thread submits, and completions are taken when it enters the kernel anyway: no
    // interrupt for each. See docs/adr on why not DEFER_TASKRUN.
    builder.setup_single_issuer().setup_coop_taskrun();
    builder
}
