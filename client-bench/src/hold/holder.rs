//! One process's share of a crowd, and the user that writes to all of it.

use super::{
    HoldTally, Manner,
    holders::{Closing, Order},
    pace::{Pace, Search, TRIAL_S},
};
use crate::{
    clock::{NS_PER_MS, ns},
    content::Contents,
    crowd::{Crowd, Heard},
    dialect::{Class, Starling, StarlingPeer},
    history::HistoryFile,
    interrupt,
    latency::Latencies,
    parts::Work,
    progress::Progress,
    roster::Roster,
    sources::Sources,
};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

/// The payload of the one message.
const PAYLOAD_BYTES: usize = 128;
/// Messages from the oldest without an answer on: nearly as many as a device may have.
const IN_FLIGHT: u64 = 60;
/// A message that does not come for so long will not.
const PATIENCE_NS: u64 = 30 * 1_000 * NS_PER_MS;
/// Log-ins between two looks at how far they are, when they go as fast as they can.
const BETWEEN_LOOKS: usize = 5_000;
/// While a rate is searched, those due in this time log in together. One by one a log-in takes
/// the server several times as much of a processor, and it is a crowd that is wanted.
const GATHER: Duration = Duration::from_millis(100);
/// Devices that have their heartbeats answered together, when they are not waited for.
const BEATING_AT_ONCE: usize = 256;
/// The longest that nothing is looked at.
const STEP: Duration = Duration::from_millis(100);

/// Held devices. Connection 0 is the writer's, connection `d + 1` that of device `d`.
pub struct Holder {
    crowd: Crowd<Starling>,
    ledger: Ledger,
    /// Messages of the writer, in order.
    sent: u64,
    /// The server has no room for more until then.
    held_until_ns: u64,
    search: Option<Search>,
    login: Latencies,
    heartbeat: Duration,
    progress: Progress,
}

/// What was heard.
struct Ledger {
    contents: Contents,
    /// Message `m` goes to device `m` while there are so many, then to those that were cut.
    devices: usize,
    cut: Vec<usize>,
    /// Whether a message is where it belongs.
    arrived: Vec<bool>,
    tally: HoldTally,
    acknowledged: u64,
    /// The first message that the server could not take, and how long it is to wait.
    put_off: Option<(u64, u64)>,
}

impl Holder {
    /// `users` are the writer and then the devices.
    pub fn new(
        server: SocketAddr,
        users: Roster,
        sources: Sources,
        manner: &Manner,
        history: Option<&Path>,
    ) -> Result<Holder> {
        let ledger = Ledger {
            contents: Contents::new(rand::random(), 0),
            devices: 0,
            cut: Vec::new(),
            arrived: Vec::new(),
            tally: HoldTally::default(),
            acknowledged: 0,
            put_off: None,
        };
        let mut dialect = Starling::new(users, 1, Class::Durable, manner.heartbeat_s);
        dialect.history = history.map(HistoryFile::create).transpose()?;
        let mut crowd = Crowd::new(dialect, server, sources)?;
        let search = matches!(manner.pace, Pace::Search).then(Search::default);
        if let Some(search) = &search {
            (crowd.gather, crowd.at_once) = (GATHER, search.at_once());
        }
        crowd.rate = match manner.pace {
            Pace::Rate(per_s) => Some(per_s),
            Pace::Search | Pace::Unbounded => search.as_ref().map(Search::per_s),
        };
        Ok(Holder {
            crowd,
            ledger,
            sent: 0,
            held_until_ns: 0,
            search,
            login: Latencies::default(),
            heartbeat: Duration::from_secs(manner.heartbeat_s.0.into()),
            progress: Progress::new(manner.progress),
        })
    }

    /// Holds `count` devices, each with its message, which is written while the next ones log in:
    /// who waits for the last of a million has long been held then. Ctrl-C leaves it at those that
    /// are there.
    ///
    /// # Errors
    /// The server refuses or closes a connection, or a message does not come.
    pub fn grow_to(&mut self, count: usize) -> Result<()> {
        self.progress.begin("logging in, and a message to each");
        while self.ledger.devices < count && !interrupt::requested() {
            let grown = self.log_in(count);
            self.progress.blame(grown)?;
        }
        let delivered = self.deliver();
        self.progress.blame(delivered)
    }

    /// Cuts off every `step`th device without a word; each must come back, and get a message
    /// more.
    ///
    /// # Errors
    /// As [`Holder::grow_to`].
    pub fn cut(&mut self, step: usize) -> Result<()> {
        self.note_beaten();
        self.progress.begin("cutting and coming back");
        self.ledger.cut = (0..self.ledger.devices).step_by(step).collect();
        // Connection 0 is the writer's.
        let indexes: Vec<usize> = self.ledger.cut.iter().map(|device| device + 1).collect();
        let back = self.crowd.reopen(&indexes, &mut |index, heard| self.ledger.note(index, heard));
        let delivered = back.and_then(|()| self.deliver());
        self.ledger.tally.cut = indexes.len() as u64;
        self.progress.blame(delivered)
    }

    /// Holds until the server answered a heartbeat of each device. Those whose first one is not
    /// due yet beat now, some at a time: in a crowd that took half an hour to log in most have
    /// beaten, and the last would have the whole interval before them.
    ///
    /// # Errors
    /// One has none after three times the shortest interval that was asked for.
    pub fn until_beaten(&mut self) -> Result<()> {
        self.progress.begin("a heartbeat of each");
        let beaten = self.beat();
        self.progress.blame(beaten)
    }

    fn beat(&mut self) -> Result<()> {
        let until = Instant::now() + 3 * self.heartbeat;
        let devices = self.ledger.devices;
        // Connection 0 is the writer's.
        let waiting = |holder: &Holder, &index: &usize| !holder.crowd.peer(index).has_beaten();
        let left: Vec<usize> = (1..=devices).filter(|index| waiting(self, index)).collect();
        let mut beaten = devices - left.len();
        for some in left.chunks(BEATING_AT_ONCE) {
            if interrupt::requested() {
                break;
            }
            for &index in some {
                self.crowd.say(index, Starling::beat);
            }
            while some.iter().any(|index| waiting(self, index)) {
                self.turn(STEP)?;
                ensure!(Instant::now() < until, "{beaten} of {devices} had a heartbeat answered");
            }
            beaten += some.len();
            self.progress.tell(|| format!("{beaten} of {devices}"));
        }
        self.note_beaten();
        Ok(())
    }

    fn note_beaten(&mut self) {
        let beaten = self.crowd.peers().skip(1).filter(|peer| peer.has_beaten()).count();
        let tally = &mut self.ledger.tally;
        tally.beaten = tally.beaten.max(beaten as u64);
    }

    /// Logs some more devices in, `count` at most, and writes to those that were.
    fn log_in(&mut self, count: usize) -> Result<()> {
        let before = self.ledger.devices;
        let some = self.crowd.rate.map_or(BETWEEN_LOOKS, |per_s| (TRIAL_S * per_s) as usize);
        let (begun, devices) = (Instant::now(), (before + some.max(1)).min(count));
        self.ledger.arrived.resize(before, false);
        self.crowd.aim_at(devices + 1);
        while self.crowd.is_growing() {
            if interrupt::requested() {
                return Ok(());
            }
            self.write(before as u64);
            self.crowd.grow(&mut |index, heard| self.ledger.note(index, heard))?;
        }
        self.ledger.devices = devices;
        let opening = std::mem::take(&mut self.crowd.opening);
        self.login.merge(&opening);
        let reached_per_s = (devices - before) as f64 / begun.elapsed().as_secs_f64();
        if let Some(search) = &mut self.search {
            search.saw(reached_per_s, Duration::from_nanos(opening.at(0.99)));
            (self.crowd.rate, self.crowd.at_once) = (Some(search.per_s()), search.at_once());
        }
        let left_s = (count - devices) as f64 / reached_per_s;
        let messages = self.ledger.tally.messages;
        self.progress.tell(|| {
            format!(
                "{devices} of {count}, {reached_per_s:.0} a second just now, so {left_s:.0} s left; \
                 {messages} messages came"
            )
        });
        Ok(())
    }

    /// Writes what was not written yet, and waits until all of it came.
    fn deliver(&mut self) -> Result<()> {
        let count = self.ledger.devices + self.ledger.cut.len();
        self.ledger.arrived.resize(count, false);
        let mut moved_ns = self.crowd.clock.now_ns();
        let mut before = 0;
        while self.ledger.progress() < 2 * count as u64 && !interrupt::requested() {
            self.write(count as u64);
            self.turn(STEP)?;
            let now = self.crowd.clock.now_ns();
            if self.ledger.progress() > before {
                (before, moved_ns) = (self.ledger.progress(), now);
            }
            let messages = self.ledger.tally.messages;
            self.progress.tell(|| format!("{messages} of {count} messages came"));
            ensure!(
                now < moved_ns + PATIENCE_NS,
                "{messages} of {count} messages came, then none for long"
            );
        }
        Ok(())
    }

    /// Holds for `duration`.
    ///
    /// # Errors
    /// The server closes a connection.
    pub fn keep(&mut self, duration: Duration) -> Result<()> {
        self.progress.begin("quiet");
        let until = Instant::now() + duration;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let kept = self.keep_for(left.min(Duration::from_secs(1)));
            self.progress.blame(kept)?;
            let (devices, beats) = (self.ledger.devices, self.crowd.dialect.beats);
            self.progress.tell(|| format!("{devices} held, {beats} heartbeats so far"));
            if left.is_zero() || interrupt::requested() {
                return Ok(());
            }
        }
    }

    /// As [`Holder::keep`], in whatever phase this is.
    fn keep_for(&mut self, duration: Duration) -> Result<()> {
        let until_ns = self.crowd.clock.now_ns() + ns(duration);
        loop {
            let left = until_ns.saturating_sub(self.crowd.clock.now_ns());
            self.turn(STEP.min(Duration::from_nanos(left)))?;
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// What was heard, and how long logging in took. The history ends here; the devices are held
    /// until this is dropped.
    ///
    /// # Errors
    /// The history could not be written.
    pub fn finish(&mut self) -> Result<(HoldTally, Latencies)> {
        self.note_beaten();
        let Starling { users, history, beats, .. } = &mut self.crowd.dialect;
        if let Some(mut history) = history.take() {
            history.settled(users);
            history.finish()?;
        }
        let tally = HoldTally { beats: *beats, ..self.ledger.tally };
        let mut login = std::mem::take(&mut self.login);
        login.merge(&self.crowd.opening);
        Ok((tally, login))
    }

    /// The writer and the devices, as they are now.
    pub fn users(&self) -> &Roster {
        &self.crowd.dialect.users
    }

    fn turn(&mut self, wait: Duration) -> Result<()> {
        self.crowd.turn(wait, &mut |index, heard| self.ledger.note(index, heard))
    }

    /// Writes messages up to `count`, as many at once as may be.
    fn write(&mut self, count: u64) {
        let now_ns = self.crowd.clock.now_ns();
        // One that waits already is refused for the sake of an earlier one, and waits with it.
        if let Some((first, after_ms)) = self.ledger.put_off.take()
            && first < self.sent
        {
            self.sent = first;
            self.held_until_ns = self.held_until_ns.max(now_ns + after_ms * NS_PER_MS);
        }
        if now_ns < self.held_until_ns {
            return;
        }
        // Answers come in any order, but the span from the oldest without one is bounded.
        let oldest = self.crowd.peers().next().map_or(0, StarlingPeer::oldest);
        while self.sent < count && self.sent < oldest + IN_FLIGHT {
            let (sequence, contents) = (self.sent, self.ledger.contents);
            let mut payload = Vec::new();
            contents.append(sequence, PAYLOAD_BYTES, &mut payload);
            // The writer is user 0.
            let index = self.ledger.device_of(sequence) + 1;
            self.crowd.say(0, |dialect, peer, out| {
                let nonce = contents.nonce(sequence);
                dialect.send_to(peer, index, sequence, nonce, &payload, out);
            });
            self.sent += 1;
        }
    }
}

/// One part of a crowd.
impl Work for Holder {
    type Order = Order;

    fn obey(&mut self, order: Order) -> Result<Value> {
        match order {
            Order::Grow(count) => self.grow_to(count)?,
            Order::UntilBeaten => self.until_beaten()?,
            Order::Cut(step) => self.cut(step)?,
        }
        Ok(Value::Null)
    }

    fn holds(&self) -> bool {
        !self.crowd.is_empty()
    }

    fn keep_on(&mut self, duration: Duration) -> Result<()> {
        let kept = self.keep_for(duration);
        self.progress.blame(kept)
    }

    fn finish(&mut self) -> Result<Value> {
        let (tally, login) = self.finish()?;
        Ok(serde_json::to_value(Closing { tally, login })?)
    }

    fn users(&self) -> &Roster {
        self.users()
    }
}

impl Ledger {
    fn progress(&self) -> u64 {
        self.tally.messages + self.acknowledged
    }

    fn device_of(&self, sequence: u64) -> usize {
        let sequence = sequence as usize;
        sequence.checked_sub(self.devices).map_or(sequence, |later| self.cut[later])
    }

    fn note(&mut self, connection: usize, heard: Heard) {
        self.tally.gaps += heard.gaps;
        self.acknowledged += heard.acknowledged.len() as u64;
        if let Some((first, after_ms)) = heard.put_off {
            let (earlier, longest_ms) = self.put_off.unwrap_or((first, 0));
            self.put_off = Some((earlier.min(first), longest_ms.max(after_ms)));
        }
        for payload in heard.delivered {
            let device = connection.checked_sub(1);
            match (device, self.contents.sequence_of(&payload)) {
                (Some(device), Some(sequence))
                    if sequence < self.arrived.len() as u64
                        && self.device_of(sequence) == device =>
                {
                    match std::mem::replace(&mut self.arrived[sequence as usize], true) {
                        false => self.tally.messages += 1,
                        true => self.tally.duplicates += 1,
                    }
                }
                _ => self.tally.corrupt += 1,
            }
        }
    }
}
