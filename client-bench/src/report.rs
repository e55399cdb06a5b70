//! Results for people and for machines.

use crate::{
    latency::Percentiles,
    load::Outcome,
    machine,
    yardstick::{fsync::Fsync, idle::Idle},
};
use anyhow::Result;
use serde::Serialize;

/// A result that can be shown.
pub trait Report: Serialize {
    /// Lines of a label and a value.
    fn lines(&self) -> Vec<(&'static str, String)>;

    /// May it be believed?
    fn valid(&self) -> bool {
        true
    }

    /// Prints it and says whether it may be believed.
    fn print(&self, json: bool) -> Result<bool> {
        if json {
            println!("{}", serde_json::to_string(self)?);
        } else {
            for (label, value) in self.lines() {
                println!("{label:<26} {value}");
            }
        }
        Ok(self.valid())
    }
}

impl Report for Outcome {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let us = |value: Option<f64>| value.map_or("unknown".into(), |us| format!("{us:.2} us"));
        let cores =
            |value: Option<f64>| value.map_or("unknown".into(), |cores| format!("{cores:.2}"));
        let mut lines = vec![
            ("messages a second", format!("{:.0}", self.messages_per_s)),
            ("acknowledgement", line(&self.acknowledgement)),
            ("delivery", line(&self.delivery)),
            ("service time", line(&self.service)),
        ];
        if self.lag.count > 0 {
            lines.push(("lag of this tool", line(&self.lag)));
        }
        lines.extend([
            ("server CPU a message", us(self.server_cpu_us_per_message)),
            ("machine CPU a message", us(Some(self.machine_cpu_us_per_message))),
            ("cores: server", cores(self.server_cores)),
            ("cores: this tool", cores(Some(self.generator_cores))),
            (
                "checked",
                format!(
                    "{} sent; {} lost, {} unanswered, {} twice, {} out of order, {} gaps, {} corrupt; \
                     {} put off",
                    self.sent,
                    self.losses,
                    self.unanswered,
                    self.duplicates,
                    self.order_breaks,
                    self.gaps,
                    self.corrupt,
                    self.put_off
                ),
            ),
        ]);
        if let Some(saturated) = self.saturated {
            lines.push(("INVALID", format!("generator saturated: result invalid ({saturated:?})")));
        }
        if !self.is_correct() {
            lines.push(("INVALID", "not every message arrived once, whole and in order".into()));
        }
        lines
    }

    fn valid(&self) -> bool {
        self.saturated.is_none() && self.is_correct()
    }
}

impl Report for Idle {
    fn lines(&self) -> Vec<(&'static str, String)> {
        vec![
            ("connections", self.connections.to_string()),
            (
                "kernel slab a connection",
                match self.client_slab_bytes_per_connection {
                    None => format!("{:.0} B, both ends", self.slab_bytes_per_connection),
                    Some(client) => format!(
                        "{:.0} B, both ends; {client:.0} B at the end that connected",
                        self.slab_bytes_per_connection
                    ),
                },
            ),
            ("holder PSS a connection", format!("{:.0} B", self.pss_bytes_per_connection)),
        ]
    }
}

impl Report for Fsync {
    fn lines(&self) -> Vec<(&'static str, String)> {
        vec![
            ("syncs a second", format!("{:.0} of {} B", self.syncs_per_s, self.bytes)),
            ("write and fdatasync", line(&self.latency)),
        ]
    }
}

/// Percentiles in one line.
pub fn line(latency: &Percentiles) -> String {
    let [p50, p90, p99, p999, max] =
        [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us].map(time);
    format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}")
}

fn time(us: f64) -> String {
    match us {
        1e6.. => format!("{:.2} s", us / 1e6),
        1e3.. => format!("{:.2} ms", us / 1e3),
        _ => format!("{us:.0} us"),
    }
}

/// A core for the server and one for the load; none if there is only one.
pub fn two_cores() -> Result<(Option<usize>, Option<usize>)> {
    Ok(match machine::cores()?[..] {
        [server, load, ..] => (Some(server), Some(load)),
        _ => (None, None),
    })
}

/// Keeps this thread on a core, if there is one to choose.
pub fn on_core(core: Option<usize>) -> Result<()> {
    core.map_or(Ok(()), machine::pin)
}
