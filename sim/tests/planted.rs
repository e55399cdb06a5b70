//! Defects planted in the engine, the store and the client are found, each by the property that
//! it hurts, or by the simulation where no history shows it. docs/delivery-contract.md has them in
//! a table.
//!
//! Runs by a command of its own, `cargo test -p starling-sim --features planted-faults`: no build
//! of the workspace has the defects in it.

use starling_codec::planted::{Fault, plant};
use starling_sim::{Branch, Case, Coverage, Troubles};

/// Steps of a run.
const STEPS: u64 = 2_000;
/// Most runs until a defect must be found.
const SEEDS: u64 = 400;

macro_rules! planted {
    ($($test:ident: $fault:ident in $place:literal, $what:literal, found by $property:literal;)*) => {
        /// Each defect, where it is, what it is in the table, and the property that finds it.
        const PLANTED: &[(Fault, &str, &str, &str)] =
            &[$((Fault::$fault, $place, $what, $property),)*];

        $(#[test]
        fn $test() {
            find(Fault::$fault, $property);
        })*
    };
}

planted! {
    door_forgets_order: DoorForgetsOrder in "engine",
        "the door lets later sends in after it refused one", found by "writing-order";
    receipt_runs_ahead: ReceiptRunsAhead in "engine",
        "a receipt names one message more than was passed", found by "receipts-true";
    ack_flatters: AckFlatters in "engine",
        "an acknowledgement says durable, whatever was reached", found by "same-message";
    repeat_stored: RepeatStored in "sequencer", "a repeated send is stored again", found by "once";
    conversation_skips: ConversationSkips in "sequencer",
        "a conversation's numbers skip one", found by "conversation-dense";
    conversation_stands: ConversationStands in "sequencer",
        "two messages of a conversation get one number", found by "one-order";
    content_cut: ContentCut in "sequencer",
        "the last byte of a content is lost on the way", found by "as-written";
    announced_unsynced: AnnouncedUnsynced in "committer",
        "a batch is announced before its sync", found by "kept";
    epoch_stands: EpochStands in "committer",
        "an opening takes the number of the last one", found by "epochs";
    epoch_ignored: EpochIgnored in "committer",
        "a place is compared by its seq alone", found by "rewind";
    rewind_ignored: RewindIgnored in "client",
        "a client keeps what it is told to remove", found by "rewind";
    numbered_anew_too_early: NumberedAnewTooEarly in "client",
        "a client in doubt numbers anew before it has caught up", found by "once";
    acks_ahead: AcksAhead in "client",
        "a client acknowledges what it has only heard of", found by "acks-rise";
    store_keeps: StoreKeeps in "client",
        "a client's store keeps what it is told to remove", found by "simulation";
    rewind_too_far: RewindTooFar in "engine", "a rewind goes back to the start", found by "rewind";
}

/// Runs seeds until the property finds the defect.
fn find(fault: Fault, property: &str) {
    let _planted = plant(fault);
    let mut others: Vec<String> = Vec::new();
    for seed in 1..=SEEDS {
        let report = Case { seed, steps: STEPS, taken_away: Troubles::NONE }.run(false);
        let finds = format!("{property}: ");
        if report.failures.iter().any(|failure| failure.starts_with(&finds)) {
            println!("seed {seed}");
            return;
        }
        others.extend(report.failures);
    }
    others.truncate(8);
    panic!("{fault:?} is not found by {property}, but: {others:#?}");
}

/// The protocol lets a client ask for what is missing, and that it does: the defect hurts nobody.
#[test]
fn an_event_that_is_passed_over_is_asked_for() {
    let _planted = plant(Fault::EventPassedOver);
    let mut coverage = Coverage::default();
    for seed in 1..=20 {
        let report = Case { seed, steps: STEPS, taken_away: Troubles::NONE }.run(false);
        assert_eq!(report.failures, [""; 0], "seed {seed}");
        coverage.merge(&report.coverage);
    }
    assert!(coverage.of(Branch::GapSynced) > 0);
}

#[test]
fn without_a_defect_the_same_seeds_pass() {
    for seed in 1..=20 {
        let report = Case { seed, steps: STEPS, taken_away: Troubles::NONE }.run(false);
        assert_eq!(report.failures, [""; 0], "seed {seed}");
    }
}

#[test]
fn the_table_has_the_planted_defects() {
    let text = include_str!("../../docs/delivery-contract.md");
    for (fault, place, what, property) in PLANTED {
        let row = format!("| {what} | {place} | {property} |");
        assert!(text.contains(&row), "{fault:?} has no row: {row}");
    }
    let places = ["engine", "sequencer", "committer", "client"];
    let is_planted =
        |line: &&str| places.iter().any(|place| line.contains(&format!(" | {place} | ")));
    assert_eq!(text.lines().filter(is_planted).count(), PLANTED.len());
    let is_found = |fault: &Fault| PLANTED.iter().any(|(planted, ..)| planted == fault);
    assert!(Fault::ALL.iter().all(|fault| is_found(fault) || *fault == Fault::EventPassedOver));
}
