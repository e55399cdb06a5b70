//! The committer driven step by step: what each sync covers, and so what an acknowledgement waits
//! for.

mod common;

use common::{Send, TIME_MS, Teller, Told, settings};
use starling_codec::{MessageId, Origin, Submission, UserId};
use starling_storage::{Committer, Step, Store};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

const ADA: UserId = UserId(1);
const BOB: UserId = UserId(2);
/// No step here depends on the time.
const NOW: Duration = Duration::ZERO;
/// No longer little, and so written ahead.
const MUCH: u64 = 33;

/// A committer whose disk is the test.
struct Machine {
    committer: Committer,
    waiting: VecDeque<Submission>,
    syncs: Arc<AtomicUsize>,
    told: mpsc::Receiver<Told>,
    sent: u64,
}

impl Machine {
    fn new() -> Machine {
        let (tell, told) = mpsc::channel();
        let syncs = Arc::new(AtomicUsize::new(0));
        let asked = syncs.clone();
        let start_sync = move |_| {
            asked.fetch_add(1, Relaxed);
        };
        let committer =
            Store::in_memory(settings()).unwrap().stepwise(Teller(tell), start_sync, NOW);
        let mut machine = Machine { committer, waiting: VecDeque::new(), syncs, told, sent: 0 };
        // The reservation of ids, which makes any batch durable, is behind us.
        machine.wait(1);
        machine.commits();
        assert_eq!(machine.sync_ends(), [1]);
        machine
    }

    /// So many more messages wait, numbered on.
    fn wait(&mut self, count: u64) {
        for _ in 0..count {
            self.sent += 1;
            let command =
                Send::new(ADA, BOB, self.sent).command(MessageId::new(TIME_MS + self.sent, 0, 0));
            let origin = Origin { shard: 0, key: self.sent };
            self.waiting.push_back(Submission { origin, command });
        }
    }

    fn commits(&mut self) {
        assert_eq!(self.committer.next(NOW, self.waiting.len(), false), Step::Commit);
        self.committer.gather(|| self.waiting.pop_front());
        self.committer.commit(NOW);
    }

    /// The keys of the outcomes that are told when the sync that is under way ends well.
    fn sync_ends(&mut self) -> Vec<u64> {
        self.committer.synced(Ok(Duration::from_millis(1)), self.waiting.len());
        let mut keys = Vec::new();
        while let Ok(told) = self.told.try_recv() {
            let Told::Announcement(announcement) = told else { panic!("poisoned") };
            keys.extend(announcement.outcomes.iter().map(|(origin, _)| origin.key));
        }
        keys
    }

    fn syncs(&self) -> usize {
        self.syncs.load(Relaxed)
    }

    /// Message 2 is being synced, messages 3 to 35 are written ahead.
    fn with_a_batch_ahead() -> Machine {
        let mut machine = Machine::new();
        machine.wait(1);
        machine.commits();
        machine.wait(MUCH);
        machine.commits();
        assert_eq!(machine.syncs(), 2, "one sync at a time");
        machine
    }
}

#[test]
fn little_is_not_written_beside_a_sync() {
    let mut machine = Machine::new();
    machine.wait(1);
    machine.commits();
    machine.wait(MUCH - 1);
    let step = machine.committer.next(NOW, machine.waiting.len(), false);
    assert!(matches!(step, Step::Sleep { worth, .. } if worth as u64 == MUCH), "{step:?}");
    assert_eq!(machine.sync_ends(), [2]);
    machine.commits();
    assert_eq!(machine.syncs(), 3);
    assert_eq!(machine.sync_ends(), (3..2 + MUCH).collect::<Vec<_>>());
}

#[test]
fn what_little_waits_is_written_before_the_next_sync() {
    for little in [1, 32] {
        let mut machine = Machine::with_a_batch_ahead();
        machine.wait(little);
        assert_eq!(machine.sync_ends(), [2]);
        assert_eq!(machine.syncs(), 2, "{little} wait and are not in the log");
        machine.commits();
        assert_eq!(machine.syncs(), 3);
        // Two syncs after it was written nothing of it waits for a third.
        assert_eq!(machine.sync_ends(), (3..3 + MUCH + little).collect::<Vec<_>>());
        assert_eq!(machine.syncs(), 3);
    }
}

#[test]
fn the_next_sync_starts_at_once_when_much_waits_or_nothing() {
    for waiting in [0, MUCH] {
        let mut machine = Machine::with_a_batch_ahead();
        machine.wait(waiting);
        assert_eq!(machine.sync_ends(), [2]);
        assert_eq!(machine.syncs(), 3, "the disk idles with {waiting} waiting");
        assert_eq!(machine.sync_ends(), (3..3 + MUCH).collect::<Vec<_>>());
    }
}

/// Whoever drives it may find nothing waiting any more: no sync may be forgotten for that.
#[test]
fn a_sync_that_waited_for_what_is_gone_starts_all_the_same() {
    let mut machine = Machine::with_a_batch_ahead();
    machine.wait(1);
    assert_eq!(machine.sync_ends(), [2]);
    machine.waiting.clear();
    machine.committer.next(NOW, 0, false);
    assert_eq!(machine.syncs(), 3);
    assert_eq!(machine.sync_ends(), (3..3 + MUCH).collect::<Vec<_>>());
}
