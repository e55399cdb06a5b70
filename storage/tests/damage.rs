//! One file of a store is damaged: flipped, overwritten, zeroed, cut, grown or removed. The store
//! is then refused with a word that says what is damaged, or opens with all that was durable and
//! reads what was written or says that it cannot. It never hangs, and never loses or makes up
//! anything silently.
//!
//! STARLING_DAMAGE_RUNS: how many damages are tried, 150 if it is not set; STARLING_SEED repeats.
#![cfg(feature = "rocksdb")]

mod common;

use common::{Running, Send, accepted, log, random::Random, settings};
use starling_codec::{
    Answer, ConversationId, HistoryRequest, PageDirection, Query, UserId,
    wire::{Class, Event, Message, event::Kind},
};
use starling_storage::{OpenError, Store, StoreSettings};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
};

const USERS: u32 = 4;
const CHILD_SEED: &str = "STARLING_DAMAGE_TEST_SEED";
const RUNS: &str = "STARLING_DAMAGE_RUNS";

fn users() -> impl Iterator<Item = UserId> + Clone {
    (1..=USERS).map(UserId)
}

fn name(user: UserId) -> String {
    format!("user {user}")
}

fn runs() -> u32 {
    std::env::var(RUNS).map_or(150, |runs| runs.parse().expect("a number of runs"))
}

/// A store as it was left, and what it owes.
struct Left {
    directory: PathBuf,
    settings: StoreSettings,
    /// Each user's inbox.
    inboxes: HashMap<UserId, Vec<Event>>,
    /// The ids of all messages in the order of the log; so many of them are durable.
    order: Vec<u64>,
    durable: usize,
    /// The log that is written to, and how long it was soon after the last sync.
    log: (PathBuf, u64),
}

/// How a store is made and left.
struct Plan {
    name: &'static str,
    memtable_bytes: usize,
    openings: u32,
    messages: u64,
    /// Or it is killed.
    closed: bool,
}

const PLANS: [Plan; 3] = [
    Plan { name: "closed", memtable_bytes: 8 << 20, openings: 3, messages: 60, closed: true },
    Plan { name: "killed", memtable_bytes: 8 << 20, openings: 2, messages: 60, closed: false },
    // Its memtables are written to tables while it runs.
    Plan { name: "flushing", memtable_bytes: 1 << 20, openings: 2, messages: 6_000, closed: false },
];

impl Left {
    fn make(plan: &Plan, root: &Path, random: &mut Random) -> Left {
        let running = root.join("running");
        let memtable_bytes = plan.memtable_bytes;
        let settings = StoreSettings { data_dir: running.clone(), memtable_bytes, ..settings() };
        let mut next: HashMap<UserId, u64> = HashMap::new();
        let (mut order, mut durable) = (Vec::new(), 0);
        let mut log = (PathBuf::new(), 0);
        for opening in 1..=plan.openings {
            let mut store = Running::start(Store::open(settings.clone()).unwrap());
            if opening == 1 {
                let names: Vec<String> = users().map(name).collect();
                store.users(&names.iter().map(String::as_str).collect::<Vec<_>>());
            }
            let (mut written, mut syncs) = (0, 0);
            while written < plan.messages {
                let mut burst = Vec::new();
                // The last ones are lost if their log is.
                let last = written + 100 > plan.messages;
                let is_durable = !last && random.chance(50);
                let class = if is_durable { Class::Durable } else { Class::Buffered };
                for _ in 0..random.range(1, 40) {
                    let from = UserId(random.range(1, u64::from(USERS) + 1) as u32);
                    let to = UserId(random.range(1, u64::from(USERS) + 1) as u32);
                    let send_no = next.entry(from).or_insert(1);
                    let command = store.append(Send { class, ..Send::new(from, to, *send_no) });
                    *send_no += 1;
                    burst.push(store.queue(command));
                }
                store.handle.wake();
                for key in burst {
                    order.push(accepted(store.outcome(key)).id.0);
                    written += 1;
                }
                store.deliveries.clear();
                if is_durable {
                    durable = order.len();
                }
                // A buffered one waits for a sync too when it reserves ids.
                let now = store.handle.counters().syncs;
                if now > syncs {
                    syncs = now;
                    log = last_log(&running);
                }
            }
            if opening == plan.openings {
                let inboxes = users().map(|user| (user, store.inbox(user, 0).0)).collect();
                let directory = root.join("left");
                if plan.closed {
                    store.close();
                    durable = order.len();
                    log = last_log(&running);
                    copy(&running, &directory);
                } else {
                    copy_while_it_runs(&running, &directory);
                    store.close();
                }
                fs::remove_dir_all(&running).unwrap();
                return Left { directory, settings, inboxes, order, durable, log };
            }
            store.close();
            durable = order.len();
        }
        unreachable!("a plan has openings")
    }
}

fn last_log(data_dir: &Path) -> (PathBuf, u64) {
    let logs = files(data_dir).into_keys().filter(|path| path.extension() == Some("log".as_ref()));
    // One that goes meanwhile is not the last.
    let ends = logs.filter_map(|path| Some((log::end(&data_dir.join(&path)).ok()?, path)));
    ends.map(|(end, path)| (path, end)).max().expect("a log")
}

/// All files of a store and their sizes, by path within its directory.
fn files(data_dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for folder in ["", "store"] {
        for file in fs::read_dir(data_dir.join(folder)).unwrap().map(Result::unwrap) {
            // It may go meanwhile.
            let Ok(metadata) = file.metadata() else { continue };
            if metadata.is_file() {
                found.insert(Path::new(folder).join(file.file_name()), metadata.len());
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) -> bool {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to.join("store")).unwrap();
    files(from).keys().all(|path| fs::copy(from.join(path), to.join(path)).is_ok())
}

/// RocksDB tidies up on threads of its own: a copy counts if nothing changed meanwhile.
fn copy_while_it_runs(from: &Path, to: &Path) {
    loop {
        let before = files(from);
        if copy(from, to) && files(from) == before {
            return;
        }
    }
}

/// What was done to which file.
struct Damage {
    file: PathBuf,
    how: &'static str,
    /// The first byte that is not as it was.
    at: u64,
}

impl Damage {
    fn make(data_dir: &Path, random: &mut Random) -> Damage {
        let mut files = files(data_dir);
        // Nobody reads what is in these.
        files.retain(|path, _| !matches!(path.to_str(), Some("lock" | "store/LOCK" | "store/LOG")));
        // By kind, however many files it has.
        let kind = |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let stem = name.trim_start_matches(|letter: char| letter.is_ascii_digit());
            stem.split(['-', '.']).find(|part| !part.is_empty()).unwrap_or(name).to_owned()
        };
        let mut kinds: BTreeMap<String, Vec<(PathBuf, u64)>> = BTreeMap::new();
        for (path, size) in files {
            kinds.entry(kind(&path)).or_default().push((path, size));
        }
        let weight = |kind: &str| match kind {
            "log" => 4,
            "MANIFEST" | "sst" => 2,
            _ => 1,
        };
        let kinds: Vec<_> =
            kinds.iter().flat_map(|(kind, files)| vec![files; weight(kind)]).collect();
        let of_kind = kinds[random.range(0, kinds.len() as u64) as usize];
        let (file, mut size) = of_kind[random.range(0, of_kind.len() as u64) as usize].clone();
        let path = data_dir.join(&file);
        if file.extension() == Some("log".as_ref()) && random.chance(80) {
            // Seldom in the room behind its end.
            size = size.min(log::end(&path).unwrap() + 100);
        }
        let mut bytes = fs::read(&path).unwrap();
        let before = bytes.clone();
        let how = match random.range(0, 9) {
            0 => {
                fs::remove_file(&path).unwrap();
                return Damage { file, how: "removed", at: 0 };
            }
            1 | 2 => {
                bytes.truncate(random.range(0, size.max(1)) as usize);
                "cut"
            }
            3 => {
                bytes.truncate((size - random.range(0, size.min(100) + 1)) as usize);
                "cut near the end"
            }
            4 => {
                let more = random.range(1, 100);
                bytes.extend((0..more).map(|_| random.next() as u8));
                "grown"
            }
            5 => {
                let recycled = [5, 6, 7, 8, 11, 131][random.range(0, 6) as usize];
                bytes.extend([1, 2, 3, 4, random.next() as u8, 0, recycled]);
                bytes.extend((0..random.range(0, 300)).map(|_| random.next() as u8));
                "grown by a record that is recycled"
            }
            6 if size > 0 => {
                let from = random.range(0, size) as usize;
                let to = (from + random.range(1, 600) as usize).min(bytes.len());
                bytes[from..to].fill_with(|| random.next() as u8);
                "overwritten"
            }
            7 if size > 0 => {
                let from = random.range(0, size) as usize / 4_096 * 4_096;
                let to = (from + 4_096 * random.range(1, 12) as usize).min(bytes.len());
                bytes[from..to].fill(0);
                "zeroed"
            }
            _ => {
                for _ in 0..random.range(1, 4).min(size) {
                    bytes[random.range(0, size) as usize] ^= 1 << random.range(0, 8);
                }
                "flipped"
            }
        };
        fs::write(&path, &bytes).unwrap();
        let same = before.iter().zip(&bytes).take_while(|(before, now)| before == now).count();
        Damage { file, how, at: same as u64 }
    }
}

/// What became of a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Refused,
    /// All is there.
    Whole,
    /// The end of what was buffered is gone.
    LostEnd,
    /// Something cannot be read, and says so.
    Unreadable,
}

/// Opens a store and holds what it reads against what was left.
fn judge(left: &Left, settings: &StoreSettings) -> Verdict {
    let store = match Store::open(settings.clone()) {
        Ok(store) => store,
        Err(OpenError::Corrupt(_) | OpenError::Io(_)) => return Verdict::Refused,
        Err(other) => panic!("a word that leads astray: {other}"),
    };
    let mut store = Running::start(store);
    let place: HashMap<u64, usize> = left.order.iter().copied().zip(0..).collect();
    let mut is_there = vec![false; left.order.len()];
    let mut readable = true;
    for user in users() {
        let whole = &left.inboxes[&user];
        match store.ask(Query::NameOf { user }) {
            Answer::Name(found) => assert_eq!(found, Some(name(user))),
            Answer::Failed(_) => readable = false,
            other => panic!("{other:?}"),
        }
        let inbox = Query::Inbox { user, after_seq: 0, max_events: 1 << 20, max_bytes: 1 << 30 };
        match store.ask(inbox) {
            Answer::Events { events, head } => {
                let events = events.decode();
                assert_eq!(events.len() as u64, head.seq, "the inbox of {user}");
                assert!(whole.starts_with(&events), "the inbox of {user} has made something up");
                let owed = whole.iter().filter(|event| place[&id(event)] < left.durable).count();
                assert!(events.len() >= owed, "{user} lost {} events", owed - events.len());
                events.iter().for_each(|event| is_there[place[&id(event)]] = true);
            }
            Answer::Failed(_) => readable = false,
            other => panic!("{other:?}"),
        }
        for other in users() {
            readable &= judge_conversation(&mut store, left, user, other);
        }
    }
    store.close();
    let kept = is_there.iter().take_while(|is_there| **is_there).count();
    if !readable {
        return Verdict::Unreadable;
    }
    assert!(!is_there[kept..].contains(&true), "a hole in what was kept");
    assert!(kept >= left.durable, "{} durable messages are lost", left.durable - kept);
    if kept == left.order.len() { Verdict::Whole } else { Verdict::LostEnd }
}

/// Whether it could be read.
fn judge_conversation(store: &mut Running, left: &Left, user: UserId, other: UserId) -> bool {
    let conversation = ConversationId::direct(user, other);
    let direction = PageDirection::After(0);
    let history = HistoryRequest { conversation, user, direction, limit: u32::MAX };
    let found = match store.ask(Query::History(history)) {
        Answer::Page(page) => page.messages,
        Answer::Failed(_) => return false,
        other => panic!("{other:?}"),
    };
    let messages = left.inboxes[&user].iter().filter_map(|event| match &event.kind {
        Some(Kind::Message(message)) => Some(message),
        _ => None,
    });
    let ours = messages.filter(|message| message.conversation == conversation.0);
    let ours: Vec<Message> = ours.map(|one| Message { nonce: 0, ..one.clone() }).collect();
    assert!(ours.starts_with(&found), "conversation {conversation} has made something up");
    true
}

fn id(event: &Event) -> u64 {
    match &event.kind {
        Some(Kind::Message(message)) => message.id,
        other => panic!("{other:?}"),
    }
}

/// A planted fault: a log lost its end, and the note that it was longer is gone as well.
#[test]
#[should_panic(expected = " lost ")]
fn a_store_that_lost_something_silently_is_found_out() {
    let root = tempfile::tempdir().unwrap();
    let left = Left::make(&PLANS[0], root.path(), &mut Random::new("silent loss"));
    let (log, synced) = &left.log;
    fs::write(left.directory.join("promised"), "").unwrap();
    let log = fs::File::options().write(true).open(left.directory.join(log)).unwrap();
    log.set_len(synced / 2).unwrap();
    judge(&left, &StoreSettings { data_dir: left.directory.clone(), ..left.settings.clone() });
}

/// Not every 150 damages take just that end and nothing before it.
#[test]
fn the_end_that_nobody_was_promised_may_go() {
    let root = tempfile::tempdir().unwrap();
    let killed = &PLANS[1];
    let left = Left::make(killed, root.path(), &mut Random::new("unpromised end"));
    let (log, synced) = &left.log;
    let log = fs::File::options().write(true).open(left.directory.join(log)).unwrap();
    log.set_len(*synced).unwrap();
    let settings = StoreSettings { data_dir: left.directory.clone(), ..left.settings.clone() };
    assert_eq!(judge(&left, &settings), Verdict::LostEnd);
}

/// Not a test of its own: the process that opens damaged stores, and may die of one.
#[test]
fn child() {
    let Ok(seed) = std::env::var(CHILD_SEED) else { return };
    let seed: u64 = seed.parse().unwrap();
    let root = tempfile::tempdir().unwrap();
    let stores: Vec<Left> = PLANS
        .iter()
        .map(|plan| {
            let folder = root.path().join(plan.name);
            fs::create_dir(&folder).unwrap();
            Left::make(plan, &folder, &mut Random::seeded(seed))
        })
        .collect();
    let mut verdicts: BTreeMap<Verdict, u32> = BTreeMap::new();
    for run in 0..runs() {
        let mut random = Random::seeded(seed.wrapping_add(u64::from(run)));
        let left = &stores[random.range(0, PLANS.len() as u64) as usize];
        let data_dir = root.path().join("damaged");
        assert!(copy(&left.directory, &data_dir));
        if random.chance(20) {
            fs::write(data_dir.join("suspect"), "a test").unwrap();
        }
        let damage = Damage::make(&data_dir, &mut random);
        let Damage { file, how, at } = &damage;
        say(&format!("run {run}: {} {how} at {at}\n", file.display()));
        let settings = StoreSettings { data_dir: data_dir.clone(), ..left.settings.clone() };
        let verdict = judge(left, &settings);
        *verdicts.entry(verdict).or_default() += 1;
        let (log, synced) = &left.log;
        if damage.file == *log && damage.at >= *synced {
            assert_ne!(verdict, Verdict::Refused, "only the end that nobody was promised");
        }
        if matches!(verdict, Verdict::Whole | Verdict::LostEnd) && run % 4 == 0 {
            assert_eq!(judge(left, &settings), verdict, "the second opening finds the same");
        }
    }
    say(&format!("verdicts: {verdicts:?}\n"));
    for verdict in [Verdict::Refused, Verdict::Whole] {
        assert!(verdicts.contains_key(&verdict), "no {verdict:?}: the damages are too mild");
    }
    say("all runs done\n");
}

fn say(line: &str) {
    // Not by print!, which the test harness keeps to itself.
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
fn a_damaged_file_is_refused_or_recovered_and_never_lost_silently() {
    if std::env::var(CHILD_SEED).is_ok() {
        return;
    }
    let seed = Random::new("damage").next();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD_SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    let (mut last, mut done) = (String::new(), false);
    loop {
        match told.recv_timeout(common::PATIENCE) {
            Ok(line) => {
                done |= line == "all runs done";
                if line.starts_with("verdicts") {
                    println!("{line}");
                }
                if line.starts_with("run ") {
                    last = line;
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                child.kill().unwrap();
                panic!("it hangs: {last}");
            }
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success() && done, "{status} after {last}");
}
