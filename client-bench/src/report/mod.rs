//! Results for people and for machines.

pub mod files;
mod page;
mod plot;

use crate::{
    latency::Percentiles,
    load::Outcome,
    machine,
    workflow::RunReport,
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

impl Outcome {
    /// What is of one phase.
    fn lines_of_phase(&self) -> Vec<(&'static str, String)> {
        let us = |value: Option<f64>| value.map_or("unknown".into(), |us| format!("{us:.2} us"));
        let cores =
            |value: Option<f64>| value.map_or("unknown".into(), |cores| format!("{cores:.2}"));
        let mut lines = vec![("messages a second", format!("{:.0}", self.messages_per_s))];
        if self.acknowledgement.count > self.durable_acknowledgement.count {
            lines.push(("acknowledgement", line(&self.acknowledgement)));
        }
        if self.durable_acknowledgement.count > 0 {
            lines.push(("durable acknowledgement", line(&self.durable_acknowledgement)));
        }
        if self.delivery.count > 0 {
            lines.push(("delivery", line(&self.delivery)));
        }
        if self.service.count > 0 {
            lines.push(("service time", line(&self.service)));
        }
        if self.returning.count > 0 {
            lines.push((
                "coming back",
                format!("{} times, {}", self.returning.count, line(&self.returning)),
            ));
        }
        if self.lag.count > 0 {
            lines.push(("lag of this tool", line(&self.lag)));
        }
        lines.extend([
            ("server CPU a message", us(self.server_cpu_us_per_message)),
            ("machine CPU a message", us(Some(self.machine_cpu_us_per_message))),
            ("cores: server", cores(self.server_cores)),
            ("cores: this tool", cores(Some(self.generator_cores))),
        ]);
        if let Some(saturated) = self.saturated {
            lines.push(("INVALID", format!("generator saturated: result invalid ({saturated})")));
        } else if self.has_a_tail_of_its_own() {
            let lag = time(self.lag.p999_us);
            lines.push(("take care", format!("p99.9 is this tool's too: it was {lag} late there")));
        }
        lines
    }

    /// What is of the whole run.
    fn lines_of_run(&self) -> Vec<(&'static str, String)> {
        let totals = &self.totals;
        let mut lines = vec![(
            "checked",
            format!(
                "{} sent; {} lost, {} unanswered, {} twice, {} out of order, {} gaps, {} corrupt; \
                     {} put off; {} connections broke",
                totals.sent,
                totals.losses,
                totals.unanswered,
                totals.duplicates,
                totals.order_breaks,
                totals.gaps,
                totals.corrupt,
                totals.put_off,
                totals.broken
            ),
        )];
        if !self.is_correct() {
            lines.push(("INVALID", "not every message arrived once, whole and in order".into()));
        }
        lines
    }
}

impl Report for Outcome {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = self.lines_of_phase();
        lines.extend(self.lines_of_run());
        lines
    }

    fn valid(&self) -> bool {
        self.saturated.is_none() && self.is_correct()
    }
}

impl Report for RunReport {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("scenario", self.scenario.name.clone())];
        let short = self.rounds.iter().any(|round| round.interrupted);
        if short {
            lines.push(("interrupted", "this is what there is".into()));
        }
        if self.rounds.len() > 1 {
            lines.push((
                "rounds",
                spread(self.rounds.iter().map(|round| round.outcome.messages_per_s)),
            ));
        }
        // All phases of the round in the middle; the last is told whole.
        let middle = self.middle();
        lines.push(("logging in", line(&middle.opening)));
        let several = middle.phases.len() > 1;
        for phase in middle.phases.iter().filter(|_| several) {
            lines.push(("phase", phase.name.clone()));
            lines.extend(phase.lines_of_phase());
        }
        if several {
            lines.push(("whole run", String::new()));
            lines.extend(self.outcome.lines_of_run());
        } else {
            lines.extend(self.outcome.lines());
        }
        for error in &middle.errors {
            lines.push(("error", error.clone()));
        }
        let batches = self.risen.get("committer batches").max(1) as f64;
        let commands = self.risen.get("committer commands") as f64;
        lines.push((
            "a batch of the store",
            format!(
                "{:.1} commands, {:.1} rows; {:.1} commands a sync",
                commands / batches,
                self.risen.get("committer rows") as f64 / batches,
                commands / self.risen.get("committer syncs").max(1) as f64
            ),
        ));
        for (name, rise) in &self.risen.0 {
            lines.push(("counter", format!("{rise:>12} {name}")));
        }
        lines
    }

    fn valid(&self) -> bool {
        self.rounds
            .iter()
            .all(|round| round.outcome.is_correct() && round.phases.iter().all(Report::valid))
    }
}

/// Median and range.
fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    format!(
        "{}: {:.0} messages/s, {:.0} to {:.0}",
        sorted.len(),
        sorted[(sorted.len() - 1) / 2],
        sorted[0],
        sorted[sorted.len() - 1]
    )
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
            ("a perfect acknowledgement", line(&self.perfect)),
        ]
    }
}

/// Percentiles in one line.
pub fn line(latency: &Percentiles) -> String {
    let [p50, p90, p99, p999, max] =
        [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us].map(time);
    format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}")
}

/// Day and time of a second since 1970, in UTC.
fn date(unix_s: u64) -> String {
    let (mut day, second) = (unix_s / 86_400, unix_s % 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(400) || (year.is_multiple_of(4) && !year.is_multiple_of(100))
    };
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{:02} UTC", day + 1, second % 60)
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

#[cfg(test)]
mod tests;
