//! A run that failed, made smaller: fewer steps, fewer troubles, as long as it still fails.

use crate::{
    plan::{Trouble, Troubles},
    random::Random,
    world::{Report, World},
};
use std::panic::{self, AssertUnwindSafe};

/// A run that can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub seed: u64,
    pub steps: u64,
    /// What its world would have, and has not.
    pub taken_away: Troubles,
}

impl Case {
    /// Runs it. A panic is a failure like any other.
    pub fn run(self, told: bool) -> Report {
        let run = || World::new(self.seed, self.taken_away, told).run(self.steps);
        panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            Report::panicked(words.unwrap_or("without words"))
        })
    }

    /// The troubles that its world has.
    pub fn troubles(self) -> Vec<Trouble> {
        let plan = crate::Plan::draw(&mut Random::new(self.seed).fork(), self.taken_away);
        plan.troubles.iter().collect()
    }

    /// The command that runs it.
    pub fn command(self) -> String {
        let Case { seed, steps, taken_away } = self;
        let mut command = format!("starling-sim run --seeds 1 --steps {steps} --seed {seed}");
        let names: Vec<_> = taken_away.iter().map(Trouble::name).collect();
        if !names.is_empty() {
            command += " --without ";
            command += &names.join(",");
        }
        command
    }
}

/// The smallest case that was found to fail as well, in at most so many runs.
pub fn shrink(mut case: Case, mut runs: u32, fails: impl Fn(Case) -> bool) -> Case {
    let mut try_it = |smaller: Case| {
        runs = runs.saturating_sub(1);
        runs > 0 && fails(smaller)
    };
    let mut shrunk = true;
    while shrunk {
        shrunk = false;
        for part in [2, 4, 10] {
            let smaller = Case { steps: case.steps - case.steps / part, ..case };
            if smaller.steps < case.steps && try_it(smaller) {
                (case, shrunk) = (smaller, true);
                break;
            }
        }
        for trouble in case.troubles() {
            let smaller = Case { taken_away: case.taken_away.with(trouble), ..case };
            if try_it(smaller) {
                (case, shrunk) = (smaller, true);
            }
        }
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_shrinks_to_what_makes_it_fail() {
        let case = Case { seed: 5, steps: 10_000, taken_away: Troubles::NONE };
        let culprit = case.troubles()[0];
        let fails = |case: Case| case.steps >= 100 && case.troubles().contains(&culprit);
        let small = shrink(case, 1_000, fails);
        assert_eq!(small.troubles(), [culprit]);
        assert!((100..120).contains(&small.steps), "{small:?}");
    }
}
