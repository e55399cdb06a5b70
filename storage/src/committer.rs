//! The committer: the only writer. It takes what waits, has it sequenced, writes it as one batch,
//! and announces in log order once the promise of the batch is kept.
//!
//! When to write: with no sync in flight, whatever waits. While one is in flight, one batch ahead,
//! and only when half as many commands wait as the sync covers: fewer would cost a commit of their
//! own for nothing, since they cannot be announced before the sync after this one anyway; waiting
//! for more would leave the sequencing to do when the disk idles.

use crate::{
    Announcer, StoreSettings,
    backend::{Backend, Reads, Tier, View},
    counters::{add, raise},
    mailbox::Mailbox,
    readers::{Public, ReaderDoor},
    sequencer::{Commit, Sequencer, unknown, unknown_of},
    syncer::Syncer,
};
use starling_codec::{Announcement, Command, Submission};
use std::{
    collections::VecDeque,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Contents of one batch, in bytes.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// More waiting commands than this are worth a batch ahead of any sync.
const WORTH_A_BATCH: usize = 256;
/// What was not used for one to two of these is forgotten.
const AGE_EVERY: Duration = Duration::from_secs(5);
const LOOK_AT_DISK_EVERY: Duration = Duration::from_millis(250);
/// With nothing remembered there is nothing to look after.
const IDLE: Duration = Duration::from_secs(60);

/// Values of the counter `state`.
pub mod state {
    pub const SERVING: u64 = 0;
    pub const DISK_FULL: u64 = 1;
    pub const POISONED: u64 = 2;
    pub const CLOSED: u64 = 3;
}

/// All that the committer's thread holds.
pub struct Committer {
    pub backend: Arc<dyn Backend>,
    pub public: Arc<Public>,
    pub mailbox: Arc<Mailbox>,
    pub closing: Arc<AtomicBool>,
    pub readers: ReaderDoor,
    pub sequencer: Sequencer,
    pub syncer: Syncer,
    pub announcer: Box<dyn Announcer>,
    pub settings: StoreSettings,
    /// What was written last.
    pub latest: Arc<dyn View>,
    /// Written, not announced, in log order.
    pub written: VecDeque<Written>,
    /// A sync is under way. It covers as many of the first of `written`.
    pub syncing: bool,
    pub covered: usize,
    pub commands: Vec<Submission>,
    pub aged: Instant,
    pub looked_at_disk: Option<Instant>,
    pub room: bool,
    /// The announcer was told that there is nothing to do.
    pub rested: bool,
}

/// A batch in the log.
pub struct Written {
    commit: Commit,
    view: Arc<dyn View>,
}

/// Why nothing more may be promised.
struct Poison(String);

impl<E: std::error::Error> From<E> for Poison {
    fn from(error: E) -> Self {
        Poison(error.to_string())
    }
}

impl Committer {
    /// Runs until the store is closed and all that was submitted is announced.
    pub fn run(mut self) {
        self.mailbox.attend();
        // A panic here is a defect, and what it left half done must not be built on: the same as
        // a failed write.
        let served = panic::catch_unwind(AssertUnwindSafe(|| self.serve()));
        let reason = match served {
            Ok(Ok(())) => None,
            Ok(Err(Poison(reason))) => Some(reason),
            Err(_) => Some("the committer panicked".to_owned()),
        };
        if let Some(reason) = reason {
            self.poisoned(&reason);
        }
        self.set_state(state::CLOSED);
    }

    fn serve(&mut self) -> Result<(), Poison> {
        loop {
            self.take_sync()?;
            let may_write = !self.syncing || self.written.len() == self.covered;
            let worth = if self.syncing { self.worth_beside_a_sync() } else { 1 };
            let waiting = self.mailbox.len();
            raise(&self.public.counters.mailbox_high_water, waiting as u64);
            if may_write && waiting >= worth {
                self.batch()?;
            } else if self.closing.load(Ordering::Acquire) && self.written.is_empty() {
                // Nothing waits: with nothing written `worth` is 1.
                return self.close();
            } else if may_write && waiting == 0 && self.forget()? {
                // There may be more to forget.
            } else {
                let worth = if may_write { worth } else { usize::MAX };
                let remembers = self.sequencer.hot() != (0, 0);
                if !remembers && self.written.is_empty() && !self.rested {
                    self.rested = true;
                    self.announcer.resting();
                }
                self.mailbox.sleep(worth, if remembers { AGE_EVERY } else { IDLE });
            }
        }
    }

    fn worth_beside_a_sync(&self) -> usize {
        let covered = self.written.iter().take(self.covered);
        let commands: usize = covered.map(|one| one.commit.announcement.outcomes.len()).sum();
        (commands / 2).clamp(1, WORTH_A_BATCH)
    }

    /// Takes what waits, sequences it and writes it.
    fn batch(&mut self) -> Result<(), Poison> {
        self.rested = false;
        let mut bytes = 0;
        while self.commands.len() < self.settings.max_batch_commands && bytes < MAX_BATCH_BYTES {
            let Some(submission) = self.mailbox.pop() else { break };
            if let Command::Append(append) = &submission.command {
                bytes += append.content.len();
            }
            self.commands.push(submission);
        }
        self.look_at_disk();
        self.warm()?;
        self.apply()
    }

    /// Brings what the batch needs into memory: from the cache at once, from the disk by the
    /// readers, side by side.
    fn warm(&mut self) -> Result<(), Poison> {
        let cached = Reads::new(&*self.latest, Tier::Memory);
        let absent = self.sequencer.preload(cached, &self.commands)?;
        if absent.len() > 1 {
            self.readers.warm(&absent, &self.latest);
        }
        Ok(())
    }

    /// Applies `commands`, which may be none, and writes what comes of it.
    fn apply(&mut self) -> Result<(), Poison> {
        let counters = &self.public.counters;
        add(&counters.commands, self.commands.len() as u64);
        let reads = Reads::new(&*self.latest, Tier::All);
        let commit = match self.sequencer.apply(reads, &mut self.commands, self.room) {
            Ok(commit) => commit,
            Err(unapplied) => {
                let outcomes = unapplied.outcomes;
                self.announcer.announce(Announcement { outcomes, deliveries: Vec::new() });
                return Err(unapplied.error.into());
            }
        };
        let rows = self.sequencer.rows();
        let tally = commit.tally;
        add(&counters.batches, 1);
        add(&counters.rows, rows.len() as u64);
        add(&counters.log_bytes, rows.bytes() as u64);
        add(&counters.folded, tally.folded);
        add(&counters.repeats, tally.repeats);
        add(&counters.refused_disk_full, tally.refused_disk_full);
        add(&counters.evicted, tally.evicted);
        let (users, conversations) = self.sequencer.hot();
        counters.hot_users.store(users as u64, Ordering::Relaxed);
        counters.hot_conversations.store(conversations as u64, Ordering::Relaxed);
        let written = if rows.is_empty() { Ok(()) } else { self.backend.write(rows) };
        if written.is_ok() && !rows.is_empty() {
            self.latest = self.backend.view();
        }
        self.written.push_back(Written { commit, view: self.latest.clone() });
        written?;
        self.sync_if_due();
        self.announce_buffered();
        Ok(())
    }

    /// Starts a sync when something waits for one and none is under way.
    fn sync_if_due(&mut self) {
        if !self.syncing && self.written.iter().any(|one| one.commit.durable) {
            self.syncing = true;
            self.covered = self.written.len();
            self.syncer.ask();
        }
    }

    /// Takes the result of the sync under way, if it is there. The next sync starts before the
    /// announcing, so that the disk works meanwhile.
    fn take_sync(&mut self) -> Result<(), Poison> {
        let Some(result) = self.syncer.take() else { return Ok(()) };
        let took_us = result?.as_micros() as u64;
        let counters = &self.public.counters;
        add(&counters.syncs, 1);
        add(&counters.sync_time_us, took_us);
        raise(&counters.sync_longest_us, took_us);
        self.syncing = false;
        let behind = self.written.split_off(std::mem::take(&mut self.covered));
        let synced = std::mem::replace(&mut self.written, behind);
        self.sync_if_due();
        for one in synced {
            self.announce(one);
        }
        self.announce_buffered();
        Ok(())
    }

    /// Announces what waits for no sync and has nothing before it that does.
    fn announce_buffered(&mut self) {
        while let Some(first) = self.written.pop_front_if(|first| !first.commit.durable) {
            self.covered = self.covered.saturating_sub(1);
            self.announce(first);
        }
    }

    /// Makes a batch public: the view first, then the outcomes and deliveries.
    fn announce(&mut self, Written { commit, view }: Written) {
        self.public.view.store(Arc::new(view));
        self.sequencer.announced(commit.number);
        let Announcement { outcomes, deliveries } = &commit.announcement;
        if !outcomes.is_empty() || !deliveries.is_empty() {
            self.announcer.announce(commit.announcement);
        }
    }

    /// Lets go of what is not used any more; true: there may be more.
    fn forget(&mut self) -> Result<bool, Poison> {
        if self.aged.elapsed() >= AGE_EVERY {
            self.aged = Instant::now();
            self.sequencer.age();
        }
        if !self.sequencer.aging() {
            return Ok(false);
        }
        self.apply()?;
        Ok(true)
    }

    fn look_at_disk(&mut self) {
        if self.looked_at_disk.is_some_and(|at| at.elapsed() < LOOK_AT_DISK_EVERY) {
            return;
        }
        self.looked_at_disk = Some(Instant::now());
        let free = self.backend.free_bytes();
        let room = free.is_none_or(|free| free >= self.settings.min_free_bytes);
        if room != self.room {
            tracing::warn!(?free, room, "room on the disk");
            self.room = room;
            self.set_state(if room { state::SERVING } else { state::DISK_FULL });
        }
    }

    /// The last thing of a good life: what was only buffered is durable too.
    fn close(&mut self) -> Result<(), Poison> {
        Ok(self.backend.sync()?)
    }

    /// Nothing more is promised. Whoever waits hears that nobody knows, and the same hears
    /// whoever still comes.
    fn poisoned(&mut self, reason: &str) {
        tracing::error!(reason, "the store is poisoned");
        self.set_state(state::POISONED);
        self.backend.suspect(reason);
        let waiting = self.written.drain(..).flat_map(|one| one.commit.announcement.outcomes);
        let outcomes = waiting.map(|(origin, outcome)| (origin, unknown(outcome))).collect();
        self.announcer.announce(Announcement { outcomes, deliveries: Vec::new() });
        self.refuse_all();
        self.announcer.poisoned(reason);
        while !self.closing.load(Ordering::Acquire) {
            self.mailbox.sleep(1, IDLE);
            self.refuse_all();
        }
    }

    fn refuse_all(&mut self) {
        let mut outcomes = Vec::new();
        for Submission { origin, command } in self.commands.drain(..) {
            outcomes.push((origin, unknown_of(&command)));
        }
        while let Some(Submission { origin, command }) = self.mailbox.pop() {
            outcomes.push((origin, unknown_of(&command)));
        }
        if !outcomes.is_empty() {
            self.announcer.announce(Announcement { outcomes, deliveries: Vec::new() });
        }
    }

    fn set_state(&self, state: u64) {
        self.public.counters.state.store(state, Ordering::Relaxed);
    }
}
