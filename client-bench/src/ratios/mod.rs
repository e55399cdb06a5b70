//! `starling-bench ratios`: starts the server and the yardsticks itself, in turns, and prints how
//! they compare. Each figure is a ratio of two measurements made within a minute of each other,
//! for a machine's speed changes from one minute to the next.

mod cells;
mod course;
mod goals;
mod server;

pub use goals::Goal;

use crate::{
    interrupt,
    machine::{Machine, Wanted},
    report,
    yardstick::redis,
};
use anyhow::{Context, Result, ensure};
use cells::Bench;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use course::{Figures, Samples};
use goals::{GOALS, What};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
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

/// Measures as planned, and prints; `false` if a floor is missed, or a figure.
///
/// # Errors
/// The server's program is not there.
pub fn run(plan: &RatiosPlan, json: bool) -> Result<bool> {
    ensure!(plan.rounds > 0, "no rounds");
    let wanted = |goal: &Goal| plan.only.is_empty() || plan.only.iter().any(|id| id == goal.id);
    for id in &plan.only {
        ensure!(GOALS.iter().any(|goal| goal.id == id), "there is no ratio {id}");
    }
    interrupt::listen()?;
    // Better said now than in every round.
    eprintln!("{}", version_of(&plan.server)?);
    let against_redis =
        GOALS.iter().any(|goal| wanted(goal) && matches!(goal.what, What::Redis(_)));
    if let Some(Err(error)) = against_redis.then(|| version_of(Path::new(redis::PROGRAM))) {
        eprintln!("P15 will fail: {error:#}");
    }
    let (server_core, load_core) = report::two_cores()?;
    report::on_core(load_core)?;
    let bench = Bench {
        binary: plan.server.clone(),
        directory: directory(&plan.directory)?,
        server_core,
        measured: plan.measured,
        quiet: plan.quiet,
    };
    let samples = course::run(plan.rounds, wanted, |what| undisturbed(|| bench.measure(what)));
    let all = || GOALS.iter().zip(&samples).filter(|(goal, _)| wanted(goal));
    let measured = all().filter(|(_, samples)| !samples.rounds.is_empty());
    let ratios: Vec<Ratio> =
        measured.map(|(goal, samples)| Ratio::of(goal, samples.rounds.clone())).collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&ratios)?);
    } else {
        print_table(&ratios)?;
    }
    for (goal, measured) in beyond(&ratios) {
        eprintln!("{} {measured:.2}: above 1 the yardstick is bad, so mend it first", goal.name());
    }
    all().flat_map(|(goal, samples)| shortfall(goal, samples, plan.rounds)).for_each(|line| {
        eprintln!("{line}");
    });
    let whole = all().all(|(_, samples)| samples.rounds.len() == plan.rounds);
    Ok(whole && ratios.iter().all(|ratio| ratio.holds))
}

/// What a program says of its version.
fn version_of(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(output.status.success(), "{} --version: {}", program.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What `measure` finds, unless others had too much of the processors meanwhile.
fn undisturbed(measure: impl FnOnce() -> Result<Figures>) -> Result<Figures> {
    let before = Wanted::now()?;
    let figures = measure()?;
    judge(Wanted::now()?.stolen_since(before))?;
    Ok(figures)
}

/// Why there are fewer rounds of a goal than were asked for.
fn shortfall(goal: &Goal, samples: &Samples, rounds: usize) -> Option<String> {
    let failure = samples.failure.as_ref().filter(|_| samples.rounds.len() < rounds)?;
    Some(format!("{}: {} of {rounds} rounds; {failure}", goal.name(), samples.rounds.len()))
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
