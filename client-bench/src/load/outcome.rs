//! What a load measured, in the figures that people and programs compare, and whether it may be
//! believed.

use super::measured::{Measured, PhaseMeasured, Totals};
use crate::{
    latency::{Latencies, Percentiles},
    machine::Cpu,
    schedule::Drive,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a phase measured. Latencies are of messages meant for its time, rates of what happened in
/// it; losses, duplicates and breaks of order are of the whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Of the phase, or of the measured phases together.
    pub name: String,
    pub seconds: f64,
    pub acknowledged: u64,
    pub delivered: u64,
    pub messages_per_s: f64,
    /// From the time a message was meant to be sent.
    pub acknowledgement: Percentiles,
    /// The same, of the acknowledgements that promise the message is on disk.
    pub durable_acknowledgement: Percentiles,
    pub delivery: Percentiles,
    /// From the time it was sent to its acknowledgement.
    pub service: Percentiles,
    /// How late the tool itself was.
    pub lag: Percentiles,
    /// From connecting to having caught up, of devices that came back.
    pub returning: Percentiles,
    #[serde(flatten)]
    pub totals: Totals,
    pub server_cpu_us_per_message: Option<f64>,
    pub machine_cpu_us_per_message: f64,
    pub server_cores: Option<f64>,
    pub generator_cores: f64,
    /// Present: the generator was saturated, so the result is invalid.
    pub saturated: Option<Saturation>,
}

impl Outcome {
    pub fn of(phase: &PhaseMeasured, totals: Totals) -> Outcome {
        let seconds = phase.seconds();
        // What arrives, or else what is taken, is what the work was for.
        let done = if phase.delivered > 0 { phase.delivered } else { phase.acknowledged };
        let per_message_us = |cpu_s: f64| 1e6 * cpu_s / done.max(1) as f64;
        Outcome {
            name: phase.phase.name.clone(),
            seconds,
            acknowledged: phase.acknowledged,
            delivered: phase.delivered,
            messages_per_s: phase.delivered as f64 / seconds,
            acknowledgement: phase.acknowledgement.percentiles(),
            durable_acknowledgement: phase.durable.percentiles(),
            delivery: phase.delivery.percentiles(),
            service: phase.service.percentiles(),
            lag: phase.lag.percentiles(),
            returning: phase.returning.percentiles(),
            totals,
            server_cpu_us_per_message: phase.cpu.server_s.map(per_message_us),
            machine_cpu_us_per_message: per_message_us(phase.cpu.machine_s),
            server_cores: phase.cpu.server_s.map(|cpu_s| cpu_s / seconds),
            generator_cores: phase.cpu.own_s / seconds,
            saturated: Saturation::of(phase),
        }
    }

    /// The slowest in a thousand waited for this tool too: its lag there is a good part of what it
    /// reports, though it is not at the 99th percentile.
    pub fn has_a_tail_of_its_own(&self) -> bool {
        let lag = self.lag.p999_us;
        lag > LAG_FLOOR_NS as f64 / 1e3 && lag > self.delivery.p999_us / 10.0
    }

    /// Every message arrived once, whole and in order.
    pub fn is_correct(&self) -> bool {
        self.totals.are_correct()
    }
}

impl Measured {
    /// Of each measured phase.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let measured = self.phases.iter().filter(|phase| phase.phase.measured);
        measured.map(|phase| Outcome::of(phase, self.totals)).collect()
    }

    /// Of all measured phases together, and of the last phase if none is.
    pub fn outcome(&self) -> Option<Outcome> {
        let mut measured = self.phases.iter().filter(|phase| phase.phase.measured);
        let Some(first) = measured.next() else {
            return self.phases.last().map(|phase| Outcome::of(phase, self.totals));
        };
        let mut whole = first.clone();
        let mut saturated = Saturation::of(first);
        for phase in measured {
            whole.append(phase);
            whole.phase.name = "all measured phases".into();
            saturated = saturated.or(Saturation::of(phase));
        }
        Some(Outcome { saturated, ..Outcome::of(&whole, self.totals) })
    }
}

/// How the tool fell short of its own schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saturation {
    /// Its own lag, at the 99th percentile, is a good part of what it measures.
    Lag { lag_p99_us: f64, acknowledgement_p99_us: f64 },
    /// A closed loop whose generator had no time left, so that the server waited for it, or may
    /// have. 1 is all that one process of the generator, or the server, can do; what the server
    /// did is not known without its process.
    Busy { generator_busy: f64, server_busy: Option<f64> },
}

impl fmt::Display for Saturation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: f64| 100.0 * part;
        match *self {
            Saturation::Lag { lag_p99_us, acknowledgement_p99_us } => write!(
                formatter,
                "one message in a hundred went out {:.2} ms late or more, and was acknowledged \
                 {:.2} ms after it was meant to be sent",
                lag_p99_us / 1e3,
                acknowledgement_p99_us / 1e3
            ),
            Saturation::Busy { generator_busy, server_busy: Some(server_busy) } => write!(
                formatter,
                "it was busy for {:.0} % of the time, the server for {:.0} %: it wants more processes or machines",
                percent(generator_busy),
                percent(server_busy)
            ),
            Saturation::Busy { generator_busy, server_busy: None } => write!(
                formatter,
                "it was busy for {:.0} % of the time, and the server's share is not known without \
                 --server-pid",
                percent(generator_busy)
            ),
        }
    }
}

/// A lag below this is the machine's own noise.
const LAG_FLOOR_NS: u64 = 1_000_000;

impl Saturation {
    fn of(phase: &PhaseMeasured) -> Option<Saturation> {
        let seconds = phase.seconds();
        match phase.phase.drive {
            Drive::Rate(_) => {
                Saturation::of_schedule(&phase.lag, &phase.acknowledgement, 1e9 * seconds)
            }
            Drive::Window(_) => Saturation::of_loop(phase.cpu, phase.server_busy, seconds),
            Drive::Rest => None,
        }
    }

    /// An open loop is saturated when the tool gives out messages so late that its lag is more
    /// than a tenth of the latency it reports, or than the whole measured time.
    fn of_schedule(lag: &Latencies, answer: &Latencies, measured_ns: f64) -> Option<Saturation> {
        let (lag, answer) = (lag.at(0.99), answer.at(0.99));
        let late = lag > answer / 10 || lag as f64 > measured_ns;
        (lag > LAG_FLOOR_NS && late).then_some(Saturation::Lag {
            lag_p99_us: lag as f64 / 1e3,
            acknowledgement_p99_us: answer as f64 / 1e3,
        })
    }

    /// A closed loop measures the server only as long as the server has no time left, or the
    /// generator has. What a message costs in processor time holds either way.
    pub fn of_loop(cpu: Cpu, server_busy: Option<f64>, seconds: f64) -> Option<Saturation> {
        let generator_busy = cpu.busiest_s / seconds;
        let may_have_waited = server_busy.is_none_or(|busy| busy < 0.9);
        (generator_busy > 0.97 && may_have_waited)
            .then_some(Saturation::Busy { generator_busy, server_busy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(ns: u64) -> Latencies {
        let mut latencies = Latencies::default();
        latencies.record(ns);
        latencies
    }

    #[test]
    fn a_late_generator_invalidates_what_it_measured() {
        let ms = 1_000_000;
        let saturated = |lag, answer| {
            Saturation::of_schedule(&latencies(lag), &latencies(answer), 2e9).is_some()
        };
        assert!(saturated(2_001 * ms, 90_000 * ms));
        assert!(saturated(50 * ms, 60 * ms));
        assert!(!saturated(50 * ms, 900 * ms));
        assert!(!saturated(ms / 2, ms / 2));
    }

    #[test]
    fn a_closed_loop_with_an_idle_server_is_the_generators_limit() {
        let cpu = |busiest_s| Cpu { busiest_s, ..Cpu::default() };
        let saturated = |busiest_s, server_busy| {
            Saturation::of_loop(cpu(busiest_s), server_busy, 2.0).map(|found| found.to_string())
        };
        assert!(saturated(1.99, Some(0.5)).unwrap().contains("the server for 50 %"));
        assert_eq!(saturated(1.99, Some(0.97)), None);
        assert_eq!(saturated(1.0, Some(0.5)), None);
        // Nobody says that the server was not waiting.
        assert!(saturated(1.99, None).unwrap().contains("--server-pid"));
        assert_eq!(saturated(1.9, None), None);
    }
}
