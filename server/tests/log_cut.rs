//! The power fails a hundred times under attached clients.
//!
//! The server is killed and its log cut back to a random point at or after its last completed
//! sync, which the preloaded library notes. Then it starts again, the clients come back by
//! themselves, and must end with what the server has, event by event: nothing that it lost,
//! nothing missing. What was acknowledged as durable must be there, and every text that was ever
//! written must stand exactly once, those that the power cut took as well: they go back to the
//! app, which sends them again. The histories of all devices go to `starling-check`.

mod common;
mod faults;

use common::history::History;
use faults::{
    Control, House,
    talk::{Kept, Talk},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use starling_check::Property;
use std::{fs::File, time::Duration};

/// Servers that run side by side, as most of the time is waiting, and how often each is cut.
const WORLDS: u64 = 4;
const CUTS: usize = 25;
const PEOPLE: [&str; 3] = ["ada", "bob", "eve"];
const DEVICES: usize = 2;

/// What happened, so that a run that tested nothing does not pass.
#[derive(Debug, Default)]
struct Tally {
    posted: usize,
    /// Bytes of log that were cut away, and that lay behind the last sync.
    cut_bytes: u64,
    unsynced_bytes: u64,
    kept: Kept,
    rewinds: usize,
    /// Nothing in the history excused it, had nobody said that the power failed.
    loss_is_seen: bool,
}

#[test]
fn after_a_power_cut_clients_and_server_agree_and_nothing_durable_is_missing() {
    let seed = std::env::var("STARLING_TEST_SEED").map_or_else(
        |_| rand::random(),
        |seed| seed.parse().expect("a number in STARLING_TEST_SEED"),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let tallies: Vec<Tally> =
        runtime.block_on(async {
            let worlds: Vec<_> = (0..WORLDS).map(|world| tokio::spawn(cuts(seed, world))).collect();
            let mut tallies = Vec::new();
            for world in worlds {
                tallies.push(world.await.unwrap_or_else(|error| {
                    panic!("{error}; again with STARLING_TEST_SEED={seed}")
                }));
            }
            tallies
        });
    println!("STARLING_TEST_SEED={seed} {tallies:#?}");
    let sum = |what: fn(&Tally) -> usize| tallies.iter().map(what).sum::<usize>();
    assert!(sum(|tally| tally.kept.durable) > 0);
    assert!(sum(|tally| tally.kept.buffered_lost) > 0, "no acknowledged message was ever lost");
    assert!(sum(|tally| tally.rewinds) > 0, "no client ever had to go back");
    assert!(sum(|tally| usize::from(tally.loss_is_seen)) > 0, "no history tells of a loss");
}

async fn cuts(seed: u64, world: u64) -> Tally {
    let mut random = SmallRng::seed_from_u64(seed ^ world << 32);
    let house = House::new(&["--shards", "2"]);
    let mut server = house.start();
    let address = house.address();
    let mut talk = Talk::new(&address, &PEOPLE, DEVICES).await;
    let mut tally = Tally::default();
    for cut in 0..CUTS {
        println!("world {world}, cut {cut}");
        write(&house, &mut talk, &mut random).await;
        server.kill();
        let promised = talk.promises();
        cut_log(&house, &mut random, &mut tally);
        server = house.start();
        tally.kept.add(talk.check(&address, &promised).await);
        talk.power_was_cut();
    }
    tally.posted = talk.written();
    tally.rewinds = talk.rewinds();
    let (world, devices) = talk.leave(&address).await;
    History::of([&world].into_iter().chain(&devices)).must_hold();
    tally.loss_is_seen = History::of(&devices).verdict().violates(Property::Kept);
    server.end();
    tally
}

/// Everybody writes to everybody for a while, and the power fails in the middle of it.
async fn write(house: &House, talk: &mut Talk, random: &mut SmallRng) {
    house.set(Control::SyncDelayMs, [0, 5, 40][random.random_range(0..3)]);
    let share_of_durable = [0.0, 0.1, 0.5][random.random_range(0..3)];
    for burst in 0..random.random_range(1..6) {
        // The last bursts hold nothing durable: what is announced then is not synced.
        talk.burst(random, if burst < 2 { share_of_durable } else { 0.0 }).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
    }
    if random.random_bool(0.5) {
        // All of it arrives, so that all of it can be lost after others have seen it.
        talk.flushed().await;
    }
}

/// Cuts what lies behind the last completed sync at a random point. Half of the time the file
/// keeps its length and what is lost reads as zeros, as after a power cut it may.
fn cut_log(house: &House, random: &mut SmallRng, tally: &mut Tally) {
    let logs = house.logs();
    let unsynced: u64 = logs.iter().map(|log| log.written - log.synced).sum();
    let mut kept = random.random_range(0..=unsynced);
    tally.unsynced_bytes += unsynced;
    tally.cut_bytes += unsynced - kept;
    for log in logs {
        let kept_here = kept.min(log.written - log.synced);
        kept -= kept_here;
        log.cut(kept_here);
        if random.random_bool(0.5) {
            let file = File::options().write(true).open(&log.path).unwrap();
            file.set_len(log.written).unwrap();
        }
    }
}
