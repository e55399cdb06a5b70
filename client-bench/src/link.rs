//! A non-blocking TCP connection. An idle one holds no buffer: what is read goes through a
//! buffer that all links share, and only an incomplete rest is kept.

use crate::poller::{Poller, Watch};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// What one read may take from the kernel.
const READ_BYTES: usize = 256 * 1024;
/// Most connections from one source address. bind() begins at a random port of the 28,232 that are
/// there by default, and looks at every other one first: as these 14,116 fill up it searches ever
/// longer, and when they are full it passes over all of them each time.
pub const MAX_PER_SOURCE: usize = 10_000;
/// An output buffer that grew beyond this is given back once it is empty.
const KEPT_BYTES: usize = 64 * 1024;

/// The buffer all links of a thread read into: a kept rest and a read fit.
pub struct Scratch(Vec<u8>);

/// One connection.
pub struct Link {
    stream: TcpStream,
    /// What is to be written; bytes are appended, [`Link::flush`] writes them.
    pub out: Vec<u8>,
    rest: Vec<u8>,
    watched: Watch,
    /// The link stands in its owner's list of links to flush.
    pub queued: bool,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Bytes,
    Nothing,
    /// The peer closed.
    End,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch(vec![0; 2 * READ_BYTES])
    }
}

impl Link {
    /// Begins to connect; the first flush that succeeds shows that it is connected.
    ///
    /// # Errors
    /// No descriptor or no port is left, or `source` is not an address of this machine.
    pub fn connect(server: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<Link> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(Link::of(socket.into()))
    }

    /// The link of a stream that is connected and does not block.
    pub fn of(stream: TcpStream) -> Link {
        Link { stream, out: Vec::new(), rest: Vec::new(), watched: Watch::Read, queued: false }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Closing resets the connection, so that no port of this machine waits for old packets.
    pub fn reset_on_close(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Reads once and shows `read` all bytes that are not consumed yet, with the output to
    /// answer into; `read` says how many of them it consumed.
    ///
    /// # Errors
    /// Of the connection, or of `read`.
    pub fn receive<E: From<io::Error>>(
        &mut self,
        scratch: &mut Scratch,
        read: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<Received, E> {
        let kept = self.rest.len();
        if scratch.0.len() < kept + READ_BYTES {
            scratch.0.resize(kept + READ_BYTES, 0);
        }
        let count = match (&self.stream).read(&mut scratch.0[kept..kept + READ_BYTES]) {
            Ok(0) => return Ok(Received::End),
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(Received::Nothing);
            }
            Err(error) => return Err(error.into()),
        };
        scratch.0[..kept].copy_from_slice(&self.rest);
        let bytes = &scratch.0[..kept + count];
        let consumed = read(bytes, &mut self.out)?;
        self.rest.clear();
        if consumed < bytes.len() {
            self.rest.extend_from_slice(&bytes[consumed..]);
        } else if self.rest.capacity() > 0 {
            self.rest = Vec::new();
        }
        Ok(Received::Bytes)
    }

    /// Writes what there is to write, once, and watches for room if not all went out.
    ///
    /// # Errors
    /// The connection could not be made, or is gone.
    pub fn flush(&mut self, poller: &Poller, index: usize) -> io::Result<()> {
        let mut watch = Watch::Read;
        if !self.out.is_empty() {
            match (&self.stream).write(&self.out) {
                Ok(count) if count == self.out.len() => self.out.clear(),
                Ok(count) => {
                    self.out.drain(..count);
                    watch = Watch::ReadAndWrite;
                }
                Err(error) if not_yet(&error) => watch = Watch::ReadAndWrite,
                Err(error) => return Err(error),
            }
        }
        if self.out.is_empty() && self.out.capacity() > KEPT_BYTES {
            self.out = Vec::new();
        }
        if watch != self.watched {
            poller.watch(&self.stream, index, watch)?;
            self.watched = watch;
        }
        Ok(())
    }

    /// Gives the output buffer back if it is empty: for links that will be idle.
    pub fn slim(&mut self) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
    }
}

/// No room, or still connecting.
fn not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}

/// Where the `index`th connection of a machine comes from: a loopback server is reached from
/// 127.0.0.2, 127.0.0.3 and so on, [`MAX_PER_SOURCE`] each; any other from where the kernel says.
pub fn source_of(server: SocketAddr, index: usize) -> Option<Ipv4Addr> {
    match server.ip() {
        IpAddr::V4(address) if address.is_loopback() => {
            let place = 2 + (index / MAX_PER_SOURCE) as u32;
            Some(Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 0)) + place))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_spread_over_the_loopback_net() {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 7400));
        assert_eq!(source_of(server, 0), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(source_of(server, MAX_PER_SOURCE), Some(Ipv4Addr::new(127, 0, 0, 3)));
        assert_eq!(source_of(server, 300 * MAX_PER_SOURCE), Some(Ipv4Addr::new(127, 0, 1, 46)));
        assert_eq!(source_of(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 7400)), 0), None);
    }

    #[test]
    fn an_idle_link_is_small() {
        assert!(size_of::<Link>() <= 64);
    }
}
