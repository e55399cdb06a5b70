//! The store as others see it: opened, started, and then a handle that every thread may hold.

use crate::{OpenError, StoreCounters, StoreSettings};
use starling_codec::{Announcement, Answer, Epoch, EpochTag, Origin, Query, Submission};
use std::sync::Arc;

/// Takes what the committer makes public. Called on the committer's thread: it must not block.
pub trait Announcer: Send + 'static {
    /// One commit, in log order, after the view shows it.
    fn announce(&mut self, announcement: Announcement);

    /// The store is poisoned: nothing will be announced any more. The outcomes of what waited
    /// (UNKNOWN_OUTCOME) were announced before. The process should exit, not 0, within 5 s.
    fn poisoned(&mut self, reason: &str);
}

/// Takes the answers of questions that went to a reader thread.
pub trait Answers: Send + Sync + 'static {
    fn answer(&self, origin: Origin, answer: Answer);
}

/// A store that is open and not yet running.
pub struct Store {
    _settings: StoreSettings,
}

impl Store {
    /// Opens or makes the store in the settings' directory, begins a new epoch and makes it
    /// durable.
    #[cfg(feature = "rocksdb")]
    pub fn open(_settings: StoreSettings) -> Result<Store, OpenError> {
        todo!()
    }

    /// A store that lives as long as the process: for tests and simulations.
    pub fn in_memory(_settings: StoreSettings) -> Result<Store, OpenError> {
        todo!()
    }

    /// The epoch that this opening began.
    pub fn epoch(&self) -> Epoch {
        todo!()
    }

    pub fn tag(&self) -> EpochTag {
        todo!()
    }

    /// Unix milliseconds: no message id of an earlier time may be made.
    pub fn id_floor_ms(&self) -> u64 {
        todo!()
    }

    /// Starts the committer, its syncing thread and the readers. Errors are those of the
    /// operating system when it has no thread to give.
    pub fn start(
        self,
        _announcer: impl Announcer,
        _answers: impl Answers,
    ) -> std::io::Result<StoreHandle> {
        todo!()
    }
}

/// A running store, from any thread.
#[derive(Clone)]
pub struct StoreHandle {
    shared: Arc<()>,
}

impl StoreHandle {
    /// Queues a command and wakes the committer. Gives the command back when the mailbox is full
    /// (never, if its callers hold credits) or the store is closed.
    pub fn submit(&self, submission: Submission) -> Result<(), Submission> {
        self.queue(submission)?;
        self.wake();
        Ok(())
    }

    /// As [`Self::submit`], without waking: for many commands of one turn, which then is ended by
    /// [`Self::wake`]. So a commit is as large as the turn, and a thread switch is paid once.
    pub fn queue(&self, _submission: Submission) -> Result<(), Submission> {
        todo!()
    }

    /// Wakes the committer if it sleeps and has something to do. Cheap when not.
    pub fn wake(&self) {
        todo!()
    }

    /// Answers from memory and block cache, without blocking; `None`: ask [`Self::read_later`].
    pub fn read_now(&self, _query: &Query) -> Option<Answer> {
        todo!()
    }

    /// Hands a question to a reader thread; the answer goes to [`Answers::answer`]. Gives it back
    /// when too many wait.
    pub fn read_later(&self, _origin: Origin, _query: Query) -> Result<(), Query> {
        todo!()
    }

    pub fn counters(&self) -> StoreCounters {
        todo!()
    }

    pub fn epoch(&self) -> Epoch {
        todo!()
    }

    pub fn tag(&self) -> EpochTag {
        todo!()
    }

    /// Unix milliseconds: no message id of an earlier time may be made.
    pub fn id_floor_ms(&self) -> u64 {
        todo!()
    }

    /// Finishes what was submitted, announces it, syncs and ends all threads of the store. What
    /// is submitted later is given back. Blocks; any thread but the store's own may call it, and
    /// calling it again waits for the same end.
    pub fn close(&self) {
        let _ = &self.shared;
        todo!()
    }
}
