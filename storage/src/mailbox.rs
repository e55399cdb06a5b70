//! Where commands wait for the committer: a bounded queue from each writer to the one reader, who
//! is woken only when it sleeps and there is enough for it to do.
//!
//! The deadlock rule: a writer never waits. The reader says before it sleeps how many commands are
//! worth waking for, then looks once more; a writer adds first and then looks whether that many
//! are there. So of the two one sees the other.

use crate::spsc::SpscQueue;
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

/// The queues between all threads that submit and the committer.
#[derive(Debug)]
pub struct Mailbox {
    /// By the shard of the origin.
    commands: Box<[SpscQueue<Submission>]>,
    /// The queue that the reader looks into first. It alone writes this.
    next: AtomicUsize,
    /// [`AWAKE`], or how many commands the sleeping reader waits for.
    worth: AtomicUsize,
    /// The reader is to look around whatever waits.
    called: AtomicBool,
    reader: OnceLock<Thread>,
}

impl Mailbox {
    /// With room for `capacity` commands from each of `writers` threads.
    pub fn new(writers: u16, capacity: usize) -> Mailbox {
        Mailbox {
            commands: (0..writers.max(1)).map(|_| SpscQueue::new(capacity.max(1))).collect(),
            next: AtomicUsize::new(0),
            worth: AtomicUsize::new(AWAKE),
            called: AtomicBool::new(false),
            reader: OnceLock::new(),
        }
    }

    /// Adds a command, or gives it back when there is no room, or no such writer. Wakes nobody.
    pub fn push(&self, submission: Submission) -> Result<(), Submission> {
        match self.commands.get(usize::from(submission.origin.shard)) {
            Some(queue) => queue.push(submission),
            None => Err(submission),
        }
    }

    /// Wakes the reader if it sleeps and enough waits.
    pub fn wake(&self) {
        // What was added before is seen by a reader that goes to sleep after.
        fence(Ordering::SeqCst);
        let worth = self.worth.load(Ordering::Relaxed);
        if worth != AWAKE && self.len() >= worth {
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
        self.commands.iter().map(SpscQueue::len).sum()
    }

    /// The next command; those of one writer come in their order, and writers take turns. Only the
    /// reader.
    pub fn pop(&self) -> Option<Submission> {
        let first = self.next.load(Ordering::Relaxed);
        let mut turn = (first..self.commands.len()).chain(0..first);
        let (index, submission) =
            turn.find_map(|index| Some((index, self.commands[index].pop()?)))?;
        self.next.store((index + 1) % self.commands.len(), Ordering::Relaxed);
        Some(submission)
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
        let enough = || self.len() >= worth.max(1) || self.called.load(Ordering::Relaxed);
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
        of_shard(0, key)
    }

    fn of_shard(shard: u16, key: u64) -> Submission {
        let command = Command::Revoke { user: UserId(1), device: DeviceId(1) };
        Submission { origin: Origin { shard, key }, command }
    }

    #[test]
    fn a_full_mailbox_gives_the_command_back() {
        let mailbox = Mailbox::new(1, 2);
        assert!(mailbox.push(command(1)).is_ok());
        assert!(mailbox.push(command(2)).is_ok());
        assert_eq!(mailbox.push(command(3)), Err(command(3)));
        assert_eq!(mailbox.pop(), Some(command(1)));
        assert!(mailbox.push(command(3)).is_ok());
        assert_eq!(mailbox.push(of_shard(1, 4)), Err(of_shard(1, 4)), "no such writer");
    }

    #[test]
    fn writers_take_turns_and_each_has_room_of_its_own() {
        let mailbox = Mailbox::new(2, 3);
        (1..=3).for_each(|key| mailbox.push(of_shard(0, key)).unwrap());
        assert!(mailbox.push(of_shard(0, 4)).is_err());
        (1..=2).for_each(|key| mailbox.push(of_shard(1, key)).unwrap());
        assert_eq!(mailbox.len(), 5);
        let taken: Vec<_> = std::iter::from_fn(|| mailbox.pop())
            .map(|Submission { origin, .. }| (origin.shard, origin.key))
            .collect();
        assert_eq!(taken, [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3)]);
    }

    /// Writers and a reader that sleeps whenever nothing waits: a lost wake-up would let it sleep
    /// for an hour.
    #[test]
    fn no_wake_up_is_lost() {
        const EACH: u64 = 20_000;
        let mailbox = Arc::new(Mailbox::new(3, 64));
        let writers: Vec<_> = (0..3)
            .map(|shard| {
                let mailbox = mailbox.clone();
                thread::spawn(move || {
                    for key in 0..EACH {
                        let mut next = of_shard(shard, key);
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
        let mailbox = Arc::new(Mailbox::new(1, 64));
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
