//! Y2 on epoll: one thread, one read a wake-up, one write a connection and turn.

use crate::{
    dialect::{ACK, HEADER_BYTES},
    link::{Link, Received, Scratch},
    poller::{Poller, Watch},
};
use anyhow::{Context, Result};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

/// The listener's place among the descriptors.
const LISTENER: usize = usize::MAX;

/// A relay: connections say their name, then frames with the name of their destination.
pub struct Relay {
    listener: TcpListener,
    poller: Poller,
    scratch: Scratch,
    links: Vec<Option<Link>>,
    /// The place of the link of each name.
    names: Vec<u32>,
    free: Vec<usize>,
    dirty: Vec<usize>,
}

impl Relay {
    /// On a free loopback port.
    pub fn listen() -> Result<Relay> {
        Relay::on(super::listener()?)
    }

    fn on(listener: TcpListener) -> Result<Relay> {
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER, Watch::Read)?;
        Ok(Relay {
            listener,
            poller,
            scratch: Scratch::default(),
            links: Vec::new(),
            names: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
        })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Waits, at the longest for `timeout`, and relays what came.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        for position in 0..self.poller.wait(timeout)? {
            let ready = self.poller.ready(position);
            if ready.index == LISTENER {
                self.accept()?;
                continue;
            }
            if ready.writable {
                touch(&mut self.links, &mut self.dirty, ready.index);
            }
            if ready.readable {
                self.receive(ready.index);
            }
        }
        for index in std::mem::take(&mut self.dirty) {
            let Some(link) = &mut self.links[index] else { continue };
            link.queued = false;
            if link.flush(&self.poller, index).is_err() {
                self.drop_link(index);
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let index = self.free.pop().unwrap_or(self.links.len());
                    self.poller.add(&stream, index, Watch::Read)?;
                    let link = Some(Link::of(stream));
                    match self.links.get_mut(index) {
                        Some(place) => *place = link,
                        None => self.links.push(link),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            }
        }
    }

    fn receive(&mut self, index: usize) {
        // Taken out, because a frame may go to the link it came from.
        let Some(mut link) = self.links[index].take() else { return };
        let (links, names, dirty) = (&mut self.links, &mut self.names, &mut self.dirty);
        let received = link.receive(&mut self.scratch, |bytes, own| {
            let mut rest = bytes;
            while let Some((head, _)) = rest.split_first_chunk::<HEADER_BYTES>() {
                let [l0, l1, l2, l3, d0, d1, d2, d3] = *head;
                let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
                let name = u32::from_le_bytes([d0, d1, d2, d3]) as usize;
                let Some((frame, behind)) = rest.split_at_checked(4 + length) else { break };
                rest = behind;
                if frame.len() == HEADER_BYTES {
                    names.resize(names.len().max(name + 1), u32::MAX);
                    names[name] = index as u32;
                } else if let Some(place) = names.get(name)
                    && let Some(Some(to)) = links.get_mut(*place as usize)
                {
                    to.out().extend_from_slice(frame);
                    touch(links, dirty, *place as usize);
                }
                own.extend_from_slice(&ACK);
            }
            Ok::<_, std::io::Error>(bytes.len() - rest.len())
        });
        let answered = link.has_output();
        self.links[index] = Some(link);
        match received {
            Ok(Received::Bytes | Received::Nothing) if answered => {
                touch(&mut self.links, &mut self.dirty, index);
            }
            Ok(Received::Bytes | Received::Nothing) => {}
            Ok(Received::End) | Err(_) => self.drop_link(index),
        }
    }

    fn drop_link(&mut self, index: usize) {
        // Closing takes it out of the poller.
        if self.links[index].take().is_some() {
            self.free.push(index);
        }
    }
}

fn touch(links: &mut [Option<Link>], dirty: &mut Vec<usize>, index: usize) {
    if let Some(Some(link)) = links.get_mut(index)
        && !std::mem::replace(&mut link.queued, true)
    {
        dirty.push(index);
    }
}

/// Relays until the process is ended.
pub fn serve() -> Result<()> {
    let mut relay = Relay::on(super::serving()?)?;
    loop {
        relay.turn(None)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::append_header;
    use std::{
        io::{Read, Write},
        net::TcpStream,
        thread,
    };

    #[test]
    fn a_frame_reaches_its_destination_and_its_sender_is_told() {
        let mut relay = Relay::listen().unwrap();
        let address = relay.address().unwrap();
        let client = thread::spawn(move || {
            let mut ends = [0u32, 1].map(|name| {
                let mut stream = TcpStream::connect(address).unwrap();
                let mut hello = Vec::new();
                append_header(&mut hello, name, 0);
                stream.write_all(&hello).unwrap();
                let mut ack = [9; 4];
                stream.read_exact(&mut ack).unwrap();
                assert_eq!(ack, ACK);
                stream
            });
            let mut frame = Vec::new();
            append_header(&mut frame, 1, 3);
            frame.extend_from_slice(b"abc");
            ends[0].write_all(&frame).unwrap();
            let mut ack = [9; 4];
            ends[0].read_exact(&mut ack).unwrap();
            let mut got = vec![0; frame.len()];
            ends[1].read_exact(&mut got).unwrap();
            assert_eq!((ack, got), (ACK, frame));
        });
        while !client.is_finished() {
            relay.turn(Some(Duration::from_millis(1))).unwrap();
        }
        client.join().unwrap();
    }
}
