//! The threads for reads that miss the block cache.

use crate::{
    Answers, Backend, ReadError,
    backend::{Reads, Tier, View},
    counters::{LiveCounters, add_shared},
    epochs::Epochs,
    logs, queries,
    sequencer::Absent,
};
use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use starling_codec::{Answer, ErrorCode, Origin, Query};
use std::{
    cell::Cell,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

/// After so long without a job a reader rests.
const REST_AFTER: Duration = Duration::from_secs(10);

/// The view that readers see: all that was announced.
pub type Published = ArcSwap<Arc<dyn View>>;

/// What every read needs.
pub struct Public {
    pub view: Published,
    pub epochs: Epochs,
    pub counters: LiveCounters,
}

impl Public {
    /// Of a store that was opened just now: nothing is written that is not public.
    pub fn of(backend: &dyn Backend, epochs: Epochs) -> Arc<Public> {
        let view = ArcSwap::from_pointee(backend.view());
        Arc::new(Public { view, epochs, counters: LiveCounters::default() })
    }

    /// Answers a question from the view; `None`: it is not in memory, where alone was looked.
    pub fn answer(&self, tier: Tier, query: &Query) -> Option<Answer> {
        let view = self.view.load();
        match queries::answer(Reads::new(&***view, tier), &self.epochs, query) {
            Ok(answer) => Some(answer),
            Err(ReadError::Incomplete) if tier == Tier::Memory => None,
            Err(error) => {
                tracing::error!(%error, "a question could not be answered");
                Some(Answer::Failed(ErrorCode::Internal))
            }
        }
    }
}

enum Job {
    Ask(Origin, Query),
    /// Pull what these are derived from into the cache.
    Warm(Vec<Absent>, Arc<dyn View>, Arc<Countdown>),
}

/// The pool of reader threads.
pub struct Readers {
    jobs: Sender<Job>,
    count: usize,
    threads: Vec<JoinHandle<()>>,
}

/// A way to hand work to the readers.
#[derive(Clone)]
pub struct ReaderDoor {
    jobs: Sender<Job>,
    count: usize,
}

impl Readers {
    pub fn start(
        count: usize,
        queue: usize,
        public: &Arc<Public>,
        answers: &Arc<dyn Answers>,
    ) -> io::Result<Readers> {
        let count = count.max(1);
        let (jobs, taken) = bounded(queue.max(count));
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let (taken, public, answers) = (taken.clone(), public.clone(), answers.clone());
            let name = format!("reader {number}");
            let run = move || run(number, &taken, &public, &*answers);
            threads.push(thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(Readers { jobs, count, threads })
    }

    pub fn door(&self) -> ReaderDoor {
        ReaderDoor { jobs: self.jobs.clone(), count: self.count }
    }

    /// Waits for what was asked; every door must be gone.
    pub fn end(self) {
        drop(self.jobs);
        for thread in self.threads {
            // A panic over there was reported there.
            let _ = thread.join();
        }
    }
}

impl ReaderDoor {
    /// Queues a question, or gives it back when too many wait.
    pub fn ask(&self, origin: Origin, query: Query) -> Result<(), Query> {
        match self.jobs.try_send(Job::Ask(origin, query)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => match job {
                Job::Ask(_, query) => Err(query),
                // What was sent comes back.
                Job::Warm(..) => unreachable!("another job came back than was sent"),
            },
        }
    }

    /// Reads side by side what is not in memory, and waits for it. What finds no room is left to
    /// the caller's own read.
    pub fn warm(&self, absent: &[Absent], view: &Arc<dyn View>) {
        let share = absent.len().div_ceil(self.count).max(1);
        let countdown = Arc::new(Countdown::default());
        for part in absent.chunks(share) {
            countdown.expect_one();
            let job = Job::Warm(part.to_vec(), view.clone(), countdown.clone());
            if self.jobs.try_send(job).is_err() {
                countdown.one_done();
            }
        }
        countdown.wait();
    }
}

/// Waits for a job; `None` at the end of all.
fn next(jobs: &Receiver<Job>, answers: &dyn Answers) -> Option<Job> {
    match jobs.recv_timeout(REST_AFTER) {
        Err(RecvTimeoutError::Timeout) => {
            answers.resting();
            jobs.recv().ok()
        }
        job => job.ok(),
    }
}

fn run(number: usize, jobs: &Receiver<Job>, public: &Public, answers: &dyn Answers) {
    CATCHES_PANICS.set(true);
    while let Some(job) = next(jobs, answers) {
        match job {
            Job::Ask(origin, query) => {
                add_shared(&public.counters.reads_later, 1);
                let answer = survive(public, || public.answer(Tier::All, &query)).flatten();
                answers.answer(
                    number,
                    origin,
                    answer.unwrap_or(Answer::Failed(ErrorCode::Internal)),
                );
            }
            Job::Warm(absent, view, countdown) => {
                // What it did not come to is left to the committer's own read.
                survive(public, || warm(&absent, &*view));
                countdown.one_done();
            }
        }
    }
}

fn warm(absent: &[Absent], view: &dyn View) {
    let reads = Reads::new(view, Tier::All);
    for one in absent {
        // An error comes again where it is handled: in the committer's own read.
        let _ = match *one {
            Absent::Inbox(user) => logs::inbox_head(reads, user).map(|_| ()),
            Absent::Conversation(conversation) => {
                logs::conversation_head(reads, conversation).map(|_| ())
            }
        };
    }
}

thread_local! {
    static CATCHES_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is one of the store's that goes on after a panic, so that a hook
/// need not end the process.
pub fn catches_panics() -> bool {
    CATCHES_PANICS.get()
}

/// Reads; `None` after a panic. A read changes nothing, so whatever it left half done is gone
/// with it, and the other questions have an answer.
fn survive<T>(public: &Public, read: impl FnOnce() -> T) -> Option<T> {
    let survived = panic::catch_unwind(AssertUnwindSafe(read)).ok();
    if survived.is_none() {
        tracing::error!("a bug: a read panicked");
        add_shared(&public.counters.read_panics, 1);
    }
    survived
}

/// Counts work that is under way elsewhere.
#[derive(Default)]
struct Countdown {
    left: Mutex<usize>,
    done: Condvar,
}

impl Countdown {
    fn expect_one(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn one_done(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.done.notify_one();
    }

    fn wait(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        while *left > 0 {
            left = self.done.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
