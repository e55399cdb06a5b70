//! A world: people with devices, the network, one server, and a seed that decides everything.

use crate::{
    coverage::{Branch, Coverage},
    disk::Disk,
    network::ServerEnd,
    person::Person,
    plan::{Plan, Troubles},
    process::Process,
    profile::Profile,
    random::Random,
    server::{End, Server},
    stage::{Happening, Stage},
    trace::Trace,
    witness::Witness,
};
use starling_codec::{
    Answer, EncodedEvents, Epoch, EpochTag, Place, Query, append_event, history::After, wire::Event,
};
use starling_engine::Keyring;
use starling_storage::{Backend, Family, MemoryBackend, Tier};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

/// Once faults have ended, everything outstanding is answered within so much time.
const CALM_BOUND_US: u64 = 60 * 60 * 1_000_000;
/// And within so many steps.
const CALM_STEPS: u64 = 2_000_000;
/// How long it takes to restore a backup, as the server's clock shows it.
const RESTORE_TAKES_MS: i64 = 60 * 60 * 1_000;
/// Backups that are kept.
const BACKUPS: usize = 3;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Hash of all that happened.
    pub hash: u64,
    pub coverage: Coverage,
    /// What was wrong; empty: nothing.
    pub failures: Vec<String>,
    /// Steps taken, those after the faults ended not counted.
    pub steps: u64,
}

impl Report {
    /// Of a run that ended in a panic.
    pub fn panicked(words: &str) -> Report {
        let failures = vec![format!("panic: {words}")];
        Report { hash: 0, coverage: Coverage::default(), failures, steps: 0 }
    }
}

/// See the module.
pub struct World {
    pub stage: Stage,
    pub server: Option<Server>,
    pub disk: Disk,
    pub people: Vec<Person>,
    pub processes: Vec<Process>,
    pub witness: Witness,
    keyring: Keyring,
    /// Lives of the server so far.
    lives: u64,
    /// What the next opening comes after.
    pub after: After,
    backups: Vec<Backup>,
}

struct Backup {
    rows: MemoryBackend,
    accounts: Accounts,
}

impl Backup {
    fn of(disk: &Disk) -> Backup {
        let rows = disk.backup();
        let accounts = accounts_in(&rows);
        Backup { rows, accounts }
    }
}

/// Whose every user and device is: names with their users, and the keys of devices.
type Accounts = BTreeSet<(Family, Vec<u8>, Vec<u8>)>;

/// Users and devices that a store knows, whether or not anybody has heard of them yet: who is told
/// that her name is taken counts on the account as much as whoever was granted one.
fn accounts_in(rows: &MemoryBackend) -> Accounts {
    let view = rows.view();
    let mut accounts = Accounts::new();
    for family in [Family::Name, Family::Device] {
        let end = [0xff; 20];
        let scanned = view.scan(Tier::All, family, &[], &end, &mut |key, value| {
            // Of a device's rows that of part 0 is its record, which changes with every login.
            if family == Family::Name {
                accounts.insert((family, key.to_vec(), value.to_vec()));
            } else if key.last() == Some(&0) {
                accounts.insert((family, key.to_vec(), Vec::new()));
            }
            ControlFlow::Continue(())
        });
        // What is in memory is always read.
        scanned.expect("rows in memory");
    }
    accounts
}

impl World {
    /// The world of a seed, with some of its troubles taken away.
    pub fn new(seed: u64, taken_away: Troubles, told: bool) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random.fork(), taken_away);
        let disk = Disk::new(random.fork(), plan.cold_percent);
        let trace = Trace::new(told);
        trace.tell(0, || format!("{plan:#?}\n{:?}", plan.troubles.iter().collect::<Vec<_>>()));
        let mut stage = Stage::new(random, plan, trace);
        let mut people = Vec::new();
        let mut processes = Vec::new();
        for person in 0..stage.plan.people {
            let numbers = processes.len()..processes.len() + stage.plan.devices;
            for number in numbers.clone() {
                processes.push(Process::new(number, person, Profile::default(), &mut stage));
            }
            people.push(Person {
                name: format!("person-{person}"),
                passwords: vec![format!("first password of {person}")],
                user: None,
                registered: false,
                processes: numbers.collect(),
            });
            let every_us = stage.plan.act_every_us;
            stage.after_about(every_us, Happening::Act(person));
        }
        for process in &mut processes {
            let at_us = stage.random.below(100_000);
            process.wake_at(&mut stage, at_us);
        }
        stage.at(0, Happening::Start);
        let every_us = stage.plan.fault_every_us;
        stage.after_about(every_us, Happening::Fault);
        World {
            stage,
            server: None,
            disk,
            people,
            processes,
            witness: Witness::new(told),
            keyring: Keyring::new(1, &[7; 32]),
            lives: 0,
            after: After::Stop,
            backups: Vec::new(),
        }
    }

    /// Runs a world for so many steps, lets it come to rest, and says what was wrong.
    pub fn run(mut self, steps: u64) -> Report {
        let mut taken = 0;
        while taken < steps && self.step() {
            taken += 1;
        }
        let unsettled = self.calm_down();
        if let Some(server) = self.server.take() {
            server.bury(&mut self.stage);
        }
        let Stage { trace, mut coverage, .. } = self.stage;
        coverage.add(Branch::WriteFailed, self.disk.failed_writes());
        coverage.add(Branch::SyncFailed, self.disk.failed_syncs());
        let mut failures: Vec<String> = unsettled.into_iter().collect();
        failures.extend(self.witness.finish(&coverage));
        Report { hash: trace.hash(), coverage, failures, steps: taken }
    }

    /// One thing happens; false: nothing ever will.
    fn step(&mut self) -> bool {
        loop {
            let Some(happening) = self.stage.take_next() else { return false };
            if self.happens(happening) {
                return true;
            }
        }
    }

    /// Whether it was not out of date.
    fn happens(&mut self, happening: Happening) -> bool {
        match happening {
            Happening::AtServer(link) => {
                let now_us = self.stage.now_us;
                let connection = self.stage.network.link(link);
                if connection.server_end == ServerEnd::Closed || connection.dead {
                    return false;
                }
                connection.to_server.arrive(now_us);
                let ServerEnd::At(ticket) = connection.server_end else { return false };
                self.stage.note("at server", &[link as u64]);
                if let Some(server) = &mut self.server {
                    server.readable(&mut self.stage, ticket);
                }
            }
            Happening::RoomForDevice(link) => {
                let process = self.stage.network.link(link).process;
                self.pump(process);
            }
            Happening::RoomForServer(link) => {
                let connection = self.stage.network.link(link);
                let ServerEnd::At(ticket) = connection.server_end else { return false };
                if let Some(server) = &mut self.server {
                    server.writable(&mut self.stage, ticket);
                }
            }
            Happening::AtDevice(link) => {
                let now_us = self.stage.now_us;
                let connection = self.stage.network.link(link);
                if !connection.device_end || connection.dead {
                    return false;
                }
                connection.to_device.arrive(now_us);
                let process = connection.process;
                self.stage.note("at device", &[link as u64]);
                self.processes[process].arrived(&mut self.stage, link);
                self.pump(process);
            }
            Happening::Process(number) => {
                if !self.processes[number].is_due(self.stage.now_us) {
                    return false;
                }
                self.pump(number);
            }
            Happening::Act(person) => {
                if self.stage.calm {
                    return false;
                }
                let every_us = self.stage.plan.act_every_us;
                self.stage.after_about(every_us, Happening::Act(person));
                return self.act(person);
            }
            Happening::Fault => {
                if self.stage.calm {
                    return false;
                }
                self.fault();
                let every_us = self.stage.plan.fault_every_us;
                self.stage.after_about(every_us, Happening::Fault);
            }
            Happening::Start => self.start_server(),
            Happening::Server(life, happening) => {
                let stage = &mut self.stage;
                let Some(server) = self.server.as_mut().filter(|server| server.life == life) else {
                    if let crate::stage::ServerHappening::Accept(link) = happening {
                        stage.close_server_end(link);
                    }
                    return false;
                };
                if !server.happens(stage, happening) {
                    return false;
                }
                match server.end {
                    None => {}
                    Some(End::Well) => {
                        stage.coverage.reach(Branch::ShutDown);
                        self.end_server(After::Stop);
                    }
                    Some(End::Poisoned) => self.end_server(After::Kill),
                }
            }
        }
        true
    }

    pub fn pump(&mut self, number: usize) {
        let life = self.server.as_ref().map(|server| server.life);
        let process = &mut self.processes[number];
        process.pump(&mut self.stage, &mut self.people, &mut self.witness, life);
    }

    fn start_server(&mut self) {
        if self.server.is_some() {
            return;
        }
        self.lives += 1;
        let started = Server::start(&mut self.stage, &self.disk, self.lives, &self.keyring);
        match started {
            Ok(server) => {
                let (epoch, tag): (Epoch, EpochTag) = server.opening;
                self.witness.opened(self.after, epoch, tag);
                self.after = After::Stop;
                self.server = Some(server);
            }
            Err(_) => {
                self.witness.not_opened();
                self.stage.coverage.reach(Branch::OpeningFailed);
                self.stage.note("opening failed", &[self.lives]);
                self.stage.after_about(1_000_000, Happening::Start);
            }
        }
    }

    /// The process is gone; another will start.
    pub fn end_server(&mut self, after: After) {
        self.loses(after);
        let Some(server) = self.server.take() else { return };
        self.stage.note("server ends", &[server.life]);
        server.bury(&mut self.stage);
        for link in self.stage.network.on_server() {
            // What was under way may never arrive.
            if self.stage.random.chance(50) {
                let connection = self.stage.network.link(link);
                connection.to_device.lose_flying();
            }
            self.stage.close_server_end(link);
        }
        let down_us = if self.stage.calm { 100_000 } else { 1_000_000 };
        self.stage.after_about(down_us, Happening::Start);
    }

    /// The worst that happened since the last opening counts.
    fn loses(&mut self, after: After) {
        let weight = |after: After| After::ALL.iter().position(|known| *known == after);
        if weight(after) > weight(self.after) {
            self.after = after;
        }
    }

    pub fn cut_power(&mut self) {
        self.end_server(After::PowerCut);
        let lost = self.disk.cut_power();
        self.stage.coverage.reach(Branch::PowerCut);
        self.stage.coverage.add(Branch::BatchesLost, u64::from(lost > 0));
        self.stage.note("power cut", &[lost]);
    }

    pub fn back_up(&mut self) {
        let backup = Backup::of(&self.disk);
        if self.backups.len() == BACKUPS {
            self.backups.remove(0);
        }
        self.backups.push(backup);
        self.stage.note("backup", &[]);
    }

    /// An older backup is put in the database's stead. Only one that knows all users and devices:
    /// who is given the number of somebody who was lost is another story.
    pub fn restore(&mut self) {
        let accounts = accounts_in(self.disk.rows());
        self.backups.retain(|backup| backup.accounts == accounts);
        let Some(index) = self.stage.random.index(self.backups.len()) else { return };
        self.end_server(After::Restore);
        for link in self.stage.network.alive() {
            self.stage.network.link(link).to_device.lose_flying();
        }
        self.disk.restore(&self.backups[index].rows);
        // That takes its time: the ids that are lost with what is newer are past by then, and of
        // them only the clock still knows.
        self.stage.clock_off_ms += RESTORE_TAKES_MS;
        self.stage.coverage.reach(Branch::Restored);
        self.stage.note("restored", &[index as u64]);
    }

    /// Faults end. Everybody is let finish; what cannot is a failure.
    fn calm_down(&mut self) -> Option<String> {
        self.stage.note("calm", &[]);
        self.stage.calm = true;
        self.disk.heal();
        if let Some(server) = &mut self.server {
            server.calm_down(&mut self.stage);
        }
        self.end_copies();
        for process in &mut self.processes {
            process.calm_down(&mut self.stage);
        }
        let until_us = self.stage.now_us + CALM_BOUND_US;
        let mut steps = 0;
        let unsettled = loop {
            // To look costs more than a step.
            if steps % 64 == 0
                && let Some(unsettled) = self.unsettled()
            {
                if self.stage.now_us > until_us || steps > CALM_STEPS {
                    break Some(format!("not at rest after {steps} steps: {unsettled}"));
                }
            } else if steps % 64 == 0 {
                break None;
            }
            steps += 1;
            if !self.step() {
                break self.unsettled().map(|unsettled| format!("nothing happens: {unsettled}"));
            }
        };
        if unsettled.is_none() {
            self.take_stock();
        }
        unsettled
    }

    /// Of a profile and its copy one is given up, with what it had not sent. In the history both
    /// wrote as one device, so that device is one that forgot.
    fn end_copies(&mut self) {
        for number in 0..self.processes.len() {
            let Some(original) = self.processes[number].copy_of else { continue };
            self.processes[number].go(&mut self.stage);
            let original = &mut self.processes[original];
            if let Some(at) = original.at() {
                let cursor = original.profile.look(|store| store.saved().cursor);
                self.witness.restored(at, cursor);
            }
            original.crash(&mut self.stage, 1_000);
        }
    }

    /// What is not at rest, if anything is.
    fn unsettled(&mut self) -> Option<String> {
        let Some(server) = &self.server else { return Some("no server".to_owned()) };
        for process in &self.processes {
            if let Err(why) = process.is_settled() {
                let person = &self.people[process.person].name;
                return Some(format!("process {} of {person} {why}", process.number));
            }
            if let Some((user, cursor)) = process.cursor() {
                let head = head_of(server, user);
                if head != cursor {
                    let number = process.number;
                    return Some(format!("process {number} stands at {cursor:?}, not at {head:?}"));
                }
            }
        }
        None
    }

    /// What every device holds goes into the history, and is what the server has.
    fn take_stock(&mut self) {
        let Some(server) = &self.server else { return };
        let mut inboxes = BTreeMap::new();
        for process in &self.processes {
            let (Some(at), Some((user, cursor))) = (process.at(), process.cursor()) else {
                continue;
            };
            let inbox = inboxes.entry(user).or_insert_with(|| inbox_of(server, user));
            process.profile.look(|store| {
                self.witness.settled(at, cursor, store.events());
                if !holds(store.events(), inbox) {
                    let complaint =
                        format!("device {}.{} does not hold its inbox", user, at.device);
                    self.witness.complaints.push(complaint);
                }
            });
        }
    }
}

/// A whole inbox, as it was announced.
fn inbox_of(server: &Server, user: starling_codec::UserId) -> EncodedEvents {
    let (max_events, max_bytes) = (usize::MAX, usize::MAX);
    let query = Query::Inbox { user, after_seq: 0, max_events, max_bytes };
    match server.ask_view(&query) {
        Some(Answer::Events { events, .. }) => events,
        other => panic!("an inbox answered {other:?}"),
    }
}

/// Whether a device holds all of an inbox and nothing else: to encode what it holds takes less than
/// to decode what there is. Like devices keep it, every event names the one before.
fn holds(events: &BTreeMap<u64, Event>, inbox: &EncodedEvents) -> bool {
    let mut encoded = Vec::new();
    let is_at = |(index, event): (usize, &Event)| {
        encoded.clear();
        append_event(&mut encoded, &Event { prev: 0, ..event.clone() }, inbox[index].size);
        event.prev + 1 == event.seq && inbox.field(index) == encoded
    };
    events.len() == inbox.len() && events.values().enumerate().all(is_at)
}

/// The head of an inbox, as it was announced.
fn head_of(server: &Server, user: starling_codec::UserId) -> Place {
    let query = Query::Inbox { user, after_seq: u64::MAX - 1, max_events: 1, max_bytes: 1 };
    match server.ask_view(&query) {
        Some(Answer::Events { head, .. }) => head,
        other => panic!("an inbox answered {other:?}"),
    }
}
