//! The command line. What belongs to one kind of command stands in a file of its own.

mod crowd;
mod history;
mod load;
mod yardstick;

pub use yardstick::Variant;

use crate::{
    compare,
    fleet::{self, Crew},
    scenario,
    workflow::doctor,
};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use crowd::{Hold, HoldPart, Prepare, Storm, StormPart};
use history::History;
use load::{Capacity, Pair, RunFile, Short};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use yardstick::{Ratios, Yardstick};

/// Measures a Starling server, and what it is measured against.
#[derive(Debug, Parser)]
#[command(name = "starling-bench", max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario from a file: phases of load, one after the other. Examples are in
    /// client-bench/scenarios.
    Run(RunFile),
    /// Takes part in a run that another process coordinates, on this machine or another.
    Join {
        /// The coordinator's --listen.
        #[arg(value_name = "ADDRESS")]
        coordinator: SocketAddr,
        #[command(flatten)]
        origin: Origin,
    },
    /// Pairs of users, one of whom writes to the other.
    Pair(Pair),
    /// Receivers are away while they are written to, then come back and catch up.
    Sync(Short<scenario::Sync>),
    /// Devices go and come back all the time, while pairs write.
    Churn(Short<scenario::Churn>),
    /// Some receivers stop reading; the others should not notice.
    SlowReaders(Short<scenario::SlowReaders>),
    /// A day in minutes: idle devices, heartbeats, bursts, comings and goings.
    Mixed(Short<scenario::Mixed>),
    /// Searches for the highest rate at which the 99.9th percentile of delivery holds.
    Capacity(Capacity),
    /// Devices that are logged in, have one message each, and do nothing but beat their hearts.
    ///
    /// Prints what a connection costs: the server's proportional set size (with --server-pid) and
    /// the kernel's slabs, after so many seconds of quiet. P1 wants the users made before and the
    /// server restarted: `starling-bench ratios --only P1` does all of it, with two sizes.
    Hold(Hold),
    #[command(hide = true)]
    HoldPart(HoldPart),
    /// Makes users, so that a later run finds them; those that the file has already stay.
    Prepare(Prepare),
    /// Waves of connections that log in: by rate, or as fast as the server takes them.
    Storm(Storm),
    #[command(hide = true)]
    StormPart(StormPart),
    /// Pages of old messages, asked for at random places of long conversations.
    History(History),
    /// Starts a server and the yardsticks in turns and prints how they compare: the goals that
    /// are ratios, with what must be reached first.
    Ratios(Ratios),
    /// Compares two results, of a run or of `ratios --json`: medians and ranges. Faster or slower is
    /// said only when the ranges of at least 5 rounds do not overlap.
    Compare {
        #[arg(value_name = "A.json")]
        before: PathBuf,
        #[arg(value_name = "B.json")]
        after: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// The bare minimum for the same work: what Starling is measured against.
    #[command(subcommand)]
    Yardstick(Yardstick),
}

/// The server, and who logs in.
#[derive(Debug, Args)]
pub struct Target {
    /// Address of the server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    pub server: SocketAddr,
    /// The operator's key, `operator.key` in the server's data directory: makes the users.
    #[arg(long, value_name = "FILE")]
    pub operator_key: PathBuf,
    /// Keeps the users and their tokens for later runs: only those that are missing are made, and
    /// a smaller run uses the first ones.
    #[arg(long, value_name = "FILE")]
    pub users: Option<PathBuf>,
    /// Process of the server, if it is on this machine: its processor time and memory are
    /// measured.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// Where connections come from.
#[derive(Clone, Debug, Default, Args)]
struct Origin {
    /// Addresses of this machine that connections come from, 10,000 from each; a loopback server
    /// is reached from 127.0.0.2 and on.
    #[arg(long, value_name = "ADDRESS,ADDRESS", value_delimiter = ',')]
    sources: Vec<IpAddr>,
}

impl Target {
    /// Says what may spoil a run of so many connections.
    ///
    /// # Errors
    /// Something makes it impossible.
    fn examine(&self, connections: usize, origin: &Origin) -> Result<()> {
        let crew = Crew::here(1, origin.sources.clone());
        let warnings = doctor::examine(connections, self, &crew)?;
        warnings.iter().for_each(|warning| eprintln!("doctor: {warning}"));
        Ok(())
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl Arguments {
    /// Does what was asked; `false` if the result cannot be believed.
    pub fn run(self) -> Result<bool> {
        match self.command {
            Command::Run(file) => file.run(),
            Command::Join { coordinator, origin } => {
                fleet::join(coordinator, &origin.sources).map(|()| true)
            }
            Command::Pair(pair) => pair.run(),
            Command::Sync(short) => short.run(scenario::Sync::scenario),
            Command::Churn(short) => short.run(scenario::Churn::scenario),
            Command::SlowReaders(short) => short.run(scenario::SlowReaders::scenario),
            Command::Mixed(short) => short.run(scenario::Mixed::scenario),
            Command::Capacity(capacity) => capacity.run(),
            Command::Hold(hold) => hold.run(),
            Command::HoldPart(part) => part.run(),
            Command::Prepare(prepare) => prepare.run(),
            Command::Storm(storm) => storm.run(),
            Command::StormPart(part) => part.run(),
            Command::History(history) => history.run(),
            Command::Ratios(ratios) => ratios.run(),
            Command::Compare { before, after, json } => {
                compare::print(&compare::compare(&before, &after)?, json)?;
                Ok(true)
            }
            Command::Yardstick(yardstick) => yardstick.run(),
        }
    }
}
