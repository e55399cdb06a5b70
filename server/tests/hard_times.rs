//! The real server in hard times that come from outside: killed again and again, stopped in the
//! middle of a word, with a clock that jumps, with devices that come and go. Each ends with the
//! server serving; nothing promised is missing, every text stands once at both ends, and the history
//! of all devices holds.
//!
//! Bad links are in e2e_faults.rs, a store that is slow or fails in slow_store.rs, a log that is
//! cut in log_cut.rs, too little of anything in shortage.rs, power cuts in power_cuts.rs.

mod common;
mod faults;
mod support;

use common::{
    Server,
    history::{History, Recording},
};
use faults::{
    House,
    home::{Home, kept_all},
    people::{Device, text, within},
    process::{Process, be_client},
    profile::{Profile, come_to_rest},
    talk::Talk,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use starling_codec::{UserId, wire::Class};
use std::{
    fs,
    ops::RangeInclusive,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};
use support::{
    command::{Person, be_starling, check_with},
    proxy::Proxy,
};

const PEOPLE: [&str; 3] = ["ada", "bob", "eve"];
const DEVICES: usize = 2;
/// Those whose device is a process, and the test that is one.
const PROCESSES: [&str; 2] = ["kim", "lou"];
const CLIENT: &str = "a_client_itself";

/// Not a test of its own: the process in which the others run the command.
#[test]
fn starling_itself() {
    be_starling();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn seeded() -> SmallRng {
    SmallRng::seed_from_u64(support::seed())
}

/// Not a test of its own: the process in which a client of the kills lives.
#[test]
fn a_client_itself() {
    be_client();
}

/// Kills and starts it so many times while everybody writes, a share of it durable; looks at all of
/// it now and then. `meanwhile` happens while it is dead. Some of the clients are processes, which
/// are killed as well.
fn kill_again_and_again(
    times: usize,
    share_of_durable: f64,
    address: String,
    start: impl Fn() -> Server,
    meanwhile: impl Fn(),
) {
    let mut random = seeded();
    runtime().block_on(async {
        let mut server = start();
        let mut talk = Talk::new(&address, &PEOPLE, DEVICES).await;
        let mut processes = Vec::new();
        for name in PROCESSES {
            processes.push(Process::new(&address, name).await);
        }
        let apart: Vec<UserId> = processes.iter().map(|process| process.user).collect();
        let everybody: Vec<UserId> = talk.users().chain(apart.iter().copied()).collect();
        processes.iter_mut().for_each(|process| process.start(CLIENT, &everybody));
        let mut client_kills = 0;
        for number in 1..=times {
            talk.burst(&mut random, share_of_durable).await;
            talk.greet(&apart).await;
            processes.iter_mut().for_each(Process::burst);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
            let (before, which) =
                (random.random_bool(0.5), random.random_range(0..PROCESSES.len()));
            let dies = random.random_bool(0.3) || number == times;
            if dies && before {
                processes[which].kill();
            }
            server.kill();
            meanwhile();
            server = start();
            if dies {
                if !before {
                    processes[which].kill();
                }
                processes[which].start(CLIENT, &everybody);
                client_kills += 1;
            }
            if number % 25 == 0 || number == times {
                println!("{number} kills, {client_kills} of clients");
                processes.iter_mut().for_each(Process::flushed);
                kept_all(&talk, &address).await;
            }
        }
        processes.iter_mut().for_each(Process::end);
        let (world, devices) = talk.leave(&address).await;
        processes.iter_mut().for_each(|process| process.settle(CLIENT));
        let apart: Vec<Recording> = processes.iter().flat_map(Process::histories).collect();
        History::of([&world].into_iter().chain(&devices).chain(&apart)).must_hold();
        server.end();
    });
}

fn kill_at_home(times: usize) {
    let home = Home::new();
    kill_again_and_again(times, 0.5, home.address(), || home.start(), || {});
}

#[test]
fn killed_twenty_times_under_load_it_loses_and_doubles_nothing() {
    kill_at_home(20);
}

#[test]
#[ignore = "takes minutes: make faults"]
fn killed_five_hundred_times_under_load_it_loses_and_doubles_nothing() {
    kill_at_home(500);
}

/// A planted fault: what was acknowledged and not synced does not survive the kill, as if the server
/// had kept it to itself.
#[test]
#[should_panic(expected = "what was promised is gone")]
fn a_server_that_kept_buffered_messages_to_itself_is_found_out_by_kills() {
    let house = House::new(&["--shards", "2"]);
    let forget = || house.logs().iter().for_each(|log| log.cut(0));
    kill_again_and_again(15, 0.1, house.address(), || house.start(), forget);
}

/// SIGSTOP to the server: whoever waits gets it all in order afterwards.
#[test]
fn a_server_that_is_stopped_for_a_while_goes_on_where_it_was() {
    let mut random = seeded();
    runtime().block_on(async {
        let home = Home::new();
        let server = home.start();
        let mut talk = Talk::new(&home.address(), &PEOPLE, DEVICES).await;
        for _ in 0..5 {
            talk.burst(&mut random, 0.5).await;
            server.signal(libc::SIGSTOP);
            talk.burst(&mut random, 0.5).await;
            tokio::time::sleep(Duration::from_millis(random.random_range(10..1_000))).await;
            server.signal(libc::SIGCONT);
            talk.burst(&mut random, 0.5).await;
        }
        talk.flushed().await;
        kept_all(&talk, &home.address()).await;
        talk.close(&home.address()).await;
        server.end();
    });
}

/// SIGSTOP to a client, with far more to be told than its window holds: others do not wait for
/// it, and it goes on where it was.
#[test]
fn a_client_that_is_stopped_for_a_while_holds_up_nobody_and_misses_nothing() {
    const MESSAGES: usize = 3_000;
    let server = Server::start(&["--shards", "2"]);
    let (_ada, bob) = (Person::registered(&server, "ada"), Person::registered(&server, "bob"));
    let bob_too = Person::logged_in(&server, "bob");
    let (mut stopped, mut awake) = (bob.listen(), bob_too.listen());
    stopped.wait_for("online");
    stopped.signal(libc::SIGSTOP);
    let address = server.address.to_string();
    let written = runtime().block_on(async {
        let ada = Profile::new(support::login(&address, "ada").await);
        let (client, _events) = ada.start(&address);
        let texts = (0..MESSAGES).map(|number| number.to_string());
        support::write(&client, UserId(2), texts, |_| Class::Buffered).await;
        client.close().await;
        ada.history
    });
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    let heard: Vec<String> = (0..MESSAGES).map(|_| awake.text()).collect();
    assert_eq!(heard, expected);
    stopped.signal(libc::SIGCONT);
    let heard: Vec<String> = (0..MESSAGES).map(|_| stopped.text()).collect();
    assert_eq!(heard, expected);
    stopped.end();
    awake.end();
    check_with(&[&bob, &bob_too], vec![written]);
    server.end();
}

/// A device that comes and goes, over a link of its own.
struct Restless {
    profile: Profile,
    link: Proxy,
    here: Option<Device>,
}

impl Restless {
    async fn new(server: &Server, name: &str, seed: u64) -> Restless {
        let own = support::login(&server.address.to_string(), name).await;
        let link = Proxy::start(server.address, seed).await;
        link.be_fair();
        Restless { profile: Profile::new(own), link, here: None }
    }

    fn come(&mut self) -> &Device {
        let server = self.link.server();
        self.here.insert(Device::start(&server, self.profile.clone()))
    }

    /// Comes and has a word with somebody, or goes: in order, or cut off in the middle of one.
    async fn turn(&mut self, random: &mut SmallRng, to: UserId) {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..5))).await;
        match self.here.take() {
            Some(device) => {
                if random.random_bool(0.5) {
                    self.link.cut();
                }
                within("it closes", device.client.close()).await;
            }
            None => {
                let client = &self.come().client;
                for _ in 0..random.random_range(0..3) {
                    client.post(text(to, "from ada", Class::Durable)).await.unwrap();
                }
            }
        }
    }
}

/// Five devices of Ada's come and go at random, while two people write to her until so many events
/// came. All five then hold the same, and it is what a device holds that was never there before.
/// That one is told a lie, once, if it is to be.
fn come_and_go(events: usize, lies: bool) {
    const DEVICES: usize = 5;
    /// That one of the two writes while some turn.
    const AT_ONCE: usize = 100;
    /// How many turn at a time.
    const TURNING: RangeInclusive<usize> = 2..=3;
    let mut random = seeded();
    let server = Server::start(&["--shards", "2", "--sends-per-second", "0"]);
    let address = server.address.to_string();
    runtime().block_on(async {
        let ada = support::register(&address, "ada").await;
        let to = ada.user;
        let newcomer = Profile::new(ada);
        let bob = Device::start(&address, Profile::new(support::register(&address, "bob").await));
        let eve = Device::start(&address, Profile::new(support::register(&address, "eve").await));
        let mut restless = Vec::new();
        for _ in 0..DEVICES {
            restless.push(Restless::new(&server, "ada", random.random()).await);
        }
        for first in (0..events / 2).step_by(AT_ONCE) {
            let texts = |who| (first..first + AT_ONCE).map(move |number| format!("{who} {number}"));
            let class = |number| if number % 10 == 0 { Class::Durable } else { Class::Buffered };
            let turning = async {
                restless.shuffle(&mut random);
                let count = random.random_range(TURNING);
                for device in &mut restless[..count] {
                    let peer = if random.random_bool(0.5) { bob.user() } else { eve.user() };
                    device.turn(&mut random, peer).await;
                }
            };
            tokio::join!(
                support::write(&bob.client, to, texts("from bob"), class),
                support::write(&eve.client, to, texts("from eve"), class),
                turning,
            );
        }
        for device in &mut restless {
            if device.here.is_none() {
                device.come();
            }
        }
        let mut devices: Vec<Device> =
            restless.iter_mut().filter_map(|device| device.here.take()).collect();
        devices.extend([bob, eve]);
        if lies {
            // Nothing cuts it off, so that it hears the lie for certain.
            let link = &restless[0].link;
            link.lie_once("from bob", "from eve");
            newcomer.catch_up(&link.server()).await;
            assert!(link.has_lied(), "there was nothing to lie about");
        }
        let mut profiles = vec![newcomer];
        for device in devices {
            within("all is acknowledged", device.client.flushed()).await;
            within("it closes", device.client.close()).await;
            profiles.push(device.profile);
        }
        come_to_rest(&address, &profiles).await;

        let of_ada = &profiles[..=DEVICES];
        let hashes: Vec<_> = of_ada.iter().map(|profile| profile.store.state_hash()).collect();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "devices hold different: {hashes:?}");
        let came = of_ada[0].store.events().len();
        let sessions: Vec<usize> =
            of_ada.iter().map(|profile| profile.history.count("online")).collect();
        println!("{came} events, sessions of each device: {sessions:?}");
        assert!(came >= events && sessions.iter().sum::<usize>() > 2 * sessions.len());
        let recorded = profiles.iter().map(|profile| &profile.history);
        History::of([&Recording::complete()].into_iter().chain(recorded)).must_hold();
    });
    server.end();
}

#[test]
fn five_devices_that_come_and_go_end_with_the_same_state() {
    come_and_go(5_000, false);
}

#[test]
#[ignore = "takes long: make faults"]
fn five_devices_that_come_and_go_during_a_hundred_thousand_events_end_with_the_same_state() {
    come_and_go(100_000, false);
}

/// A planted fault: one device is told another text once.
#[test]
#[should_panic(expected = "devices hold different")]
fn a_device_that_holds_another_text_is_found_out_by_its_state() {
    come_and_go(1_000, true);
}

/// The wall clock jumps, while it runs and between two lives; tokens hold, ids rise, time goes on.
#[test]
#[ignore = "needs libfaketime: make faults"]
fn a_clock_that_jumps_changes_neither_order_nor_ids() {
    const HOUR: i64 = 3_600;
    let mut random = seeded();
    let home = Home::new();
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("Debian's libfaketime");
    let file = home.folder().join("clock");
    let step = |seconds: i64| {
        let beside = file.with_extension("new");
        fs::write(&beside, format!("{seconds:+}\n")).unwrap();
        fs::rename(beside, &file).unwrap();
    };
    let start = || {
        let mut command = home.command();
        command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME_TIMESTAMP_FILE", &file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        home.launch(command)
    };
    step(0);
    runtime().block_on(async {
        let mut server = start();
        let mut talk = Talk::new(&home.address(), &PEOPLE, DEVICES).await;
        for (round, jump) in
            [HOUR, -HOUR, 24 * HOUR, -48 * HOUR, -365 * 24 * HOUR, 0, HOUR].into_iter().enumerate()
        {
            talk.burst(&mut random, 0.5).await;
            step(jump);
            talk.burst(&mut random, 0.5).await;
            if round % 2 == 1 {
                server.kill();
                server = start();
            }
            talk.burst(&mut random, 0.5).await;
            talk.flushed().await;
        }
        kept_all(&talk, &home.address()).await;
        let truth = talk.settle(&home.address()).await;
        let mut latest_ms = 0;
        for inbox in truth.inboxes.values() {
            let mut last = std::collections::HashMap::new();
            for message in faults::people::messages_of(inbox) {
                latest_ms = latest_ms.max(message.time_ms);
                let now = (message.id, message.time_ms);
                let before = last.insert(message.conversation, now).unwrap_or_default();
                assert!(before.0 < now.0 && before.1 <= now.1, "{before:?} then {now:?}");
            }
        }
        // All of this holds as well where no clock was ever touched.
        let real_ms = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let ahead_ms = latest_ms.saturating_sub(real_ms);
        assert!(ahead_ms > 20 * HOUR as u64 * 1_000, "the server's clock was not set: {ahead_ms}");
        talk.close(&home.address()).await;
        server.end();
    });
}
