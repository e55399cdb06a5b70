//! A scenario as it is written in a file; what it leaves out has its default here.

use super::Scenario;
use crate::{
    dialect::Class,
    load::{Phase, Receivers},
    schedule::Drive,
};
use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use starling_codec::limits;
use std::time::Duration;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    pairs: usize,
    #[serde(default)]
    idle: usize,
    /// Who writes to whom. There are no groups yet.
    #[serde(default)]
    traffic: Traffic,
    #[serde(default = "payload_bytes")]
    payload_bytes: usize,
    #[serde(default = "class")]
    class: Class,
    #[serde(default = "heartbeat_s")]
    heartbeat_s: (u32, u32),
    connect_per_s: Option<f64>,
    #[serde(default)]
    phases: Vec<WrittenPhase>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Traffic {
    #[default]
    Pairs,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPhase {
    name: String,
    seconds: f64,
    #[serde(default = "measured")]
    measured: bool,
    /// Open loop: messages a second over all pairs.
    rate: Option<f64>,
    /// Closed loop: messages in flight in every pair.
    window: Option<u32>,
    #[serde(default)]
    churn_per_s: f64,
    #[serde(default)]
    receivers: Receivers,
    #[serde(default = "share")]
    share: f64,
}

fn payload_bytes() -> usize {
    128
}

fn class() -> Class {
    Class::Durable
}

fn heartbeat_s() -> (u32, u32) {
    (limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S)
}

fn measured() -> bool {
    true
}

fn share() -> f64 {
    1.0
}

/// Reads and validates.
pub fn parse(text: &str) -> Result<Scenario> {
    let written: Written = toml::from_str(text)?;
    let Traffic::Pairs = written.traffic;
    let phases = written.phases.into_iter().map(phase).collect::<Result<_>>()?;
    let scenario = Scenario {
        name: written.name,
        description: written.description,
        pairs: written.pairs,
        idle: written.idle,
        payload_bytes: written.payload_bytes,
        class: written.class,
        heartbeat_s: written.heartbeat_s,
        connect_per_s: written.connect_per_s,
        phases,
    };
    scenario.validate()?;
    Ok(scenario)
}

fn phase(written: WrittenPhase) -> Result<Phase> {
    let WrittenPhase { name, seconds, measured, rate, window, churn_per_s, receivers, share } =
        written;
    let drive = match (rate, window) {
        (Some(_), Some(_)) => bail!("{name}: a phase has a rate or a window, not both"),
        (Some(rate), None) => Drive::Rate(rate),
        (None, Some(window)) => Drive::Window(window),
        (None, None) => Drive::Rest,
    };
    let lasts = Duration::try_from_secs_f64(seconds);
    ensure!(lasts.is_ok(), "{name}: it cannot last {seconds} s");
    Ok(Phase {
        name,
        lasts: lasts.unwrap_or_default(),
        measured,
        drive,
        churn_per_s,
        receivers,
        share,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let scenario =
            parse("name = 'a'\npairs = 2\n[[phases]]\nname = 'p'\nseconds = 1.5").unwrap();
        assert_eq!(scenario.class, Class::Durable);
        assert_eq!(scenario.payload_bytes, 128);
        let [phase] = &scenario.phases[..] else { panic!("{scenario:?}") };
        assert_eq!((phase.lasts, phase.drive), (Duration::from_millis(1_500), Drive::Rest));
        assert!(phase.measured && phase.receivers == Receivers::Reading);
    }

    #[test]
    fn what_is_no_scenario_is_refused_with_a_word() {
        let phase = "name = 'a'\npairs = 2\n[[phases]]\nname = 'p'\nseconds = 1\n";
        for (text, word) in [
            ("name = 'a'".to_owned(), "neither pairs nor idle"),
            (format!("{phase}rate = 5\nwindow = 1"), "not both"),
            (format!("{phase}receivers = 'asleep'"), "asleep"),
            (format!("{phase}speed = 5"), "speed"),
            (format!("traffic = 'groups'\n{phase}"), "groups"),
            (phase.replace("= 1", "= -1"), "cannot last"),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
