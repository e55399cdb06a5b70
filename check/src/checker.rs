//! Takes a history in, line by line. What one device's lines contradict is found here; what needs
//! the whole history, such as whether a fault excuses a loss, is left to the judge.

use crate::{
    Position, Property, Verdict,
    devices::{Devices, Held, Removed, Settled, Told, WasReset, WentOn, What},
    evidence::Violations,
    judge::Judge,
    messages::{Message, Messages, NO_MESSAGE},
    openings::{NO_OPENING, Openings},
    sends::{Answer, Sends, Written},
    streams::Streams,
};
use starling_codec::{
    Epoch, EpochTag, Nonce, Place, SendNo, SendWindow,
    history::{self, At, EventKind, Fact, Record},
    wire::Class,
};

/// Two messages where there may be one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Twins {
    pub messages: [u32; 2],
    /// What both have.
    pub shared: &'static str,
}

/// A history under way.
#[derive(Debug, Default)]
pub struct Checker {
    pub(crate) streams: Streams,
    pub(crate) openings: Openings,
    pub(crate) messages: Messages,
    pub(crate) sends: Sends,
    pub(crate) devices: Devices,
    pub(crate) twins: Vec<Twins>,
    pub(crate) violations: Violations,
    pub(crate) complete: bool,
    /// Sessions ended when all was at rest.
    ended_at_rest: bool,
    records: u64,
    skipped: u64,
}

/// Checks a history that is in memory; the position of a record is its index, from 1.
pub fn check_records<'a>(records: impl IntoIterator<Item = &'a Record>) -> Verdict {
    let mut checker = Checker::new();
    for (index, record) in records.into_iter().enumerate() {
        checker.record(Position::new(0, index as u64 + 1), record);
    }
    checker.finish()
}

impl Checker {
    pub fn new() -> Checker {
        Checker::default()
    }

    /// Whoever recorded the history says that sessions ended when all was at rest: what a device
    /// held when it left counts as what it holds at the end.
    pub fn ended_at_rest(mut self) -> Checker {
        self.ended_at_rest = true;
        self
    }

    /// Takes the next record. Records of one device come in the order in which they happened.
    pub fn record(&mut self, position: Position, record: &Record) {
        self.records += 1;
        match (&record.fact, record.at) {
            (Fact::History { complete, .. }, _) => self.complete |= complete,
            (Fact::Opened { after, epoch, tag }, _) => {
                let violations = &mut self.violations;
                self.openings.opened(position, *after, *epoch, *tag, violations);
            }
            (Fact::NotOpened, _) => self.openings.not_opened(),
            (fact, Some(at)) => self.fact(position, at, fact),
            // Without a device it says nothing that could be checked.
            (_, None) => self.skipped += 1,
        }
    }

    /// Counts a line of a type that is not known.
    pub fn skip(&mut self) {
        self.skipped += 1;
    }

    /// The history is over.
    pub fn finish(self) -> Verdict {
        let verdict = Verdict {
            violations: Vec::new(),
            contradictions: 0,
            records: self.records,
            skipped: self.skipped,
            messages: self.messages.list.len() as u64,
            devices: self.devices.list.len() as u64,
            conversations: self.streams.conversations(),
            settled: self.devices.list.iter().filter_map(|device| device.settled()).count() as u64,
            complete: self.complete,
        };
        let (violations, contradictions) = Judge::new(self).judge().into_parts();
        Verdict { violations, contradictions, ..verdict }
    }

    fn fact(&mut self, position: Position, at: At, fact: &Fact) {
        let number = self.devices.number(at);
        let device = &mut self.devices.list[number as usize];
        if device.last_file != position.file() {
            device.last_file = position.file();
            device.may_repeat = true;
        }
        // Whoever goes on had not said his last word.
        device.end = None;
        if !matches!(fact, Fact::Reset | Fact::Offline | Fact::Online { .. })
            && let Some(known) = device.came_from.take()
        {
            let welcomed = (device.opening, device.online_at);
            device.went_on.push(WentOn { known, welcomed, position });
        }
        match *fact {
            Fact::Online { epoch, tag, window, .. } => {
                self.online(position, number, epoch, tag, window);
            }
            Fact::Send { send_no, nonce, conversation, class, digest } => {
                let stream = self.streams.messages(conversation);
                let written = Written { position, stream, class, digest };
                self.send(number, send_no, nonce, written);
            }
            Fact::Sent { send_no, nonce, id, conversation, seq, place, class } => {
                let told = Message {
                    id,
                    stream: self.streams.messages(conversation),
                    seq,
                    sender: number,
                    send_no,
                    class,
                    epoch: place.epoch,
                    digest: None,
                    position,
                    opening: self.devices.list[number as usize].opening,
                };
                let message = self.sight(told, nonce);
                let answer = Answer::Sent { place, message };
                self.answer(position, number, send_no, nonce, answer);
            }
            Fact::Refused { send_no, nonce, .. } => {
                self.answer(position, number, send_no, nonce, Answer::Refused);
            }
            Fact::Unsent { send_no, nonce, .. } => {
                self.answer(position, number, send_no, nonce, Answer::Unsent);
            }
            Fact::Event { place, prev, ref kind } => {
                self.event(position, number, place, prev, kind);
            }
            Fact::Read(ref message) => {
                self.sight_seen(position, number, message, Epoch(0));
            }
            Fact::Acked(place) => self.acked(position, number, place),
            Fact::Rewind(place) => self.rewind(position, number, place),
            Fact::Reset => self.reset(position, number),
            Fact::Restored(place) => self.restored(position, number, place),
            Fact::State { cursor, hash } => {
                self.end(number, Settled { cursor, hash, position, at_rest: true });
            }
            Fact::Left { cursor, hash } => {
                let at_rest = self.ended_at_rest;
                self.end(number, Settled { cursor, hash, position, at_rest });
            }
            Fact::Offline | Fact::History { .. } | Fact::Opened { .. } | Fact::NotOpened => {}
        }
    }

    fn end(&mut self, number: u32, end: Settled) {
        self.devices.list[number as usize].end = Some(end);
    }

    fn online(
        &mut self,
        position: Position,
        number: u32,
        epoch: Epoch,
        tag: EpochTag,
        window: SendWindow,
    ) {
        let opening = self.openings.welcomed(position, epoch, tag);
        let device = &mut self.devices.list[number as usize];
        let is_another = ![NO_OPENING, opening].contains(&device.opening);
        device.came_from = is_another.then_some(device.opening);
        device.last_opening = device.opening;
        (device.opening, device.online_at) = (opening, position);
        device.windows.push(Told { window, opening, position });
    }

    fn send(&mut self, number: u32, send_no: SendNo, nonce: Nonce, written: Written) {
        let device = &mut self.devices.list[number as usize];
        device.top_send_no = device.top_send_no.max(send_no.0);
        let send = self.sends.find(number, Some(nonce), send_no) as usize;
        let send = &mut self.sends.list[send];
        match send.written {
            Some(first) if (first.stream, first.digest) != (written.stream, written.digest) => {
                let evidence = [first.position, written.position];
                self.violations.add(Property::AsWritten, evidence, || {
                    format!("nonce {nonce} names two things that were written")
                });
            }
            Some(_) => send.send_no = send_no,
            None => (send.send_no, send.written) = (send_no, Some(written)),
        }
    }

    fn answer(
        &mut self,
        position: Position,
        number: u32,
        send_no: SendNo,
        nonce: Option<Nonce>,
        answer: Answer,
    ) {
        let send = self.sends.find(number, nonce, send_no) as usize;
        let send = &mut self.sends.list[send];
        let differs = match (send.answer, answer) {
            (Answer::None, _) => false,
            // Two messages are judged when it is known what was lost.
            (Answer::Sent { message, .. }, Answer::Sent { message: other, .. })
                if message != other =>
            {
                false
            }
            // A loss turns an acknowledged message into an unsent one.
            (Answer::Sent { .. }, Answer::Unsent) => false,
            (first, second) => first != second,
        };
        if differs {
            self.violations.add(Property::Window, [send.answered_at, position], || {
                format!("send {send_no} was answered in two ways")
            });
        }
        (send.answer, send.answered_at) = (answer, position);
    }

    fn event(
        &mut self,
        position: Position,
        number: u32,
        place: Place,
        prev: u64,
        kind: &EventKind,
    ) {
        let device = &mut self.devices.list[number as usize];
        if device.may_repeat {
            let repeated = device.held_at(place.seq).is_some_and(|held| held.place() == place);
            if repeated {
                return;
            }
            device.may_repeat = false;
        }
        let joins_on = match device.cursor {
            None => {
                (device.whole, device.began_at) = (prev == 0, position);
                true
            }
            Some(cursor) => prev == cursor.seq,
        };
        if !joins_on || place.seq <= prev {
            let (cursor, at) = (device.cursor.unwrap_or_default().seq, device.cursor_at);
            self.violations.add(Property::InboxDense, [at, position], || {
                format!("event {} joins on to {prev}, but the device was at {cursor}", place.seq)
            });
        }
        let device = &mut self.devices.list[number as usize];
        if device.cursor.is_some_and(|cursor| place.epoch < cursor.epoch) {
            self.violations.add(Property::Epochs, [device.cursor_at, position], || {
                format!("the epoch of event {} is below that of the event before it", place.seq)
            });
        }
        // A recorder that began anew tells what the one before was told, and that one may not have
        // lived to write that it was welcomed in a later epoch.
        let has_welcome = device.online_at.file() == position.file();
        let opened = self.openings.epoch(device.opening).filter(|_| has_welcome);
        if opened.is_some_and(|epoch| place.epoch > epoch) {
            self.violations.add(Property::Epochs, [device.online_at, position], || {
                format!("event {} is of an epoch that was not opened yet", place.seq)
            });
        }
        let what = match kind {
            EventKind::Unknown => What::Unknown,
            EventKind::Message(message) => self.message_event(position, number, place, message),
            EventKind::Delivered { conversation, user, seq } => {
                let stream = self.streams.receipts(*conversation, *user);
                self.receipt(position, number, stream, *seq)
            }
        };
        let cursor = self.devices.list[number as usize].cursor;
        // What the device has already cannot take a place again.
        if cursor.is_none_or(|cursor| place.seq > cursor.seq) {
            self.devices.apply(number, Held::new(place, what, position));
        }
    }

    fn message_event(
        &mut self,
        position: Position,
        number: u32,
        place: Place,
        seen: &history::Message,
    ) -> What {
        let message = self.sight_seen(position, number, seen, place.epoch);
        let stream = self.messages.list[message as usize].stream;
        let device = &self.devices.list[number as usize];
        let direct = seen.conversation.users().is_some();
        let next = match self.devices.latest(number, stream) {
            Some(latest) => self.seq_of(latest).map(|seq| seq + 1),
            None => (device.whole && direct).then_some(1),
        };
        if next.is_some_and(|next| next != seen.seq) {
            self.disorder(position, number, stream, message, seen.seq);
        }
        What::Message { message, stream }
    }

    /// A message does not come after the last one of its conversation: it is doubled, or
    /// contradicts another, or others are missing.
    fn disorder(&mut self, position: Position, number: u32, stream: u32, message: u32, seq: u64) {
        let latest = self.devices.latest(number, stream);
        let mut held = latest;
        while let Some(event) = held {
            let What::Message { message: other, .. } = event.what else { break };
            if other == message {
                return self.violations.add(Property::Once, [event.position, position], || {
                    format!("the device applied message {seq} of the conversation twice")
                });
            }
            match self.messages.list[other as usize].seq {
                other_seq if other_seq < seq => break,
                other_seq if other_seq == seq => {
                    let evidence = [event.position, position];
                    return self.violations.add(Property::OneOrder, evidence, || {
                        format!("the device has two messages at {seq} of the conversation")
                    });
                }
                _ => held = self.devices.before(number, event),
            }
        }
        let before = latest.map(|latest| latest.position);
        let last = latest.and_then(|latest| self.seq_of(latest)).unwrap_or_default();
        self.violations.add(
            Property::ConversationDense,
            before.into_iter().chain([position]),
            || format!("message {seq} of the conversation came after {last}"),
        );
    }

    fn seq_of(&self, held: &Held) -> Option<u64> {
        match held.what {
            What::Message { message, .. } => Some(self.messages.list[message as usize].seq),
            _ => None,
        }
    }

    fn receipt(&mut self, position: Position, number: u32, stream: u32, seq: u64) -> What {
        if let Some(latest) = self.devices.latest(number, stream)
            && let What::Receipt { seq: known, .. } = latest.what
            && seq < known
        {
            self.violations.add(Property::ReceiptsRise, [latest.position, position], || {
                format!("a receipt up to {seq} came after one up to {known}")
            });
        }
        What::Receipt { stream, seq }
    }

    fn acked(&mut self, position: Position, number: u32, place: Place) {
        let device = &mut self.devices.list[number as usize];
        if place < device.acked {
            self.violations.add(Property::AcksRise, [device.acked_at, position], || {
                format!("the device took back its acknowledgement of {}", place.seq)
            });
        }
        if device.cursor.is_some_and(|cursor| place > cursor) {
            self.violations.add(Property::AcksRise, [device.cursor_at, position], || {
                format!("the device acknowledged {}, which it had not applied", place.seq)
            });
        }
        (device.acked, device.acked_at) = (place, position);
        device.acked_top = device.acked_top.max(place);
    }

    fn rewind(&mut self, position: Position, number: u32, place: Place) {
        let cut = self.devices.cut(number, place);
        let device = &mut self.devices.list[number as usize];
        let opening = device.opening;
        device.removed.extend(cut.into_iter().map(|held| Removed { held, position, opening }));
        // Before its first event the device stands at the start, or the history does not say.
        if let Some(cursor) = device.cursor {
            device.cursor = Some(cursor.min(place));
            device.cursor_at = position;
        }
        device.acked = device.acked.min(place);
    }

    fn reset(&mut self, position: Position, number: u32) {
        self.devices.cut(number, Place::START);
        let device = &mut self.devices.list[number as usize];
        device.came_from = None;
        let (known, welcomed) = (device.last_opening, device.opening);
        device.resets.push(WasReset { known, welcomed, position });
        // What was read before the first event of the history is gone as well.
        (device.cursor, device.cursor_at) = (Some(Place::START), position);
        device.whole = true;
        device.acked = Place::START;
    }

    fn restored(&mut self, position: Position, number: u32, place: Place) {
        self.devices.cut(number, place);
        let device = &mut self.devices.list[number as usize];
        device.cursor = device.cursor.map(|cursor| cursor.min(place));
        device.cursor_at = position;
        device.acked = device.acked.min(place);
        device.forgot = Some(position);
        device.came_from = None;
        device.opening = NO_OPENING;
    }

    fn sight_seen(
        &mut self,
        position: Position,
        number: u32,
        seen: &history::Message,
        epoch: Epoch,
    ) -> u32 {
        let opening = self.devices.list[number as usize].opening;
        let told = Message {
            id: seen.id,
            stream: self.streams.messages(seen.conversation),
            seq: seen.seq,
            sender: self.devices.number(At { user: seen.sender, device: seen.device }),
            send_no: seen.send_no,
            class: seen.class,
            epoch,
            digest: seen.digest,
            position,
            opening,
        };
        self.sight(told, seen.nonce)
    }

    /// Takes in what a line tells of a message, and whether another has its number or nonce.
    fn sight(&mut self, told: Message, nonce: Option<Nonce>) -> u32 {
        let (message, is_new) = self.messages.sight(told, &mut self.violations);
        if is_new {
            let numbered = self.sends.number(told.sender, told.send_no);
            if numbered.message == NO_MESSAGE {
                numbered.message = message;
            } else {
                let messages = [numbered.message, message];
                self.twins.push(Twins { messages, shared: "send number" });
            }
        }
        if let Some(nonce) = nonce {
            let send = self.sends.find(told.sender, Some(nonce), told.send_no) as usize;
            let send = &mut self.sends.list[send];
            if send.message == NO_MESSAGE {
                send.message = message;
            } else if send.message != message {
                let messages = [send.message, message];
                self.twins.push(Twins { messages, shared: "nonce" });
                send.message = message;
            }
        }
        message
    }
}

/// The class that stands for less.
pub(crate) fn is_weaker(reached: Class, asked: Class) -> bool {
    reached == Class::Buffered && asked != Class::Buffered
}
