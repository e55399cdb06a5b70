//! Where commands wait for the committer: a bounded queue from each writer to the one reader, who
//! is woken only when it sleeps and there is enough for it to do.
//!
//! The deadlock rule: a writer never waits. The reader says before it sleeps how many commands are
//! worth waking for, then looks once more; a writer adds first and then looks whether that many
//! are there. So of the two one sees the other.

use crate::spsc::SpscQueue;
use crossbeam::queue::SegQueue;
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

/// Most commands of one writer that are taken before those of the next.
const TURN: usize = 64;

/// The queues between all threads that submit and the committer.
#[derive(Debug)]
pub struct Mailbox {
    /// By writer.
    commands: Box<[SpscQueue<SegQueue<Submission>>]>,
    /// How many commands were taken, and how many short of it the turns were that ended early. The
    /// reader alone writes this.
    turns: AtomicUsize,
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
            commands: (0..writers).map(|_| SpscQueue::new(capacity)).collect(),
            turns: AtomicUsize::new(0),
            worth: AtomicUsize::new(AWAKE),
            called: AtomicBool::new(false),
            reader: OnceLock::new(),
        }
    }

    /// Adds a command of a writer, or gives it back when there is no room, or no such writer. Wakes
    /// nobody.
    pub fn push(&self, writer: u16, submission: Submission) -> Result<(), Submission> {
        match self.commands.get(usize::from(writer)) {
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
        let mut turns = self.turns.load(Ordering::Relaxed);
        for _ in 0..self.commands.len() {
            if let Some(submission) = self.commands[turns / TURN % self.commands.len()].pop() {
                self.turns.store(turns.wrapping_add(1), Ordering::Relaxed);
                return Some(submission);
            }
            turns = (turns / TURN).wrapping_add(1).wrapping_mul(TURN);
        }
        None
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
        let command = Command::Revoke { user: UserId(1), device: DeviceId(1) };
        Submission { origin: Origin { shard: 0, key }, command }
    }

    #[test]
    fn a_full_mailbox_gives_the_command_back() {
        let mailbox = Mailbox::new(1, 2);
        assert!(mailbox.push(0, command(1)).is_ok());
        assert!(mailbox.push(0, command(2)).is_ok());
        assert_eq!(mailbox.push(0, command(3)), Err(command(3)));
        assert_eq!(mailbox.pop(), Some(command(1)));
        assert!(mailbox.push(0, command(3)).is_ok());
        assert_eq!(mailbox.push(1, command(4)), Err(command(4)), "no such writer");
    }

    #[test]
    fn writers_take_turns_and_each_has_room_of_its_own() {
        let (turn, room) = (TURN as u64, TURN + 2);
        let mailbox = Mailbox::new(2, room);
        (0..turn + 2).for_each(|key| mailbox.push(0, command(key)).unwrap());
        assert!(mailbox.push(0, command(0)).is_err());
        (100..102).for_each(|key| mailbox.push(1, command(key)).unwrap());
        assert_eq!(mailbox.len(), room + 2);
        let taken = || mailbox.pop().map(|submission| submission.origin.key);
        assert!((0..turn).all(|key| taken() == Some(key)));
        // The other one has less than a turn; then it is the first one's again.
        let rest: Vec<_> = std::iter::from_fn(taken).collect();
        assert_eq!(rest, [100, 101, turn, turn + 1]);
    }

    /// Writers and a reader that sleeps whenever nothing waits: a lost wake-up would let it sleep
    /// for an hour. Each writer's commands come in order.
    #[test]
    fn no_wake_up_is_lost() {
        const EACH: u64 = 20_000;
        let mailbox = Arc::new(Mailbox::new(3, 64));
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let mailbox = mailbox.clone();
                thread::spawn(move || {
                    for key in 0..EACH {
                        let mut next = command(u64::from(writer) * EACH + key);
                        while let Err(back) = mailbox.push(writer, next) {
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
        let mut taken = [0; 3];
        while taken != [EACH; 3] {
            match mailbox.pop() {
                Some(submission) => {
                    let (writer, key) =
                        (submission.origin.key / EACH, submission.origin.key % EACH);
                    assert_eq!(taken[writer as usize], key);
                    taken[writer as usize] += 1;
                }
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
        mailbox.push(0, command(1)).unwrap();
        mailbox.wake();
        let caller = thread::spawn({
            let mailbox = mailbox.clone();
            move || mailbox.call()
        });
        mailbox.sleep(usize::MAX, Duration::from_secs(3_600));
        caller.join().unwrap();
    }
}
