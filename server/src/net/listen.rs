//! The listening sockets: one for each shard on the same address, between which the kernel
//! spreads connections.

use crate::failure::Failure;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

/// Connections that may wait to be accepted, for each listener; the system's
/// net.core.somaxconn may allow fewer.
const BACKLOG: i32 = 4_096;
/// What the kernel takes of a connection that it cannot send yet, in bytes.
static MAX_UNSENT_BYTES: libc::c_int = 16 * 1024;
/// How long an address may stay in use by a server that is gone: its rings are torn down after
/// the process has been reaped, and until then they hold the listeners.
const LEFTOVER: Duration = Duration::from_secs(2);

/// Listens on `address`, as often as there are shards. Returns the address with the port that
/// was taken if it named port 0.
///
/// # Errors
/// The address is in use, even by another Starling, or cannot be had.
pub fn listen(address: SocketAddr, shards: u16) -> Result<(SocketAddr, Vec<OwnedFd>), Failure> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::PortInUse { listen: address },
        _ => Failure::Listen { listen: address, error },
    };
    // Sockets that share a port let any process of this user join, so ask first without sharing.
    drop(bind_when_free(address).map_err(failed)?);
    let first = bind(address, true).map_err(failed)?;
    // A bound TCP socket has an address of the Internet.
    let bound = first.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(bind(bound, true).map_err(failed)?);
    }
    for socket in &sockets {
        socket.listen(BACKLOG).map_err(failed)?;
    }
    Ok((bound, sockets.into_iter().map(OwnedFd::from).collect()))
}

/// Accepted sockets inherit it: the kernel takes little that it cannot send yet, so that a client
/// which stops reading costs no large buffer. What is on its way is not limited.
fn keep_unsent_small(socket: &Socket) -> io::Result<()> {
    let size = size_of_val(&MAX_UNSENT_BYTES) as libc::socklen_t;
    // SAFETY: the option takes an int, which lives here, and its size.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const MAX_UNSENT_BYTES).cast(),
            size,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind_when_free(address: SocketAddr) -> io::Result<Socket> {
    let until = Instant::now() + LEFTOVER;
    loop {
        match bind(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound,
        }
    }
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // So that a restart need not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit it. All of a turn leaves in one send, so waiting for more would
    // only cost time.
    socket.set_tcp_nodelay(true)?;
    keep_unsent_small(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shards_share_one_free_port_and_nobody_else_gets_it() {
        let (address, sockets) = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(sockets.len(), 3);
        assert!(matches!(listen(address, 1), Err(Failure::PortInUse { .. })));
        drop(sockets);
        assert!(listen(address, 1).is_ok());
    }

    #[test]
    fn a_client_that_does_not_read_costs_no_large_buffer() {
        use std::{io::Write, net::TcpListener, net::TcpStream};
        let (address, mut sockets) = listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let listener = TcpListener::from(sockets.remove(0));
        listener.set_nonblocking(false).unwrap();
        // Takes what is sent until the client's buffer is full, and then as much as it may.
        let stuffed = |listener: TcpListener, address| {
            let _deaf = TcpStream::connect(address).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.set_nonblocking(true).unwrap();
            let mut taken = 0;
            while let Ok(count) = accepted.write(&[7; 8 * 1024]) {
                taken += count;
            }
            taken
        };
        let limited = stuffed(listener, address);
        let usual = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = usual.local_addr().unwrap();
        let usual = stuffed(usual, address);
        assert!(2 * limited < usual, "{limited} bytes, and {usual} without a limit");
    }
}
