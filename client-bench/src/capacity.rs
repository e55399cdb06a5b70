//! `starling-bench capacity`: the highest rate at which a stated percentile of delivery holds.

use crate::{
    arguments::Target,
    dialect::Class,
    fleet::Crew,
    history::HistoryFile,
    interrupt,
    load::Outcome,
    machine::Machine,
    report::{Report, line},
    scenario::{self, Scenario},
    schedule::Drive,
    workflow::{self, Job},
};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::{path::PathBuf, time::Duration};

/// What is searched for.
#[derive(Clone, Debug)]
pub struct Search {
    pub pairs: usize,
    pub payload_bytes: usize,
    pub class: Class,
    /// The 99.9th percentile of delivery must not be above it.
    pub limit: Duration,
    /// Measured time of each trial.
    pub seconds: Duration,
    pub trials: usize,
    /// Where what the devices see is recorded, over all trials.
    pub history: Option<PathBuf>,
}

/// A rate that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    pub rate: f64,
    pub holds: bool,
    /// Why not.
    pub because: Option<String>,
    pub outcome: Outcome,
}

/// The rates that were tried, in order, and the highest that held.
#[derive(Clone, Debug, Serialize)]
pub struct Capacity {
    pub machine: Machine,
    pub limit_ms: f64,
    /// What a closed loop reached: no rate above it was tried.
    pub closed_loop_per_s: f64,
    pub highest: Option<f64>,
    /// A rate failed because of this tool, or it was what the closed loop came to its end with: the
    /// server may well take more.
    pub generator_limited: bool,
    /// Ended by Ctrl-C, so what is uncertain was not halved as often as asked for.
    pub interrupted: bool,
    pub trials: Vec<Trial>,
}

/// In flight in each pair while the highest throughput is looked for.
const WINDOW: u32 = 16;
/// A rate is reached when so much of it arrives.
const REACHED: f64 = 0.98;

/// Looks for the highest rate: between nothing and what a closed loop reaches, in halves.
pub fn search(target: &Target, search: &Search) -> Result<Capacity> {
    ensure!(search.trials > 0, "no trials");
    let warmup = (search.seconds / 4).min(Duration::from_secs(2));
    let mut history = search.history.as_deref().map(HistoryFile::create).transpose()?;
    let mut run = |drive: Drive, seconds: Duration| -> Result<Outcome> {
        let Search { pairs, payload_bytes, class, .. } = *search;
        let scenario: Scenario =
            scenario::pairs(pairs, drive, payload_bytes, class, [warmup, seconds]);
        let job = Job {
            scenario,
            rounds: 1,
            crew: Crew::here(1, Vec::new()),
            quiet: true,
            history: None,
        };
        Ok(workflow::run_recorded(target, &job, &mut history)?.outcome)
    };
    let most = run(Drive::Window(WINDOW), search.seconds.min(Duration::from_secs(3)))?;
    ensure!(!interrupt::requested(), "interrupted before a rate was tried");
    eprintln!("a closed loop reaches {:.0} messages/s", most.messages_per_s);
    let (mut holds, mut fails) = (0.0, most.messages_per_s);
    let mut trials: Vec<Trial> = Vec::new();
    while trials.len() < search.trials && !interrupt::requested() {
        let rate = f64::midpoint(holds, fails);
        let outcome = run(Drive::Rate(rate), search.seconds);
        // What was cut short says nothing of its rate, and takes nothing from the others.
        if interrupt::requested() {
            break;
        }
        let outcome = outcome?;
        let because = search.verdict(rate, &outcome);
        eprintln!(
            "{rate:.0} messages/s: {}",
            because.clone().unwrap_or_else(|| line(&outcome.delivery))
        );
        if because.is_none() {
            holds = rate
        } else {
            fails = rate
        }
        trials.push(Trial { rate, holds: because.is_none(), because, outcome });
    }
    history.map_or(Ok(()), HistoryFile::finish)?;
    Ok(Capacity {
        machine: Machine::this()?,
        limit_ms: 1e3 * search.limit.as_secs_f64(),
        highest: (holds > 0.0).then_some(holds),
        closed_loop_per_s: most.messages_per_s,
        generator_limited: most.saturated.is_some()
            || trials.iter().any(|trial| trial.outcome.saturated.is_some()),
        interrupted: interrupt::requested(),
        trials,
    })
}

impl Search {
    /// What speaks against `rate`; none: it holds.
    fn verdict(&self, rate: f64, outcome: &Outcome) -> Option<String> {
        if !outcome.is_correct() {
            return Some("not every message arrived once, whole and in order".into());
        }
        if let Some(saturated) = outcome.saturated {
            return Some(format!("generator saturated: trial invalid ({saturated})"));
        }
        let limit_us = 1e6 * self.limit.as_secs_f64();
        if outcome.delivery.p999_us > limit_us {
            return Some(line(&outcome.delivery));
        }
        let reached = outcome.messages_per_s;
        (reached < REACHED * rate).then(|| format!("only {reached:.0} messages/s arrived"))
    }
}

impl Report for Capacity {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines: Vec<_> = self
            .trials
            .iter()
            .map(|trial| {
                let verdict = if trial.holds { "holds" } else { "does not hold" };
                let delivery = line(&trial.outcome.delivery);
                ("tried", format!("{:>9.0} messages/s {verdict}: {delivery}", trial.rate))
            })
            .collect();
        let highest = self.highest.map_or("none".into(), |rate| format!("{rate:.0} messages/s"));
        lines.push(("highest rate", format!("{highest} with p99.9 within {} ms", self.limit_ms)));
        if !self.trials.is_empty() && self.trials.iter().all(|trial| trial.holds) {
            let most = self.closed_loop_per_s;
            lines.push((
                "take care",
                format!("no rate failed; none above the {most:.0}/s of a closed loop was tried"),
            ));
        }
        if self.interrupted {
            lines.push(("interrupted", "this is what there is".into()));
        }
        if self.generator_limited {
            lines.push((
                "generator saturated",
                "the server may take more than this tool can give".into(),
            ));
        }
        lines
    }

    fn valid(&self) -> bool {
        self.highest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Percentiles;

    #[test]
    fn a_rate_holds_only_if_nothing_speaks_against_it() {
        let search = Search {
            pairs: 1,
            payload_bytes: 128,
            class: Class::Durable,
            limit: Duration::from_millis(10),
            seconds: Duration::from_secs(1),
            trials: 1,
            history: None,
        };
        let empty = serde_json::json!({
            "name": "", "seconds": 1.0, "acknowledged": 0, "delivered": 0, "messages_per_s": 100.0,
            "acknowledgement": Percentiles::default(), "durable_acknowledgement": Percentiles::default(),
            "delivery": Percentiles::default(), "service": Percentiles::default(),
            "lag": Percentiles::default(), "returning": Percentiles::default(),
            "sent": 0, "acknowledged_in_all": 0, "delivered_in_all": 0, "losses": 0, "unanswered": 0, "duplicates": 0, "order_breaks": 0, "gaps": 0,
            "corrupt": 0, "put_off": 0, "repeated_acks": 0, "broken": 0,
            "machine_cpu_us_per_message": 0.0, "generator_cores": 0.0,
        });
        let good: Outcome = serde_json::from_value(empty).unwrap();
        assert_eq!(search.verdict(100.0, &good), None);
        assert!(search.verdict(103.0, &good).is_some());
        let mut slow = good.clone();
        slow.delivery.p999_us = 10_001.0;
        assert!(search.verdict(100.0, &slow).is_some());
        let mut wrong = good;
        wrong.totals.losses = 1;
        assert!(search.verdict(100.0, &wrong).is_some());
    }
}
