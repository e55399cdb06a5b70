//! How far a long run has come, on standard error, so that whoever waits for it sees that it
//! lives, and where it stopped if it fails.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Tells of phases, and every so often of what happens in one.
#[derive(Debug)]
pub struct Progress {
    every: Option<Duration>,
    begun: Instant,
    phase: &'static str,
    next: Instant,
}

impl Progress {
    /// `None` tells nothing, but still knows the phase that failed.
    pub fn new(every: Option<Duration>) -> Progress {
        let now = Instant::now();
        Progress { every, begun: now, phase: "start", next: now }
    }

    /// A phase begins.
    pub fn begin(&mut self, phase: &'static str) {
        self.phase = phase;
        self.next = Instant::now() + self.every.unwrap_or_default();
        if self.every.is_some() {
            eprintln!("{}: begins", self.place());
        }
    }

    /// `how_far` is asked and told only when it is time to.
    pub fn tell(&mut self, how_far: impl FnOnce() -> String) {
        let Some(every) = self.every.filter(|_| Instant::now() >= self.next) else { return };
        self.next += every;
        eprintln!("{}: {}", self.place(), how_far());
    }

    /// An error says in which phase it came, and when.
    pub fn blame<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("failed {}", self.place()))
    }

    fn place(&self) -> String {
        format!("after {:>5.0} s, {}", self.begun.elapsed().as_secs_f64(), self.phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_phase() {
        let mut progress = Progress::new(None);
        progress.begin("logging in");
        progress.tell(|| unreachable!("nobody asked for it"));
        let failed: Result<()> = progress.blame(Err(anyhow::anyhow!("no port is left")));
        let said = format!("{:#}", failed.unwrap_err());
        assert!(said.contains("logging in") && said.contains("no port is left"), "{said}");
    }
}
