//! The one way out for events. A user has a head, a device has what was sent and what its client
//! lets the server send; each turn a device that is behind gets (sent, head], from this turn's
//! deliveries if they join on, else from the view. Live push, catching up, a slow reader and
//! folded deliveries are this one function.

use crate::{
    Engine, Now,
    connection::NONE,
    engine::trim,
    events::{Events, append_frame_of},
    output::MAX_UNSENT_BYTES,
    session::Feed,
    waiting::{Reply, Waiting},
};
use starling_codec::{
    Answer, Delivery, Epoch, ErrorCode, Frame, Kind, Place, Query, Ticket, UserId,
    limits::{MAX_CONTENT_BYTES, MIN_WINDOW_BYTES},
    planted::{Fault, is_planted},
    wire,
};
use std::collections::VecDeque;

/// A connection that left more unsent than this gets no more events until it takes some: of those
/// that do not read there may be many, and their events are in the store.
const MAX_LEFT_BYTES: usize = 4 * 1024;
/// No event is larger.
const MAX_EVENT_BYTES: usize = MAX_CONTENT_BYTES + 1024;
/// Room for so many is made at once.
const MANY_BYTES: usize = 4 * 1024;
/// Most events that are written at once.
const MAX_RUN_EVENTS: usize = 1_024;
/// Most events of one read.
const READ_EVENTS: usize = 256;

const _: () = assert!(MAX_EVENT_BYTES <= MIN_WINDOW_BYTES as usize);

#[derive(Default)]
pub(crate) struct Outlet {
    /// Sessions that may have something to get.
    queue: VecDeque<Ticket>,
    /// This turn's deliveries.
    fresh: Vec<Delivery>,
    /// Encoded sizes of the events at hand; kept for its room.
    sizes: Vec<usize>,
    /// The last run of frames that was encoded this turn, for the user's other devices.
    last: Option<Run>,
    /// Of the events that were read last, the mean size in bytes.
    read_event_bytes: usize,
}

/// Encoded events in the output of a slot.
#[derive(Clone, Copy)]
struct Run {
    user: UserId,
    /// The first event is right after this seq.
    after: u64,
    last: u64,
    /// Of all the events, without framing.
    event_bytes: usize,
    events: usize,
    frames: u64,
    slot: u32,
    /// Length of the run's bytes, which end the slot's output.
    bytes: usize,
}

impl Outlet {
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn trim(&mut self) {
        trim(&mut self.queue);
    }

    pub(crate) fn rest(&mut self) {
        self.queue.shrink_to_fit();
        self.fresh.shrink_to_fit();
        self.sizes = Vec::new();
    }
}

impl Engine {
    /// New events of a user: kept for this turn, should one of her sessions be where they start.
    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        let Some(last) = delivery.events.last() else { return };
        let head = Place::new(last.seq, Epoch(last.epoch));
        let user = delivery.user;
        if !self.raise_head(user, head) {
            return;
        }
        let Some(entry) = self.users.get_mut(user) else { return };
        match self.outlet.fresh.get_mut(entry.fresh as usize) {
            Some(fresh) => {
                let joins = fresh.events.last().zip(delivery.events.first());
                if joins.is_some_and(|(last, first)| first.seq == last.seq + 1) {
                    fresh.events.extend(delivery.events);
                } else {
                    *fresh = delivery;
                }
            }
            None => {
                entry.fresh = self.outlet.fresh.len() as u32;
                self.outlet.fresh.push(delivery);
            }
        }
    }

    /// The inbox of `user` reaches to `head`. Says whether she has a session that wants it.
    pub(crate) fn raise_head(&mut self, user: UserId, head: Place) -> bool {
        let Some(entry) = self.users.get_mut(user) else { return false };
        entry.raise_head(head);
        let mut next = self.users.first_session(user);
        let wanted = next.is_some();
        while let Some(number) = next {
            self.await_outlet(number);
            next = self.slots.live(number).and_then(|live| live.next_session());
        }
        wanted
    }

    /// The outlet looks at a session at the end of the turn.
    pub(crate) fn await_outlet(&mut self, number: u32) {
        let ticket = self.slots.ticket(number);
        let slot = self.slots.at_mut(number);
        if !std::mem::replace(&mut slot.awaits_outlet, true) {
            self.outlet.queue.push_back(ticket);
        }
    }

    /// The end of a turn.
    pub(crate) fn let_out(&mut self) {
        while let Some(ticket) = self.outlet.queue.pop_front() {
            if let Some(number) = self.slots.find(ticket) {
                self.slots.at_mut(number).awaits_outlet = false;
                self.let_out_to(number);
            }
        }
        self.outlet.last = None;
        for delivery in self.outlet.fresh.drain(..) {
            if let Some(entry) = self.users.get_mut(delivery.user) {
                entry.fresh = NONE;
            }
        }
    }

    /// Gives a session what it lacks and may get, or asks the view for it.
    fn let_out_to(&mut self, number: u32) {
        self.write_or_read(number);
        let head = |user| self.users.get(user).map_or(0, |entry| entry.head().seq);
        let behind = self.slots.live(number).is_some_and(|live| live.sent < head(live.user));
        if let Some(live) = self.slots.live_mut(number)
            && matches!(live.feed, Feed::Level | Feed::Behind)
        {
            live.feed = if behind { Feed::Behind } else { Feed::Level };
        }
    }

    fn write_or_read(&mut self, number: u32) {
        let Some(live) = self.slots.live(number) else { return };
        let Some(entry) = self.users.get(live.user) else { return };
        let reading = matches!(live.feed, Feed::Reading | Feed::ReadingInVain);
        if reading || live.sent >= entry.head().seq {
            return;
        }
        let fresh = entry.fresh;
        let joins_on = |delivery: &Delivery| {
            delivery.events.first().is_some_and(|event| event.seq <= live.sent + 1)
        };
        if !self.outlet.fresh.get(fresh as usize).is_some_and(joins_on) {
            return self.read_on(number);
        }
        if !self.repeat_last_run(number) {
            let delivery = &mut self.outlet.fresh[fresh as usize];
            let events = std::mem::take(&mut delivery.events);
            if is_planted(Fault::EventPassedOver)
                && let Some(live) = self.slots.live_mut(number)
                && events.last().is_some_and(|last| live.sent + 1 < last.seq)
            {
                live.sent += 1;
            }
            self.write_events(number, events.as_slice());
            self.outlet.fresh[fresh as usize].events = events;
        }
    }

    /// How many bytes of events a session may get now, and how many events.
    fn room(&self, number: u32) -> Option<(usize, usize)> {
        let live = self.slots.live(number)?;
        let activity = self.slots.at(number).activity.as_ref();
        let (unsent, marks) = activity.map_or((0, usize::MAX), |activity| {
            (activity.unsent().len(), activity.mark_room(live.cursor_seq))
        });
        let output = match unsent {
            // One event of any size fits an empty output.
            0 => MAX_EVENT_BYTES,
            1..=MAX_LEFT_BYTES => MAX_UNSENT_BYTES,
            _ => return None,
        };
        let bytes = live.byte_room().min(output.saturating_sub(unsent));
        let events = live.event_room().min(marks).min(MAX_RUN_EVENTS);
        (bytes > 0 && events > 0).then_some((bytes, events))
    }

    /// Asks the view for what comes after what was sent.
    fn read_on(&mut self, number: u32) {
        let Some((bytes, events)) = self.room(number) else { return };
        // As many as should fit, and one more: what does not fit is read for nothing.
        let likely =
            bytes.checked_div(self.outlet.read_event_bytes).map_or(READ_EVENTS, |fit| fit + 1);
        let ticket = self.slots.ticket(number);
        let Some(live) = self.slots.live_mut(number) else { return };
        live.feed = Feed::Reading;
        let query = Query::Inbox {
            user: live.user,
            after_seq: live.sent,
            max_events: events.min(READ_EVENTS).min(likely),
            max_bytes: bytes,
        };
        self.ask(Waiting::Inbox(ticket, bytes), query);
    }

    /// Part of the inbox was read for a session, at most so many bytes.
    pub(crate) fn inbox_read(
        &mut self,
        now: Now,
        ticket: Ticket,
        asked_bytes: usize,
        reply: Reply,
    ) {
        let Some(number) = self.slots.find(ticket) else {
            self.counters.late += 1;
            return;
        };
        let Some(live) = self.slots.live_mut(number) else { return };
        let feed = std::mem::replace(&mut live.feed, Feed::Behind);
        if feed == Feed::ReadingInVain {
            return self.await_outlet(number);
        }
        match reply {
            Reply::Answer(Answer::Events { events, head }) => {
                let user = live.user;
                if let Some(entry) = self.users.get_mut(user) {
                    entry.raise_head(head);
                }
                self.counters.events_read += events.len() as u64;
                let written = self.write_events(number, &events);
                if let Some(run) = self.outlet.last.take() {
                    self.outlet.read_event_bytes = run.event_bytes / run.events;
                }
                let room = self.room(number).map_or(0, |(bytes, _)| bytes);
                if written > 0 {
                    self.let_out_to(number);
                    // Before the turn ends, other frames may come behind what that wrote.
                    self.outlet.last = None;
                } else if room > asked_bytes {
                    // The next event was larger than what was asked for, and there is more room
                    // by now. If there is none, what makes some brings the session here again.
                    self.await_outlet(number);
                }
            }
            _ => self.close(now, number, ErrorCode::Internal),
        }
    }

    /// Writes what of `events` comes right after what was sent, as far as there is room. Says how
    /// many events that were.
    fn write_events(&mut self, number: u32, events: &(impl Events + ?Sized)) -> usize {
        let Some((byte_room, event_room)) = self.room(number) else { return 0 };
        let Some(live) = self.slots.live(number) else { return 0 };
        let (user, sent) = (live.user, live.sent);
        let count = events.count();
        let first = (0..count).find(|&index| events.seq(index) > sent);
        let Some(first) = first.filter(|&first| events.seq(first) == sent + 1) else { return 0 };
        let (head, passed) = match self.users.get(user) {
            Some(entry) => (entry.head().seq, entry.passed_seq),
            None => return 0,
        };

        let sizes = &mut self.outlet.sizes;
        sizes.clear();
        let mut event_bytes = 0;
        for index in (first..count).take(event_room) {
            let bytes = events.size(index);
            if event_bytes + bytes > byte_room {
                break;
            }
            event_bytes += bytes;
            sizes.push(bytes);
        }
        let written = first..first + sizes.len();
        if written.is_empty() {
            return 0;
        }
        let last = events.seq(written.end - 1);

        let activity = self.slots.activity(number);
        let output = activity.output();
        if event_bytes >= MANY_BYTES {
            // No more than that, for it may stand here for long. Frames and keys are a few bytes
            // each.
            output.reserve_exact(event_bytes + 8 * sizes.len() + 16);
        }
        let start = output.len();
        let mut frames = 0;
        let mut next = first;
        while next < written.end {
            next += append_frame_of(output, events, next, &sizes[next - first..], head);
            frames += 1;
        }
        let bytes = output.len() - start;
        for index in written.clone() {
            if let Some(mark) = events.mark(index, user, passed) {
                activity.push_mark(mark);
            }
        }
        let written = written.len();
        self.outlet.last = Some(Run {
            user,
            after: sent,
            last,
            event_bytes,
            events: written,
            frames,
            slot: number,
            bytes,
        });
        self.note_run(number, last, event_bytes, written, frames, bytes);
        written
    }

    /// If the last frames encoded are just what this session, of the same user, may get, copies
    /// them.
    fn repeat_last_run(&mut self, number: u32) -> bool {
        let Some(run) = self.outlet.last else { return false };
        let Some(live) = self.slots.live(number) else { return false };
        let Some((byte_room, event_room)) = self.room(number) else { return false };
        let same = run.user == live.user && run.after == live.sent && run.slot != number;
        if !same || run.event_bytes > byte_room || run.events > event_room {
            return false;
        }
        // Nothing was written to that slot since, so the run ends its output.
        let Some(source) = self.slots.at_mut(run.slot).activity.take() else { return false };
        let unsent = source.unsent();
        let run_bytes = &unsent[unsent.len() - run.bytes..];
        let activity = self.slots.activity(number);
        activity.output().extend_from_slice(run_bytes);
        for &(mut mark) in source.marks.iter().filter(|mark| mark.inbox_seq > run.after) {
            mark.cut(run.after);
            activity.push_mark(mark);
        }
        self.slots.at_mut(run.slot).activity = Some(source);
        self.counters.events_repeated += run.events as u64;
        self.note_run(number, run.last, run.event_bytes, run.events, run.frames, run.bytes);
        true
    }

    fn note_run(
        &mut self,
        number: u32,
        last: u64,
        event_bytes: usize,
        events: usize,
        frames: u64,
        bytes: usize,
    ) {
        if let Some(live) = self.slots.live_mut(number) {
            live.note_sent(last, event_bytes);
        }
        self.counters.events_out += events as u64;
        self.counters.frames_out(Kind::Events, frames, bytes);
        self.mark_dirty(number);
    }

    /// The device has applied its inbox up to a cursor.
    pub(crate) fn ack(&mut self, now: Now, number: u32, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let ack: wire::Ack = frame.body()?;
        let cursor: Place = ack.cursor.ok_or(ErrorCode::BadField)?.into();
        let Some(live) = self.slots.live_mut(number) else { return Err(ErrorCode::WrongState) };
        let head = self.users.get(live.user).map_or(Place::START, |entry| entry.head());
        // What was never sent cannot have been applied.
        let seq = cursor.seq.min(live.sent);
        if live.advance(Place::new(seq, cursor.epoch.min(head.epoch))) {
            let (behind, cursor_seq) = (live.feed == Feed::Behind, live.cursor_seq);
            if let Some(activity) = &mut self.slots.at_mut(number).activity {
                activity.reduce_marks(cursor_seq);
            }
            self.store_cursor_soon(now, number);
            if behind {
                self.await_outlet(number);
            }
        } else {
            self.slots.at_mut(number).count_fruitless(1);
        }
        Ok(())
    }

    /// The device lacks what comes after a place: it is sent from there.
    pub(crate) fn sync(&mut self, number: u32, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let sync: wire::Sync = frame.body()?;
        let after: Place = sync.after.unwrap_or_default().into();
        if let Some(live) = self.slots.live_mut(number) {
            let seq = after.seq.min(live.sent);
            live.rewind(seq);
            self.slots.at_mut(number).count_fruitless(1);
            if let Some(activity) = &mut self.slots.at_mut(number).activity {
                activity.forget_marks_above(seq);
            }
            self.await_outlet(number);
        }
        Ok(())
    }
}
