//! `starling-bench hold`: a crowd of logged-in devices that do nothing, and what each costs.

mod holder;
mod holders;
mod pace;

pub use holder::Holder;
pub use holders::Holders;
pub use pace::Pace;

use crate::{
    arguments::Target,
    interrupt,
    latency::{Latencies, Percentiles},
    machine::{self, Machine, Memory},
    operator::{Counters, Operator},
    parts,
    report::{Report, line},
    users::Users,
};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

/// The server's counter of devices that are logged in.
const SESSIONS: &str = "shard sessions";

/// What is to be held.
#[derive(Clone, Debug)]
pub struct HoldPlan {
    pub connections: usize,
    /// Smaller crowds that are measured on the way, ascending.
    pub report_at: Vec<usize>,
    /// Quiet before each measurement.
    pub quiet: Duration,
    /// Connections of one process at most; fewer if it may not open so many files.
    pub per_process: usize,
    /// After the last measurement, hold on until the server answered a heartbeat of each.
    pub until_beaten: bool,
    /// At the end, every so many a device is cut off and must come back.
    pub cut_every: Option<usize>,
    /// Measure the server's processor time for so long, after the last measurement of memory.
    pub rest: Duration,
    pub manner: Manner,
    /// Where what the devices see is recorded.
    pub history: Option<PathBuf>,
    /// Addresses that connections come from; none: chosen.
    pub sources: Vec<IpAddr>,
}

/// How the devices of a process behave.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The range that HELLO names.
    pub heartbeat_s: (u32, u32),
    pub pace: Pace,
    /// How often progress is told on standard error.
    pub progress: Option<Duration>,
}

impl Manner {
    /// That of each of `processes`: a rate is shared, a search is made by each.
    fn shared_by(self, processes: usize) -> Manner {
        let pace = match self.pace {
            Pace::Rate(per_s) => Pace::Rate(per_s / processes as f64),
            Pace::Search | Pace::Unbounded => self.pace,
        };
        Manner { pace, ..self }
    }

    /// The arguments that say the same.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--heartbeat-min={}", self.heartbeat_s.0),
            format!("--heartbeat-max={}", self.heartbeat_s.1),
        ];
        match self.pace {
            Pace::Unbounded => {}
            Pace::Rate(per_s) => arguments.push(format!("--login-rate={per_s}")),
            Pace::Search => arguments.push("--login-rate=search".into()),
        }
        if let Some(every) = self.progress {
            arguments.push(format!("--progress={}", every.as_secs_f64()));
        }
        arguments
    }
}

/// Memory when so many were held.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    pub connections: usize,
    pub memory: Memory,
    /// What the store reports of itself; part of the server's memory.
    pub memtable_bytes: u64,
    pub block_cache_bytes: u64,
}

/// What a crowd cost.
#[derive(Clone, Debug, Serialize)]
pub struct Hold {
    pub machine: Machine,
    pub connections: usize,
    pub processes: usize,
    /// From connecting to being logged in and caught up.
    pub login: Percentiles,
    /// Before the first connection.
    pub empty: Point,
    pub points: Vec<Point>,
    /// Between the first point and the last; from the empty server if there is but one point.
    pub server_pss_bytes_per_connection: Option<f64>,
    /// The same, without what the store reports of its memtables and its block cache: they grow
    /// with messages, up to a setting, and not with connections.
    pub server_own_bytes_per_connection: Option<f64>,
    /// Both ends of the connection, if both are on this machine.
    pub slab_bytes_per_connection: f64,
    /// The same, of objects in use and but for those of files; only root may know.
    pub slab_object_bytes_per_connection: Option<f64>,
    /// All that the kernel uses, slabs and the rest, of both ends and both processes.
    pub kernel_bytes_per_connection: f64,
    /// Of the server, in microseconds a connection and second, if its rest was measured.
    pub idle_cpu_us_per_connection_s: Option<f64>,
    pub tally: HoldTally,
    /// Ended by Ctrl-C: this is what there was.
    pub interrupted: bool,
    /// The server's counters before the first connection and with the last one, and what rose
    /// between.
    pub before: Counters,
    pub after: Counters,
    pub risen: Counters,
}

/// What the held devices heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldTally {
    /// Messages that arrived: one for each device, and one more for each that was cut off.
    pub messages: u64,
    pub duplicates: u64,
    pub corrupt: u64,
    pub gaps: u64,
    /// Heartbeats sent.
    pub beats: u64,
    /// Devices that had one answered.
    pub beaten: u64,
    /// Devices that were cut off and came back.
    pub cut: u64,
}

/// Holds as planned, or until Ctrl-C, and goes on until what comes beside the report is dropped: to
/// let go of a million connections takes long, and who waits for the report need not wait for that.
///
/// # Errors
/// The server refuses or closes a connection, or a message does not come.
pub fn run(target: &Target, plan: &HoldPlan) -> Result<(Hold, Holders)> {
    let processes = parts::processes(plan.connections, plan.per_process)?;
    // Anew each time: whoever says nothing for as long as a large crowd takes is closed.
    let operator = || Operator::connect(target.server, &target.operator_key);
    let mut users = Users::open_or_cached(target.users.as_deref(), &target.operator_key)?;
    // Each process has a user of its own that writes to the others.
    users.ensure(plan.connections + processes, &mut operator()?)?;
    let mut holders = Holders::start(target, plan, processes, &users)?;
    let before = operator()?.counters()?;
    let empty = Point::now(&before, target.server_pid, 0)?;
    let smaller = plan.report_at.iter().copied().filter(|count| *count < plan.connections);
    let mut points = Vec::new();
    for count in smaller.chain([plan.connections]) {
        let grown = holders.grow_to(count).and_then(|()| holders.keep(plan.quiet));
        users.or_forget(grown)?;
        let now = operator()?.counters()?;
        if interrupt::requested() {
            // As many as the server says, but for those that write.
            let held = now.get(SESSIONS).saturating_sub(before.get(SESSIONS)) as usize;
            let held = held.saturating_sub(processes);
            points.push(Point::now(&now, target.server_pid, held)?);
            break;
        }
        points.push(Point::now(&now, target.server_pid, count)?);
    }
    let server_cpu_s = || target.server_pid.map(machine::running_cpu_s).transpose();
    let (cpu_s, begun) = (server_cpu_s()?, Instant::now());
    holders.keep(plan.rest)?;
    let rested_s = begun.elapsed().as_secs_f64();
    let used_s = server_cpu_s()?.zip(cpu_s).map(|(after, before)| after - before);
    let used_s = used_s.filter(|_| !plan.rest.is_zero() && !interrupt::requested());
    if plan.until_beaten && !interrupt::requested() {
        holders.until_beaten()?;
    }
    if let Some(step) = plan.cut_every.filter(|_| !interrupt::requested()) {
        users.or_forget(holders.cut(step))?;
    }
    let after = operator()?.counters()?;
    let (tally, login): (HoldTally, Latencies) = holders.finish(&mut users)?;
    users.save()?;
    let last = &points[points.len() - 1];
    let first = if points.len() > 1 { &points[0] } else { &empty };
    let per = |after: u64, before: u64| {
        // An interrupted crowd may not have grown since.
        let grown = last.connections.saturating_sub(first.connections).max(1);
        (after as f64 - before as f64) / grown as f64
    };
    let pss = last.memory.server_pss_bytes.zip(first.memory.server_pss_bytes);
    let hold = Hold {
        machine: Machine::this()?,
        connections: plan.connections,
        processes,
        login: login.percentiles(),
        server_pss_bytes_per_connection: pss.map(|(after, before)| per(after, before)),
        server_own_bytes_per_connection: pss
            .map(|(after, before)| per(after + first.store_bytes(), before + last.store_bytes())),
        slab_bytes_per_connection: per(last.memory.slab_bytes, first.memory.slab_bytes),
        slab_object_bytes_per_connection: last
            .memory
            .slab_object_bytes
            .zip(first.memory.slab_object_bytes)
            .map(|(after, before)| per(after, before)),
        kernel_bytes_per_connection: per(last.memory.kernel_bytes, first.memory.kernel_bytes),
        idle_cpu_us_per_connection_s: used_s
            .map(|used_s| 1e6 * used_s / rested_s / plan.connections as f64),
        empty,
        points,
        tally,
        interrupted: interrupt::requested(),
        risen: after.since(&before),
        before,
        after,
    };
    Ok((hold, holders))
}

impl Point {
    /// With so many connections, when the server has just told its counters.
    pub fn now(counters: &Counters, server_pid: Option<u32>, connections: usize) -> Result<Point> {
        Ok(Point {
            connections,
            memory: Memory::now(server_pid)?,
            memtable_bytes: counters.get("committer memtable_bytes"),
            block_cache_bytes: counters.get("committer block_cache_bytes"),
        })
    }

    /// The server's memory without what the store reports of itself.
    pub fn server_own_bytes(&self) -> Option<u64> {
        self.memory.server_pss_bytes.map(|pss| pss.saturating_sub(self.store_bytes()))
    }

    fn store_bytes(&self) -> u64 {
        self.memtable_bytes + self.block_cache_bytes
    }
}

impl HoldTally {
    fn add(&mut self, other: HoldTally) {
        self.messages += other.messages;
        self.duplicates += other.duplicates;
        self.corrupt += other.corrupt;
        self.gaps += other.gaps;
        self.beats += other.beats;
        self.beaten += other.beaten;
        self.cut += other.cut;
    }
}

impl Report for Hold {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
        let mut lines = vec![
            ("connections", format!("{} in {} processes", self.connections, self.processes)),
            ("connecting to logged in", line(&self.login)),
        ];
        for point in std::iter::once(&self.empty).chain(&self.points) {
            lines.push((
                "memory",
                format!(
                    "{:>7} connections: server PSS {} (memtables {}, block cache {}), kernel slab {}",
                    point.connections,
                    point.memory.server_pss_bytes.map_or("unknown".into(), mib),
                    mib(point.memtable_bytes),
                    mib(point.block_cache_bytes),
                    mib(point.memory.slab_bytes),
                ),
            ));
        }
        if self.interrupted {
            lines.push(("interrupted", "this is what there is".into()));
        }
        // Of few connections less may come out than nothing: what the server frees meanwhile.
        let bytes = |value: Option<f64>| match value {
            None => "unknown".into(),
            Some(bytes) if bytes < 0.0 => "too few connections to tell".into(),
            Some(bytes) => format!("{bytes:.0} B"),
        };
        lines.extend([
            ("server PSS a connection", bytes(self.server_pss_bytes_per_connection)),
            ("without memtables, cache", bytes(self.server_own_bytes_per_connection)),
            (
                "kernel slab a connection",
                format!("{:.0} B, both ends", self.slab_bytes_per_connection),
            ),
            (
                "kernel a connection",
                format!("{:.0} B, both ends, all it uses", self.kernel_bytes_per_connection),
            ),
            (
                "server CPU, idle",
                self.idle_cpu_us_per_connection_s
                    .map_or("not measured".into(), |us| format!("{us:.2} us a connection and second")),
            ),
            (
                "checked",
                format!(
                    "{} messages arrived; {} twice, {} gaps, {} corrupt; {} heartbeats, of {} devices \
                     answered; {} cut off and back",
                    self.tally.messages,
                    self.tally.duplicates,
                    self.tally.gaps,
                    self.tally.corrupt,
                    self.tally.beats,
                    self.tally.beaten,
                    self.tally.cut
                ),
            ),
        ]);
        lines
    }

    fn valid(&self) -> bool {
        let HoldTally { messages, duplicates, corrupt, gaps, cut, .. } = self.tally;
        let whole = self.interrupted || messages == self.connections as u64 + cut;
        whole && duplicates + corrupt + gaps == 0
    }
}
