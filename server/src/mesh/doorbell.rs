//! What wakes a shard that sleeps in its ring: an eventfd, written only when it does sleep.

use super::Sleeper;
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, RawFd},
    sync::atomic::{AtomicU64, Ordering},
};

/// A shard's doorbell.
#[derive(Debug)]
pub struct Doorbell {
    sleeper: Sleeper,
    event: File,
    rings: AtomicU64,
}

impl Doorbell {
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Doorbell> {
        // SAFETY: eventfd takes no pointer; it returns a new descriptor or -1.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and is nobody else's.
        let event = unsafe { File::from_raw_fd(event) };
        Ok(Doorbell { sleeper: Sleeper::default(), event, rings: AtomicU64::new(0) })
    }

    /// Wakes the shard if it sleeps. Called after something was put where the shard looks.
    pub fn ring(&self) {
        if self.sleeper.must_wake() {
            self.rings.fetch_add(1, Ordering::Relaxed);
            // Fails only if the counter is at its highest value, and then the bell is ringing.
            let _ = (&self.event).write(&1u64.to_ne_bytes());
        }
    }

    /// For the shard: see [`Sleeper`].
    pub fn sleeper(&self) -> &Sleeper {
        &self.sleeper
    }

    /// For the shard: makes the bell silent again.
    pub fn silence(&self) {
        // Nothing to read means that it is silent.
        let _ = (&self.event).read(&mut [0; 8]);
    }

    /// What becomes readable when the bell rings.
    pub fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// How often it rang.
    pub fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings_now(bell: &Doorbell) -> bool {
        (&bell.event).read(&mut [0; 8]).is_ok()
    }

    #[test]
    fn it_rings_once_for_a_sleeper_and_never_for_one_that_is_up() {
        let bell = Doorbell::new().unwrap();
        bell.ring();
        assert!(!rings_now(&bell));
        bell.sleeper().lie_down();
        bell.ring();
        bell.ring();
        assert!(rings_now(&bell));
        assert!(!rings_now(&bell));
        assert_eq!(bell.rings(), 1);
    }

    #[test]
    fn silence_takes_away_what_rang() {
        let bell = Doorbell::new().unwrap();
        bell.silence();
        bell.sleeper().lie_down();
        bell.ring();
        bell.silence();
        assert!(!rings_now(&bell));
    }
}
