//! How each goal is measured once.

use super::{
    goals::{BUSY, Crew, MANY, What},
    server::Server,
};
use crate::{
    arguments::Variant,
    dialect::Class,
    hold::{self, HoldPlan, Manner, Pace},
    load::{Outcome, Plan},
    operator::Operator,
    pair::{self, PairReport},
    report::line,
    schedule::Drive,
    storm,
    users::Users,
    yardstick::{
        fsync,
        redis::RedisServer,
        relay::RelayServer,
        rocks::{self, Rows},
    },
};
use anyhow::{Context, Result, ensure};
use starling_codec::limits;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

const PAYLOAD_BYTES: usize = 128;
/// What a message may cost beside its payload.
const DISK_OVERHEAD_BYTES: usize = 40;
const WARMUP: Duration = Duration::from_millis(500);
/// Sizes of the idle crowd.
const FEW: usize = 1_000;
const CROWD: usize = 15_000;
/// Connections of a wave of logins.
const WAVE: usize = 5_000;
/// Share of the capacity at which latency is measured.
const EASY: f64 = 0.1;

/// Where and how long is measured.
pub struct Bench {
    pub binary: PathBuf,
    pub directory: PathBuf,
    pub server_core: Option<usize>,
    pub measured: Duration,
    pub quiet: Duration,
}

impl Bench {
    /// One sample of each figure of `what`.
    pub fn measure(&self, what: What) -> Result<Vec<f64>> {
        let directory = tempfile::Builder::new().prefix("ratio-").tempdir_in(&self.directory)?;
        let data = directory.path().join("data");
        let one = |ratio: Result<f64>| ratio.map(|ratio| vec![ratio]);
        match what {
            What::IdleMemory => one(self.idle_memory(&data)),
            What::Relay(crew) => one(self.against_relay(&data, crew)),
            What::Rocks(crew) => one(self.against_rocks(&data, crew)),
            What::Sync => self.against_sync(&data),
            What::Logins => one(self.logins(&data)),
            What::Disk => one(self.disk(&data)),
            What::Redis(crew) => one(self.against_redis(&data, crew)),
        }
    }

    fn start(&self, data: &Path) -> Result<Server> {
        Server::start(&self.binary, data, self.server_core)
    }

    fn plan(&self, crew: Crew) -> Plan {
        Plan {
            // A server's own address takes the place of this.
            server: SocketAddr::from(([127, 0, 0, 1], 0)),
            pairs: crew.pairs,
            drive: Drive::Window(crew.window),
            payload_bytes: PAYLOAD_BYTES,
            warmup: WARMUP,
            measured: self.measured,
            server_pid: None,
        }
    }

    fn pairs(&self, server: &Server, plan: Plan, class: Class) -> Result<PairReport> {
        let target = server.target();
        let plan = Plan { server: target.server, server_pid: target.server_pid, ..plan };
        let report = pair::run(&target, plan, class)?;
        checked(&report.outcome)?;
        Ok(report)
    }

    fn idle_memory(&self, data: &Path) -> Result<f64> {
        let plan = HoldPlan {
            connections: CROWD,
            report_at: vec![FEW],
            quiet: self.quiet,
            per_process: usize::MAX,
            until_beaten: false,
            cut_every: None,
            manner: Manner {
                heartbeat_s: (limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S),
                pace: Pace::Unbounded,
                progress: None,
            },
        };
        // The users are there before, and the server that made them is not.
        let server = self.start(data)?;
        let target = server.target();
        let mut operator = Operator::connect(target.server, &target.operator_key)?;
        Users::open(target.users.as_deref())?.ensure(CROWD + 1, &mut operator)?;
        drop(operator);
        server.stop()?;
        let server = self.start(data)?;
        let hold = hold::run(&server.target(), &plan)?;
        ensure!(hold.tally.messages == CROWD as u64, "not every device got its message");
        for point in &hold.points {
            say(&format!(
                "{} connections: PSS {} B, memtables {} B, block cache {} B",
                point.connections,
                point.memory.server_pss_bytes.unwrap_or_default(),
                point.memtable_bytes,
                point.block_cache_bytes
            ));
        }
        say(&format!(
            "{:.0} B a connection with memtables and block cache",
            hold.server_pss_bytes_per_connection.unwrap_or_default()
        ));
        hold.server_own_bytes_per_connection.context("the server's memory is unknown")
    }

    fn against_relay(&self, data: &Path, crew: Crew) -> Result<f64> {
        let plan = self.plan(crew);
        let server = self.start(data)?;
        let outcome = self.pairs(&server, plan.clone(), Class::Buffered)?.outcome;
        drop(server);
        let own_us = cpu_us(&outcome)?;
        say_outcome("server", &outcome);
        let mut relay_us = f64::INFINITY;
        for variant in [Variant::Epoll, Variant::Monoio] {
            let relay = RelayServer::start(variant, self.server_core)?.measure(&plan)?;
            checked(&relay)?;
            say_outcome(&format!("relay on {variant:?}"), &relay);
            relay_us = relay_us.min(cpu_us(&relay)?);
        }
        Ok(relay_us / own_us)
    }

    fn against_rocks(&self, data: &Path, crew: Crew) -> Result<f64> {
        let server = self.start(data)?;
        let report = self.pairs(&server, self.plan(crew), Class::Durable)?;
        // Killed, so that its log still holds what it wrote.
        drop(server);
        say_outcome("server", &report.outcome);
        let rocks = Rows::read(data)?.replay_best(&self.directory, report.bytes_per_sync())?;
        say(&format!(
            "RocksDB: {:.0} messages/s, {:.2} rows and {:.2} us of CPU a message, {:.0} messages \
             a sync; the server had {:.0} a sync",
            rocks.messages_per_s,
            rocks.rows_per_message,
            rocks.cpu_us_per_message,
            rocks.messages_per_sync,
            report.messages_per_sync()
        ));
        Ok(report.outcome.messages_per_s / rocks.messages_per_s)
    }

    /// The 50th percentile and the 99th.
    fn against_sync(&self, data: &Path) -> Result<Vec<f64>> {
        let server = self.start(data)?;
        let capacity = self.pairs(&server, self.plan(BUSY), Class::Durable)?.outcome;
        let drive = Drive::Rate(EASY * capacity.messages_per_s);
        let plan = Plan { drive, ..self.plan(BUSY) };
        let report = self.pairs(&server, plan, Class::Durable)?;
        drop(server);
        let bytes = report.bytes_per_sync() as usize;
        let bare = fsync::measure(bytes, self.measured, Duration::ZERO, &self.directory)?;
        let own = &report.outcome.acknowledgement;
        say(&format!(
            "{:.0} messages/s acknowledged: {}; {bytes} B synced: {}",
            report.outcome.messages_per_s,
            line(own),
            line(&bare.latency)
        ));
        if let Some(saturated) = report.outcome.saturated {
            say(&format!("generator saturated: result invalid ({saturated:?})"));
        }
        Ok(vec![own.p50_us / bare.latency.p50_us, own.p99_us / bare.latency.p99_us])
    }

    fn logins(&self, data: &Path) -> Result<f64> {
        let server = self.start(data)?;
        let own = storm::run_logins(&server.target(), WAVE, self.measured)?;
        drop(server);
        let cpu = |storm: &storm::Storm| storm.server_cpu_us_per_connection.unwrap_or_default();
        say(&format!("server: {:.0} logins/s, {:.1} us of CPU each", own.opened_per_s, cpu(&own)));
        // As long as the load is the slower end, logins a second say nothing of the server; what
        // each costs it does.
        let mut ratio = f64::INFINITY;
        for variant in [Variant::Epoll, Variant::Monoio] {
            let relay = RelayServer::start(variant, self.server_core)?;
            let storm = relay.storm(WAVE, self.measured)?;
            say(&format!(
                "relay on {variant:?}: {:.0} connections/s, {:.1} us of CPU each",
                storm.opened_per_s,
                cpu(&storm)
            ));
            ratio = ratio.min(own.opened_per_s / storm.opened_per_s).min(cpu(&storm) / cpu(&own));
        }
        Ok(ratio)
    }

    fn disk(&self, data: &Path) -> Result<f64> {
        let server = self.start(data)?;
        let report = self.pairs(&server, self.plan(MANY), Class::Buffered)?;
        server.stop()?;
        let bytes = rocks::compacted_bytes(data)?;
        let each = bytes as f64 / report.outcome.sent as f64;
        say(&format!("{} messages, {each:.1} B each", report.outcome.sent));
        Ok(each / (PAYLOAD_BYTES + DISK_OVERHEAD_BYTES) as f64)
    }

    fn against_redis(&self, data: &Path, crew: Crew) -> Result<f64> {
        let plan = self.plan(crew);
        let server = self.start(data)?;
        let own = self.pairs(&server, plan.clone(), Class::Durable)?;
        drop(server);
        say_outcome("server", &own.outcome);
        let redis = RedisServer::start(&self.directory, self.server_core)?.measure(&plan)?;
        checked(&redis)?;
        say_outcome("Redis", &redis);
        Ok(own.outcome.messages_per_s / redis.messages_per_s)
    }
}

/// A ratio of runs that lost messages would mean nothing.
fn checked(outcome: &Outcome) -> Result<()> {
    ensure!(
        outcome.is_correct(),
        "not every message arrived once, whole and in order: {outcome:?}"
    );
    Ok(())
}

fn cpu_us(outcome: &Outcome) -> Result<f64> {
    outcome
        .server_cpu_us_per_message
        .filter(|us| *us > 0.0)
        .context("the server's processor time is unknown")
}

fn say_outcome(who: &str, outcome: &Outcome) {
    say(&format!(
        "{who}: {:.0} messages/s, {:.2} us of its CPU and {:.2} us of the machine's a message, \
         {:.2} cores; this tool {:.2} cores",
        outcome.messages_per_s,
        outcome.server_cpu_us_per_message.unwrap_or_default(),
        outcome.machine_cpu_us_per_message,
        outcome.server_cores.unwrap_or_default(),
        outcome.generator_cores
    ));
}

/// What stands behind a ratio, for whoever watches.
fn say(line: &str) {
    eprintln!("  {line}");
}
