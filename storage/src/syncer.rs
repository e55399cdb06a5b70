//! Syncs the log, one sync at a time: on a second thread, while the committer writes the next
//! batch; or on the committer's own, when there is too little to do meanwhile for two threads to
//! wake each other.

use crate::{Backend, WriteError, committer::LITTLE};
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Where the one sync stands.
#[derive(Debug)]
enum State {
    Idle,
    /// For little: on which thread is open.
    Asked,
    /// On the syncing thread.
    Begun,
    Done(Result<Duration, WriteError>),
    Ended,
}

/// The committer's end of the syncing thread.
pub struct Syncer {
    backend: Arc<dyn Backend>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Commands of the sync before.
    before: AtomicUsize,
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
            let (shared, backend) = (shared.clone(), backend.clone());
            move || run(&shared, &*backend, done)
        })?;
        Ok(Syncer { backend, shared, thread: Some(thread), before: AtomicUsize::new(0) })
    }

    /// Asks for a sync of all that is written, which is so many commands. None may be under way.
    /// Of little it begins with [`Syncer::sync_here`]; but little after much is what came first of
    /// much more, which is to be written beside it.
    pub fn ask(&self, commands: usize) {
        let before = self.before.swap(commands, Ordering::Relaxed);
        if commands.max(before) > LITTLE {
            self.begin();
        } else {
            *self.shared.lock() = State::Asked;
        }
    }

    fn begin(&self) {
        *self.shared.lock() = State::Begun;
        self.shared.changed.notify_one();
    }

    /// Does a sync that was asked for and has not begun, unless so much waits that it is better
    /// written meanwhile: then it only begins. Says whether it was done.
    pub fn sync_here(&self, waiting: usize) -> bool {
        if !matches!(*self.shared.lock(), State::Asked) {
            return false;
        }
        if waiting > LITTLE {
            self.begin();
            return false;
        }
        let result = timed_sync(&*self.backend);
        *self.shared.lock() = State::Done(result);
        true
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
                State::Begun => break,
                State::Ended => return,
                State::Idle | State::Asked | State::Done(_) => {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        drop(state);
        let result = timed_sync(backend);
        let mut state = shared.lock();
        if matches!(*state, State::Ended) {
            return;
        }
        *state = State::Done(result);
        drop(state);
        done();
    }
}

fn timed_sync(backend: &dyn Backend) -> Result<Duration, WriteError> {
    let started = Instant::now();
    backend.sync().map(|()| started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        MemoryBackend, Rows,
        backend::{MemoryUse, View},
    };
    use std::sync::mpsc;

    /// Tells which threads sync it.
    struct Told {
        memory: MemoryBackend,
        by: mpsc::Sender<thread::ThreadId>,
    }

    impl Backend for Told {
        fn write(&self, rows: &Rows) -> Result<(), WriteError> {
            self.memory.write(rows)
        }

        fn sync(&self) -> Result<(), WriteError> {
            self.by.send(thread::current().id()).unwrap();
            self.memory.sync()
        }

        fn settle(&self) -> Result<(), WriteError> {
            self.memory.settle()
        }

        fn view(&self) -> Arc<dyn View> {
            self.memory.view()
        }

        fn suspect(&self, reason: &str) {
            self.memory.suspect(reason);
        }

        fn free_bytes(&self) -> Option<u64> {
            self.memory.free_bytes()
        }

        fn memory(&self) -> MemoryUse {
            self.memory.memory()
        }
    }

    #[test]
    fn little_is_synced_by_who_asks_and_more_beside_it() {
        let (by, told) = mpsc::channel();
        let (done, ends) = mpsc::channel();
        let backend = Arc::new(Told { memory: MemoryBackend::new(), by });
        let syncer = Syncer::start(backend, move || done.send(()).unwrap()).unwrap();
        let here = thread::current().id();
        assert!(!syncer.sync_here(0), "nobody asked");

        syncer.ask(LITTLE);
        assert!(syncer.take().is_none() && told.try_recv().is_err(), "nobody began");
        assert!(syncer.sync_here(LITTLE));
        assert_eq!(told.recv().unwrap(), here);
        assert!(matches!(syncer.take(), Some(Ok(_))) && syncer.take().is_none());

        let little_but_much_waits = (LITTLE, LITTLE + 1);
        for (commands, waiting) in [little_but_much_waits, (LITTLE + 1, 0), (LITTLE, 0)] {
            syncer.ask(commands);
            assert!(!syncer.sync_here(waiting));
            ends.recv().unwrap();
            assert_ne!(told.recv().unwrap(), here, "{commands} commands, {waiting} waiting");
            assert!(matches!(syncer.take(), Some(Ok(_))));
        }
        syncer.ask(LITTLE);
        assert!(syncer.sync_here(0), "what is little for the second time");
    }
}
