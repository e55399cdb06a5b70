//! The committer: the only writer. It takes what waits, has it sequenced, writes it as one batch,
//! and announces in log order once the promise of the batch is kept.
//!
//! It is a machine of steps: it knows no thread and no clock, and never waits. [`Committer::next`]
//! says what is to be done; whoever drives it (the thread in `driver`, a simulation) does it, and
//! tells what time it is and how a sync ended.
//!
//! When to write: with no sync in flight, whatever waits. While one is in flight, one batch ahead,
//! and only when half as many commands wait as the sync covers, and not for little: fewer would
//! cost a commit of their own for nothing, since they cannot be announced before the sync after
//! this one anyway; waiting for more would leave the sequencing to do when the disk idles. When a
//! sync ends and a batch is ahead, the next sync waits for what little waits beside it: that is
//! written in less time than a sync takes, and would else wait for one more.

use crate::{
    Announcer, StoreSettings,
    backend::{Backend, Reads, Tier, View},
    counters::{add, raise},
    error::WriteError,
    readers::Public,
    sequencer::{Absent, Commit, Sequencer, unknown, unknown_of},
};
use starling_codec::{
    Announcement, Answer, Command, Origin, Outcome, Query, Submission,
    planted::{Fault, is_planted},
};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Contents of one batch, in bytes.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// More waiting commands than this are worth a batch ahead of any sync.
const WORTH_A_BATCH: usize = 256;
/// So many commands or fewer are written before the next sync, not beside one, and are synced on
/// the committer's own thread.
pub(crate) const LITTLE: usize = 32;
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

/// What the committer's driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`Committer::gather`] and [`Committer::commit`]. Perhaps nothing waits: then something is
    /// forgotten.
    Commit,
    /// The store is poisoned: [`Committer::refuse`].
    Refuse,
    /// [`Committer::close`].
    Close,
    /// Nothing, until so many commands wait, a sync ended, the store is to close, or the time is
    /// over.
    Sleep { worth: usize, at_most: Duration },
    /// Nothing more, ever.
    End,
}

/// The only writer of a store. Times are those of any clock that never goes back.
pub struct Committer {
    backend: Arc<dyn Backend>,
    public: Arc<Public>,
    sequencer: Sequencer,
    announcer: Box<dyn Announcer>,
    /// Asks for a sync of all that is written, so many commands; its end is told to
    /// [`Committer::synced`]. None is under way when it is called.
    start_sync: Box<dyn FnMut(usize) + Send>,
    max_batch_commands: usize,
    min_free_bytes: u64,
    /// What was written last.
    latest: Arc<dyn View>,
    /// Written, not announced, in log order.
    written: VecDeque<Written>,
    /// A sync is under way. It covers as many of the first of `written`.
    syncing: bool,
    covered: usize,
    commands: Vec<Submission>,
    /// What the commands of the batch being made hear if nothing comes of it.
    if_lost: Vec<(Origin, Outcome)>,
    aged: Duration,
    looked_at_disk: Option<Duration>,
    room: bool,
    /// The announcer was told that there is nothing to do.
    rested: bool,
    life: Life,
}

#[derive(Debug)]
enum Life {
    Serving,
    /// Nothing more may be promised, and why. Not yet told to the announcer.
    Failed(String),
    Poisoned,
    Closed,
}

/// A batch in the log.
struct Written {
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
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        public: Arc<Public>,
        sequencer: Sequencer,
        announcer: Box<dyn Announcer>,
        start_sync: Box<dyn FnMut(usize) + Send>,
        settings: &StoreSettings,
        now: Duration,
    ) -> Committer {
        Committer {
            latest: backend.view(),
            backend,
            public,
            sequencer,
            announcer,
            start_sync,
            max_batch_commands: settings.max_batch_commands,
            min_free_bytes: settings.min_free_bytes,
            written: VecDeque::new(),
            syncing: false,
            covered: 0,
            commands: Vec::new(),
            if_lost: Vec::new(),
            aged: now,
            looked_at_disk: None,
            room: true,
            rested: false,
            life: Life::Serving,
        }
    }

    /// The thread that drives it has begun.
    pub(crate) fn begins(&mut self) {
        self.announcer.begins();
    }

    /// What to do now that so many commands wait. `closing`: none will come any more.
    pub fn next(&mut self, now: Duration, waiting: usize, closing: bool) -> Step {
        match self.life {
            Life::Serving => {}
            Life::Failed(_) => return Step::Refuse,
            Life::Poisoned if waiting > 0 => return Step::Refuse,
            Life::Poisoned if closing => return Step::End,
            Life::Poisoned => return Step::Sleep { worth: 1, at_most: IDLE },
            Life::Closed => return Step::End,
        }
        if !self.room {
            // Whoever heard that the disk is full sends nothing that would have it looked at.
            self.look_at_disk(now);
        }
        if waiting == 0 {
            self.sync_if_due();
        }
        let may_write = !self.syncing || self.written.len() == self.covered;
        let worth = if self.syncing { self.worth_beside_a_sync() } else { 1 };
        raise(&self.public.counters.mailbox_high_water, waiting as u64);
        if may_write && waiting >= worth {
            return Step::Commit;
        }
        // Nothing waits: with nothing written `worth` is 1.
        if closing && self.written.is_empty() {
            return Step::Close;
        }
        if may_write && waiting == 0 && self.forgets(now) {
            return Step::Commit;
        }
        let remembers = self.sequencer.hot() != (0, 0);
        if !remembers && self.written.is_empty() && !self.rested {
            self.rested = true;
            self.backend.rest();
            self.announcer.resting();
        }
        let worth = if may_write { worth } else { usize::MAX };
        let at_most = match (self.room, remembers) {
            (false, _) => LOOK_AT_DISK_EVERY,
            (true, true) => AGE_EVERY,
            (true, false) => IDLE,
        };
        Step::Sleep { worth, at_most }
    }

    fn worth_beside_a_sync(&self) -> usize {
        (self.commands_covered() / 2).clamp(LITTLE + 1, WORTH_A_BATCH)
    }

    /// Commands that the sync under way makes durable.
    fn commands_covered(&self) -> usize {
        let covered = self.written.iter().take(self.covered);
        covered.map(|one| one.commit.announcement.outcomes.len()).sum()
    }

    /// Whether an empty batch would let go of what is not used any more.
    fn forgets(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.aged) >= AGE_EVERY {
            self.aged = now;
            self.sequencer.age();
        }
        self.sequencer.aging()
    }

    /// Takes what waits, as much as one batch may have. Names the heads that are not in memory:
    /// [`Committer::commit`] reads them itself, but a driver may have them pulled into the cache
    /// side by side before.
    pub fn gather(&mut self, mut pop: impl FnMut() -> Option<Submission>) -> Vec<Absent> {
        let mut bytes = 0;
        while self.commands.len() < self.max_batch_commands && bytes < MAX_BATCH_BYTES {
            let Some(submission) = pop() else { break };
            if let Command::Append(append) = &submission.command {
                bytes += append.content.len();
            }
            self.commands.push(submission);
        }
        let cached = Reads::new(&*self.latest, Tier::Memory);
        match self.sequencer.preload(cached, &self.commands) {
            Ok(absent) => absent,
            Err(error) => {
                self.fail(error.into());
                Vec::new()
            }
        }
    }

    /// What was written last, which is what the heads that [`Committer::gather`] names are read
    /// from.
    pub(crate) fn latest(&self) -> &Arc<dyn View> {
        &self.latest
    }

    /// Sequences what was gathered, which may be nothing, and writes what comes of it.
    pub fn commit(&mut self, now: Duration) {
        if !self.is_serving() {
            return;
        }
        if !self.commands.is_empty() {
            self.rested = false;
            self.look_at_disk(now);
        }
        if let Err(poison) = self.apply() {
            self.fail(poison);
        }
    }

    fn apply(&mut self) -> Result<(), Poison> {
        let counters = &self.public.counters;
        add(&counters.commands, self.commands.len() as u64);
        // Kept here until the batch is written: an error or a panic takes everything else.
        let lost = |one: &Submission| (one.origin, unknown_of(&one.command));
        self.if_lost.extend(self.commands.iter().map(lost));
        let reads = Reads::new(&*self.latest, Tier::All);
        let commit = self.sequencer.apply(reads, &mut self.commands, self.room)?;
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
        if !rows.is_empty() {
            self.backend.write(rows)?;
            self.latest = self.backend.view();
        }
        self.if_lost.clear();
        self.written.push_back(Written { commit, view: self.latest.clone() });
        self.sync_if_due();
        self.announce_buffered();
        Ok(())
    }

    /// Starts a sync when something waits for one and none is under way.
    fn sync_if_due(&mut self) {
        if !self.syncing && self.written.iter().any(|one| one.commit.durable) {
            self.syncing = true;
            self.covered = self.written.len();
            let commands = self.commands_covered();
            (self.start_sync)(commands);
        }
    }

    /// How the sync ended that was under way: the time it took. So many commands wait. The next
    /// sync is asked for before the announcing, so that the disk works meanwhile, or else in
    /// [`Committer::next`] or [`Committer::commit`].
    pub fn synced(&mut self, result: Result<Duration, WriteError>, waiting: usize) {
        if !self.is_serving() {
            return;
        }
        match result {
            Ok(took) => self.announce_synced(took, waiting),
            Err(error) => self.fail(error.into()),
        }
    }

    fn announce_synced(&mut self, took: Duration, waiting: usize) {
        let took_us = took.as_micros() as u64;
        let counters = &self.public.counters;
        add(&counters.syncs, 1);
        add(&counters.sync_time_us, took_us);
        raise(&counters.sync_longest_us, took_us);
        self.syncing = false;
        let behind = self.written.split_off(std::mem::take(&mut self.covered));
        let synced = std::mem::replace(&mut self.written, behind);
        if !(1..=LITTLE).contains(&waiting) {
            self.sync_if_due();
        }
        for one in synced {
            self.announce(one);
        }
        self.announce_buffered();
    }

    /// Announces what waits for no sync and has nothing before it that does.
    fn announce_buffered(&mut self) {
        let may_go =
            |first: &mut Written| !first.commit.durable || is_planted(Fault::AnnouncedUnsynced);
        while let Some(first) = self.written.pop_front_if(may_go) {
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

    fn look_at_disk(&mut self, now: Duration) {
        if self.looked_at_disk.is_some_and(|at| now.saturating_sub(at) < LOOK_AT_DISK_EVERY) {
            return;
        }
        self.looked_at_disk = Some(now);
        let free = self.backend.free_bytes();
        let room = free.is_none_or(|free| free >= self.min_free_bytes);
        if room != self.room {
            tracing::warn!(?free, room, "room on the disk");
            self.room = room;
            self.set_state(if room { state::SERVING } else { state::DISK_FULL });
        }
    }

    /// The last thing of a good life: what was only buffered is durable too. Blocks for a sync.
    pub fn close(&mut self) {
        match self.backend.sync() {
            Ok(()) => self.life = Life::Closed,
            Err(error) => self.fail(error.into()),
        }
    }

    /// Has the store fail for a reason that the driver met.
    pub(crate) fn poison(&mut self, reason: &str) {
        self.fail(Poison(reason.to_owned()));
    }

    /// Nothing more is promised. What was written hears that nobody knows; [`Committer::refuse`]
    /// tells the same to whoever waits and whoever still comes.
    fn fail(&mut self, Poison(reason): Poison) {
        tracing::error!(reason, "the store is poisoned");
        self.set_state(state::POISONED);
        self.backend.suspect(&reason);
        let written = self.written.drain(..).flat_map(|one| one.commit.announcement.outcomes);
        let unknown = written.map(|(origin, outcome)| (origin, unknown(outcome)));
        let outcomes = unknown.chain(self.if_lost.drain(..)).collect();
        self.announcer.announce(Announcement { outcomes, deliveries: Vec::new() });
        self.life = Life::Failed(reason);
    }

    /// Tells all that wait that nobody knows; then, once, that the store is poisoned.
    pub fn refuse(&mut self, pop: impl FnMut() -> Option<Submission>) {
        let waiting = self.commands.drain(..).chain(std::iter::from_fn(pop));
        let refused = |Submission { origin, command }| (origin, unknown_of(&command));
        let outcomes: Vec<_> = waiting.map(refused).collect();
        if !outcomes.is_empty() {
            self.announcer.announce(Announcement { outcomes, deliveries: Vec::new() });
        }
        if let Life::Failed(reason) = &self.life {
            self.announcer.poisoned(reason);
            self.life = Life::Poisoned;
        }
    }

    /// The driver ends.
    pub(crate) fn ended(&self) {
        self.set_state(state::CLOSED);
    }

    /// Whether a sync is under way.
    pub fn is_syncing(&self) -> bool {
        self.syncing
    }

    fn is_serving(&self) -> bool {
        matches!(self.life, Life::Serving)
    }

    fn set_state(&self, state: u64) {
        self.public.counters.state.store(state, Ordering::Relaxed);
    }

    /// Answers a question from what was announced; `None`: it is not in memory, where alone was
    /// looked.
    pub fn answer(&self, tier: Tier, query: &Query) -> Option<Answer> {
        self.public.answer(tier, query)
    }

    /// A picture of what the committer counts.
    pub fn counters(&self) -> crate::StoreCounters {
        self.public.counters.picture()
    }
}
