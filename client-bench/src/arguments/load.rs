//! Loads of pairs, and what becomes of their results.

use super::{Origin, Target, seconds};
use crate::{
    capacity::{self, Search},
    dialect::Class,
    fleet::Crew,
    load::Plan,
    report::{Report, files},
    scenario::{self, Scenario},
    schedule::Drive,
    workflow::{self, Job},
};
use anyhow::Result;
use clap::Args;
use std::{net::SocketAddr, path::PathBuf};

/// How many pairs, and how they are driven.
#[derive(Debug, Args)]
pub struct Shape {
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub pairs: u32,
    /// Closed loop: messages in flight in every pair (1 to 64).
    #[arg(long, value_name = "W", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub window: Option<u32>,
    /// Open loop: messages a second over all pairs. Latency counts from the time a message was
    /// meant to be sent.
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// Bytes of a message's payload, at least 16; they do not compress.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub payload: usize,
    /// Measured time. It begins when all are connected, have their first message and have warmed up:
    /// the warm-up is not within it.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// Warm-up: the same load for so long before the measured time, in which nothing is measured. 0
    /// is none.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub warmup: f64,
}

impl Shape {
    fn drive(&self) -> Drive {
        match self.rate {
            Some(rate) => Drive::Rate(rate),
            None => Drive::Window(self.window.unwrap_or(1)),
        }
    }

    pub(super) fn scenario(&self, class: Class) -> Scenario {
        let times = [seconds(self.warmup), seconds(self.seconds)];
        scenario::pairs(self.pairs as usize, self.drive(), self.payload, class, times)
    }

    pub(super) fn plan(&self, server: SocketAddr, server_pid: Option<u32>) -> Plan {
        let (warmup, measured) = (seconds(self.warmup), seconds(self.seconds));
        let plan = Plan::steady(self.pairs as usize, self.drive(), self.payload, warmup, measured);
        Plan { server, server_pid, ..plan }
    }
}

#[derive(Debug, Args)]
pub(super) struct Pair {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    shape: Shape,
    /// What an acknowledgement promises.
    #[arg(long, value_enum, default_value_t = Class::Durable)]
    class: Class,
    #[command(flatten)]
    output: Output,
}

/// What is recorded beside the figures.
#[derive(Debug, Args)]
pub(super) struct Recording {
    /// Record what the devices do and see, for `starling-check`: FILE, or of several processes
    /// FILE.1, FILE.2 and so on, each on its machine, which together are one history. It costs
    /// time, so the figures say less.
    #[arg(long, value_name = "FILE")]
    pub(super) history: Option<PathBuf>,
}

/// How often, and what becomes of the result.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// All of them are kept; figures to be compared take 5.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: usize,
    #[command(flatten)]
    origin: Origin,
    /// Processes of this machine that share the load; without, as many as the limit of open files
    /// makes necessary.
    #[arg(long, value_name = "N")]
    processes: Option<usize>,
    /// Load machines that share it too: each is started with `starling-bench join` and the address
    /// of --listen.
    #[arg(long, value_name = "N", default_value_t = 0)]
    machines: usize,
    /// Where load machines find this process. Tokens of the test users go over this connection in
    /// clear text.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the result goes as files too: JSON, CSV, HDR and a page to look at.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    recording: Recording,
    /// One JSON object instead of a table, and no progress.
    #[arg(long)]
    json: bool,
}

impl Output {
    fn run(self, target: &Target, scenario: Scenario) -> Result<bool> {
        let Output { rounds, origin, processes, machines, listen, output, recording, json } = self;
        let (history, sources) = (recording.history, origin.sources);
        let crew = Crew { processes: processes.unwrap_or(0), machines, listen, sources };
        let job = Job { scenario, rounds, crew, quiet: json, history };
        let report = workflow::run(target, &job)?;
        if let Some(directory) = output {
            files::write(&report, &directory)?;
        }
        report.print(json)
    }
}

#[derive(Debug, Args)]
pub(super) struct RunFile {
    /// The scenario, in TOML.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

/// A scenario made from flags.
#[derive(Debug, Args)]
pub(super) struct Short<S: Args> {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    scenario: S,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Capacity {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_name = "N", default_value_t = 200)]
    pairs: usize,
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    payload: usize,
    #[arg(long, value_enum, default_value_t = Class::Durable)]
    class: Class,
    /// What the 99.9th percentile of delivery must not exceed.
    #[arg(long, value_name = "MS", default_value_t = 25.0)]
    limit: f64,
    /// Measured time of each trial.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Rates that are tried: each halves what is uncertain.
    #[arg(long, value_name = "N", default_value_t = 7)]
    trials: usize,
    #[command(flatten)]
    recording: Recording,
    #[arg(long)]
    json: bool,
}

impl RunFile {
    pub(super) fn run(self) -> Result<bool> {
        self.output.run(&self.target, Scenario::read(&self.file)?)
    }
}

impl Pair {
    pub(super) fn run(self) -> Result<bool> {
        self.output.run(&self.target, self.shape.scenario(self.class))
    }
}

impl<S: Args> Short<S> {
    pub(super) fn run(self, scenario: impl FnOnce(&S) -> Scenario) -> Result<bool> {
        self.output.run(&self.target, scenario(&self.scenario))
    }
}

impl Capacity {
    pub(super) fn run(self) -> Result<bool> {
        let search = Search {
            pairs: self.pairs,
            payload_bytes: self.payload,
            class: self.class,
            limit: seconds(self.limit / 1e3),
            seconds: seconds(self.seconds),
            trials: self.trials,
            history: self.recording.history,
        };
        self.target.examine(2 * self.pairs, &Origin::default())?;
        capacity::search(&self.target, &search)?.print(self.json)
    }
}
