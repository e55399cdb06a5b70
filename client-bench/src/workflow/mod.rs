//! What every run goes through: validate, doctor, prepare, connect and warm up, run, cool down,
//! check, report.

pub mod doctor;
mod sampler;
mod watch;

pub use sampler::Sample;

use crate::{
    arguments::Target,
    dialect::Starling,
    fleet::{self, Crew},
    history::HistoryFile,
    interrupt,
    load::{self, Measured, Outcome},
    machine::{self, Machine},
    operator::{Counters, Operator},
    scenario::Scenario,
    sources::Sources,
    users::Users,
};
use anyhow::{Context, Result, ensure};
use sampler::Sampler;
use serde::Serialize;
use std::{path::PathBuf, time::SystemTime};
use watch::Watch;

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct Job {
    pub scenario: Scenario,
    pub rounds: usize,
    /// Who shares the load; no process of this machine: as many as it takes.
    pub crew: Crew,
    /// Nothing on standard error: warnings are in the report.
    pub quiet: bool,
    /// Where what the devices see is recorded.
    pub history: Option<PathBuf>,
}

/// A result, with all that is needed to repeat it and to doubt it.
#[derive(Debug, Serialize)]
pub struct RunReport {
    /// Of this format.
    pub format: u32,
    pub tool: String,
    /// What the server's program says of its version, if its process is known.
    pub server: Option<String>,
    pub begun_unix_s: u64,
    pub machine: Machine,
    pub scenario: Scenario,
    /// What was found before the run that may spoil it.
    pub warnings: Vec<String>,
    /// Of the round in the middle, by throughput.
    pub outcome: Outcome,
    /// The server's counters before and after that round, and what rose between.
    pub before: Counters,
    pub after: Counters,
    pub risen: Counters,
    /// All rounds, in order.
    pub rounds: Vec<Round>,
}

impl RunReport {
    /// The round that `outcome` is of.
    pub fn middle(&self) -> &Round {
        &self.rounds[middle(&self.rounds)]
    }
}

/// The place of the round in the middle, by throughput.
fn middle(rounds: &[Round]) -> usize {
    let mut order: Vec<usize> = (0..rounds.len()).collect();
    let per_s = |index: usize| rounds[index].outcome.messages_per_s;
    order.sort_by(|one, other| per_s(*one).total_cmp(&per_s(*other)));
    order[(rounds.len() - 1) / 2]
}

/// One round.
#[derive(Debug, Serialize)]
pub struct Round {
    pub outcome: Outcome,
    /// Of each measured phase.
    pub phases: Vec<Outcome>,
    /// From connecting to being ready, of the first log-ins.
    pub opening: crate::latency::Percentiles,
    pub interrupted: bool,
    pub errors: Vec<String>,
    pub samples: Vec<Sample>,
    #[serde(skip)]
    pub measured: Measured,
    #[serde(skip)]
    pub before: Counters,
    #[serde(skip)]
    pub after: Counters,
}

/// Runs a job from beginning to end.
///
/// # Errors
/// The scenario contradicts itself or does not fit this machine, the server cannot be reached, or
/// nothing was measured.
pub fn run(target: &Target, job: &Job) -> Result<RunReport> {
    job.scenario.validate()?;
    let crew = doctor::enough(job.scenario.connections(), &job.crew)?;
    // Of several processes each records its own.
    let path = job.history.as_deref().filter(|_| crew.size() == 1);
    let mut history = path.map(HistoryFile::create).transpose()?;
    let report = run_recorded(target, job, &mut history)?;
    history.map_or(Ok(()), HistoryFile::finish)?;
    Ok(report)
}

/// As [`run`], recorded in a history that goes on, unless several processes take part.
pub fn run_recorded(
    target: &Target,
    job: &Job,
    history: &mut Option<HistoryFile>,
) -> Result<RunReport> {
    job.scenario.validate()?;
    let crew = doctor::enough(job.scenario.connections(), &job.crew)?;
    let job = &Job { crew, ..job.clone() };
    let Job { scenario, rounds, .. } = job;
    ensure!(*rounds > 0, "no rounds");
    let step = |what: &str| {
        if !job.quiet {
            eprintln!("{what}");
        }
    };
    let warnings = doctor::examine(scenario.connections(), target, &job.crew)?;
    warnings.iter().for_each(|warning| step(&format!("doctor: {warning}")));
    interrupt::listen()?;
    machine::raise_file_limit()?;
    let mut operator = Operator::connect(target.server, &target.operator_key)?;
    let mut users = Users::open_or_cached(target.users.as_deref(), &target.operator_key)?;
    let had = users.list.len();
    users.ensure(scenario.connections(), &mut operator)?;
    step(&format!("users: {} there, {} made", had, users.list.len() - had));
    let begun_unix_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs());
    ensure!(
        job.history.is_none() || job.crew.size() == 1 || *rounds == 1,
        "several processes record a history of one round"
    );
    let mut done = Vec::new();
    for number in 1..=*rounds {
        if *rounds > 1 {
            step(&format!("round {number} of {rounds}"));
        }
        let round = round(target, job, &mut operator, &mut users, history);
        let round = users.or_forget(round);
        match round {
            Ok(round) => done.push(round),
            // What there is counts.
            Err(error) if interrupt::requested() && !done.is_empty() => step(&format!("{error:#}")),
            Err(error) => return Err(error),
        }
        if interrupt::requested() {
            break;
        }
    }
    let middle = &done[middle(&done)];
    Ok(RunReport {
        format: 1,
        tool: crate::VERSION.clone(),
        server: target.server_pid.and_then(machine::version_of),
        begun_unix_s,
        machine: Machine::this()?,
        scenario: scenario.clone(),
        warnings,
        outcome: middle.outcome.clone(),
        before: middle.before.clone(),
        after: middle.after.clone(),
        risen: middle.after.since(&middle.before),
        rounds: done,
    })
}

fn round(
    target: &Target,
    job: &Job,
    operator: &mut Operator,
    users: &mut Users,
    history: &mut Option<HistoryFile>,
) -> Result<Round> {
    let scenario = &job.scenario;
    let before = operator.counters()?;
    let sources = Sources::new(job.crew.sources.clone(), 0);
    let plan = scenario.plan(target.server, sources, target.server_pid);
    let sampler = Sampler::new(target);
    let mut watch = Watch::new(&plan, job.quiet, &sampler);
    let measured = if job.crew.size() > 1 {
        let (server, pid) = (target.server, target.server_pid);
        let (list, history) = (Some(&mut users.list), job.history.as_deref());
        fleet::run(&job.crew, scenario, server, pid, list, history, &mut watch)?
    } else {
        let list = std::mem::take(&mut users.list);
        let talkers = 2 * scenario.pairs;
        let mut dialect = Starling::new(list, talkers, scenario.class, scenario.heartbeat_s);
        dialect.history = history.take();
        let (measured, dialect) = load::run(plan, rand::random(), dialect, &mut watch)?;
        *history = dialect.history;
        if let Some(history) = history {
            history.settled(&dialect.users);
        }
        users.list = dialect.users;
        measured
    };
    watch.finish();
    let samples = sampler.finish();
    users.save()?;
    // A server that went away has no counters any more, and the report says what happened.
    let after = operator.counters().unwrap_or_else(|_| before.clone());
    Ok(Round {
        outcome: measured.outcome().context("nothing was measured")?,
        phases: measured.outcomes(),
        opening: measured.opening.percentiles(),
        interrupted: measured.interrupted,
        errors: measured.errors.clone(),
        samples,
        measured,
        before,
        after,
    })
}
