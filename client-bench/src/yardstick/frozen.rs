//! A relay that stands still for a second while messages are meant for it at a known rate: what
//! the load tool should then report can be computed, so the tool itself is measured (P14).

use super::relay_epoll;
use crate::{
    dialect, interrupt,
    load::{self, Outcome, Plan, Unwatched},
    machine,
    report::{Report, line},
    schedule::Drive,
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

const PAIRS: usize = 50;
const RATE: f64 = 500.0;
const SECONDS: f64 = 4.0;
/// Messages of a run.
const MESSAGES: u64 = (RATE * SECONDS) as u64;
/// The relay stands still so long after it began, for so long.
const AFTER: Duration = Duration::from_millis(1_500);
const FREEZE: Duration = Duration::from_secs(1);

/// What was reported, and what should have been.
#[derive(Clone, Debug, Serialize)]
pub struct Freeze {
    /// How long the relay stood still, by its own clock.
    pub frozen_s: f64,
    pub figures: Vec<Figure>,
    pub outcome: Outcome,
}

/// A percentile of delivery.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    pub quantile: f64,
    pub reported_us: f64,
    pub computed_us: f64,
}

impl Figure {
    fn error(self) -> f64 {
        (self.reported_us / self.computed_us - 1.0).abs()
    }
}

impl Freeze {
    /// The largest relative error of the figures.
    pub fn error(&self) -> f64 {
        self.figures.iter().map(|figure| figure.error()).fold(0.0, f64::max)
    }
}

/// Runs the load on a relay that freezes, the relay on `core` if one is given.
///
/// # Errors
/// The load fails, or ended before the relay froze.
pub fn measure(core: Option<usize>) -> Result<Freeze> {
    let done = Arc::new(AtomicBool::new(false));
    let (told, address) = mpsc::channel();
    let relay = thread::spawn({
        let done = done.clone();
        move || freeze(core, &told, &done)
    });
    let server = address.recv().context("the relay did not start")?;
    let measured = Duration::from_secs_f64(SECONDS);
    let plan =
        Plan { server, ..Plan::steady(PAIRS, Drive::Rate(RATE), 64, Duration::ZERO, measured) };
    let result = load::run(plan, rand::random(), dialect::Relay::default(), &mut Unwatched);
    done.store(true, Ordering::Relaxed);
    let frozen = relay.join().ok().context("the relay failed")??;
    let outcome = result?.0.outcome().context("nothing was measured")?;
    ensure!(!interrupt::requested(), "interrupted");
    let count = outcome.delivery.count;
    ensure!(count == MESSAGES, "{count} messages were delivered instead of {MESSAGES}");
    let frozen_s = frozen.context("the relay never froze")?.as_secs_f64();
    // A message meant for the freeze waits for its end: of those, evenly spread, a fraction q
    // waited no longer than q times the freeze. All others took next to nothing.
    let computed_us = |quantile: f64| 1e6 * (frozen_s - (1.0 - quantile) * SECONDS);
    let delivery = outcome.delivery;
    let reported = [(0.9, delivery.p90_us), (0.99, delivery.p99_us), (0.999, delivery.p999_us)];
    let figures = reported.map(|(quantile, reported_us)| Figure {
        quantile,
        reported_us,
        computed_us: computed_us(quantile),
    });
    Ok(Freeze { frozen_s, figures: figures.into(), outcome })
}

/// Relays until `done`, and says how long it stood still.
fn freeze(
    core: Option<usize>,
    told: &mpsc::Sender<SocketAddr>,
    done: &AtomicBool,
) -> Result<Option<Duration>> {
    if let Some(core) = core {
        machine::pin(core)?;
    }
    let mut relay = relay_epoll::Relay::listen()?;
    told.send(relay.address()?)?;
    let begun = Instant::now();
    let mut frozen = None;
    while !done.load(Ordering::Relaxed) {
        relay.turn(Some(Duration::from_millis(5)))?;
        if frozen.is_none() && begun.elapsed() > AFTER {
            let from = Instant::now();
            thread::sleep(FREEZE);
            frozen = Some(from.elapsed());
        }
    }
    Ok(frozen)
}

impl Report for Freeze {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("the relay stood still", format!("{:.3} s", self.frozen_s))];
        for figure in &self.figures {
            lines.push((
                "percentile",
                format!(
                    "{}: reported {:.1} ms, computed {:.1} ms, {:.2} % off",
                    100.0 * figure.quantile,
                    figure.reported_us / 1e3,
                    figure.computed_us / 1e3,
                    100.0 * figure.error()
                ),
            ));
        }
        lines.push(("lag of this tool", line(&self.outcome.lag)));
        lines
    }

    fn valid(&self) -> bool {
        self.outcome.is_correct()
    }
}
