//! The usual scenarios, made from a few flags.

use super::Scenario;
use crate::{
    dialect::Class,
    load::{Phase, Receivers},
    schedule::Drive,
};
use clap::Args;
use starling_codec::limits;
use std::time::Duration;

/// Pairs that are driven one way: a warm-up if it is not empty, then the measured time.
pub fn pairs(
    pairs: usize,
    drive: Drive,
    payload_bytes: usize,
    class: Class,
    [warmup, measured]: [Duration; 2],
) -> Scenario {
    let mut phases = vec![Phase::new("measured", measured, drive)];
    if !warmup.is_zero() {
        phases.insert(0, Phase::new("warm-up", warmup, drive).unmeasured());
    }
    Scenario {
        name: "pair".into(),
        description: "Pairs of users, one of whom writes to the other.".into(),
        pairs,
        idle: 0,
        payload_bytes,
        class,
        heartbeat_s: (limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S),
        connect_per_s: None,
        phases,
    }
}

/// The flags that all of these have.
#[derive(Clone, Copy, Debug, Args)]
pub struct Common {
    #[arg(long, value_name = "N", default_value_t = 200)]
    pairs: u32,
    /// Messages a second over all pairs.
    #[arg(long, value_name = "R", default_value_t = 2_000.0)]
    rate: f64,
    /// Bytes of a message's payload.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    payload: usize,
    /// What an acknowledgement promises.
    #[arg(long, value_enum, default_value_t = Class::Durable)]
    class: Class,
    /// Time of each measured phase.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
}

impl Common {
    fn scenario(&self, name: &str, description: &str, phases: Vec<Phase>) -> Scenario {
        let nothing = [Duration::ZERO; 2];
        let drive = Drive::Rate(self.rate);
        Scenario {
            name: name.into(),
            description: description.into(),
            phases,
            ..pairs(self.pairs as usize, drive, self.payload, self.class, nothing)
        }
    }

    fn phase(&self, name: &str) -> Phase {
        self.phase_of(name, 1.0, 1.0)
    }

    /// A phase with a part of the rate, and of the time.
    fn phase_of(&self, name: &str, rate: f64, time: f64) -> Phase {
        let lasts = Duration::try_from_secs_f64(time * self.seconds).unwrap_or_default();
        Phase::new(name, lasts, Drive::Rate(rate * self.rate))
    }

    fn warmup(&self) -> Phase {
        self.phase_of("warm-up", 1.0, 0.2).unmeasured()
    }
}

/// Receivers are away while they are written to, then come back and catch up.
#[derive(Clone, Copy, Debug, Args)]
pub struct Sync {
    #[command(flatten)]
    common: Common,
    /// Which part of the receivers is away, 0 to 1.
    #[arg(long, value_name = "PART", default_value_t = 1.0)]
    share: f64,
}

impl Sync {
    pub fn scenario(&self) -> Scenario {
        let away =
            Phase { receivers: Receivers::Away, share: self.share, ..self.common.phase("away") };
        let back = Phase { drive: Drive::Rest, ..self.common.phase("back") };
        let about = "Receivers are away while they are written to, then come back and catch up.";
        self.common.scenario("sync", about, vec![away, back])
    }
}

/// Devices go and come back all the time.
#[derive(Clone, Copy, Debug, Args)]
pub struct Churn {
    #[command(flatten)]
    common: Common,
    /// Devices that only beat their hearts.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    idle: usize,
    /// Goings and comings back a second.
    #[arg(long, value_name = "R", default_value_t = 200.0)]
    churn: f64,
}

impl Churn {
    pub fn scenario(&self) -> Scenario {
        let churn = Phase { churn_per_s: self.churn, ..self.common.phase("churn") };
        let phases = vec![self.common.warmup(), self.common.phase("calm"), churn];
        let about = "Devices go and come back all the time, while pairs write.";
        Scenario { idle: self.idle, ..self.common.scenario("churn", about, phases) }
    }
}

/// Some receivers stop reading; the others should not notice.
#[derive(Clone, Copy, Debug, Args)]
pub struct SlowReaders {
    #[command(flatten)]
    common: Common,
    /// Which part of the receivers stops reading, 0 to 1.
    #[arg(long, value_name = "PART", default_value_t = 0.01)]
    share: f64,
}

impl SlowReaders {
    pub fn scenario(&self) -> Scenario {
        let stuck = Phase {
            receivers: Receivers::Stuck,
            share: self.share,
            ..self.common.phase("some do not read")
        };
        let phases = vec![self.common.warmup(), self.common.phase("all read"), stuck];
        let about = "Some receivers stop reading; the others should not notice.";
        self.common.scenario("slow-readers", about, phases)
    }
}

/// A day in minutes: quiet night, people come in the morning, bursts at noon and in the evening.
#[derive(Clone, Copy, Debug, Args)]
pub struct Mixed {
    #[command(flatten)]
    common: Common,
    /// Devices that only beat their hearts.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    idle: usize,
    /// Goings and comings back a second, in the morning and in the evening.
    #[arg(long, value_name = "R", default_value_t = 200.0)]
    churn: f64,
}

impl Mixed {
    pub fn scenario(&self) -> Scenario {
        let day = &self.common;
        let churn = |part: f64, phase: Phase| Phase { churn_per_s: part * self.churn, ..phase };
        let tunnel = Phase {
            receivers: Receivers::Away,
            share: 0.1,
            ..churn(1.0, day.phase_of("commute", 0.5, 1.0))
        };
        let phases = vec![
            day.phase_of("night", 0.05, 0.5),
            churn(1.0, day.phase_of("morning", 0.4, 1.0)),
            tunnel,
            day.phase_of("work", 0.6, 1.0),
            day.phase_of("noon", 1.0, 0.5),
            churn(0.3, day.phase_of("afternoon", 0.6, 1.0)),
            day.phase_of("evening", 1.0, 1.0),
            // Midnight, New Year: everybody writes at once.
            day.phase_of("burst", 2.0, 0.2),
            churn(0.5, day.phase_of("late", 0.2, 0.5)),
        ];
        let about = "A day in minutes: idle devices, heartbeats, bursts, comings and goings.";
        Scenario { idle: self.idle, ..day.scenario("mixed", about, phases) }
    }
}
