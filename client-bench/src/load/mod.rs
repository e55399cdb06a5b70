//! The load that Starling and its yardsticks are measured with: pairs of connections, one of
//! which writes to the other, and idle ones beside them. One thread, which turns between waiting,
//! reading, sending what is due, and one write for every connection that has something to say.

mod comings;
mod flight;
mod measured;
mod outcome;
mod pair;
mod plan;
mod sending;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub use measured::sample;
pub use measured::{Measured, Progress, Second};
pub use outcome::{Outcome, Saturation};
pub use plan::{Phase, Plan, Receivers};

use crate::{
    clock::{Clock, NS_PER_MS, ns},
    content::MIN_PAYLOAD_BYTES,
    dialect::{Dialect, Side},
    interrupt,
    link::{Link, Received, Scratch},
    machine::{Cpu, Threads},
    poller::Poller,
    schedule::{Drive, Schedule},
};
use anyhow::{Context, Result, anyhow, ensure};
use comings::Comings;
use pair::{Listener, Pair};
use std::time::Duration;

/// A server that moves nothing for so long has failed.
const PATIENCE_NS: u64 = 30 * 1_000 * NS_PER_MS;
/// How long stragglers are waited for after the run, from the last one that came.
const DRAIN_NS: u64 = 5 * 1_000 * NS_PER_MS;
/// Peers that talk are ticked this often, idle ones in so many parts.
const TICK_NS: u64 = 100 * NS_PER_MS;
const IDLE_PARTS: usize = 8;
/// A sleep ends some tens of microseconds late, in a virtual machine more; so so long before a
/// message is due nothing sleeps any more.
const AWAKE_NS: u64 = 100_000;
/// Links that may wait to be written to.
const FLUSHED_AT_ONCE: usize = 1_024;

/// Who looks on while a load runs.
pub trait Watcher {
    /// All are connected and have their first message; the first phase begins once this says so.
    fn may_begin(&mut self) -> Result<bool> {
        Ok(true)
    }

    /// Called some times a second.
    fn progress(&mut self, _progress: &Progress) -> Result<()> {
        Ok(())
    }

    /// The phase with this place in the plan is over, and the next has not begun.
    fn phase_ended(&mut self, _index: usize) -> Result<()> {
        Ok(())
    }
}

/// Nobody looks on.
pub struct Unwatched;

impl Watcher for Unwatched {}

/// The load.
struct Load<'w, D: Dialect, W: Watcher> {
    dialect: D,
    watcher: &'w mut W,
    plan: Plan,
    clock: Clock,
    poller: Poller,
    scratch: Scratch,
    /// Connection `2p` sends for pair `p`, `2p + 1` receives; behind them the idle ones. None: it
    /// is not connected just now.
    members: Vec<Option<Member<D::Peer>>>,
    pairs: Vec<Pair>,
    comings: Comings,
    dirty: Vec<usize>,
    /// Senders that were given messages of the schedule, and when each was meant to go out.
    given_to: Vec<(usize, u64)>,
    payload: Vec<u8>,
    /// What a peer says unasked.
    said: Vec<u8>,
    measured: Measured,
    next_tick_ns: u64,
    /// Which part of the idle ones is ticked next.
    idle_part: usize,
    schedule: Option<Schedule>,
    /// Messages of the schedule that were given to their pairs.
    given: u64,
    /// The phase, or what comes before the phases, ends here.
    end_ns: u64,
    /// All were connected once.
    started: bool,
    running: bool,
}

struct Member<P> {
    link: Link,
    peer: P,
}

/// Runs `plan` and says what was measured; gives the dialect back.
///
/// # Errors
/// Not all connections get ready, or a first message does not arrive. What goes wrong later is
/// counted.
pub fn run<D: Dialect, W: Watcher>(
    plan: Plan,
    run_id: u64,
    dialect: D,
    watcher: &mut W,
) -> Result<(Measured, D)> {
    ensure!(plan.connections() > 0, "no connections");
    ensure!(
        plan.payload_bytes >= MIN_PAYLOAD_BYTES,
        "a payload has at least {MIN_PAYLOAD_BYTES} bytes, or it could not be checked"
    );
    // A sleep of the kernel's usual slack would be lag of this tool.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    let limit = plan.phases.iter().map(|phase| phase.drive.in_flight()).max().unwrap_or(1);
    let mut load = Load {
        clock: Clock::start(),
        poller: Poller::new()?,
        scratch: Scratch::default(),
        members: Vec::with_capacity(plan.connections()),
        pairs: (0..plan.pairs).map(|pair| Pair::new(run_id, pair, limit)).collect(),
        comings: Comings::new(&plan),
        dirty: Vec::new(),
        given_to: Vec::new(),
        payload: Vec::new(),
        said: Vec::new(),
        measured: Measured::default(),
        next_tick_ns: 0,
        idle_part: 0,
        schedule: None,
        given: 0,
        end_ns: u64::MAX,
        started: false,
        running: false,
        dialect,
        watcher,
        plan,
    };
    load.connect()?;
    load.started = true;
    load.first_messages()?;
    while !load.watcher.may_begin()? && !interrupt::requested() {
        load.turn(load.clock.now_ns() + TICK_NS)?;
    }
    load.running = true;
    for index in 0..load.plan.phases.len() {
        if !interrupt::requested() {
            load.phase(index)?;
            load.watcher.phase_ended(index)?;
        }
    }
    load.drain()?;
    Ok(load.finish())
}

fn side_of(connection: usize) -> Side {
    if connection.is_multiple_of(2) { Side::Sender } else { Side::Receiver }
}

impl<D: Dialect, W: Watcher> Load<'_, D, W> {
    /// One message in every pair, so that each conversation is there.
    fn first_messages(&mut self) -> Result<()> {
        for pair in 0..self.plan.pairs {
            let now = self.clock.now_ns();
            self.pairs[pair].due.push_back(now);
            self.pump(pair, now);
        }
        let mut moved_ns = self.clock.now_ns();
        let mut before = 0;
        while self.pairs.iter().any(|pair| !pair.flights.all_landed()) {
            self.turn(self.clock.now_ns() + TICK_NS)?;
            let now = self.clock.now_ns();
            if self.measured.totals.delivered > before {
                (before, moved_ns) = (self.measured.totals.delivered, now);
            }
            ensure!(now < moved_ns + PATIENCE_NS, "first messages do not arrive");
            ensure!(!interrupt::requested(), "interrupted before anything was measured");
        }
        Ok(())
    }

    /// Runs the phase at `index` of the plan.
    fn phase(&mut self, index: usize) -> Result<()> {
        let phase = self.plan.phases[index].clone();
        let start_ns = self.clock.now_ns();
        self.end_ns = start_ns + ns(phase.lasts);
        self.measured.begin_phase(&phase, start_ns..self.end_ns);
        let begun = Cpu::now(self.plan.server_pid)?;
        let threads = self.plan.server_pid.map(Threads::now).transpose()?;
        self.receivers(&phase)?;
        self.comings.churn(start_ns, phase.churn_per_s);
        self.given = 0;
        self.schedule = match phase.drive {
            Drive::Rate(rate) => Some(Schedule::new(start_ns, rate, self.plan.pairs)),
            Drive::Rest | Drive::Window(_) => None,
        };
        for pair in 0..self.pairs.len() {
            self.pairs[pair].flights.set_limit(phase.drive.in_flight());
            self.pairs[pair].unasked = matches!(phase.drive, Drive::Window(_));
            self.pump(pair, start_ns);
        }
        while self.clock.now_ns() < self.end_ns {
            self.turn(self.end_ns)?;
            if interrupt::requested() || self.all_broke() {
                self.measured.interrupted = true;
                self.end_ns = self.end_ns.min(self.clock.now_ns());
            }
        }
        let cpu = Cpu::now(self.plan.server_pid).map_or(Cpu::default(), |now| now.since(begun));
        let seconds = (self.clock.now_ns() - start_ns) as f64 / 1e9;
        let server_busy =
            self.plan.server_pid.zip(threads).and_then(|(pid, before)| {
                Some(Threads::now(pid).ok()?.busy_since(&before, seconds))
            });
        // A schedule is sent to its last message; a closed loop just stops.
        self.give_due(self.end_ns)?;
        self.come_and_go(self.end_ns)?;
        self.measured.end_phase(self.end_ns, cpu, server_busy);
        self.schedule = None;
        self.comings.churn(0, 0.0);
        self.pairs.iter_mut().for_each(|pair| pair.unasked = false);
        Ok(())
    }

    /// Every pair lost its sender: the server is gone.
    fn all_broke(&self) -> bool {
        !self.pairs.is_empty() && self.pairs.iter().all(|pair| pair.broken)
    }

    /// Cools down: all receivers come back and read, and what is on its way arrives.
    fn drain(&mut self) -> Result<()> {
        self.receivers(&Phase::new("cool-down", Duration::ZERO, Drive::Rest))?;
        let mut moved_ns = self.clock.now_ns();
        let mut before = 0;
        let landed = |pair: &Pair| pair.broken || pair.flights.all_landed() && pair.due.is_empty();
        while !self.pairs.iter().all(landed) || self.comings.missing() > 0 {
            self.turn(self.clock.now_ns() + TICK_NS)?;
            let now = self.clock.now_ns();
            let missing = self.comings.missing() as u64;
            let done = self.measured.totals.delivered + self.measured.totals.acknowledged;
            let done = done.saturating_sub(missing);
            if done > before {
                (before, moved_ns) = (done, now);
            }
            if now > moved_ns + DRAIN_NS {
                break;
            }
        }
        // The cursors too, so that the devices need not hear all this again.
        let end_ms = self.clock.now_ns() / NS_PER_MS + 2_000;
        for index in 0..self.members.len() {
            let Some(Member { link, peer }) = &mut self.members[index] else { continue };
            self.dialect.tick(peer, end_ms, link.out());
            // Who is gone by now need not know.
            let _ = link.flush(&self.poller, index);
        }
        Ok(())
    }

    fn finish(self) -> (Measured, D) {
        let Load { mut measured, dialect, pairs, .. } = self;
        for pair in &pairs {
            let (lost, unanswered) = pair.flights.missing();
            measured.totals.losses += lost;
            measured.totals.unanswered += unanswered;
        }
        measured.close_second();
        (measured, dialect)
    }

    /// Waits for something to happen, at the longest until `until_ns`, and does it.
    fn turn(&mut self, until_ns: u64) -> Result<()> {
        let now = self.clock.now_ns();
        let mut wake_ns = until_ns.min(self.next_tick_ns);
        let next = self.schedule.map(|schedule| schedule.intended_ns(self.given));
        if let Some(next_ns) = next.filter(|next_ns| *next_ns < self.end_ns) {
            wake_ns = wake_ns.min(next_ns.saturating_sub(AWAKE_NS));
        }
        wake_ns = wake_ns.min(self.comings.next_ns());
        // What is put off waits on the tick.
        let timeout = Duration::from_nanos(wake_ns.saturating_sub(now));
        let timeout = if self.dirty.is_empty() { timeout } else { Duration::ZERO };
        let count = self.poller.wait(Some(timeout))?;
        self.send_due()?;
        for position in 0..count {
            let ready = self.poller.ready(position);
            if ready.writable {
                self.touch(ready.index);
            }
            if ready.readable {
                self.receive(ready.index)?;
                self.send_due()?;
            }
        }
        let now = self.clock.now_ns();
        self.come_and_go(now)?;
        if now >= self.next_tick_ns {
            self.tick(now)?;
        }
        self.flush()
    }

    fn receive(&mut self, index: usize) -> Result<()> {
        let Some(Member { link, peer }) = &mut self.members[index] else { return Ok(()) };
        let now_ns = self.clock.now_ns();
        let mut listener = Listener {
            pair: self.pairs.get_mut(index / 2),
            measured: &mut self.measured,
            ready: false,
            now_ns,
        };
        let dialect = &mut self.dialect;
        let received = link
            .receive(&mut self.scratch, |bytes, out| dialect.read(peer, bytes, out, &mut listener));
        let ready = listener.ready;
        if link.has_output() {
            self.touch(index);
        } else if index >= 2 * self.plan.pairs {
            link.slim();
        }
        match received {
            Ok(Received::Bytes) => {}
            Ok(Received::Nothing) => return Ok(()),
            Ok(Received::End) => return self.broke(index, anyhow!("the server closed")),
            Err(error) => return self.broke(index, error),
        }
        if ready {
            self.became_ready(index, now_ns);
        }
        if index < 2 * self.plan.pairs && self.started {
            let pair = &mut self.pairs[index / 2];
            if pair.may_rejoin && pair.flights.caught_up() {
                pair.may_rejoin = false;
                pair.flights.set_apart(false);
            }
            self.pump(index / 2, now_ns);
        }
        Ok(())
    }

    fn tick(&mut self, now_ns: u64) -> Result<()> {
        self.next_tick_ns = now_ns + TICK_NS;
        let talking = 2 * self.plan.pairs;
        let idle = self.members.len().saturating_sub(talking);
        let part = |number: usize| talking + idle * number / IDLE_PARTS;
        let idle_now = part(self.idle_part)..part(self.idle_part + 1);
        self.idle_part = (self.idle_part + 1) % IDLE_PARTS;
        for index in (0..talking.min(self.members.len())).chain(idle_now) {
            let Some(Member { link, peer }) = &mut self.members[index] else { continue };
            self.dialect.tick(peer, now_ns / NS_PER_MS, &mut self.said);
            if !self.said.is_empty() {
                link.out().append(&mut self.said);
                self.touch(index);
            }
            if self.dirty.len() >= FLUSHED_AT_ONCE {
                self.flush()?;
            }
        }
        for pair in 0..self.pairs.len() {
            if self.pairs[pair].was_put_off() {
                self.pump(pair, now_ns);
            }
        }
        if self.running {
            self.measured.pass(now_ns);
        }
        let progress = self.measured.progress(&self.plan, self.comings.missing(), now_ns);
        self.watcher.progress(&progress)
    }

    fn touch(&mut self, index: usize) {
        if let Some(Member { link, .. }) = &mut self.members[index]
            && !std::mem::replace(&mut link.queued, true)
        {
            self.dirty.push(index);
        }
    }

    fn flush(&mut self) -> Result<()> {
        let mut next = 0;
        while next < self.dirty.len() {
            let index = self.dirty[next];
            next += 1;
            if let Some(Member { link, .. }) = &mut self.members[index] {
                link.queued = false;
            }
            self.flush_link(index)?;
            self.send_due()?;
        }
        self.dirty.clear();
        Ok(())
    }

    fn flush_link(&mut self, index: usize) -> Result<()> {
        let Some(Member { link, .. }) = &mut self.members[index] else { return Ok(()) };
        let flushed = link.flush(&self.poller, index);
        if index >= 2 * self.plan.pairs {
            link.slim();
        }
        flushed.or_else(|error| self.broke(index, error.into()))
    }

    /// Connection `index` is gone. Before the phases that ends the run; in them it is counted.
    fn broke(&mut self, index: usize, error: anyhow::Error) -> Result<()> {
        let error = error.context(format!("connection {index}"));
        if !self.running {
            return Err(error).context("not all connections get ready");
        }
        self.measured.broke(&error);
        self.members[index] = None;
        match self.pairs.get_mut(index / 2) {
            Some(pair) if side_of(index) == Side::Sender => pair.give_up(),
            _ => self.comings.later(index, self.clock.now_ns()),
        }
        Ok(())
    }
}
