//! A shard of the simulated server: the real engine between lanes and connections. Its turn does
//! what the turn of the real server does, in the same order (`server/src/shard/pump.rs`).

use super::Server;
use crate::{
    coverage::Branch,
    network::{LinkId, ServerEnd},
    stage::{Happening, ServerHappening, Stage},
};
use rustc_hash::FxHashMap;
use starling_codec::{
    Answer, Delivery, Epoch, ErrorCode, Origin, Outcome, Place, Query, Ticket, UserId,
};
use starling_engine::{Effect, Engine, HashDone, Hop, Migrant, Reading};
use std::collections::{BTreeMap, VecDeque};

/// Rounds of effects and flushes in a turn.
const ROUNDS: usize = 4;

/// From shard to shard.
pub enum Parcel {
    Hop(Hop),
    Move { link: LinkId, migrant: Box<Migrant> },
}

/// From the readers and the hashing pool.
pub enum Reply {
    Answer(u64, Answer),
    Hashed(u64, HashDone),
}

/// The part of one commit that concerns one shard.
#[derive(Default)]
pub struct Announced {
    pub outcomes: Vec<(u64, Outcome)>,
    pub deliveries: Vec<Delivery>,
}

pub struct Shard {
    pub engine: Engine,
    /// By ticket.
    pub links: FxHashMap<Ticket, LinkId>,
    /// Connections with something to read, or the end of it.
    pub readable: Vec<Ticket>,
    /// Connections that have room again.
    pub unblocked: Vec<Ticket>,
    /// By sending shard: what has arrived.
    pub lanes: Vec<VecDeque<Parcel>>,
    /// By receiving shard: what found its lane full.
    waiting: Vec<VecDeque<Parcel>>,
    announcements: VecDeque<Announced>,
    folded: BTreeMap<UserId, Place>,
    pub replies: VecDeque<Reply>,
    /// Questions without an answer, and those that found no reader.
    asked: usize,
    questions: VecDeque<(Origin, Query)>,
    /// The turn that is to come.
    pub due_us: Option<u64>,
    pub paused_until_us: u64,
    pub disk_full: bool,
    pub draining: bool,
}

impl Shard {
    pub fn new(engine: Engine, shards: u16) -> Shard {
        let lanes = || (0..shards).map(|_| VecDeque::new()).collect();
        Shard {
            engine,
            links: FxHashMap::default(),
            readable: Vec::new(),
            unblocked: Vec::new(),
            lanes: lanes(),
            waiting: (0..shards).map(|_| VecDeque::new()).collect(),
            announcements: VecDeque::new(),
            folded: BTreeMap::new(),
            replies: VecDeque::new(),
            asked: 0,
            questions: VecDeque::new(),
            due_us: None,
            paused_until_us: 0,
            disk_full: false,
            draining: false,
        }
    }

    /// From the committer: what finds no room is folded to heads, as in the real lane.
    pub fn announce(&mut self, stage: &mut Stage, mut announced: Announced) {
        if self.announcements.len() >= stage.plan.delivery_entries {
            for delivery in std::mem::take(&mut announced.deliveries) {
                let Some(last) = delivery.events.last() else { continue };
                stage.coverage.reach(Branch::DeliveryFolded);
                let head = Place::new(last.seq, Epoch(last.epoch));
                let known = self.folded.entry(delivery.user).or_insert(head);
                *known = head.max(*known);
            }
        }
        if !announced.outcomes.is_empty() || !announced.deliveries.is_empty() {
            self.announcements.push_back(announced);
        }
    }
}

/// A turn, and what it left for others.
impl Server {
    pub(super) fn turn(&mut self, stage: &mut Stage, number: u16) {
        let shard = &mut self.shards[usize::from(number)];
        shard.due_us = None;
        self.read_all(stage, number);
        self.hear_orders(stage, number);
        self.take_parcels(stage, number);
        self.take_commits(stage, number);
        self.take_replies(stage, number);
        self.retry_parcels(stage, number);
        self.retry_questions(stage, number);
        self.do_effects(stage, number);
        self.shards[usize::from(number)].engine.turn(stage.now());
        for ticket in std::mem::take(&mut self.shards[usize::from(number)].unblocked) {
            self.flush(stage, number, ticket);
        }
        for _ in 0..ROUNDS {
            let did = self.do_effects(stage, number);
            let mut flushed = false;
            while let Some(ticket) = self.shards[usize::from(number)].engine.next_dirty() {
                self.flush(stage, number, ticket);
                flushed = true;
            }
            if !did && !flushed {
                break;
            }
        }
        self.plan_next_turn(stage, number);
    }

    fn plan_next_turn(&mut self, stage: &mut Stage, number: u16) {
        let shard = &self.shards[usize::from(number)];
        let news = !shard.readable.is_empty()
            || !shard.announcements.is_empty()
            || !shard.replies.is_empty()
            || shard.lanes.iter().any(|lane| !lane.is_empty());
        let retry =
            !shard.questions.is_empty() || shard.waiting.iter().any(|lane| !lane.is_empty());
        let soon_us = stage.now_us + stage.plan.turn_us.max(1);
        if news {
            self.wake_at(stage, number, soon_us);
        } else if retry {
            self.wake_at(stage, number, stage.now_us + 2_000);
        } else if let Some(at_ms) = shard.engine.wake_at() {
            self.wake_at(stage, number, (at_ms * 1_000).max(soon_us));
        }
    }

    /// Has a shard turn soon: something is there for it.
    pub fn wake(&mut self, stage: &mut Stage, number: u16) {
        let at_us = stage.now_us + stage.random.around(stage.plan.turn_us);
        self.wake_at(stage, number, at_us);
    }

    fn wake_at(&mut self, stage: &mut Stage, number: u16, at_us: u64) {
        let shard = &mut self.shards[usize::from(number)];
        if at_us < shard.paused_until_us {
            stage.coverage.reach(Branch::ShardPaused);
        }
        let at_us = at_us.max(shard.paused_until_us);
        if shard.due_us.is_none_or(|due_us| at_us < due_us) {
            shard.due_us = Some(at_us);
            stage.at(at_us, Happening::Server(self.life, ServerHappening::Turn(number)));
        }
    }

    fn read_all(&mut self, stage: &mut Stage, number: u16) {
        let mut buffer = std::mem::take(&mut stage.buffer);
        for ticket in std::mem::take(&mut self.shards[usize::from(number)].readable) {
            let shard = &mut self.shards[usize::from(number)];
            let Some(&link) = shard.links.get(&ticket) else { continue };
            // Now and then a frame comes in many pieces.
            let most = if stage.random.one_in(8) { stage.random.range(1, 64) } else { 65_536 };
            let connection = stage.network.link(link);
            if !connection.reading {
                continue;
            }
            connection.to_server.read(most as usize, &mut buffer);
            if buffer.is_empty() {
                if connection.to_server.is_over() {
                    self.lose(stage, number, ticket);
                }
                continue;
            }
            stage.trace.bytes(&buffer);
            let reading = shard.engine.receive(stage.now(), ticket, &buffer);
            let connection = stage.network.link(link);
            connection.reading = reading == Reading::More;
            if connection.reading {
                if connection.to_server.has_bytes() || connection.to_server.is_over() {
                    shard.readable.push(ticket);
                }
            } else {
                stage.coverage.reach(Branch::ReadStopped);
            }
            stage.wake_writer(link);
        }
        stage.buffer = buffer;
    }

    /// The connection is gone, or broken.
    fn lose(&mut self, stage: &mut Stage, number: u16, ticket: Ticket) {
        let shard = &mut self.shards[usize::from(number)];
        let Some(link) = shard.links.remove(&ticket) else { return };
        shard.engine.closed(stage.now(), ticket);
        stage.close_server_end(link);
    }

    fn hear_orders(&mut self, stage: &mut Stage, number: u16) {
        let (disk_full, ending) = (self.disk_full, self.ending);
        let shard = &mut self.shards[usize::from(number)];
        if shard.disk_full != disk_full {
            shard.disk_full = disk_full;
            shard.engine.refuse_commands(disk_full.then_some(ErrorCode::DiskFull));
        }
        if let (Some(code), false) = (ending, shard.draining) {
            shard.draining = true;
            shard.engine.drain(stage.now(), code);
        }
    }

    fn take_parcels(&mut self, stage: &mut Stage, number: u16) {
        for sender in 0..self.shards.len() {
            let mut taken = false;
            while let Some(parcel) = self.shards[usize::from(number)].lanes[sender].pop_front() {
                taken = true;
                let shard = &mut self.shards[usize::from(number)];
                match parcel {
                    Parcel::Hop(hop) => shard.engine.hop(stage.now(), hop),
                    Parcel::Move { link, migrant } => {
                        stage.coverage.reach(Branch::ConnectionMoved);
                        let ticket = shard.engine.adopt(stage.now(), *migrant);
                        shard.links.insert(ticket, link);
                        stage.network.link(link).server_end = ServerEnd::At(ticket);
                    }
                }
            }
            if taken && !self.shards[sender].waiting[usize::from(number)].is_empty() {
                self.wake(stage, sender as u16);
            }
        }
    }

    fn take_commits(&mut self, stage: &mut Stage, number: u16) {
        let shard = &mut self.shards[usize::from(number)];
        while let Some(commit) = shard.announcements.pop_front() {
            shard.engine.announced(stage.now(), commit.outcomes, commit.deliveries);
        }
        if !shard.folded.is_empty() {
            let heads: Vec<_> = std::mem::take(&mut shard.folded).into_iter().collect();
            shard.engine.folded(stage.now(), &heads);
        }
    }

    fn take_replies(&mut self, stage: &mut Stage, number: u16) {
        let shard = &mut self.shards[usize::from(number)];
        while let Some(reply) = shard.replies.pop_front() {
            shard.asked -= 1;
            match reply {
                Reply::Answer(key, answer) => shard.engine.answered(stage.now(), key, answer),
                Reply::Hashed(key, done) => shard.engine.hashed(stage.now(), key, done),
            }
        }
    }

    fn do_effects(&mut self, stage: &mut Stage, number: u16) -> bool {
        let mut any = false;
        while let Some(effect) = self.shards[usize::from(number)].engine.next_effect() {
            any = true;
            match effect {
                Effect::Submit(submission) => self.submit(stage, submission),
                Effect::Ask(origin, query) => self.ask(stage, number, origin, query),
                Effect::Hop(to, hop) => self.post(stage, number, to, Parcel::Hop(hop)),
                Effect::Hash(origin, work) => {
                    self.shards[usize::from(number)].asked += 1;
                    let hash = ServerHappening::Hash(Box::new((origin, work)));
                    stage.after_about(50_000, Happening::Server(self.life, hash));
                }
                Effect::Stats(origin) => {
                    let shard = &mut self.shards[usize::from(number)];
                    let counters = shard.engine.counters().render("shard");
                    shard.engine.counted(stage.now(), origin.key, counters);
                }
                Effect::Move(ticket, to, migrant) => {
                    let shard = &mut self.shards[usize::from(number)];
                    let Some(link) = shard.links.remove(&ticket) else { continue };
                    shard.engine.closed(stage.now(), ticket);
                    let connection = stage.network.link(link);
                    connection.server_end = ServerEnd::Between;
                    (connection.reading, connection.blocked) = (false, false);
                    self.post(stage, number, to, Parcel::Move { link, migrant: Box::new(migrant) });
                }
                Effect::Read(ticket) => {
                    let shard = &mut self.shards[usize::from(number)];
                    let Some(&link) = shard.links.get(&ticket) else { continue };
                    stage.network.link(link).reading = true;
                    shard.readable.push(ticket);
                }
                Effect::Close(ticket) => self.lose(stage, number, ticket),
            }
        }
        any
    }

    fn ask(&mut self, stage: &mut Stage, number: u16, origin: Origin, query: Query) {
        match self.committer.answer(starling_storage::Tier::Memory, &query) {
            Some(answer) => {
                let engine = &mut self.shards[usize::from(number)].engine;
                engine.answered(stage.now(), origin.key, answer);
            }
            None => {
                stage.coverage.reach(Branch::CacheMissed);
                self.shards[usize::from(number)].questions.push_back((origin, query));
                self.retry_questions(stage, number);
            }
        }
    }

    /// Hands questions to the readers, as many as those have room for.
    fn retry_questions(&mut self, stage: &mut Stage, number: u16) {
        let shard = &mut self.shards[usize::from(number)];
        while shard.asked < stage.plan.lane_entries {
            let Some((origin, query)) = shard.questions.pop_front() else { return };
            shard.asked += 1;
            let answer = ServerHappening::Answer(Box::new((origin, query)));
            stage.after_about(stage.plan.read_us, Happening::Server(self.life, answer));
        }
        if !shard.questions.is_empty() {
            stage.coverage.reach(Branch::QuestionWaited);
        }
    }

    fn post(&mut self, stage: &mut Stage, from: u16, to: u16, parcel: Parcel) {
        self.shards[usize::from(from)].waiting[usize::from(to)].push_back(parcel);
        self.retry_lane(stage, from, to);
    }

    fn retry_parcels(&mut self, stage: &mut Stage, number: u16) {
        for to in 0..self.shards.len() as u16 {
            self.retry_lane(stage, number, to);
        }
    }

    fn retry_lane(&mut self, stage: &mut Stage, from: u16, to: u16) {
        let mut sent = false;
        while self.shards[usize::from(to)].lanes[usize::from(from)].len() < stage.plan.lane_entries
        {
            let waiting = &mut self.shards[usize::from(from)].waiting[usize::from(to)];
            let Some(parcel) = waiting.pop_front() else { break };
            self.shards[usize::from(to)].lanes[usize::from(from)].push_back(parcel);
            sent = true;
        }
        if sent {
            self.wake(stage, to);
        }
        if !self.shards[usize::from(from)].waiting[usize::from(to)].is_empty() {
            stage.coverage.reach(Branch::MoveWaited);
        }
    }

    fn flush(&mut self, stage: &mut Stage, number: u16, ticket: Ticket) {
        let shard = &mut self.shards[usize::from(number)];
        let Some(&link) = shard.links.get(&ticket) else { return };
        let output = shard.engine.output(ticket);
        if output.is_empty() || stage.network.link(link).blocked {
            return;
        }
        let (wanted, written) = (output.len(), stage.send_to_device(link, output));
        if written < wanted {
            stage.network.link(link).blocked = true;
            stage.coverage.reach(Branch::WriteBlocked);
        }
        if written > 0 {
            shard.engine.written(stage.now(), ticket, written);
        }
    }
}
