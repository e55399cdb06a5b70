//! Sockets that have been said good-bye to, for at most a short while, and at most so many. See
//! net/linger.rs for why.

use crate::net::socket;
use std::{
    collections::VecDeque,
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// How long one lingers at most.
const LINGER_MS: u64 = 2_000;
/// So many linger at once in a shard; then the oldest goes. Part of the budget of descriptors.
pub const MAX_LINGERING: usize = 64;

/// What one may still bring. Who goes on sending without a look at the CLOSE is cut off.
const MAX_DISCARDED_BYTES: usize = 64 * 1024;

#[derive(Debug)]
struct Socket {
    descriptor: OwnedFd,
    discarded_bytes: usize,
}

/// The lingering sockets of a shard, oldest first.
#[derive(Debug, Default)]
pub struct Lingering {
    sockets: VecDeque<Option<Socket>>,
    deadlines_ms: VecDeque<u64>,
    /// The number of the front; numbers rise by one.
    first: u64,
    closed: u64,
    shut_down: u64,
}

impl Lingering {
    /// Takes a socket in; its number.
    pub fn push(&mut self, socket: OwnedFd, now_ms: u64) -> u64 {
        if self.sockets.len() >= MAX_LINGERING {
            self.drop_front();
        }
        self.sockets.push_back(Some(Socket { descriptor: socket, discarded_bytes: 0 }));
        self.deadlines_ms.push_back(now_ms + LINGER_MS);
        self.first + self.sockets.len() as u64 - 1
    }

    pub fn get(&self, number: u64) -> Option<BorrowedFd<'_>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.sockets.get(index)?.as_ref().map(|socket| socket.descriptor.as_fd())
    }

    /// A socket brought so many bytes more. Whether it may bring more still.
    pub fn may_go_on(&mut self, number: u64, bytes: usize) -> bool {
        let index = number.checked_sub(self.first).map(|index| index as usize);
        let socket = index.and_then(|index| self.sockets.get_mut(index)).and_then(Option::as_mut);
        socket.is_some_and(|socket| {
            socket.discarded_bytes += bytes;
            socket.discarded_bytes <= MAX_DISCARDED_BYTES
        })
    }

    /// Closes a socket whose peer has ended, or does not.
    pub fn remove(&mut self, number: u64) {
        if let Some(index) = number.checked_sub(self.first)
            && let Some(socket) = self.sockets.get_mut(index as usize)
        {
            self.closed += u64::from(socket.take().is_some());
        }
        while let Some(None) = self.sockets.front() {
            self.drop_front();
        }
    }

    /// Closes those whose time is over.
    pub fn expire(&mut self, now_ms: u64) {
        while self.deadlines_ms.front().is_some_and(|deadline_ms| *deadline_ms <= now_ms) {
            self.drop_front();
        }
    }

    /// When the next one's time is over.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines_ms.front().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// How many were closed, each by close(2).
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// Of these, the ones that had to be told by shutdown(2).
    pub fn shut_down(&self) -> u64 {
        self.shut_down
    }

    fn drop_front(&mut self) {
        self.deadlines_ms.pop_front();
        let Some(front) = self.sockets.pop_front() else { return };
        self.first += 1;
        if let Some(socket) = front {
            // Completes the poll of whoever still watches it.
            socket::shut_down(socket.descriptor.as_fd(), Shutdown::Both);
            self.shut_down += 1;
            self.closed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn it_ends_by_itself_by_time_or_by_number() {
        let mut lingering = Lingering::default();
        let (one, two) = (lingering.push(socket(), 0), lingering.push(socket(), 10));
        assert_eq!(lingering.next_deadline_ms(), Some(LINGER_MS));
        lingering.remove(two);
        assert!(lingering.get(two).is_none() && lingering.get(one).is_some());
        lingering.remove(one);
        assert!(lingering.is_empty() && lingering.next_deadline_ms().is_none());
        lingering.remove(one);
        assert_eq!((lingering.closed(), lingering.shut_down()), (2, 0));

        let three = lingering.push(socket(), 20);
        assert!(three > two);
        lingering.expire(19 + LINGER_MS);
        assert!(lingering.get(three).is_some());
        lingering.expire(20 + LINGER_MS);
        assert!(lingering.is_empty());
        assert_eq!((lingering.closed(), lingering.shut_down()), (3, 1));

        let numbers: Vec<u64> = (0..=MAX_LINGERING).map(|_| lingering.push(socket(), 0)).collect();
        assert!(lingering.get(numbers[0]).is_none() && lingering.get(numbers[1]).is_some());
    }
}
