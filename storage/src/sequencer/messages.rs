//! Messages, cursors and notices.

use super::{
    Sequencer,
    state::{ConversationState, NONE, Pending, UserState, WindowState},
};
use crate::{
    Family, ReadError,
    backend::Reads,
    layout,
    layout::DevicePart,
    logs,
    logs::{OwnEvent, OwnStep},
    rows::{self, Entry, MessageRow, encode_message},
};
use starling_codec::{
    Accepted, Append, ConversationId, Cursor, DeviceId, Epoch, ErrorCode, MessageId, Nonce, Notice,
    Outcome, Place, SendNo, SendWindow, Standing, UserId,
    planted::{Fault, is_planted},
    wire::{Class, Event, event::Kind},
};
use std::collections::BTreeSet;

/// A device's later sends wait for the one that was refused until it comes or is given up. When too
/// many devices are waited for, those go that were refused nothing for so long, in milliseconds of
/// message time: by then the door has heard of the refusal and keeps the order itself.
const HOLD_MS: u64 = 60_000;

/// Sends of a device that were refused for now and have not come again.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// At most a window's width of them, which is more than a client may have without an answer.
    refused: BTreeSet<SendNo>,
    until_ms: u64,
}

impl Held {
    fn refuse(&mut self, send_no: SendNo) {
        if self.refused.len() < SendWindow::WIDTH as usize {
            self.refused.insert(send_no);
        }
    }
}

impl Sequencer {
    /// The outcome of a send, and whether it waits for the disk.
    pub(super) fn append(
        &mut self,
        reads: Reads<'_>,
        append: Append,
        room: bool,
    ) -> Result<(Outcome, bool), ReadError> {
        let Append { sender, device, send_no, .. } = append;
        let refuse = |code| Ok((Outcome::SendRefused { send_no, code }, false));
        if append.class == Class::Replicated {
            return refuse(ErrorCode::ClassUnavailable);
        }
        if !append.recipients.iter().any(|user| user == sender) {
            return refuse(ErrorCode::UnknownConversation);
        }
        let slot = self.user(reads, sender)?;
        let index = self.users.at(slot).device(device);
        let window = self.window(reads, sender, slot, index)?;
        let (standing, previous_own) = (window.window.standing(send_no), window.last_own);
        match standing {
            Standing::Stale => return refuse(ErrorCode::SendStale),
            Standing::Applied if is_planted(Fault::RepeatStored) => {}
            Standing::Applied => return self.repeat(reads, &append, slot, previous_own),
            Standing::New => {}
        }
        if let Some(code) = self.refuse_for_now(&append, room) {
            return refuse(code);
        }
        let reserved = self.reserve(append.id);
        let conversation = self.conversation(reads, append.conversation)?;
        let state = self.conversations.at(conversation);
        state.head += 1;
        if is_planted(Fault::ConversationSkips) {
            state.head += 1;
        }
        if is_planted(Fault::ConversationStands) {
            state.head = state.head.min(2);
        }
        let seq = state.head;
        self.rows.put(Family::Message, &layout::message_key(append.conversation, seq), |out| {
            encode_message(&append, out);
        });
        let mut place = Place::START;
        for user in append.recipients.iter() {
            let slot = if user == sender { slot } else { self.user(reads, user)? };
            if user == sender {
                place = self.add_message(slot, &append, seq, Some(previous_own));
                let device = &mut self.users.at(slot).devices[index];
                if let Some(window) = &mut device.window {
                    window.sent(send_no, place.seq);
                }
            } else {
                self.add_message(slot, &append, seq, None);
            }
        }
        let accepted = Accepted {
            send_no,
            id: append.id,
            conversation: append.conversation,
            seq,
            place,
            class: append.class,
        };
        let durable = reserved || append.class == Class::Durable;
        Ok((Outcome::Appended(accepted), durable))
    }

    /// A send whose number was applied before: the first answer, or a conflict.
    fn repeat(
        &mut self,
        reads: Reads<'_>,
        append: &Append,
        slot: usize,
        last_own: u64,
    ) -> Result<(Outcome, bool), ReadError> {
        self.tally.repeats += 1;
        let Append { sender, device, send_no, .. } = *append;
        let refused = |code| Ok((Outcome::SendRefused { send_no, code }, false));
        let first = match self.find_pending(slot, device, send_no) {
            OwnStep::Found(event) => Some(event),
            OwnStep::Before(0) => logs::follow_own(reads, sender, device, send_no, last_own)?,
            OwnStep::Before(at) => logs::follow_own(reads, sender, device, send_no, at)?,
        };
        let Some(first) = first else { return refused(ErrorCode::SendStale) };
        if first.nonce != append.nonce {
            return refused(ErrorCode::SendConflict);
        }
        let (id, class) = self.find_message(reads, slot, &first)?;
        let OwnEvent { place, conversation, seq, .. } = first;
        let accepted = Accepted { send_no, id, conversation, seq, place, class };
        Ok((Outcome::Repeated(accepted), false))
    }

    /// Looks for a send in what the batch being built has added.
    fn find_pending(&mut self, slot: usize, device: DeviceId, send_no: SendNo) -> OwnStep {
        let pending = self.users.at(slot).pending;
        let Some(pending) = self.pending.get(pending as usize) else { return OwnStep::Before(0) };
        match rows::entries(pending.user, pending.first, &pending.entries) {
            Some(entries) => logs::find_own(&entries, self.epoch, device, send_no),
            // What was encoded a moment ago decodes.
            None => OwnStep::Before(0),
        }
    }

    /// Id and class of a message, from the batch being built or from its row.
    fn find_message(
        &mut self,
        reads: Reads<'_>,
        slot: usize,
        event: &OwnEvent,
    ) -> Result<(MessageId, Class), ReadError> {
        let pending = self.users.at(slot).pending;
        if let Some(pending) = self.pending.get(pending as usize)
            && event.place.seq >= pending.first
            && let Some(Kind::Message(message)) =
                &pending.events[(event.place.seq - pending.first) as usize].kind
        {
            return Ok((MessageId(message.id), message.class()));
        }
        let key = layout::message_key(event.conversation, event.seq);
        let found = reads.get(Family::Message, &key, |row| {
            MessageRow::decode(event.conversation, row).map(|message| (message.id, message.class))
        })?;
        found.ok_or_else(|| {
            let OwnEvent { conversation, seq, .. } = event;
            ReadError::Corrupt(format!("message {seq} of conversation {conversation} is missing"))
        })
    }

    /// Refuses a send when the disk is full, and those after it until it comes again: overload
    /// must not change the order of what a person wrote. Those wait in turn for each other, since
    /// on their way to two conversations they may overtake the one that they wait for.
    fn refuse_for_now(&mut self, append: &Append, room: bool) -> Option<ErrorCode> {
        if room && self.held.is_empty() {
            return None;
        }
        let key = (append.sender, append.device);
        let send_no = append.send_no;
        let now_ms = append.id.time_ms();
        if let Some(held) = self.held.get_mut(&key) {
            // What is given up holds nothing.
            held.refused = held.refused.split_off(&append.oldest);
            if held.refused.is_empty() {
                self.held.remove(&key);
            }
        }
        if let Some(held) = self.held.get_mut(&key)
            && held.refused.first().is_some_and(|lowest| send_no > *lowest)
        {
            held.refuse(send_no);
            return Some(ErrorCode::SendOutOfOrder);
        }
        if room {
            if let Some(held) = self.held.get_mut(&key) {
                held.refused.remove(&send_no);
                if held.refused.is_empty() {
                    self.held.remove(&key);
                }
            }
            return None;
        }
        if self.held.len() >= self.hot_entries {
            self.held.retain(|_, held| now_ms < held.until_ms);
        }
        let held = self.held.entry(key).or_default();
        held.refuse(send_no);
        held.until_ms = now_ms + HOLD_MS;
        self.tally.refused_disk_full += 1;
        Some(ErrorCode::DiskFull)
    }

    /// Adds a message to an inbox. `own`: the user sent it, and this is the seq of the device's
    /// own message before it.
    fn add_message(&mut self, slot: usize, append: &Append, seq: u64, own: Option<u64>) -> Place {
        let epoch = self.epoch;
        let conversation = append.conversation;
        let (entry, nonce) = match own {
            Some(previous_own) => {
                let Append { device, send_no, nonce, .. } = *append;
                let entry = Entry::Own { conversation, seq, device, send_no, nonce, previous_own };
                (entry, nonce)
            }
            None => (Entry::Received { conversation, seq }, Nonce(0)),
        };
        let mut message = append.to_wire(seq, nonce);
        let lost = usize::from(is_planted(Fault::ContentCut));
        message.content.truncate(append.content.len().saturating_sub(lost));
        let pending = self.pending(slot);
        let pending = &mut self.pending[pending];
        let state = self.users.at(slot);
        add_event(pending, state, epoch, entry, Kind::Message(message))
    }

    /// Stores a cursor. It never goes back.
    pub(super) fn advance(
        &mut self,
        reads: Reads<'_>,
        user: UserId,
        device: DeviceId,
        cursor: Cursor,
    ) -> Result<(), ReadError> {
        let slot = self.user(reads, user)?;
        let state = self.users.at(slot);
        let index = state.device(device);
        let known = match state.devices[index].cursor {
            Some(known) => known,
            None => {
                let key = layout::device_key(user, device, DevicePart::Cursor);
                reads.get(Family::Device, &key, rows::decode_cursor)?.unwrap_or(Place::START)
            }
        };
        let state = &mut state.devices[index];
        state.cursor_changed |= cursor > known;
        state.cursor = Some(known.max(cursor));
        Ok(())
    }

    /// Tells a user an event that is no message. Of those of one batch that say the same, only the one
    /// that covers the others is told.
    pub(super) fn tell(&mut self, reads: Reads<'_>, notice: Notice) -> Result<(), ReadError> {
        let Notice { to, event } = notice;
        let slot = self.user(reads, to)?;
        let pending = self.pending(slot);
        let notices = &mut self.pending[pending].notices;
        let known = notices.iter_mut().find(|known| event.covers(known) || known.covers(&event));
        match known {
            Some(known) => {
                if event.covers(known) {
                    *known = event;
                }
                self.tally.folded += 1;
            }
            None => notices.push(event),
        }
        Ok(())
    }

    /// The slot of a user that the batch has to do with.
    pub(super) fn user(&mut self, reads: Reads<'_>, user: UserId) -> Result<usize, ReadError> {
        let key = u64::from(user.0);
        let slot = match self.users.find(key) {
            Some(slot) => slot,
            None => {
                let head = logs::inbox_head(reads, user)?;
                self.users.insert(key, UserState::derived(head))
            }
        };
        let state = self.users.at(slot);
        if state.batch != self.batch {
            state.batch = self.batch;
            self.touched.push(slot as u32);
        }
        Ok(slot)
    }

    fn conversation(
        &mut self,
        reads: Reads<'_>,
        conversation: ConversationId,
    ) -> Result<usize, ReadError> {
        let slot = match self.conversations.find(conversation.0) {
            Some(slot) => slot,
            None => {
                let head = logs::conversation_head(reads, conversation)?;
                self.conversations.insert(conversation.0, ConversationState { head, batch: 0 })
            }
        };
        self.conversations.at(slot).batch = self.batch;
        Ok(slot)
    }

    /// The send window of a device, derived if it is not remembered.
    fn window(
        &mut self,
        reads: Reads<'_>,
        user: UserId,
        slot: usize,
        index: usize,
    ) -> Result<&WindowState, ReadError> {
        let state = self.users.at(slot);
        let rows = state.rows;
        let device = &mut state.devices[index];
        if device.window.is_none() {
            // As the rows have it: what this batch adds is in no row yet.
            let head = logs::inbox_head(reads, user)?;
            let row = logs::send_window(reads, user, head, device.device)?;
            device.window = Some(WindowState::derived(&row, rows));
        }
        // It was put there just above if it was not there before.
        Ok(device.window.as_ref().expect("a window that was derived"))
    }

    /// Index of what the batch adds to a user's inbox.
    fn pending(&mut self, slot: usize) -> usize {
        let user = UserId(self.users.key(slot) as u32);
        let state = self.users.at(slot);
        if state.pending == NONE {
            state.pending = self.pending.len() as u32;
            let mut entries = self.spare.pop().unwrap_or_default();
            entries.clear();
            let first = state.head.seq + 1;
            self.pending.push(Pending { user, first, entries, ..Pending::default() });
        }
        state.pending as usize
    }
}

/// Gives an event the next place in an inbox.
fn add_event(
    pending: &mut Pending,
    state: &mut UserState,
    epoch: Epoch,
    entry: Entry,
    kind: Kind,
) -> Place {
    state.head = Place::new(state.head.seq + 1, epoch);
    let Place { seq, epoch } = state.head;
    pending.entries.reserve(Entry::REFERENCE_BYTES);
    entry.encode(pending.user, seq, &mut pending.entries);
    pending.events.push(Event { seq, epoch: epoch.0, prev: 0, kind: Some(kind) });
    state.head
}

/// Gives the notices of a batch their places, after its messages.
pub(super) fn append_notices(pending: &mut Pending, state: &mut UserState, epoch: Epoch) {
    for event in std::mem::take(&mut pending.notices) {
        let mut encoded = Vec::with_capacity(event.encoded_len());
        event.encode(&mut encoded);
        add_event(pending, state, epoch, Entry::Notice(encoded.into()), event);
    }
}
