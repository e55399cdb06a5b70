//! An eventfd: raised by any thread, and readable until it is lowered.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, RawFd},
};

#[derive(Debug)]
pub struct Event(File);

impl Event {
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Event> {
        // SAFETY: eventfd takes no pointer; it returns a new descriptor or -1.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and is nobody else's.
        Ok(Event(unsafe { File::from_raw_fd(event) }))
    }

    pub fn raise(&self) {
        // Fails only if the counter is at its highest value, and then it is raised.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Whether it was raised.
    pub fn lower(&self) -> bool {
        // Nothing to read means that it is low.
        (&self.0).read(&mut [0; 8]).is_ok()
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
