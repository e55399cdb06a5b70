//! The committer's thread: does what the committer's steps ask for, waits where they say so, and
//! knows the time.

use crate::{
    committer::{Committer, Step},
    mailbox::Mailbox,
    readers::ReaderDoor,
    syncer::Syncer,
};
use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// All that the committer's thread holds.
pub struct Driver {
    pub committer: Committer,
    pub mailbox: Arc<Mailbox>,
    pub closing: Arc<AtomicBool>,
    pub readers: ReaderDoor,
    pub syncer: Arc<Syncer>,
    /// When the committer's time began.
    pub started: Instant,
}

impl Driver {
    /// Runs until the store is closed and all that was submitted is announced.
    pub fn run(mut self) {
        self.mailbox.attend();
        self.committer.begins();
        // A panic here is a defect, and what it left half done must not be built on: the same as
        // a failed write.
        let served = panic::catch_unwind(AssertUnwindSafe(|| self.serve()));
        if served.is_err() {
            self.committer.poison("the committer panicked");
            self.serve();
        }
        self.committer.ended();
    }

    fn serve(&mut self) {
        loop {
            while let Some(result) = self.syncer.take() {
                self.committer.synced(result, self.mailbox.len());
            }
            let now = self.started.elapsed();
            let closing = self.closing.load(Ordering::Acquire);
            match self.committer.next(now, self.mailbox.len(), closing) {
                Step::Commit => {
                    let absent = self.committer.gather(|| self.mailbox.pop());
                    if absent.len() > 1 {
                        self.readers.warm(&absent, self.committer.latest());
                    }
                    self.committer.commit(now);
                }
                Step::Refuse => self.committer.refuse(|| self.mailbox.pop()),
                Step::Close => self.committer.close(),
                Step::Sleep { worth, at_most } => self.mailbox.sleep(worth, at_most),
                Step::End => return,
            }
        }
    }
}
