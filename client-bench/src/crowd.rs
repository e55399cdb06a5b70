//! Many connections that are opened and then mostly held: for storms and for idle crowds.

use crate::{
    clock::{Clock, NS_PER_MS, ns},
    dialect::{Dialect, Ear, Side},
    latency::Latencies,
    link::{Link, Received, Scratch},
    poller::{Poller, Watch},
    sources::Sources,
};
use anyhow::{Context, Result, bail, ensure};
use std::{collections::HashMap, net::SocketAddr, time::Duration};

/// Connections that may be on their way to be ready at once, at most.
pub const OPENING_AT_ONCE: usize = 256;
/// A server that moves nothing for so long has failed.
const PATIENCE_NS: u64 = 30 * 1_000 * NS_PER_MS;
/// The longest wait while connections get ready.
const STEP: Duration = Duration::from_millis(100);
/// The wait while more are to be opened by rate, so that they come evenly.
const PACE: Duration = Duration::from_millis(2);
/// Links that may wait to be written to.
const FLUSHED_AT_ONCE: usize = 1_024;
/// Peers are ticked this often, and so many of them in turn: to look at a million takes a while,
/// and the heartbeats that are due of all of them would keep others waiting.
const TICK_NS: u64 = 250 * NS_PER_MS;
const TICKED_AT_ONCE: usize = 65_536;

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

    fn acknowledged(&mut self, sequence: u64, _durable: bool) {
        self.acknowledged.push(sequence);
    }

    fn delivered(&mut self, payload: &[u8]) {
        self.delivered.push(payload.to_vec());
    }

    fn put_off(&mut self, sequence: u64, after_ms: u64) {
        let (first, longest_ms) = self.put_off.unwrap_or((sequence, 0));
        self.put_off = Some((first.min(sequence), longest_ms.max(after_ms)));
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
    sources: Sources,
    poller: Poller,
    scratch: Scratch,
    members: Vec<Member<D::Peer>>,
    ready: usize,
    growth: Growth,
    dirty: Vec<usize>,
    next_tick_ns: u64,
    /// The peer whose turn it is to be ticked.
    ticked_next: usize,
    /// Connections opened a second at most.
    pub rate: Option<f64>,
    /// Whether the time until a connection is ready counts from when that rate meant it to be
    /// opened, whatever held it up.
    pub from_when_due: bool,
    /// Connections that may be on their way to be ready at once.
    pub at_once: usize,
    /// How long what is due by that rate may be gathered and opened together.
    pub gather: Duration,
    /// When those on their way to be ready began to connect.
    begun_ns: HashMap<usize, u64>,
    /// What a peer says unasked.
    said: Vec<u8>,
    /// From connecting to being ready.
    pub opening: Latencies,
}

/// How many connections there shall be, and since when.
#[derive(Clone, Copy, Default)]
struct Growth {
    count: usize,
    /// So many there were.
    first: usize,
    begun_ns: u64,
    /// When one last got ready.
    moved_ns: u64,
}

struct Member<P> {
    link: Link,
    peer: P,
}

impl<D: Dialect> Crowd<D> {
    /// No connection yet.
    pub fn new(dialect: D, server: SocketAddr, sources: Sources) -> Result<Crowd<D>> {
        Ok(Crowd {
            dialect,
            clock: Clock::start(),
            server,
            sources,
            poller: Poller::new()?,
            scratch: Scratch::default(),
            members: Vec::new(),
            ready: 0,
            growth: Growth::default(),
            dirty: Vec::new(),
            next_tick_ns: 0,
            ticked_next: 0,
            rate: None,
            from_when_due: false,
            at_once: OPENING_AT_ONCE,
            gather: PACE,
            begun_ns: HashMap::new(),
            said: Vec::new(),
            opening: Latencies::default(),
        })
    }

    /// Opens connections until there are `count`, all ready. What they hear goes to `heard`.
    ///
    /// # Errors
    /// A connection is refused or closed, or none gets ready for long.
    pub fn grow_to(&mut self, count: usize, heard: &mut impl FnMut(usize, Heard)) -> Result<()> {
        self.aim_at(count);
        while self.is_growing() {
            self.grow(heard)?;
        }
        Ok(())
    }

    /// There shall be `count` connections: [`Crowd::grow`] opens them.
    pub fn aim_at(&mut self, count: usize) {
        let now_ns = self.clock.now_ns();
        self.growth =
            Growth { count, first: self.members.len(), begun_ns: now_ns, moved_ns: now_ns };
        self.members.reserve_exact(count.saturating_sub(self.growth.first));
    }

    /// Whether some of those aimed at are not ready.
    pub fn is_growing(&self) -> bool {
        self.ready < self.growth.count
    }

    /// Opens what is due of those aimed at, waits for something to happen, and does it.
    ///
    /// # Errors
    /// As [`Crowd::grow_to`].
    pub fn grow(&mut self, heard: &mut impl FnMut(usize, Heard)) -> Result<()> {
        let (Growth { count, first, begun_ns, .. }, gather_ns) = (self.growth, ns(self.gather));
        let spent_ns = (self.clock.now_ns() - begun_ns) / gather_ns * gather_ns;
        let by_rate = |rate: f64| count.min(first + (rate * spent_ns as f64 / 1e9) as usize);
        let due = self.rate.map_or(count, by_rate);
        while self.members.len() < due && self.members.len() - self.ready < self.at_once {
            self.open()?;
        }
        let before = self.ready;
        self.turn(if due < count { self.gather } else { STEP }, heard)?;
        let now = self.clock.now_ns();
        // Nobody on the way is a pause of ours.
        if self.ready > before || self.members.len() == self.ready {
            self.growth.moved_ns = now;
        }
        ensure!(
            now < self.growth.moved_ns + PATIENCE_NS,
            "{} of {count} connections got ready, then none for long",
            self.ready
        );
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
            self.next_tick_ns = now + TICK_NS;
            self.tick(now)?;
        }
        self.flush()
    }

    /// Lets `say` append to what `index` says next.
    pub fn say(&mut self, index: usize, say: impl FnOnce(&mut D, &mut D::Peer, &mut Vec<u8>)) {
        let Member { link, peer } = &mut self.members[index];
        say(&mut self.dialect, peer, link.out());
        self.touch(index);
    }

    /// No connection, not even one on its way.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Closes, and gives the dialect back.
    pub fn finish(self) -> D {
        self.dialect
    }

    /// The state of each connection.
    pub fn peers(&self) -> impl Iterator<Item = &D::Peer> {
        self.members.iter().map(|member| &member.peer)
    }

    pub fn peer(&self, index: usize) -> &D::Peer {
        &self.members[index].peer
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
        for some in indexes.chunks(self.at_once) {
            for &index in some {
                let member = &self.members[index];
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
        for member in self.members.drain(..) {
            member.link.reset_on_close()?;
        }
        self.ready = 0;
        self.dirty.clear();
        self.begun_ns.clear();
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
        let begun_ns = self.begun_ns_of(index);
        self.begun_ns.insert(index, begun_ns);
        let source = self.sources.of(self.server, index)?;
        let mut link = Link::connect(self.server, source)
            .with_context(|| format!("cannot open connection {index} to {}", self.server))?;
        let (pair, side) = end_of(index);
        let peer = self.dialect.open(pair, side, false, link.out());
        self.poller.add(link.stream(), index, Watch::Read)?;
        Ok(Member { link, peer })
    }

    /// From when on connection `index`, which is opened now, is waited for.
    fn begun_ns_of(&self, index: usize) -> u64 {
        let now_ns = self.clock.now_ns();
        let Growth { first, begun_ns, .. } = self.growth;
        match self.rate.filter(|_| self.from_when_due) {
            Some(rate) => {
                let due_ns = (index.saturating_sub(first) as f64 * 1e9 / rate) as u64;
                now_ns.min(begun_ns + due_ns)
            }
            None => now_ns,
        }
    }

    fn receive(&mut self, index: usize, heard: &mut impl FnMut(usize, Heard)) -> Result<()> {
        let Member { link, peer } = &mut self.members[index];
        let mut ear = Heard::default();
        let dialect = &mut self.dialect;
        let received =
            link.receive(&mut self.scratch, |bytes, out| dialect.read(peer, bytes, out, &mut ear));
        if received.with_context(|| format!("connection {index}"))? == Received::End {
            bail!("the server closed connection {index} without a word");
        }
        if ear.ready {
            let begun_ns = self.begun_ns.remove(&index).unwrap_or_default();
            self.opening.record(self.clock.now_ns() - begun_ns);
            self.ready += 1;
        }
        if link.has_output() {
            self.touch(index);
        } else {
            link.slim();
        }
        heard(index, ear);
        Ok(())
    }

    /// Ticks those whose turn it is.
    fn tick(&mut self, now_ns: u64) -> Result<()> {
        for _ in 0..self.members.len().min(TICKED_AT_ONCE) {
            let index = self.ticked_next;
            self.ticked_next = (index + 1) % self.members.len();
            let Member { link, peer } = &mut self.members[index];
            self.dialect.tick(peer, now_ns / NS_PER_MS, &mut self.said);
            if !self.said.is_empty() {
                link.out().append(&mut self.said);
                self.touch(index);
            }
            if self.dirty.len() == FLUSHED_AT_ONCE {
                self.flush()?;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        counting::live_bytes,
        dialect::{Class, Starling},
        machine,
        roster::Roster,
    };
    use starling_codec::{Epoch, EpochTag, Kind, Place, append_frame, wire};
    use std::{
        net::TcpListener,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    /// Says WELCOME to whoever says anything, and holds.
    fn host(listener: &TcpListener, done: &AtomicBool) -> Result<()> {
        listener.set_nonblocking(true)?;
        let mut poller = Poller::new()?;
        poller.add(listener, usize::MAX, Watch::Read)?;
        let mut welcome = Vec::new();
        let body = wire::Welcome { epoch: 1, tag: 7, heartbeat_s: 60, ..Default::default() };
        append_frame(&mut welcome, Kind::Welcome, &body);
        let (mut links, mut scratch) = (Vec::new(), Scratch::default());
        while !done.load(Ordering::Relaxed) {
            for position in 0..poller.wait(Some(Duration::from_millis(5)))? {
                let index = poller.ready(position).index;
                if index != usize::MAX {
                    let Some(link): &mut Option<Link> = &mut links[index] else { continue };
                    let received = link.receive(&mut scratch, |bytes, out| {
                        out.extend_from_slice(&welcome);
                        anyhow::Ok(bytes.len())
                    });
                    match received {
                        Ok(Received::Bytes) => link.flush(&poller, index)?,
                        Ok(Received::Nothing) => {}
                        // A crowd that was measured leaves with a reset.
                        Ok(Received::End) | Err(_) => links[index] = None,
                    }
                    continue;
                }
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    poller.add(&stream, links.len(), Watch::Read)?;
                    links.push(Some(Link::of(stream)));
                }
            }
        }
        Ok(())
    }

    /// What a crowd of `count` keeps, in bytes.
    fn kept(server: SocketAddr, count: usize) -> isize {
        let before = live_bytes();
        let mut crowd = crowd_of(server, count);
        crowd.grow_to(count, &mut |_, _| {}).unwrap();
        // Hearts have not beaten yet, but the ticks have passed.
        let until_ns = crowd.clock.now_ns() + 2 * TICK_NS;
        while crowd.clock.now_ns() < until_ns {
            crowd.turn(STEP, &mut |_, _| {}).unwrap();
        }
        let kept = live_bytes() - before;
        crowd.reset().unwrap();
        kept
    }

    /// Runs `with` while a host at that address welcomes whoever comes.
    fn hosted(with: impl FnOnce(SocketAddr)) {
        machine::raise_file_limit().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let hosting = thread::spawn({
            let done = done.clone();
            move || host(&listener, &done)
        });
        with(server);
        done.store(true, Ordering::Relaxed);
        hosting.join().unwrap().unwrap();
    }

    fn crowd_of(server: SocketAddr, count: usize) -> Crowd<Starling> {
        let mut roster = Roster::with_room(count);
        for user in 0..count as u32 {
            roster.push((user, 1), &[9; 41], Place::START, (Epoch(0), EpochTag(0)));
        }
        let dialect = Starling::new(roster, 0, Class::Durable, (20, 900));
        Crowd::new(dialect, server, Sources::default()).unwrap()
    }

    #[test]
    fn who_is_opened_late_has_waited_since_it_was_due() {
        hosted(|server| {
            let mut crowd = crowd_of(server, 40);
            (crowd.rate, crowd.from_when_due) = (Some(1_000.0), true);
            crowd.aim_at(40);
            // This tool does something else while all of them become due.
            let held = Duration::from_millis(200);
            thread::sleep(held);
            while crowd.is_growing() {
                crowd.grow(&mut |_, _| {}).unwrap();
            }
            // The last was due 39 ms after the first, and both were opened after the pause.
            let fastest = crowd.opening.histogram().min();
            assert!(fastest >= ns(held - Duration::from_millis(40)), "{fastest} ns");
            crowd.reset().unwrap();
        });
    }

    #[test]
    fn a_held_connection_takes_no_more_than_128_bytes() {
        hosted(|server| {
            let (few, many) = (kept(server, 500), kept(server, 4_500));
            let each = (many - few) / 4_000;
            assert!(few > 500 * 64 && each <= 128, "{each} bytes a connection");
        });
    }
}
