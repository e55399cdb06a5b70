//! The facade: every input of a shard comes in here, every effect leaves here.

use crate::{
    Counters, Effect, HashDone, Hop, Keyring, Migrant, Now, Reading, Settings, route::Route,
    snowflake::Snowflake,
};
use starling_codec::{
    Answer, Delivery, ErrorCode, Kind, Outcome, Place, Ticket, UserId, append_frame, wire,
};
use std::collections::VecDeque;

/// The core of one shard. See the crate's documentation for how it is driven.
pub struct Engine {
    settings: Settings,
    keyring: Keyring,
    route: Route,
    ids: Snowflake,
    effects: VecDeque<Effect>,
    dirty: VecDeque<Ticket>,
    counters: Counters,
    draining: Option<ErrorCode>,
    refusing_sends: Option<ErrorCode>,
}

impl Engine {
    pub fn new(settings: Settings, keyring: Keyring, now: Now) -> Engine {
        let _ = now;
        Engine {
            keyring,
            route: Route::even(settings.shards),
            ids: Snowflake::new(settings.shard, settings.id_floor_ms),
            effects: VecDeque::new(),
            dirty: VecDeque::new(),
            counters: Counters::new(settings.credits),
            draining: None,
            refusing_sends: None,
            settings,
        }
    }

    /// A connection was accepted. `OVERLOAD` if there are as many as may be, `DRAINING` at the
    /// end: [`Engine::farewell`] is then what to write before closing it.
    pub fn open(&mut self, now: Now) -> Result<Ticket, ErrorCode> {
        let _ = now;
        Err(self.draining.unwrap_or(ErrorCode::Overload))
    }

    /// The CLOSE frame for a connection that [`Engine::open`] refused.
    pub fn farewell(code: ErrorCode, retry_after_ms: u32) -> Vec<u8> {
        let mut frame = Vec::new();
        let close = wire::Close { code: code as u32, retry_after_ms, ..Default::default() };
        append_frame(&mut frame, Kind::Close, &close);
        frame
    }

    /// A connection that [`Effect::Move`] sent here.
    pub fn adopt(&mut self, now: Now, migrant: Migrant) -> Ticket {
        let _ = (now, migrant);
        Ticket { shard: self.settings.shard, slot: 0, generation: 0 }
    }

    /// Bytes arrived. They need not be whole frames.
    pub fn receive(&mut self, now: Now, ticket: Ticket, bytes: &[u8]) -> Reading {
        let _ = (now, ticket, bytes);
        Reading::Stop
    }

    /// The socket is gone: the last that is heard of a ticket.
    pub fn closed(&mut self, now: Now, ticket: Ticket) {
        let _ = (now, ticket);
    }

    /// From the engine of another shard.
    pub fn hop(&mut self, now: Now, hop: Hop) {
        let _ = (now, hop);
        self.counters.hops_in += 1;
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
        let _ = (now, outcomes, deliveries);
    }

    /// Deliveries that found no room in their lane, folded to the new heads.
    pub fn folded(&mut self, now: Now, heads: &[(UserId, Place)]) {
        let _ = (now, heads);
    }

    /// The answer to an [`Effect::Ask`].
    pub fn answered(&mut self, now: Now, key: u64, answer: Answer) {
        let _ = (now, key, answer);
    }

    /// The end of an [`Effect::Hash`].
    pub fn hashed(&mut self, now: Now, key: u64, done: HashDone) {
        let _ = (now, key, done);
    }

    /// The counters of the process, for an [`Effect::Stats`].
    pub fn counted(&mut self, now: Now, key: u64, counters: Vec<wire::Counter>) {
        let _ = (now, key, counters);
    }

    /// The end of a turn, after all inputs that were there: timers that are due, and the one way
    /// out for events. Then come the effects, and then the output of dirty connections.
    pub fn turn(&mut self, now: Now) {
        let _ = now;
        self.counters.turns += 1;
    }

    /// When the next turn is due though nothing comes in, in milliseconds of `mono_ms`; a time
    /// that is past means at once.
    pub fn wake_at(&self) -> Option<u64> {
        None
    }

    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A connection with output that was not there when it was last named.
    pub fn next_dirty(&mut self) -> Option<Ticket> {
        self.dirty.pop_front()
    }

    /// What is to be written to a connection; empty for a ticket that is gone.
    pub fn output(&self, ticket: Ticket) -> &[u8] {
        let _ = ticket;
        &[]
    }

    /// So many bytes of the output were written.
    pub fn written(&mut self, now: Now, ticket: Ticket, bytes: usize) {
        let _ = (now, ticket, bytes);
    }

    /// Says CLOSE with `code` to everybody and refuses whoever comes.
    pub fn drain(&mut self, now: Now, code: ErrorCode) {
        let _ = now;
        self.draining = Some(code);
    }

    /// While there is a code, which must be a retryable one, the door refuses every send with it
    /// (`DISK_FULL`), and commands of requests too.
    pub fn refuse_commands(&mut self, code: Option<ErrorCode>) {
        self.refusing_sends = code;
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
