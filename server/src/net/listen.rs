//! The listening sockets: one for each shard on the same address, between which the kernel
//! spreads connections.

use crate::failure::Failure;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// Connections that may wait to be accepted, for each listener; the system's
/// net.core.somaxconn may allow fewer.
const BACKLOG: i32 = 4_096;
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
}
