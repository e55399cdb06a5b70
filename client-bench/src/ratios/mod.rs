//! `starling-bench ratios`: starts the server and the yardsticks itself, in turns, and prints how
//! they compare. Each figure is a ratio of two measurements made within a minute of each other,
//! for a machine's speed changes from one minute to the next.

mod cells;
mod goals;
mod server;

pub use goals::Goal;

use crate::{
    interrupt,
    machine::{Machine, Wanted},
    report,
};
use anyhow::{Context, Result, ensure};
use cells::Bench;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use goals::GOALS;
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Fewer rounds than this make a short run.
const FULL_ROUNDS: usize = 5;
/// A round does not count if others got a larger share than this of the time in which the machine
/// wanted its processors: whichever of the two that are compared ran then is charged with it. Less
/// is lost in what rounds differ by among themselves.
const MOST_STOLEN: f64 = 0.05;

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct RatiosPlan {
    pub server: PathBuf,
    /// Where data is kept while it is needed.
    pub directory: PathBuf,
    /// Ids of goals; all if empty.
    pub only: Vec<String>,
    pub rounds: usize,
    /// Measured time of each run.
    pub measured: Duration,
    /// Quiet before memory is measured.
    pub quiet: Duration,
}

/// A row of the table of goals.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    pub id: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<&'static str>,
    pub goal: f64,
    pub floor: f64,
    /// Median of the rounds, and their range.
    pub measured: f64,
    pub low: f64,
    pub high: f64,
    pub unit: &'static str,
    /// The floor is reached.
    pub holds: bool,
    /// Fewer rounds than figures to be published take.
    pub short: bool,
    pub rounds: Vec<f64>,
}

/// Measures as planned, and prints; `false` if a floor is missed.
///
/// # Errors
/// The server or a yardstick does not run, or a message was lost.
pub fn run(plan: &RatiosPlan, json: bool) -> Result<bool> {
    ensure!(plan.rounds > 0, "no rounds");
    let wanted = |goal: &Goal| plan.only.is_empty() || plan.only.iter().any(|id| id == goal.id);
    for id in &plan.only {
        ensure!(GOALS.iter().any(|goal| goal.id == id), "there is no ratio {id}");
    }
    interrupt::listen()?;
    let (server_core, load_core) = report::two_cores()?;
    report::on_core(load_core)?;
    let bench = Bench {
        binary: plan.server.clone(),
        directory: directory(&plan.directory)?,
        server_core,
        measured: plan.measured,
        quiet: plan.quiet,
    };
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); GOALS.len()];
    let mut failed = false;
    // Goals of one measurement stand side by side.
    let groups: Vec<_> = GOALS
        .chunk_by(|one, other| one.what == other.what)
        .filter(|group| group.iter().any(&wanted))
        .collect();
    let all = plan.rounds * groups.len();
    let begun = Instant::now();
    'rounds: for round in 1..=plan.rounds {
        for (place, group) in groups.iter().enumerate() {
            let done = (round - 1) * groups.len() + place;
            eprintln!("{}", headline(group, round, plan.rounds, left(begun, done, all)));
            let before = Wanted::now()?;
            let figures = bench.measure(group[0].what);
            let stolen = Wanted::now()?.stolen_since(before);
            let figures = figures.and_then(|figures| judge(stolen).map(|()| figures));
            if interrupt::requested() {
                eprintln!("interrupted: this is what there is");
                break 'rounds;
            }
            match figures {
                Ok(figures) => note(group, &figures, &mut samples),
                // One that fails does not take the others with it; it shows in the end.
                Err(error) => {
                    failed = true;
                    eprintln!("  FAILED: {error:#}");
                }
            }
        }
    }
    let measured =
        GOALS.iter().zip(samples).filter(|(goal, rounds)| wanted(goal) && !rounds.is_empty());
    let ratios: Vec<Ratio> = measured.map(|(goal, rounds)| Ratio::of(goal, rounds)).collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&ratios)?);
    } else {
        print_table(&ratios)?;
    }
    for (goal, measured) in beyond(&ratios) {
        eprintln!("{} {measured:.2}: above 1 the yardstick is bad, so mend it first", goal.name());
    }
    let all_measured = GOALS.iter().filter(|goal| wanted(goal)).count() == ratios.len();
    Ok(!failed && all_measured && ratios.iter().all(|ratio| ratio.holds))
}

/// Whether a round counts in which others got such a share of the processors.
fn judge(stolen: f64) -> Result<()> {
    ensure!(
        stolen <= MOST_STOLEN,
        "invalid: the hypervisor took {:.1} % of the processors' time",
        100.0 * stolen
    );
    Ok(())
}

/// What is measured next, and how long everything may still take.
fn headline(group: &[Goal], round: usize, rounds: usize, left: Option<Duration>) -> String {
    let mut ids: Vec<&str> = group.iter().map(|goal| goal.id).collect();
    ids.dedup();
    let left = left
        .map_or(String::new(), |left| format!(", about {} min left", left.as_secs().div_ceil(60)));
    format!("round {round} of {rounds}: {}{left}", ids.join(", "))
}

/// Judged by what is done; nothing is known of a first round until most of it is.
fn left(begun: Instant, done: usize, all: usize) -> Option<Duration> {
    (done > 3).then(|| begun.elapsed().mul_f64((all - done) as f64 / done as f64))
}

fn note(group: &[Goal], figures: &[f64], samples: &mut [Vec<f64>]) {
    for (goal, figure) in group.iter().zip(figures) {
        eprintln!("  {} {figure:.2} {}", goal.name(), goal.unit);
        let known = GOALS.iter().position(|known| known.name() == goal.name());
        if let Some(place) = known {
            samples[place].push(*figure);
        }
    }
}

fn directory(directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)
        .and_then(|()| directory.canonicalize())
        .with_context(|| format!("cannot use {}", directory.display()))
}

impl Ratio {
    fn of(goal: &Goal, rounds: Vec<f64>) -> Ratio {
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let measured = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Ratio {
            id: goal.id,
            part: goal.part,
            goal: goal.goal,
            floor: goal.floor,
            measured,
            low: sorted[0],
            high: sorted[sorted.len() - 1],
            unit: goal.unit,
            holds: goal.holds(measured),
            short: rounds.len() < FULL_ROUNDS,
            rounds,
        }
    }
}

/// Ratios that no server can have.
fn beyond(ratios: &[Ratio]) -> impl Iterator<Item = (&'static Goal, f64)> {
    ratios.iter().filter(|ratio| ratio.measured > 1.0).filter_map(|ratio| {
        let goal = GOALS.iter().find(|goal| (goal.id, goal.part) == (ratio.id, ratio.part))?;
        goal.is_against_the_bare_minimum().then_some((goal, ratio.measured))
    })
}

fn print_table(ratios: &[Ratio]) -> Result<()> {
    let machine = Machine::this()?;
    // One that failed or was interrupted has fewer.
    let rounds = ratios.iter().map(|ratio| ratio.rounds.len()).min().unwrap_or_default();
    println!("{}, Linux {}, {rounds} rounds", machine.processor, machine.kernel);
    if rounds < FULL_ROUNDS {
        println!("A short run: figures to be published take {FULL_ROUNDS} rounds.");
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["", "goal", "floor", "measured", "range", "floor holds"]);
    for ratio in ratios {
        let value = |value: f64| format!("{value:.2} {}", ratio.unit);
        table.add_row([
            [Some(ratio.id), ratio.part].map(Option::unwrap_or_default).join(" "),
            value(ratio.goal),
            value(ratio.floor),
            value(ratio.measured),
            format!("{:.2} to {:.2}", ratio.low, ratio.high),
            if ratio.holds { "yes" } else { "NO" }.into(),
        ]);
    }
    println!("{table}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_whose_processors_went_to_others_is_invalid_and_says_so() {
        assert!(judge(0.0).is_ok() && judge(MOST_STOLEN).is_ok());
        let error = judge(0.0523).unwrap_err().to_string();
        assert_eq!(error, "invalid: the hypervisor took 5.2 % of the processors' time");
    }

    fn ratio_of(id: &str, rounds: &[f64]) -> Ratio {
        Ratio::of(GOALS.iter().find(|goal| goal.id == id).unwrap(), rounds.to_vec())
    }

    #[test]
    fn as_json_a_ratio_is_what_scripts_read() {
        let keys = |ratio: &Ratio| -> Vec<String> {
            let value = serde_json::to_value(ratio).unwrap();
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        let of_all =
            ["floor", "goal", "high", "holds", "id", "low", "measured", "rounds", "short", "unit"];
        assert_eq!(keys(&ratio_of("P5", &[0.5; 5])), of_all);
        assert!(keys(&ratio_of("P8", &[0.5; 5])).contains(&"part".to_owned()));
        let short =
            |rounds: &[f64]| serde_json::to_value(ratio_of("P5", rounds)).unwrap()["short"].clone();
        assert_eq!((short(&[0.5; 4]), short(&[0.5; 5])), (true.into(), false.into()));
    }

    #[test]
    fn the_goals_are_those_that_can_be_measured_here_and_parts_tell_them_apart() {
        let mut ids: Vec<&str> = GOALS.iter().map(|goal| goal.id).collect();
        ids.dedup();
        // P3 is the proof's, and for P6 there are no groups yet.
        let all = "P1 P2 P4 P5 P5b P7 P8 P9 P10 P11 P12 P13 P14 P15";
        assert_eq!(ids.join(" "), all);
        for goal in GOALS {
            let same: Vec<_> = GOALS.iter().filter(|other| other.id == goal.id).collect();
            assert_eq!(same.len() > 1, goal.part.is_some(), "{}", goal.name());
            assert_eq!(same.iter().filter(|other| other.part == goal.part).count(), 1);
            assert_eq!(same.len() > 1, ["P8", "P13", "P15"].contains(&goal.id), "{}", goal.id);
            // A goal is further than its floor, and whoever reaches it reaches the floor.
            assert!(goal.holds(goal.goal) && goal.holds(goal.floor), "{}", goal.name());
            assert_ne!(goal.goal, goal.floor);
        }
    }

    #[test]
    fn a_ratio_above_one_says_that_its_yardstick_is_bad_if_it_does_the_bare_minimum() {
        let ratios = [ratio_of("P5", &[1.1]), ratio_of("P7", &[0.9]), ratio_of("P15", &[1.4])];
        let names: Vec<String> = beyond(&ratios).map(|(goal, _)| goal.name()).collect();
        assert_eq!(names, ["P5"]);
    }

    #[test]
    fn the_middle_round_counts() {
        let goal = &GOALS.iter().find(|goal| goal.id == "P5").unwrap();
        let ratio = Ratio::of(goal, vec![0.5, 0.1, 0.6]);
        assert_eq!((ratio.measured, ratio.low, ratio.high, ratio.holds), (0.5, 0.1, 0.6, true));
        assert!(!Ratio::of(goal, vec![0.1, 0.6]).holds);
    }
}
