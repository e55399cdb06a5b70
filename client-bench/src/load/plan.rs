//! What a load is to do: connections, and phases one after the other.

use crate::{schedule::Drive, sources::Sources};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub server: SocketAddr,
    pub sources: Sources,
    /// Connections `2p` and `2p + 1` are the sender and the receiver of pair `p`.
    pub pairs: usize,
    /// Connections behind the pairs' that only beat their hearts.
    pub idle: usize,
    pub payload_bytes: usize,
    /// Connections opened a second; none: as fast as the server lets them.
    pub connect_per_s: Option<f64>,
    pub phases: Vec<Phase>,
    /// Whose processor time is measured.
    pub server_pid: Option<u32>,
}

/// A stretch of time in which nothing of the plan changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    pub lasts: Duration,
    /// Its latencies and rates are a result.
    pub measured: bool,
    pub drive: Drive,
    /// Receivers and idle devices that go and come back, a second.
    pub churn_per_s: f64,
    pub receivers: Receivers,
    /// Which part of the receivers that concerns, 0 to 1: the last ones.
    pub share: f64,
}

/// What receivers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Receivers {
    #[default]
    Reading,
    /// They are connected and read nothing.
    Stuck,
    /// They are not connected.
    Away,
}

impl Phase {
    /// All receivers read, nobody goes or comes.
    pub fn new(name: &str, lasts: Duration, drive: Drive) -> Phase {
        Phase {
            name: name.into(),
            lasts,
            measured: true,
            drive,
            churn_per_s: 0.0,
            receivers: Receivers::Reading,
            share: 0.0,
        }
    }

    /// So that the load is already there when measuring begins.
    pub fn unmeasured(self) -> Phase {
        Phase { measured: false, ..self }
    }

    /// The pairs of `pairs` whose receivers do something else than read.
    pub fn apart(&self, pairs: usize) -> usize {
        match self.receivers {
            Receivers::Reading => 0,
            Receivers::Stuck | Receivers::Away => (self.share * pairs as f64).round() as usize,
        }
    }
}

impl Plan {
    /// Pairs that are driven one way: a warm-up if it is not empty, then the measured time.
    pub fn steady(
        pairs: usize,
        drive: Drive,
        payload_bytes: usize,
        warmup: Duration,
        measured: Duration,
    ) -> Plan {
        let mut phases = vec![Phase::new("measured", measured, drive)];
        if !warmup.is_zero() {
            phases.insert(0, Phase::new("warm-up", warmup, drive).unmeasured());
        }
        Plan {
            // The server's own address takes the place of this.
            server: SocketAddr::from(([127, 0, 0, 1], 0)),
            sources: Sources::default(),
            pairs,
            idle: 0,
            payload_bytes,
            connect_per_s: None,
            phases,
            server_pid: None,
        }
    }

    pub fn connections(&self) -> usize {
        2 * self.pairs + self.idle
    }

    /// Time of all phases.
    pub fn lasts(&self) -> Duration {
        self.phases.iter().map(|phase| phase.lasts).sum()
    }
}
