//! A process with a store under load is killed, 200 times, at any moment. What it acknowledged,
//! buffered or durable, is there when the store is opened again.
#![cfg(feature = "rocksdb")]

mod common;

use common::{Running, Send, accepted, checker::Contents, random::Random, settings};
use starling_codec::{
    Accepted, ConversationId, Epoch, MessageId, Outcome, Place, SendNo, UserId, wire::Class,
};
use starling_storage::{Store, StoreSettings};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

const USERS: u32 = 8;
const KILLS: u32 = 200;
/// Sends that a child has under way.
const IN_FLIGHT: usize = 48;
const CHILD_DIR: &str = "STARLING_KILL_TEST_DIR";

fn settings_in(directory: &Path) -> StoreSettings {
    StoreSettings { data_dir: directory.to_owned(), memtable_bytes: 8 << 20, ..settings() }
}

fn users() -> impl Iterator<Item = UserId> + Clone {
    (1..=USERS).map(UserId)
}

/// What a send says follows from its name, so that any child can repeat it.
fn nonce(user: UserId, send_no: u64) -> u64 {
    u64::from(user.0) << 40 | send_no
}

fn send(user: UserId, send_no: u64) -> Send {
    let to = UserId((user.0 + send_no as u32) % USERS + 1);
    let send = Send::new(user, to, send_no).nonce(nonce(user, send_no));
    if send_no.is_multiple_of(3) { send } else { send.buffered() }
}

/// Not a test of its own: the process that is killed. Says each acknowledgement on a line.
#[test]
fn child() {
    let Ok(directory) = std::env::var(CHILD_DIR) else { return };
    let store = Store::open(settings_in(directory.as_ref())).unwrap();
    let mut store = Running::start(store);
    let names: Vec<String> = users().map(|user| format!("user {user}")).collect();
    store.users(&names.iter().map(String::as_str).collect::<Vec<_>>());
    say("ready\n");
    let mut next: HashMap<UserId, u64> = HashMap::new();
    for user in users() {
        let highest = store.fresh_device(user, 1).window.highest().0;
        // The last ones again: whoever was killed may not have heard of them.
        next.insert(user, highest.saturating_sub(20) + 1);
    }
    let mut under_way = Vec::new();
    loop {
        for user in users().cycle().take(IN_FLIGHT - under_way.len()) {
            let send_no = next.get_mut(&user).unwrap();
            let command = store.append(send(user, *send_no));
            *send_no += 1;
            under_way.push(store.queue(command));
        }
        store.handle.wake();
        assert!(store.hear(common::PATIENCE));
        let mut lines = String::new();
        under_way.retain(|key| match store.outcomes.remove(key) {
            Some(outcome) => {
                lines.push_str(&line(outcome));
                false
            }
            None => true,
        });
        store.deliveries.clear();
        say(&lines);
    }
}

fn say(lines: &str) {
    // Not by print!, which the test harness keeps to itself.
    let mut out = std::io::stdout().lock();
    out.write_all(lines.as_bytes()).unwrap();
    out.flush().unwrap();
}

fn line(outcome: Outcome) -> String {
    let Outcome::Appended { user, .. } = outcome else { panic!("{outcome:?}") };
    let Accepted { send_no, id, conversation, seq, place, class } = accepted(outcome);
    let Place { epoch, seq: inbox_seq } = place;
    let class = class as i32;
    format!("ack {user} {send_no} {id} {conversation} {seq} {inbox_seq} {} {class}\n", epoch.0)
}

fn parse(line: &str) -> Option<(UserId, Accepted)> {
    let numbers: Vec<u64> =
        line.strip_prefix("ack ")?.split(' ').map(|number| number.parse().unwrap()).collect();
    let [user, send_no, id, conversation, seq, inbox_seq, epoch, class] = numbers[..] else {
        panic!("{line}")
    };
    let accepted = Accepted {
        send_no: SendNo(send_no),
        id: MessageId(id),
        conversation: ConversationId(conversation),
        seq,
        place: Place::new(inbox_seq, Epoch(epoch as u32)),
        class: Class::try_from(class as i32).unwrap(),
    };
    Some((UserId(user as u32), accepted))
}

/// Runs a child and kills it; returns the whole lines that it said.
fn run_and_kill(directory: &Path, random: &mut Random) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let (ready, is_ready) = mpsc::channel();
    let listener = std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut out = BufReader::new(out);
        let mut line = String::new();
        // What follows the last line end was not said in full.
        while out.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
            // On the line that the test harness began.
            if line.ends_with("ready\n") {
                let _ = ready.send(());
            }
            lines.push(line.trim_end().to_owned());
            line.clear();
        }
        lines
    });
    if random.chance(10) {
        // While it is opening the store, or soon after.
        std::thread::sleep(Duration::from_millis(random.range(0, 60)));
    } else {
        is_ready.recv_timeout(common::PATIENCE).expect("a child that gets ready");
        std::thread::sleep(Duration::from_micros(random.range(0, 60_000)));
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success() && status.code().is_none(), "the child ended by itself: {status}");
    listener.join().unwrap()
}

#[test]
fn what_was_acknowledged_outlives_two_hundred_kills() {
    if std::env::var(CHILD_DIR).is_ok() {
        return;
    }
    let mut random = Random::new("kills");
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<(UserId, SendNo), Accepted> = HashMap::new();
    let mut repeats = 0;
    let started = Instant::now();
    for kill in 1..=KILLS {
        let lines = run_and_kill(directory.path(), &mut random);
        for (user, accepted) in lines.iter().filter_map(|line| parse(line)) {
            // A repeat, in whatever life of the server, gets the first answer.
            let before = acknowledged.insert((user, accepted.send_no), accepted);
            if let Some(before) = before {
                assert_eq!(before, accepted);
                repeats += 1;
            }
        }
        if kill % 20 == 0 {
            check(directory.path(), &acknowledged);
        }
    }
    println!(
        "{} messages acknowledged, {repeats} again, {KILLS} kills in {:?}",
        acknowledged.len(),
        started.elapsed()
    );
    assert!(acknowledged.len() > 1_000 && repeats > 100);
}

fn check(directory: &Path, acknowledged: &HashMap<(UserId, SendNo), Accepted>) {
    let mut store = Running::start(Store::open(settings_in(directory)).unwrap());
    let contents = Contents::read(&mut store, users());
    contents.no_nonce_twice();
    for ((user, send_no), accepted) in acknowledged {
        let nonce = nonce(*user, send_no.0);
        assert!(contents.has((user.0, 1, send_no.0), nonce, accepted), "{user} {accepted:?}");
    }
    store.close();
}
