//! What the kernel keeps for the sockets of a server, asked of it by netlink (sock_diag(7)): how
//! much waits to be sent to those who do not read.

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use std::{io::Read, net::SocketAddr};

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;
const ESTABLISHED: u32 = 1 << 1;
/// The attribute that holds a socket's memory, and the place of the send queue's in it.
const SKMEMINFO: u16 = 7;
const WMEM_QUEUED: usize = 5;
/// Sizes of the headers of a message, of the request and of an answer.
const HEADER_BYTES: usize = 16;
const ANSWER_BYTES: usize = 72;

/// What a server's established IPv4 connections have queued to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendQueues {
    pub connections: u64,
    /// Memory, not payload: what the kernel holds on to for it.
    pub bytes: u64,
}

impl SendQueues {
    /// Of all connections that were accepted at `server`.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn of(server: SocketAddr) -> Result<SendQueues> {
        let netlink = Socket::new(
            Domain::from(AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(NETLINK_SOCK_DIAG)),
        )
        .context("cannot ask the kernel for its sockets")?;
        netlink.send(&request(server)).context("cannot ask the kernel for its sockets")?;
        let (mut queues, mut buffer) = (SendQueues::default(), vec![0; 64 * 1024]);
        loop {
            let count = (&netlink).read(&mut buffer)?;
            let mut rest = &buffer[..count];
            while rest.len() >= HEADER_BYTES {
                let length = u32_at(rest, 0) as usize;
                if length < HEADER_BYTES || length > rest.len() {
                    bail!("the kernel told of its sockets what is no message");
                }
                match u16_at(rest, 4) {
                    NLMSG_DONE => return Ok(queues),
                    NLMSG_ERROR => bail!("the kernel does not tell of its sockets"),
                    _ => queues.add(&rest[HEADER_BYTES..length]),
                }
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            }
        }
    }

    fn add(&mut self, answer: &[u8]) {
        self.connections += 1;
        let mut rest = answer.get(ANSWER_BYTES..).unwrap_or_default();
        while rest.len() >= 4 {
            let (length, kind) = (usize::from(u16_at(rest, 0)), u16_at(rest, 2));
            let Some(value) = rest.get(4..length) else { return };
            if kind == SKMEMINFO && value.len() >= 4 * (WMEM_QUEUED + 1) {
                self.bytes += u64::from(u32_at(value, 4 * WMEM_QUEUED));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// A dump of the established connections whose own port is the server's.
fn request(server: SocketAddr) -> Vec<u8> {
    let mut request = Vec::with_capacity(HEADER_BYTES + 56);
    request.extend_from_slice(&(HEADER_BYTES as u32 + 56).to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // AF_INET, protocol, the attributes wanted, padding.
    request.extend_from_slice(&[2, IPPROTO_TCP, 1 << (SKMEMINFO - 1), 0]);
    request.extend_from_slice(&ESTABLISHED.to_ne_bytes());
    // Of the socket's name only the own port; all others are zero.
    request.extend_from_slice(&server.port().to_be_bytes());
    request.resize(HEADER_BYTES + 56, 0);
    request
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn what_nobody_reads_is_seen_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let _deaf = TcpStream::connect(server).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let before = SendQueues::of(server).unwrap();
        assert_eq!((before.connections, before.bytes), (1, 0));
        accepted.set_nonblocking(true).unwrap();
        while accepted.write(&[7; 16_384]).is_ok() {}
        let after = SendQueues::of(server).unwrap();
        assert!(after.connections == 1 && after.bytes > 16_384, "{after:?}");
    }
}
