//! The second thread of the committer: syncs the log, one sync at a time, while the committer
//! writes the next batch.

use crate::{Backend, WriteError};
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Where the one sync stands.
#[derive(Debug)]
enum State {
    Idle,
    Asked,
    Done(Result<Duration, WriteError>),
    Ended,
}

/// The committer's end of the syncing thread.
pub struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole, so a panic elsewhere cannot have left half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Syncer {
    /// Starts the thread; `done` is called on it after each sync.
    pub fn start(
        backend: Arc<dyn Backend>,
        done: impl Fn() + Send + 'static,
    ) -> io::Result<Syncer> {
        let shared = Arc::new(Shared { state: Mutex::new(State::Idle), changed: Condvar::new() });
        let thread = thread::Builder::new().name("log-sync".to_owned()).spawn({
            let shared = shared.clone();
            move || run(&shared, &*backend, done)
        })?;
        Ok(Syncer { shared, thread: Some(thread) })
    }

    /// Asks for a sync of all that is written. None may be under way.
    pub fn ask(&self) {
        *self.shared.lock() = State::Asked;
        self.shared.changed.notify_one();
    }

    /// The result of the sync that was asked for, once: the time it took.
    pub fn take(&self) -> Option<Result<Duration, WriteError>> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut *state, State::Idle) {
            State::Done(result) => Some(result),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        *self.shared.lock() = State::Ended;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic over there was reported there.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, backend: &dyn Backend, done: impl Fn()) {
    loop {
        let mut state = shared.lock();
        loop {
            match *state {
                State::Asked => break,
                State::Ended => return,
                State::Idle | State::Done(_) => {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        drop(state);
        let started = Instant::now();
        let result = backend.sync().map(|()| started.elapsed());
        let mut state = shared.lock();
        if matches!(*state, State::Ended) {
            return;
        }
        *state = State::Done(result);
        drop(state);
        done();
    }
}
