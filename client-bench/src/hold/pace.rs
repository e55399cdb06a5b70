//! How fast a crowd logs in: at a given rate, or at one found by a short search.

use std::{str::FromStr, time::Duration};

/// Where a search begins, and by how much it raises the rate.
const FIRST_PER_S: f64 = 250.0;
const RAISE: f64 = 1.5;
/// A rate is good when nearly all that were due got in, and the slowest in a hundred so soon.
const REACHED: f64 = 0.9;
const SLOWEST: Duration = Duration::from_millis(500);
/// What is kept of the highest good rate, as a server slows down a little while it fills.
const KEPT: f64 = 0.8;
/// How long each rate is tried.
pub const TRIAL_S: f64 = 2.0;

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

/// A search that is under way.
#[derive(Debug)]
pub struct Search {
    per_s: f64,
    good_per_s: f64,
}

impl Default for Search {
    fn default() -> Search {
        Search { per_s: FIRST_PER_S, good_per_s: 0.0 }
    }
}

impl Search {
    /// The rate to try next.
    pub fn per_s(&self) -> f64 {
        self.per_s
    }

    /// Takes what came of the trial: log-ins a second that were reached, and the time within
    /// which 99 % were in. The rate to stay at, if the search is over.
    pub fn saw(&mut self, reached_per_s: f64, p99: Duration) -> Option<f64> {
        if reached_per_s >= REACHED * self.per_s && p99 <= SLOWEST {
            self.good_per_s = self.per_s;
            self.per_s *= RAISE;
            return None;
        }
        // Not even the first rate was good: then what was reached.
        Some(KEPT * if self.good_per_s > 0.0 { self.good_per_s } else { reached_per_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_stays_below_what_a_server_takes() {
        for capacity in [100.0, 1_000.0, 30_000.0] {
            let mut search = Search::default();
            let found = (0..40).find_map(|_| {
                let late = if search.per_s() > capacity { 2_000 } else { 5 };
                search.saw(search.per_s().min(capacity), Duration::from_millis(late))
            });
            let found = found.expect("it ends");
            assert!(found < capacity && found > 0.5 * capacity, "{found} of {capacity}");
        }
    }

    #[test]
    fn a_pace_is_a_rate_or_a_search() {
        assert_eq!("search".parse(), Ok(Pace::Search));
        assert_eq!("250".parse(), Ok(Pace::Rate(250.0)));
        assert!("0".parse::<Pace>().is_err() && "fast".parse::<Pace>().is_err());
    }
}
