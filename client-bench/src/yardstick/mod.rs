//! The yardsticks Y1 to Y5: as little as can be done for the same work, as well as we can do it.
//! What Starling is measured against.

pub mod frozen;
pub mod fsync;
pub mod idle;
pub mod redis;
pub mod relay;
pub mod relay_epoll;
pub mod relay_monoio;
pub mod rocks;

use crate::machine;
use anyhow::Result;
use socket2::{Domain, Socket, Type};
use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

/// A listener on a free loopback port whose queue no storm fills.
fn listener() -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4_096)?;
    Ok(socket.into())
}

/// The listener of a process that serves, which tells the one that started it where to connect.
fn serving() -> Result<TcpListener> {
    machine::raise_file_limit()?;
    let listener = listener()?;
    // Nobody to hear it is nobody to serve: the first connection will be missing instead.
    let _ = writeln!(std::io::stdout(), "{}", listener.local_addr()?);
    Ok(listener)
}
