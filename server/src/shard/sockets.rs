//! What happens at sockets: accepted, ready, read, closed, lingering.

use super::{BUFFER_BYTES, Shard, State};
use crate::net::{
    self, Ready,
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

/// What is read at once of a connection that gives way to the others. The largest opener takes two.
const GUEST_BYTES: usize = 4 * 1024;

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
                self.hold(&mut state, ticket, socket);
                if let Some(link) = state.links.get(ticket) {
                    link.reading = true;
                }
            }
            Err(code) => self.turn_away(&mut state, socket, code),
        }
    }

    /// Holds a socket from now on. One that cannot be watched is as good as broken.
    pub(super) fn hold(&self, state: &mut State, ticket: Ticket, socket: OwnedFd) {
        state.counters.watch_calls += 1;
        let watched = state.readiness.add(socket.as_fd(), ticket);
        state.links.insert(ticket, socket);
        if let Err(error) = watched {
            tracing::warn!(%error, "a connection cannot be watched, and is closed");
            self.close(state, ticket);
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
        state.counters.shutdown_calls += 1;
        let watch = self.watch(&socket);
        let now_ms = state.clock.now().mono_ms;
        let number = state.lingering.push(socket, now_ms);
        self.spawn(net::linger(Rc::clone(self), number, watch));
    }

    /// Something came to a socket.
    pub(super) fn socket_ready(&self, state: &mut State, ready: Ready) {
        let Some(link) = state.links.get(ready.ticket) else { return };
        link.ended |= ready.ended;
        if ready.writable && std::mem::take(&mut link.blocked) {
            state.unblocked.push(ready.ticket);
        }
        if ready.readable {
            self.read(state, ready.ticket);
        }
    }

    /// Reads once from a socket, if the engine wants to hear from it; when the others have been
    /// read, if it is one that gives way to them.
    pub(super) fn read(&self, state: &mut State, ticket: Ticket) {
        let Some(link) = state.links.get(ticket) else { return };
        if !state.engine.yields(ticket) {
            self.read_now(state, ticket, BUFFER_BYTES);
        } else if !std::mem::replace(&mut link.waits, true) {
            state.guests.push_back(ticket);
        }
    }

    /// Reads from one of those that gave way to the others. Whether there was one.
    pub(super) fn read_guest(&self, state: &mut State) -> bool {
        let Some(ticket) = state.guests.pop_front() else { return false };
        if let Some(link) = state.links.get(ticket) {
            link.waits = false;
            state.counters.guest_reads += 1;
            self.read_now(state, ticket, GUEST_BYTES);
        }
        true
    }

    fn read_now(&self, state: &mut State, ticket: Ticket, most: usize) {
        let Some(link) = state.links.get(ticket).filter(|link| link.reading) else { return };
        state.counters.recv_calls += 1;
        match socket::receive(link.socket(), &mut state.buffer[..most]) {
            Received::Bytes(bytes) => {
                state.counters.recv_bytes += bytes as u64;
                let now = state.clock.now();
                let reading = state.engine.receive(now, ticket, &state.buffer[..bytes]);
                link.reading = reading == Reading::More;
                // Of what is left the set does not tell again.
                if bytes == most || link.ended {
                    state.unread.push(ticket);
                }
            }
            Received::Nothing => {}
            Received::End => self.close(state, ticket),
        }
    }

    /// Throws away what a lingering socket brings. Whether it goes on lingering.
    pub fn discard(&self, number: u64) -> bool {
        let state = &mut *self.state.borrow_mut();
        let Some(socket) = state.lingering.get(number) else { return false };
        state.counters.recv_calls += 1;
        let lingers = match socket::receive(socket, &mut state.buffer[..GUEST_BYTES]) {
            Received::Bytes(bytes) => {
                let goes_on = state.lingering.may_go_on(number, bytes);
                state.counters.lingering_cut += u64::from(!goes_on);
                goes_on
            }
            Received::Nothing => true,
            Received::End => false,
        };
        if !lingers {
            state.lingering.remove(number);
        }
        lingers
    }

    /// The socket is gone, or broken: it is closed and the engine told.
    pub(super) fn close(&self, state: &mut State, ticket: Ticket) {
        // Dropped, it leaves the set too.
        if state.links.take(ticket).is_none() {
            return;
        }
        state.counters.close_calls += 1;
        self.commons.orders.release();
        state.engine.closed(state.clock.now(), ticket);
    }

    /// The listener was asked who waits.
    pub fn count_accept_call(&self) {
        self.state.borrow_mut().counters.accept_calls += 1;
    }

    /// Accepting paused because there was no descriptor or memory.
    pub fn count_accept_pause(&self) {
        self.state.borrow_mut().counters.accept_pauses += 1;
    }
}

impl State {
    /// The engine wants to hear from a connection again, also what came meanwhile.
    pub(super) fn read_on(&mut self, ticket: Ticket) {
        if let Some(link) = self.links.get(ticket) {
            link.reading = true;
            self.unread.push(ticket);
        }
    }

    /// A socket that goes on living elsewhere.
    pub(super) fn let_go(&mut self, ticket: Ticket) -> Option<OwnedFd> {
        let socket = self.links.take(ticket)?;
        self.counters.watch_calls += 1;
        self.readiness.remove(socket.as_fd());
        Some(socket)
    }
}
