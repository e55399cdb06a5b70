//! Waiting for a descriptor to become readable or writable.

use monoio::net::UnixStream;
use std::{
    io,
    mem::ManuallyDrop,
    os::fd::{FromRawFd, IntoRawFd, RawFd},
};

/// Watches a descriptor that somebody else owns. It never reads, writes or closes it, so it may
/// outlive it: a poll that is pending then completes, because whoever closes a socket shuts it
/// down first, and its watcher asks whether the socket is still there before it touches it.
///
/// monoio polls only what it has a type for. Of its types `UnixStream` is the smallest, and a
/// poll asks nothing of the descriptor that only a Unix socket has.
pub struct Watch {
    stream: ManuallyDrop<UnixStream>,
}

impl Watch {
    /// # Errors
    /// monoio cannot take the descriptor; with io_uring it always can.
    pub fn new(descriptor: RawFd) -> io::Result<Watch> {
        // SAFETY: the descriptor is open, and is given back unclosed by `end` or leaked by drop,
        // so its owner stays its only owner.
        let stream = unsafe { std::os::unix::net::UnixStream::from_raw_fd(descriptor) };
        Ok(Watch { stream: ManuallyDrop::new(UnixStream::from_std(stream)?) })
    }

    /// Until there is something to read, the peer's end, or an error.
    ///
    /// # Errors
    /// The ring could not poll.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        self.stream.readable(false)
    }

    /// Until there is room to write, or an error.
    ///
    /// # Errors
    /// The ring could not poll.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
        self.stream.writable(false)
    }

    /// Frees what the watch holds. Without this, when a task is dropped with its poll pending,
    /// that little leaks, as monoio could not give the descriptor back unclosed.
    pub fn end(self) {
        // No poll is pending: each borrowed the watch.
        let _ = ManuallyDrop::into_inner(self.stream).into_raw_fd();
    }
}
