//! Crowds that mostly wait: their users, how they log in, what holding them costs.

use super::{Origin, Target, load::Recording, seconds};
use crate::{
    hold::{self, HoldPlan, Holder, Manner, Pace},
    interrupt,
    operator::Operator,
    parts,
    report::Report,
    sources::Sources,
    storm::{self, Opener, StormPlan},
    users::Users,
};
use anyhow::Result;
use clap::Args;
use starling_codec::limits;
use std::{net::SocketAddr, path::PathBuf};

/// Between two lines about a crowd that is held, if nobody says.
const PROGRESS_EVERY_S: f64 = 5.0;

#[derive(Debug, Args)]
pub(super) struct Hold {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    connections: usize,
    /// Quiet before each measurement, from when all are connected and have their message.
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    seconds: f64,
    /// Smaller crowds to measure on the way; the cost of a connection is then counted from the
    /// first of them.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    report_at: Vec<usize>,
    #[command(flatten)]
    split: Split,
    /// After the last measurement, hold on until the server answered a heartbeat of each. Those
    /// that are not due yet beat then, some at a time.
    #[arg(long)]
    until_beaten: bool,
    /// At the end, cut off every N-th device without a word: it must come back, and gets a
    /// message more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cut_every: Option<u32>,
    /// After the last measurement of memory, measure the server's processor time for so long.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    rest: f64,
    #[command(flatten)]
    origin: Origin,
    #[command(flatten)]
    behaviour: Behaviour,
    #[command(flatten)]
    recording: Recording,
    #[arg(long)]
    json: bool,
}

/// How devices behave. HELLO names a range for the heartbeat, in seconds, and the server chooses
/// within it.
#[derive(Debug, Args)]
pub(super) struct Behaviour {
    #[arg(long, value_name = "S", default_value_t = limits::MIN_HEARTBEAT_S)]
    heartbeat_min: u32,
    #[arg(long, value_name = "S", default_value_t = limits::MAX_HEARTBEAT_S)]
    heartbeat_max: u32,
    /// Log-ins a second; "search" finds a rate that the server takes with ease. Without, as many
    /// as it answers.
    #[arg(long, value_name = "N|search")]
    login_rate: Option<Pace>,
    /// Tell on standard error how far it is, every so many seconds: 5 without --json.
    #[arg(long, value_name = "S")]
    progress: Option<f64>,
}

impl Behaviour {
    fn manner(&self) -> Manner {
        Manner {
            heartbeat_s: (self.heartbeat_min, self.heartbeat_max),
            pace: self.login_rate.unwrap_or(Pace::Unbounded),
            progress: self.progress.map(seconds),
        }
    }
}

/// How a crowd is shared by processes.
#[derive(Debug, Args)]
struct Split {
    /// Connections that one process has at most; more than it may have anyway are shared by several.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    per_process: usize,
}

/// What each of them needs.
#[derive(Debug, Args)]
struct Part {
    #[arg(long)]
    server: SocketAddr,
    #[arg(long)]
    users: PathBuf,
    /// Connections that the processes before it have.
    #[arg(long)]
    before: usize,
    #[command(flatten)]
    origin: Origin,
}

impl Part {
    fn sources(&self) -> Sources {
        Sources::new(self.origin.sources.clone(), self.before)
    }
}

#[derive(Debug, Args)]
pub(super) struct HoldPart {
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    behaviour: Behaviour,
    #[command(flatten)]
    recording: Recording,
}

#[derive(Debug, Args)]
pub(super) struct Prepare {
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    server: SocketAddr,
    /// The operator's key, `operator.key` in the server's data directory.
    #[arg(long, value_name = "FILE")]
    operator_key: PathBuf,
    /// Where the users and their tokens are kept.
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
    #[arg(long, value_name = "N")]
    count: usize,
}

#[derive(Debug, Args)]
pub(super) struct Storm {
    #[command(flatten)]
    target: Target,
    /// Connections of a wave.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    connections: usize,
    /// Log-ins a second, whatever the server does: how long one takes counts from when it was
    /// meant to begin. Without, as many as the server takes.
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// New waves begin until so long was spent on them.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    #[command(flatten)]
    split: Split,
    #[command(flatten)]
    origin: Origin,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct StormPart {
    #[command(flatten)]
    part: Part,
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
}

impl Hold {
    pub(super) fn run(mut self) -> Result<bool> {
        self.report_at.sort_unstable();
        interrupt::listen()?;
        self.target.examine(self.connections, &self.origin)?;
        self.behaviour.progress =
            self.behaviour.progress.or((!self.json).then_some(PROGRESS_EVERY_S));
        let plan = HoldPlan {
            connections: self.connections,
            report_at: self.report_at,
            quiet: seconds(self.seconds),
            per_process: self.split.per_process,
            until_beaten: self.until_beaten,
            cut_every: self.cut_every.map(|step| step as usize),
            rest: seconds(self.rest),
            manner: self.behaviour.manner(),
            history: self.recording.history,
            sources: self.origin.sources,
        };
        let (hold, _held) = hold::run(&self.target, &plan)?;
        hold.print(self.json)
    }
}

impl HoldPart {
    pub(super) fn run(self) -> Result<bool> {
        let (manner, history) = (self.behaviour.manner(), self.recording.history);
        let (server, sources) = (self.part.server, self.part.sources());
        let begin = |users| Holder::new(server, users, sources, &manner, history.as_deref());
        parts::serve(&self.part.users, begin).map(|()| true)
    }
}

impl Prepare {
    pub(super) fn run(self) -> Result<bool> {
        interrupt::listen()?;
        let mut operator = Operator::connect(self.server, &self.operator_key)?;
        Users::open(Some(&self.users))?.ensure(self.count, &mut operator)?;
        Ok(true)
    }
}

impl Storm {
    pub(super) fn run(self) -> Result<bool> {
        interrupt::listen()?;
        self.target.examine(self.connections, &self.origin)?;
        let plan = StormPlan {
            server: self.target.server,
            server_pid: self.target.server_pid,
            sources: self.origin.sources,
            connections: self.connections,
            per_process: self.split.per_process,
            rate: self.rate,
            measured: seconds(self.seconds),
        };
        let told = |wave: usize, per_s: f64| {
            if !self.json {
                eprintln!("wave {wave}: {per_s:.0} a second");
            }
        };
        storm::run_logins(&self.target, &plan, told)?.print(self.json)
    }
}

impl StormPart {
    pub(super) fn run(self) -> Result<bool> {
        let (server, sources) = (self.part.server, self.part.sources());
        let begin = |users| Opener::of_part(server, users, sources, self.rate);
        parts::serve(&self.part.users, begin).map(|()| true)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "a number above 0".into())
}
