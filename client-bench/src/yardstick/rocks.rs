//! Y3: RocksDB alone, given the rows that the server wrote, in the batches in which it wrote
//! them, with the options that it wrote down: one thread, and one that only syncs the log.

use crate::{clock::Clock, machine::Cpu, report::Report};
use anyhow::{Context, Result, ensure};
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Env, Options, ReadOptions, WriteBatch,
    WriteBatchIteratorCf, WriteOptions,
};
use serde::Serialize;
use starling_codec::{ConversationId, UserId};
use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

/// Where the server keeps its database, in its data directory.
const STORE: &str = "store";
/// The family that has a row for every message, and the one that has what each user must learn.
/// In both the first eight bytes of a key name the conversation or the user.
const MESSAGES: &str = "message";
const INBOXES: &str = "inbox";
/// Rows are taken from the end of the log, for the most messages.
const MAX_MESSAGES: u64 = 400_000;
const CACHE_BYTES: usize = 64 << 20;

/// Family, key and value.
type Row = (u32, Box<[u8]>, Box<[u8]>);

/// A batch that the server committed.
#[derive(Clone, Debug, Default)]
struct Batch {
    rows: Vec<Row>,
    bytes: u64,
    messages: u64,
}

/// What a server's log holds.
#[derive(Debug)]
pub struct Rows {
    store: PathBuf,
    batches: Vec<Batch>,
}

/// How fast RocksDB alone takes the same rows.
#[derive(Clone, Debug, Serialize)]
pub struct Rocks {
    pub messages: u64,
    pub batches: usize,
    pub syncs: u64,
    pub rows_per_message: f64,
    pub bytes_per_message: f64,
    pub messages_per_sync: f64,
    pub bytes_per_sync: f64,
    pub messages_per_s: f64,
    pub cpu_us_per_message: f64,
    /// The log is synced while the next batch is written; else the writer waits for it.
    pub pipelined: bool,
}

/// Collects the rows of a batch.
struct Collector<'a> {
    batch: &'a mut Batch,
    message_family: u32,
}

impl WriteBatchIteratorCf for Collector<'_> {
    fn put_cf(&mut self, family: u32, key: &[u8], value: &[u8]) {
        self.batch.messages += u64::from(family == self.message_family);
        self.batch.bytes += (key.len() + value.len()) as u64;
        self.batch.rows.push((family, key.into(), value.into()));
    }

    // The server deletes and merges nothing on a message's way.
    fn delete_cf(&mut self, _family: u32, _key: &[u8]) {}

    fn merge_cf(&mut self, _family: u32, _key: &[u8], _value: &[u8]) {}
}

/// The options that the server left beside its rows.
fn options_of(store: &Path) -> Result<(Options, Vec<ColumnFamilyDescriptor>)> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    Options::load_latest(store, Env::new()?, false, cache)
        .with_context(|| format!("no options of a database in {}", store.display()))
}

impl Rows {
    /// The rows at the end of the log in `data_dir`. The server must have been killed: one that
    /// ends by itself may leave an empty log.
    ///
    /// # Errors
    /// There is no store, or its log holds no messages.
    pub fn read(data_dir: &Path) -> Result<Rows> {
        let store = data_dir.join(STORE);
        let (options, families) = options_of(&store)?;
        // Families are numbered as they were made, and written down in that order.
        let position = families.iter().position(|family| family.name() == MESSAGES);
        let message_family = position.context("the store has no family of messages")? as u32;
        let db = DB::open_cf_descriptors_read_only(&options, &store, families, false)?;
        let mut batches: Vec<Batch> = Vec::new();
        for update in db.get_updates_since(1)? {
            let (_, update) = update?;
            let mut batch = Batch::default();
            update.iterate_cf(&mut Collector { batch: &mut batch, message_family });
            if batch.messages > 0 {
                batches.push(batch);
            }
        }
        let mut messages = 0;
        let kept = batches.iter().rev().take_while(|batch| {
            messages += batch.messages;
            messages <= MAX_MESSAGES
        });
        let kept = kept.count();
        batches.drain(..batches.len() - kept);
        ensure!(!batches.is_empty(), "the log in {} holds no messages", store.display());
        Ok(Rows { store, batches })
    }

    /// Writes the rows into a new database in `directory`, and syncs the log whenever
    /// `bytes_per_sync` were written: after every batch if that is 0.
    pub fn replay(&self, directory: &Path, bytes_per_sync: f64, pipelined: bool) -> Result<Rocks> {
        let directory = tempfile::Builder::new().prefix("rocks-").tempdir_in(directory)?;
        let (mut options, families) = options_of(&self.store)?;
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_wal_dir(directory.path());
        options.set_db_log_dir(directory.path());
        let names: Vec<String> = families.iter().map(|family| family.name().into()).collect();
        let db = DB::open_cf_descriptors(&options, directory.path(), families)?;
        let families: Vec<_> = names.iter().map(|name| db.cf_handle(name)).collect();
        let mut write_options = WriteOptions::default();
        write_options.set_sync(false);

        let (clock, begun) = (Clock::start(), Cpu::now(None)?);
        let mut syncs = 0;
        thread::scope(|scope| {
            let (order, orders) = mpsc::sync_channel::<()>(1);
            let (told, done) = mpsc::sync_channel(1);
            let db = &db;
            scope.spawn(move || {
                for () in orders {
                    if told.send(db.flush_wal(true)).is_err() {
                        return;
                    }
                }
            });
            let mut in_flight = false;
            let (mut written, mut due) = (0.0, bytes_per_sync);
            for batch in &self.batches {
                let mut rows =
                    WriteBatch::with_capacity_bytes(batch.bytes as usize + 8 * batch.rows.len());
                for (family, key, value) in &batch.rows {
                    let family = families.get(*family as usize).copied().flatten();
                    rows.put_cf(family.context("a row of a family that is none")?, key, value);
                }
                db.write_opt(rows, &write_options)?;
                written += batch.bytes as f64;
                // On the average as many bytes a sync, though batches are of all sizes.
                if written < due {
                    continue;
                }
                due += bytes_per_sync;
                syncs += 1;
                if in_flight {
                    done.recv()??;
                }
                order.send(())?;
                in_flight = pipelined;
                if !pipelined {
                    done.recv()??;
                }
            }
            if in_flight {
                done.recv()??;
            }
            anyhow::Ok(())
        })?;
        let seconds = clock.now_ns() as f64 / 1e9;
        let cpu = Cpu::now(None)?.since(begun);
        let sum = |of: fn(&Batch) -> u64| self.batches.iter().map(of).sum::<u64>();
        let (messages, bytes) = (sum(|batch| batch.messages), sum(|batch| batch.bytes));
        let rows = sum(|batch| batch.rows.len() as u64);
        let per_message = |value: f64| value / messages as f64;
        Ok(Rocks {
            messages,
            batches: self.batches.len(),
            syncs,
            rows_per_message: per_message(rows as f64),
            bytes_per_message: per_message(bytes as f64),
            messages_per_sync: messages as f64 / syncs.max(1) as f64,
            bytes_per_sync: bytes as f64 / syncs.max(1) as f64,
            messages_per_s: messages as f64 / seconds,
            cpu_us_per_message: per_message(1e6 * cpu.own_s),
            pipelined,
        })
    }

    /// The faster of waiting for each sync and of writing on meanwhile.
    pub fn replay_best(&self, directory: &Path, bytes_per_sync: f64) -> Result<Rocks> {
        let waiting = self.replay(directory, bytes_per_sync, false)?;
        let pipelined = self.replay(directory, bytes_per_sync, true)?;
        let best =
            if waiting.messages_per_s > pipelined.messages_per_s { waiting } else { pipelined };
        Ok(best)
    }
}

/// How fast RocksDB alone reads inboxes with the bodies.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReadBack {
    pub inbox_rows: u64,
    pub messages: u64,
    pub pages: u64,
    pub bytes: u64,
    pub messages_per_s: f64,
}

/// One read of a device that catches up: rows of its inbox, then messages of its conversation.
struct Page {
    inbox: Range,
    messages: Range,
}

/// Rows that stand side by side: the first key, and what is right behind the last.
#[derive(Default)]
struct Range {
    from: Box<[u8]>,
    end: Box<[u8]>,
}

impl Range {
    /// Of keys in their order.
    fn of(keys: &[Box<[u8]>]) -> Range {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
            return Range::default();
        };
        Range { from: first.clone(), end: [last, &[0][..]].concat().into() }
    }
}

/// Reads, for each of `pairs` of receiver and sender, the receiver's inbox rows and the messages
/// of their conversation, in this thread: `page` messages at a time, as a device may get no more
/// at once, the oldest first and the pairs in turns. The server must not run.
///
/// # Errors
/// There is no store in `data_dir`.
pub fn read_back(data_dir: &Path, pairs: &[(u32, u32)], page: usize) -> Result<ReadBack> {
    let store = data_dir.join(STORE);
    // Looks for the ranges first, with a cache that is not the one that counts.
    let turns = pages(&open(&store)?, pairs, page.max(1))?;
    let db = open(&store)?;
    let (inboxes, messages) = (family(&db, INBOXES)?, family(&db, MESSAGES)?);
    let clock = Clock::start();
    let mut read = ReadBack { inbox_rows: 0, messages: 0, pages: 0, bytes: 0, messages_per_s: 0.0 };
    for page in turns.iter().flatten() {
        let bytes = &mut read.bytes;
        read.inbox_rows += scan(&db, inboxes, &page.inbox, |key, value| {
            // Touched, as who sends it would.
            *bytes += (key.len() + value.to_vec().len()) as u64;
        })?;
        read.messages += scan(&db, messages, &page.messages, |key, value| {
            *bytes += (key.len() + value.to_vec().len()) as u64;
        })?;
        read.pages += 1;
    }
    read.messages_per_s = read.messages as f64 * 1e9 / clock.now_ns() as f64;
    Ok(read)
}

/// The pages of all pairs, by turns.
fn pages(db: &DB, pairs: &[(u32, u32)], page: usize) -> Result<Vec<Vec<Page>>> {
    let (inboxes, messages) = (family(db, INBOXES)?, family(db, MESSAGES)?);
    let mut turns: Vec<Vec<Page>> = Vec::new();
    let keys = |family, prefix: u64| -> Result<Vec<Box<[u8]>>> {
        let all =
            Range { from: prefix.to_be_bytes().into(), end: (prefix + 1).to_be_bytes().into() };
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        scan(db, family, &all, |key, _| keys.push(key.into()))?;
        Ok(keys)
    };
    for &(receiver, sender) in pairs {
        let conversation = ConversationId::direct(UserId(receiver), UserId(sender));
        let bodies = keys(messages, conversation.0)?;
        let rows = keys(inboxes, receiver.into())?;
        // Logs have their newest row first. As many rows to a page as there are on the average.
        let count = bodies.len().div_ceil(page).max(1);
        let mut rows = rows.rchunks(rows.len().div_ceil(count).max(1));
        for (turn, bodies) in bodies.rchunks(page).enumerate() {
            if turns.len() == turn {
                turns.push(Vec::new());
            }
            let inbox = Range::of(rows.next().unwrap_or_default());
            turns[turn].push(Page { inbox, messages: Range::of(bodies) });
        }
    }
    Ok(turns)
}

fn open(store: &Path) -> Result<DB> {
    let (options, families) = options_of(store)?;
    Ok(DB::open_cf_descriptors_read_only(&options, store, families, false)?)
}

fn family<'a>(db: &'a DB, name: &str) -> Result<&'a ColumnFamily> {
    db.cf_handle(name).with_context(|| format!("the store has no {name}"))
}

/// Shows each row of a range, and says how many there were.
fn scan(
    db: &DB,
    family: &ColumnFamily,
    range: &Range,
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<u64> {
    let mut options = ReadOptions::default();
    options.set_prefix_same_as_start(true);
    options.set_iterate_upper_bound(&*range.end);
    let mut rows = 0;
    let mut iterator = db.raw_iterator_cf_opt(family, options);
    iterator.seek(&range.from);
    while let Some((key, value)) = iterator.item() {
        each(key, value);
        rows += 1;
        iterator.next();
    }
    iterator.status()?;
    Ok(rows)
}

/// Bytes of all tables after everything was compacted. The server must not run.
pub fn compacted_bytes(data_dir: &Path) -> Result<u64> {
    let store = data_dir.join(STORE);
    let (options, families) = options_of(&store)?;
    let names: Vec<String> = families.iter().map(|family| family.name().into()).collect();
    let db = DB::open_cf_descriptors(&options, &store, families)?;
    let mut bytes = 0;
    for name in &names {
        let family = db.cf_handle(name).context("a family that was just opened")?;
        db.flush_cf(family)?;
        let mut compact = rocksdb::CompactOptions::default();
        compact.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &compact);
        bytes += db.property_int_value_cf(family, "rocksdb.live-sst-files-size")?.unwrap_or(0);
    }
    Ok(bytes)
}

impl Report for Rocks {
    fn lines(&self) -> Vec<(&'static str, String)> {
        vec![
            ("messages a second", format!("{:.0}", self.messages_per_s)),
            ("CPU a message", format!("{:.2} us", self.cpu_us_per_message)),
            (
                "a message",
                format!("{:.2} rows, {:.0} bytes", self.rows_per_message, self.bytes_per_message),
            ),
            (
                "a sync",
                format!(
                    "{:.0} messages, {:.0} bytes; {}",
                    self.messages_per_sync,
                    self.bytes_per_sync,
                    if self.pipelined { "written on meanwhile" } else { "waited for" }
                ),
            ),
        ]
    }
}
