//! A process of an app: the real session of the SDK over a profile, a link to the server, and a
//! clock of its own. It logs in as an app would, by REGISTER or LOGIN on a connection.

mod events;
mod link;
mod login;

use crate::{
    coverage::Branch,
    network::LinkId,
    person::Person,
    plan::Trouble,
    profile::Profile,
    stage::{Happening, Stage},
    witness::Witness,
};
pub use events::branch_of;
use login::LogIn;
use starling_client::{
    Entry, EntryState, Identity, MemoryStore, Outgoing, Request, Session, SessionSettings, Wish,
};
use starling_codec::{DeviceId, Nonce, Place, UserId, history::At, wire};
use std::collections::BTreeSet;

/// What a process does.
enum Doing {
    /// Nothing; from this time on it starts again.
    Off {
        until_us: u64,
    },
    /// It is not to start again.
    Gone,
    LogsIn(LogIn),
    Runs(Box<Session<Profile>>),
}

pub struct Process {
    pub number: usize,
    pub person: usize,
    pub profile: Profile,
    /// The process whose profile was copied for this one.
    pub copy_of: Option<usize>,
    /// Whose observations these are, in the history. A copy is known there as a device of its
    /// own, for the history of one device is one sequence.
    at: Option<At>,
    doing: Doing,
    link: Option<LinkId>,
    /// A link is being opened; it is there, or is not, at this time.
    opening_until_us: Option<u64>,
    due_us: Option<u64>,
    clock_ahead_ms: u64,
    clock_drift_ppm: i64,
    /// Frames that were written in part.
    said: Vec<u8>,
    /// What came before the first whole frame of a connection.
    heard: Option<Vec<u8>>,
    welcome: Option<wire::Welcome>,
    slow_until_us: u64,
    pub backup: Option<MemoryStore>,
    /// Wrong guesses in a row.
    guesses: usize,
    /// Requests of the session that have no answer.
    asked: BTreeSet<u32>,
}

/// Device numbers of copies in the history begin here.
const COPIES: u32 = 1_000_000;

impl Process {
    pub fn new(number: usize, person: usize, profile: Profile, stage: &mut Stage) -> Process {
        let drifts = stage.plan.troubles.has(Trouble::ClockDrift);
        let drift_ppm = stage.random.below(400_000) as i64 - 200_000;
        Process {
            number,
            person,
            profile,
            copy_of: None,
            at: None,
            doing: Doing::Off { until_us: 0 },
            link: None,
            opening_until_us: None,
            due_us: None,
            clock_ahead_ms: stage.random.below(1 << 40),
            clock_drift_ppm: if drifts { drift_ppm } else { 0 },
            said: Vec::new(),
            heard: None,
            welcome: None,
            slow_until_us: 0,
            backup: None,
            guesses: 0,
            asked: BTreeSet::new(),
        }
    }

    fn now_ms(&self, stage: &Stage) -> u64 {
        let rate = (1_000_000 + self.clock_drift_ppm) as u64;
        self.clock_ahead_ms + stage.now_us / 1_000 * rate / 1_000_000
    }

    /// When this process's clock shows a time.
    fn us_of(&self, at_ms: u64) -> u64 {
        let rate = (1_000_000 + self.clock_drift_ppm) as u64;
        (at_ms.saturating_sub(self.clock_ahead_ms) * 1_000_000).div_ceil(rate) * 1_000
    }

    pub fn session(&mut self) -> Option<&mut Session<Profile>> {
        match &mut self.doing {
            Doing::Runs(session) => Some(session),
            _ => None,
        }
    }

    /// The person writes a message, if the outbox has room.
    pub fn write_message(&mut self, stage: &Stage, nonce: Nonce, message: Outgoing) {
        let now_ms = self.now_ms(stage);
        if let Doing::Runs(session) = &mut self.doing {
            let _ = session.send(now_ms, nonce, message);
        }
    }

    /// The person asks for something, unless she asked for too much already.
    pub fn request(&mut self, stage: &Stage, request: Request) {
        let now_ms = self.now_ms(stage);
        if let Doing::Runs(session) = &mut self.doing {
            self.asked.extend(session.request(now_ms, request));
        }
    }

    pub fn is_gone(&self) -> bool {
        matches!(self.doing, Doing::Gone)
    }

    /// Is up, and everything it was asked to do is done. `Err` says what is not.
    pub fn is_settled(&self) -> Result<(), String> {
        match &self.doing {
            Doing::Gone => Ok(()),
            Doing::Off { .. } => Err("is not running".to_owned()),
            Doing::LogsIn(_) => Err("is not logged in".to_owned()),
            Doing::Runs(session) if !session.is_live() => Err("is not online".to_owned()),
            Doing::Runs(session) => {
                let open = |entry: &&Entry| !matches!(entry.state, EntryState::Unsent(_));
                match (session.outbox().find(open), self.asked.first()) {
                    (Some(entry), _) => Err(format!("has no answer to send {}", entry.send_no)),
                    (None, Some(request)) => Err(format!("has no answer to request {request}")),
                    (None, None) => Ok(()),
                }
            }
        }
    }

    pub fn cursor(&self) -> Option<(UserId, starling_codec::Place)> {
        match &self.doing {
            Doing::Runs(session) => Some((session.identity()?.user, session.cursor())),
            _ => None,
        }
    }

    /// Something may have changed: does what there is to do, and plans when to look again.
    pub fn pump(
        &mut self,
        stage: &mut Stage,
        people: &mut [Person],
        witness: &mut Witness,
        server: Option<u64>,
    ) {
        self.note_written(stage, witness);
        if let Doing::Off { until_us } = self.doing {
            if stage.now_us < until_us {
                return self.wake_at(stage, until_us);
            }
            self.boot(stage, people, witness);
        }
        if let Some(at_us) = self.opening_until_us {
            if stage.now_us < at_us {
                return self.wake_at(stage, at_us);
            }
            self.opening_until_us = None;
            self.opened(stage, people, server);
        }
        match &self.doing {
            Doing::Off { .. } | Doing::Gone => {}
            Doing::LogsIn(_) => self.log_in(stage, people, witness),
            Doing::Runs(_) => self.run(stage, witness),
        }
    }

    /// A deadline of this process has come, perhaps one that is out of date.
    pub fn is_due(&mut self, now_us: u64) -> bool {
        let due = self.due_us.is_some_and(|due_us| due_us <= now_us);
        if due {
            self.due_us = None;
        }
        due
    }

    pub fn wake_at(&mut self, stage: &mut Stage, at_us: u64) {
        let at_us = at_us.max(stage.now_us);
        if self.due_us.is_none_or(|due_us| at_us < due_us) {
            self.due_us = Some(at_us);
            stage.at(at_us, Happening::Process(self.number));
        }
    }

    /// The app starts.
    fn boot(&mut self, stage: &mut Stage, people: &[Person], witness: &mut Witness) {
        let identity = self.profile.look(|store| store.saved().identity.clone());
        if identity.as_ref().is_some_and(Identity::is_logged_in) {
            self.start_session(stage, witness);
        } else {
            let person = &people[self.person];
            let first = person.processes.first() == Some(&self.number);
            if !person.registered && !first {
                // Somebody else of hers registers.
                self.doing = Doing::Off { until_us: stage.now_us + 1_000_000 };
                return self.wake_at(stage, stage.now_us + 1_000_000);
            }
            self.doing = Doing::LogsIn(LogIn { register: !person.registered, ..LogIn::default() });
        }
    }

    fn start_session(&mut self, stage: &mut Stage, witness: &mut Witness) {
        let settings = SessionSettings {
            window_events: stage.plan.window_events,
            heartbeat_max_s: 40,
            ..SessionSettings::default()
        };
        let seed = stage.random.draw();
        // This store fails only when it commits.
        let session =
            Session::load(self.profile.clone(), settings, seed).expect("a store in memory");
        let identity = session.identity().expect("a session that is logged in knows who it is");
        let mut device = identity.device;
        if self.copy_of.is_some() {
            device = DeviceId(COPIES + self.number as u32);
        }
        let at = At { user: identity.user, device };
        if self.copy_of.is_some() && self.at != Some(at) {
            // What the copy began with, it has seen.
            self.profile.look(|store| {
                for event in store.events().values() {
                    witness.event(at, event);
                }
            });
        }
        self.at = Some(at);
        stage.note(
            "session starts",
            &[self.number as u64, u64::from(at.user.0), u64::from(at.device.0)],
        );
        self.doing = Doing::Runs(Box::new(session));
        // Who asked in an earlier life is not there to be answered.
        self.asked.clear();
    }

    /// One look after the session.
    fn run(&mut self, stage: &mut Stage, witness: &mut Witness) {
        let now_ms = self.now_ms(stage);
        let Doing::Runs(session) = &mut self.doing else { return };
        if session.next_deadline().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            let was_live = session.is_live();
            session.tick(now_ms);
            if was_live && !session.is_live() {
                stage.coverage.reach(Branch::FoundDead);
            }
        }
        if stage.now_us >= self.slow_until_us {
            session.set_keeping_up(true);
        }
        if let Some(reason) = self.take_events(stage, witness) {
            self.write(stage, witness);
            self.drop_link(stage);
            return self.stopped(stage, reason);
        }
        let Doing::Runs(session) = &self.doing else { return };
        match session.wish() {
            Wish::Close => self.drop_link(stage),
            Wish::OpenAt(at_ms) => {
                self.drop_link(stage);
                if at_ms <= now_ms {
                    self.open_link(stage);
                } else {
                    self.wake_at(stage, self.us_of(at_ms));
                }
            }
            Wish::Keep => self.write(stage, witness),
        }
        let Doing::Runs(session) = &self.doing else { return };
        if let Some(deadline_ms) = session.next_deadline() {
            let at_us = self.us_of(deadline_ms).max(stage.now_us + 1_000);
            self.wake_at(stage, at_us);
        }
        if self.slow_until_us > stage.now_us {
            self.wake_at(stage, self.slow_until_us);
        }
    }

    /// The app is killed; it starts again after a while. What was not committed is gone.
    pub fn crash(&mut self, stage: &mut Stage, off_us: u64) {
        if self.is_gone() {
            return;
        }
        self.doing = Doing::Off { until_us: stage.now_us + off_us };
        self.opening_until_us = None;
        self.drop_link(stage);
        self.wake_at(stage, stage.now_us + off_us);
    }

    /// The device is given what an older backup of it had.
    pub fn restore(&mut self, stage: &mut Stage, witness: &mut Witness, backup: MemoryStore) {
        self.crash(stage, 1_000);
        if let Some(at) = self.at {
            // It may hold again what it was told to remove meanwhile.
            witness.restored(at, Place::START);
            backup.events().values().for_each(|event| witness.event(at, event));
        }
        self.profile = Profile::new(backup);
    }

    /// The app does not take its events for a while.
    pub fn slow_down(&mut self, stage: &mut Stage, until_us: u64) {
        self.slow_until_us = until_us;
        if let Doing::Runs(session) = &mut self.doing {
            session.set_keeping_up(false);
            stage.coverage.reach(Branch::WindowClosed);
        }
        self.wake_at(stage, until_us);
    }

    /// No more troubles.
    pub fn calm_down(&mut self, stage: &mut Stage) {
        self.slow_until_us = 0;
        self.wake_at(stage, stage.now_us);
    }

    /// The process goes for good.
    pub fn go(&mut self, stage: &mut Stage) {
        self.drop_link(stage);
        self.doing = Doing::Gone;
    }

    /// Where its observations stand in the history.
    pub fn at(&self) -> Option<At> {
        self.at
    }
}
