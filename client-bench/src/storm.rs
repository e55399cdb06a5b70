//! Connecting and logging in as fast as the server lets us, again and again.

use crate::{
    arguments::Target,
    clock::ns,
    crowd::Crowd,
    dialect::{Class, Dialect, Starling},
    latency::Percentiles,
    machine::{self, Cpu},
    operator::Operator,
    report::{Report, line},
    sources::Sources,
    users::Users,
};
use anyhow::{Result, ensure};
use serde::Serialize;
use starling_codec::limits;
use std::{net::SocketAddr, thread::sleep, time::Duration};

/// Files a process needs besides its connections.
const RESERVE: usize = 100;
/// Between two waves the server sees the last of the one before close.
const BETWEEN: Duration = Duration::from_millis(500);

/// How fast connections get ready.
#[derive(Clone, Debug, Serialize)]
pub struct Storm {
    pub connections: usize,
    pub waves: usize,
    pub opened_per_s: f64,
    /// From connecting to being ready.
    pub opening: Percentiles,
    pub server_cpu_us_per_connection: Option<f64>,
    pub generator_cores: f64,
}

/// Opens waves of `connections` until they took `measured` in all.
pub fn run<D: Dialect>(
    dialect: D,
    server: SocketAddr,
    server_pid: Option<u32>,
    connections: usize,
    measured: Duration,
) -> Result<(Storm, D)> {
    let limit = machine::raise_file_limit()?.saturating_sub(RESERVE);
    ensure!(connections > 0 && connections <= limit, "1 to {limit} connections at once");
    let mut crowd = Crowd::new(dialect, server, Sources::default())?;
    let (mut waves, mut spent_ns, mut cpu) = (0, 0, (0.0, None));
    while spent_ns < ns(measured) {
        let (begun, begun_ns) = (Cpu::now(server_pid)?, crowd.clock.now_ns());
        crowd.grow_to(connections, &mut |_, _| {})?;
        spent_ns += crowd.clock.now_ns() - begun_ns;
        let used = Cpu::now(server_pid)?.since(begun);
        cpu = (cpu.0 + used.own_s, used.server_s.map(|server_s| cpu.1.unwrap_or(0.0) + server_s));
        waves += 1;
        crowd.reset()?;
        sleep(BETWEEN);
    }
    let (opened, seconds) = ((waves * connections) as f64, spent_ns as f64 / 1e9);
    let storm = Storm {
        connections,
        waves,
        opened_per_s: opened / seconds,
        opening: crowd.opening.percentiles(),
        server_cpu_us_per_connection: cpu.1.map(|server_s| 1e6 * server_s / opened),
        generator_cores: cpu.0 / seconds,
    };
    Ok((storm, crowd.finish()))
}

/// A storm of logins on a Starling server.
pub fn run_logins(target: &Target, connections: usize, measured: Duration) -> Result<Storm> {
    let mut operator = Operator::connect(target.server, &target.operator_key)?;
    let mut users = Users::open(target.users.as_deref())?;
    // Both ends of a pair, though nobody writes.
    users.ensure(connections.next_multiple_of(2), &mut operator)?;
    let heartbeat_s = (limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S);
    let dialect = Starling::new(std::mem::take(&mut users.list), 0, Class::Durable, heartbeat_s);
    let (storm, dialect) = run(dialect, target.server, target.server_pid, connections, measured)?;
    users.list = dialect.users;
    users.save()?;
    Ok(storm)
}

impl Report for Storm {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let us = self.server_cpu_us_per_connection;
        vec![
            ("connections", format!("{} in each of {} waves", self.connections, self.waves)),
            ("opened a second", format!("{:.0}", self.opened_per_s)),
            ("connecting to ready", line(&self.opening)),
            ("server CPU each", us.map_or("unknown".into(), |us| format!("{us:.1} us"))),
            ("cores: this tool", format!("{:.2}", self.generator_cores)),
        ]
    }
}
