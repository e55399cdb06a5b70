//! Every order in which a shard may go to sleep while others have something for it. A wake-up that
//! is lost leaves all threads waiting, which loom reports.

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
    thread,
};
use starling_mesh_models::{
    Announced, AnnouncementLane, Delivery, Doorbell, Epoch, InboxEvent, Lane, Outcome, Place,
    Sleeper, SpscQueue, UserId, Waiting,
};

/// A shard: it takes what is there, lies down, looks once more, and sleeps until it is rung.
fn take_all(bell: &Doorbell, queues: &[SpscQueue<u32>]) {
    let mut taken = 0;
    while taken < queues.len() {
        while queues.iter().any(|queue| queue.pop().is_some()) {
            taken += 1;
        }
        if taken == queues.len() {
            return;
        }
        bell.sleeper().lie_down();
        if queues.iter().all(SpscQueue::is_empty) {
            bell.event().wait();
            bell.silence();
        }
        bell.sleeper().get_up();
    }
}

/// What so many threads put into queues of their own is taken, though the shard lies down at any moment.
fn a_shard_is_woken(producers: u32) {
    // With three threads all orders are too many: those with three changes of thread that nothing
    // forces find what there is to find (Musuvathi and Qadeer, 2007).
    let mut model = loom::model::Builder::new();
    model.preemption_bound = (producers > 1).then_some(3);
    model.check(move || {
        let bell = Arc::new(Doorbell::new().unwrap());
        // Not loom's, which has no slices.
        let queues: std::sync::Arc<[_]> = (0..producers).map(|_| SpscQueue::new(4)).collect();
        for producer in 0..producers {
            let (bell, queues) = (bell.clone(), queues.clone());
            thread::spawn(move || {
                queues[producer as usize].push(producer).unwrap();
                bell.ring();
            });
        }
        take_all(&bell, &queues);
        assert!(bell.rings() <= u64::from(producers));
    });
}

#[test]
fn a_shard_that_lies_down_is_woken_by_one() {
    a_shard_is_woken(1);
}

/// The second may come while the first, who took it upon himself to ring, has not rung yet; or
/// while the first finds awake whom he saw asleep.
#[test]
fn a_shard_that_lies_down_is_woken_by_two() {
    a_shard_is_woken(2);
}

/// A lane with room for one: what found it full goes in once there is room, though its sender
/// sleeps meanwhile.
#[test]
fn a_sender_that_found_the_lane_full_is_told_of_room() {
    loom::model(|| {
        let lane = Arc::new(Lane::new(1));
        let sender_bell = Arc::new(Doorbell::new().unwrap());
        let sender = thread::spawn({
            let (lane, bell) = (lane.clone(), sender_bell.clone());
            move || {
                let mut waiting = Waiting::default();
                waiting.send(&lane, 1u32);
                waiting.send(&lane, 2u32);
                while !waiting.is_empty() {
                    bell.event().wait();
                    bell.silence();
                    waiting.retry(&lane);
                }
            }
        });
        let mut expected = 1;
        while expected <= 2 {
            match lane.pop() {
                Some(entry) => {
                    assert_eq!(entry, expected);
                    expected += 1;
                    if lane.has_relieved() {
                        sender_bell.event().raise();
                    }
                }
                None => thread::yield_now(),
            }
        }
        sender.join().unwrap();
    });
}

/// One lies down and looks once more, another puts something there and asks: one sees the other.
/// Not by waiting, as above, so that a mistake shows as a panic that a test can expect.
fn one_sees_the_other(
    lie_down: impl Fn(&Sleeper, &AtomicBool) + Copy + Send + Sync + 'static,
    put_and_ask: impl Fn(&Sleeper, &AtomicBool, &SpscQueue<u32>) -> bool + Copy + Send + Sync + 'static,
) {
    loom::model(move || {
        // Not loom's: a drop while a panic unwinds is no step of the model.
        let shared =
            std::sync::Arc::new((Sleeper::default(), AtomicBool::new(false), SpscQueue::new(4)));
        let producer = thread::spawn({
            let shared = shared.clone();
            move || put_and_ask(&shared.0, &shared.1, &shared.2)
        });
        lie_down(&shared.0, &shared.1);
        let sees = !shared.2.is_empty();
        let is_woken = producer.join().unwrap();
        assert!(sees || is_woken, "a wake-up was lost");
    });
}

#[test]
fn the_protocol_loses_no_wake_up() {
    one_sees_the_other(
        |sleeper, _| sleeper.lie_down(),
        |sleeper, _, queue| {
            queue.push(1).unwrap();
            sleeper.must_wake()
        },
    );
}

/// A planted mistake: the producer asks whether the shard sleeps before its entry is there.
#[test]
#[should_panic(expected = "a wake-up was lost")]
fn who_asks_before_the_entry_is_there_lets_the_shard_sleep() {
    one_sees_the_other(
        |sleeper, _| sleeper.lie_down(),
        |sleeper, _, queue| {
            let wakes = sleeper.must_wake();
            queue.push(1).unwrap();
            wakes
        },
    );
}

/// A planted mistake: without the sleeper's fence its store and the look that follows may swap.
#[test]
#[should_panic(expected = "a wake-up was lost")]
fn a_sleeper_without_its_fence_is_not_woken() {
    one_sees_the_other(
        |_, sleeping| sleeping.store(true, Ordering::Relaxed),
        |_, sleeping, queue| {
            queue.push(1).unwrap();
            fence(Ordering::SeqCst);
            sleeping.load(Ordering::Relaxed)
        },
    );
}

const USER: UserId = UserId(1);
const EPOCH: u32 = 1;

/// What a commit makes public for a shard: an event for its one user, and perhaps an outcome.
fn announced(seq: u64, outcome: Option<u64>) -> Announced {
    let events = vec![InboxEvent { seq, epoch: EPOCH }];
    Announced {
        outcomes: outcome.map(|key| (key, Outcome::Done)).into_iter().collect(),
        deliveries: vec![Delivery { user: USER, events }],
    }
}

/// A shard, as its pump does it: until it knows of this event, and has this outcome.
fn hear_all(bell: &Doorbell, lane: &AnnouncementLane, head_seq: u64, outcome: u64) {
    let (mut head, mut is_answered) = (None, false);
    loop {
        while let Some(Announced { outcomes, deliveries }) = lane.pop() {
            for (key, _) in outcomes {
                assert!(key == outcome && !is_answered, "an outcome comes once");
                is_answered = true;
            }
            for event in deliveries.iter().flat_map(|delivery| &delivery.events) {
                head = head.max(Some(Place { epoch: Epoch(event.epoch), seq: event.seq }));
            }
        }
        for (user, folded) in lane.take_folded() {
            assert_eq!(user, USER);
            head = head.max(Some(folded));
        }
        if is_answered && head.is_some_and(|head| head.seq == head_seq) {
            return;
        }
        bell.sleeper().lie_down();
        if lane.is_empty() {
            bell.event().wait();
            bell.silence();
        }
        bell.sleeper().get_up();
    }
}

/// The committer announces so many commits, the last with an outcome, to a lane that has room for the
/// deliveries of so many; the shard hears of all of it, whenever it lies down.
fn a_commit_is_heard(commits: u64, room_for_deliveries: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = (commits > 1).then_some(3);
    model.check(move || {
        let bell = Arc::new(Doorbell::new().unwrap());
        let lane = Arc::new(AnnouncementLane::new(room_for_deliveries, 1));
        let committer = thread::spawn({
            let (bell, lane) = (bell.clone(), lane.clone());
            move || {
                for seq in 1..=commits {
                    if lane.announce(announced(seq, (seq == commits).then_some(7))) {
                        bell.ring();
                    }
                }
            }
        });
        hear_all(&bell, &lane, commits, 7);
        committer.join().unwrap();
        assert!(lane.is_empty() && bell.rings() <= commits);
    });
}

#[test]
fn a_commit_wakes_its_shard() {
    a_commit_is_heard(1, 1);
}

#[test]
fn deliveries_without_room_are_heard_of_as_a_head() {
    a_commit_is_heard(1, 0);
    a_commit_is_heard(2, 1);
}

/// A shard looks once more after it lay down, while deliveries are folded for it: one sees the
/// other.
fn a_fold_is_seen(
    looks: impl Fn(&AnnouncementLane) -> bool + Copy + Send + Sync + 'static,
    announce: impl Fn(&AnnouncementLane, &Sleeper) -> bool + Copy + Send + Sync + 'static,
) {
    loom::model(move || {
        let shared = std::sync::Arc::new((Sleeper::default(), AnnouncementLane::new(0, 1)));
        let committer = thread::spawn({
            let shared = shared.clone();
            move || announce(&shared.1, &shared.0)
        });
        shared.0.lie_down();
        let sees = looks(&shared.1);
        let is_woken = committer.join().unwrap();
        assert!(sees || is_woken, "a head was lost");
    });
}

#[test]
fn a_head_is_not_lost() {
    a_fold_is_seen(
        |lane| !lane.is_empty(),
        |lane, sleeper| lane.announce(announced(1, None)) && sleeper.must_wake(),
    );
}

/// A planted mistake: the committer asks whether the shard sleeps before it folds.
#[test]
#[should_panic(expected = "a head was lost")]
fn a_committer_that_asks_before_it_folds_lets_the_shard_sleep() {
    a_fold_is_seen(
        |lane| !lane.is_empty(),
        |lane, sleeper| {
            let wakes = sleeper.must_wake();
            lane.announce(announced(1, None)) && wakes
        },
    );
}

/// A planted mistake: the shard looks for commits, and not for heads.
#[test]
#[should_panic(expected = "a head was lost")]
fn a_shard_that_looks_for_commits_alone_misses_heads() {
    a_fold_is_seen(
        |lane| lane.pop().is_some(),
        |lane, sleeper| lane.announce(announced(1, None)) && sleeper.must_wake(),
    );
}
