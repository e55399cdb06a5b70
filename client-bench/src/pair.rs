//! `starling-bench pair`: the load of pairs on a Starling server.

use crate::{
    arguments::Target,
    dialect::{Class, Starling},
    load::{self, Outcome, Plan},
    machine::Machine,
    operator::{Counters, Operator},
    report::Report,
    users::Users,
};
use anyhow::Result;
use serde::Serialize;
use starling_codec::limits;

/// What a run against a server measured.
#[derive(Clone, Debug, Serialize)]
pub struct PairReport {
    pub machine: Machine,
    pub outcome: Outcome,
    /// The server's counters before and after, and what rose between: warm-up, first messages
    /// and stragglers are in it.
    pub before: Counters,
    pub after: Counters,
    pub risen: Counters,
}

/// Makes the users that are missing, and runs `plan` with them.
pub fn run(target: &Target, plan: Plan, class: Class) -> Result<PairReport> {
    let mut operator = Operator::connect(target.server, &target.operator_key)?;
    let mut users = Users::open(target.users.as_deref())?;
    users.ensure(2 * plan.pairs, &mut operator)?;
    let before = operator.counters()?;
    let heartbeat_s = (limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S);
    let dialect = Starling::new(std::mem::take(&mut users.list), class, heartbeat_s);
    let (outcome, dialect) = load::run(plan, rand::random(), dialect)?;
    users.list = dialect.users;
    users.save()?;
    let after = operator.counters()?;
    let risen = after.since(&before);
    Ok(PairReport { machine: Machine::this()?, outcome, before, after, risen })
}

impl PairReport {
    /// Messages that one sync of the log made durable, on the average.
    pub fn messages_per_sync(&self) -> f64 {
        self.outcome.sent as f64 / self.risen.get("committer syncs").max(1) as f64
    }

    /// Bytes that one sync of the log made durable, on the average.
    pub fn bytes_per_sync(&self) -> f64 {
        self.risen.get("committer log_bytes") as f64
            / self.risen.get("committer syncs").max(1) as f64
    }
}

impl Report for PairReport {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = self.outcome.lines();
        let batches = self.risen.get("committer batches").max(1) as f64;
        lines.push((
            "a batch of the store",
            format!(
                "{:.1} commands, {:.1} rows; {:.1} messages a sync",
                self.risen.get("committer commands") as f64 / batches,
                self.risen.get("committer rows") as f64 / batches,
                self.messages_per_sync()
            ),
        ));
        for (name, rise) in &self.risen.0 {
            lines.push(("counter", format!("{rise:>12} {name}")));
        }
        lines
    }

    fn valid(&self) -> bool {
        self.outcome.valid()
    }
}
