//! The load against relays that this process runs itself.

use super::*;
use crate::{
    clock::NS_PER_S,
    dialect,
    yardstick::{frozen, relay_epoll},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

/// A relay that runs until it is dropped.
struct OwnRelay {
    address: SocketAddr,
    done: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OwnRelay {
    fn start() -> OwnRelay {
        let done = Arc::new(AtomicBool::new(false));
        let (told, address) = mpsc::channel();
        let thread = thread::spawn({
            let done = done.clone();
            move || {
                let mut relay = relay_epoll::Relay::listen().unwrap();
                told.send(relay.address().unwrap()).unwrap();
                while !done.load(Ordering::Relaxed) {
                    relay.turn(Some(Duration::from_millis(5))).unwrap();
                }
            }
        });
        OwnRelay { address: address.recv().unwrap(), done, thread: Some(thread) }
    }

    fn run(&self, plan: Plan) -> Measured {
        let plan = Plan { server: self.address, ..plan };
        run(plan, 1, dialect::Relay::default(), &mut Unwatched).unwrap().0
    }
}

impl Drop for OwnRelay {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn plan(pairs: usize, phases: Vec<Phase>) -> Plan {
    let rest = Plan::steady(pairs, Drive::Rest, 64, Duration::ZERO, Duration::ZERO);
    Plan { phases, ..rest }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_frozen_server_is_charged_with_every_message_that_was_meant_for_the_freeze() {
    // Whoever else runs on this machine may hold up the tool too; the calmest of five counts.
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let freeze = frozen::measure(None).unwrap();
        assert!(freeze.outcome.is_correct(), "{freeze:?}");
        best = best.min(freeze.error());
        if best < 0.02 {
            return;
        }
    }
    panic!("the reported percentiles are {best} off");
}

#[test]
fn a_schedule_that_no_tool_can_keep_is_called_invalid() {
    let relay = OwnRelay::start();
    // A message a nanosecond.
    let phases = vec![Phase::new("flood", MS / 5, Drive::Rate(1e9))];
    let measured = relay.run(plan(1, phases));
    let outcome = measured.outcome().unwrap();
    assert!(outcome.saturated.is_some(), "{outcome:?}");
    assert!(outcome.is_correct());
}

#[test]
fn every_phase_has_its_own_messages() {
    let relay = OwnRelay::start();
    let phases = vec![
        Phase::new("before", 100 * MS, Drive::Rate(100.0)).unmeasured(),
        Phase::new("slow", 200 * MS, Drive::Rate(500.0)),
        Phase::new("rest", 50 * MS, Drive::Rest),
        Phase::new("fast", 200 * MS, Drive::Rate(2_000.0)),
        Phase::new("closed", 100 * MS, Drive::Window(4)),
    ];
    let measured = relay.run(plan(7, phases));
    let outcomes = measured.outcomes();
    let counts = outcomes.iter().map(|outcome| outcome.delivery.count).collect::<Vec<_>>();
    assert_eq!(counts[..3], [100, 0, 400]);
    assert!(counts[3] > 0);
    // The first messages of the pairs, those that were not measured, and what the closed loop sent
    // in the turn in which its time ended.
    let known = 7 + 10 + counts.iter().sum::<u64>();
    assert!((known..=known + 7 * 4).contains(&measured.totals.sent));
    assert!(measured.totals.are_correct(), "{:?}", measured.totals);
    let whole = measured.outcome().unwrap();
    assert_eq!(whole.delivery.count, counts.iter().sum::<u64>());
    assert!((whole.seconds - 0.55).abs() < 1e-6, "{}", whole.seconds);
    let of_seconds = measured.series.iter().map(|second| second.sent).sum::<u64>();
    assert_eq!(of_seconds, measured.totals.sent - 7);
}

#[test]
fn receivers_that_stop_reading_get_everything_once_they_read_again() {
    let relay = OwnRelay::start();
    let stuck = Phase {
        receivers: Receivers::Stuck,
        share: 0.25,
        ..Phase::new("stuck", 300 * MS, Drive::Rate(4_000.0))
    };
    let after = Phase::new("after", 300 * MS, Drive::Rate(4_000.0));
    let measured = relay.run(plan(8, vec![stuck, after]));
    assert!(measured.totals.are_correct(), "{:?}", measured.totals);
    assert_eq!(measured.totals.delivered, measured.totals.sent);
    let outcomes = measured.outcomes();
    assert_eq!(outcomes[0].acknowledgement.count, 1_200);
    // A quarter of the receivers did not read: what they waited is not the server's.
    assert_eq!(outcomes[0].delivery.count, 900);
}

#[test]
fn what_a_server_does_not_keep_for_receivers_that_are_away_is_lost() {
    let relay = OwnRelay::start();
    let away = Phase {
        receivers: Receivers::Away,
        share: 0.5,
        ..Phase::new("away", 200 * MS, Drive::Rate(1_000.0))
    };
    let after = Phase::new("after", 200 * MS, Drive::Rest);
    let measured = relay.run(plan(10, vec![away, after]));
    // Half of the messages went to nobody, for a relay stores nothing.
    assert_eq!(measured.totals.losses, 100, "{:?}", measured.totals);
    assert!(!measured.totals.are_correct());
    assert_eq!(measured.phases[1].returning.count(), 5);
}

#[test]
fn comings_and_goings_keep_their_rate() {
    let relay = OwnRelay::start();
    let churn = Phase { churn_per_s: 200.0, ..Phase::new("churn", 500 * MS, Drive::Rest) };
    let measured = relay.run(Plan { idle: 20, ..plan(3, vec![churn]) });
    let returned = measured.phases[0].returning.count();
    // Everybody went once; on a busy machine somebody may not be back when due to go again.
    assert!((23..=100).contains(&returned), "{returned}");
    assert_eq!(measured.totals.broken, 0);
}

#[test]
fn a_server_that_goes_away_is_reported_and_not_waited_for() {
    let relay = OwnRelay::start();
    let address = relay.address;
    let ending = thread::spawn(move || {
        thread::sleep(300 * MS);
        drop(relay);
    });
    let phases = vec![Phase::new("long", Duration::from_secs(600), Drive::Rate(100.0))];
    let plan = Plan { server: address, ..plan(2, phases) };
    let (measured, _) = run(plan, 1, dialect::Relay::default(), &mut Unwatched).unwrap();
    ending.join().unwrap();
    assert!(measured.interrupted && measured.totals.broken >= 2, "{:?}", measured.totals);
    assert!(!measured.errors.is_empty());
    assert!(measured.phases[0].window_ns.end - measured.phases[0].window_ns.start < 500 * NS_PER_S);
}
