//! One process's share of a crowd, and the user that writes to all of it.

use super::HoldTally;
use crate::{
    clock::{NS_PER_MS, ns},
    content::Contents,
    crowd::{Crowd, Heard},
    dialect::{Class, Starling},
    latency::Latencies,
    users::User,
};
use anyhow::{Result, ensure};
use std::{net::SocketAddr, time::Duration};

/// The payload of the one message.
const PAYLOAD_BYTES: usize = 128;
/// Messages without an answer at once.
const IN_FLIGHT: u64 = 32;
/// A message that does not come for so long will not.
const PATIENCE_NS: u64 = 30 * 1_000 * NS_PER_MS;
/// The longest that nothing is looked at.
const STEP: Duration = Duration::from_millis(100);

/// Held devices. Connection 0 is the writer's, connection `d + 1` that of device `d`.
pub struct Holder {
    crowd: Crowd<Starling>,
    ledger: Ledger,
    /// Messages of the writer, one to each device, in order.
    sent: u64,
}

/// What was heard.
struct Ledger {
    contents: Contents,
    /// Whether a device has its message.
    has_message: Vec<bool>,
    tally: HoldTally,
    acknowledged: u64,
    /// The first message that the server could not take, and when to try again.
    put_off: Option<(u64, u64)>,
}

impl Holder {
    /// `users` are the writer and then the devices; `before` is how many connections other
    /// processes of this machine may have.
    pub fn new(
        server: SocketAddr,
        users: Vec<User>,
        before: usize,
        heartbeat_s: (u32, u32),
    ) -> Result<Holder> {
        let ledger = Ledger {
            contents: Contents::new(rand::random(), 0),
            has_message: Vec::new(),
            tally: HoldTally::default(),
            acknowledged: 0,
            put_off: None,
        };
        let dialect = Starling::new(users, Class::Durable, heartbeat_s);
        Ok(Holder { crowd: Crowd::new(dialect, server, before)?, ledger, sent: 0 })
    }

    /// Holds `count` devices, each with its message.
    ///
    /// # Errors
    /// The server refuses or closes a connection, or a message does not come.
    pub fn grow_to(&mut self, count: usize) -> Result<()> {
        self.ledger.has_message.resize(count, false);
        self.crowd.grow_to(count + 1, &mut |index, heard| self.ledger.note(index, heard))?;
        let mut moved_ns = self.crowd.clock.now_ns();
        let mut before = 0;
        while self.ledger.progress() < 2 * count as u64 {
            self.write(count as u64);
            self.turn(STEP)?;
            let now = self.crowd.clock.now_ns();
            if self.ledger.progress() > before {
                (before, moved_ns) = (self.ledger.progress(), now);
            }
            ensure!(
                now < moved_ns + PATIENCE_NS,
                "{} of {count} devices have their message, then none for long",
                self.ledger.tally.messages
            );
        }
        Ok(())
    }

    /// Holds for `duration`.
    pub fn keep(&mut self, duration: Duration) -> Result<()> {
        let until_ns = self.crowd.clock.now_ns() + ns(duration);
        loop {
            let left = until_ns.saturating_sub(self.crowd.clock.now_ns());
            self.turn(STEP.min(Duration::from_nanos(left)))?;
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// What was heard, how long logging in took, and the users as they are now.
    pub fn finish(self) -> (HoldTally, Latencies, Vec<User>) {
        let beats = self.crowd.dialect.beats;
        let login = self.crowd.opening.clone();
        (HoldTally { beats, ..self.ledger.tally }, login, self.crowd.finish().users)
    }

    fn turn(&mut self, wait: Duration) -> Result<()> {
        self.crowd.turn(wait, &mut |index, heard| self.ledger.note(index, heard))
    }

    /// Writes to devices that have no message yet, as many at once as may be.
    fn write(&mut self, count: u64) {
        if let Some((first, after_ms)) = self.ledger.put_off.take() {
            std::thread::sleep(Duration::from_millis(after_ms));
            self.sent = first;
        }
        while self.sent < count && self.sent < self.ledger.acknowledged + IN_FLIGHT {
            let (sequence, contents) = (self.sent, self.ledger.contents);
            let mut payload = Vec::new();
            contents.append(sequence, PAYLOAD_BYTES, &mut payload);
            self.crowd.say(0, |dialect, peer, out| {
                let nonce = contents.nonce(sequence);
                dialect.send_to(peer, sequence as usize + 1, sequence, nonce, &payload, out);
            });
            self.sent += 1;
        }
    }
}

impl Ledger {
    fn progress(&self) -> u64 {
        self.tally.messages + self.acknowledged
    }

    fn note(&mut self, connection: usize, heard: Heard) {
        self.tally.gaps += heard.gaps;
        self.acknowledged += heard.acknowledged.len() as u64;
        if let Some((first, after_ms)) = heard.put_off {
            let earlier = self.put_off.map_or(first, |(earlier, _)| earlier);
            self.put_off = Some((earlier.min(first), after_ms));
        }
        for payload in heard.delivered {
            let device = connection.checked_sub(1);
            match (device, self.contents.sequence_of(&payload)) {
                (Some(device), Some(sequence)) if device as u64 == sequence => {
                    match std::mem::replace(&mut self.has_message[device], true) {
                        false => self.tally.messages += 1,
                        true => self.tally.duplicates += 1,
                    }
                }
                _ => self.tally.corrupt += 1,
            }
        }
    }
}
