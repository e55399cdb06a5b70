//! How RocksDB is set up. Sizes come from the settings; everything else stands here.

use crate::{FamilySpec, StoreSettings};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel,
    MemtableFactory, Options, SliceTransform,
};

/// Most buckets of a hashed memtable: 2 MiB of pointers. More users than this share buckets.
const MAX_BUCKETS: usize = 256 * 1_024;
/// The buckets count as memory of their memtable: with too many, an empty one would be full.
const MEMTABLE_BYTES_PER_BUCKET: usize = 128;

/// Of the whole database. What is missing is made at the `first` opening, and is damage later.
pub fn database(settings: &StoreSettings, first: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(first);
    options.create_missing_column_families(first);
    options.set_max_open_files(settings.max_open_files.try_into().unwrap_or(i32::MAX));
    options.set_db_write_buffer_size(settings.memtable_bytes);
    options.set_max_total_wal_size(2 * settings.memtable_bytes as u64);
    // One thread writes, and hashed memtables have no concurrent writes.
    options.set_allow_concurrent_memtable_write(false);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_background_jobs(2);
    // Tables go to the disk as they are made, not all at once before a sync of the log.
    options.set_bytes_per_sync(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// Of one family.
pub fn family(spec: &FamilySpec, settings: &StoreSettings, cache: &Cache) -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(cache);
    tables.set_block_size(8 * 1_024);
    tables.set_bloom_filter(10.0, false);
    // Logs are asked for prefixes, never for whole keys that are not there.
    tables.set_whole_key_filtering(!spec.log);
    // So that a read confined to memory knows all that it needs, and memory is bounded.
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_cache_index_and_filter_blocks_with_high_priority(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In parts, for what is larger than a shard of the cache is never kept in it: the one filter
    // of a million names would be read anew for each of them.
    tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    tables.set_partition_filters(true);
    tables.set_metadata_block_size(8 * 1_024);
    tables.set_pin_top_level_index_and_filter(true);
    tables.set_format_version(5);

    let mut options = Options::default();
    options.set_block_based_table_factory(&tables);
    // Above the last level rows stay a short while, and are read the most.
    options.set_compression_type(DBCompressionType::None);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    let memtable_bytes = (settings.memtable_bytes * spec.memtable_percent / 100).max(1 << 20);
    options.set_write_buffer_size(memtable_bytes);
    options.set_max_write_buffer_number(3);
    options.set_level_compaction_dynamic_level_bytes(true);
    if spec.prefix_bytes > 0 {
        options.set_prefix_extractor(SliceTransform::create_fixed_prefix(spec.prefix_bytes));
    }
    if spec.log {
        options.set_memtable_factory(MemtableFactory::HashSkipList {
            bucket_count: (memtable_bytes / MEMTABLE_BYTES_PER_BUCKET).min(MAX_BUCKETS),
            height: 4,
            branching_factor: 4,
        });
    }
    options
}
