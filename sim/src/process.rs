//! A process of an app: the real session of the SDK over a profile, a link to the server, and a
//! clock of its own. It logs in as an app would, by REGISTER or LOGIN on a connection.

use crate::{
    coverage::Branch,
    network::{LinkId, ServerEnd},
    plan::Trouble,
    profile::Profile,
    stage::{Happening, ServerHappening, Stage},
    witness::Witness,
};
use starling_client::{
    Change, Entry, EntryState, Event, Identity, MemoryStore, Outgoing, Request, RequestError,
    Session, SessionSettings, StopReason, Store, Unsent, Wish,
};
use starling_codec::{
    Decoded, DeviceId, ErrorCode, Kind, MAGIC, Nonce, PROTOCOL_VERSION, UserId, append_frame,
    decode_frame, history::At, limits, wire,
};

/// A person, as far as her processes must agree about her.
pub struct Person {
    pub name: String,
    /// What the password may be by now, the likeliest last.
    pub passwords: Vec<String>,
    pub user: Option<UserId>,
    /// The name is hers on the server.
    pub registered: bool,
    pub processes: Vec<usize>,
}

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

/// REGISTER or LOGIN under way.
#[derive(Default)]
struct LogIn {
    register: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    /// No link before this time.
    wait_until_us: u64,
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
            let _ = session.request(now_ms, request);
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
                match session.outbox().find(open) {
                    Some(entry) => Err(format!("has no answer to send {}", entry.send_no)),
                    None => Ok(()),
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
                    witness.fact(at, event.into());
                }
            });
        }
        self.at = Some(at);
        stage.note(
            "session starts",
            &[self.number as u64, u64::from(at.user.0), u64::from(at.device.0)],
        );
        self.doing = Doing::Runs(Box::new(session));
    }

    /// The link that was being opened is there, or is not.
    fn opened(&mut self, stage: &mut Stage, people: &[Person], server: Option<u64>) {
        let now_ms = self.now_ms(stage);
        let unreachable =
            stage.plan.troubles.has(Trouble::Unreachable) && !stage.calm && stage.random.one_in(5);
        let Some(life) = server.filter(|_| !unreachable) else {
            return match &mut self.doing {
                Doing::Runs(session) => session.closed(now_ms),
                Doing::LogsIn(log_in) => log_in.wait_until_us = stage.now_us + 500_000,
                Doing::Off { .. } | Doing::Gone => {}
            };
        };
        let latency_us = stage.random.around(stage.plan.latency_us);
        let link = stage.network.open(self.number, latency_us);
        self.link = Some(link);
        self.said.clear();
        self.heard = Some(Vec::new());
        let accept = Happening::Server(life, ServerHappening::Accept(link));
        stage.after_about(latency_us, accept);
        match &mut self.doing {
            Doing::Runs(session) => session.opened(now_ms),
            Doing::LogsIn(log_in) => {
                let person = &people[self.person];
                log_in.input.clear();
                log_in.output = opener(&self.profile, person, log_in.register, self.guesses);
            }
            Doing::Off { .. } | Doing::Gone => self.drop_link(stage),
        }
    }

    fn open_link(&mut self, stage: &mut Stage) {
        let at_us = stage.now_us + stage.random.around(stage.plan.latency_us);
        self.opening_until_us = Some(at_us);
        self.wake_at(stage, at_us);
    }

    /// Lets go of the link, if there is one.
    pub fn drop_link(&mut self, stage: &mut Stage) {
        if let Some(link) = self.link.take() {
            stage.close_device_end(link);
        }
    }

    /// Something arrived on a link.
    pub fn arrived(&mut self, stage: &mut Stage, link: LinkId) {
        if self.link != Some(link) {
            return;
        }
        let mut bytes = Vec::new();
        let most = if stage.random.one_in(8) { stage.random.range(1, 64) } else { 65_536 };
        let pipe = &mut stage.network.link(link).to_device;
        pipe.read(most as usize, &mut bytes);
        if !bytes.is_empty() {
            stage.trace.bytes(&bytes);
            if let Some(heard) = &mut self.heard {
                heard.extend_from_slice(&bytes);
                if let Decoded::Frame(raw) = decode_frame(heard, limits::MAX_LARGE_FRAME_BYTES) {
                    if let Ok(Some(frame)) = raw.known()
                        && frame.kind == Kind::Welcome
                    {
                        self.welcome = frame.body().ok();
                    }
                    self.heard = None;
                }
            }
            let now_ms = self.now_ms(stage);
            match &mut self.doing {
                Doing::Runs(session) => session.receive(now_ms, &bytes),
                Doing::LogsIn(log_in) => log_in.input.extend_from_slice(&bytes),
                Doing::Off { .. } | Doing::Gone => {}
            }
        }
        let pipe = &stage.network.link(link).to_device;
        if pipe.is_over() {
            self.lose_link(stage);
        } else if pipe.has_bytes() {
            stage.at(stage.now_us, Happening::AtDevice(link));
        }
        self.unblock_server(stage, link);
    }

    /// Room was made: the server may write again.
    fn unblock_server(&self, stage: &mut Stage, link: LinkId) {
        let connection = stage.network.link(link);
        if connection.blocked
            && let ServerEnd::At(_) = connection.server_end
        {
            connection.blocked = false;
            stage.at(stage.now_us, Happening::RoomForServer(link));
        }
    }

    fn lose_link(&mut self, stage: &mut Stage) {
        self.drop_link(stage);
        let now_ms = self.now_ms(stage);
        match &mut self.doing {
            Doing::Runs(session) => session.closed(now_ms),
            Doing::LogsIn(log_in) => log_in.wait_until_us = stage.now_us + 500_000,
            Doing::Off { .. } | Doing::Gone => {}
        }
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

    /// Takes what the session tells. Says why it ended, if it did.
    fn take_events(&mut self, stage: &mut Stage, witness: &mut Witness) -> Option<StopReason> {
        self.note_written(stage, witness);
        let Doing::Runs(session) = &mut self.doing else { return None };
        let at = self.at?;
        let own = session.identity().map_or(at, |own| At { user: own.user, device: own.device });
        if self.profile.take_refreshed() {
            stage.coverage.reach(Branch::TokenRefreshed);
        }
        let mut stopped = None;
        while let Some(event) = session.poll_event() {
            stage.tell(|| format!("{}.{}: {event:?}", at.user, at.device));
            match event {
                Event::Online(online) => {
                    let unanswered = session.unanswered() > 0;
                    if unanswered {
                        stage.coverage.reach(Branch::ResumedInDoubt);
                    }
                    witness.online(at, &online, self.welcome.as_ref());
                    self.guesses = 0;
                    stage.note("online", &[self.number as u64]);
                }
                Event::Stopped(reason) => stopped = Some(reason),
                Event::Answered { result, .. } => {
                    if result == Err(RequestError::Lost) {
                        stage.coverage.reach(Branch::RequestLost);
                    }
                    if let Ok(answer) = &result {
                        witness.answered(stage, at, answer);
                    }
                }
                Event::Offline { why, .. } => {
                    if why.and_then(|why| why.code()) == Some(ErrorCode::LoggedOut) {
                        stage.coverage.reach(Branch::LoggedOut);
                    }
                    witness.offline(at);
                }
                event => witness.told(stage, at, own, event),
            }
        }
        stopped
    }

    /// Messages that got a number, or another one. Whatever becomes of this profile, its backup may
    /// have them.
    fn note_written(&self, stage: &mut Stage, witness: &mut Witness) {
        for entry in self.profile.take_written() {
            let own = self.profile.look(|store| {
                let own = store.saved().identity.as_ref();
                own.map(|own| At { user: own.user, device: own.device })
            });
            if let Some(own) = own {
                witness.wrote(stage, own, &entry);
            }
        }
    }

    fn stopped(&mut self, stage: &mut Stage, reason: StopReason) {
        stage.note("session stopped", &[self.number as u64]);
        stage.tell(|| format!("process {} stopped: {reason}", self.number));
        let wait_us = stage.random.around(1_000_000);
        self.doing = Doing::Off { until_us: stage.now_us + wait_us };
        match reason {
            StopReason::Replaced { .. } => {
                stage.coverage.reach(Branch::Replaced);
                if self.copy_of.is_some() {
                    self.doing = Doing::Gone;
                }
            }
            StopReason::LoginNeeded(_) => {
                stage.coverage.reach(Branch::TokenRevoked);
                if self.copy_of.is_some() {
                    self.doing = Doing::Gone;
                } else {
                    self.forget_token();
                }
            }
            StopReason::LoggedOut => {
                stage.coverage.reach(Branch::LoggedOut);
                if self.copy_of.is_some() {
                    self.doing = Doing::Gone;
                }
            }
            StopReason::Store(_) => stage.coverage.reach(Branch::StoreFailed),
            StopReason::Closed | StopReason::NotLoggedIn | StopReason::Version => {}
        }
        if !self.is_gone() {
            self.wake_at(stage, stage.now_us + wait_us);
        }
    }

    /// The user is to log in anew.
    fn forget_token(&mut self) {
        // This store fails only when it is told to, and then the old token is refused again.
        let _ = self.profile.clone().commit(&[Change::LoggedOut]);
    }

    /// Writes what the link takes.
    fn write(&mut self, stage: &mut Stage, witness: &mut Witness) {
        let Some(link) = self.link else { return };
        let Doing::Runs(session) = &mut self.doing else { return };
        let output = session.output();
        if output.is_empty() {
            return;
        }
        let taken = stage.send_to_server(link, output);
        self.said.extend_from_slice(&output[..taken]);
        session.written(taken);
        if let Some(at) = self.at {
            self.note_acknowledgements(at, stage, witness);
        }
    }

    /// Finds in what was written how far the inbox was acknowledged.
    fn note_acknowledgements(&mut self, at: At, stage: &mut Stage, witness: &mut Witness) {
        let mut used = 0;
        while let Decoded::Frame(raw) = decode_frame(&self.said[used..], limits::MAX_FRAME_BYTES) {
            used += raw.size;
            let Ok(Some(frame)) = raw.known() else { continue };
            let cursor = match frame.kind {
                Kind::Ack => frame.body::<wire::Ack>().ok().and_then(|ack| ack.cursor),
                Kind::Hello => frame.body::<wire::Hello>().ok().and_then(|hello| hello.cursor),
                Kind::Sync => {
                    stage.coverage.reach(Branch::GapSynced);
                    None
                }
                _ => None,
            };
            if let Some(cursor) = cursor {
                witness.acknowledged(at, cursor.into());
            }
        }
        self.said.drain(..used);
    }

    /// REGISTER or LOGIN: one look at how it goes.
    fn log_in(&mut self, stage: &mut Stage, people: &mut [Person], witness: &mut Witness) {
        let Doing::LogsIn(log_in) = &mut self.doing else { return };
        let Some(link) = self.link else {
            let wait_until_us = log_in.wait_until_us;
            if self.opening_until_us.is_some() {
                return;
            }
            return match stage.now_us >= wait_until_us {
                true => self.open_link(stage),
                false => self.wake_at(stage, wait_until_us),
            };
        };
        if !log_in.output.is_empty() {
            let taken = stage.send_to_server(link, &log_in.output);
            log_in.output.drain(..taken);
            // No longer than a server waits for an opening.
            let patience_us = 2 * limits::OPENING_TIMEOUT_MS * 1_000;
            log_in.wait_until_us = stage.now_us + patience_us;
            self.wake_at(stage, stage.now_us + patience_us);
            return;
        }
        let input = std::mem::take(&mut log_in.input);
        let Decoded::Frame(raw) = decode_frame(&input, limits::MAX_FRAME_BYTES) else {
            log_in.input = input;
            let wait_until_us = log_in.wait_until_us;
            if stage.now_us >= wait_until_us {
                self.drop_link(stage);
            }
            return self.wake_at(stage, wait_until_us);
        };
        let person = &mut people[self.person];
        let frame = raw.known().ok().flatten();
        let kind = frame.map(|frame| frame.kind);
        stage.tell(|| format!("process {} logs in: {kind:?}", self.number));
        let (mut retry_after_ms, mut refused) = (100, None);
        match frame.map(|frame| (frame.kind, frame)) {
            Some((Kind::Grant, frame)) => {
                let grant: wire::Grant = frame.body().expect("the server's grant");
                let identity = Identity::granted(&grant, stage.now().unix_ms);
                let registered = std::mem::replace(&mut person.registered, true);
                let taken_again = self
                    .profile
                    .look(|store| store.saved().belongs_to(identity.user, identity.device))
                    && self.profile.look(|store| store.saved().identity.is_some());
                stage.coverage.reach(match (registered, taken_again) {
                    (false, _) => Branch::Registered,
                    (true, true) => Branch::LoggedInAgain,
                    (true, false) => Branch::NewDevice,
                });
                witness.granted(stage, &person.name, identity.user);
                person.user = Some(identity.user);
                self.guesses = 0;
                self.drop_link(stage);
                if self.profile.clone().commit(&[Change::Identity(identity)]).is_ok() {
                    self.start_session(stage, witness);
                }
                return self.wake_at(stage, stage.now_us);
            }
            Some((Kind::Refused, frame)) => {
                let answer: wire::Refused = frame.body().expect("the server's refusal");
                retry_after_ms = u64::from(answer.retry_after_ms);
                refused = ErrorCode::from_number(answer.code);
            }
            Some((Kind::Close, frame)) => {
                let close: wire::Close = frame.body().expect("the server's close");
                retry_after_ms = u64::from(close.retry_after_ms);
            }
            _ => {}
        }
        self.drop_link(stage);
        stage.tell(|| format!("process {} is refused: {refused:?}", self.number));
        match refused {
            Some(ErrorCode::NameTaken) => person.registered = true,
            Some(ErrorCode::WrongPassword) => {
                self.guesses += 1;
                stage.coverage.reach(Branch::LoginRefused);
            }
            Some(ErrorCode::DeviceLimit) => self.doing = Doing::Gone,
            _ => {}
        }
        if let Doing::LogsIn(log_in) = &mut self.doing {
            log_in.register = !person.registered;
            log_in.wait_until_us = stage.now_us + retry_after_ms.max(10) * 1_000;
        }
        self.wake_at(stage, stage.now_us);
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
            witness.restored(at, backup.saved().cursor);
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

/// A REGISTER or LOGIN frame.
fn opener(profile: &Profile, person: &Person, register: bool, guesses: usize) -> Vec<u8> {
    let opening = Some(wire::Opening {
        magic: MAGIC,
        version: PROTOCOL_VERSION,
        capabilities: 0,
        client: "simulation".to_owned(),
    });
    let (name, platform) = (person.name.clone(), "simulation".to_owned());
    // The likeliest first; each person has at least one.
    let at = person.passwords.len() - 1 - guesses % person.passwords.len();
    let password = person.passwords[at].clone();
    let mut frame = Vec::new();
    if register {
        let register = wire::Register { opening, name, password, platform };
        append_frame(&mut frame, Kind::Register, &register);
    } else {
        let device = profile.look(|store| store.saved().identity.as_ref().map(|own| own.device.0));
        let device = device.unwrap_or_default();
        let login = wire::Login { opening, name, password, device, platform };
        append_frame(&mut frame, Kind::Login, &login);
    }
    frame
}

/// Why a message came back, as a branch.
pub fn branch_of(unsent: Unsent) -> Branch {
    match unsent {
        Unsent::Lost => Branch::MessageLost,
        Unsent::Stale => Branch::MessageStale,
    }
}
