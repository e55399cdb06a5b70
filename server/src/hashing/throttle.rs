//! Slows down who guesses a password. Knows no clock: the time is an argument.

use rustc_hash::FxHashMap;

/// So many wrong passwords are free.
const FREE: u32 = 5;
/// The wait after the last free one; it doubles with each wrong one after it.
const FIRST_WAIT_MS: u64 = 1_000;
const LONGEST_WAIT_MS: u64 = 15 * 60 * 1_000;
/// Names that are remembered, at least; at most twice as many.
const NAMES: usize = 8_192;

/// Wrong passwords by name. Bounded: it remembers the names of the current and of the previous
/// generation, and a generation ends when it is full. Each entry cost somebody a hash.
#[derive(Debug, Default)]
pub struct Throttle {
    current: FxHashMap<String, Guesses>,
    previous: FxHashMap<String, Guesses>,
}

#[derive(Clone, Copy, Debug)]
struct Guesses {
    wrong: u32,
    last_ms: u64,
}

impl Guesses {
    fn open_at_ms(self) -> u64 {
        let Some(doublings) = self.wrong.checked_sub(FREE) else { return 0 };
        // 2^16 s are beyond the longest wait already.
        let wait_ms = FIRST_WAIT_MS << doublings.min(16);
        self.last_ms + wait_ms.min(LONGEST_WAIT_MS)
    }
}

impl Throttle {
    /// How long `name` must wait before its next try, if it must.
    pub fn must_wait(&self, name: &str, now_ms: u64) -> Option<u32> {
        let open_at_ms = self.guesses(name)?.open_at_ms();
        // At most the longest wait, so it fits.
        (open_at_ms > now_ms).then(|| (open_at_ms - now_ms) as u32)
    }

    pub fn count_wrong(&mut self, name: String, now_ms: u64) {
        let wrong = self.guesses(&name).map_or(0, |guesses| guesses.wrong);
        if self.current.len() >= NAMES && !self.current.contains_key(&name) {
            self.previous = std::mem::take(&mut self.current);
        }
        let guesses = Guesses { wrong: wrong.saturating_add(1), last_ms: now_ms };
        self.current.insert(name, guesses);
    }

    /// The right password clears the name.
    pub fn forget(&mut self, name: &str) {
        self.current.remove(name);
        self.previous.remove(name);
    }

    fn guesses(&self, name: &str) -> Option<Guesses> {
        self.current.get(name).or_else(|| self.previous.get(name)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(throttle: &mut Throttle, times: u32, now_ms: u64) {
        (0..times).for_each(|_| throttle.count_wrong("ada".into(), now_ms));
    }

    #[test]
    fn five_are_free_then_the_wait_doubles_up_to_a_quarter_of_an_hour() {
        let mut throttle = Throttle::default();
        wrong(&mut throttle, 4, 100);
        assert_eq!(throttle.must_wait("ada", 100), None);
        wrong(&mut throttle, 1, 100);
        assert_eq!(throttle.must_wait("ada", 100), Some(1_000));
        assert_eq!(throttle.must_wait("ada", 600), Some(500));
        assert_eq!(throttle.must_wait("ada", 1_100), None);
        assert_eq!(throttle.must_wait("bob", 100), None);
        wrong(&mut throttle, 1, 1_100);
        assert_eq!(throttle.must_wait("ada", 1_100), Some(2_000));
        wrong(&mut throttle, 200, 1_100);
        assert_eq!(throttle.must_wait("ada", 1_100), Some(15 * 60 * 1_000));
    }

    #[test]
    fn the_right_password_clears_the_name() {
        let mut throttle = Throttle::default();
        wrong(&mut throttle, 6, 0);
        throttle.forget("ada");
        assert_eq!(throttle.must_wait("ada", 0), None);
    }

    #[test]
    fn a_flood_of_names_is_bounded_and_forgets_the_oldest() {
        let mut throttle = Throttle::default();
        wrong(&mut throttle, 6, 0);
        for name in 0..NAMES {
            throttle.count_wrong(name.to_string(), 0);
        }
        assert!(throttle.must_wait("ada", 0).is_some());
        for name in 0..4 * NAMES {
            throttle.count_wrong(name.to_string(), 0);
        }
        assert_eq!(throttle.must_wait("ada", 0), None);
        assert!(throttle.current.len() + throttle.previous.len() <= 2 * NAMES);
    }
}
