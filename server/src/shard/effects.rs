//! Doing what the engine wants done.

use super::{Shard, State, StatsRequest};
use crate::{
    mesh::{MAX_REPLIES, Parcel},
    net::socket::{self, Sent},
};
use starling_codec::{Command, Origin, Query, Ticket};
use starling_engine::{Effect, HashDone, HashWork, Now};
use std::rc::Rc;

/// How long counters of a shard that does not turn are waited for.
const STATS_WAIT_MS: u64 = 1_000;
/// What a client is told to wait when too many passwords wait already.
const BUSY_RETRY_AFTER_MS: u32 = 2_000;

/// Guesses whether a page of an inbox is out of memory: to find that out takes a good part of the
/// time that reading it takes. After several that were, only one in some is looked for.
#[derive(Default)]
pub(super) struct Cold {
    in_a_row: u8,
    guesses: u8,
}

const COLD_AFTER: u8 = 4;
const GUESSES: u8 = 8;

impl Cold {
    fn is_likely(&mut self) -> bool {
        if self.in_a_row < COLD_AFTER || self.guesses == GUESSES {
            self.guesses = 0;
            return false;
        }
        self.guesses += 1;
        true
    }

    fn note(&mut self, was_cold: bool) {
        self.in_a_row = if was_cold { self.in_a_row.saturating_add(1) } else { 0 };
    }
}

/// The hands of one turn.
pub(super) struct Hands<'a> {
    pub shard: &'a Rc<Shard>,
    pub state: &'a mut State,
    pub now: Now,
}

impl Hands<'_> {
    /// Does all that the engine wants by now, in order. Whether there was anything.
    pub fn do_effects(&mut self) -> bool {
        let mut any = false;
        while let Some(effect) = self.state.engine.next_effect() {
            any = true;
            match effect {
                Effect::Submit(submission) => self.submit(submission),
                Effect::Ask(origin, query) => self.ask(origin, query),
                Effect::Hop(shard, hop) => self.send(shard, Parcel::Hop(hop)),
                Effect::Hash(origin, work) => self.hash(origin, work),
                Effect::Stats(origin) => self.request_stats(origin),
                Effect::Move(ticket, shard, migrant) => {
                    self.move_away(ticket, shard, Box::new(migrant));
                }
                Effect::Read(ticket) => self.state.read_on(ticket),
                Effect::Close(ticket) => self.say_good_bye(ticket),
            }
        }
        if any {
            // The commands of this turn become one commit, and wake the committer once.
            self.shard.commons.store.wake();
        }
        any
    }

    fn submit(&mut self, submission: starling_codec::Submission) {
        if let Command::CreateUsers { drafts, .. } = &submission.command {
            tracing::info!(users = drafts.len(), "users are being made");
        }
        let Shard { number, commons, .. } = &**self.shard;
        if commons.store.queue(*number, submission).is_err() {
            // The credits of all shards fit, so the store is closed: the process is ending, and
            // who waits for the outcome repeats.
            tracing::debug!("a command came after the end of the store");
        }
    }

    fn ask(&mut self, origin: Origin, query: Query) {
        let catches_up = matches!(query, Query::Inbox { .. });
        if catches_up && self.state.cold.is_likely() {
            return self.ask_later(origin, query);
        }
        let answer = self.shard.commons.store.read_now(&query);
        if catches_up {
            self.state.cold.note(answer.is_none());
        }
        match answer {
            Some(answer) => {
                self.state.counters.reads_now += 1;
                self.state.engine.answered(self.now, origin.key, answer);
            }
            None => self.ask_later(origin, query),
        }
    }

    fn ask_later(&mut self, origin: Origin, query: Query) {
        if !self.try_ask(origin, query) {
            self.state.counters.questions_delayed += 1;
        }
    }

    /// Hands a question to a reader, or keeps it for the next turn. Whether it went.
    fn try_ask(&mut self, origin: Origin, query: Query) -> bool {
        let refused = if self.state.may_ask() {
            self.shard.commons.store.read_later(origin, query).err()
        } else {
            Some(query)
        };
        match refused {
            Some(query) => self.state.questions.push_front((origin, query)),
            None => {
                self.state.replies_due += 1;
                self.state.counters.reads_later += 1;
                return true;
            }
        }
        false
    }

    /// Asks again what no reader had room for.
    pub fn retry_questions(&mut self) {
        while let Some((origin, query)) = self.state.questions.pop_front() {
            if !self.try_ask(origin, query) {
                break;
            }
        }
    }

    fn hash(&mut self, origin: Origin, work: HashWork) {
        let busy = HashDone::Busy { retry_after_ms: BUSY_RETRY_AFTER_MS };
        let queued = if self.state.replies_due < MAX_REPLIES {
            self.shard.commons.hashing.queue(origin, work)
        } else {
            Err(busy)
        };
        match queued {
            Ok(()) => self.state.replies_due += 1,
            Err(done) => self.state.engine.hashed(self.now, origin.key, done),
        }
    }

    fn request_stats(&mut self, origin: Origin) {
        let request = self.shard.commons.board.request();
        self.shard.commons.mesh.ring_all();
        let until_ms = self.now.mono_ms + STATS_WAIT_MS;
        self.state.stats.push(StatsRequest { key: origin.key, request, until_ms });
    }

    fn send(&mut self, shard: u16, parcel: Parcel) {
        let port = self.shard.commons.mesh.port(shard);
        let waiting = &mut self.state.waiting[usize::from(shard)];
        if waiting.send(port.parcels_from(self.shard.number), parcel) {
            port.doorbell.ring();
        }
        self.state.counters.parcels_delayed += u64::from(!waiting.is_empty());
    }

    /// Sends again what found its lane full.
    pub fn retry_parcels(&mut self) {
        for (port, waiting) in self.shard.commons.mesh.ports().zip(&mut self.state.waiting) {
            if waiting.retry(port.parcels_from(self.shard.number)) {
                port.doorbell.ring();
            }
        }
    }

    fn move_away(&mut self, ticket: Ticket, shard: u16, migrant: Box<starling_engine::Migrant>) {
        let Some(socket) = self.state.let_go(ticket) else { return };
        self.state.engine.closed(self.now, ticket);
        self.send(shard, Parcel::Move { socket, migrant });
    }

    fn say_good_bye(&mut self, ticket: Ticket) {
        let Some(socket) = self.state.let_go(ticket) else { return };
        self.shard.commons.orders.release();
        self.state.engine.closed(self.now, ticket);
        self.shard.let_linger(self.state, socket);
    }

    /// Writes the output of every connection that has some, up to a budget. Whether there was
    /// any, and whether the budget was enough.
    pub fn flush(&mut self, budget: usize) -> (bool, bool) {
        for index in 0..budget {
            let Some(ticket) = self.state.engine.next_dirty() else { return (index > 0, true) };
            self.flush_one(ticket);
        }
        (true, false)
    }

    /// Writes to those whose sockets had no room and now have.
    pub fn flush_unblocked(&mut self) {
        let mut unblocked = std::mem::take(&mut self.state.unblocked);
        unblocked.drain(..).for_each(|ticket| self.flush_one(ticket));
        // Kept for its allocation; nothing was pushed meanwhile, as no task ran.
        self.state.unblocked = unblocked;
    }

    fn flush_one(&mut self, ticket: Ticket) {
        let State { engine, links, counters, .. } = &mut *self.state;
        let Some(link) = links.get(ticket) else { return };
        let output = engine.output(ticket);
        if link.blocked || output.is_empty() {
            return;
        }
        counters.send_calls += 1;
        let wanted = output.len();
        let written = match socket::send(link.socket(), output) {
            Sent::Bytes(bytes) => bytes,
            Sent::Full => 0,
            Sent::Broken => {
                self.shard.close(self.state, ticket);
                return;
            }
        };
        counters.send_bytes += written as u64;
        if written < wanted {
            counters.send_blocked += 1;
            link.blocked = true;
        }
        if written > 0 {
            engine.written(self.now, ticket, written);
        }
    }
}
