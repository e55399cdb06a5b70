//! The facade: every input of a shard comes in here, every effect leaves here. What is done
//! about them stands in the files named after the things: this one only says who does it.

use crate::{
    Counters, Effect, HashDone, Hop, Keyring, Migrant, Now, Reading, Settings,
    backlog::Backlog,
    connection::{Slab, State},
    conversation::Conversations,
    outlet::Outlet,
    receipts::Receipts,
    route::Route,
    snowflake::Snowflake,
    user::Users,
    waiting::{Reply, Waiting, Waitlist},
    wheel::{TICK_MS, Wheel},
};
use starling_codec::{
    Answer, Command, Delivery, ErrorCode, Kind, Origin, Outcome, Place, Query, Submission, Ticket,
    UserId, append_frame, limits::OPENING_TIMEOUT_MS, wire,
};
use std::collections::VecDeque;

/// The core of one shard. See the crate's documentation for how it is driven.
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) keyring: Keyring,
    pub(crate) route: Route,
    pub(crate) ids: Snowflake,
    /// `mono_ms` of tick 0.
    start_ms: u64,
    pub(crate) slots: Slab,
    pub(crate) wheel: Wheel,
    pub(crate) users: Users,
    pub(crate) conversations: Conversations,
    pub(crate) backlog: Backlog,
    pub(crate) waiting: Waitlist,
    pub(crate) outlet: Outlet,
    pub(crate) receipts: Receipts,
    /// Commands that may still be given out.
    pub(crate) credits: u32,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) dirty: VecDeque<Ticket>,
    pub(crate) counters: Counters,
    /// State of the spread of times to try again.
    pub(crate) spread: u32,
    /// There are more whose time is over than a turn closes.
    pub(crate) expiring: bool,
    draining: Option<ErrorCode>,
    refusing: Option<ErrorCode>,
}

impl Engine {
    pub fn new(settings: Settings, keyring: Keyring, now: Now) -> Engine {
        Engine {
            keyring,
            route: Route::even(settings.shards),
            ids: Snowflake::new(settings.shard, settings.id_floor_ms),
            start_ms: now.mono_ms,
            slots: Slab::new(settings.shard),
            wheel: Wheel::new(),
            users: Users::default(),
            conversations: Conversations::new(settings.max_known_conversations),
            backlog: Backlog::new(),
            waiting: Waitlist::new(settings.shard),
            outlet: Outlet::default(),
            receipts: Receipts::default(),
            credits: settings.credits,
            effects: VecDeque::new(),
            dirty: VecDeque::new(),
            counters: Counters::new(settings.credits),
            spread: 0,
            expiring: false,
            draining: None,
            refusing: None,
            settings,
        }
    }

    /// A connection was accepted. `OVERLOAD` if there are as many as may be, `DRAINING` at the
    /// end: [`Engine::farewell`] is then what to write before closing it.
    pub fn open(&mut self, now: Now) -> Result<Ticket, ErrorCode> {
        let full = self.slots.used() >= self.settings.max_connections;
        match self.draining.or(full.then_some(ErrorCode::Overload)) {
            Some(code) => {
                self.counters.closing(code);
                Err(code)
            }
            None => {
                self.counters.opened += 1;
                let since = self.tick(now);
                Ok(self.place(now, State::Fresh { since, known: false }))
            }
        }
    }

    /// The CLOSE frame for a connection that [`Engine::open`] refused.
    pub fn farewell(code: ErrorCode, retry_after_ms: u32) -> Vec<u8> {
        let mut frame = Vec::new();
        let close = wire::Close { code: code as u32, retry_after_ms, ..Default::default() };
        append_frame(&mut frame, Kind::Close, &close);
        frame
    }

    /// A connection that [`Effect::Move`] sent here. Reading from it goes on with
    /// [`Effect::Read`].
    pub fn adopt(&mut self, now: Now, migrant: Migrant) -> Ticket {
        self.counters.moved_in += 1;
        let ticket = self.place(now, State::Checking);
        self.slots.at_mut(ticket.slot).stopped = true;
        self.keep_input(now, ticket.slot, migrant.rest, true);
        if !migrant.unsent.is_empty() {
            *self.slots.activity(ticket.slot).output() = migrant.unsent;
            self.mark_dirty(ticket.slot);
        }
        match self.draining {
            Some(code) => self.close(now, ticket.slot, code),
            None => self.greet(ticket, migrant.identity, migrant.hello),
        }
        ticket
    }

    fn place(&mut self, now: Now, state: State) -> Ticket {
        let tick = self.tick(now);
        let ticket = self.slots.insert(state, tick);
        let timeout = (OPENING_TIMEOUT_MS / TICK_MS) as u32;
        self.wheel.arm(&mut self.slots, ticket.slot, tick + timeout);
        self.counters.connections += 1;
        ticket
    }

    /// Bytes arrived. They need not be whole frames.
    pub fn receive(&mut self, now: Now, ticket: Ticket, bytes: &[u8]) -> Reading {
        match self.slots.find(ticket) {
            Some(number) => self.take_in(now, number, bytes),
            None => Reading::Stop,
        }
    }

    /// Whether what this connection sends is to wait for the others': it is no session yet, or
    /// what it sent within this second brought nothing.
    pub fn yields(&self, ticket: Ticket) -> bool {
        self.slots.find(ticket).is_none_or(|number| self.slots.at(number).yields())
    }

    /// The socket is gone: the last that is heard of a ticket.
    pub fn closed(&mut self, now: Now, ticket: Ticket) {
        let Some(number) = self.slots.find(ticket) else { return };
        self.end_session(now, number);
        self.backlog.forget(&mut self.slots, number);
        self.wheel.disarm(&mut self.slots, number);
        self.slots.remove(number);
        self.counters.connections -= 1;
    }

    /// From the engine of another shard.
    pub fn hop(&mut self, now: Now, hop: Hop) {
        self.counters.hops_in += 1;
        match hop {
            Hop::Send(send) => self.converse(now, send),
            Hop::Refused { ticket, send_no, code } => {
                self.credits += 1;
                self.tell_refused(ticket, send_no, code);
            }
            Hop::Revoke { origin, user, device, serial } => {
                self.revoke(now, user, device, serial);
                self.hop_to(origin.shard, Hop::Revoked { key: origin.key });
            }
            Hop::Revoked { key } => {
                self.credits += 1;
                self.go_on(now, key, Reply::Revoked);
            }
        }
    }

    /// One announcement of the committer, as far as it concerns this shard: outcomes of commands
    /// whose origin is here, each with the key of its origin, and deliveries to users whose home
    /// is here.
    pub fn announced(
        &mut self,
        now: Now,
        outcomes: impl IntoIterator<Item = (u64, Outcome)>,
        deliveries: impl IntoIterator<Item = Delivery>,
    ) {
        for (key, outcome) in outcomes {
            self.credits += 1;
            match outcome {
                Outcome::Appended(accepted) => {
                    self.tell_accepted(Ticket::from_key(self.settings.shard, key), accepted);
                }
                Outcome::Repeated(accepted) => {
                    self.tell_repeated(Ticket::from_key(self.settings.shard, key), accepted);
                }
                Outcome::SendRefused { send_no, code } => {
                    self.tell_refused(Ticket::from_key(self.settings.shard, key), send_no, code)
                }
                outcome => match Waitlist::whose_cursor(key) {
                    Some(user) => self.users.leave(user),
                    None => self.go_on(now, key, Reply::Outcome(outcome)),
                },
            }
        }
        for delivery in deliveries {
            self.deliver(delivery);
        }
    }

    /// Deliveries that found no room in their lane, folded to the new heads.
    pub fn folded(&mut self, _now: Now, heads: &[(UserId, Place)]) {
        for &(user, head) in heads {
            self.counters.folded += 1;
            self.raise_head(user, head);
        }
    }

    /// The answer to an [`Effect::Ask`].
    pub fn answered(&mut self, now: Now, key: u64, answer: Answer) {
        self.go_on(now, key, Reply::Answer(answer));
    }

    /// The end of an [`Effect::Hash`].
    pub fn hashed(&mut self, now: Now, key: u64, done: HashDone) {
        self.go_on(now, key, Reply::Hash(done));
    }

    /// The counters of the process, for an [`Effect::Stats`].
    pub fn counted(&mut self, now: Now, key: u64, counters: Vec<wire::Counter>) {
        self.go_on(now, key, Reply::Counters(counters));
    }

    fn go_on(&mut self, now: Now, key: u64, reply: Reply) {
        match self.waiting.take(key) {
            Some(Waiting::Greeting(greeting)) => self.welcome(now, *greeting, reply),
            Some(Waiting::Account(ticket, account)) => {
                self.account_goes_on(now, ticket, *account, reply)
            }
            Some(Waiting::Request(ticket, request)) => {
                self.request_goes_on(now, ticket, request, reply)
            }
            Some(Waiting::Inbox(ticket, bytes)) => self.inbox_read(now, ticket, bytes, reply),
            Some(Waiting::Regain(ticket, until)) => self.regained(now, ticket, until, reply),
            Some(Waiting::Conversation(conversation)) => {
                self.conversation_known(now, conversation, reply)
            }
            None => self.counters.late += 1,
        }
    }

    /// The end of a turn, after all inputs that were there: timers that are due, and the one way
    /// out for events. Then come the effects, and then the output of dirty connections.
    pub fn turn(&mut self, now: Now) {
        self.counters.turns += 1;
        self.expire(now);
        self.store_due_cursors(now);
        self.let_out();
        self.counters.users = self.users.len() as u64;
        self.counters.unfinished_bytes = self.backlog.bytes() as u64;
        self.receipts.trim();
        self.outlet.trim();
        trim(&mut self.dirty);
    }

    /// Nothing has happened for a while: gives back what only a busy shard needs, and forgets what
    /// is found out again at little cost.
    pub fn rest(&mut self) {
        self.slots.rest();
        self.conversations.rest();
        self.waiting.rest();
        self.outlet.rest();
        self.receipts.rest();
        self.effects.shrink_to_fit();
        self.dirty.shrink_to_fit();
    }

    /// When the next turn is due though nothing comes in, in milliseconds of `mono_ms`; a time
    /// that is past means at once.
    pub fn wake_at(&self) -> Option<u64> {
        let at_once = !self.effects.is_empty() || !self.dirty.is_empty();
        if at_once || self.expiring || self.outlet.has_work() {
            return Some(0);
        }
        let cursors = self.receipts.due_ms().filter(|_| self.may_submit().is_ok());
        let timers = (!self.wheel.is_idle())
            .then(|| self.start_ms + (u64::from(self.wheel.tick()) + 1) * TICK_MS);
        cursors.into_iter().chain(timers).min()
    }

    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A connection with output that was not there when it was last named.
    pub fn next_dirty(&mut self) -> Option<Ticket> {
        while let Some(ticket) = self.dirty.pop_front() {
            if let Some(number) = self.slots.find(ticket) {
                self.slots.at_mut(number).dirty = false;
                return Some(ticket);
            }
        }
        None
    }

    /// What is to be written to a connection; empty for a ticket that is gone.
    pub fn output(&self, ticket: Ticket) -> &[u8] {
        self.slots.find(ticket).map_or(&[], |number| self.slots.unsent(number))
    }

    /// So many bytes of the output were written.
    pub fn written(&mut self, now: Now, ticket: Ticket, bytes: usize) {
        if let Some(number) = self.slots.find(ticket) {
            self.note_written(now, number, bytes);
        }
    }

    /// Says CLOSE with `code` to everybody and refuses whoever comes.
    pub fn drain(&mut self, now: Now, code: ErrorCode) {
        self.draining = Some(code);
        for number in 0..self.slots.capacity() {
            match self.slots.at(number).state {
                State::Free { .. } | State::Moving | State::Closing { .. } => {}
                _ => self.close(now, number, code),
            }
        }
    }

    /// While there is a code, which must be a retryable one, the door refuses every send with it
    /// (`DISK_FULL`), and requests that would change the store too.
    pub fn refuse_commands(&mut self, code: Option<ErrorCode>) {
        self.refusing = code;
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn tick(&self, now: Now) -> u32 {
        (now.mono_ms.saturating_sub(self.start_ms) / TICK_MS) as u32
    }

    /// Whether there is a credit for a command, or why not.
    fn may_submit(&self) -> Result<(), ErrorCode> {
        let short = (self.credits == 0).then_some(ErrorCode::Overload);
        self.refusing.or(short).map_or(Ok(()), Err)
    }

    /// Takes a credit for a command, or says why there is none.
    pub(crate) fn take_credit(&mut self) -> Result<(), ErrorCode> {
        self.may_submit()?;
        self.credits -= 1;
        self.counters.credits_low = self.counters.credits_low.min(self.credits.into());
        Ok(())
    }

    /// Hands a command, for which a credit was taken, to the committer.
    pub(crate) fn submit(&mut self, origin: Origin, command: Command) {
        self.counters.commands += 1;
        self.effects.push_back(Effect::Submit(Submission { origin, command }));
    }

    pub(crate) fn ask(&mut self, waiting: Waiting, query: Query) {
        self.counters.reads += 1;
        let origin = self.waiting.wait(waiting);
        self.effects.push_back(Effect::Ask(origin, query));
    }

    pub(crate) fn hop_to(&mut self, shard: u16, hop: Hop) {
        self.counters.hops_out += 1;
        self.effects.push_back(Effect::Hop(shard, hop));
    }
}

/// Gives back the room that a queue needed in a storm.
pub(crate) fn trim<T>(queue: &mut VecDeque<T>) {
    const KEPT: usize = 1_024;
    if queue.is_empty() && queue.capacity() > 2 * KEPT {
        queue.shrink_to(KEPT);
    }
}
