//! What the tasks of connections call: accepted, readable, writable, lingering.

use super::{Shard, State};
use crate::net::{
    self,
    socket::{self, Received},
};
use starling_codec::{ErrorCode, Ticket};
use starling_engine::{Engine, Reading};
use std::{
    net::Shutdown,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

/// What a refused connection is told to wait at least, and at most so much longer, so that not
/// all come back at once. Milliseconds.
const RETRY_AFTER_MS: u32 = 2_000;
const RETRY_SPREAD_MS: u32 = 4_000;

impl Shard {
    /// A connection was accepted.
    pub fn accepted(self: &Rc<Self>, socket: OwnedFd) {
        let mut state = self.state.borrow_mut();
        state.counters.accepted += 1;
        let now = state.clock.now();
        let opened = if self.commons.orders.admit() {
            state.engine.open(now).inspect_err(|_| self.commons.orders.release())
        } else {
            Err(ErrorCode::Overload)
        };
        match opened {
            Ok(ticket) => {
                state.links.insert(ticket, socket);
                self.start_reading(&mut state, ticket);
            }
            Err(code) => self.turn_away(&mut state, socket, code),
        }
        self.ask_for_turn();
    }

    pub(super) fn start_reading(self: &Rc<Self>, state: &mut State, ticket: Ticket) {
        let Some(link) = state.links.get(ticket) else { return };
        if !link.reading {
            link.reading = true;
            let watch = self.watch(&link.socket());
            state.counters.polls += 1;
            monoio::spawn(net::read(Rc::clone(self), ticket, watch));
        }
    }

    fn turn_away(self: &Rc<Self>, state: &mut State, socket: OwnedFd, code: ErrorCode) {
        state.counters.accept_refused += 1;
        // Any spread does; the count of those refused is one.
        let spread_ms =
            (state.counters.accept_refused as u32).wrapping_mul(1_237) % RETRY_SPREAD_MS;
        let farewell = Engine::farewell(code, RETRY_AFTER_MS + spread_ms);
        state.counters.send_calls += 1;
        // A new socket has room; if it is broken already there is nobody to tell.
        let _ = socket::send(socket.as_fd(), &farewell);
        self.let_linger(state, socket);
    }

    /// Ends our side of a socket and lets the peer end its own.
    pub(super) fn let_linger(self: &Rc<Self>, state: &mut State, socket: OwnedFd) {
        socket::shut_down(socket.as_fd(), Shutdown::Write);
        let watch = self.watch(&socket);
        let now_ms = state.clock.now().mono_ms;
        let number = state.lingering.push(socket, now_ms);
        state.counters.polls += 1;
        monoio::spawn(net::linger(Rc::clone(self), number, watch));
    }

    /// There is something to read, or the end of it.
    pub fn readable(self: &Rc<Self>, ticket: Ticket) -> Reading {
        let state = &mut *self.state.borrow_mut();
        state.counters.polls_done += 1;
        self.ask_for_turn();
        let Some(link) = state.links.get(ticket) else { return Reading::Stop };
        state.counters.recv_calls += 1;
        let reading = match socket::receive(link.socket(), &mut state.buffer) {
            Received::Bytes(bytes) => {
                state.counters.recv_bytes += bytes as u64;
                state.engine.receive(state.clock.now(), ticket, &state.buffer[..bytes])
            }
            Received::Nothing => Reading::More,
            Received::End => {
                self.close(state, ticket);
                return Reading::Stop;
            }
        };
        link.reading = reading == Reading::More;
        state.counters.polls += u64::from(link.reading);
        reading
    }

    /// The socket has room again.
    pub fn writable(&self, ticket: Ticket) {
        let mut state = self.state.borrow_mut();
        state.counters.polls_done += 1;
        if let Some(link) = state.links.get(ticket) {
            link.blocked = false;
            state.unblocked.push(ticket);
        }
        self.ask_for_turn();
    }

    /// Throws away what a lingering socket brings. Whether it goes on lingering.
    pub fn discard(&self, number: u64) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.counters.polls_done += 1;
        let Some(socket) = state.lingering.get(number) else { return false };
        state.counters.recv_calls += 1;
        match socket::receive(socket, &mut state.buffer) {
            Received::Bytes(_) | Received::Nothing => {
                state.counters.polls += 1;
                true
            }
            Received::End => {
                state.lingering.remove(number);
                // A shard that ends waits for the last one.
                self.ask_for_turn();
                false
            }
        }
    }

    /// The socket is gone, or broken: it is closed and the engine told.
    pub(super) fn close(&self, state: &mut State, ticket: Ticket) {
        let Some(socket) = state.links.take(ticket) else { return };
        // Completes the polls of whoever still watches it.
        socket::shut_down(socket.as_fd(), Shutdown::Both);
        self.commons.orders.release();
        state.engine.closed(state.clock.now(), ticket);
    }

    /// Accepting paused because there was no descriptor or memory.
    pub fn count_accept_pause(&self) {
        self.state.borrow_mut().counters.accept_pauses += 1;
    }
}
