//! Syncs the log, one sync at a time: on a second thread, while the committer writes the next
//! batch, or in place when there is so little that there will be nothing to write beside it. Two
//! wakings are saved then.

use crate::{Backend, WriteError, committer::LITTLE};
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
    /// To be done by who takes its result.
    InPlace,
    /// To be done by the thread.
    Asked,
    Done(Result<Duration, WriteError>),
    Ended,
}

/// The committer's end of the syncing thread.
pub struct Syncer {
    backend: Arc<dyn Backend>,
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
    /// Starts the thread; `done` is called on it after each sync of its own.
    pub fn start(
        backend: Arc<dyn Backend>,
        done: impl Fn() + Send + 'static,
    ) -> io::Result<Syncer> {
        let shared = Arc::new(Shared { state: Mutex::new(State::Idle), changed: Condvar::new() });
        let thread = thread::Builder::new().name("log-sync".to_owned()).spawn({
            let (shared, backend) = (shared.clone(), backend.clone());
            move || run(&shared, &*backend, done)
        })?;
        Ok(Syncer { backend, shared, thread: Some(thread) })
    }

    /// Asks for a sync of all that is written, so many commands. None may be under way.
    pub fn ask(&self, commands: usize) {
        if commands <= LITTLE {
            *self.shared.lock() = State::InPlace;
        } else {
            *self.shared.lock() = State::Asked;
            self.shared.changed.notify_one();
        }
    }

    /// The result of the sync that was asked for, once: the time it took. Blocks for it when it
    /// is to be done in place.
    pub fn take(&self) -> Option<Result<Duration, WriteError>> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut *state, State::Idle) {
            State::Done(result) => Some(result),
            State::InPlace => {
                drop(state);
                Some(sync(&*self.backend))
            }
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
                State::Idle | State::InPlace | State::Done(_) => {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        drop(state);
        let result = sync(backend);
        let mut state = shared.lock();
        if matches!(*state, State::Ended) {
            return;
        }
        *state = State::Done(result);
        drop(state);
        done();
    }
}

/// The time it took.
fn sync(backend: &dyn Backend) -> Result<Duration, WriteError> {
    let started = Instant::now();
    backend.sync().map(|()| started.elapsed())
}
