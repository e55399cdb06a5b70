//! The sending side: what waits, what is under way, and what became of it.
//!
//! An entry has its number and nonce from the start. It is sent in order of its number, at most
//! 63 above the lowest without a final answer; a retryable refusal goes back to that number.
//! Whether an entry arrived over a lost connection is read from WELCOME's window: if the number
//! was never applied it is sent again; if it was, or is too old to tell, the entry is in doubt
//! until the inbox is caught up to WELCOME's head. If its own event has not come by then, it is
//! sent again all the same: on a device that was restored from a backup the number may be that of
//! another message, and then this one may have gone out with a later number over a connection whose
//! sends the server had not decided yet. Its SEND_CONFLICT or SEND_STALE comes behind them; so what
//! is not in the inbox up to the head of the WELCOME after that will never be.

use super::{Event, Session, State};
use crate::{
    Change, Entry, EntryState, Outgoing, Peer, QueueError, Receipt, Refusal, Store, Unsent,
};
use starling_codec::{
    ConversationId, ErrorCode, Kind, MessageId, Nonce, Place, SendNo, SendWindow, Standing,
    history::Fact,
    limits,
    planted::{Fault, is_planted},
    wire::{self, send::To},
};
use std::collections::BTreeMap;

/// Most entries of an outbox that have no final answer.
const MAX_UNANSWERED: usize = 1_024;
/// Shortest pause after a retryable refusal, in milliseconds.
const MIN_PAUSE_MS: u64 = 10;

#[derive(Debug)]
pub(super) struct Outbox {
    /// By number. Numbers only rise, so this is the order in which a person wrote.
    items: BTreeMap<u64, Item>,
    next_send_no: u64,
    /// Nothing is sent before this time: the server refused retryably.
    paused_until_ms: Option<u64>,
    /// Some may be in doubt: the last WELCOME left some so.
    doubts: bool,
    /// Some are contested, and nothing more is sent on this connection: what the server said.
    contested: Option<Refusal>,
}

#[derive(Debug)]
struct Item {
    entry: Entry,
    phase: Phase,
}

/// Where an unanswered entry is on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    InFlight,
    /// The server says that the number is another message's, or too old to tell: the next WELCOME
    /// tells how far to look for this one.
    Contested,
    /// Its event may come until the inbox is applied up to this seq.
    Doubt {
        until_seq: u64,
        standing: Standing,
        contested: bool,
    },
}

impl Item {
    fn new(entry: Entry) -> Item {
        Item { entry, phase: Phase::Waiting }
    }

    /// It waits to be sent, or for its answer.
    fn is_open(&self) -> bool {
        self.entry.state == EntryState::Unanswered
            && matches!(self.phase, Phase::Waiting | Phase::InFlight)
    }

    /// As it goes out, when `oldest` is the lowest number without a final answer.
    fn as_send(&self, oldest: u64) -> wire::Send {
        let Entry { nonce, send_no, message, .. } = &self.entry;
        wire::Send {
            send_no: send_no.0,
            nonce: nonce.0,
            oldest,
            to: Some(match message.to {
                Peer::User(user) => To::User(user.0),
                Peer::Conversation(conversation) => To::Conversation(conversation.0),
            }),
            class: message.class.into(),
            content: message.content.clone(),
            trace_id: 0,
        }
    }
}

impl Outbox {
    pub fn new(entries: Vec<Entry>, next_send_no: u64) -> Outbox {
        let items = entries.into_iter().map(|entry| (entry.send_no.0, Item::new(entry))).collect();
        Outbox { items, next_send_no, paused_until_ms: None, doubts: false, contested: None }
    }

    /// Takes a message, with the next number.
    pub fn add(&mut self, nonce: Nonce, message: Outgoing) -> Result<[Change; 2], QueueError> {
        let size = message.content.len();
        if size == 0 {
            return Err(QueueError::Empty);
        }
        if size > limits::MAX_CONTENT_BYTES {
            return Err(QueueError::TooLarge(size, limits::MAX_CONTENT_BYTES));
        }
        let unanswered = self.unanswered();
        if unanswered >= MAX_UNANSWERED {
            return Err(QueueError::OutboxFull(unanswered));
        }
        if self.find(nonce).is_some() {
            return Err(QueueError::NonceUsed);
        }
        let send_no = self.next_number();
        let entry = Entry { nonce, send_no, message, state: EntryState::Unanswered };
        self.items.insert(send_no.0, Item::new(entry.clone()));
        Ok([Change::NextSendNo(self.next_send_no), Change::Outbox(entry)])
    }

    pub fn unanswered(&self) -> usize {
        self.items.values().filter(|item| item.entry.state == EntryState::Unanswered).count()
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.items.values().map(|item| &item.entry)
    }

    pub fn discard(&mut self, nonce: Nonce) -> Option<Change> {
        let send_no = self.find(nonce)?;
        match self.items[&send_no].entry.state {
            EntryState::Unsent(_) => {
                self.items.remove(&send_no);
                Some(Change::Settled(nonce))
            }
            _ => None,
        }
    }

    /// Its own event came: the entry is done with.
    pub fn settle(&mut self, nonce: Nonce) -> Option<Entry> {
        let send_no = self.find(nonce)?;
        self.items.remove(&send_no).map(|item| item.entry)
    }

    pub fn paused_until_ms(&self) -> Option<u64> {
        self.paused_until_ms
    }

    pub fn connection_lost(&mut self) {
        self.paused_until_ms = None;
        self.contested = None;
        for item in self.items.values_mut() {
            item.phase = match item.phase {
                Phase::Contested | Phase::Doubt { contested: true, .. } => Phase::Contested,
                _ => Phase::Waiting,
            };
        }
    }

    /// What WELCOME's window says of the unanswered entries; `head_seq` is that of the inbox in
    /// the view that the window was read from, or later.
    pub fn welcomed(&mut self, window: SendWindow, head_seq: u64) -> Option<Change> {
        self.doubts = false;
        for (send_no, item) in &mut self.items {
            let contested = item.phase == Phase::Contested;
            item.phase = match window.standing(SendNo(*send_no)) {
                Standing::New => Phase::Waiting,
                standing => {
                    self.doubts = true;
                    Phase::Doubt { until_seq: head_seq, standing, contested }
                }
            };
        }
        // A device restored from an old backup counts on above what it used in between.
        if window.highest().0 < self.next_send_no {
            return None;
        }
        self.next_send_no = window.highest().0 + 1;
        Some(Change::NextSendNo(self.next_send_no))
    }

    /// Entries whose place was taken back, and own messages that were: all go back to the app.
    pub fn rewind(&mut self, place: Place, own: Vec<wire::Message>) -> Vec<Entry> {
        let mut unsent = Vec::new();
        for item in self.items.values_mut() {
            if let EntryState::Acknowledged(receipt) = item.entry.state
                && receipt.place > place
            {
                item.entry.state = EntryState::Unsent(Unsent::Lost);
                unsent.push(item.entry.clone());
            }
        }
        for message in own {
            let entry = Entry {
                nonce: Nonce(message.nonce),
                send_no: SendNo(message.send_no),
                message: Outgoing {
                    to: Peer::Conversation(ConversationId(message.conversation)),
                    class: message.class(),
                    content: message.content,
                },
                state: EntryState::Unsent(Unsent::Lost),
            };
            self.items.insert(entry.send_no.0, Item::new(entry.clone()));
            unsent.push(entry);
        }
        unsent
    }

    /// An older backup does not have what it acknowledged later: the window decides again.
    pub fn reset(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for item in self.items.values_mut() {
            if let EntryState::Acknowledged(_) = item.entry.state {
                item.entry.state = EntryState::Unanswered;
                changes.push(Change::Outbox(item.entry.clone()));
            }
        }
        changes
    }

    /// The lowest number without a final answer.
    fn oldest(&self) -> u64 {
        let open = self.items.iter().find(|(_, item)| item.is_open());
        open.map_or(self.next_send_no, |(send_no, _)| *send_no)
    }

    /// What is to be sent now, in order; it is in flight from then on.
    fn start(&mut self, max_in_flight: usize) -> Vec<wire::Send> {
        if self.contested.is_some() {
            return Vec::new();
        }
        let (oldest, in_flight) = (self.oldest(), self.in_flight());
        let within = oldest..=oldest.saturating_add(limits::MAX_SEND_SPAN);
        let waiting = |item: &&mut Item| item.is_open() && item.phase == Phase::Waiting;
        let next = self.items.range_mut(within).map(|(_, item)| item).filter(waiting);
        let next = next.take(max_in_flight.saturating_sub(in_flight));
        let send = |item: &mut Item| {
            item.phase = Phase::InFlight;
            item.as_send(oldest)
        };
        next.map(send).collect()
    }

    /// An entry got its answer: it is acknowledged.
    fn acknowledge(&mut self, receipt: Receipt) -> Option<&Entry> {
        let item = self.items.get_mut(&receipt.send_no.0)?;
        if item.entry.state != EntryState::Unanswered {
            return None;
        }
        item.entry.state = EntryState::Acknowledged(receipt);
        Some(&item.entry)
    }

    /// Goes back to a number: it and all above are sent again, in order, after a pause.
    fn go_back(&mut self, send_no: u64, until_ms: u64) {
        for (_, item) in self.items.range_mut(send_no..) {
            if item.phase == Phase::InFlight {
                item.phase = Phase::Waiting;
            }
        }
        self.paused_until_ms = self.paused_until_ms.max(Some(until_ms));
    }

    /// Caught up, and the own events of some have not come: these ask the server once more.
    fn ask_again(&mut self, caught_up_seq: u64) {
        for item in self.items.values_mut() {
            if let Phase::Doubt { until_seq, contested: false, .. } = item.phase
                && until_seq <= caught_up_seq
            {
                item.phase = Phase::Waiting;
            }
        }
    }

    /// Takes one entry whose doubt is over: the server was asked, all that it had decided by then
    /// is applied, and the entry's own event has not come.
    fn take_decided(&mut self, caught_up_seq: u64) -> Option<(Entry, Standing)> {
        let early = is_planted(Fault::NumberedAnewTooEarly);
        let decided = self.items.iter().find_map(|(send_no, item)| match item.phase {
            Phase::Doubt { until_seq, standing, contested }
                if (contested && until_seq <= caught_up_seq || early)
                    && item.entry.state == EntryState::Unanswered =>
            {
                Some((*send_no, standing))
            }
            _ => None,
        });
        let (send_no, standing) = decided?;
        self.items.remove(&send_no).map(|item| (item.entry, standing))
    }

    /// Why the next WELCOME is wanted, once all that was sent is answered.
    fn wants_welcome(&self) -> Option<Refusal> {
        self.contested.filter(|_| self.in_flight() == 0)
    }

    fn in_flight(&self) -> usize {
        let in_flight = |item: &&Item| item.is_open() && item.phase == Phase::InFlight;
        self.items.values().filter(in_flight).count()
    }

    fn next_number(&mut self) -> SendNo {
        self.next_send_no += 1;
        SendNo(self.next_send_no - 1)
    }

    fn find(&self, nonce: Nonce) -> Option<u64> {
        let found = self.items.iter().find(|(_, item)| item.entry.nonce == nonce);
        found.map(|(send_no, _)| *send_no)
    }
}

impl<S: Store> Session<S> {
    /// Sends what may be sent.
    pub(super) fn write_sends(&mut self, now_ms: u64) {
        let State::Live(live) = &self.state else { return };
        let max_in_flight = live.max_sends_in_flight;
        if let Some(refusal) = self.outbox.wants_welcome() {
            return self.reconnect(now_ms, Some(refusal));
        }
        if self.outbox.paused_until_ms.is_some_and(|until| now_ms < until) {
            return;
        }
        self.outbox.paused_until_ms = None;
        for send in self.outbox.start(max_in_flight) {
            // The cursor rides along.
            self.acknowledge();
            self.write(Kind::Send, &send);
        }
    }

    pub(super) fn read_send_ack(&mut self, ack: wire::SendAck) {
        let receipt = Receipt {
            send_no: SendNo(ack.send_no),
            id: MessageId(ack.id),
            conversation: ConversationId(ack.conversation),
            seq: ack.seq,
            place: ack.place.map(Place::from).unwrap_or_default(),
            time_ms: ack.time_ms,
            class: ack.class(),
        };
        self.hear_of(receipt.place);
        if let Some(entry) = self.outbox.acknowledge(receipt) {
            let nonce = entry.nonce;
            self.changes.push(Change::Outbox(entry.clone()));
            self.news.push(Event::Sent { nonce, receipt });
        }
    }

    pub(super) fn read_send_refused(&mut self, now_ms: u64, refused: wire::SendRefused) {
        let open = self.outbox.items.get_mut(&refused.send_no).filter(|item| item.is_open());
        let Some(item) = open else { return };
        let (nonce, in_flight) = (item.entry.nonce, item.phase == Phase::InFlight);
        let refusal = Refusal::new(refused.code, refused.retry_after_ms);
        match refusal.code() {
            // The window of the next WELCOME tells whether it arrived.
            Some(ErrorCode::UnknownOutcome) => self.reconnect(now_ms, Some(refusal)),
            Some(ErrorCode::SendConflict | ErrorCode::SendStale) => {
                item.phase = Phase::Contested;
                self.outbox.contested = Some(refusal);
            }
            _ if refusal.retryable() => {
                // If it waits already, this is the echo of an earlier refusal.
                if in_flight {
                    let pause_ms = u64::from(refused.retry_after_ms).max(MIN_PAUSE_MS);
                    self.outbox.go_back(refused.send_no, now_ms + pause_ms);
                }
            }
            _ => {
                self.outbox.items.remove(&refused.send_no);
                self.changes.push(Change::Settled(nonce));
                let (send_no, code) = (SendNo(refused.send_no), refused.code);
                self.record(|| Fact::Refused { send_no, nonce: Some(nonce), code });
                self.news.push(Event::Refused { nonce, refusal });
            }
        }
    }

    /// Decides entries in doubt once the inbox is caught up.
    pub(super) fn settle_doubts(&mut self) {
        if !self.is_live() || !self.outbox.doubts {
            return;
        }
        self.outbox.ask_again(self.cursor.seq);
        while let Some((mut entry, standing)) = self.outbox.take_decided(self.cursor.seq) {
            if standing == Standing::Stale {
                entry.state = EntryState::Unsent(Unsent::Stale);
                self.news.push(Event::Unsent(entry.clone()));
            } else {
                // Another message has the number: this device was restored from an old backup.
                entry.send_no = self.outbox.next_number();
                self.changes.push(Change::NextSendNo(self.outbox.next_send_no));
                self.record_send(&entry);
            }
            self.outbox.items.insert(entry.send_no.0, Item::new(entry.clone()));
            self.changes.push(Change::Outbox(entry));
        }
    }

    /// The server named a place.
    pub(super) fn hear_of(&mut self, place: Place) {
        if place > self.highest {
            self.highest = place;
            self.changes.push(Change::Highest(place));
        }
    }
}
