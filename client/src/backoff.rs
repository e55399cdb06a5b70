//! How long to wait before the next connection: full jitter, so that a million clients that lost
//! their server together do not come back together.

/// Longest first wait and longest wait, in milliseconds.
const FIRST_MS: u64 = 500;
const LONGEST_MS: u64 = 30_000;

/// Counts attempts and draws waits. Its randomness is a seed given by the caller.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    seed: u64,
}

impl Backoff {
    pub fn new(seed: u64) -> Backoff {
        Backoff { attempts: 0, seed }
    }

    /// The last attempt succeeded.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Milliseconds until the next attempt: anything up to a bound that doubles with each
    /// attempt, and after what the server asked for.
    pub fn wait_ms(&mut self, retry_after_ms: u64) -> u64 {
        let bound = (FIRST_MS << self.attempts.min(16)).min(LONGEST_MS);
        self.attempts = self.attempts.saturating_add(1);
        retry_after_ms + self.draw() % (bound + 1)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): spreads one seed over a lifetime of waits.
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.seed;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_spread_over_all_of_it() {
        let mut longest = [0; 12];
        for seed in 0..500 {
            let mut backoff = Backoff::new(seed);
            for (attempt, longest) in longest.iter_mut().enumerate() {
                let wait = backoff.wait_ms(0);
                assert!(wait <= (FIRST_MS << attempt).min(LONGEST_MS));
                *longest = wait.max(*longest);
            }
        }
        assert!(longest[0] > FIRST_MS * 9 / 10);
        assert!(longest[11] > LONGEST_MS * 9 / 10);
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it() {
        let mut backoff = Backoff::new(1);
        assert!((0..100).all(|_| backoff.wait_ms(7_000) >= 7_000));
        backoff.reset();
        assert!(backoff.wait_ms(0) <= FIRST_MS);
    }
}
