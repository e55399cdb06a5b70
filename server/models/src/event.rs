//! A stand-in for the eventfd, which a thread may wait for as a shard waits in its ring.

use loom::sync::{Condvar, Mutex};
use std::{io, os::fd::RawFd};

#[derive(Debug)]
pub struct Event {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    pub fn new() -> io::Result<Event> {
        Ok(Event { raised: Mutex::new(false), changed: Condvar::new() })
    }

    pub fn raise(&self) {
        *self.raised.lock().unwrap() = true;
        self.changed.notify_one();
    }

    pub fn lower(&self) -> bool {
        std::mem::take(&mut *self.raised.lock().unwrap())
    }

    /// Sleeps until it is raised. If it never is, loom finds that nobody can go on.
    pub fn wait(&self) {
        let mut raised = self.raised.lock().unwrap();
        while !*raised {
            raised = self.changed.wait(raised).unwrap();
        }
    }

    pub fn descriptor(&self) -> RawFd {
        -1
    }
}
