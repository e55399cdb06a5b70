//! Connecting and logging in, again and again: as fast as the server lets us, or by rate.

use crate::{
    arguments::Target,
    clock::ns,
    crowd::Crowd,
    dialect::{Class, Dialect, Starling},
    interrupt,
    latency::{Latencies, Percentiles},
    load::Saturation,
    machine::{Cpu, Threads},
    operator::Operator,
    parts::{self, Parts, Share, Work},
    report::{Report, line},
    roster::Roster,
    sources::Sources,
    users::Users,
};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use starling_codec::limits;
use std::{
    net::{IpAddr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

/// Between two waves the server sees the last of the one before close.
const BETWEEN: Duration = Duration::from_millis(500);

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct StormPlan {
    pub server: SocketAddr,
    pub server_pid: Option<u32>,
    /// Addresses that connections come from; none: chosen.
    pub sources: Vec<IpAddr>,
    /// Of a wave.
    pub connections: usize,
    /// Connections of one process at most; fewer if it may not open so many files.
    pub per_process: usize,
    /// Connections a second, whatever the server does; none: as many as it takes.
    pub rate: Option<f64>,
    /// New waves begin until so long was spent on them.
    pub measured: Duration,
}

/// How fast connections get ready.
#[derive(Clone, Debug, Serialize)]
pub struct Storm {
    pub connections: usize,
    pub processes: usize,
    pub waves: usize,
    /// That were asked for; none: as many as the server took.
    pub rate: Option<f64>,
    pub opened_per_s: f64,
    /// From connecting to being ready; by rate from when it was meant to connect.
    pub opening: Percentiles,
    pub server_cpu_us_per_connection: Option<f64>,
    pub generator_cores: f64,
    /// Present: the generator was saturated, so how many a second there were is invalid.
    pub saturated: Option<Saturation>,
    /// Ended by Ctrl-C; waves that were whole by then are in it.
    pub interrupted: bool,
}

/// What came of a wave of which every connection got ready.
#[derive(Default, Serialize, Deserialize)]
struct Wave {
    opening: Latencies,
    /// Of whoever opened it.
    cpu: Cpu,
}

/// Opens waves: in this process, or in several.
trait Opens {
    /// One wave, held; none if Ctrl-C ended it.
    fn wave(&mut self) -> Result<Option<Wave>>;

    /// Closes all connections at once.
    fn reset(&mut self) -> Result<()>;
}

/// Opens all of a wave, or its part.
pub struct Opener<D: Dialect> {
    crowd: Crowd<D>,
    connections: usize,
}

impl<D: Dialect> Opener<D> {
    /// Of waves of so many connections, as many a second as `rate` says.
    fn new(
        dialect: D,
        server: SocketAddr,
        sources: Sources,
        connections: usize,
        rate: Option<f64>,
    ) -> Result<Opener<D>> {
        let mut crowd = Crowd::new(dialect, server, sources)?;
        (crowd.rate, crowd.from_when_due) = (rate, true);
        Ok(Opener { crowd, connections })
    }
}

impl Opener<Starling> {
    /// One process's part of a storm of log-ins: all of `users`.
    pub fn of_part(
        server: SocketAddr,
        users: Roster,
        sources: Sources,
        rate: Option<f64>,
    ) -> Result<Opener<Starling>> {
        let connections = users.len();
        Opener::new(starling(users), server, sources, connections, rate)
    }
}

impl<D: Dialect> Opens for Opener<D> {
    fn wave(&mut self) -> Result<Option<Wave>> {
        let begun = Cpu::now(None)?;
        self.crowd.aim_at(self.connections);
        while self.crowd.is_growing() {
            if interrupt::requested() {
                return Ok(None);
            }
            self.crowd.grow(&mut |_, _| {})?;
        }
        let opening = std::mem::take(&mut self.crowd.opening);
        Ok(Some(Wave { opening, cpu: Cpu::now(None)?.since(begun) }))
    }

    fn reset(&mut self) -> Result<()> {
        self.crowd.reset()
    }
}

/// What a part of a storm is told to do.
#[derive(Serialize, Deserialize)]
pub enum Order {
    Wave,
    Reset,
}

/// One part of a storm.
impl Work for Opener<Starling> {
    type Order = Order;

    fn obey(&mut self, order: Order) -> Result<Value> {
        match order {
            Order::Wave => Ok(serde_json::to_value(self.wave()?)?),
            Order::Reset => Ok(serde_json::to_value(self.reset()?)?),
        }
    }

    fn holds(&self) -> bool {
        !self.crowd.is_empty()
    }

    fn keep_on(&mut self, duration: Duration) -> Result<()> {
        self.crowd.turn(duration, &mut |_, _| {})
    }

    fn finish(&mut self) -> Result<Value> {
        Ok(Value::Null)
    }

    fn users(&self) -> &Roster {
        &self.crowd.dialect.users
    }
}

impl Opens for Parts {
    /// It is whole when that of each part is.
    fn wave(&mut self) -> Result<Option<Wave>> {
        let mut whole = Wave::default();
        for wave in self.all::<_, Option<Wave>>(|_| Order::Wave)? {
            let Some(Wave { opening, cpu }) = wave else { return Ok(None) };
            whole.opening.merge(&opening);
            whole.cpu.merge(cpu);
        }
        Ok(Some(whole))
    }

    fn reset(&mut self) -> Result<()> {
        self.all::<_, ()>(|_| Order::Reset).map(|_| ())
    }
}

/// Opens waves of connections, all of this process, until they took as long as planned; `told`
/// hears of each wave: its number, and how many connections a second it had.
///
/// # Errors
/// A connection is refused or closed, or no wave was whole when Ctrl-C ended it.
pub fn run<D: Dialect>(
    dialect: D,
    plan: &StormPlan,
    told: impl FnMut(usize, f64),
) -> Result<(Storm, D)> {
    let StormPlan { server, connections, rate, .. } = *plan;
    let processes = parts::processes(connections, plan.per_process)?;
    ensure!(processes == 1, "{connections} connections are too many for one process");
    let sources = Sources::new(plan.sources.clone(), 0);
    let mut opener = Opener::new(dialect, server, sources, connections, rate)?;
    let storm = measure(&mut opener, processes, plan, told)?;
    Ok((storm, opener.crowd.finish()))
}

/// A storm of logins on a Starling server, by as many processes as it takes; `plan` names the same
/// server.
pub fn run_logins(
    target: &Target,
    plan: &StormPlan,
    told: impl FnMut(usize, f64),
) -> Result<Storm> {
    let processes = parts::processes(plan.connections, plan.per_process)?;
    let mut operator = Operator::connect(target.server, &target.operator_key)?;
    let mut users = Users::open_or_cached(target.users.as_deref(), &target.operator_key)?;
    users.ensure(plan.connections, &mut operator)?;
    let storm = if processes == 1 {
        let dialect = starling(std::mem::take(&mut users.list));
        let (storm, dialect) = users.or_forget(run(dialect, plan, told))?;
        users.list = dialect.users;
        storm
    } else {
        let shared = run_shared(processes, plan, &mut users, told);
        users.or_forget(shared)?
    };
    users.save()?;
    Ok(storm)
}

/// As [`run`], by several processes, each of which has its part of every wave.
fn run_shared(
    processes: usize,
    plan: &StormPlan,
    users: &mut Users,
    told: impl FnMut(usize, f64),
) -> Result<Storm> {
    let shares = parts::split(plan.connections, processes).map(|own| {
        // Parts that are not alike are whole at the same time.
        let part = own.len() as f64 / plan.connections as f64;
        let rate = plan.rate.map(|rate| format!("--rate={}", part * rate).into());
        Share { before: own.start, users: vec![own], arguments: rate.into_iter().collect() }
    });
    let mut parts =
        Parts::start("storm-part", plan.server, &plan.sources, users, shares.collect())?;
    let storm = measure(&mut parts, processes, plan, told)?;
    parts.finish::<()>(users)?;
    Ok(storm)
}

fn starling(users: Roster) -> Starling {
    let heartbeat_s = (limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S);
    Starling::new(users, 0, Class::Durable, heartbeat_s)
}

fn measure(
    opener: &mut impl Opens,
    processes: usize,
    plan: &StormPlan,
    mut told: impl FnMut(usize, f64),
) -> Result<Storm> {
    let connections = plan.connections;
    let (mut waves, mut spent_ns, mut busy_s) = (0, 0, 0.0);
    let (mut opening, mut cpu) = (Latencies::default(), None::<Cpu>);
    let threads = || plan.server_pid.map(Threads::now).transpose();
    while waves == 0 || spent_ns < ns(plan.measured) {
        let (before, threads_before) = (Cpu::now(plan.server_pid)?, threads()?);
        let begun = Instant::now();
        let Some(wave) = opener.wave()? else { break };
        let wave_ns = ns(begun.elapsed());
        let wave_s = wave_ns as f64 / 1e9;
        spent_ns += wave_ns;
        opening.merge(&wave.opening);
        let server_s = Cpu::now(plan.server_pid)?.since(before).server_s;
        let used = Cpu { server_s, ..wave.cpu };
        cpu = Some(cpu.map_or(used, |cpu| cpu.plus(used)));
        if let (Some(after), Some(before)) = (threads()?, threads_before) {
            busy_s += wave_s * after.busy_since(&before, wave_s);
        }
        waves += 1;
        told(waves, connections as f64 / wave_s);
        opener.reset()?;
        sleep(BETWEEN);
    }
    let cpu = cpu.context("interrupted before a wave was whole")?;
    let (opened, seconds) = ((waves * connections) as f64, spent_ns as f64 / 1e9);
    let server_busy = plan.server_pid.map(|_| busy_s / seconds);
    Ok(Storm {
        connections,
        processes,
        waves,
        rate: plan.rate,
        opened_per_s: opened / seconds,
        opening: opening.percentiles(),
        server_cpu_us_per_connection: cpu.server_s.map(|server_s| 1e6 * server_s / opened),
        generator_cores: cpu.own_s / seconds,
        saturated: Saturation::of_loop(cpu, server_busy, seconds),
        interrupted: interrupt::requested(),
    })
}

impl Report for Storm {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let us = self.server_cpu_us_per_connection;
        let asked =
            self.rate.map_or("as fast as it goes".into(), |rate| format!("{rate:.0} asked"));
        let mut lines = vec![
            (
                "connections",
                format!(
                    "{} in each of {} waves, in {} processes",
                    self.connections, self.waves, self.processes
                ),
            ),
            ("opened a second", format!("{:.0}, {asked}", self.opened_per_s)),
            ("connecting to ready", line(&self.opening)),
            ("server CPU each", us.map_or("unknown".into(), |us| format!("{us:.1} us"))),
            ("cores: this tool", format!("{:.2}", self.generator_cores)),
        ];
        if self.interrupted {
            lines.push(("interrupted", "this is what there is".into()));
        }
        if let Some(saturated) = self.saturated {
            lines.push(("INVALID", format!("generator saturated: result invalid ({saturated})")));
        }
        lines
    }

    fn valid(&self) -> bool {
        self.saturated.is_none()
    }
}
