//! Which sockets of a shard have something to read, or room to write: one epoll set, which the
//! ring polls as a whole.
//!
//! Edge-triggered: each socket is added once, and from then on costs a system call only where
//! bytes move. So whoever is told must read until a read brings less than it might, and once more
//! if the peer has ended. A socket that is closed leaves the set by itself.

use rustix::{buffer::spare_capacity, event::epoll};
use starling_codec::Ticket;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

/// Sockets told of in one go; then others have their turn.
pub const MAX_READY: usize = 1_024;

/// The set of a shard, and what it told of last.
pub struct Readiness {
    shard: u16,
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

/// What came to a socket since it was told of last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// May be out of date: sockets that left the set were perhaps told of before.
    pub ticket: Ticket,
    /// Bytes, or the end.
    pub readable: bool,
    pub writable: bool,
    /// Behind all bytes stands the end, or an error.
    pub ended: bool,
}

impl Readiness {
    /// # Errors
    /// The kernel gives no epoll set.
    pub fn new(shard: u16) -> io::Result<Readiness> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Readiness { shard, set, events: Vec::with_capacity(MAX_READY) })
    }

    /// To be polled: readable while there is something to tell.
    pub fn descriptor(&self) -> RawFd {
        self.set.as_raw_fd()
    }

    /// Tells of `socket` under the name of `ticket`, one of this shard.
    ///
    /// # Errors
    /// The kernel has no memory for one more, or allows no more (fs.epoll.max_user_watches).
    pub fn add(&self, socket: BorrowedFd<'_>, ticket: Ticket) -> io::Result<()> {
        use epoll::EventFlags;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.set, socket, epoll::EventData::new_u64(ticket.key()), flags)?)
    }

    /// For a socket that stays open elsewhere.
    pub fn remove(&self, socket: BorrowedFd<'_>) {
        // It fails for one that is not there, which is what is wanted.
        let _ = epoll::delete(&self.set, socket);
    }

    /// Looks what is ready, without waiting, and says how many: at most [`MAX_READY`].
    pub fn look(&mut self) -> usize {
        self.events.clear();
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        // It cannot fail but by a signal, and then the ring tells again.
        epoll::wait(&self.set, spare_capacity(&mut self.events), Some(&now)).unwrap_or(0)
    }

    /// The `index`th that [`Readiness::look`] found.
    pub fn ready(&self, index: usize) -> Ready {
        use epoll::EventFlags;
        let epoll::Event { flags, data } = self.events[index];
        let end = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        Ready {
            ticket: Ticket::from_key(self.shard, data.u64()),
            readable: flags.intersects(EventFlags::IN | end),
            writable: flags.intersects(EventFlags::OUT | end),
            ended: flags.intersects(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{Shutdown, TcpListener, TcpStream},
        os::fd::AsFd,
    };

    const TICKET: Ticket = Ticket { shard: 3, slot: 70_000, generation: 9 };

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    #[test]
    fn each_arrival_is_told_once_and_the_end_with_it() {
        let (mut server, mut client) = pair();
        let mut readiness = Readiness::new(3).unwrap();
        readiness.add(server.as_fd(), TICKET).unwrap();
        // A new socket has room to write.
        assert_eq!(readiness.look(), 1);
        let writable = Ready { ticket: TICKET, readable: false, writable: true, ended: false };
        assert_eq!(readiness.ready(0), writable);
        assert_eq!(readiness.look(), 0);

        let readable = Ready { readable: true, ..writable };
        client.write_all(b"hello").unwrap();
        assert_eq!((readiness.look(), readiness.ready(0)), (1, readable));
        // Nothing was read, and yet it is not told again.
        assert_eq!(readiness.look(), 0);
        // But more is news, read or not.
        client.write_all(b"world").unwrap();
        assert_eq!((readiness.look(), readiness.ready(0)), (1, readable));
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer).unwrap(), 10);

        // The end that comes with the last bytes is told with them.
        client.write_all(b"bye").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!((readiness.look(), readiness.ready(0)), (1, Ready { ended: true, ..readable }));
    }

    #[test]
    fn room_is_told_when_there_was_none() {
        let (mut server, mut client) = pair();
        let mut readiness = Readiness::new(3).unwrap();
        readiness.add(server.as_fd(), TICKET).unwrap();
        server.set_nonblocking(true).unwrap();
        let much = vec![0; 1 << 20];
        while server.write(&much).is_ok() {}
        readiness.look();
        assert_eq!(readiness.look(), 0);
        let mut buffer = vec![0; 1 << 20];
        while readiness.look() == 0 {
            assert_ne!(client.read(&mut buffer).unwrap(), 0);
        }
        assert!(readiness.ready(0).writable);
    }

    #[test]
    fn what_is_closed_or_removed_is_not_told_of() {
        let (server, mut client) = pair();
        let (other, mut other_client) = pair();
        let mut readiness = Readiness::new(3).unwrap();
        readiness.add(server.as_fd(), TICKET).unwrap();
        readiness.add(other.as_fd(), TICKET).unwrap();
        assert_eq!(readiness.look(), 2);
        client.write_all(b"hello").unwrap();
        drop(server);
        readiness.remove(other.as_fd());
        other_client.write_all(b"hello").unwrap();
        assert_eq!(readiness.look(), 0);
    }
}
