//! The course of a comparison: what is measured next, how long everything may still take, and what
//! came of it. A measurement that fails takes nothing with it. It is made once more at the end, if it
//! ever worked.

use super::goals::{GOALS, Goal, What};
use crate::interrupt;
use anyhow::{Result, ensure};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The figures of one measurement, in the order of the goals.
pub type Figures = Vec<Result<f64>>;

/// What there is of one goal.
#[derive(Debug, Default)]
pub struct Samples {
    pub rounds: Vec<f64>,
    /// Why there are not more.
    pub failure: Option<String>,
}

/// Goals of one measurement, which stand side by side, in one round.
#[derive(Clone, Copy)]
struct Turn {
    round: usize,
    group: usize,
    /// It failed before.
    again: bool,
}

/// Measures `wanted` goals in `rounds`, or until Ctrl-C; what there is of each of [`GOALS`].
pub fn run(
    rounds: usize,
    wanted: impl Fn(&Goal) -> bool,
    mut measure: impl FnMut(What) -> Result<Figures>,
) -> Vec<Samples> {
    let groups: Vec<&[Goal]> = GOALS
        .chunk_by(|one, other| one.what == other.what)
        .filter(|group| group.iter().any(&wanted))
        .collect();
    let turns = (1..=rounds)
        .flat_map(|round| (0..groups.len()).map(move |group| Turn { round, group, again: false }));
    let mut turns: VecDeque<Turn> = turns.collect();
    let mut samples: Vec<Samples> = GOALS.iter().map(|_| Samples::default()).collect();
    let mut took = vec![None; groups.len()];
    while let Some(turn) = turns.pop_front() {
        let group = groups[turn.group];
        let works = || group.iter().any(|goal| !samples[place_of(goal)].rounds.is_empty());
        if turn.again && !works() {
            continue;
        }
        let left = [turn].iter().chain(&turns).map(|turn| took[turn.group]).sum();
        eprintln!("{}", headline(group, turn, rounds, left));
        let begun = Instant::now();
        let figures = measure(group[0].what);
        took[turn.group] = Some(begun.elapsed());
        if interrupt::requested() {
            eprintln!("interrupted: this is what there is");
            break;
        }
        if !note(group, figures, rounds, &mut samples) && !turn.again {
            turns.push_back(Turn { again: true, ..turn });
        }
    }
    samples
}

/// What is measured next, and how long everything may still take, if that is known.
fn headline(group: &[Goal], turn: Turn, rounds: usize, left: Option<Duration>) -> String {
    let mut ids: Vec<&str> = group.iter().map(|goal| goal.id).collect();
    ids.dedup();
    let again = if turn.again { ", once more" } else { "" };
    let left = left
        .map_or(String::new(), |left| format!(", about {} min left", left.as_secs().div_ceil(60)));
    format!("round {} of {rounds}: {}{again}{left}", turn.round, ids.join(", "))
}

/// Keeps the figures of a measurement, no more than `rounds` of a goal; `false`: one is missing.
fn note(group: &[Goal], figures: Result<Figures>, rounds: usize, samples: &mut [Samples]) -> bool {
    let figures = match figures {
        Ok(figures) => figures,
        Err(error) => {
            let said = format!("{error:#}");
            eprintln!("  FAILED: {said}");
            group.iter().for_each(|goal| samples[place_of(goal)].failure = Some(said.clone()));
            return false;
        }
    };
    let mut whole = true;
    for (goal, figure) in group.iter().zip(figures) {
        let known = &mut samples[place_of(goal)];
        match figure.and_then(a_number) {
            Ok(figure) => {
                eprintln!("  {} {figure:.2} {}", goal.name(), goal.unit);
                if known.rounds.len() < rounds {
                    known.rounds.push(figure);
                }
            }
            Err(error) => {
                whole = false;
                known.failure = Some(format!("{error:#}"));
                eprintln!("  {} FAILED: {error:#}", goal.name());
            }
        }
    }
    whole
}

fn a_number(figure: f64) -> Result<f64> {
    ensure!(figure.is_finite(), "it came to {figure}");
    Ok(figure)
}

/// The place of a goal among all.
fn place_of(goal: &Goal) -> usize {
    let known = GOALS.iter().position(|known| known.name() == goal.name());
    known.expect("goals are taken from GOALS")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ratios::goals::BUSY;
    use anyhow::bail;

    fn of<'a>(samples: &'a [Samples], name: &str) -> &'a Samples {
        &samples[GOALS.iter().position(|goal| goal.name() == name).unwrap()]
    }

    #[test]
    fn a_failure_takes_no_other_figure_with_it_and_is_made_good_at_the_end() {
        let mut measured = Vec::new();
        let wanted = |goal: &Goal| ["P8", "P9", "P13", "P14"].contains(&goal.id);
        let samples = run(2, wanted, |what| {
            measured.push(what);
            let times = measured.iter().filter(|other| **other == what).count();
            match what {
                // One of three figures is missing in the second round.
                What::Latency if times == 2 => {
                    Ok(vec![Ok(2.0), Ok(2.0), Err(anyhow::anyhow!("late"))])
                }
                What::Latency => Ok(vec![Ok(1.0), Ok(1.0), Ok(times as f64)]),
                What::SlowReaders => bail!("never"),
                What::Freeze if times == 1 => Ok(vec![Ok(f64::NAN)]),
                _ => Ok(vec![Ok(5.0)]),
            }
        });
        let round = [What::Latency, What::SlowReaders, What::Freeze];
        let again = [What::Freeze, What::Latency];
        assert_eq!(measured, [&round[..], &round[..], &again[..]].concat());
        assert_eq!(of(&samples, "P8 p50").rounds, [1.0, 2.0]);
        assert_eq!(of(&samples, "P9").rounds, [1.0, 3.0]);
        let never = of(&samples, "P13 memory");
        assert_eq!((never.rounds.len(), never.failure.as_deref()), (0, Some("never")));
        let freeze = of(&samples, "P14");
        assert_eq!(
            (&freeze.rounds[..], freeze.failure.as_deref()),
            (&[5.0, 5.0][..], Some("it came to NaN"))
        );
    }

    #[test]
    fn the_headline_says_what_comes_and_how_long_it_may_take() {
        let group: Vec<Goal> =
            GOALS.iter().filter(|goal| goal.what == What::Rocks(BUSY)).copied().collect();
        let turn = |again| Turn { round: 2, group: 0, again };
        assert_eq!(headline(&group, turn(false), 5, None), "round 2 of 5: P7");
        let left = Some(Duration::from_secs(61));
        let line = headline(&group, turn(true), 5, left);
        assert_eq!(line, "round 2 of 5: P7, once more, about 2 min left");
    }
}
