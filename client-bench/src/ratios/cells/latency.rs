//! How long one waits for what is durable: with little to do, against a bare sync, and with half of
//! what can be done.

use super::{Bench, Run, say};
use crate::{
    dialect::Class,
    latency::Latencies,
    ratios::{course::Figures, goals::BUSY, server::Server},
    report::line,
    schedule::Drive,
    yardstick::fsync,
};
use anyhow::{Result, bail};
use std::{path::Path, time::Duration};

/// Shares of the capacity at which latency is measured.
const EASY: f64 = 0.1;
const HALF: f64 = 0.5;
/// Server and bare sync take turns, so often, half of the measured time each: a disk is fast for
/// some seconds and slow for others, and both are to see the same of it.
const TURNS: usize = 4;
/// A latency that the load tool itself spoilt is measured again, so often at most.
const TRIES: usize = 3;

impl Bench {
    /// Acknowledgement at a tenth of the capacity against a bare sync, 50th percentile and 99th;
    /// the 99.9th of delivery at half of it, in milliseconds.
    pub(super) fn latency(&self, data: &Path) -> Result<Figures> {
        let server = self.start(data)?;
        let capacity = self.pairs(&server, self.plan(BUSY), Class::Durable)?.outcome.messages_per_s;
        let turn = self.measured / 2;
        let [mut own, mut bare, mut perfect] = <[Latencies; 3]>::default();
        for _ in 0..TURNS {
            let run = self.at(&server, EASY * capacity, turn)?;
            let phases = run.measured.phases.iter().filter(|phase| phase.phase.measured);
            phases.for_each(|phase| own.merge(&phase.acknowledgement));
            // As many bytes as the server had.
            let bytes = run.bytes_per_sync() as usize;
            let fsync = fsync::measure(bytes, turn, Duration::ZERO, &self.directory)?;
            say(&format!("{bytes} B synced: {}", line(&fsync.latency)));
            bare.merge(&fsync.latencies);
            perfect.merge(&fsync.perfect_latencies);
        }
        let half = self.at(&server, HALF * capacity, self.measured);
        let (own, bare) = (own.percentiles(), bare.percentiles());
        say(&format!(
            "all turns: acknowledged {}; synced {}; a perfect server would acknowledge {}",
            line(&own),
            line(&bare),
            line(&perfect.percentiles())
        ));
        Ok(vec![
            Ok(own.p50_us / bare.p50_us),
            Ok(own.p99_us / bare.p99_us),
            half.map(|half| half.outcome.delivery.p999_us / 1e3),
        ])
    }

    /// So many messages a second, as often as it takes until the load tool is in time.
    fn at(&self, server: &Server, per_s: f64, measured: Duration) -> Result<Run> {
        for _ in 0..TRIES {
            let plan = self.driven(BUSY.pairs, Drive::Rate(per_s), measured);
            let run = self.pairs(server, plan, Class::Durable)?;
            let outcome = &run.outcome;
            say(&format!(
                "{:.0} messages/s: acknowledged {}; delivered {}; this tool late {}",
                outcome.messages_per_s,
                line(&outcome.acknowledgement),
                line(&outcome.delivery),
                line(&outcome.lag)
            ));
            let Some(saturated) = outcome.saturated else { return Ok(run) };
            say(&format!("generator saturated: result invalid ({saturated})"));
        }
        bail!("the generator was saturated {TRIES} times")
    }
}
