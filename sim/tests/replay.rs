//! One seed is one run.

use starling_sim::{Branch, Case, Coverage, Troubles};

fn case(seed: u64) -> Case {
    Case { seed, steps: 1_500, taken_away: Troubles::NONE }
}

#[test]
fn a_seed_runs_the_same_every_time_and_another_does_not() {
    let (first, again, other) = (case(11).run(false), case(11).run(false), case(12).run(false));
    assert_eq!(first.hash, again.hash);
    assert_eq!(first.coverage, again.coverage);
    assert_ne!(first.hash, other.hash);
}

/// A simulation in which nothing happens would find nothing either.
#[test]
fn a_few_seeds_deliver_messages_and_break_things() {
    let mut coverage = Coverage::default();
    for seed in 1..=12 {
        let report = case(seed).run(false);
        assert_eq!(report.failures, Vec::<String>::new(), "seed {seed}");
        coverage.merge(&report.coverage);
    }
    for branch in [
        Branch::MessageAcknowledged,
        Branch::BufferedAcknowledged,
        Branch::ReceiptSeen,
        Branch::ConnectionMoved,
        Branch::WriteFailed,
        Branch::SyncFailed,
        Branch::SyncSlow,
        Branch::StorePoisoned,
        Branch::ShardPaused,
        Branch::Unreachable,
        Branch::LinkCut,
        Branch::LinkDead,
        Branch::LinkStalled,
        Branch::ResumedInDoubt,
        Branch::PowerCut,
    ] {
        assert!(coverage.of(branch) > 0, "{}", branch.words());
    }
}
