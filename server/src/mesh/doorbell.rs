//! What wakes a shard that sleeps in its ring: an eventfd, written only when it does sleep.

use super::{
    Event, Sleeper,
    atomic::{AtomicU64, Ordering},
};
use std::io;

/// A shard's doorbell.
#[derive(Debug)]
pub struct Doorbell {
    sleeper: Sleeper,
    event: Event,
    rings: AtomicU64,
}

impl Doorbell {
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Doorbell> {
        let event = Event::new()?;
        Ok(Doorbell { sleeper: Sleeper::default(), event, rings: AtomicU64::new(0) })
    }

    /// Wakes the shard if it sleeps. Called after something was put where the shard looks.
    pub fn ring(&self) {
        if self.sleeper.must_wake() {
            self.rings.fetch_add(1, Ordering::Relaxed);
            self.event.raise();
        }
    }

    /// For the shard: see [`Sleeper`].
    pub fn sleeper(&self) -> &Sleeper {
        &self.sleeper
    }

    /// For the shard: makes the bell silent again.
    pub fn silence(&self) {
        self.event.lower();
    }

    /// What is raised when the bell rings.
    pub fn event(&self) -> &Event {
        &self.event
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
        bell.event.lower()
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
