//! Sees everything that devices write, are told and hold, and hands it to the checker: the same
//! history that real devices record, without JSON in between.

use crate::{
    coverage::{Branch, Coverage},
    digests::Digests,
    process::branch_of,
    stage::Stage,
};
use rustc_hash::FxHashMap;
use starling_check::{Checker, Position, Property};
use starling_client::{Answer, Entry, EntryState, Event, Peer, Welcomed};
use starling_codec::{
    ConversationId, Epoch, EpochTag, Nonce, Place, SendNo, SendWindow, UserId,
    history::{After, At, Fact, Message, Reason, Record, StateHash, VERSION},
    wire::{self, Class, event::Kind},
};
use std::collections::BTreeMap;

/// A device that was restored from its backup, and two that run with one profile, use a number
/// for two messages.
const NOT_JUDGED_OF_WHO_FORGOT: &[Property] = &[Property::Window, Property::WritingOrder];

pub struct Witness {
    checker: Checker,
    lines: u64,
    /// Every line goes to standard error too.
    tells: bool,
    /// The numbers that messages were sent with last.
    numbers: FxHashMap<Nonce, SendNo>,
    digests: Digests,
    /// Who has a number.
    owners: BTreeMap<UserId, String>,
    /// What no history shows, and is wrong all the same.
    pub complaints: Vec<String>,
}

impl Witness {
    /// `tells`: every line goes to standard error too.
    pub fn new(tells: bool) -> Witness {
        let mut witness = Witness {
            checker: Checker::new(),
            lines: 0,
            tells,
            numbers: FxHashMap::default(),
            digests: Digests::default(),
            owners: BTreeMap::new(),
            complaints: Vec::new(),
        };
        witness.record(Record::new(Fact::History { version: VERSION, complete: true }));
        witness
    }

    fn record(&mut self, record: Record) {
        self.lines += 1;
        self.checker.record(Position::new(0, self.lines), &record);
        if self.tells {
            let mut line = Vec::new();
            record.append(&mut line);
            eprint!("line {} {}", self.lines, String::from_utf8_lossy(&line));
        }
    }

    pub fn fact(&mut self, at: At, fact: Fact) {
        self.record(Record::of(at.user, at.device, fact));
    }

    /// An event that a device holds.
    pub fn event(&mut self, at: At, event: &wire::Event) {
        let fact = Fact::event(event, |message| self.digests.of_message(message));
        self.fact(at, fact);
    }

    /// The server opened its store.
    pub fn opened(&mut self, after: After, epoch: Epoch, tag: EpochTag) {
        self.record(Record::new(Fact::Opened { after, epoch, tag }));
    }

    /// The server did not come to open its store.
    pub fn not_opened(&mut self) {
        self.record(Record::new(Fact::NotOpened));
    }

    /// A name has got a number, for itself alone.
    pub fn granted(&mut self, stage: &Stage, name: &str, user: UserId) {
        let owner = self.owners.entry(user).or_insert_with(|| name.to_owned());
        if owner != name {
            let complaint = format!("{name} was granted user {user}, who is {owner}");
            stage.tell(|| complaint.clone());
            self.complaints.push(complaint);
        }
    }

    /// The store of a device kept events that it was to remove.
    pub fn kept(&mut self, at: At, place: Place) {
        let At { user, device } = at;
        let words = format!("device {user}.{device} kept events that it removed, above {place:?}");
        self.complaints.push(words);
    }

    /// A message got a number, or another one.
    pub fn wrote(&mut self, stage: &mut Stage, at: At, entry: &Entry) {
        let conversation = match entry.message.to {
            Peer::User(user) => ConversationId::direct(at.user, user),
            Peer::Conversation(conversation) => conversation,
        };
        let fact = Fact::Send {
            send_no: entry.send_no,
            nonce: entry.nonce,
            conversation,
            class: entry.message.class,
            digest: self.digests.of(at, entry.send_no, &entry.message.content),
        };
        stage.note("send", &[u64::from(at.user.0), u64::from(at.device.0), entry.send_no.0]);
        if self.numbers.insert(entry.nonce, entry.send_no).is_some() {
            stage.coverage.reach(Branch::Renumbered);
        }
        self.fact(at, fact);
    }

    pub fn online(&mut self, at: At, online: &Welcomed, welcome: Option<&wire::Welcome>) {
        let Some(welcome) = welcome else { return };
        let window = welcome.window.map(SendWindow::from).unwrap_or_default();
        let fact = Fact::Online {
            epoch: Epoch(welcome.epoch),
            tag: EpochTag(welcome.tag),
            head: online.head,
            window,
            resumed: online.resumed,
        };
        self.fact(at, fact);
    }

    pub fn offline(&mut self, at: At) {
        self.fact(at, Fact::Offline);
    }

    pub fn acknowledged(&mut self, at: At, place: Place) {
        self.fact(at, Fact::Acked(place));
    }

    pub fn restored(&mut self, at: At, place: Place) {
        self.fact(at, Fact::Restored(place));
    }

    /// What a session told of its inbox (`at`) or of its outbox (`own`): a copy of a device has
    /// an inbox of its own, and shares the numbers of its messages.
    pub fn told(&mut self, stage: &mut Stage, at: At, own: At, event: Event) {
        match event {
            Event::Applied(event) => {
                if let Some(Kind::Delivered(_)) = event.kind {
                    stage.coverage.reach(Branch::ReceiptSeen);
                }
                self.event(at, &event);
            }
            Event::Rewound(place) => {
                stage.coverage.reach(Branch::Rewound);
                self.fact(at, Fact::Rewind(place));
            }
            Event::Reset => {
                stage.coverage.reach(Branch::Reset);
                self.fact(at, Fact::Reset);
            }
            Event::Sent { nonce, receipt } => {
                stage.coverage.reach(match receipt.class {
                    Class::Buffered => Branch::BufferedAcknowledged,
                    _ => Branch::MessageAcknowledged,
                });
                self.fact(own, receipt.fact(nonce));
            }
            Event::Refused { nonce, refusal } => {
                stage.coverage.reach(Branch::MessageRefused);
                // What was refused was written before.
                let send_no = self.numbers.get(&nonce).copied().unwrap_or_default();
                let nonce = Some(nonce);
                self.fact(own, Fact::Refused { send_no, nonce, code: refusal.number });
            }
            Event::Unsent(entry) => {
                let EntryState::Unsent(why) = entry.state else { return };
                stage.coverage.reach(branch_of(why));
                let reason = match why {
                    starling_client::Unsent::Lost => Reason::Lost,
                    starling_client::Unsent::Stale => Reason::Stale,
                };
                let nonce = Some(entry.nonce);
                self.fact(own, Fact::Unsent { send_no: entry.send_no, nonce, reason });
            }
            Event::Online(_)
            | Event::Offline { .. }
            | Event::Answered { .. }
            | Event::Stopped(_) => {}
        }
    }

    /// The answer to a request.
    pub fn answered(&mut self, stage: &mut Stage, at: At, answer: &Answer) {
        if let Answer::History(page) = answer {
            stage.coverage.reach(Branch::HistoryRead);
            for message in &page.messages {
                let digest = self.digests.of_message(message);
                self.fact(at, Fact::Read(Message::with_digest(message, digest)));
            }
        }
    }

    /// At the end: what a device holds.
    pub fn settled(&mut self, at: At, cursor: Place, events: &BTreeMap<u64, wire::Event>) {
        let mut hash = StateHash::default();
        for event in events.values() {
            let fact = Fact::event(event, |message| self.digests.of_message(message));
            if let Fact::Event { place, kind, .. } = fact {
                hash.add(place, &kind);
            }
        }
        self.fact(at, Fact::State { cursor, hash });
    }

    /// What is wrong, if anything is. `coverage`: what happened to the world, for there are things
    /// that the checker cannot tell apart: above all where both the database and a device went back,
    /// numbers of sends come again for other messages.
    pub fn finish(self, coverage: &Coverage) -> Vec<String> {
        let restored = coverage.of(Branch::Restored) > 0;
        let forgot = coverage.of(Branch::PhoneRestored) + coverage.of(Branch::ProfileCopied) > 0;
        let cannot_tell = |property: Property| {
            forgot && NOT_JUDGED_OF_WHO_FORGOT.contains(&property)
                || restored && forgot && property != Property::Answered
        };
        let verdict = self.checker.finish();
        let violations = verdict.violations.iter();
        let violations = violations.filter(|violation| !cannot_tell(violation.property));
        let violations = violations.map(|violation| {
            let evidence: Vec<_> = violation.evidence.iter().map(|at| at.line()).collect();
            format!("{violation} (lines {evidence:?})")
        });
        // So that nobody takes for the checker's what only the simulation could see.
        let complaints = self.complaints.iter().map(|words| format!("simulation: {words}"));
        complaints.chain(violations).collect()
    }
}
