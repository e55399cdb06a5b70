//! The sockets of a shard, by the slot of their ticket.

use starling_codec::Ticket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a connection is to the shard.
#[derive(Debug, Default)]
pub struct Link {
    generation: u32,
    socket: Option<OwnedFd>,
    /// What comes is to be read.
    pub reading: bool,
    /// The socket had no room, and has not told of any since.
    pub blocked: bool,
    /// The peer has ended; what it sent before may still be unread.
    pub ended: bool,
    /// It is among the guests.
    pub waits: bool,
}

const _: () = assert!(size_of::<Link>() <= 12);

/// All of a shard. A slot is the engine's; its generation tells whose it is.
#[derive(Debug, Default)]
pub struct Links {
    slots: Vec<Link>,
}

impl Links {
    pub fn insert(&mut self, ticket: Ticket, socket: OwnedFd) {
        let slot = ticket.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, Link::default);
        }
        self.slots[slot] = Link {
            generation: ticket.generation,
            socket: Some(socket),
            reading: false,
            blocked: false,
            ended: false,
            waits: false,
        };
    }

    /// The link of a ticket, unless it is gone.
    pub fn get(&mut self, ticket: Ticket) -> Option<&mut Link> {
        self.slots
            .get_mut(ticket.slot as usize)
            .filter(|link| link.generation == ticket.generation && link.socket.is_some())
    }

    /// Takes the socket of a ticket; the link is gone then.
    pub fn take(&mut self, ticket: Ticket) -> Option<OwnedFd> {
        self.get(ticket)?.socket.take()
    }
}

impl Link {
    pub fn socket(&self) -> BorrowedFd<'_> {
        // Links without one are never lent.
        self.socket.as_ref().expect("a link that is there has its socket").as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_ticket_names_nothing() {
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let old = Ticket { shard: 0, slot: 3, generation: 1 };
        let new = Ticket { generation: 2, ..old };
        let mut links = Links::default();
        assert!(links.get(old).is_none());
        links.insert(old, socket());
        assert!(links.get(old).is_some());
        assert!(links.take(old).is_some());
        assert!(links.get(old).is_none());
        links.insert(new, socket());
        assert!(links.get(old).is_none());
        assert!(links.take(old).is_none());
        assert!(links.get(new).is_some());
    }
}
