//! Many connections that are opened and then mostly held: for storms and for idle crowds.

use crate::{
    clock::{Clock, NS_PER_MS},
    dialect::{Dialect, Ear, Side},
    latency::Latencies,
    link::{Link, Received, Scratch, source_of},
    poller::{Poller, Watch},
};
use anyhow::{Context, Result, bail, ensure};
use std::{net::SocketAddr, time::Duration};

/// Connections that may be on their way to be ready at once.
const OPENING_AT_ONCE: usize = 256;
/// A server that moves nothing for so long has failed.
const PATIENCE_NS: u64 = 30 * 1_000 * NS_PER_MS;
/// The longest wait while connections get ready, and while more are to be opened by rate.
const STEP: Duration = Duration::from_millis(100);
const PACE: Duration = Duration::from_millis(2);
/// Peers are ticked this often, or so much less often as they are many: to look at a million
/// takes a while.
const TICK_NS: u64 = 250 * NS_PER_MS;
const TICK_NS_EACH: u64 = 1_000;

/// What one connection heard since its owner last looked.
#[derive(Debug, Default)]
pub struct Heard {
    pub ready: bool,
    pub gaps: u64,
    pub acknowledged: Vec<u64>,
    pub delivered: Vec<Vec<u8>>,
    pub put_off: Option<(u64, u64)>,
}

impl Ear for Heard {
    fn ready(&mut self) {
        self.ready = true;
    }

    fn acknowledged(&mut self, sequence: u64) {
        self.acknowledged.push(sequence);
    }

    fn delivered(&mut self, payload: &[u8]) {
        self.delivered.push(payload.to_vec());
    }

    fn put_off(&mut self, sequence: u64, after_ms: u64) {
        let (first, _) = self.put_off.unwrap_or((sequence, 0));
        self.put_off = Some((first.min(sequence), after_ms));
    }

    fn gap(&mut self) {
        self.gaps += 1;
    }
}

/// Connections of one process. Connection `c` is the end `c mod 2` of pair `c / 2`.
pub struct Crowd<D: Dialect> {
    pub dialect: D,
    pub clock: Clock,
    server: SocketAddr,
    /// Connections that other processes of this machine have, to plan source addresses.
    before: usize,
    poller: Poller,
    scratch: Scratch,
    members: Vec<Member<D::Peer>>,
    ready: usize,
    dirty: Vec<usize>,
    next_tick_ns: u64,
    /// Connections opened a second at most.
    pub rate: Option<f64>,
    /// From connecting to being ready.
    pub opening: Latencies,
}

struct Member<P> {
    link: Link,
    peer: P,
    begun_ns: u64,
}

impl<D: Dialect> Crowd<D> {
    /// No connection yet; other processes of this machine have `before`.
    pub fn new(dialect: D, server: SocketAddr, before: usize) -> Result<Crowd<D>> {
        Ok(Crowd {
            dialect,
            clock: Clock::start(),
            server,
            before,
            poller: Poller::new()?,
            scratch: Scratch::default(),
            members: Vec::new(),
            ready: 0,
            dirty: Vec::new(),
            next_tick_ns: 0,
            rate: None,
            opening: Latencies::default(),
        })
    }

    /// Opens connections until there are `count`, all ready. What they hear goes to `heard`.
    ///
    /// # Errors
    /// A connection is refused or closed, or none gets ready for long.
    pub fn grow_to(&mut self, count: usize, heard: &mut impl FnMut(usize, Heard)) -> Result<()> {
        let (begun_ns, first) = (self.clock.now_ns(), self.members.len());
        let mut moved_ns = begun_ns;
        while self.ready < count {
            let spent_s = (self.clock.now_ns() - begun_ns) as f64 / 1e9;
            let due = self.rate.map_or(count, |rate| count.min(first + (rate * spent_s) as usize));
            while self.members.len() < due && self.members.len() - self.ready < OPENING_AT_ONCE {
                self.open()?;
            }
            let before = self.ready;
            self.turn(if due < count { PACE } else { STEP }, heard)?;
            let now = self.clock.now_ns();
            // Nobody on the way is a pause of ours.
            if self.ready > before || self.members.len() == self.ready {
                moved_ns = now;
            }
            ensure!(
                now < moved_ns + PATIENCE_NS,
                "{} of {count} connections got ready, then none for long",
                self.ready
            );
        }
        Ok(())
    }

    /// Waits for something to happen, at the longest for `timeout`, and does it.
    pub fn turn(&mut self, timeout: Duration, heard: &mut impl FnMut(usize, Heard)) -> Result<()> {
        self.flush()?;
        for position in 0..self.poller.wait(Some(timeout))? {
            let ready = self.poller.ready(position);
            if ready.writable {
                self.touch(ready.index);
            }
            if ready.readable {
                self.receive(ready.index, heard)?;
            }
        }
        let now = self.clock.now_ns();
        if now >= self.next_tick_ns {
            self.next_tick_ns = now + TICK_NS.max(TICK_NS_EACH * self.members.len() as u64);
            for index in 0..self.members.len() {
                let Member { link, peer, .. } = &mut self.members[index];
                self.dialect.tick(peer, now / NS_PER_MS, &mut link.out);
                if !link.out.is_empty() {
                    self.touch(index);
                }
            }
        }
        self.flush()
    }

    /// Lets `say` append to what `index` says next.
    pub fn say(&mut self, index: usize, say: impl FnOnce(&mut D, &mut D::Peer, &mut Vec<u8>)) {
        let Member { link, peer, .. } = &mut self.members[index];
        say(&mut self.dialect, peer, &mut link.out);
        self.touch(index);
    }

    /// Gives each connection's state back to the dialect, and the dialect to the caller.
    pub fn finish(mut self) -> D {
        for (index, member) in self.members.iter().enumerate() {
            let (pair, side) = end_of(index);
            self.dialect.close(pair, side, &member.peer);
        }
        self.dialect
    }

    /// Connections that are open and ready.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// The state of each connection.
    pub fn peers(&self) -> impl Iterator<Item = &D::Peer> {
        self.members.iter().map(|member| &member.peer)
    }

    /// Cuts `indexes` off without a word and opens them again, each of which must be ready. What
    /// they hear until then goes to `heard`.
    ///
    /// # Errors
    /// As [`Crowd::grow_to`].
    pub fn reopen(
        &mut self,
        indexes: &[usize],
        heard: &mut impl FnMut(usize, Heard),
    ) -> Result<()> {
        for some in indexes.chunks(OPENING_AT_ONCE) {
            for &index in some {
                let (pair, side) = end_of(index);
                let member = &self.members[index];
                self.dialect.close(pair, side, &member.peer);
                member.link.reset_on_close()?;
                self.members[index] = self.connect(index)?;
                self.ready -= 1;
                self.touch(index);
            }
            let count = self.members.len();
            self.grow_to(count, heard)?;
        }
        Ok(())
    }

    /// Closes every connection at once, so that no port waits for old packets.
    pub fn reset(&mut self) -> Result<()> {
        for (index, member) in self.members.drain(..).enumerate() {
            let (pair, side) = end_of(index);
            self.dialect.close(pair, side, &member.peer);
            member.link.reset_on_close()?;
        }
        self.ready = 0;
        self.dirty.clear();
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        let index = self.members.len();
        let member = self.connect(index)?;
        self.members.push(member);
        self.touch(index);
        Ok(())
    }

    fn connect(&mut self, index: usize) -> Result<Member<D::Peer>> {
        let begun_ns = self.clock.now_ns();
        let source = source_of(self.server, self.before + index);
        let mut link = Link::connect(self.server, source)
            .with_context(|| format!("cannot open connection {index} to {}", self.server))?;
        let (pair, side) = end_of(index);
        let peer = self.dialect.open(pair, side, &mut link.out);
        self.poller.add(link.stream(), index, Watch::Read)?;
        Ok(Member { link, peer, begun_ns })
    }

    fn receive(&mut self, index: usize, heard: &mut impl FnMut(usize, Heard)) -> Result<()> {
        let Member { link, peer, begun_ns } = &mut self.members[index];
        let mut ear = Heard::default();
        let dialect = &mut self.dialect;
        let received =
            link.receive(&mut self.scratch, |bytes, out| dialect.read(peer, bytes, out, &mut ear));
        if received.with_context(|| format!("connection {index}"))? == Received::End {
            bail!("the server closed connection {index} without a word");
        }
        if ear.ready {
            self.opening.record(self.clock.now_ns() - *begun_ns);
            self.ready += 1;
        }
        if !link.out.is_empty() {
            self.touch(index);
        }
        heard(index, ear);
        Ok(())
    }

    fn touch(&mut self, index: usize) {
        if !std::mem::replace(&mut self.members[index].link.queued, true) {
            self.dirty.push(index);
        }
    }

    fn flush(&mut self) -> Result<()> {
        for position in 0..self.dirty.len() {
            let index = self.dirty[position];
            let link = &mut self.members[index].link;
            link.queued = false;
            link.flush(&self.poller, index).with_context(|| format!("connection {index} broke"))?;
            link.slim();
        }
        self.dirty.clear();
        Ok(())
    }
}

fn end_of(number: usize) -> (usize, Side) {
    let side = if number.is_multiple_of(2) { Side::Sender } else { Side::Receiver };
    (number / 2, side)
}
