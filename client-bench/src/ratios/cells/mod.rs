//! How each goal is measured once.

mod latency;
mod slow_readers;

use super::{
    course::Figures,
    goals::{BUSY, Crew, MANY, What},
    server::Server,
};
use crate::{
    arguments::Variant,
    dialect::Class,
    hold::{self, HoldPlan, Manner, Pace},
    load::{Measured, Outcome, Phase, Plan, Unwatched, Watcher},
    machine,
    operator::{Counters, Operator},
    pair, report,
    schedule::Drive,
    storm::{self, Storm, StormPlan},
    sync,
    users::Users,
    yardstick::{
        frozen, idle,
        redis::RedisServer,
        relay::RelayServer,
        rocks::{self, Rows},
    },
};
use anyhow::{Context, Result, ensure};
use std::{
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
/// How often an idle device says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// Between two lines about a crowd that is held.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);
/// Bare sockets are quiet at once.
const BARE_QUIET: Duration = Duration::from_secs(5);
/// Devices that catch up from nothing.
const READERS: usize = 200;
/// Where and how long is measured.
pub struct Bench {
    pub binary: PathBuf,
    pub directory: PathBuf,
    pub server_core: Option<usize>,
    pub measured: Duration,
    pub quiet: Duration,
}

impl Bench {
    /// One sample of each figure of `what`, in the order of the goals.
    ///
    /// # Errors
    /// There is none of them.
    pub fn measure(&self, what: What) -> Result<Figures> {
        let directory = tempfile::Builder::new().prefix("ratio-").tempdir_in(&self.directory)?;
        let data = directory.path().join("data");
        let one = |ratio: Result<f64>| ratio.map(|ratio| vec![Ok(ratio)]);
        match what {
            What::Idle => self.idle(&data),
            What::Relay(crew) => one(self.against_relay(&data, crew)),
            What::Rocks(crew) => one(self.against_rocks(&data, crew)),
            What::Latency => self.latency(&data),
            What::Logins => one(self.logins(&data)),
            What::CatchUp => one(self.catch_up(&data)),
            What::Disk => one(self.disk(&data)),
            What::SlowReaders => Ok(vec![
                self.beside_slow_readers(&data),
                self.slow_readers_memory(&directory.path().join("other")),
            ]),
            What::Freeze => one(self.freeze()),
            What::Redis(crew) => one(self.against_redis(&data, crew)),
        }
    }

    fn start(&self, data: &Path) -> Result<Server> {
        Server::start(&self.binary, data, self.server_core, &[])
    }

    fn plan(&self, crew: Crew) -> Plan {
        self.driven(crew.pairs, Drive::Window(crew.window), self.measured)
    }

    fn driven(&self, pairs: usize, drive: Drive, measured: Duration) -> Plan {
        Plan::steady(pairs, drive, PAYLOAD_BYTES, WARMUP, measured)
    }

    fn phase(&self, name: &str, drive: Drive) -> Phase {
        Phase::new(name, self.measured, drive)
    }

    /// Drives the server, and makes sure that no message was lost.
    fn pairs(&self, server: &Server, plan: Plan, class: Class) -> Result<Run> {
        self.watched(server, plan, class, &mut Unwatched)
    }

    fn watched(
        &self,
        server: &Server,
        plan: Plan,
        class: Class,
        watcher: &mut impl Watcher,
    ) -> Result<Run> {
        let target = server.target();
        let plan = Plan { server: target.server, server_pid: target.server_pid, ..plan };
        let driven = pair::drive(&target, plan, class, watcher)?;
        let outcome = driven.measured.outcome().context("nothing was measured")?;
        checked(&outcome)?;
        let risen = driven.after.since(&driven.before);
        Ok(Run { measured: driven.measured, outcome, risen })
    }

    /// Memory, kernel memory against a bare socket, and processor time of an idle connection.
    fn idle(&self, data: &Path) -> Result<Figures> {
        let plan = HoldPlan {
            connections: CROWD,
            report_at: vec![FEW],
            quiet: self.quiet,
            per_process: usize::MAX,
            until_beaten: false,
            cut_every: None,
            rest: 2 * HEARTBEAT,
            history: None,
            sources: Vec::new(),
            manner: Manner {
                heartbeat_s: (HEARTBEAT.as_secs() as u32, HEARTBEAT.as_secs() as u32),
                pace: Pace::Unbounded,
                progress: Some(PROGRESS_EVERY),
            },
        };
        // Sockets that wait for late packets are slabs too.
        if let Err(error) = idle::until_forgotten() {
            say(&format!("slabs may hold what went before: {error:#}"));
        }
        let bare = idle::measure(CROWD - FEW, self.quiet.min(BARE_QUIET), false, self.server_core)?;
        // The users are there before, and the server that made them is not.
        let server = self.start(data)?;
        let target = server.target();
        let mut operator = Operator::connect(target.server, &target.operator_key)?;
        Users::open(target.users.as_deref())?.ensure(CROWD + 1, &mut operator)?;
        drop(operator);
        server.stop()?;
        let server = self.start(data)?;
        let (hold, held) = hold::run(&server.target(), &plan)?;
        drop(held);
        ensure!(hold.tally.messages == CROWD as u64, "not every device got its message");
        for point in &hold.points {
            say(&format!("{} connections: {}", point.connections, memory_of(point)));
        }
        let unknown = "the server's memory and processor time are unknown";
        let kernel = kernel_bytes(
            hold.slab_object_bytes_per_connection.unwrap_or(hold.slab_bytes_per_connection),
            bare.slab_object_bytes_per_connection.unwrap_or(bare.slab_bytes_per_connection),
        );
        say(&format!(
            "{:.0} B a connection less what the store reports; slabs of the server's end {:.0} B, of \
             a bare one {:.0} B",
            hold.server_own_bytes_per_connection.unwrap_or_default(),
            kernel.0,
            kernel.1
        ));
        Ok(vec![
            hold.server_pss_bytes_per_connection.context(unknown),
            Ok(kernel.0 / kernel.1),
            hold.idle_cpu_us_per_connection_s.context(unknown),
        ])
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

    /// Events a second, against RocksDB alone on the same core.
    fn catch_up(&self, data: &Path) -> Result<f64> {
        let server = self.start(data)?;
        let plan = self.driven(READERS, Drive::Window(BUSY.window), self.measured);
        self.pairs(&server, plan, Class::Buffered)?;
        let users = Users::open(server.target().users.as_deref())?.list.users;
        // From tables, and from nothing in the cache: so both read.
        server.stop()?;
        let server = self.start(data)?;
        let own = sync::from_nothing(&server.target(), (0..READERS).map(|pair| 2 * pair + 1))?;
        server.stop()?;
        say(&format!(
            "server: {:.0} events/s of {}, {:.2} us of its CPU each; this tool {:.2} cores",
            own.events_per_s,
            own.events,
            own.server_cpu_us_per_event.unwrap_or_default(),
            own.generator_cores
        ));
        let pairs: Vec<(u32, u32)> =
            (0..READERS).map(|pair| (users[2 * pair + 1].user, users[2 * pair].user)).collect();
        // As a commit's size is the server's, so is that of a page.
        let page = own.events_per_page.round() as usize;
        let rocks = on(self.server_core, || rocks::read_back(data, &pairs, page))?;
        say(&format!(
            "RocksDB: {:.0} messages/s of {} in {} pages, {} inbox rows; the server read {:.0} a page",
            rocks.messages_per_s,
            rocks.messages,
            rocks.pages,
            rocks.inbox_rows,
            own.events_per_page
        ));
        ensure!(rocks.messages == own.events, "the two did not read the same");
        Ok(own.events_per_s / rocks.messages_per_s)
    }

    /// How far off this tool's percentiles are, in percent.
    fn freeze(&self) -> Result<f64> {
        let freeze = frozen::measure(self.server_core)?;
        checked(&freeze.outcome)?;
        Ok(100.0 * freeze.error())
    }

    fn logins(&self, data: &Path) -> Result<f64> {
        let server = self.start(data)?;
        let target = server.target();
        let plan = StormPlan {
            server: target.server,
            server_pid: target.server_pid,
            sources: Vec::new(),
            connections: WAVE,
            per_process: usize::MAX,
            rate: None,
            measured: self.measured,
        };
        let own = storm::run_logins(&target, &plan, |_, _| {})?;
        drop(server);
        let cpu = |storm: &Storm| storm.server_cpu_us_per_connection.unwrap_or_default();
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
        let each = bytes as f64 / report.outcome.totals.sent as f64;
        say(&format!("{} messages, {each:.1} B each", report.outcome.totals.sent));
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

/// What a load on the server measured, which lost nothing.
struct Run {
    measured: Measured,
    outcome: Outcome,
    risen: Counters,
}

impl Run {
    fn per_sync(&self, sum: f64) -> f64 {
        sum / self.risen.get("committer syncs").max(1) as f64
    }

    /// Messages and bytes that one sync of the log made durable, on the average.
    fn messages_per_sync(&self) -> f64 {
        self.per_sync(self.outcome.totals.sent as f64)
    }

    fn bytes_per_sync(&self) -> f64 {
        self.per_sync(self.risen.get("committer log_bytes") as f64)
    }
}

/// Does something on a core of its own, if there is one.
fn on<T>(core: Option<usize>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let here = machine::cores()?;
    report::on_core(core)?;
    let done = work();
    machine::pin_to(&here)?;
    done
}

fn memory_of(point: &hold::Point) -> String {
    format!(
        "PSS {} B, memtables {} B, block cache {} B",
        point.memory.server_pss_bytes.unwrap_or_default(),
        point.memtable_bytes,
        point.block_cache_bytes
    )
}

/// What the kernel keeps for the server's end of a connection and for a bare one, given what it
/// keeps for both ends of each: those of a bare connection are alike, and who connects keeps the
/// same to the server.
fn kernel_bytes(server: f64, bare: f64) -> (f64, f64) {
    (server - bare / 2.0, bare / 2.0)
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
    // Of a ratio of processor times that is no matter; of others it is.
    if let Some(saturated) = outcome.saturated {
        say(&format!(
            "{who}: generator saturated, so messages a second are the generator's ({saturated})"
        ));
    }
}

/// What stands behind a ratio, for whoever watches.
fn say(line: &str) {
    eprintln!("  {line}");
}
