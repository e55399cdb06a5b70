//! What goes out on a connection: frames, refusals, and the end.

use crate::{
    Effect, Engine, Now, RETRY_AFTER_MS, connection::State, phase::Phase, session::Feed,
    wheel::TICK_MS,
};
use prost::Message;
use starling_codec::{
    Blame, ErrorCode, Kind, append_frame,
    limits::{MAX_HEARTBEAT_S, OPENING_TIMEOUT_MS, SILENCE_HALF_HEARTBEATS},
    wire,
};

/// A connection with more unsent output than this gets no more events, and is not read from.
pub(crate) const MAX_UNSENT_BYTES: usize = 32 * 1024;
/// A connection with more unsent output than this is closed: answers to what it had asked for
/// before it was no longer read from. No well-behaved client comes near.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// What is told to wait at least, and at most so much longer.
const RETRY_SPREAD_MS: u32 = 1_000;
/// Connections closed in one turn because their time is over, so that a crowd of silent ones,
/// which all came at once, does not keep the others waiting when it goes.
const EXPIRED_A_TURN: usize = 32;
/// How long a closing connection may take to read what it is still told.
const LINGER_MS: u64 = 5_000;

impl Engine {
    pub(crate) fn send_frame<M: Message>(&mut self, number: u32, kind: Kind, body: &M) {
        let output = self.slots.activity(number).output();
        let before = output.len();
        append_frame(output, kind, body);
        let bytes = output.len() - before;
        self.counters.frame_out(kind, bytes);
        self.mark_dirty(number);
    }

    /// There is output to write.
    pub(crate) fn mark_dirty(&mut self, number: u32) {
        let ticket = self.slots.ticket(number);
        let slot = self.slots.at_mut(number);
        if !std::mem::replace(&mut slot.dirty, true) {
            self.dirty.push_back(ticket);
        }
    }

    pub(crate) fn note_written(&mut self, now: Now, number: u32, bytes: usize) {
        let tick = self.tick(now);
        self.slots.activity(number).note_written(bytes);
        let slot = self.slots.at_mut(number);
        // Who takes what it is sent is there.
        slot.hear(tick);
        let ends = matches!(slot.state, State::Closing { .. });
        let behind = matches!(&slot.state, State::Live(live) if live.feed == Feed::Behind);
        let (stopped, unsent) = (slot.stopped, self.slots.unsent(number).len());
        self.slots.settle(number);
        if ends && unsent == 0 {
            self.tell_close(number);
        }
        if stopped && unsent <= MAX_UNSENT_BYTES {
            self.resume(now, number);
        }
        if behind {
            self.await_outlet(number);
        }
    }

    /// Asks once for the socket to be closed.
    fn tell_close(&mut self, number: u32) {
        let ticket = self.slots.ticket(number);
        if !std::mem::replace(&mut self.slots.at_mut(number).close_told, true) {
            self.effects.push_back(Effect::Close(ticket));
        }
    }

    /// Refuses a request.
    pub(crate) fn refuse(
        &mut self,
        number: u32,
        request_id: u32,
        code: ErrorCode,
        retry_after_ms: u32,
    ) {
        self.counters.refused(code);
        if code.blame() != Blame::Overload {
            self.slots.at_mut(number).count_fruitless(1);
        }
        let refused = wire::Refused { request_id, code: code as u32, retry_after_ms };
        self.send_frame(number, Kind::Refused, &refused);
    }

    /// When to try again, for one of many that are told so: not all at the same time.
    pub(crate) fn retry_after_ms(&mut self) -> u32 {
        // Weyl's sequence: any prefix of it is spread evenly.
        self.spread = self.spread.wrapping_add(0x9E37_79B9);
        RETRY_AFTER_MS + (self.spread >> 16) * RETRY_SPREAD_MS / (1 << 16)
    }

    /// Says why, and closes.
    pub(crate) fn close(&mut self, now: Now, number: u32, code: ErrorCode) {
        let later = matches!(code.blame(), Blame::Overload | Blame::Server | Blame::Quota);
        let retry_after_ms = if later { self.retry_after_ms() } else { 0 };
        let close = wire::Close { code: code as u32, retry_after_ms, ..Default::default() };
        self.close_with(now, number, code, &close);
    }

    pub(crate) fn close_with(
        &mut self,
        now: Now,
        number: u32,
        code: ErrorCode,
        close: &wire::Close,
    ) {
        self.counters.closing(code);
        self.send_frame(number, Kind::Close, close);
        self.end(now, number);
    }

    /// Closes once what is there is written.
    pub(crate) fn end(&mut self, now: Now, number: u32) {
        self.end_session(now, number);
        let since = self.tick(now);
        self.slots.at_mut(number).state = State::Closing { since };
        self.wheel.arm(&mut self.slots, number, since + (LINGER_MS / TICK_MS) as u32);
        let stopped = std::mem::take(&mut self.slots.at_mut(number).stopped);
        self.backlog.forget(&mut self.slots, number);
        if let Some(activity) = &mut self.slots.at_mut(number).activity {
            activity.input = Vec::new();
        }
        if stopped {
            // What is still unread would make the kernel reset the connection, and with it what
            // was said last: it is read and ignored.
            let ticket = self.slots.ticket(number);
            self.effects.push_back(Effect::Read(ticket));
        }
        if self.slots.unsent(number).is_empty() {
            self.slots.settle(number);
            self.tell_close(number);
        }
    }

    /// Too much is unsent to read on.
    pub(crate) fn is_clogged(&self, number: u32) -> bool {
        self.slots.unsent(number).len() > MAX_UNSENT_BYTES
    }

    /// Closes a connection whose answers pile up.
    pub(crate) fn bound_output(&mut self, now: Now, number: u32) {
        if self.slots.unsent(number).len() > MAX_ANSWER_BYTES
            && self.slots.at(number).state.phase() != Phase::Closing
        {
            self.close(now, number, ErrorCode::Overload);
        }
    }

    /// The state of a connection is another: its deadline too.
    pub(crate) fn rearm(&mut self, number: u32) {
        if let Some(deadline) = self.deadline(number) {
            self.wheel.arm(&mut self.slots, number, deadline);
        }
    }

    /// Looks after the connections whose time has come. Of those whose time is over it closes a
    /// few; the others' turn is the next one.
    pub(crate) fn expire(&mut self, now: Now) {
        let tick = self.tick(now);
        let mut expired = 0;
        self.expiring = false;
        while let Some(number) = self.wheel.next(&mut self.slots, tick) {
            match self.deadline(number) {
                Some(deadline) if deadline > tick => {
                    self.wheel.arm(&mut self.slots, number, deadline);
                }
                Some(_) => {
                    self.expired(now, number);
                    expired += 1;
                    if expired == EXPIRED_A_TURN {
                        self.expiring = true;
                        return;
                    }
                }
                None => {}
            }
        }
    }

    /// The tick at which a connection has been in its state, or silent, for too long.
    fn deadline(&self, number: u32) -> Option<u32> {
        let slot = self.slots.at(number);
        // A heartbeat may come at any moment of its tick.
        let silence = |heartbeat_s: u64| {
            let ms = heartbeat_s * 1_000 * SILENCE_HALF_HEARTBEATS / 2;
            slot.heard() + ms.div_ceil(TICK_MS) as u32 + 1
        };
        let opening = (OPENING_TIMEOUT_MS / TICK_MS) as u32;
        match &slot.state {
            State::Fresh { since, .. } => Some(since + opening),
            // The server is at work; its client waits.
            State::Checking => Some(self.wheel.tick() + opening),
            State::Live(live) => Some(silence(live.heartbeat_s.into())),
            State::Operator { .. } => Some(silence(MAX_HEARTBEAT_S.into())),
            State::Closing { since } => Some(since + (LINGER_MS / TICK_MS) as u32),
            State::Free { .. } | State::Leaving(_) | State::Moving => None,
        }
    }

    fn expired(&mut self, now: Now, number: u32) {
        match self.slots.at(number).state.phase() {
            Phase::Opening => self.close(now, number, ErrorCode::OpeningTimeout),
            Phase::Session | Phase::Operator => self.close(now, number, ErrorCode::Silent),
            Phase::Closing => self.tell_close(number),
            Phase::Checking => {}
        }
    }
}
