//! Connecting and logging in, again and again: as fast as the server lets us, or by rate.

use crate::{
    arguments::Target,
    clock::ns,
    crowd::Crowd,
    dialect::{Class, Dialect, Starling},
    interrupt,
    latency::Percentiles,
    load::Saturation,
    machine::{self, Cpu, Threads},
    operator::Operator,
    report::{Report, line},
    sources::Sources,
    users::Users,
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use starling_codec::limits;
use std::{net::SocketAddr, thread::sleep, time::Duration};

/// Files a process needs besides its connections.
const RESERVE: usize = 100;
/// Between two waves the server sees the last of the one before close.
const BETWEEN: Duration = Duration::from_millis(500);

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct StormPlan {
    pub server: SocketAddr,
    pub server_pid: Option<u32>,
    pub sources: Sources,
    /// Of a wave.
    pub connections: usize,
    /// Connections a second, whatever the server does; none: as many as it takes.
    pub rate: Option<f64>,
    /// New waves begin until so long was spent on them.
    pub measured: Duration,
}

/// How fast connections get ready.
#[derive(Clone, Debug, Serialize)]
pub struct Storm {
    pub connections: usize,
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

/// Opens waves of connections until they took as long as planned; `told` hears of each wave: its
/// number, and how many connections a second it had.
///
/// # Errors
/// A connection is refused or closed, or no wave was whole when Ctrl-C ended it.
pub fn run<D: Dialect>(
    dialect: D,
    plan: &StormPlan,
    mut told: impl FnMut(usize, f64),
) -> Result<(Storm, D)> {
    let connections = plan.connections;
    let limit = machine::raise_file_limit()?.saturating_sub(RESERVE);
    ensure!(connections > 0 && connections <= limit, "1 to {limit} connections at once");
    let mut crowd = Crowd::new(dialect, plan.server, plan.sources.clone())?;
    (crowd.rate, crowd.from_when_due) = (plan.rate, true);
    let (mut waves, mut spent_ns, mut busy_s) = (0, 0, 0.0);
    let mut cpu: Option<Cpu> = None;
    let threads = || plan.server_pid.map(Threads::now).transpose();
    'waves: while waves == 0 || spent_ns < ns(plan.measured) {
        let (begun, before) = (Cpu::now(plan.server_pid)?, threads()?);
        let begun_ns = crowd.clock.now_ns();
        crowd.aim_at(connections);
        while crowd.is_growing() {
            if interrupt::requested() {
                break 'waves;
            }
            crowd.grow(&mut |_, _| {})?;
        }
        let wave_ns = crowd.clock.now_ns() - begun_ns;
        let wave_s = wave_ns as f64 / 1e9;
        spent_ns += wave_ns;
        let used = Cpu::now(plan.server_pid)?.since(begun);
        cpu = Some(cpu.map_or(used, |cpu| cpu.plus(used)));
        if let (Some(after), Some(before)) = (threads()?, before) {
            busy_s += wave_s * after.busy_since(&before, wave_s);
        }
        waves += 1;
        told(waves, connections as f64 / wave_s);
        crowd.reset()?;
        sleep(BETWEEN);
    }
    let cpu = cpu.context("interrupted before a wave was whole")?;
    let (opened, seconds) = ((waves * connections) as f64, spent_ns as f64 / 1e9);
    let server_busy = plan.server_pid.map(|_| busy_s / seconds);
    let storm = Storm {
        connections,
        waves,
        rate: plan.rate,
        opened_per_s: opened / seconds,
        opening: crowd.opening.percentiles(),
        server_cpu_us_per_connection: cpu.server_s.map(|server_s| 1e6 * server_s / opened),
        generator_cores: cpu.own_s / seconds,
        saturated: Saturation::of_loop(cpu, server_busy, seconds),
        interrupted: interrupt::requested(),
    };
    Ok((storm, crowd.finish()))
}

/// A storm of logins on a Starling server; `plan` names the same one.
pub fn run_logins(
    target: &Target,
    plan: &StormPlan,
    told: impl FnMut(usize, f64),
) -> Result<Storm> {
    let mut operator = Operator::connect(target.server, &target.operator_key)?;
    let mut users = Users::open_or_cached(target.users.as_deref(), &target.operator_key)?;
    // Both ends of a pair, though nobody writes.
    users.ensure(plan.connections.next_multiple_of(2), &mut operator)?;
    let heartbeat_s = (limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S);
    let dialect = Starling::new(std::mem::take(&mut users.list), 0, Class::Durable, heartbeat_s);
    let (storm, dialect) = users.or_forget(run(dialect, plan, told))?;
    users.list = dialect.users;
    users.save()?;
    Ok(storm)
}

impl Report for Storm {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let us = self.server_cpu_us_per_connection;
        let asked =
            self.rate.map_or("as fast as it goes".into(), |rate| format!("{rate:.0} asked"));
        let mut lines = vec![
            ("connections", format!("{} in each of {} waves", self.connections, self.waves)),
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
