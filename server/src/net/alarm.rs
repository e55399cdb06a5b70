//! A timer of the kernel's: a descriptor that is readable from a moment on.
//!
//! Not a timer of monoio's. That one also wakes the thread to sort timers that are not due yet,
//! which no task sees, so nobody could say how often the ring was entered.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, RawFd},
    ptr,
    time::Duration,
};

/// Rings once for each time that it is set.
#[derive(Debug)]
pub struct Alarm(File);

impl Alarm {
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Alarm> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: timerfd_create takes no pointer; it returns a new descriptor or -1.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if timer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and is nobody else's.
        Ok(Alarm(unsafe { File::from_raw_fd(timer) }))
    }

    /// Rings after so long, and not at the time that it was set to before.
    pub fn set(&self, after: Duration) {
        // No time at all would mean never.
        let after = after.max(Duration::from_nanos(1));
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let first = libc::timespec {
            tv_sec: after.as_secs() as libc::time_t,
            tv_nsec: after.subsec_nanos() as libc::c_long,
        };
        let when = libc::itimerspec { it_interval: once, it_value: first };
        // SAFETY: the kernel reads a struct that lives here, and writes nothing. It cannot fail
        // with a timer and a time that are whole.
        unsafe { libc::timerfd_settime(self.descriptor(), 0, &when, ptr::null_mut()) };
    }

    /// Makes it silent again; whether it rang.
    pub fn silence(&self) -> bool {
        (&self.0).read(&mut [0; 8]).is_ok()
    }

    /// To be polled: readable while it rings.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn it_rings_once_and_not_too_early() {
        let alarm = Alarm::new().unwrap();
        assert!(!alarm.silence());
        let (begin, after) = (Instant::now(), Duration::from_millis(20));
        alarm.set(after);
        while !alarm.silence() {
            std::thread::yield_now();
        }
        assert!(begin.elapsed() >= after);
        assert!(!alarm.silence());
    }

    #[test]
    fn the_last_time_set_is_the_one_that_counts() {
        let alarm = Alarm::new().unwrap();
        alarm.set(Duration::from_secs(3_600));
        alarm.set(Duration::ZERO);
        while !alarm.silence() {
            std::thread::yield_now();
        }
        alarm.set(Duration::ZERO);
        alarm.set(Duration::from_secs(3_600));
        assert!(!alarm.silence());
    }
}
