//! What an operator may choose about the store. All sizes are bytes unless the name says more.

use std::path::PathBuf;

/// How the store is to run.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Directory of the data; made if it is missing.
    pub data_dir: PathBuf,
    /// Room for table blocks, shared by all families.
    pub block_cache_bytes: usize,
    /// Room for what is written and not yet in a table, all families together.
    pub memtable_bytes: usize,
    /// Files the database may hold open; part of the process's file budget.
    pub max_open_files: u32,
    /// Threads for reads that miss the block cache.
    pub reader_threads: usize,
    /// Questions that may wait for a reader.
    pub read_queue: usize,
    /// Threads that submit commands; each has a number.
    pub writers: u16,
    /// Commands of one writer that may wait for the committer: all credits that there are, of all
    /// writers, since one may submit for the others. So there is always room. Only what waits takes
    /// memory.
    pub mailbox: usize,
    /// Most commands of one commit.
    pub max_batch_commands: usize,
    /// Most users, and most conversations, whose state stays in memory.
    pub hot_entries: usize,
    /// With less free room than this on the disk, what adds rows is refused.
    pub min_free_bytes: u64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings {
            data_dir: PathBuf::from("starling-data"),
            block_cache_bytes: 64 << 20,
            memtable_bytes: 128 << 20,
            max_open_files: 512,
            reader_threads: 2,
            read_queue: 4_096,
            writers: 1,
            mailbox: 65_536,
            max_batch_commands: 4_096,
            hot_entries: 262_144,
            min_free_bytes: 256 << 20,
        }
    }
}
