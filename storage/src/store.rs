//! The store as others see it: opened, started, and then a handle that every thread may hold.

use crate::{
    Backend, MemoryBackend, OpenError, StoreCounters, StoreSettings,
    backend::{Reads, Tier},
    committer::{Committer, state},
    counters::add_shared,
    driver::Driver,
    epochs::{self, Opening},
    mailbox::Mailbox,
    readers::{Public, ReaderDoor, Readers},
    sequencer::Sequencer,
    syncer::Syncer,
};
use starling_codec::{Announcement, Answer, Epoch, EpochTag, Origin, Query, Submission};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Takes what the committer makes public. Called on the committer's thread: it must not block.
pub trait Announcer: Send + 'static {
    /// The committer's thread begins: told once, on it, before anything else.
    fn begins(&mut self) {}

    /// One commit, in log order, after the view shows it.
    fn announce(&mut self, announcement: Announcement);

    /// The committer has done all there was, remembers nothing, and goes to sleep: told once
    /// after each time that it worked, so that its thread can give memory back.
    fn resting(&mut self) {}

    /// The store is poisoned: no commit will be announced any more. What waited was told
    /// UNKNOWN_OUTCOME before, and so is what is still submitted. The process should exit, not 0,
    /// within 5 s.
    fn poisoned(&mut self, reason: &str);
}

/// Takes the answers of questions that went to a reader thread.
pub trait Answers: Send + Sync + 'static {
    /// `reader` is the number of the calling thread among the readers, from 0.
    fn answer(&self, reader: usize, origin: Origin, answer: Answer);

    /// The calling reader has had nothing to do for a while: told once after each time that it
    /// worked, so that its thread can give memory back.
    fn resting(&self) {}
}

/// A store that is open and not yet running.
pub struct Store {
    backend: Arc<dyn Backend>,
    settings: StoreSettings,
    opening: Opening,
    sequencer: Sequencer,
}

impl Store {
    /// Opens or makes the store in the settings' directory, begins a new epoch and makes it
    /// durable.
    #[cfg(feature = "rocksdb")]
    pub fn open(settings: StoreSettings) -> Result<Store, OpenError> {
        let backend = crate::rocks::RocksBackend::open(&settings)?;
        Store::open_on(Arc::new(backend), settings)
    }

    /// A store that lives as long as the process: for tests and simulations.
    pub fn in_memory(settings: StoreSettings) -> Result<Store, OpenError> {
        Store::open_on(Arc::new(MemoryBackend::new()), settings)
    }

    /// Begins a new epoch on any backend.
    pub fn open_on(backend: Arc<dyn Backend>, settings: StoreSettings) -> Result<Store, OpenError> {
        let mut tag = [0; 8];
        getrandom::fill(&mut tag).map_err(|error| OpenError::Io(error.to_string()))?;
        Store::open_with_tag(backend, settings, EpochTag(u64::from_le_bytes(tag)))
    }

    /// As [`Self::open_on`], with the tag of the new epoch, which no other opening may ever have
    /// had: for simulations, where chance can be repeated.
    pub fn open_with_tag(
        backend: Arc<dyn Backend>,
        settings: StoreSettings,
        tag: EpochTag,
    ) -> Result<Store, OpenError> {
        let opening = epochs::begin(&*backend, tag)?;
        let (epoch, _) = opening.epochs.current();
        let view = backend.view();
        let sequencer = Sequencer::new(epoch, settings.hot_entries, Reads::new(&*view, Tier::All))?;
        Ok(Store { backend, settings, opening, sequencer })
    }

    /// The epoch that this opening began.
    pub fn epoch(&self) -> Epoch {
        self.opening.epochs.current().0
    }

    pub fn tag(&self) -> EpochTag {
        self.opening.epochs.current().1
    }

    /// Unix milliseconds: no message id of an earlier time may be made.
    pub fn id_floor_ms(&self) -> u64 {
        self.opening.id_floor_ms
    }

    /// The committer as a machine of steps, for whoever drives it without threads. `start_sync`
    /// asks for a sync, which covers so many commands and whose end is told to
    /// [`Committer::synced`]. `now` is of the clock that the steps are told.
    pub fn stepwise(
        self,
        announcer: impl Announcer,
        start_sync: impl FnMut(usize) + Send + 'static,
        now: Duration,
    ) -> Committer {
        let Store { backend, settings, opening, sequencer } = self;
        let public = Public::of(&*backend, opening.epochs);
        let (announcer, start_sync) = (Box::new(announcer), Box::new(start_sync));
        Committer::new(backend, public, sequencer, announcer, start_sync, &settings, now)
    }

    /// Starts the committer, its syncing thread and the readers. Errors are those of the
    /// operating system when it has no thread to give.
    pub fn start(
        self,
        announcer: impl Announcer,
        answers: impl Answers,
    ) -> io::Result<StoreHandle> {
        let Store { backend, settings, opening, sequencer } = self;
        let public = Public::of(&*backend, opening.epochs);
        let mailbox = Arc::new(Mailbox::new(settings.writers, settings.mailbox));
        let closing = Arc::new(AtomicBool::new(false));
        let answers: Arc<dyn Answers> = Arc::new(answers);
        let readers =
            Readers::start(settings.reader_threads, settings.read_queue, &public, &answers)?;
        let syncer = Arc::new(Syncer::start(backend.clone(), {
            let mailbox = mailbox.clone();
            move || mailbox.call()
        })?);
        let start_sync = {
            let syncer = syncer.clone();
            move |commands| syncer.ask(commands)
        };
        let door = readers.door();
        let started = Instant::now();
        let committer = Committer::new(
            backend.clone(),
            public.clone(),
            sequencer,
            Box::new(announcer),
            Box::new(start_sync),
            &settings,
            Duration::ZERO,
        );
        let driver = Driver {
            committer,
            mailbox: mailbox.clone(),
            closing: closing.clone(),
            readers: door.clone(),
            syncer,
            started,
        };
        let committer =
            thread::Builder::new().name("committer".to_owned()).spawn(move || driver.run())?;
        let threads = Mutex::new(Some(Threads { committer, readers }));
        let shared = Shared {
            backend,
            public,
            mailbox,
            closing,
            door: Mutex::new(Some(door)),
            id_floor_ms: opening.id_floor_ms,
            threads,
        };
        Ok(StoreHandle { shared: Arc::new(shared) })
    }
}

struct Threads {
    committer: JoinHandle<()>,
    readers: Readers,
}

struct Shared {
    backend: Arc<dyn Backend>,
    public: Arc<Public>,
    mailbox: Arc<Mailbox>,
    closing: Arc<AtomicBool>,
    /// `None`: closed.
    door: Mutex<Option<ReaderDoor>>,
    id_floor_ms: u64,
    /// `None`: ended.
    threads: Mutex<Option<Threads>>,
}

/// A running store, from any thread.
#[derive(Clone)]
pub struct StoreHandle {
    shared: Arc<Shared>,
}

impl StoreHandle {
    /// Queues a command and wakes the committer. Gives the command back when its writer has no room
    /// (never, if its callers hold credits), is none of [`StoreSettings::writers`], or the store is
    /// closed.
    ///
    /// The commands of one writer are committed in the order in which they came; those of several
    /// in any. One thread at a time submits for a writer: two may hold each other up.
    pub fn submit(&self, writer: u16, submission: Submission) -> Result<(), Submission> {
        self.queue(writer, submission)?;
        self.wake();
        Ok(())
    }

    /// As [`Self::submit`], without waking: for many commands of one turn, which then is ended by
    /// [`Self::wake`]. So a commit is as large as the turn, and a thread switch is paid once.
    pub fn queue(&self, writer: u16, submission: Submission) -> Result<(), Submission> {
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(submission);
        }
        self.shared.mailbox.push(writer, submission)
    }

    /// Wakes the committer if it sleeps and has enough to do. Cheap when not.
    pub fn wake(&self) {
        self.shared.mailbox.wake();
    }

    /// Answers from memory and block cache, without blocking; `None`: ask [`Self::read_later`].
    pub fn read_now(&self, query: &Query) -> Option<Answer> {
        let answer = self.shared.public.answer(Tier::Memory, query)?;
        add_shared(&self.shared.public.counters.reads_now, 1);
        Some(answer)
    }

    /// Hands a question to a reader thread; the answer goes to [`Answers::answer`]. Gives it back
    /// when too many wait or the store is closed.
    pub fn read_later(&self, origin: Origin, query: Query) -> Result<(), Query> {
        match &*self.shared.door.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(door) => door.ask(origin, query),
            None => Err(query),
        }
    }

    /// A picture of the counters. Asks the database for its memory, so not for every turn.
    pub fn counters(&self) -> StoreCounters {
        let memory = self.shared.backend.memory();
        StoreCounters {
            memtable_bytes: memory.memtables,
            block_cache_bytes: memory.block_cache,
            table_reader_bytes: memory.table_readers,
            ..self.shared.public.counters.picture()
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.shared.public.epochs.current().0
    }

    pub fn tag(&self) -> EpochTag {
        self.shared.public.epochs.current().1
    }

    /// Unix milliseconds: no message id of an earlier time may be made.
    pub fn id_floor_ms(&self) -> u64 {
        self.shared.id_floor_ms
    }

    /// Whether the store failed and nothing more is promised.
    pub fn is_poisoned(&self) -> bool {
        self.shared.public.counters.state.load(Ordering::Relaxed) == state::POISONED
    }

    /// Finishes what was submitted, announces it, syncs and ends all threads of the store. What
    /// is submitted later is given back; what is submitted meanwhile by another thread may be
    /// lost, so those end first. Blocks; any thread but the store's own may call it, and calling
    /// it again waits for the same end.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.mailbox.call();
        let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Threads { committer, readers }) = threads.take() {
            // A panic over there was reported there.
            let _ = committer.join();
            self.shared.door.lock().unwrap_or_else(PoisonError::into_inner).take();
            readers.end();
        }
    }
}
