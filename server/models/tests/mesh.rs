//! Every order in which a shard may go to sleep while others have something for it. A wake-up that
//! is lost leaves all threads waiting, which loom reports.

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
    thread,
};
use starling_mesh_models::{Doorbell, Lane, Sleeper, Waiting, queue::ArrayQueue};

/// A shard: it takes what is there, lies down, looks once more, and sleeps until it is rung.
fn take_all(bell: &Doorbell, queue: &ArrayQueue<u32>, entries: u32) {
    let mut taken = 0;
    while taken < entries {
        while queue.pop().is_some() {
            taken += 1;
        }
        if taken == entries {
            return;
        }
        bell.sleeper().lie_down();
        if queue.is_empty() {
            bell.event().wait();
            bell.silence();
        }
        bell.sleeper().get_up();
    }
}

/// What so many threads put into a queue is taken, though the shard lies down at any moment.
fn a_shard_is_woken(producers: u32) {
    // With three threads all orders are too many: those with three changes of thread that nothing
    // forces find what there is to find (Musuvathi and Qadeer, 2007).
    let mut model = loom::model::Builder::new();
    model.preemption_bound = (producers > 1).then_some(3);
    model.check(move || {
        let bell = Arc::new(Doorbell::new().unwrap());
        let queue = Arc::new(ArrayQueue::new(4));
        for entry in 0..producers {
            let (bell, queue) = (bell.clone(), queue.clone());
            thread::spawn(move || {
                queue.push(entry).unwrap();
                bell.ring();
            });
        }
        take_all(&bell, &queue, producers);
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
    put_and_ask: impl Fn(&Sleeper, &AtomicBool, &ArrayQueue<u32>) -> bool + Copy + Send + Sync + 'static,
) {
    loom::model(move || {
        // Not loom's: a drop while a panic unwinds is no step of the model.
        let shared =
            std::sync::Arc::new((Sleeper::default(), AtomicBool::new(false), ArrayQueue::new(4)));
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
