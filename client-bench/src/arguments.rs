//! The command line.

use crate::{
    capacity::{self, Search},
    compare,
    dialect::Class,
    fleet::{self, Crew},
    hold::{self, HoldPlan, Manner, Pace},
    load::Plan,
    operator::Operator,
    ratios::{self, RatiosPlan},
    report::{self, Report, files},
    scenario::{self, Scenario},
    schedule::Drive,
    storm,
    users::Users,
    workflow::{self, Job},
    yardstick::{
        frozen, fsync, idle, redis::RedisServer, relay, relay_epoll, relay_monoio, rocks::Rows,
    },
};
use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use starling_codec::limits;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

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
        /// Addresses of this machine that connections come from, 10,000 from each.
        #[arg(long, value_name = "ADDRESS,ADDRESS", value_delimiter = ',')]
        sources: Vec<IpAddr>,
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
    /// Waves of connections that log in as fast as they can.
    Storm(Storm),
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
    /// Measured time, from when all are connected and have their first message.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// The same load for so long before the measured time.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub warmup: f64,
}

impl Shape {
    fn drive(&self) -> Drive {
        match self.rate {
            Some(rate) => Drive::Rate(rate),
            None => Drive::Window(self.window.unwrap_or(1)),
        }
    }

    fn scenario(&self, class: Class) -> Scenario {
        let times = [seconds(self.warmup), seconds(self.seconds)];
        scenario::pairs(self.pairs as usize, self.drive(), self.payload, class, times)
    }

    fn plan(&self, server: SocketAddr, server_pid: Option<u32>) -> Plan {
        let (warmup, measured) = (seconds(self.warmup), seconds(self.seconds));
        let plan = Plan::steady(self.pairs as usize, self.drive(), self.payload, warmup, measured);
        Plan { server, server_pid, ..plan }
    }
}

#[derive(Debug, Args)]
struct Pair {
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
struct Recording {
    /// Record what the devices do and see, for `starling-check`: FILE, or of several processes
    /// FILE.1, FILE.2 and so on, each on its machine, which together are one history. It costs
    /// time, so the figures say less.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

/// How often, and what becomes of the result.
#[derive(Debug, Args)]
struct Output {
    /// All of them are kept; figures to be compared take 5.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: usize,
    /// Addresses of this machine that connections come from, 10,000 from each; a loopback server
    /// is reached from 127.0.0.2 and on.
    #[arg(long, value_name = "ADDRESS,ADDRESS", value_delimiter = ',')]
    sources: Vec<IpAddr>,
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
        let Output { rounds, sources, processes, machines, listen, output, recording, json } = self;
        let history = recording.history;
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
struct RunFile {
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
struct Short<S: Args> {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    scenario: S,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Capacity {
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

#[derive(Debug, Args)]
struct Hold {
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
    /// Connections that one process holds at most.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    per_process: usize,
    /// After the last measurement, hold on until the server answered a heartbeat of each.
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
    behaviour: Behaviour,
    #[command(flatten)]
    recording: Recording,
    #[arg(long)]
    json: bool,
}

/// How devices behave. HELLO names a range for the heartbeat, in seconds, and the server chooses
/// within it.
#[derive(Debug, Args)]
struct Behaviour {
    #[arg(long, value_name = "S", default_value_t = limits::MIN_HEARTBEAT_S)]
    heartbeat_min: u32,
    #[arg(long, value_name = "S", default_value_t = limits::MAX_HEARTBEAT_S)]
    heartbeat_max: u32,
    /// Log-ins a second; "search" finds a rate that the server takes with ease. Without, as many
    /// as it answers.
    #[arg(long, value_name = "N|search")]
    login_rate: Option<Pace>,
    /// Tell on standard error how far it is, every so many seconds.
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

#[derive(Debug, Args)]
struct HoldPart {
    #[arg(long)]
    server: SocketAddr,
    #[arg(long)]
    users: PathBuf,
    #[arg(long)]
    before: usize,
    #[command(flatten)]
    behaviour: Behaviour,
    #[command(flatten)]
    recording: Recording,
}

#[derive(Debug, Args)]
struct Prepare {
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
struct Storm {
    #[command(flatten)]
    target: Target,
    /// Connections of a wave.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    connections: usize,
    /// New waves begin until so long was spent on them.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Ratios {
    /// Only these, for example P5,P7.
    #[arg(long, value_name = "ID,ID", value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Measured time of each run.
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// Quiet before memory is measured.
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    quiet: f64,
    /// The server's program.
    #[arg(long, value_name = "FILE", default_value = "./bin/starling-server")]
    server: PathBuf,
    /// Where data is kept while it is needed: on the disk that is to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Yardstick {
    /// Y1: holds idle sockets.
    Idle {
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        connections: usize,
        /// Quiet before each measurement.
        #[arg(long, value_name = "S", default_value_t = 2.0)]
        seconds: f64,
        /// Measure the end that connected alone too; takes a minute more.
        #[arg(long)]
        split: bool,
        #[arg(long, hide = true)]
        serve: bool,
        #[arg(long)]
        json: bool,
    },
    /// Y2: a bare relay.
    Relay {
        #[command(flatten)]
        shape: Shape,
        #[arg(long, value_enum, default_value_t = Variant::Epoll)]
        variant: Variant,
        /// Processes that share the load.
        #[arg(long, value_name = "N", default_value_t = 1)]
        processes: usize,
        /// Measures instead how fast it accepts: waves of so many connections.
        #[arg(long, value_name = "N")]
        storm: Option<usize>,
        #[arg(long, hide = true)]
        serve: bool,
        #[arg(long)]
        json: bool,
    },
    /// What measures the load tool itself: a relay that stands still for a second while messages
    /// are meant for it at a known rate.
    Frozen {
        #[arg(long)]
        json: bool,
    },
    /// Y3: RocksDB alone, given what a server wrote.
    Rocksdb {
        /// Data directory of a server that was killed under load: its log still holds the batches.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Bytes that the server made durable with one sync (its counters tell); by default every
        /// batch is synced.
        #[arg(long, value_name = "BYTES", default_value_t = 0.0)]
        bytes_per_sync: f64,
        /// Where the new database goes: on the disk of the server's data.
        #[arg(long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Y4: appends and syncs.
    Fsync {
        /// Bytes of each append.
        #[arg(long, default_value_t = 4_096)]
        bytes: usize,
        #[arg(long, value_name = "S", default_value_t = 3.0)]
        seconds: f64,
        /// Milliseconds between two of them.
        #[arg(long, value_name = "MS", default_value_t = 0.0)]
        pause: f64,
        /// Where: on the disk of the server's data.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Y5: Redis streams with appendfsync always.
    Redis {
        #[command(flatten)]
        shape: Shape,
        /// Where Redis keeps its files: on the disk of the server's data.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

/// How a relay waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    Epoll,
    Monoio,
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl Arguments {
    /// Does what was asked; `false` if the result cannot be believed.
    pub fn run(self) -> Result<bool> {
        match self.command {
            Command::Run(RunFile { file, target, output }) => {
                output.run(&target, Scenario::read(&file)?)
            }
            Command::Join { coordinator, sources } => {
                fleet::join(coordinator, &sources).map(|()| true)
            }
            Command::Pair(Pair { target, shape, class, output }) => {
                output.run(&target, shape.scenario(class))
            }
            Command::Sync(Short { target, scenario, output }) => {
                output.run(&target, scenario.scenario())
            }
            Command::Churn(Short { target, scenario, output }) => {
                output.run(&target, scenario.scenario())
            }
            Command::SlowReaders(Short { target, scenario, output }) => {
                output.run(&target, scenario.scenario())
            }
            Command::Mixed(Short { target, scenario, output }) => {
                output.run(&target, scenario.scenario())
            }
            Command::Capacity(Capacity {
                target,
                pairs,
                payload,
                class,
                limit,
                seconds: measured,
                trials,
                recording,
                json,
            }) => {
                let (limit, seconds) = (seconds(limit / 1e3), seconds(measured));
                let (payload_bytes, history) = (payload, recording.history);
                let search =
                    Search { pairs, payload_bytes, class, limit, seconds, trials, history };
                capacity::search(&target, &search)?.print(json)
            }
            Command::Hold(Hold {
                target,
                connections,
                seconds: quiet,
                mut report_at,
                per_process,
                until_beaten,
                cut_every,
                rest,
                behaviour,
                recording,
                json,
            }) => {
                report_at.sort_unstable();
                let plan = HoldPlan {
                    connections,
                    report_at,
                    quiet: seconds(quiet),
                    per_process,
                    until_beaten,
                    cut_every: cut_every.map(|step| step as usize),
                    rest: seconds(rest),
                    manner: behaviour.manner(),
                    history: recording.history,
                };
                hold::run(&target, &plan)?.print(json)
            }
            Command::HoldPart(HoldPart { server, users, before, behaviour, recording }) => {
                let (manner, history) = (behaviour.manner(), recording.history);
                hold::serve_part(server, &users, before, &manner, history.as_deref()).map(|()| true)
            }
            Command::Prepare(Prepare { server, operator_key, users, count }) => {
                let mut operator = Operator::connect(server, &operator_key)?;
                Users::open(Some(&users))?.ensure(count, &mut operator)?;
                Ok(true)
            }
            Command::Storm(Storm { target, connections, seconds: measured, json }) => {
                storm::run_logins(&target, connections, seconds(measured))?.print(json)
            }
            Command::Ratios(Ratios {
                only,
                rounds,
                seconds: measured,
                quiet,
                server,
                directory,
                json,
            }) => {
                let (measured, quiet) = (seconds(measured), seconds(quiet));
                let plan = RatiosPlan { server, directory, only, rounds, measured, quiet };
                ratios::run(&plan, json)
            }
            Command::Compare { before, after, json } => {
                compare::print(&compare::compare(&before, &after)?, json)?;
                Ok(true)
            }
            Command::Yardstick(yardstick) => yardstick.run(),
        }
    }
}

impl Yardstick {
    fn run(self) -> Result<bool> {
        // Server and load apart, as everywhere.
        let (server_core, load_core) = report::two_cores()?;
        match self {
            Yardstick::Idle { serve: true, .. } => idle::serve().map(|()| true),
            Yardstick::Idle { connections, seconds: quiet, split, json, .. } => {
                idle::measure(connections, seconds(quiet), split, server_core)?.print(json)
            }
            Yardstick::Relay { serve: true, variant: Variant::Epoll, .. } => {
                relay_epoll::serve().map(|()| true)
            }
            Yardstick::Relay { serve: true, variant: Variant::Monoio, .. } => {
                relay_monoio::serve().map(|()| true)
            }
            Yardstick::Relay { shape, variant, processes, storm, json, .. } => {
                let relay = relay::RelayServer::start(variant, server_core)?;
                report::on_core(load_core)?;
                if let Some(connections) = storm {
                    return relay.storm(connections, seconds(shape.seconds))?.print(json);
                }
                if processes > 1 {
                    let scenario = shape.scenario(Class::Buffered);
                    let crew = Crew::here(processes, Vec::new());
                    return relay.measure_with(&crew, &scenario)?.print(json);
                }
                relay.measure(&shape.plan(relay.address(), None))?.print(json)
            }
            Yardstick::Frozen { json } => {
                report::on_core(load_core)?;
                frozen::measure(server_core)?.print(json)
            }
            Yardstick::Rocksdb { data, bytes_per_sync, directory, json } => {
                report::on_core(server_core)?;
                Rows::read(&data)?.replay_best(&directory, bytes_per_sync)?.print(json)
            }
            Yardstick::Fsync { bytes, seconds: measured, pause, directory, json } => {
                fsync::measure(bytes, seconds(measured), seconds(pause / 1e3), &directory)?
                    .print(json)
            }
            Yardstick::Redis { shape, directory, json } => {
                let redis = RedisServer::start(&directory, server_core)?;
                report::on_core(load_core)?;
                // Its own address and process take the place of these.
                redis.measure(&shape.plan(SocketAddr::from(([127, 0, 0, 1], 0)), None))?.print(json)
            }
        }
    }
}
