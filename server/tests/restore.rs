//! An older backup is put in the stead of the data folder, the way docs/backup.md says: people,
//! attached all the while, go back to what it has, and go on from there. What was written after it is
//! gone for everybody, what was written before stands once, and the history of all devices holds.

mod common;
mod faults;

use common::history::History;
use faults::{
    home::Home,
    people::PASSWORD,
    profile::{Profile, come_to_rest},
    talk::Talk,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use starling_check::Property;
use starling_client::{MemoryStore, account};
use starling_codec::history::After;
use std::{fs, path::Path, time::Duration};

const PEOPLE: [&str; 3] = ["ada", "bob", "eve"];
const DEVICES: usize = 2;
/// The server reserves ids for some three seconds to come. A backup that is older than the last
/// reservation knows nothing of it: see docs/backup.md.
const UNTIL_NO_ID_COMES_AGAIN: Duration = Duration::from_secs(5);

fn seed() -> u64 {
    let seed = std::env::var("STARLING_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().expect("STARLING_SEED is a number"));
    println!("STARLING_SEED={seed}");
    seed
}

/// Everybody writes for a while, and has all of it in the end.
async fn converse(talk: &mut Talk, random: &mut SmallRng, address: &str) {
    for _ in 0..4 {
        talk.burst(random, 0.5).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
    }
    talk.flushed().await;
    talk.settle(address).await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(from, to).unwrap()),
        }
    }
}

#[test]
fn after_an_older_backup_was_restored_everybody_goes_on_from_what_it_has() {
    let mut random = SmallRng::seed_from_u64(seed());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let home = Home::new();
        let address = home.address();
        let server = home.start();
        let mut talk = Talk::new(&address, &PEOPLE, DEVICES).await;
        let tablet =
            account::login(&address, &mut MemoryStore::new(), PEOPLE[0], PASSWORD).await.unwrap();
        let tablet = Profile::new(tablet);
        converse(&mut talk, &mut random, &address).await;
        talk.opened(After::Stop);
        tablet.catch_up(&address).await;
        let (in_backup, promised) = (talk.written(), talk.promises());
        server.end();
        let backup = home.folder().join("backup");
        copy(home.data(), &backup);

        // The tablet is off meanwhile.
        let server = home.start();
        converse(&mut talk, &mut random, &address).await;
        talk.opened(After::Stop);
        server.end();
        drop(talk.promises());
        let lost = talk.forget_behind(in_backup);
        assert!(in_backup > 0 && !lost.is_empty());

        tokio::time::sleep(UNTIL_NO_ID_COMES_AGAIN).await;
        fs::rename(home.data(), home.folder().join("broken")).unwrap();
        copy(&backup, home.data());
        let server = home.start();
        let kept = talk.check(&address, &promised).await;
        talk.opened(After::Restore);
        println!("{kept:?}, {} lost with the backup", lost.len());
        assert!(kept.durable > 0 && kept.buffered > 0);
        assert_eq!(kept.buffered_lost, 0, "the backup had all of it");
        assert_eq!(talk.resets(), PEOPLE.len() * DEVICES, "who knew more begins anew");
        // Looked at before anything new is written, which counts on from the same number.
        let truth = talk.settle(&address).await;
        for (from, to, body) in &lost {
            let is_there = [from, to].map(|user| truth.count_texts(*user).contains_key(body));
            assert_eq!(is_there, [false; 2], "{body:?} is not in the backup");
        }

        converse(&mut talk, &mut random, &address).await;
        let kept = talk.check(&address, &talk.promises()).await;
        assert_eq!(kept.buffered_lost, 0);
        let (world, mut devices) = talk.leave(&address).await;
        // Its epoch is in the backup, and so is all that it holds.
        tablet.catch_up(&address).await;
        assert_eq!((tablet.history.count("reset"), tablet.history.count("rewind")), (0, 0));
        come_to_rest(&address, std::slice::from_ref(&tablet)).await;
        devices.push(tablet.history);
        History::of([&world].into_iter().chain(&devices)).must_hold();
        // Had nobody told of the backup, there would be no excuse for any of it.
        let unexcused = History::of(&devices).verdict();
        assert!(unexcused.violates(Property::Rewind), "{unexcused:#?}");
        server.end();
    });
}
