//! Pairs of connections, one of which writes to the other: the load that Starling and its
//! yardsticks are measured with. One thread, which turns between waiting, reading, sending what
//! is due, and one write for every connection that has something to say.

mod flight;
mod tally;

pub use tally::Outcome;

use crate::{
    clock::{Clock, NS_PER_MS, ns},
    content::{Contents, MIN_PAYLOAD_BYTES},
    dialect::{Dialect, Ear, Side},
    link::{Link, Received, Scratch, source_of},
    machine::Cpu,
    poller::{Poller, Watch},
    schedule::{Drive, Schedule},
};
use anyhow::{Context, Result, bail, ensure};
use flight::Flights;
use std::{net::SocketAddr, time::Duration};
use tally::Tally;

/// Connections that may be on their way to be ready at once.
const OPENING_AT_ONCE: usize = 256;
/// A server that moves nothing for so long has failed.
const PATIENCE_NS: u64 = 30 * 1_000 * NS_PER_MS;
/// How long stragglers are waited for after the run, from the last one that came.
const DRAIN_NS: u64 = 5 * 1_000 * NS_PER_MS;
/// Peers are ticked this often.
const TICK_NS: u64 = 100 * NS_PER_MS;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    pub server: SocketAddr,
    pub pairs: usize,
    pub drive: Drive,
    pub payload_bytes: usize,
    pub warmup: Duration,
    pub measured: Duration,
    /// Whose processor time is measured.
    pub server_pid: Option<u32>,
}

/// A sender, a receiver, and what is between them.
struct Pair {
    contents: Contents,
    flights: Flights,
    /// Messages that the schedule has asked for.
    due: u64,
    /// The next to go out, again if it was put off; below `flights.next` only then.
    transmit: u64,
    held_until_ns: u64,
    /// What the receiver must see next.
    expected: u64,
}

/// The load.
struct Load<D: Dialect> {
    dialect: D,
    plan: Plan,
    clock: Clock,
    poller: Poller,
    scratch: Scratch,
    /// Connection `2p` sends for pair `p`, `2p + 1` receives.
    links: Vec<Link>,
    peers: Vec<D::Peer>,
    pairs: Vec<Pair>,
    dirty: Vec<usize>,
    payload: Vec<u8>,
    ready: usize,
    tally: Tally,
    schedule: Option<Schedule>,
    /// Sending stops here.
    end_ns: u64,
    /// Messages of the schedule that were given to their pairs.
    given: u64,
}

/// Runs `plan` and says what was measured; gives the dialect back.
///
/// # Errors
/// The server breaks the protocol, closes, refuses for good, or stands still.
pub fn run<D: Dialect>(plan: Plan, run_id: u64, dialect: D) -> Result<(Outcome, D)> {
    ensure!(plan.pairs > 0, "no pairs");
    ensure!(
        plan.payload_bytes >= MIN_PAYLOAD_BYTES,
        "a payload has at least {MIN_PAYLOAD_BYTES} bytes, or it could not be checked"
    );
    // A sleep of the kernel's usual slack would be lag of this tool.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    let mut load = Load {
        clock: Clock::start(),
        poller: Poller::new()?,
        scratch: Scratch::default(),
        links: Vec::with_capacity(2 * plan.pairs),
        peers: Vec::with_capacity(2 * plan.pairs),
        pairs: (0..plan.pairs)
            .map(|pair| Pair {
                contents: Contents::new(run_id, pair),
                flights: Flights::new(plan.drive),
                due: 0,
                transmit: 0,
                held_until_ns: 0,
                expected: 0,
            })
            .collect(),
        dirty: Vec::new(),
        payload: Vec::new(),
        ready: 0,
        tally: Tally::default(),
        schedule: None,
        end_ns: 0,
        given: 0,
        dialect,
        plan,
    };
    load.connect()?;
    load.first_messages()?;
    load.steady()?;
    load.drain()?;
    let Load { mut dialect, peers, pairs, tally, plan, .. } = load;
    for (index, peer) in peers.iter().enumerate() {
        dialect.close(index / 2, side_of(index), peer);
    }
    let flights = pairs.iter().map(|pair| &pair.flights);
    Ok((tally.outcome(&plan, flights), dialect))
}

fn side_of(connection: usize) -> Side {
    if connection.is_multiple_of(2) { Side::Sender } else { Side::Receiver }
}

impl<D: Dialect> Load<D> {
    fn connect(&mut self) -> Result<()> {
        let all = 2 * self.plan.pairs;
        let mut moved_ns = self.clock.now_ns();
        while self.ready < all {
            while self.links.len() < all && self.links.len() - self.ready < OPENING_AT_ONCE {
                self.open(self.links.len())?;
            }
            let before = self.ready;
            self.turn(self.clock.now_ns() + TICK_NS)?;
            let now = self.clock.now_ns();
            if self.ready > before {
                moved_ns = now;
            }
            ensure!(now < moved_ns + PATIENCE_NS, "{} of {all} connections got ready", self.ready);
        }
        Ok(())
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let server = self.plan.server;
        let mut link = Link::connect(server, source_of(server, index))
            .with_context(|| format!("cannot connect to {server}"))?;
        self.peers.push(self.dialect.open(index / 2, side_of(index), &mut link.out));
        self.poller.add(link.stream(), index, Watch::Read)?;
        self.links.push(link);
        self.touch(index);
        Ok(())
    }

    /// One message in every pair, so that each conversation is there.
    fn first_messages(&mut self) -> Result<()> {
        for pair in 0..self.plan.pairs {
            self.pairs[pair].due = 1;
            self.pump(pair, self.clock.now_ns());
        }
        let mut moved_ns = self.clock.now_ns();
        let mut before = 0;
        while self.pairs.iter().any(|pair| !pair.flights.all_landed()) {
            self.turn(self.clock.now_ns() + TICK_NS)?;
            let now = self.clock.now_ns();
            if self.tally.delivered > before {
                (before, moved_ns) = (self.tally.delivered, now);
            }
            ensure!(now < moved_ns + PATIENCE_NS, "first messages do not arrive");
        }
        Ok(())
    }

    fn steady(&mut self) -> Result<()> {
        let start_ns = self.clock.now_ns();
        let warm_ns = start_ns + ns(self.plan.warmup);
        self.end_ns = warm_ns + ns(self.plan.measured);
        self.tally.window_ns = warm_ns..self.end_ns;
        if let Drive::Rate(rate) = self.plan.drive {
            self.schedule = Some(Schedule::new(start_ns, rate, self.plan.pairs));
        } else {
            for pair in 0..self.plan.pairs {
                self.pairs[pair].due = u64::MAX;
                self.pump(pair, start_ns);
            }
        }
        let pid = self.plan.server_pid;
        while self.clock.now_ns() < warm_ns {
            self.turn(warm_ns)?;
        }
        let begun = Cpu::now(pid)?;
        while self.clock.now_ns() < self.end_ns {
            self.turn(self.end_ns)?;
        }
        self.tally.cpu = Cpu::now(pid)?.since(begun);
        // A schedule is sent to its last message; a closed loop just stops.
        self.give_due(self.end_ns);
        if self.schedule.is_none() {
            for pair in &mut self.pairs {
                pair.due = pair.flights.next();
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        let mut moved_ns = self.clock.now_ns();
        let mut before = self.tally.delivered;
        let landed = |pair: &Pair| pair.flights.all_landed() && pair.flights.next() == pair.due;
        while !self.pairs.iter().all(landed) {
            self.turn(self.clock.now_ns() + TICK_NS)?;
            let now = self.clock.now_ns();
            if self.tally.delivered > before {
                (before, moved_ns) = (self.tally.delivered, now);
            }
            if now > moved_ns + DRAIN_NS {
                break;
            }
        }
        // The cursors too, so that the devices need not hear all this again.
        let end = self.clock.now_ns() + 2_000 * NS_PER_MS;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            self.dialect.tick(peer, end / NS_PER_MS, &mut self.links[index].out);
            self.links[index].flush(&self.poller, index)?;
        }
        Ok(())
    }

    /// Waits for something to happen, at the longest until `until_ns`, and does it.
    fn turn(&mut self, until_ns: u64) -> Result<()> {
        let now = self.clock.now_ns();
        let mut wake_ns = until_ns.min(self.tally.next_tick_ns);
        let next = self.schedule.map(|schedule| schedule.intended_ns(self.given));
        if let Some(next_ns) = next.filter(|next_ns| *next_ns < self.end_ns) {
            wake_ns = wake_ns.min(next_ns);
        }
        // What is put off waits on the tick.
        let timeout = Duration::from_nanos(wake_ns.saturating_sub(now));
        let timeout = if self.dirty.is_empty() { timeout } else { Duration::ZERO };
        let count = self.poller.wait(Some(timeout))?;
        for position in 0..count {
            let ready = self.poller.ready(position);
            if ready.writable {
                self.touch(ready.index);
            }
            if ready.readable {
                self.receive(ready.index)?;
            }
        }
        let now = self.clock.now_ns();
        self.give_due(now.min(self.end_ns));
        if now >= self.tally.next_tick_ns {
            self.tick(now);
        }
        self.flush()
    }

    fn receive(&mut self, index: usize) -> Result<()> {
        let now_ns = self.clock.now_ns();
        let pair = index / 2;
        let mut listener = Listener {
            pair: &mut self.pairs[pair],
            tally: &mut self.tally,
            ready: &mut self.ready,
            now_ns,
        };
        let (peer, dialect) = (&mut self.peers[index], &mut self.dialect);
        let received = self.links[index]
            .receive(&mut self.scratch, |bytes, out| dialect.read(peer, bytes, out, &mut listener));
        match received.with_context(|| format!("pair {pair}, {:?}", side_of(index)))? {
            Received::Bytes => {}
            Received::Nothing => return Ok(()),
            Received::End => bail!("the server closed a connection of pair {pair}"),
        }
        if !self.links[index].out.is_empty() {
            self.touch(index);
        }
        if self.ready == 2 * self.plan.pairs {
            self.pump(pair, now_ns);
        }
        Ok(())
    }

    /// Gives every message of the schedule up to `until_ns` to its pair.
    fn give_due(&mut self, until_ns: u64) {
        let Some(schedule) = self.schedule else { return };
        loop {
            let intended = schedule.intended_ns(self.given);
            if intended >= self.end_ns || intended > until_ns {
                return;
            }
            let now = self.clock.now_ns();
            self.tally.late(intended, now);
            let pair = schedule.pair_of(self.given);
            self.given += 1;
            self.pairs[pair].due += 1;
            self.pump(pair, now);
        }
    }

    /// Sends what `pair` may send.
    fn pump(&mut self, pair: usize, now_ns: u64) {
        let state = &mut self.pairs[pair];
        if now_ns < state.held_until_ns {
            return;
        }
        let sender = 2 * pair;
        let before = self.links[sender].out.len();
        loop {
            let sequence = state.transmit;
            if sequence == state.flights.next() {
                if sequence >= state.due || !state.flights.has_room() {
                    break;
                }
                // The first message of a pair comes before the schedule.
                let intended = match &self.schedule {
                    Some(schedule) => schedule.intended_of(pair, sequence - 1),
                    None => now_ns,
                };
                state.flights.take_off(intended, now_ns);
                self.tally.sent += 1;
            }
            self.payload.clear();
            state.contents.append(sequence, self.plan.payload_bytes, &mut self.payload);
            let nonce = state.contents.nonce(sequence);
            let (peer, out) = (&mut self.peers[sender], &mut self.links[sender].out);
            self.dialect.send(peer, pair, sequence, nonce, &self.payload, out);
            state.transmit += 1;
        }
        if self.links[sender].out.len() > before {
            self.touch(sender);
        }
    }

    fn tick(&mut self, now_ns: u64) {
        self.tally.next_tick_ns = now_ns + TICK_NS;
        for index in 0..self.peers.len() {
            let out = &mut self.links[index].out;
            self.dialect.tick(&mut self.peers[index], now_ns / NS_PER_MS, out);
            if !out.is_empty() {
                self.touch(index);
            }
        }
        for pair in 0..self.pairs.len() {
            if self.pairs[pair].transmit < self.pairs[pair].flights.next() {
                self.pump(pair, now_ns);
            }
        }
    }

    fn touch(&mut self, index: usize) {
        if !std::mem::replace(&mut self.links[index].queued, true) {
            self.dirty.push(index);
        }
    }

    fn flush(&mut self) -> Result<()> {
        for position in 0..self.dirty.len() {
            let index = self.dirty[position];
            self.links[index].queued = false;
            self.links[index]
                .flush(&self.poller, index)
                .with_context(|| format!("a connection of pair {} broke", index / 2))?;
        }
        self.dirty.clear();
        Ok(())
    }
}

/// Hears for one connection.
struct Listener<'a> {
    pair: &'a mut Pair,
    tally: &'a mut Tally,
    ready: &'a mut usize,
    now_ns: u64,
}

impl Ear for Listener<'_> {
    fn ready(&mut self) {
        *self.ready += 1;
    }

    fn acknowledged(&mut self, sequence: u64) {
        match self.pair.flights.acknowledge(sequence) {
            Some(flight) => self.tally.acknowledged(flight, self.now_ns),
            None => self.tally.repeated_acks += 1,
        }
    }

    fn delivered(&mut self, payload: &[u8]) {
        let Some(sequence) = self.pair.contents.sequence_of(payload) else {
            self.tally.corrupt += 1;
            return;
        };
        match self.pair.flights.deliver(sequence) {
            Some(flight) => {
                self.tally.order_breaks += u64::from(sequence != self.pair.expected);
                self.tally.delivered(flight, self.now_ns);
            }
            None => self.tally.duplicates += 1,
        }
        self.pair.expected = self.pair.expected.max(sequence + 1);
    }

    fn put_off(&mut self, sequence: u64, after_ms: u64) {
        self.tally.put_off += 1;
        self.pair.transmit = self.pair.transmit.min(sequence);
        self.pair.held_until_ns = self.now_ns + after_ms * NS_PER_MS;
    }

    fn gap(&mut self) {
        self.tally.gaps += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::NS_PER_S, dialect, yardstick::relay_epoll};
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
            mpsc,
        },
        thread,
        time::Instant,
    };

    const PAIRS: usize = 50;
    const RATE: f64 = 2_000.0;
    const FREEZE: Duration = Duration::from_secs(1);

    /// A relay that stands still for a while once `after` is over; says from when to when it did.
    fn freezing_relay(
        after: Duration,
        done: Arc<AtomicBool>,
    ) -> (SocketAddr, thread::JoinHandle<(Instant, Instant)>) {
        let (told, address) = mpsc::channel();
        let run = move || {
            let mut relay = relay_epoll::Relay::listen().unwrap();
            told.send(relay.address().unwrap()).unwrap();
            let begun = Instant::now();
            let mut frozen = None;
            while !done.load(Ordering::Relaxed) {
                relay.turn(Some(Duration::from_millis(5))).unwrap();
                if frozen.is_none() && begun.elapsed() > after {
                    let from = Instant::now();
                    thread::sleep(FREEZE);
                    frozen = Some((from, Instant::now()));
                }
            }
            frozen.unwrap()
        };
        let thread = thread::spawn(run);
        (address.recv().unwrap(), thread)
    }

    #[test]
    fn a_frozen_server_is_charged_with_every_message_that_was_meant_for_the_freeze() {
        let done = Arc::new(AtomicBool::new(false));
        let (server, relay) = freezing_relay(Duration::from_millis(1_500), done.clone());
        let plan = Plan {
            server,
            pairs: PAIRS,
            drive: Drive::Rate(RATE),
            payload_bytes: 64,
            warmup: Duration::ZERO,
            measured: Duration::from_secs(4),
            server_pid: None,
        };
        let (outcome, _) = run(plan, 1, dialect::Relay).unwrap();
        done.store(true, Ordering::Relaxed);
        let (from, to) = relay.join().unwrap();
        assert!(outcome.is_correct(), "{outcome:?}");
        assert_eq!(outcome.delivery.count, (4.0 * RATE) as u64);
        // A message meant for the freeze waits for its end: of those, evenly spread, a fraction q
        // waited no longer than q times the freeze. All others took next to nothing.
        let frozen_s = (to - from).as_secs_f64();
        let computed_us = |quantile: f64| 1e6 * (frozen_s - (1.0 - quantile) * 4.0);
        for (quantile, reported_us) in [
            (0.9, outcome.delivery.p90_us),
            (0.99, outcome.delivery.p99_us),
            (0.999, outcome.delivery.p999_us),
        ] {
            let error = (reported_us / computed_us(quantile) - 1.0).abs();
            assert!(error < 0.05, "{quantile}: {reported_us} us, {}", computed_us(quantile));
        }
        // The tool itself kept to its schedule, as far as the machine let it.
        assert!(outcome.lag.p50_us < 1e6 * NS_PER_S as f64);
        assert_eq!(outcome.saturated, None);
    }

    #[test]
    fn a_schedule_that_no_tool_can_keep_is_called_invalid() {
        let done = Arc::new(AtomicBool::new(false));
        let (server, relay) = freezing_relay(Duration::ZERO, done.clone());
        let plan = Plan {
            server,
            pairs: 1,
            // A message a nanosecond.
            drive: Drive::Rate(1e9),
            payload_bytes: 64,
            warmup: Duration::ZERO,
            measured: Duration::from_micros(200),
            server_pid: None,
        };
        let outcome = run(plan, 1, dialect::Relay).map(|(outcome, _)| outcome);
        done.store(true, Ordering::Relaxed);
        relay.join().unwrap();
        let outcome = outcome.unwrap();
        assert!(outcome.saturated.is_some(), "{outcome:?}");
    }
}
