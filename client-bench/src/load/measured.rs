//! What a load counted: raw, so that the parts of a load on several processes or machines add up
//! to what one would have counted.

use super::{
    flight::Flight,
    plan::{Phase, Plan},
};
use crate::{clock::NS_PER_S, latency::Latencies, machine::Cpu};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Errors that are told word by word.
const ERRORS_TOLD: usize = 5;

/// Counts and latencies of a load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    pub phases: Vec<PhaseMeasured>,
    pub totals: Totals,
    /// What happened in each second since the first phase began.
    pub series: Vec<Second>,
    /// From connecting, or from when it was meant to connect, to being ready: the first time.
    pub opening: Latencies,
    /// Ended before its time.
    pub interrupted: bool,
    /// The first errors of connections.
    pub errors: Vec<String>,
    #[serde(skip)]
    now: Now,
}

/// The second that is being filled.
#[derive(Clone, Debug, Default)]
struct Now {
    start_ns: u64,
    second: Second,
    delivery: Latencies,
}

/// Of the whole load. Messages are checked in all of it, not in the measured phases alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub sent: u64,
    // An outcome has fields of its own with these names.
    #[serde(rename = "acknowledged_in_all")]
    pub acknowledged: u64,
    #[serde(rename = "delivered_in_all")]
    pub delivered: u64,
    /// Acknowledged, never delivered.
    pub losses: u64,
    pub unanswered: u64,
    pub duplicates: u64,
    pub order_breaks: u64,
    pub gaps: u64,
    pub corrupt: u64,
    /// Retryable refusals.
    pub put_off: u64,
    pub repeated_acks: u64,
    /// Connections that broke after they were ready.
    pub broken: u64,
}

/// Of one phase: latencies of messages meant for it, rates of what happened in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhaseMeasured {
    pub phase: Phase,
    pub window_ns: Range<u64>,
    pub cpu: Cpu,
    /// 1: the server could do no more. None: its process is not known.
    pub server_busy: Option<f64>,
    pub acknowledged: u64,
    pub delivered: u64,
    /// From the time a message was meant to be sent to an answer; to one that says it is on disk.
    pub acknowledgement: Latencies,
    pub durable: Latencies,
    pub delivery: Latencies,
    /// From the time it was sent.
    pub service: Latencies,
    /// How late the tool itself was.
    pub lag: Latencies,
    /// From connecting to having caught up, of those that came back.
    pub returning: Latencies,
}

/// One second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    pub sent: u64,
    pub acknowledged: u64,
    pub delivered: u64,
    pub returned: u64,
    pub errors: u64,
    /// Of messages delivered in it, from when they were meant to be sent.
    pub delivery: Option<Latencies>,
}

impl Measured {
    pub fn begin_phase(&mut self, phase: &Phase, window_ns: Range<u64>) {
        if self.phases.is_empty() {
            self.now = Now { start_ns: window_ns.start, ..Now::default() };
        }
        self.phases.push(PhaseMeasured {
            phase: phase.clone(),
            window_ns,
            cpu: Cpu::default(),
            server_busy: None,
            acknowledged: 0,
            delivered: 0,
            acknowledgement: Latencies::default(),
            durable: Latencies::default(),
            delivery: Latencies::default(),
            service: Latencies::default(),
            lag: Latencies::default(),
            returning: Latencies::default(),
        });
    }

    pub fn end_phase(&mut self, now_ns: u64, cpu: Cpu, server_busy: Option<f64>) {
        if let Some(phase) = self.phases.last_mut() {
            phase.window_ns.end = phase.window_ns.end.min(now_ns);
            (phase.cpu, phase.server_busy) = (cpu, server_busy);
        }
    }

    /// Closes the seconds before `now_ns`.
    pub fn pass(&mut self, now_ns: u64) {
        while !self.phases.is_empty() && now_ns >= self.now.start_ns + NS_PER_S {
            self.close_second();
        }
    }

    /// Closes the second that is not full.
    pub fn close_second(&mut self) {
        let mut second = std::mem::take(&mut self.now.second);
        if self.now.delivery.count() > 0 {
            second.delivery = Some(self.now.delivery.clone());
            self.now.delivery.clear();
        }
        self.series.push(second);
        self.now.start_ns += NS_PER_S;
    }

    /// The phase that a message meant for `intended_ns` belongs to.
    fn phase_at(&mut self, at_ns: u64) -> Option<&mut PhaseMeasured> {
        self.phases.iter_mut().rev().find(|phase| phase.window_ns.contains(&at_ns))
    }

    pub fn sent(&mut self) {
        self.totals.sent += 1;
        self.now.second.sent += 1;
    }

    /// A message of the schedule was given out at `now_ns`.
    pub fn late(&mut self, intended_ns: u64, now_ns: u64) {
        if let Some(phase) = self.phase_at(intended_ns) {
            phase.lag.record(now_ns.saturating_sub(intended_ns));
        }
    }

    pub fn acknowledged(&mut self, flight: Flight, durable: bool, now_ns: u64) {
        self.totals.acknowledged += 1;
        self.now.second.acknowledged += 1;
        if let Some(phase) = self.phase_at(now_ns) {
            phase.acknowledged += 1;
        }
        if let Some(phase) = self.phase_at(flight.intended_ns) {
            let latency_ns = now_ns.saturating_sub(flight.intended_ns);
            phase.acknowledgement.record(latency_ns);
            if durable {
                phase.durable.record(latency_ns);
            }
            phase.service.record(now_ns.saturating_sub(flight.sent_ns));
        }
    }

    /// A message came. Its latency is known, and means something, if `flight` is given.
    pub fn delivered(&mut self, flight: Option<Flight>, now_ns: u64) {
        self.totals.delivered += 1;
        self.now.second.delivered += 1;
        if let Some(phase) = self.phase_at(now_ns) {
            phase.delivered += 1;
        }
        let Some(flight) = flight else { return };
        let latency_ns = now_ns.saturating_sub(flight.intended_ns);
        if let Some(phase) = self.phase_at(flight.intended_ns) {
            phase.delivery.record(latency_ns);
            self.now.delivery.record(latency_ns);
        }
    }

    /// A connection is ready, so long after it was begun.
    pub fn opened(&mut self, latency_ns: u64) {
        match self.phases.last_mut() {
            Some(phase) => {
                phase.returning.record(latency_ns);
                self.now.second.returned += 1;
            }
            None => self.opening.record(latency_ns),
        }
    }

    /// A connection broke.
    pub fn broke(&mut self, error: &anyhow::Error) {
        self.totals.broken += 1;
        self.now.second.errors += 1;
        if self.errors.len() < ERRORS_TOLD {
            self.errors.push(format!("{error:#}"));
        }
    }

    /// Adds another part of the same load.
    pub fn merge(&mut self, other: Measured) {
        for (own, others) in self.phases.iter_mut().zip(&other.phases) {
            own.merge(others);
        }
        // One that was interrupted may not have come as far.
        let known = self.phases.len();
        self.phases.extend(other.phases.into_iter().skip(known));
        self.totals.merge(other.totals);
        let seconds = self.series.len().max(other.series.len());
        self.series.resize_with(seconds, Second::default);
        for (own, others) in self.series.iter_mut().zip(&other.series) {
            own.merge(others);
        }
        self.opening.merge(&other.opening);
        self.interrupted |= other.interrupted;
        self.errors.extend(other.errors);
        self.errors.truncate(ERRORS_TOLD);
    }
}

impl PhaseMeasured {
    /// Of another part of the same load, at the same time.
    fn merge(&mut self, other: &PhaseMeasured) {
        // Each part has a clock of its own; what counts is how long it was.
        let lasted = other.window_ns.end - other.window_ns.start;
        self.window_ns.end = self.window_ns.end.max(self.window_ns.start + lasted);
        self.cpu.merge(other.cpu);
        self.server_busy = self.server_busy.or(other.server_busy);
        self.add(other);
    }

    /// Of another phase of the same load, as if it had followed at once.
    pub fn append(&mut self, other: &PhaseMeasured) {
        self.window_ns.end += other.window_ns.end - other.window_ns.start;
        self.cpu = self.cpu.plus(other.cpu);
        self.add(other);
    }

    fn add(&mut self, other: &PhaseMeasured) {
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        let PhaseMeasured { acknowledgement, durable, delivery, service, lag, returning, .. } =
            self;
        acknowledgement.merge(&other.acknowledgement);
        durable.merge(&other.durable);
        delivery.merge(&other.delivery);
        service.merge(&other.service);
        lag.merge(&other.lag);
        returning.merge(&other.returning);
    }

    pub fn seconds(&self) -> f64 {
        (self.window_ns.end - self.window_ns.start) as f64 / 1e9
    }
}

impl Totals {
    fn merge(&mut self, other: Totals) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.losses += other.losses;
        self.unanswered += other.unanswered;
        self.duplicates += other.duplicates;
        self.order_breaks += other.order_breaks;
        self.gaps += other.gaps;
        self.corrupt += other.corrupt;
        self.put_off += other.put_off;
        self.repeated_acks += other.repeated_acks;
        self.broken += other.broken;
    }

    /// Every message arrived once, whole and in order.
    pub fn are_correct(&self) -> bool {
        let Totals { losses, unanswered, duplicates, order_breaks, gaps, corrupt, broken, .. } =
            self;
        losses + unanswered + duplicates + order_breaks + gaps + corrupt + broken == 0
    }
}

impl Second {
    fn merge(&mut self, other: &Second) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.returned += other.returned;
        self.errors += other.errors;
        match (&mut self.delivery, &other.delivery) {
            (Some(own), Some(others)) => own.merge(others),
            (own @ None, Some(others)) => *own = Some(others.clone()),
            (_, None) => {}
        }
    }
}

/// Progress of a load, for whoever watches.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Of the phases; none yet while connecting.
    pub phase: Option<usize>,
    pub elapsed_s: f64,
    pub connected: usize,
    pub sent: u64,
    pub delivered: u64,
    pub errors: u64,
}

impl Measured {
    pub fn progress(&self, plan: &Plan, missing: usize, now_ns: u64) -> Progress {
        let begun_ns = self.phases.first().map_or(now_ns, |phase| phase.window_ns.start);
        let Totals { losses, duplicates, order_breaks, gaps, corrupt, broken, .. } = self.totals;
        Progress {
            phase: self.phases.len().checked_sub(1),
            elapsed_s: now_ns.saturating_sub(begun_ns) as f64 / 1e9,
            connected: plan.connections() - missing,
            sent: self.totals.sent,
            delivered: self.totals.delivered,
            errors: losses + duplicates + order_breaks + gaps + corrupt + broken,
        }
    }
}

/// Two seconds of a made-up load of a message a millisecond, in a phase of this name, and one that
/// was interrupted behind it.
#[cfg(test)]
pub fn sample(phase: &str) -> Measured {
    use crate::schedule::Drive;
    use std::time::Duration;
    let mut measured = Measured::default();
    let phase = Phase::new(phase, Duration::from_secs(2), Drive::Rate(1_000.0));
    measured.begin_phase(&phase, 0..2 * NS_PER_S);
    for k in 0..2_000 {
        let intended_ns = k * 1_000_000;
        measured.pass(intended_ns);
        measured.sent();
        measured.late(intended_ns, intended_ns + 1_000);
        let flight = Flight { intended_ns, sent_ns: intended_ns + 1_000, ..Flight::default() };
        measured.acknowledged(flight, k.is_multiple_of(2), intended_ns + 200_000 + 10 * k);
        measured.delivered(Some(flight), intended_ns + 300_000 + 100 * k);
    }
    measured.opened(5_000_000);
    measured.close_second();
    measured.end_phase(2 * NS_PER_S, Cpu { server_s: Some(0.5), ..Cpu::default() }, Some(0.25));
    measured
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Drive;
    use std::time::Duration;

    /// What happened to message `k` of a made-up load.
    fn note(measured: &mut Measured, k: u64) {
        let flight =
            Flight { intended_ns: k * 1_000_000, sent_ns: k * 1_000_000 + 5, ..Flight::default() };
        measured.sent();
        measured.late(flight.intended_ns, flight.sent_ns);
        measured.acknowledged(
            flight,
            k.is_multiple_of(2),
            flight.intended_ns + 1_000 * (k % 97 + 1),
        );
        measured.delivered(Some(flight), flight.intended_ns + 1_500 * (k % 89 + 1));
    }

    #[test]
    fn what_one_part_did_after_another_was_interrupted_is_kept() {
        let mut parts = [begun(), begun()];
        let second = Phase::new("second", Duration::from_secs(1), Drive::Rate(1_000.0));
        parts[1].begin_phase(&second, 3 * NS_PER_S..4 * NS_PER_S);
        note(&mut parts[0], 7);
        note(&mut parts[1], 3_500);
        let [one, two] = parts;
        for (mut whole, other) in [(one.clone(), two.clone()), (two, one)] {
            whole.merge(other);
            let counts: Vec<u64> =
                whole.phases.iter().map(|phase| phase.delivery.count()).collect();
            assert_eq!(counts, [1, 1]);
        }
    }

    fn begun() -> Measured {
        let mut measured = Measured::default();
        let phase = Phase::new("all", Duration::from_secs(3), Drive::Rate(1_000.0));
        measured.begin_phase(&phase, 0..3 * NS_PER_S);
        measured
    }

    #[test]
    fn parts_that_went_over_the_wire_add_up_to_the_whole_without_loss() {
        let mut whole = begun();
        let mut parts = [begun(), begun(), begun()];
        for k in 0..3_000 {
            let now_ns = k * 1_000_000;
            whole.pass(now_ns);
            parts.iter_mut().for_each(|part| part.pass(now_ns));
            note(&mut whole, k);
            note(&mut parts[k as usize % 3], k);
        }
        whole.close_second();
        let mut merged = Measured::default();
        for mut part in parts {
            part.close_second();
            let line = serde_json::to_string(&part).unwrap();
            merged.merge(serde_json::from_str(&line).unwrap());
        }
        assert_eq!(merged.totals, whole.totals);
        assert_eq!(merged.series.len(), whole.series.len());
        let (one, all) = (&merged.phases[0], &whole.phases[0]);
        assert_eq!(one.delivery.histogram(), all.delivery.histogram());
        assert_eq!(one.durable.histogram(), all.durable.histogram());
        assert_eq!(one.lag.histogram(), all.lag.histogram());
        for (one, all) in merged.series.iter().zip(&whole.series) {
            let histogram = |second: &Second| second.delivery.clone().map(|all| all.percentiles());
            assert_eq!(histogram(one), histogram(all));
            assert_eq!(one.sent, all.sent);
        }
    }
}
