//! A scenario: who is connected, and what they do, phase after phase. It comes from a TOML file or
//! from the flags of a short command; the rest of the tool does not know from which.

mod short;
mod written;

pub use short::{Churn, Mixed, SlowReaders, Sync, pairs};

use crate::{
    content::MIN_PAYLOAD_BYTES,
    dialect::Class,
    load::{Phase, Plan, Receivers},
    schedule::Drive,
    sources::Sources,
};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use starling_codec::limits;
use std::{net::SocketAddr, path::Path};

/// A scenario, whole: nothing is left to a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    pub name: String,
    pub description: String,
    /// Pairs of users, one of whom writes to the other.
    pub pairs: usize,
    /// Devices that only beat their hearts.
    pub idle: usize,
    pub payload_bytes: usize,
    pub class: Class,
    /// The range that HELLO names; the server chooses.
    pub heartbeat_s: (u32, u32),
    /// Log-ins a second; none: as fast as the server takes them.
    pub connect_per_s: Option<f64>,
    pub phases: Vec<Phase>,
}

impl Scenario {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// It cannot be read, is no scenario, or contradicts itself.
    pub fn read(path: &Path) -> Result<Scenario> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        written::parse(&text).with_context(|| format!("{} is no scenario", path.display()))
    }

    /// All that is wrong with it, in one error.
    pub fn validate(&self) -> Result<()> {
        let mut wrong = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        check(self.pairs + self.idle > 0, "it has neither pairs nor idle devices".into());
        check(!self.phases.is_empty(), "it has no phases".into());
        check(
            (MIN_PAYLOAD_BYTES..=limits::MAX_CONTENT_BYTES - 16).contains(&self.payload_bytes),
            format!(
                "payload_bytes is {}; it must be {MIN_PAYLOAD_BYTES} to {}",
                self.payload_bytes,
                limits::MAX_CONTENT_BYTES - 16
            ),
        );
        let (shortest, longest) = self.heartbeat_s;
        check(
            limits::MIN_HEARTBEAT_S <= shortest
                && shortest <= longest
                && longest <= limits::MAX_HEARTBEAT_S,
            format!(
                "heartbeat_s is {shortest} to {longest}; it must be a range within {} to {}",
                limits::MIN_HEARTBEAT_S,
                limits::MAX_HEARTBEAT_S
            ),
        );
        check(
            self.connect_per_s.is_none_or(|rate| rate.is_finite() && rate > 0.0),
            "connect_per_s must be more than 0".into(),
        );
        for phase in &self.phases {
            let mut check = |holds, what: String| check(holds, format!("{}: {what}", phase.name));
            check(!phase.lasts.is_zero(), "it must last more than 0 s".into());
            let (drives, right) = match phase.drive {
                Drive::Rest => (false, true),
                Drive::Rate(rate) => (true, rate.is_finite() && rate > 0.0),
                Drive::Window(window) => {
                    (true, (1..=limits::MAX_SEND_SPAN + 1).contains(&window.into()))
                }
            };
            check(right, "a rate is more than 0, a window is 1 to 64".into());
            check(!drives || self.pairs > 0, "it drives pairs, and there are none".into());
            check(
                phase.churn_per_s.is_finite() && phase.churn_per_s >= 0.0,
                "churn_per_s must not be negative".into(),
            );
            check((0.0..=1.0).contains(&phase.share), "share is a part of 1".into());
            check(
                phase.receivers == Receivers::Reading || phase.apart(self.pairs) > 0,
                "nobody is in the share of the receivers that do not read".into(),
            );
        }
        if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
    }

    /// The same load as the load engine needs it.
    pub fn plan(&self, server: SocketAddr, sources: Sources, server_pid: Option<u32>) -> Plan {
        Plan {
            server,
            sources,
            pairs: self.pairs,
            idle: self.idle,
            payload_bytes: self.payload_bytes,
            connect_per_s: self.connect_per_s,
            phases: self.phases.clone(),
            server_pid,
        }
    }

    pub fn connections(&self) -> usize {
        2 * self.pairs + self.idle
    }

    /// Part `index` of `parts`, which together are the whole: connections are dealt out, and rates
    /// with them.
    pub fn part(&self, index: usize, parts: usize) -> Scenario {
        let deal = |count: usize| count / parts + usize::from(index < count % parts);
        let (pairs, idle) = (deal(self.pairs), deal(self.idle));
        let of = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let by_pairs = of(pairs, self.pairs);
        let by_receivers = of(pairs + idle, self.pairs + self.idle);
        let phases = self.phases.iter().map(|phase| Phase {
            drive: match phase.drive {
                Drive::Rate(_) if pairs == 0 => Drive::Rest,
                Drive::Rate(rate) => Drive::Rate(rate * by_pairs),
                Drive::Rest | Drive::Window(_) => phase.drive,
            },
            churn_per_s: phase.churn_per_s * by_receivers,
            ..phase.clone()
        });
        Scenario {
            pairs,
            idle,
            connect_per_s: self
                .connect_per_s
                .map(|rate| rate * of(2 * pairs + idle, self.connections())),
            phases: phases.collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_example_is_valid() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let scenario = Scenario::read(&path).unwrap();
            assert_eq!(
                Some(scenario.name.as_str()),
                path.file_stem().and_then(|name| name.to_str())
            );
            count += 1;
        }
        assert!(count >= 5);
    }

    #[test]
    fn parts_are_the_whole() {
        let mut whole = pairs(7, Drive::Rate(700.0), 128, Class::Durable, [Duration::ZERO; 2]);
        whole.idle = 5;
        whole.connect_per_s = Some(19.0);
        whole.phases[0].churn_per_s = 12.0;
        let parts: Vec<Scenario> = (0..3).map(|index| whole.part(index, 3)).collect();
        let sum = |of: fn(&Scenario) -> f64| parts.iter().map(of).sum::<f64>();
        assert_eq!(sum(|part| part.connections() as f64), 19.0);
        assert_eq!(sum(|part| part.pairs as f64), 7.0);
        assert!((sum(|part| part.connect_per_s.unwrap()) - 19.0).abs() < 1e-9);
        assert!((sum(|part| part.phases[0].churn_per_s) - 12.0).abs() < 1e-9);
        let rate = |part: &Scenario| match part.phases[0].drive {
            Drive::Rate(rate) => rate,
            _ => 0.0,
        };
        assert!((parts.iter().map(rate).sum::<f64>() - 700.0).abs() < 1e-9);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let mut scenario = pairs(1, Drive::Window(65), 8, Class::Durable, [Duration::ZERO; 2]);
        scenario.heartbeat_s = (5, 10);
        let wrong = scenario.validate().unwrap_err().to_string();
        for what in ["payload_bytes", "heartbeat_s", "window", "must last"] {
            assert!(wrong.contains(what), "{wrong}");
        }
    }
}
