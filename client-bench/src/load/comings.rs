//! Who connects, leaves, stops reading and comes back.

use super::{
    Load, Member, PATIENCE_NS, TICK_NS, Watcher,
    plan::{Phase, Plan, Receivers},
    side_of,
};
use crate::{
    clock::NS_PER_S,
    dialect::{Dialect, Side},
    interrupt,
    link::Link,
    poller::Watch,
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// Connections that may be on their way to be ready at once, when no rate is given.
const OPENING_AT_ONCE: usize = 256;
/// A receiver whose connection broke comes back after this.
const BREATH: Duration = Duration::from_secs(1);

/// Connections on their way.
pub struct Comings {
    /// Connections that never were are those from here on.
    first: usize,
    all: usize,
    /// Those that shall come back, and not before when.
    again: VecDeque<(u64, usize)>,
    /// When those that connect just now began to, or should have.
    opening: HashMap<usize, u64>,
    ns_per_connection: Option<f64>,
    begun_ns: u64,
    /// Goings: when the next is due, the time between two, and how many there were.
    churn_at_ns: u64,
    ns_per_going: f64,
    goings: usize,
}

impl Comings {
    pub fn new(plan: &Plan) -> Comings {
        Comings {
            first: 0,
            all: plan.connections(),
            again: VecDeque::new(),
            opening: HashMap::new(),
            ns_per_connection: plan.connect_per_s.map(|rate| NS_PER_S as f64 / rate),
            begun_ns: 0,
            churn_at_ns: u64::MAX,
            ns_per_going: f64::INFINITY,
            goings: 0,
        }
    }

    /// Not ready yet, or not any more.
    pub fn missing(&self) -> usize {
        self.all - self.first + self.again.len() + self.opening.len()
    }

    /// From `start_ns` on so many go and come back a second.
    pub fn churn(&mut self, start_ns: u64, per_s: f64) {
        (self.churn_at_ns, self.ns_per_going) = match per_s > 0.0 {
            true => (start_ns, NS_PER_S as f64 / per_s),
            false => (u64::MAX, f64::INFINITY),
        };
    }

    /// Connection `index` comes back after a breath.
    pub fn later(&mut self, index: usize, now_ns: u64) {
        self.opening.remove(&index);
        self.again.push_back((now_ns + BREATH.as_nanos() as u64, index));
    }

    /// When something is to be done that nothing else wakes for.
    pub fn next_ns(&self) -> u64 {
        let next = self.ns_per_connection.filter(|_| self.first < self.all);
        self.churn_at_ns.min(next.map_or(u64::MAX, |each| self.due_ns(each)))
    }

    fn due_ns(&self, ns_each: f64) -> u64 {
        self.begun_ns + (self.first as f64 * ns_each) as u64
    }

    /// The next connection to open, and when it was meant to be; whether it comes again.
    fn next(&mut self, now_ns: u64) -> Option<(usize, u64, bool)> {
        if self.first < self.all {
            let intended_ns = match self.ns_per_connection {
                Some(each) if self.due_ns(each) <= now_ns => self.due_ns(each),
                None if self.opening.len() < OPENING_AT_ONCE => now_ns,
                _ => return None,
            };
            self.first += 1;
            return Some((self.first - 1, intended_ns, false));
        }
        if self.opening.len() >= OPENING_AT_ONCE || self.again.front()?.0 > now_ns {
            return None;
        }
        self.again.pop_front().map(|(_, index)| (index, now_ns, true))
    }
}

impl<D: Dialect, W: Watcher> Load<'_, D, W> {
    /// Opens all connections of the plan.
    pub(super) fn connect(&mut self) -> Result<()> {
        self.comings.begun_ns = self.clock.now_ns();
        let mut moved_ns = self.comings.begun_ns;
        let mut before = usize::MAX;
        while self.comings.missing() > 0 {
            self.turn(self.clock.now_ns() + TICK_NS)?;
            let (now, missing) = (self.clock.now_ns(), self.comings.missing());
            if missing < before {
                (before, moved_ns) = (missing, now);
            }
            ensure!(
                now < moved_ns + PATIENCE_NS,
                "{missing} of {} connections do not get ready",
                self.comings.all
            );
            ensure!(!interrupt::requested(), "interrupted before anything was measured");
        }
        Ok(())
    }

    /// Lets those connect whose time has come, and those leave.
    pub(super) fn come_and_go(&mut self, now_ns: u64) -> Result<()> {
        while now_ns >= self.comings.churn_at_ns && self.comings.churn_at_ns < self.end_ns {
            let each = self.comings.ns_per_going;
            self.comings.churn_at_ns += each.max(1.0) as u64;
            self.go_and_come_back(now_ns);
        }
        while let Some((index, intended_ns, again)) = self.comings.next(now_ns) {
            self.comings.opening.insert(index, intended_ns);
            if let Err(error) = self.open(index, again) {
                self.broke(index, error)?;
            }
        }
        Ok(())
    }

    pub(super) fn became_ready(&mut self, index: usize, now_ns: u64) {
        if let Some(begun_ns) = self.comings.opening.remove(&index) {
            self.measured.opened(now_ns.saturating_sub(begun_ns));
        }
        if let Some(pair) = self.pairs.get_mut(index / 2)
            && side_of(index) == Side::Receiver
            && pair.flights.apart()
        {
            pair.may_rejoin = true;
        }
    }

    /// Makes the receivers do what `phase` wants of them.
    pub(super) fn receivers(&mut self, phase: &Phase) -> Result<()> {
        let first_apart = self.plan.pairs - phase.apart(self.plan.pairs);
        for pair in 0..self.plan.pairs {
            let wanted = if pair >= first_apart { phase.receivers } else { Receivers::Reading };
            let index = 2 * pair + 1;
            let state = &mut self.pairs[pair];
            if wanted != Receivers::Reading {
                state.flights.set_apart(true);
                state.may_rejoin = false;
            } else if state.flights.apart() {
                state.may_rejoin = self.members[index].is_some();
            }
            match (wanted, &mut self.members[index]) {
                (Receivers::Away, Some(_)) => self.leave(index)?,
                (Receivers::Away, None) => self.comings.again.retain(|(_, gone)| *gone != index),
                (Receivers::Stuck | Receivers::Reading, Some(Member { link, .. })) => {
                    link.set_deaf(&self.poller, index, wanted == Receivers::Stuck)?;
                }
                // Who has to come back before it can stop reading is stuck from then on.
                (Receivers::Stuck | Receivers::Reading, None) => {
                    let comes = self.comings.again.iter().any(|(_, gone)| *gone == index);
                    if !comes {
                        self.comings.again.push_back((0, index));
                    }
                }
            }
        }
        Ok(())
    }

    /// The next receiver or idle device in turn goes, and comes back at once.
    fn go_and_come_back(&mut self, now_ns: u64) {
        let (pairs, idle) = (self.plan.pairs, self.plan.idle);
        // A stride that meets everybody before anybody twice, and no neighbours in a row.
        let count = pairs + idle;
        let stride = (count * 5 / 8).max(1);
        let stride = (stride..).find(|stride| gcd(*stride, count) == 1).unwrap_or(1);
        let place = self.comings.goings * stride % count;
        self.comings.goings += 1;
        let index = if place < pairs { 2 * place + 1 } else { pairs + place };
        let apart = self.pairs.get(index / 2).is_some_and(|pair| pair.flights.apart());
        let present = self.members[index].is_some() && !self.comings.opening.contains_key(&index);
        if present && !apart && self.leave(index).is_ok() {
            self.comings.again.push_back((now_ns, index));
        }
    }

    fn leave(&mut self, index: usize) -> Result<()> {
        self.comings.opening.remove(&index);
        if let Some(Member { link, .. }) = self.members[index].take() {
            link.reset_on_close()?;
        }
        Ok(())
    }

    fn open(&mut self, index: usize, again: bool) -> Result<()> {
        let server = self.plan.server;
        let source = self.plan.sources.of(server, index)?;
        let mut link =
            Link::connect(server, source).with_context(|| format!("cannot connect to {server}"))?;
        let peer = self.dialect.open(index / 2, side_of(index), again, link.out());
        self.poller.add(link.stream(), index, Watch::Read)?;
        let member = Some(Member { link, peer });
        match self.members.get_mut(index) {
            Some(place) => *place = member,
            None => self.members.push(member),
        }
        self.touch(index);
        Ok(())
    }
}

fn gcd(one: usize, other: usize) -> usize {
    if other == 0 { one } else { gcd(other, one % other) }
}
