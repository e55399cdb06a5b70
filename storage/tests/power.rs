//! The power is cut: 100 times the log loses what was written after its last completed sync, or
//! a part of it: its end, or some sectors in its midst, or what is there instead is anything.
//! Nothing durable is missing, what is missing is the end of the log and nothing else, and a
//! client that saw it is told so.
#![cfg(feature = "rocksdb")]

mod common;

use common::{
    Running, Send, accepted,
    around::{Around, Surrounded},
    checker::{Contents, SendKey},
    log,
    random::Random,
    settings_in,
};
use starling_codec::{
    Accepted, Epoch, EpochTag, Place, Resumption, UserId,
    wire::{Class, Event},
};
use starling_storage::{Backend, OpenError, RocksBackend, Store, WriteError};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

const USERS: u32 = 4;
const CUTS: u32 = 100;

/// Sizes of files, by name.
type Sizes = BTreeMap<PathBuf, u64>;

/// Notes how long the log was at the beginning of each sync that was completed: so much of it is
/// surely on the disk.
struct Noting {
    directory: PathBuf,
    synced: Arc<Mutex<Sizes>>,
}

fn file_sizes(directory: &Path) -> Sizes {
    let files = fs::read_dir(directory.join("store")).unwrap().map(|file| file.unwrap().path());
    // A file may go meanwhile.
    files
        .filter_map(|path| Some((path.file_name()?.into(), fs::metadata(&path).ok()?.len())))
        .collect()
}

/// How far the logs are written.
fn log_ends(directory: &Path) -> Sizes {
    let mut names: Vec<_> = file_sizes(directory).into_keys().collect();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "log"));
    let end = |name: PathBuf| Some((log::end(&directory.join("store").join(&name)).ok()?, name));
    names.into_iter().filter_map(end).map(|(end, name)| (name, end)).collect()
}

impl Around for Noting {
    fn sync(&self, inner: &dyn Backend) -> Result<(), WriteError> {
        let sizes = log_ends(&self.directory);
        inner.sync()?;
        *self.synced.lock().unwrap() = sizes;
        Ok(())
    }
}

fn users() -> impl Iterator<Item = UserId> {
    (1..=USERS).map(UserId)
}

fn open(directory: &Path) -> (Running, Arc<Mutex<Sizes>>) {
    let synced = Arc::new(Mutex::new(Sizes::new()));
    let settings = settings_in(directory);
    let inner = RocksBackend::open(&settings).unwrap();
    let around = Noting { directory: directory.to_owned(), synced: synced.clone() };
    (Running::with(Arc::new(Surrounded { inner, around }), settings), synced)
}

/// What a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// The data as a power cut may leave it: of each log file all that was synced, and of the last
/// one that was not synced whole any part of the rest. Returns how many bytes were lost.
fn copy_cut(from: &Path, to: &Path, synced: &Sizes, random: &mut Random) -> u64 {
    // RocksDB tidies up on threads of its own: a copy counts if nothing changed meanwhile.
    loop {
        let before = file_sizes(from);
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to.join("store")).unwrap();
        fs::copy(from.join("promised"), to.join("promised")).unwrap();
        let copied = before.keys().all(|name| {
            fs::copy(from.join("store").join(name), to.join("store").join(name)).is_ok()
        });
        if copied && file_sizes(from) == before {
            break;
        }
    }
    let Some((name, size)) = log_ends(to).pop_last() else { return 0 };
    let least = synced.get(&name).copied().unwrap_or(0);
    let kept = if random.chance(10) { least } else { random.range(least, size + 1) };
    let path = to.join("store").join(name);
    let mut log = fs::read(&path).unwrap();
    let whole = log.clone();
    match random.range(0, 3) {
        0 => log.truncate(kept as usize),
        1 => {
            // Sectors reach the disk in any order.
            let mut from = kept as usize;
            while from < log.len() {
                let to = (from + 1).next_multiple_of(SECTOR_BYTES).min(log.len());
                if random.chance(50) {
                    log[from..to].fill(0);
                }
                from = to;
            }
        }
        _ => log[kept as usize..].fill_with(|| random.next() as u8),
    }
    fs::write(&path, &log).unwrap();
    let same = whole.iter().zip(&log).filter(|(before, now)| before == now).count();
    (whole.len() - same) as u64
}

/// A client of one user, with all it holds.
struct Client {
    user: UserId,
    events: Vec<Event>,
    welcome: (Epoch, EpochTag),
    next_no: u64,
}

impl Client {
    fn highest(&self) -> Place {
        self.events.last().map_or(Place::START, |event| Place::new(event.seq, Epoch(event.epoch)))
    }

    /// HELLO and all that follows from it.
    fn reconnect(&mut self, store: &mut Running) {
        let held = (self.highest(), self.welcome.0, self.welcome.1);
        let state = store.device(self.user, 1, held);
        match state.resumption {
            Resumption::Continues => {}
            Resumption::Rewind(place) => {
                self.events.retain(|event| Place::new(event.seq, Epoch(event.epoch)) <= place);
                assert_eq!(self.highest(), place, "a rewind names a place that is there");
            }
            Resumption::Reset => panic!("no backup was restored"),
        }
        self.welcome = (state.epoch, state.tag);
        self.next_no = self.next_no.max(state.window.highest().0 + 1);
        self.sync(store);
    }

    fn sync(&mut self, store: &mut Running) {
        let (events, _) = store.inbox(self.user, self.highest().seq);
        self.events.extend(events);
    }

    fn push(&mut self, event: Event) {
        let expected = self.events.len() as u64 + 1;
        assert_eq!(event.seq, expected, "pushed events join on");
        self.events.push(event);
    }
}

/// An acknowledgement that somebody holds.
struct Held {
    key: SendKey,
    nonce: u64,
    accepted: Accepted,
}

#[test]
fn a_hundred_power_cuts_take_nothing_that_was_durable() {
    let mut random = Random::new("power cuts");
    let root = tempfile::tempdir().unwrap();
    let mut directory = root.path().join("0");
    let mut clients: Vec<Client> = users()
        .map(|user| Client {
            user,
            events: Vec::new(),
            welcome: (Epoch(0), EpochTag(0)),
            next_no: 1,
        })
        .collect();
    let mut durable: HashMap<SendKey, Held> = HashMap::new();
    let (mut lost_bytes, mut lost_messages, mut rewinds) = (0, 0, 0);
    let mut nonce = 0;
    let (mut store, mut synced) = open(&directory);
    store.users(&["ada", "bob", "cy", "dee"]);
    for client in &mut clients {
        client.reconnect(&mut store);
    }
    for cut in 1..=CUTS {
        // In the order of the log.
        let mut order = Vec::new();
        for _ in 0..random.range(1, 25) {
            let mut burst = Vec::new();
            let class = if random.chance(30) { Class::Durable } else { Class::Buffered };
            for _ in 0..random.range(1, 12) {
                let from = random.range(0, u64::from(USERS)) as usize;
                let to = UserId(random.range(1, u64::from(USERS) + 1) as u32);
                let client = &mut clients[from];
                nonce += 1;
                let send = Send::new(client.user, to, client.next_no).nonce(nonce);
                client.next_no += 1;
                let command = store.append(Send { class, ..send });
                burst.push((store.queue(command), (client.user.0, 1, send.send_no), nonce));
            }
            store.handle.wake();
            for (outcome_key, key, nonce) in burst {
                let accepted = accepted(store.outcome(outcome_key));
                order.push(Held { key, nonce, accepted });
            }
            for delivery in std::mem::take(&mut store.deliveries) {
                let client = &mut clients[delivery.user.0 as usize - 1];
                delivery.events.into_iter().for_each(|event| client.push(event));
            }
        }
        let next = root.path().join(cut.to_string());
        let sizes = synced.lock().unwrap().clone();
        lost_bytes += copy_cut(&directory, &next, &sizes, &mut random);
        store.close();
        fs::remove_dir_all(&directory).unwrap();
        directory = next;

        (store, synced) = open(&directory);
        let contents = Contents::read(&mut store, users());
        let is_there: Vec<bool> =
            order.iter().map(|held| contents.has(held.key, held.nonce, &held.accepted)).collect();
        let kept = is_there.iter().take_while(|is_there| **is_there).count();
        assert!(!is_there[kept..].contains(&true), "a hole in the log: {is_there:?}");
        lost_messages += order.len() - kept;
        for held in order {
            if held.accepted.class == Class::Durable {
                durable.insert(held.key, held);
            }
        }
        for held in durable.values() {
            assert!(contents.has(held.key, held.nonce, &held.accepted), "cut {cut}: a durable one");
        }
        // No client ends with an event that the store has not, or lacks one that it has.
        for client in &mut clients {
            let before = client.events.len();
            client.reconnect(&mut store);
            rewinds += usize::from(client.events.len() < before);
            assert_eq!(client.events, contents.inboxes[&client.user]);
        }
    }
    store.close();
    println!("{CUTS} cuts: {lost_bytes} bytes, {lost_messages} messages, {rewinds} rewinds");
    assert!(lost_messages > 50 && rewinds > 20, "the cuts took next to nothing");
}

#[test]
fn a_log_that_lost_what_was_promised_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (directory, cut) = (root.path().join("whole"), root.path().join("cut"));
    let (mut store, _) = open(&directory);
    store.users(&["ada", "bob", "cy", "dee"]);
    for send_no in 1..=20 {
        accepted(store.send(Send::new(UserId(1), UserId(2), send_no)));
    }
    let mut ends = log_ends(&directory);
    copy_cut(&directory, &cut, &ends, &mut Random::new("promise"));
    store.close();
    // Cut into what was synced, as rotten bytes would.
    let (name, end) = ends.pop_last().unwrap();
    let log = OpenOptions::new().write(true).open(cut.join("store").join(name)).unwrap();
    log.set_len(end / 2).unwrap();
    let refused = Store::open(settings_in(&cut));
    assert!(matches!(refused, Err(OpenError::Corrupt(_))));
}
