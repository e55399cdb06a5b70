//! The send window against an oracle that forgets nothing: lost answers, sends out of order and
//! doubled in a batch, restarts, power cuts, devices restored from an old backup, a full disk,
//! forgetting at any moment, inboxes that fill meanwhile. Every outcome and every window must be
//! the oracle's.

mod common;

use common::{Send, TIME_MS};
use proptest::prelude::*;
use starling_codec::{
    Accepted, Answer, ConversationId, DeviceId, EpochTag, ErrorCode, MessageId, Origin, Outcome,
    Place, Query, SendNo, SendWindow, Submission, UserId, wire::event::Kind,
};
use starling_storage::{Backend, Epochs, MemoryBackend, Reads, Sequencer, Tier, answer, begin};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const ADA: UserId = UserId(1);
const BOB: UserId = UserId(2);
const DEVICES: std::ops::RangeInclusive<u32> = 1..=2;

#[derive(Clone, Debug)]
enum Step {
    /// Commands of one batch.
    Batch {
        sends: Vec<Sending>,
        room: bool,
        sync: bool,
    },
    /// Messages from Bob, a batch each: rows in Ada's inbox.
    Crowd(u32),
    /// The sequencer hears that all is announced, and forgets what it may.
    Forget,
    /// A clean end and a new epoch.
    Restart,
    /// All but a part of what was not synced is lost.
    PowerCut {
        kept_of_256: u8,
    },
    /// A device notes its state, or goes back to what it noted.
    Backup(u32),
    Restore(u32),
    /// A device learns its window, and numbers anew above it.
    Welcome(u32),
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    device: u32,
    what: What,
    buffered: bool,
    /// All lower numbers.
    gives_up: bool,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// The next number, or one a little further: those between come later or never.
    New { skip: u64 },
    /// A send of the device's own memory once more, counted back from the newest.
    Again { back: usize },
    /// A number that the device left out.
    Late { back: usize },
}

/// What a device of Ada knows.
#[derive(Clone, Default)]
struct Device {
    next_no: u64,
    /// Number and nonce of all it sent, in order.
    sent: Vec<(u64, u64)>,
    skipped: Vec<u64>,
}

/// A message that is in the store.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kept {
    version: u64,
    device: u32,
    nonce: u64,
    accepted: Accepted,
}

struct World {
    backend: MemoryBackend,
    sequencer: Sequencer,
    epochs: Epochs,
    devices: HashMap<u32, Device>,
    backups: HashMap<u32, Device>,
    kept: Vec<Kept>,
    /// By device: what was refused for now. Numbers above the lowest are refused until it comes.
    held: HashMap<u32, BTreeSet<u64>>,
    /// Version and length of Ada's inbox, and of her conversation with Bob, after each batch.
    heads: BTreeMap<u64, (Place, u64)>,
    head: Place,
    messages: u64,
    bobs: u64,
    nonce: u64,
    time_ms: u64,
    last_batch: u64,
    openings: u64,
}

fn open(backend: &MemoryBackend, tag: u64) -> (Sequencer, Epochs) {
    let opening = begin(backend, EpochTag(tag)).unwrap();
    let view = backend.view();
    let (epoch, _) = opening.epochs.current();
    // Few entries, so that forgetting is also forced.
    let sequencer = Sequencer::new(epoch, 1_000, Reads::new(&*view, Tier::All)).unwrap();
    (sequencer, opening.epochs)
}

impl World {
    fn new() -> World {
        let backend = MemoryBackend::new();
        let (sequencer, epochs) = open(&backend, 1);
        let device = Device { next_no: 1, ..Device::default() };
        World {
            backend,
            sequencer,
            epochs,
            devices: DEVICES.map(|number| (number, device.clone())).collect(),
            backups: HashMap::new(),
            kept: Vec::new(),
            held: HashMap::new(),
            heads: BTreeMap::new(),
            head: Place::START,
            messages: 0,
            bobs: 0,
            nonce: 0,
            time_ms: TIME_MS,
            last_batch: 0,
            openings: 1,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Batch { sends, room, sync } => {
                let sends: Vec<Send> = sends.iter().filter_map(|one| self.choose(one)).collect();
                self.batch(&sends, *room, *sync)?;
            }
            Step::Crowd(count) => {
                for _ in 0..*count {
                    self.bobs += 1;
                    self.batch(&[Send::new(BOB, ADA, self.bobs).buffered()], true, false)?;
                }
            }
            Step::Forget => {
                self.sequencer.announced(self.last_batch);
                for _ in 0..2 {
                    self.sequencer.age();
                    while self.sequencer.aging() {
                        self.batch(&[], true, false)?;
                        self.sequencer.announced(self.last_batch);
                    }
                }
                prop_assert_eq!(self.sequencer.hot(), (0, 0));
            }
            Step::Restart => self.reopen(),
            Step::PowerCut { kept_of_256 } => {
                let (synced, written) = self.backend.log_ends();
                let last = synced + (written - synced) * u64::from(*kept_of_256) / 256;
                self.backend.lose_after(last);
                self.kept.retain(|kept| kept.version <= last);
                self.heads.split_off(&(last + 1));
                (self.head, self.messages) = match self.heads.last_key_value() {
                    Some((_, heads)) => *heads,
                    None => (Place::START, 0),
                };
                // Bob is no part of the test: his numbers only rise.
                self.reopen();
            }
            Step::Backup(device) => {
                self.backups.insert(*device, self.devices[device].clone());
            }
            Step::Restore(device) => {
                if let Some(backup) = self.backups.get(device) {
                    self.devices.insert(*device, backup.clone());
                }
            }
            Step::Welcome(device) => {
                let highest = self.window(*device).highest().0;
                let state = self.devices.get_mut(device).unwrap();
                state.next_no = state.next_no.max(highest + 1);
            }
        }
        self.check_windows()
    }

    fn reopen(&mut self) {
        self.openings += 1;
        (self.sequencer, self.epochs) = open(&self.backend, self.openings);
        self.held.clear();
        self.last_batch = 0;
    }

    /// What a device sends; `None`: it has nothing of the kind.
    fn choose(&mut self, sending: &Sending) -> Option<Send> {
        self.nonce += 1;
        let fresh_nonce = self.nonce;
        let device = self.devices.get_mut(&sending.device).unwrap();
        let (send_no, nonce) = match sending.what {
            What::New { skip } => {
                device.skipped.extend(device.next_no..device.next_no + skip);
                let number = device.next_no + skip;
                device.next_no = number + 1;
                (number, fresh_nonce)
            }
            What::Again { back } => *device.sent.iter().rev().nth(back)?,
            What::Late { back } => {
                let at = device.skipped.len().checked_sub(back + 1)?;
                (device.skipped.remove(at), fresh_nonce)
            }
        };
        device.sent.push((send_no, nonce));
        let oldest = if sending.gives_up { send_no } else { 1 };
        let send = Send::new(ADA, BOB, send_no).device(sending.device).nonce(nonce).oldest(oldest);
        Some(if sending.buffered { send.buffered() } else { send })
    }

    /// Applies one batch, and compares each outcome with the oracle's.
    fn batch(&mut self, sends: &[Send], room: bool, sync: bool) -> Result<(), TestCaseError> {
        let version = self.backend.log_ends().1 + 1;
        let mut commands = Vec::new();
        let mut expected = Vec::new();
        for (key, send) in sends.iter().enumerate() {
            self.time_ms += 1;
            let id = MessageId::new(self.time_ms, 0, 0);
            let origin = Origin { shard: 0, key: key as u64 };
            commands.push(Submission { origin, command: send.command(id) });
            expected.push((origin, self.expect(send, id, room, version)));
        }
        let view = self.backend.view();
        let reads = Reads::new(&*view, Tier::All);
        let commit = self.sequencer.apply(reads, &mut commands, room).unwrap();
        prop_assert_eq!(&commit.announcement.outcomes, &expected);
        self.last_batch = commit.number;
        if !self.sequencer.rows().is_empty() {
            self.backend.write(self.sequencer.rows()).unwrap();
            self.heads.insert(version, (self.head, self.messages));
        }
        if commit.durable || sync {
            self.backend.sync().unwrap();
        }
        Ok(())
    }

    /// The oracle's outcome.
    fn expect(&mut self, send: &Send, id: MessageId, room: bool, version: u64) -> Outcome {
        let send_no = SendNo(send.send_no);
        let refused = |code| Outcome::SendRefused { send_no, code };
        let conversation = ConversationId::direct(ADA, BOB);
        if send.from == ADA {
            let applied: Vec<&Kept> =
                self.kept.iter().filter(|kept| kept.device == send.device).collect();
            let highest = applied.iter().map(|kept| kept.accepted.send_no.0).max().unwrap_or(0);
            let first = applied.iter().find(|kept| kept.accepted.send_no == send_no);
            if send.send_no + SendWindow::WIDTH < highest {
                return refused(ErrorCode::SendStale);
            }
            if let Some(first) = first {
                return if first.nonce == send.nonce {
                    Outcome::Repeated(first.accepted)
                } else {
                    refused(ErrorCode::SendConflict)
                };
            }
            let held = self.held.entry(send.device).or_default();
            *held = held.split_off(&send.oldest);
            let overtakes = held.first().is_some_and(|lowest| send.send_no > *lowest);
            if room && !overtakes {
                held.remove(&send.send_no);
            } else {
                if held.len() < SendWindow::WIDTH as usize {
                    held.insert(send.send_no);
                }
                let code = if overtakes { ErrorCode::SendOutOfOrder } else { ErrorCode::DiskFull };
                return refused(code);
            }
        }
        let (epoch, _) = self.epochs.current();
        self.messages += 1;
        self.head = Place::new(self.head.seq + 1, epoch);
        // The same for both: they only write to each other.
        let accepted = Accepted {
            send_no,
            id,
            conversation,
            seq: self.messages,
            place: self.head,
            class: send.class,
        };
        if send.from == ADA {
            let kept = Kept { version, device: send.device, nonce: send.nonce, accepted };
            self.kept.push(kept);
        }
        Outcome::Appended(accepted)
    }

    /// The window as a question finds it, which knows nothing but the rows.
    fn window(&self, device: u32) -> SendWindow {
        // Devices of this test have no record; the window of their rows is asked for directly.
        let view = self.backend.view();
        let reads = Reads::new(&*view, Tier::All);
        starling_storage::read_send_window(reads, ADA, DeviceId(device)).unwrap()
    }

    fn check_windows(&self) -> Result<(), TestCaseError> {
        for device in DEVICES {
            let mut oracle = SendWindow::default();
            let numbers = self.kept.iter().filter(|kept| kept.device == device);
            let numbers: BTreeSet<_> = numbers.map(|kept| kept.accepted.send_no).collect();
            numbers.into_iter().for_each(|number| oracle.apply(number));
            prop_assert_eq!(self.window(device), oracle);
        }
        Ok(())
    }

    /// In the end the inbox has each send once, and nothing else of Ada's.
    fn check_inbox(&self) -> Result<(), TestCaseError> {
        let view = self.backend.view();
        let reads = Reads::new(&*view, Tier::All);
        let query = Query::Inbox {
            user: ADA,
            after_seq: 0,
            max_events: usize::MAX >> 1,
            max_bytes: usize::MAX,
        };
        let Answer::Events { events, head } = answer(reads, &self.epochs, &query).unwrap() else {
            return Err(TestCaseError::fail("no events"));
        };
        let events = events.decode();
        prop_assert_eq!(head, self.head);
        prop_assert_eq!(events.len() as u64, self.messages);
        let own = events.iter().filter_map(|event| match &event.kind {
            Some(Kind::Message(message)) if message.sender == ADA.0 => {
                Some((message.nonce, message.seq, event.seq, event.epoch))
            }
            _ => None,
        });
        let expected = self.kept.iter().map(|kept| {
            let place = kept.accepted.place;
            (kept.nonce, kept.accepted.seq, place.seq, place.epoch.0)
        });
        prop_assert!(own.eq(expected));
        Ok(())
    }
}

fn any_sending() -> impl Strategy<Value = Sending> {
    let what = prop_oneof![
        6 => prop_oneof![8 => Just(0), 2 => 1u64..5, 1 => 40u64..90]
            .prop_map(|skip| What::New { skip }),
        3 => (0usize..90).prop_map(|back| What::Again { back }),
        2 => (0usize..70).prop_map(|back| What::Late { back }),
    ];
    let gives_up = prop_oneof![4 => Just(false), 1 => Just(true)];
    (DEVICES, what, any::<bool>(), gives_up)
        .prop_map(|(device, what, buffered, gives_up)| Sending { device, what, buffered, gives_up })
}

fn any_step() -> impl Strategy<Value = Step> {
    let sends = prop_oneof![
        4 => proptest::collection::vec(any_sending(), 1..4),
        1 => proptest::collection::vec(any_sending(), 60..140),
    ];
    prop_oneof![
        12 => (sends, prop::bool::weighted(0.9), prop::bool::weighted(0.2))
            .prop_map(|(sends, room, sync)| Step::Batch { sends, room, sync }),
        2 => prop_oneof![6 => 1u32..20, 1 => 1_000u32..1_100].prop_map(Step::Crowd),
        2 => Just(Step::Forget),
        1 => Just(Step::Restart),
        2 => any::<u8>().prop_map(|kept_of_256| Step::PowerCut { kept_of_256 }),
        1 => DEVICES.prop_map(Step::Backup),
        1 => DEVICES.prop_map(Step::Restore),
        1 => DEVICES.prop_map(Step::Welcome),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_outcome_is_the_oracles(steps in proptest::collection::vec(any_step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step)?;
        }
        world.check_inbox()?;
    }
}
