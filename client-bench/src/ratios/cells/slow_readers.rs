//! Receivers that stop reading: what the others notice of it, and what each of them costs.

use super::{Bench, WARMUP, memory_of, say};
use crate::{
    dialect::{Class, WINDOW_EVENTS},
    hold,
    latency::Latencies,
    load::{Phase, Plan, Progress, Receivers, Watcher},
    operator::Operator,
    ratios::server::Server,
    report::line,
    schedule::Drive,
    sockets::SendQueues,
};
use anyhow::{Result, bail, ensure};
use std::{net::SocketAddr, path::Path, time::Duration};

/// Pairs, messages a second over all of them, and the share that does not read.
const BESIDE: usize = 200;
const BESIDE_RATE: f64 = 10_000.0;
const SLOW_SHARE: f64 = 0.01;
/// How often the two are measured in turns: in each the disk is slow for a moment, or not at all,
/// and one moment decides a 99.9th percentile of some seconds.
const TURNS: usize = 4;
/// Pairs whose receivers all stop reading, to see what each costs.
const STUCK: usize = 400;
/// How many windows are written to each of them: one that is not full says little; and how many
/// messages a second, in no hurry: a server that is overrun would be measured doing something else.
const WINDOWS: f64 = 1.1;
const FILL_RATE: f64 = 25_000.0;
/// What is in memtables when a server rests is chance, so there is little of it.
const SMALL_STORE: &[&str] = &["--memtable-mib", "8"];
/// A rest in which the server gives back what it does not need: it does so after 10 s.
const REST: Duration = Duration::from_secs(15);

impl Bench {
    /// Others' 99.9th percentile while some do not read, against while all do.
    pub(super) fn beside_slow_readers(&self, data: &Path) -> Result<f64> {
        let server = self.start(data)?;
        let drive = Drive::Rate(BESIDE_RATE);
        let all = self.phase("all read", drive);
        let some = Phase {
            receivers: Receivers::Stuck,
            share: SLOW_SHARE,
            ..self.phase("some do not", drive)
        };
        let settle = Phase::new("settle", WARMUP, drive).unmeasured();
        let turn = [settle.clone(), all, settle, some];
        let phases = vec![turn; TURNS].concat();
        let plan = Plan { phases, ..self.driven(BESIDE, drive, self.measured) };
        let run = self.pairs(&server, plan, Class::Durable)?;
        let p999 = |receivers: Receivers| {
            let mut delivery = Latencies::default();
            let phases = run.measured.phases.iter().filter(|phase| phase.phase.measured);
            phases
                .filter(|phase| phase.phase.receivers == receivers)
                .for_each(|phase| delivery.merge(&phase.delivery));
            say(&format!("{receivers:?}: {}", line(&delivery.percentiles())));
            delivery.at(0.999) as f64
        };
        let with_all = p999(Receivers::Reading);
        Ok(p999(Receivers::Stuck) / with_all)
    }

    /// Memory of the server and of the kernel for each receiver that does not read, in KiB. The
    /// server's is what it gives back when they leave: another server with as many messages and
    /// nobody who is stuck differs by more than they take, for it stores them at another pace.
    pub(super) fn slow_readers_memory(&self, data: &Path) -> Result<f64> {
        std::fs::create_dir_all(data)?;
        let data = data.join("data");
        let server = Server::start(&self.binary, &data, self.server_core, SMALL_STORE)?;
        let messages = (STUCK as f64 * WINDOWS * f64::from(WINDOW_EVENTS)) as u64;
        let lasts = Duration::from_secs_f64(messages as f64 / FILL_RATE);
        let all = |receivers, phase: Phase| Phase { receivers, share: 1.0, ..phase };
        let phases = vec![
            all(Receivers::Stuck, Phase::new("nobody reads", lasts, Drive::Rate(FILL_RATE))),
            all(Receivers::Stuck, Phase::new("they are stuck", REST, Drive::Rest)),
            all(Receivers::Away, Phase::new("they have left", REST, Drive::Rest)),
        ];
        let target = server.target();
        let mut watcher = Rests {
            operator: Operator::connect(target.server, &target.operator_key)?,
            pid: target.server_pid,
            server: target.server,
            sent: 0,
            seen: Vec::new(),
        };
        let plan = Plan { phases, ..self.driven(STUCK, Drive::Rest, self.measured) };
        self.watched(&server, plan, Class::Buffered, &mut watcher)?;
        let Rests { sent, seen, .. } = watcher;
        ensure!(sent >= messages, "{sent} of {messages} messages had gone out");
        let [_, (stuck, queues), (left, _)] = &seen[..] else { bail!("interrupted") };
        for (what, point) in [("stuck", stuck), ("left", left)] {
            say(&format!("{what}: {}", memory_of(point)));
        }
        let own = |point: &hold::Point| point.server_own_bytes().unwrap_or_default() as f64;
        let each_kib = |bytes: f64| bytes / STUCK as f64 / 1_024.0;
        let user_kib = each_kib(own(stuck) - own(left));
        let kernel_kib = each_kib(queues.bytes as f64);
        say(&format!(
            "each of {STUCK} that do not read: {user_kib:.1} KiB of the server, {kernel_kib:.1} KiB \
             of its send buffer"
        ));
        ensure!(user_kib >= 0.0, "the memory of the store hides that of those who do not read");
        Ok(user_kib + kernel_kib)
    }
}

/// Looks at memory at the end of each phase, and counts the messages sent.
struct Rests {
    operator: Operator,
    pid: Option<u32>,
    server: SocketAddr,
    sent: u64,
    seen: Vec<(hold::Point, SendQueues)>,
}

impl Watcher for Rests {
    fn progress(&mut self, progress: &Progress) -> Result<()> {
        self.sent = progress.sent;
        Ok(())
    }

    fn phase_ended(&mut self, _index: usize) -> Result<()> {
        let point = hold::Point::now(&self.operator.counters()?, self.pid, 2 * STUCK)?;
        self.seen.push((point, SendQueues::of(self.server)?));
        Ok(())
    }
}
