//! Where commands wait for the committer: a bounded queue of many writers and one reader, who is
//! woken only when it sleeps and there is enough for it to do.
//!
//! The deadlock rule: a writer never waits. The reader says before it sleeps how many commands are
//! worth waking for, then looks once more; a writer adds first and then looks whether that many
//! are there. So of the two one sees the other.

use crossbeam::queue::ArrayQueue;
use starling_codec::Submission;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
    thread::{self, Thread},
    time::Duration,
};

/// The reader is awake.
const AWAKE: usize = 0;

/// The queue between all threads and the committer.
#[derive(Debug)]
pub struct Mailbox {
    commands: ArrayQueue<Submission>,
    /// [`AWAKE`], or how many commands the sleeping reader waits for.
    worth: AtomicUsize,
    /// The reader is to look around whatever waits.
    called: AtomicBool,
    reader: OnceLock<Thread>,
}

impl Mailbox {
    pub fn new(capacity: usize) -> Mailbox {
        Mailbox {
            commands: ArrayQueue::new(capacity.max(1)),
            worth: AtomicUsize::new(AWAKE),
            called: AtomicBool::new(false),
            reader: OnceLock::new(),
        }
    }

    /// Adds a command, or gives it back when there is no room. Wakes nobody.
    pub fn push(&self, submission: Submission) -> Result<(), Submission> {
        self.commands.push(submission)
    }

    /// Wakes the reader if it sleeps and enough waits.
    pub fn wake(&self) {
        // What was added before is seen by a reader that goes to sleep after.
        fence(Ordering::SeqCst);
        let worth = self.worth.load(Ordering::Relaxed);
        if worth != AWAKE && self.commands.len() >= worth {
            self.unpark();
        }
    }

    /// Wakes the reader whatever waits.
    pub fn call(&self) {
        self.called.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.worth.load(Ordering::Relaxed) != AWAKE {
            self.unpark();
        }
    }

    fn unpark(&self) {
        if self.worth.swap(AWAKE, Ordering::AcqRel) != AWAKE
            && let Some(reader) = self.reader.get()
        {
            reader.unpark();
        }
    }

    pub fn len(&self) -> usize {
        self.commands.len()
    }

    pub fn pop(&self) -> Option<Submission> {
        self.commands.pop()
    }

    /// Names the calling thread as the reader; done once, before it sleeps.
    pub fn attend(&self) {
        // A second reader would be a mistake of this crate, and would only sleep longer.
        let _ = self.reader.set(thread::current());
    }

    /// Sleeps until `worth` commands wait, somebody calls, or the time is over. Only the reader.
    pub fn sleep(&self, worth: usize, at_most: Duration) {
        self.worth.store(worth.max(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let enough = || self.commands.len() >= worth.max(1) || self.called.load(Ordering::Relaxed);
        if !enough() {
            thread::park_timeout(at_most);
        }
        self.worth.store(AWAKE, Ordering::Relaxed);
        self.called.store(false, Ordering::Relaxed);
        // What the caller did before it called is seen by what the reader looks at now.
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_codec::{Command, DeviceId, Origin, UserId};
    use std::{sync::Arc, time::Instant};

    fn command(key: u64) -> Submission {
        let command = Command::Revoke { user: UserId(1), device: DeviceId(1) };
        Submission { origin: Origin { shard: 0, key }, command }
    }

    #[test]
    fn a_full_mailbox_gives_the_command_back() {
        let mailbox = Mailbox::new(2);
        assert!(mailbox.push(command(1)).is_ok());
        assert!(mailbox.push(command(2)).is_ok());
        assert_eq!(mailbox.push(command(3)), Err(command(3)));
        assert_eq!(mailbox.pop(), Some(command(1)));
        assert!(mailbox.push(command(3)).is_ok());
    }

    /// Writers and a reader that sleeps whenever nothing waits: a lost wake-up would let it sleep
    /// for an hour.
    #[test]
    fn no_wake_up_is_lost() {
        const EACH: u64 = 20_000;
        let mailbox = Arc::new(Mailbox::new(64));
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let mailbox = mailbox.clone();
                thread::spawn(move || {
                    for key in 0..EACH {
                        let mut next = command(key);
                        while let Err(back) = mailbox.push(next) {
                            next = back;
                            mailbox.wake();
                            thread::yield_now();
                        }
                        mailbox.wake();
                    }
                })
            })
            .collect();
        mailbox.attend();
        let started = Instant::now();
        let mut taken = 0;
        while taken < 3 * EACH {
            match mailbox.pop() {
                Some(_) => taken += 1,
                None => mailbox.sleep(1, Duration::from_secs(3_600)),
            }
        }
        assert!(started.elapsed() < Duration::from_secs(600));
        for writer in writers {
            writer.join().unwrap();
        }
    }

    #[test]
    fn a_call_ends_a_sleep_for_more() {
        let mailbox = Arc::new(Mailbox::new(64));
        mailbox.attend();
        mailbox.push(command(1)).unwrap();
        mailbox.wake();
        let caller = thread::spawn({
            let mailbox = mailbox.clone();
            move || mailbox.call()
        });
        mailbox.sleep(usize::MAX, Duration::from_secs(3_600));
        caller.join().unwrap();
    }
}
