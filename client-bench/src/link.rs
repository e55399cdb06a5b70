//! A non-blocking TCP connection. An idle one is a descriptor and two words: what is read goes
//! through a buffer that all links share, and only what waits to be written, or an incomplete
//! rest, is kept.

use crate::poller::{Poller, Watch};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

/// What one read may take from the kernel.
const READ_BYTES: usize = 256 * 1024;
/// An output buffer that grew beyond this is given back once it is empty.
const KEPT_BYTES: usize = 64 * 1024;

/// The buffer all links of a thread read into: a kept rest and a read fit.
pub struct Scratch(Vec<u8>);

/// One connection.
pub struct Link {
    stream: TcpStream,
    watched: Watch,
    /// The link stands in its owner's list of links to flush.
    pub queued: bool,
    /// None while there is nothing to keep.
    buffers: Option<Box<Buffers>>,
}

const _: () = assert!(size_of::<Link>() <= 16);

#[derive(Default)]
struct Buffers {
    /// What is to be written.
    out: Vec<u8>,
    /// What was read and is not consumed.
    rest: Vec<u8>,
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
    pub fn connect(server: SocketAddr, source: Option<IpAddr>) -> io::Result<Link> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new_raw(Domain::for_address(server), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            bind_address(&socket, source)?;
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
        Link { stream, watched: Watch::Read, queued: false, buffers: None }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// What is to be written: bytes are appended here, [`Link::flush`] writes them.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.buffers.get_or_insert_default().out
    }

    pub fn has_output(&self) -> bool {
        self.buffers.as_ref().is_some_and(|buffers| !buffers.out.is_empty())
    }

    /// Watches for nothing any more, as one who stopped reading, or again for what comes.
    pub fn set_deaf(&mut self, poller: &Poller, index: usize, deaf: bool) -> io::Result<()> {
        self.watched = if deaf { Watch::Nothing } else { Watch::Read };
        poller.watch(&self.stream, index, self.watched)
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
        let kept = self.buffers.as_ref().map_or(0, |buffers| buffers.rest.len());
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
        let Buffers { out, rest } = &mut **self.buffers.get_or_insert_default();
        scratch.0[..kept].copy_from_slice(rest);
        let bytes = &scratch.0[..kept + count];
        let consumed = read(bytes, out)?;
        rest.clear();
        if consumed < bytes.len() {
            rest.extend_from_slice(&bytes[consumed..]);
        } else if rest.capacity() > 0 {
            *rest = Vec::new();
        }
        Ok(Received::Bytes)
    }

    /// Writes what there is to write, once, and watches for room if not all went out.
    ///
    /// # Errors
    /// The connection could not be made, or is gone.
    pub fn flush(&mut self, poller: &Poller, index: usize) -> io::Result<()> {
        let Some(buffers) = &mut self.buffers else { return Ok(()) };
        let out = &mut buffers.out;
        let mut full = false;
        if !out.is_empty() {
            match (&self.stream).write(out) {
                Ok(count) if count == out.len() => out.clear(),
                Ok(count) => {
                    out.drain(..count);
                    full = true;
                }
                Err(error) if not_yet(&error) => full = true,
                Err(error) => return Err(error),
            }
        }
        if out.is_empty() && out.capacity() > KEPT_BYTES {
            *out = Vec::new();
        }
        let watch = match (self.watched, full) {
            // Who does not read says nothing either, so there is nothing to wait for.
            (Watch::Nothing, _) => Watch::Nothing,
            (_, true) => Watch::ReadAndWrite,
            (_, false) => Watch::Read,
        };
        if watch != self.watched {
            poller.watch(&self.stream, index, watch)?;
            self.watched = watch;
        }
        Ok(())
    }

    /// Gives empty buffers back: for links that will be idle.
    pub fn slim(&mut self) {
        if self.buffers.as_ref().is_some_and(|kept| kept.out.is_empty() && kept.rest.is_empty()) {
            self.buffers = None;
        }
    }
}

/// Binds to an address and leaves the port to connect(2), which needs one that is free towards this
/// server only. bind(2) would search one that is free towards all: endlessly, where thousands of
/// closed connections to other servers still wait for late packets.
fn bind_address(socket: &Socket, source: IpAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, which lives here, and its size.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SocketAddr::from((source, 0)).into())
}

/// No room, or still connecting.
fn not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    #[test]
    fn connecting_chooses_the_port_of_a_bound_address() {
        for (source, server) in [
            (IpAddr::from([127, 0, 0, 9]), IpAddr::from(Ipv4Addr::LOCALHOST)),
            (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
        ] {
            // A machine without IPv6 has nothing to listen with.
            let Ok(listener) = TcpListener::bind((server, 0)) else { continue };
            let address = listener.local_addr().unwrap();
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            bind_address(&socket, source).unwrap();
            let bound = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!((bound.ip(), bound.port()), (source, 0));
            socket.connect(&address.into()).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert!(peer.ip() == source && peer.port() > 0, "{peer}");
        }
    }
}
