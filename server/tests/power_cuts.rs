//! The power fails under the real server: it runs in a virtual machine, on a disk with a cache of
//! its own, and the machine and the cache are killed together. Needs an emulator, so it is run by
//! `make power` and not with the other tests.

mod common;
mod faults;
mod power;

use common::history::History;
use faults::talk::{Kept, Talk};
use power::{Machine, READY, Yard};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use starling_check::Property;
use std::time::Duration;

/// How often a loss is looked for where the server may refuse to show one.
const TRIES: usize = 3;
const WHY: &str = "STARLING_POWER_CUTS is a number";

fn cuts() -> usize {
    std::env::var("STARLING_POWER_CUTS").map_or(50, |text| text.parse().expect(WHY))
}

fn seed() -> u64 {
    let given = std::env::var("STARLING_TEST_SEED");
    let seed = given.map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("STARLING_TEST_SEED={seed}");
    seed
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// What all others here rest on: this power cut is one.
#[test]
#[ignore = "needs an emulator: make power"]
fn a_block_that_was_not_flushed_is_gone_and_one_that_was_is_there() {
    let yard = Yard::new();
    let mut machine = yard.start("probe");
    machine.wait_for(&["both blocks are written"]);
    machine.cut_power();
    assert_eq!([yard.block(1), yard.block(2)], ["flushed", ""]);
}

#[test]
#[ignore = "needs an emulator: make power"]
fn power_cuts_take_nothing_durable_and_clients_go_back_to_what_is_left() {
    let mut random = SmallRng::seed_from_u64(seed());
    runtime().block_on(async {
        let (yard, mut machine, mut talk) = begin().await;
        let mut kept = Kept::default();
        for cut in 0..cuts() {
            write(&mut talk, &mut random).await;
            machine.cut_power();
            let promised = talk.promises();
            machine = yard.start("serve");
            machine.wait_for(&[READY]);
            let here = talk.check(&yard.address(), &promised).await;
            talk.power_was_cut();
            println!("cut {cut}: {here:?}, {} written, {} rewinds", talk.written(), talk.rewinds());
            kept.add(here);
        }
        println!("{kept:?}, {} written, {} rewinds", talk.written(), talk.rewinds());
        assert!(kept.durable > 0);
        assert!(kept.buffered_lost > 0, "no acknowledged message was ever lost");
        assert!(talk.rewinds() > 0, "no client ever had to go back");
        talk.close(&yard.address()).await;
    });
}

/// The same with a server whose syncs do nothing: if this found no loss, the one above proved
/// nothing. A server that is not let near what is left shows no loss to anybody, so then it is
/// tried again.
#[test]
#[ignore = "needs an emulator: make power"]
fn without_syncs_a_power_cut_takes_what_was_promised() {
    let mut random = SmallRng::seed_from_u64(seed());
    let shown = (0..TRIES).any(|_| runtime().block_on(loss_without_syncs(&mut random)));
    assert!(shown, "{TRIES} times the server refused what the power cut had left");
}

/// Sees that what was acknowledged without a sync is lost, and that `starling-check` finds it;
/// false: the server said that its files are not what it had synced, and ended.
async fn loss_without_syncs(random: &mut SmallRng) -> bool {
    let (yard, mut machine, mut talk) = begin().await;
    talk.burst(random, 1.0).await;
    talk.flushed().await;
    machine.cut_power();

    machine = yard.start("serve_without_syncs");
    machine.wait_for(&[READY]);
    talk.settle(&yard.address()).await;
    drop(talk.promises());
    for _ in 0..10 {
        talk.burst(random, 1.0).await;
    }
    talk.flushed().await;
    let promised = talk.promises();
    machine.cut_power();

    machine = yard.start("serve");
    if machine.wait_for(&[READY, "the server ended with"]) != READY {
        let said = machine.said();
        println!("{said}");
        assert!(said.contains("the data is damaged"), "it ended for another reason");
        return false;
    }
    let truth = talk.settle(&yard.address()).await;
    let kept = talk.kept(&truth, &promised);
    println!("{kept:?}");
    assert!(kept.durable_lost > 0, "nothing was lost without a sync");
    talk.power_was_cut();
    let (world, devices) = talk.leave(&yard.address()).await;
    let verdict = History::of([&world].into_iter().chain(&devices)).verdict();
    assert!(verdict.violates(Property::Kept), "the checker does not see it: {verdict:?}");
    true
}

/// A server on a new disk, and two people with two devices each.
async fn begin() -> (Yard, Machine, Talk) {
    let yard = Yard::new();
    yard.make_file_system();
    let mut machine = yard.start("serve");
    machine.wait_for(&[READY]);
    let talk = Talk::new(&yard.address(), &["ada", "bob"], 2).await;
    (yard, machine, talk)
}

/// Everybody writes to everybody for a while, and the power fails in the middle of it.
async fn write(talk: &mut Talk, random: &mut SmallRng) {
    let share_of_durable = [0.0, 0.3, 1.0][random.random_range(0..3)];
    let bursts = random.random_range(1..6);
    // In half of the rounds the last bursts hold nothing durable: others see what is not synced.
    let durable_bursts = if random.random_bool(0.5) { bursts } else { 1 };
    for burst in 0..bursts {
        talk.burst(random, if burst < durable_bursts { share_of_durable } else { 0.0 }).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
    }
    if random.random_bool(0.5) {
        talk.flushed().await;
    }
}
