//! The simulated server: real engines, the real sequencer and the real committer's steps, on one
//! thread and in simulated time. What is not the real thing here are the lanes between them, and
//! the time that everything takes.

mod shard;

use crate::{
    coverage::Branch,
    disk::Disk,
    network::{LinkId, ServerEnd},
    plan::Trouble,
    stage::{Happening, ServerHappening, Stage},
};
use shard::{Announced, Reply, Shard};
use starling_codec::{Announcement, Epoch, EpochTag, ErrorCode, Origin, Submission, Ticket};
use starling_engine::{Engine, HashDone, HashWork, Keyring, Settings, route::Route};
use starling_storage::{Announcer, Committer, OpenError, Step, Store, StoreSettings, Tier};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// How often the process looks after itself.
const WATCH_US: u64 = 500_000;
/// How long the shards of a process that ends may take.
const END_US: u64 = 4_000_000;
/// What the committer's counter `state` says of a disk that is nearly full.
const STATE_DISK_FULL: u64 = 1;
/// Wrong passwords that are free.
const FREE_GUESSES: u32 = 5;

/// A running server process.
pub struct Server {
    /// What belongs to another life is of a process that is gone.
    pub life: u64,
    /// The epoch that it began, and its tag.
    pub opening: (Epoch, EpochTag),
    pub shards: Vec<Shard>,
    committer: Committer,
    told: Told,
    disk: Disk,
    route: Route,
    /// What waits for the committer.
    mailbox: VecDeque<Submission>,
    commit_due_us: Option<u64>,
    /// The shards are to end, with this code.
    ending: Option<ErrorCode>,
    /// It ends well: the committer is to finish.
    closing: bool,
    disk_full: bool,
    guesses: BTreeMap<String, u32>,
    pub end: Option<End>,
}

/// How a process ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Well,
    Poisoned,
}

/// What the committer told, until somebody passes it on.
#[derive(Clone, Default)]
struct Told(Arc<Telling>);

#[derive(Default)]
struct Telling {
    announcements: Mutex<Vec<Announcement>>,
    poisoned: AtomicBool,
    wants_sync: AtomicBool,
}

impl Told {
    fn announcements(&self) -> MutexGuard<'_, Vec<Announcement>> {
        // Announcements are added whole.
        self.0.announcements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announcer for Told {
    fn announce(&mut self, announcement: Announcement) {
        self.announcements().push(announcement);
    }

    fn poisoned(&mut self, _reason: &str) {
        self.0.poisoned.store(true, Relaxed);
    }
}

impl Server {
    /// Starts a process on what the disk has.
    pub fn start(
        stage: &mut Stage,
        disk: &Disk,
        life: u64,
        keyring: &Keyring,
    ) -> Result<Server, OpenError> {
        let plan = &stage.plan;
        let settings = StoreSettings {
            max_batch_commands: plan.max_batch_commands,
            hot_entries: plan.hot_entries,
            min_free_bytes: 1,
            ..StoreSettings::default()
        };
        let (shards, credits) = (plan.shards, plan.credits);
        let tag = EpochTag(stage.random.draw());
        let store = Store::open_with_tag(Arc::new(disk.clone()), settings, tag)?;
        let opening = (store.epoch(), store.tag());
        let engine_settings = Settings {
            shards,
            credits,
            sends_per_second: stage.plan.sends_per_second,
            heartbeat_s: 30,
            token_lifetime_s: stage.plan.token_lifetime_s,
            id_floor_ms: store.id_floor_ms(),
            max_known_conversations: stage.plan.known_conversations,
            ..Settings::default()
        };
        stage.note("server starts", &[life, u64::from(store.epoch().0)]);
        let told = Told::default();
        let telling = told.0.clone();
        let start_sync = move |_| telling.wants_sync.store(true, Relaxed);
        let committer = store.stepwise(told.clone(), start_sync, stage.elapsed());
        let shards = (0..shards).map(|shard| {
            let settings = Settings { shard, ..engine_settings.clone() };
            Shard::new(Engine::new(settings, keyring.clone(), stage.now()), shards)
        });
        let server = Server {
            life,
            opening,
            shards: shards.collect(),
            committer,
            told,
            disk: disk.clone(),
            route: Route::even(engine_settings.shards),
            mailbox: VecDeque::new(),
            commit_due_us: None,
            ending: None,
            closing: false,
            disk_full: false,
            guesses: BTreeMap::new(),
            end: None,
        };
        stage.at(stage.now_us + WATCH_US, Happening::Server(life, ServerHappening::Watch));
        Ok(server)
    }

    /// Something happens in this process; false: it was out of date.
    pub fn happens(&mut self, stage: &mut Stage, happening: ServerHappening) -> bool {
        match happening {
            ServerHappening::Accept(link) => self.accept(stage, link),
            ServerHappening::Turn(number) => {
                if self.shards[usize::from(number)].due_us != Some(stage.now_us) {
                    return false;
                }
                stage.note("turn", &[u64::from(number)]);
                self.turn(stage, number);
            }
            ServerHappening::Commit => {
                if self.commit_due_us != Some(stage.now_us) {
                    return false;
                }
                stage.note("commit", &[self.mailbox.len() as u64]);
                self.commit_due_us = None;
                self.step(stage);
            }
            ServerHappening::Synced { covers, began_us } => {
                let took = std::time::Duration::from_micros(stage.now_us - began_us);
                let result = self.disk.end_sync(covers);
                self.committer.synced(result.map(|()| took), self.mailbox.len());
                self.pass_on(stage);
                self.step(stage);
            }
            ServerHappening::Answer(question) => {
                let (origin, query) = *question;
                let failed = starling_codec::Answer::Failed(ErrorCode::Internal);
                let answer = self.committer.answer(Tier::All, &query).unwrap_or(failed);
                self.reply(stage, origin, |key| Reply::Answer(key, answer));
            }
            ServerHappening::Hash(work) => {
                let (origin, work) = *work;
                let done = self.hash(stage, work);
                self.reply(stage, origin, |key| Reply::Hashed(key, done));
            }
            ServerHappening::Watch => self.watch(stage),
            ServerHappening::Die => self.end = Some(End::Poisoned),
        }
        true
    }

    /// No more troubles.
    pub fn calm_down(&mut self, stage: &mut Stage) {
        for number in 0..self.shards.len() as u16 {
            self.shards[usize::from(number)].paused_until_us = 0;
            self.wake(stage, number);
        }
    }

    fn accept(&mut self, stage: &mut Stage, link: LinkId) {
        // The kernel deals connections out to the shards by a hash of their addresses.
        let number = stage.random.below(self.shards.len() as u64) as u16;
        let shard = &mut self.shards[usize::from(number)];
        match shard.engine.open(stage.now()) {
            Ok(ticket) => {
                shard.links.insert(ticket, link);
                shard.readable.push(ticket);
                let connection = stage.network.link(link);
                connection.server_end = ServerEnd::At(ticket);
                connection.reading = true;
            }
            Err(code) => {
                stage.send_to_device(link, &Engine::farewell(code, 2_000));
                stage.close_server_end(link);
            }
        }
        self.wake(stage, number);
    }

    /// Something arrived on a connection.
    pub fn readable(&mut self, stage: &mut Stage, ticket: Ticket) {
        self.shards[usize::from(ticket.shard)].readable.push(ticket);
        self.wake(stage, ticket.shard);
    }

    /// A connection has room again.
    pub fn writable(&mut self, stage: &mut Stage, ticket: Ticket) {
        self.shards[usize::from(ticket.shard)].unblocked.push(ticket);
        self.wake(stage, ticket.shard);
    }

    fn submit(&mut self, stage: &mut Stage, submission: Submission) {
        self.mailbox.push_back(submission);
        self.wake_committer(stage);
    }

    fn wake_committer(&mut self, stage: &mut Stage) {
        let at_us = stage.now_us + stage.random.around(stage.plan.turn_us);
        self.step_at(stage, at_us);
    }

    fn step_at(&mut self, stage: &mut Stage, at_us: u64) {
        if self.commit_due_us.is_none_or(|due_us| at_us < due_us) {
            self.commit_due_us = Some(at_us);
            stage.at(at_us, Happening::Server(self.life, ServerHappening::Commit));
        }
    }

    /// One step of the committer, and the plan of the next.
    fn step(&mut self, stage: &mut Stage) {
        let (now, waiting) = (stage.elapsed(), self.mailbox.len());
        let step = self.committer.next(now, waiting, self.closing);
        match step {
            Step::Commit => {
                let syncing = self.committer.is_syncing();
                // The heads that this names are read where they are needed.
                self.committer.gather(|| self.mailbox.pop_front());
                self.committer.commit(now);
                if syncing {
                    stage.coverage.reach(Branch::BatchBesideSync);
                }
            }
            Step::Refuse => self.committer.refuse(|| self.mailbox.pop_front()),
            Step::Close => self.committer.close(),
            Step::Sleep { worth, at_most } => {
                let enough = waiting >= worth;
                let at_us = stage.now_us + at_most.as_micros() as u64;
                self.step_at(stage, if enough { stage.now_us } else { at_us });
            }
            Step::End => self.end = Some(End::Well),
        }
        self.pass_on(stage);
        if !matches!(step, Step::Sleep { .. } | Step::End) {
            self.wake_committer(stage);
        }
    }

    /// Passes on what the committer told.
    fn pass_on(&mut self, stage: &mut Stage) {
        if self.told.0.wants_sync.swap(false, Relaxed) {
            let covers = self.disk.written();
            let began_us = stage.now_us;
            let may_be_slow = stage.plan.troubles.has(Trouble::SlowSyncs) && !stage.calm;
            let slow = may_be_slow && stage.random.one_in(20);
            if slow {
                stage.coverage.reach(Branch::SyncSlow);
            }
            let mean_us = if slow { 2_000_000 } else { stage.plan.sync_us };
            let synced = ServerHappening::Synced { covers, began_us };
            stage.after_about(mean_us, Happening::Server(self.life, synced));
        }
        let announcements = std::mem::take(&mut *self.told.announcements());
        for Announcement { outcomes, deliveries } in announcements {
            let mut parts: BTreeMap<u16, Announced> = BTreeMap::new();
            for (origin, outcome) in outcomes {
                parts.entry(origin.shard).or_default().outcomes.push((origin.key, outcome));
            }
            for delivery in deliveries {
                let home = self.route.owner_of(delivery.user);
                parts.entry(home).or_default().deliveries.push(delivery);
            }
            for (number, part) in parts {
                self.shards[usize::from(number)].announce(stage, part);
                self.wake(stage, number);
            }
        }
        if self.told.0.poisoned.swap(false, Relaxed) {
            stage.coverage.reach(Branch::StorePoisoned);
            stage.note("store poisoned", &[]);
            self.end_with(stage, ErrorCode::UnknownOutcome);
            let die = Happening::Server(self.life, ServerHappening::Die);
            stage.at(stage.now_us + END_US, die);
        }
    }

    /// The process is told to end: clients hear it, the committer finishes.
    pub fn shut_down(&mut self, stage: &mut Stage) {
        if self.ending.is_none() {
            self.end_with(stage, ErrorCode::Draining);
        }
    }

    fn end_with(&mut self, stage: &mut Stage, code: ErrorCode) {
        self.ending = Some(code);
        for number in 0..self.shards.len() as u16 {
            self.wake(stage, number);
        }
        let watch = Happening::Server(self.life, ServerHappening::Watch);
        stage.at(stage.now_us + END_US, watch);
    }

    fn watch(&mut self, stage: &mut Stage) {
        let disk_full = self.committer.counters().state == STATE_DISK_FULL;
        if std::mem::replace(&mut self.disk_full, disk_full) != disk_full {
            for number in 0..self.shards.len() as u16 {
                self.wake(stage, number);
            }
        }
        let open: u64 = self.shards.iter().map(|shard| shard.engine.counters().connections).sum();
        if self.ending == Some(ErrorCode::Draining) && open == 0 && !self.closing {
            self.closing = true;
            self.wake_committer(stage);
        }
        stage.at(stage.now_us + WATCH_US, Happening::Server(self.life, ServerHappening::Watch));
    }

    fn reply(&mut self, stage: &mut Stage, origin: Origin, reply: impl FnOnce(u64) -> Reply) {
        self.shards[usize::from(origin.shard)].replies.push_back(reply(origin.key));
        self.wake(stage, origin.shard);
    }

    /// A stand-in for a slow hash: it hides nothing, and as the real pool it slows who guesses.
    fn hash(&mut self, stage: &mut Stage, work: HashWork) -> HashDone {
        if stage.random.one_in(50) {
            return HashDone::Busy { retry_after_ms: 2_000 };
        }
        let phc_of = |password: &str| format!("$sim${password}");
        match work {
            HashWork::Make { password } => HashDone::Made(phc_of(password.reveal())),
            HashWork::Verify { name, password, phc } => {
                let wrong = self.guesses.entry(name).or_default();
                if *wrong > FREE_GUESSES && stage.random.chance(70) {
                    return HashDone::Slowed { retry_after_ms: 1_000 };
                }
                let right = phc == Some(phc_of(password.reveal()));
                *wrong = if right { 0 } else { *wrong + 1 };
                if right { HashDone::Right } else { HashDone::Wrong }
            }
        }
    }

    /// The process is gone: what its counters saw is kept.
    pub fn bury(self, stage: &mut Stage) {
        let counters = self.committer.counters();
        let coverage = &mut stage.coverage;
        coverage.add(Branch::Forgotten, counters.evicted);
        coverage.add(Branch::RepeatAnswered, counters.repeats);
        coverage.add(Branch::DiskFullRefused, counters.refused_disk_full);
        for shard in &self.shards {
            let counters = shard.engine.counters();
            coverage.add(Branch::CreditsUsedUp, u64::from(counters.credits_low == 0));
            coverage.add(Branch::FoundSilent, counters.closings(ErrorCode::Silent));
            coverage.add(Branch::OpeningTimedOut, counters.closings(ErrorCode::OpeningTimeout));
            for &code in ErrorCode::ALL.iter().filter(|code| code.retryable()) {
                coverage.add(Branch::RetryableRefusal, counters.refusals(code));
            }
            coverage.add(Branch::RateLimited, counters.refusals(ErrorCode::RateLimited));
            coverage.add(Branch::LoginSlowed, counters.refusals(ErrorCode::LoginSlowed));
        }
    }

    /// Answers a question of the simulation itself, from what was announced.
    pub fn ask_view(&self, query: &starling_codec::Query) -> Option<starling_codec::Answer> {
        self.committer.answer(Tier::All, query)
    }
}
