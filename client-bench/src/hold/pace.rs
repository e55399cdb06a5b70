//! How fast a crowd logs in: at a given rate, or at one found by a short search.

use crate::crowd::OPENING_AT_ONCE;
use std::{str::FromStr, time::Duration};

/// Where a search begins, and below which it does not go: a slow machine should still come to an
/// end.
const FIRST_PER_S: f64 = 250.0;
/// So many may be on their way at once however few get in, that a machine which stood still for a
/// moment is found to have gone on.
const FEW_AT_ONCE: usize = 16;
/// By how much it raises the rate until one was too high, and then.
const RAISE: f64 = 1.5;
const RAISE_LATER: f64 = 1.1;
/// A rate is good when nearly all that were due got in, and the slowest in a hundred so soon.
const REACHED: f64 = 0.7;
const SLOWEST: Duration = Duration::from_secs(2);
/// What is kept of a rate that was too high.
const KEPT: f64 = 0.8;
/// How long each rate is tried. What is late at its end counts as not reached.
pub const TRIAL_S: f64 = 4.0;

/// Log-ins a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the server answers.
    Unbounded,
    Rate(f64),
    Search,
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Pace, String> {
        match (text, text.parse::<f64>()) {
            ("search", _) => Ok(Pace::Search),
            (_, Ok(rate)) if rate > 0.0 => Ok(Pace::Rate(rate)),
            _ => Err("a number above 0, or \"search\"".into()),
        }
    }
}

/// A search. It goes on as long as there is somebody to log in, because a server slows down a
/// little while it fills, and the machine has other things to do at times.
#[derive(Debug)]
pub struct Search {
    per_s: f64,
    reached_per_s: f64,
    raise: f64,
}

impl Default for Search {
    fn default() -> Search {
        Search { per_s: FIRST_PER_S, reached_per_s: FIRST_PER_S, raise: RAISE }
    }
}

impl Search {
    /// The rate to try next.
    pub fn per_s(&self) -> f64 {
        self.per_s
    }

    /// How many may be on their way to be logged in at once: as many as get in while the slowest
    /// may take, as it was last seen. A rate is tried, which a server that has just become slow
    /// does not keep up with; more than these would be closed for taking too long.
    pub fn at_once(&self) -> usize {
        let soon = self.reached_per_s * SLOWEST.as_secs_f64();
        (soon as usize).clamp(FEW_AT_ONCE, OPENING_AT_ONCE)
    }

    /// Takes what came of a trial: log-ins a second that were reached, and the time within which
    /// 99 % were in.
    pub fn saw(&mut self, reached_per_s: f64, p99: Duration) {
        self.reached_per_s = reached_per_s;
        if reached_per_s >= REACHED * self.per_s && p99 <= SLOWEST {
            self.per_s *= self.raise;
        } else {
            self.per_s = FIRST_PER_S.max(KEPT * self.per_s);
            self.raise = RAISE_LATER;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_stays_close_to_what_a_server_takes() {
        for capacity in [300.0, 1_000.0, 30_000.0] {
            let mut search = Search::default();
            for trial in 0..60 {
                let rate = search.per_s();
                assert!(trial < 30 || (rate > 0.6 * capacity && rate < 1.6 * capacity), "{rate}");
                let late = if rate > capacity { 3_000 } else { 5 };
                search.saw(rate.min(capacity), Duration::from_millis(late));
            }
        }
    }

    #[test]
    fn no_more_are_on_their_way_than_get_in_soon() {
        let mut search = Search::default();
        for (reached_per_s, at_once) in [(40.0, 80), (1.0, 16), (1_000.0, OPENING_AT_ONCE)] {
            search.saw(reached_per_s, Duration::from_millis(5));
            assert_eq!(search.at_once(), at_once);
        }
    }

    #[test]
    fn a_pace_is_a_rate_or_a_search() {
        assert_eq!("search".parse(), Ok(Pace::Search));
        assert_eq!("250".parse(), Ok(Pace::Rate(250.0)));
        assert!("0".parse::<Pace>().is_err() && "fast".parse::<Pace>().is_err());
    }
}
