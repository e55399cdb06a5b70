//! What a person sees while a load runs: a bar with rate, errors and the time left; without a
//! terminal a line every few seconds.

use super::sampler::Sampler;
use crate::load::{Plan, Progress, Watcher};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

const BAR: &str = "{msg:<28} {bar:30} {prefix}";
/// Between two lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub struct Watch<'a> {
    names: Vec<String>,
    total: Duration,
    connections: usize,
    bar: ProgressBar,
    lines: bool,
    next_line: Instant,
    last: (Instant, u64),
    per_s: f64,
    sampler: &'a Sampler,
}

impl<'a> Watch<'a> {
    pub fn new(plan: &Plan, quiet: bool, sampler: &'a Sampler) -> Watch<'a> {
        let terminal = stderr().is_terminal();
        let target = match terminal && !quiet {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(1_000), target);
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style);
        }
        let now = Instant::now();
        Watch {
            names: plan.phases.iter().map(|phase| phase.name.clone()).collect(),
            total: plan.lasts(),
            connections: plan.connections(),
            bar,
            lines: !terminal && !quiet,
            next_line: now + LINE_EVERY,
            last: (now, 0),
            per_s: 0.0,
            sampler,
        }
    }

    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn describe(&self, progress: &Progress) -> (String, String, f64) {
        let Some(phase) = progress.phase else {
            let part = progress.connected as f64 / self.connections.max(1) as f64;
            let of = format!("{} of {}", progress.connected, self.connections);
            return ("connecting".into(), of, part);
        };
        let total_s = self.total.as_secs_f64();
        let left_s = (total_s - progress.elapsed_s).max(0.0);
        let name = self.names.get(phase).map_or("", String::as_str);
        let what = format!("{}/{} {name}", phase + 1, self.names.len());
        let how =
            format!("{:.0} messages/s, {} errors, {left_s:.0} s left", self.per_s, progress.errors);
        (what, how, progress.elapsed_s / total_s.max(1e-9))
    }
}

impl Watcher for Watch<'_> {
    fn progress(&mut self, progress: &Progress) -> Result<()> {
        if progress.phase.is_some() {
            self.sampler.start();
        }
        let (then, delivered) = self.last;
        let span_s = then.elapsed().as_secs_f64();
        if span_s >= 0.5 {
            self.per_s = progress.delivered.saturating_sub(delivered) as f64 / span_s;
            self.last = (Instant::now(), progress.delivered);
        }
        let (what, how, part) = self.describe(progress);
        if self.lines && Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_EVERY;
            eprintln!("{what}: {how}");
        }
        self.bar.set_position((1e3 * part) as u64);
        self.bar.set_message(what);
        self.bar.set_prefix(how);
        Ok(())
    }
}
