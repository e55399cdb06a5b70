//! The system calls on sockets, none of which ever waits.

use std::{
    io,
    net::Shutdown,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// What came in.
#[derive(Debug)]
pub enum Received {
    Bytes(usize),
    /// Nothing, for now.
    Nothing,
    /// The peer has ended, or the connection is broken: nothing will come any more.
    End,
}

/// What went out.
#[derive(Debug)]
pub enum Sent {
    Bytes(usize),
    /// The socket has no room, for now.
    Full,
    /// The connection is broken.
    Broken,
}

/// What came of accepting.
#[derive(Debug)]
pub enum Accepted {
    Socket(OwnedFd),
    /// Nobody waits, for now.
    Nobody,
    /// Who waited has gone again; there may be others.
    Gone,
    /// The process, or the system, has no descriptor or memory left.
    Exhausted(io::Error),
    /// The listener takes no more connections.
    End,
}

/// recv(2).
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Received {
    loop {
        // SAFETY: the pointer and length are those of a buffer we may write to.
        let received = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        match received {
            0 => return Received::End,
            1.. => return Received::Bytes(received as usize),
            _ => match io::Error::last_os_error().kind() {
                io::ErrorKind::WouldBlock => return Received::Nothing,
                io::ErrorKind::Interrupted => {}
                _ => return Received::End,
            },
        }
    }
}

/// send(2).
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Sent {
    loop {
        // SAFETY: the pointer and length are those of a slice.
        let sent = unsafe {
            libc::send(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent >= 0 {
            return Sent::Bytes(sent as usize);
        }
        match io::Error::last_os_error().kind() {
            io::ErrorKind::WouldBlock => return Sent::Full,
            io::ErrorKind::Interrupted => {}
            _ => return Sent::Broken,
        }
    }
}

/// accept4(2). The listener must be non-blocking; what it accepts need not be, as every call
/// here says that it does not wait.
pub fn accept(listener: BorrowedFd<'_>) -> Accepted {
    // SAFETY: the kernel need not tell the peer's address, so null pointers are allowed.
    let socket = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    };
    if socket >= 0 {
        // SAFETY: the descriptor was just made and is nobody else's.
        return Accepted::Socket(unsafe { OwnedFd::from_raw_fd(socket) });
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Accepted::Nobody,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            Accepted::Exhausted(error)
        }
        // What shutdown(2) leaves of a listener.
        Some(libc::EINVAL | libc::EBADF) => Accepted::End,
        // accept(2): errors of the network on the new socket, which concern it alone.
        _ => Accepted::Gone,
    }
}

/// shutdown(2). Also completes the polls that are pending on the socket.
pub fn shut_down(socket: BorrowedFd<'_>, how: Shutdown) {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: shutdown takes no pointer. It fails when the peer has gone, which is what it is
    // for.
    unsafe { libc::shutdown(socket.as_raw_fd(), how) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
    };

    #[test]
    fn a_connection_from_accept_to_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(matches!(accept(listener.as_fd()), Accepted::Nobody));
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let Accepted::Socket(socket) = accept(listener.as_fd()) else { panic!("not accepted") };

        let mut buffer = [0; 8];
        assert!(matches!(receive(socket.as_fd(), &mut buffer), Received::Nothing));
        assert!(matches!(send(client.as_fd(), b"hello"), Sent::Bytes(5)));
        assert!(matches!(receive(socket.as_fd(), &mut buffer), Received::Bytes(5)));
        assert_eq!(&buffer[..5], b"hello");

        // Nobody reads, so in the end there is no room.
        let much = vec![0; 1 << 20];
        while let Sent::Bytes(_) = send(client.as_fd(), &much) {}
        assert!(matches!(send(client.as_fd(), &much), Sent::Full));

        drop(client);
        let mut much = vec![0; 1 << 20];
        while let Received::Bytes(_) = receive(socket.as_fd(), &mut much) {}
        assert!(matches!(receive(socket.as_fd(), &mut much), Received::End));
    }

    #[test]
    fn writing_to_who_has_gone_is_no_signal() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        shut_down(client.as_fd(), Shutdown::Both);
        assert!(matches!(send(client.as_fd(), b"hello"), Sent::Broken));
    }

    #[test]
    fn a_listener_that_was_shut_down_accepts_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        shut_down(listener.as_fd(), Shutdown::Both);
        assert!(matches!(accept(listener.as_fd()), Accepted::End));
    }
}
