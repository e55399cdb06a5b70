//! The command `starling-sim`. What it says on standard output is the same when the same seeds run
//! again; how long it took is said on standard error.

use crate::{
    coverage::{Branch, Coverage},
    plan::{Trouble, Troubles},
    shrink::{Case, shrink},
};
use clap::{CommandFactory, Parser, Subcommand};
use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Runs that shrinking a failure may take.
const SHRINK_RUNS: u32 = 60;
/// Every case that ever failed.
const KEPT: &str = include_str!("../kept-seeds.txt");

/// Version, commit and protocol version.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("STARLING_COMMIT"), ", protocol 1)");
const _: () = assert!(starling_codec::PROTOCOL_VERSION == 1);

/// Simulates a server, its clients and everything that may go wrong, and checks that no message is
/// lost or doubled.
#[derive(Debug, Parser)]
#[command(name = "starling-sim", version = VERSION)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds
    Run(Run),
    /// Run all cases that ever failed
    Kept,
    /// List the features and faults that a seed turns on and off
    Troubles,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// How many seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Steps of each, before its faults end
    #[arg(long, default_value_t = 10_000)]
    steps: u64,
    /// The first seed; the others follow it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begin with a seed that nobody knows
    #[arg(long, conflicts_with = "seed")]
    fresh: bool,
    /// Begin no seed after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Features and faults to take away, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = trouble_named)]
    without: Vec<Trouble>,
    /// Tell on standard error everything that happens
    #[arg(long)]
    tell: bool,
    /// Leave a failing case as it is
    #[arg(long)]
    no_shrink: bool,
}

fn trouble_named(name: &str) -> Result<Trouble, String> {
    let found = Trouble::ALL.iter().copied().find(|trouble| trouble.name() == name);
    found.ok_or_else(|| "see `starling-sim troubles`".to_owned())
}

/// What the command line may say.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    match act(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("starling-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: &Arguments) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match &arguments.command {
        Command::Run(run) => {
            let seed = if run.fresh { fresh_seed() } else { run.seed };
            run_seeds(&mut out, run, seed)
        }
        Command::Kept => run_kept(&mut out),
        Command::Troubles => {
            for trouble in Trouble::ALL {
                writeln!(out, "{}", trouble.name())?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_seeds(out: &mut impl Write, run: &Run, first: u64) -> io::Result<ExitCode> {
    let without = run.without.iter();
    let taken_away = without.fold(Troubles::NONE, |away, &trouble| away.with(trouble));
    let started = Instant::now();
    let mut tally = Tally::default();
    if run.seeds > 1 {
        writeln!(out, "{} seeds of {} steps from {first}", run.seeds, run.steps)?;
    }
    for seed in (0..run.seeds).map(|offset| first.wrapping_add(offset)) {
        if run.seconds.is_some_and(|most| started.elapsed() >= Duration::from_secs(most)) {
            break;
        }
        let case = Case { seed, steps: run.steps, taken_away };
        let hash = tally.run(out, case, run.tell, !run.no_shrink)?;
        if run.seeds == 1 {
            writeln!(out, "seed {seed}: trace {hash:016x}")?;
        }
    }
    if run.seeds > 1 {
        tell_coverage(out, &tally.coverage)?;
    }
    tally.end(out, started)
}

fn run_kept(out: &mut impl Write) -> io::Result<ExitCode> {
    let started = Instant::now();
    let mut tally = Tally::default();
    for line in KEPT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let case =
            kept_case(line).ok_or_else(|| io::Error::other(format!("not a case: {line}")))?;
        tally.run(out, case, false, false)?;
    }
    tally.end(out, started)
}

/// A seed, its steps, and what is taken away: all after the `#` is for people.
fn kept_case(line: &str) -> Option<Case> {
    let mut words = line.split('#').next()?.split_whitespace();
    let (seed, steps) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mut taken_away = Troubles::NONE;
    for name in words {
        taken_away = taken_away.with(trouble_named(name).ok()?);
    }
    Some(Case { seed, steps, taken_away })
}

/// Seeds never begin where any ran before, but by chance.
fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Half the digits: short enough to be typed. A clock before 1970 gives a seed as well.
    since.map_or(0, |since| since.as_nanos() as u64) % 1_000_000_000_000
}

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    steps: u64,
    coverage: Coverage,
}

impl Tally {
    /// Runs a case and says what was wrong, if anything was. Returns the hash of its trace.
    fn run(
        &mut self,
        out: &mut impl Write,
        case: Case,
        tell: bool,
        shrinks: bool,
    ) -> io::Result<u64> {
        let report = case.run(tell);
        self.coverage.merge(&report.coverage);
        self.steps += report.steps;
        if report.failures.is_empty() {
            self.passed += 1;
            return Ok(report.hash);
        }
        self.failed += 1;
        writeln!(out, "seed {} FAILED", case.seed)?;
        for failure in &report.failures {
            writeln!(out, "  {failure}")?;
        }
        writeln!(out, "  replay: {}", case.command())?;
        if shrinks {
            out.flush()?;
            let small = shrink(case, SHRINK_RUNS, |case| !case.run(false).failures.is_empty());
            writeln!(out, "  shrunk: {}", small.command())?;
            let names: Vec<_> = small.troubles().into_iter().map(Trouble::name).collect();
            writeln!(out, "  what is left: {}", names.join(", "))?;
            for failure in small.run(false).failures {
                writeln!(out, "    {failure}")?;
            }
        }
        Ok(report.hash)
    }

    fn end(self, out: &mut impl Write, started: Instant) -> io::Result<ExitCode> {
        let seconds = started.elapsed().as_secs_f64();
        let rate = self.steps as f64 / seconds.max(1e-9);
        eprintln!("{} steps in {seconds:.1} s, {rate:.0} a second", self.steps);
        writeln!(out, "{} passed, {} failed", self.passed, self.failed)?;
        Ok(if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn tell_coverage(out: &mut impl Write, coverage: &Coverage) -> io::Result<()> {
    for &branch in Branch::ALL {
        writeln!(out, "{:>12}  {}", coverage.of(branch), branch.words())?;
    }
    for gap in coverage.gaps() {
        writeln!(out, "gap: no seed has seen that {}", gap.words())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kept_line_is_a_case() {
        let lines = KEPT.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.for_each(|line| assert!(kept_case(line).is_some(), "{line}"));
        let case = kept_case("7 300 cuts kills # a word").expect("a case");
        let taken_away = Troubles::NONE.with(Trouble::Cuts).with(Trouble::Kills);
        assert_eq!(case, Case { seed: 7, steps: 300, taken_away });
    }
}
