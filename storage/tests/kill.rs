//! A process with a store under load is killed: 200 times at any moment, and at each point that
//! its life with the disk has. What it acknowledged, buffered or durable, is there when the store
//! is opened again.
#![cfg(feature = "rocksdb")]

mod common;

use common::{
    Running, Send, accepted,
    around::{Around, Surrounded},
    checker::Contents,
    random::Random,
    settings_in,
};
use starling_codec::{
    Accepted, ConversationId, Epoch, MessageId, Outcome, Place, SendNo, UserId, wire::Class,
};
use starling_storage::{Backend, Family, RocksBackend, Rows, Store, WriteError};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const USERS: u32 = 8;
const KILLS: u32 = 200;
/// Sends that a child has under way.
const IN_FLIGHT: usize = 48;
const CHILD_DIR: &str = "STARLING_KILL_TEST_DIR";
/// Where the child ends itself: a point of [`POINTS`], and at which of its passages.
const CHILD_POINT: &str = "STARLING_KILL_TEST_POINT";

const POINTS: [&str; 9] = [
    "before a write",
    "after a write",
    "before a window is written",
    "after a window is written",
    "before a sync",
    "after a sync",
    "before settling",
    "while settling",
    "after settling",
];

/// The process of a backend dies at a point.
struct Dying {
    point: String,
    passages_left: AtomicU64,
}

impl Dying {
    fn pass(&self, point: &str) {
        if self.point == point && self.passages_left.fetch_sub(1, SeqCst) == 1 {
            // As good as a kill: nothing is flushed or dropped.
            std::process::abort();
        }
    }
}

impl Around for Dying {
    fn write(&self, inner: &dyn Backend, rows: &Rows) -> Result<(), WriteError> {
        // The part of a device that is its send window.
        let is_window =
            |family: Family, key: &[u8]| family == Family::Device && key.last() == Some(&1);
        let window = rows.iter().any(|(family, key, _)| is_window(family, key));
        self.pass("before a write");
        if window {
            self.pass("before a window is written");
        }
        inner.write(rows)?;
        self.pass("after a write");
        if window {
            self.pass("after a window is written");
        }
        Ok(())
    }

    fn sync(&self, inner: &dyn Backend) -> Result<(), WriteError> {
        self.pass("before a sync");
        inner.sync()?;
        self.pass("after a sync");
        Ok(())
    }

    fn settle(&self, inner: &dyn Backend) -> Result<(), WriteError> {
        self.pass("before settling");
        thread::scope(|scope| {
            if self.point == "while settling" {
                // Its tables are written to meanwhile; an opening settles once.
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(2 * self.passages_left.load(SeqCst)));
                    std::process::abort();
                });
            }
            inner.settle()
        })?;
        self.pass("after settling");
        Ok(())
    }
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
    let settings = settings_in(directory.as_ref());
    let inner = RocksBackend::open(&settings).unwrap();
    let (point, passages) = match std::env::var(CHILD_POINT) {
        Ok(at) => {
            let (passages, point) = at.split_once(' ').unwrap();
            (point.to_owned(), passages.parse().unwrap())
        }
        Err(_) => (String::new(), 0),
    };
    let around = Dying { point, passages_left: AtomicU64::new(passages) };
    let mut store = Running::with(Arc::new(Surrounded { inner, around }), settings);
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
            under_way.push((user, store.queue(command)));
        }
        store.handle.wake();
        assert!(store.hear(common::PATIENCE));
        let mut lines = String::new();
        under_way.retain(|(user, key)| match store.outcomes.remove(key) {
            Some(outcome) => {
                lines.push_str(&line(*user, outcome));
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

fn line(user: UserId, outcome: Outcome) -> String {
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

/// A child that runs.
struct Life {
    child: Child,
    is_ready: mpsc::Receiver<()>,
    /// The whole lines that it said.
    listener: JoinHandle<Vec<String>>,
}

fn run(directory: &Path, point: Option<&str>) -> Life {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    if let Some(point) = point {
        command.env(CHILD_POINT, point);
    }
    let mut child = command.spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let (ready, is_ready) = mpsc::channel();
    let listener = thread::spawn(move || {
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
    Life { child, is_ready, listener }
}

/// Runs a child and kills it; returns the whole lines that it said.
fn run_and_kill(directory: &Path, random: &mut Random) -> Vec<String> {
    let Life { mut child, is_ready, listener } = run(directory, None);
    if random.chance(10) {
        // While it is opening the store, or soon after.
        thread::sleep(Duration::from_millis(random.range(0, 60)));
    } else {
        is_ready.recv_timeout(common::PATIENCE).expect("a child that gets ready");
        thread::sleep(Duration::from_micros(random.range(0, 60_000)));
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(was_killed(status), "the child ended by itself: {status}");
    listener.join().unwrap()
}

/// Runs a child until it dies of a point.
fn run_to(directory: &Path, point: &str) -> Vec<String> {
    let Life { mut child, listener, .. } = run(directory, Some(point));
    let started = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if started.elapsed() < common::PATIENCE => {
                thread::sleep(Duration::from_millis(5));
            }
            None => {
                child.kill().unwrap();
                panic!("{point} is never reached");
            }
        }
    };
    assert!(was_killed(status), "the child ended by itself: {status}");
    listener.join().unwrap()
}

fn was_killed(status: ExitStatus) -> bool {
    !status.success() && status.code().is_none()
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
        repeats += note(&lines, &mut acknowledged);
        // What a check opens is settled, so most lives begin with what a kill left. Nothing that was
        // lost in between is overlooked: all that was ever acknowledged is looked for, and of what
        // a life writes again `note` sees whether it got another place than before.
        if kill % 5 == 0 {
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

#[test]
fn a_death_at_any_point_takes_nothing_that_was_acknowledged() {
    if std::env::var(CHILD_DIR).is_ok() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = HashMap::new();
    for passages in [1, 2, 3, 12] {
        for point in POINTS {
            // It settles once a life; in the midst of it is that many times 2 ms later.
            let once = matches!(point, "before settling" | "after settling");
            let passages = if once { 1 } else { passages };
            let lines = run_to(directory.path(), &format!("{passages} {point}"));
            note(&lines, &mut acknowledged);
            check(directory.path(), &acknowledged);
        }
    }
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());
}

/// Remembers what was acknowledged; returns how much of it was a second time.
fn note(lines: &[String], acknowledged: &mut HashMap<(UserId, SendNo), Accepted>) -> usize {
    let mut repeats = 0;
    for (user, accepted) in lines.iter().filter_map(|line| parse(line)) {
        // A repeat, in whatever life of the server, gets the first answer.
        if let Some(before) = acknowledged.insert((user, accepted.send_no), accepted) {
            assert_eq!(before, accepted);
            repeats += 1;
        }
    }
    repeats
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
