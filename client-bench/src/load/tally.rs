//! What a run counted, and whether it may be believed.

use super::{
    Plan,
    flight::{Flight, Flights},
};
use crate::{
    clock::ns,
    latency::{Latencies, Percentiles},
    machine::Cpu,
    schedule::Drive,
};
use serde::Serialize;
use std::ops::Range;

/// Counts and latencies of a run.
#[derive(Default)]
pub struct Tally {
    /// Messages meant for this time are measured.
    pub window_ns: Range<u64>,
    pub next_tick_ns: u64,
    /// Of the whole run.
    pub sent: u64,
    pub delivered: u64,
    pub repeated_acks: u64,
    pub duplicates: u64,
    pub order_breaks: u64,
    pub gaps: u64,
    pub corrupt: u64,
    pub put_off: u64,
    /// In the measured time.
    pub cpu: Cpu,
    acknowledged_inside: u64,
    delivered_inside: u64,
    acknowledgement: Latencies,
    delivery: Latencies,
    service: Latencies,
    lag: Latencies,
}

impl Tally {
    /// A message of the schedule was given out at `now_ns`.
    pub fn late(&mut self, intended_ns: u64, now_ns: u64) {
        if self.window_ns.contains(&intended_ns) {
            self.lag.record(now_ns.saturating_sub(intended_ns));
        }
    }

    pub fn acknowledged(&mut self, flight: Flight, now_ns: u64) {
        self.acknowledged_inside += u64::from(self.window_ns.contains(&now_ns));
        if self.window_ns.contains(&flight.intended_ns) {
            self.acknowledgement.record(now_ns.saturating_sub(flight.intended_ns));
            self.service.record(now_ns.saturating_sub(flight.sent_ns));
        }
    }

    pub fn delivered(&mut self, flight: Flight, now_ns: u64) {
        self.delivered += 1;
        self.delivered_inside += u64::from(self.window_ns.contains(&now_ns));
        if self.window_ns.contains(&flight.intended_ns) {
            self.delivery.record(now_ns.saturating_sub(flight.intended_ns));
        }
    }

    pub fn outcome<'a>(self, plan: &Plan, flights: impl Iterator<Item = &'a Flights>) -> Outcome {
        let seconds = plan.measured.as_secs_f64();
        let (losses, unanswered) = flights.fold((0, 0), |(lost, unanswered), flights| {
            let missing = flights.missing();
            (lost + missing.0, unanswered + missing.1)
        });
        let per_message_us = |cpu_s: f64| 1e6 * cpu_s / self.delivered_inside.max(1) as f64;
        Outcome {
            pairs: plan.pairs,
            seconds,
            sent: self.sent,
            acknowledged: self.acknowledged_inside,
            delivered: self.delivered_inside,
            messages_per_s: self.delivered_inside as f64 / seconds,
            acknowledgement: self.acknowledgement.percentiles(),
            delivery: self.delivery.percentiles(),
            service: self.service.percentiles(),
            lag: self.lag.percentiles(),
            losses,
            unanswered,
            duplicates: self.duplicates,
            order_breaks: self.order_breaks,
            gaps: self.gaps,
            corrupt: self.corrupt,
            put_off: self.put_off,
            repeated_acks: self.repeated_acks,
            server_cpu_us_per_message: self.cpu.server_s.map(per_message_us),
            machine_cpu_us_per_message: per_message_us(self.cpu.machine_s),
            server_cores: self.cpu.server_s.map(|cpu_s| cpu_s / seconds),
            generator_cores: self.cpu.own_s / seconds,
            saturated: Saturation::of(plan, &self.lag, &self.acknowledgement)
                .or_else(|| Saturation::of_loop(plan.drive, self.cpu, seconds)),
        }
    }
}

/// What a run measured. Latencies are of messages meant for the measured time, rates of what
/// happened in it; losses, duplicates and breaks of order are of the whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub pairs: usize,
    pub seconds: f64,
    pub sent: u64,
    pub acknowledged: u64,
    pub delivered: u64,
    pub messages_per_s: f64,
    /// From the time a message was meant to be sent.
    pub acknowledgement: Percentiles,
    pub delivery: Percentiles,
    /// From the time it was sent to its acknowledgement.
    pub service: Percentiles,
    /// How late the tool itself was.
    pub lag: Percentiles,
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
    pub server_cpu_us_per_message: Option<f64>,
    pub machine_cpu_us_per_message: f64,
    pub server_cores: Option<f64>,
    pub generator_cores: f64,
    /// Present: the generator was saturated, so the result is invalid.
    pub saturated: Option<Saturation>,
}

impl Outcome {
    /// Every message arrived once, whole and in order.
    pub fn is_correct(&self) -> bool {
        let Outcome { losses, unanswered, duplicates, order_breaks, gaps, corrupt, .. } = self;
        losses + unanswered + duplicates + order_breaks + gaps + corrupt == 0
    }
}

/// How the tool fell short of its own schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Saturation {
    /// Its own lag, at the 99th percentile, is a good part of what it measures.
    Lag { lag_p99_us: f64, acknowledgement_p99_us: f64 },
    /// A closed loop whose server waits for the generator.
    Busy { generator_cores: f64, server_cores: f64 },
}

/// A lag below this is the machine's own noise.
const LAG_FLOOR_NS: u64 = 1_000_000;

impl Saturation {
    /// An open loop is saturated when the tool gives out messages so late that its lag is more
    /// than a tenth of the latency it reports, or than the whole measured time.
    fn of(plan: &Plan, lag: &Latencies, acknowledgement: &Latencies) -> Option<Saturation> {
        let Drive::Rate(_) = plan.drive else { return None };
        let (lag, acknowledgement) = (lag.at(0.99), acknowledgement.at(0.99));
        let late = lag > acknowledgement / 10 || lag > ns(plan.measured);
        (lag > LAG_FLOOR_NS && late).then_some(Saturation::Lag {
            lag_p99_us: lag as f64 / 1e3,
            acknowledgement_p99_us: acknowledgement as f64 / 1e3,
        })
    }

    /// A closed loop measures the server only as long as the server is the busier of the two.
    /// What a message costs in processor time holds either way.
    fn of_loop(drive: Drive, cpu: Cpu, seconds: f64) -> Option<Saturation> {
        let (Drive::Window(_), Some(server_s)) = (drive, cpu.server_s) else { return None };
        let (generator_cores, server_cores) = (cpu.own_s / seconds, server_s / seconds);
        (generator_cores > 0.97 && server_cores < 0.9)
            .then_some(Saturation::Busy { generator_cores, server_cores })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn latencies(ns: u64) -> Latencies {
        let mut latencies = Latencies::default();
        latencies.record(ns);
        latencies
    }

    #[test]
    fn a_late_generator_invalidates_what_it_measured() {
        let plan = |drive| Plan {
            server: ([127, 0, 0, 1], 1).into(),
            pairs: 1,
            drive,
            payload_bytes: 64,
            warmup: Duration::ZERO,
            measured: Duration::from_secs(2),
            server_pid: None,
        };
        let open = &plan(Drive::Rate(10.0));
        let ms = 1_000_000;
        assert!(Saturation::of(open, &latencies(2_001 * ms), &latencies(90_000 * ms)).is_some());
        assert!(Saturation::of(open, &latencies(50 * ms), &latencies(60 * ms)).is_some());
        assert!(Saturation::of(open, &latencies(50 * ms), &latencies(900 * ms)).is_none());
        assert!(Saturation::of(open, &latencies(ms / 2), &latencies(ms / 2)).is_none());
        assert!(
            Saturation::of(&plan(Drive::Window(1)), &latencies(50 * ms), &latencies(ms)).is_none()
        );
    }

    #[test]
    fn a_closed_loop_with_an_idle_server_is_the_generators_limit() {
        let cpu = |own_s, server_s| Cpu { machine_s: 4.0, own_s, server_s };
        let closed = Drive::Window(16);
        assert!(Saturation::of_loop(closed, cpu(1.99, Some(1.0)), 2.0).is_some());
        assert!(Saturation::of_loop(closed, cpu(1.99, Some(1.95)), 2.0).is_none());
        assert!(Saturation::of_loop(closed, cpu(1.0, Some(1.0)), 2.0).is_none());
        assert!(Saturation::of_loop(closed, cpu(1.99, None), 2.0).is_none());
    }
}
