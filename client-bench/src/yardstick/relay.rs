//! Y2: a relay in a process of its own, and the load on it.

use crate::{
    arguments::Variant,
    dialect::Relay,
    fleet::{self, Crew},
    load::{self, Outcome, Plan, Unwatched},
    process::Helper,
    scenario::Scenario,
    storm::{self, Storm, StormPlan},
};
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::{net::SocketAddr, time::Duration};

/// A relay that runs.
pub struct RelayServer {
    helper: Helper,
    address: SocketAddr,
}

impl RelayServer {
    pub fn start(variant: Variant, core: Option<usize>) -> Result<RelayServer> {
        let variant =
            variant.to_possible_value().map_or_else(String::new, |value| value.get_name().into());
        let arguments = ["yardstick", "relay", "--serve", "--variant", &variant];
        let (helper, address) = Helper::role(&arguments, core)?;
        Ok(RelayServer { helper, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.helper.pid()
    }

    /// How fast it takes connections: accepted, named and told so.
    pub fn storm(&self, connections: usize, measured: Duration) -> Result<Storm> {
        let plan = StormPlan {
            server: self.address,
            server_pid: Some(self.pid()),
            sources: Vec::new(),
            connections,
            per_process: usize::MAX,
            rate: None,
            measured,
        };
        Ok(storm::run(Relay::default(), &plan, |_, _| {})?.0)
    }

    /// Runs `scenario` against it, shared by several processes.
    pub fn measure_with(&self, crew: &Crew, scenario: &Scenario) -> Result<Outcome> {
        let pid = Some(self.pid());
        let measured = fleet::run(crew, scenario, self.address, pid, None, None, &mut Unwatched)?;
        measured.outcome().context("interrupted before anything was measured")
    }

    /// Runs `plan` against it.
    pub fn measure(&self, plan: &Plan) -> Result<Outcome> {
        let plan = Plan { server: self.address, server_pid: Some(self.pid()), ..plan.clone() };
        let (measured, _) = load::run(plan, rand::random(), Relay::default(), &mut Unwatched)?;
        measured.outcome().context("interrupted before anything was measured")
    }
}
