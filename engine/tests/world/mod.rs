//! Engines, a stand-in for the store and links to peers, in virtual time: nothing here waits.

#![allow(dead_code)]

pub mod peer;
pub mod store;

use prost::Message as _;
use starling_codec::{
    Decoded, ErrorCode, Frame, Kind, MessageId, Origin, Query, Submission, Ticket, UserId,
    decode_frame, wire,
};
use starling_engine::{
    Effect, Engine, HashDone, HashWork, Hop, Identity, Keyring, Now, Reading, Settings,
    route::Route,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::LazyLock,
};
use store::Store;

pub const START_MS: u64 = MessageId::TIME_ZERO_MS + 1_000_000_000;
pub const OPERATOR_KEY: &[u8] = b"the operator's key";
/// SHA-256 of it.
pub fn operator_key_hash() -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(OPERATOR_KEY).into()
}

/// A stand-in for a slow hash.
fn phc_of(password: &str) -> String {
    use sha2::Digest;
    format!("$quick${:x?}", &sha2::Sha256::digest(password)[..4])
}

/// One end of a TCP connection, the other end of which is on some engine.
#[derive(Default)]
pub struct Link {
    pub ticket: Option<Ticket>,
    stopped: bool,
    /// Sent by the peer and not read by the server yet.
    to_server: Vec<u8>,
    /// Sent by the server and not looked at by the peer yet.
    pub to_peer: Vec<u8>,
    /// The server closed it.
    pub closed: bool,
    /// How many more bytes the peer's kernel takes.
    pub takes: usize,
}

pub struct World {
    pub now: Now,
    pub engines: Vec<Engine>,
    pub store: Store,
    pub keyring: Keyring,
    pub route: Route,
    pub links: Vec<Link>,
    /// Where tickets are: a link may move.
    submissions: VecDeque<Submission>,
    pub hold_commits: bool,
    pub hold_reads: bool,
    reads: VecDeque<(Origin, Query)>,
    hops: VecDeque<(u16, Hop)>,
    /// A commit takes at most so many commands.
    pub batch: usize,
    /// Deliveries are folded to heads.
    pub fold: bool,
    /// A link still to be opened, and how many bytes its peer's kernel takes.
    pub first_takes: Option<(usize, usize)>,
    /// A link whose bytes from the server are kept.
    pub record: Option<usize>,
    pub recorded: Vec<u8>,
    settings: Vec<Settings>,
    /// The effects of the last run, told as text.
    pub log: Vec<String>,
    pub keeps_log: bool,
}

impl World {
    pub fn new(shards: u16) -> World {
        World::with(shards, |_| {})
    }

    pub fn with(shards: u16, change: impl Fn(&mut Settings)) -> World {
        let now = Now { mono_ms: 5_000, unix_ms: START_MS };
        let keyring = Keyring::new(1, &[7; 32]);
        let settings = |shard| {
            let operator_key_hash = operator_key_hash();
            let mut settings = Settings { shard, shards, operator_key_hash, ..Settings::default() };
            change(&mut settings);
            settings
        };
        let settings: Vec<Settings> = (0..shards).map(settings).collect();
        let engine = |settings: &Settings| Engine::new(settings.clone(), keyring.clone(), now);
        World {
            now,
            engines: settings.iter().map(engine).collect(),
            store: Store::new(),
            route: Route::even(shards),
            keyring: keyring.clone(),
            links: Vec::new(),
            submissions: VecDeque::new(),
            hold_commits: false,
            hold_reads: false,
            reads: VecDeque::new(),
            hops: VecDeque::new(),
            batch: 64,
            fold: false,
            first_takes: None,
            record: None,
            recorded: Vec::new(),
            settings,
            log: Vec::new(),
            keeps_log: true,
        }
    }

    /// A user as the operator would make her; her token.
    pub fn user(&mut self, name: &str) -> (UserId, Vec<u8>) {
        let draft = starling_codec::UserDraft {
            name: name.into(),
            password_hash: None,
            platform: String::new(),
        };
        let command =
            starling_codec::Command::CreateUsers { drafts: vec![draft], time_ms: START_MS };
        match self.store.apply(command, &mut BTreeMap::new()) {
            starling_codec::Outcome::Users(grants) => {
                (grants[0].user, self.token(grants[0].user, 1, grants[0].serial))
            }
            other => panic!("{other:?}"),
        }
    }

    /// A token of another device of a user.
    pub fn device(&mut self, user: UserId) -> Vec<u8> {
        let command = starling_codec::Command::OpenDevice {
            user,
            device: None,
            platform: String::new(),
            time_ms: START_MS,
        };
        match self.store.apply(command, &mut BTreeMap::new()) {
            starling_codec::Outcome::Granted(grant) => {
                self.token(user, grant.device.0, grant.serial)
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn token(&self, user: UserId, device: u32, serial: u32) -> Vec<u8> {
        let identity = Identity { user, device: starling_codec::DeviceId(device), serial };
        self.keyring.sign(identity, START_MS / 1_000 + 86_400).to_vec()
    }

    /// A connection that is accepted by some shard.
    pub fn connect(&mut self) -> usize {
        let shard = self.links.len() % self.engines.len();
        let ticket = self.engines[shard].open(self.now).expect("room for a connection");
        let link = self.links.len();
        let limit = self.first_takes.filter(|(first, _)| *first == link);
        let takes = limit.map_or(usize::MAX, |(_, bytes)| bytes);
        self.links.push(Link { ticket: Some(ticket), takes, ..Link::default() });
        link
    }

    /// The peer cuts the link: what it sent and was not read is lost.
    pub fn cut(&mut self, link: usize) {
        if let Some(ticket) = self.links[link].ticket.take() {
            self.engines[usize::from(ticket.shard)].closed(self.now, ticket);
        }
        self.links[link].to_server.clear();
    }

    pub fn send(&mut self, link: usize, bytes: &[u8]) {
        self.links[link].to_server.extend_from_slice(bytes);
    }

    /// Of what the peer sent, only so many bytes get through. Says how many there were.
    pub fn limit_flight(&mut self, link: usize, bytes: usize) -> usize {
        let all = self.links[link].to_server.len();
        self.links[link].to_server.truncate(bytes);
        all
    }

    /// The server dies and starts again; the store has what it had.
    pub fn restart_engines(&mut self) {
        // Ids go on above those that were made.
        let id_floor_ms = self.now.unix_ms;
        let engine = |settings: &Settings| {
            let settings = Settings { id_floor_ms, ..settings.clone() };
            Engine::new(settings, self.keyring.clone(), self.now)
        };
        self.engines = self.settings.iter().map(engine).collect();
        for link in &mut self.links {
            (link.ticket, link.closed) = (None, true);
        }
        self.submissions.clear();
        self.reads.clear();
        self.hops.clear();
    }

    pub fn advance(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.run();
    }

    /// Lets time pass second by second.
    pub fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.advance(1_000);
        }
    }

    /// Runs until nothing moves any more.
    pub fn run(&mut self) {
        while self.step() {}
    }

    /// One turn of every shard and one commit. Says whether anything moved.
    pub fn step(&mut self) -> bool {
        let mut moved = false;
        for link in 0..self.links.len() {
            moved |= self.read(link);
        }
        for shard in 0..self.engines.len() {
            self.engines[shard].turn(self.now);
            moved |= self.do_effects(shard);
            moved |= self.flush(shard);
            moved |= self.do_effects(shard);
            moved |= self.engines[shard].wake_at().is_some_and(|at| at <= self.now.mono_ms);
        }
        while let Some((shard, hop)) = self.hops.pop_front() {
            self.engines[usize::from(shard)].hop(self.now, hop);
            moved = true;
        }
        if !self.hold_reads {
            moved |= self.answer();
        }
        if !self.hold_commits {
            moved |= self.commit();
        }
        moved
    }

    fn read(&mut self, link: usize) -> bool {
        let Link { ticket: Some(ticket), stopped: false, to_server, .. } = &mut self.links[link]
        else {
            return false;
        };
        if to_server.is_empty() {
            return false;
        }
        let bytes = std::mem::take(to_server);
        let engine = &mut self.engines[usize::from(ticket.shard)];
        let reading = engine.receive(self.now, *ticket, &bytes);
        self.links[link].stopped = reading == Reading::Stop;
        true
    }

    pub fn answer(&mut self) -> bool {
        let mut moved = false;
        while let Some((origin, query)) = self.reads.pop_front() {
            let answer = self.store.read(&query);
            self.engines[usize::from(origin.shard)].answered(self.now, origin.key, answer);
            moved = true;
        }
        moved
    }

    /// Whether a question is open.
    pub fn has_asked(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Answers the oldest question, whatever the store has by now.
    pub fn answer_one_with(&mut self, answer: starling_codec::Answer) {
        let (origin, _) = self.reads.pop_front().expect("a question");
        self.engines[usize::from(origin.shard)].answered(self.now, origin.key, answer);
    }

    /// Answers the oldest question.
    pub fn answer_one(&mut self) {
        let (origin, query) = self.reads.pop_front().expect("a question");
        let answer = self.store.read(&query);
        self.engines[usize::from(origin.shard)].answered(self.now, origin.key, answer);
    }

    pub fn commit(&mut self) -> bool {
        let count = self.submissions.len().min(self.batch);
        let mut deliveries = BTreeMap::new();
        let mut outcomes = vec![Vec::new(); self.engines.len()];
        for Submission { origin, command } in self.submissions.drain(..count) {
            let outcome = self.store.apply(command, &mut deliveries);
            outcomes[usize::from(origin.shard)].push((origin.key, outcome));
        }
        for (shard, outcomes) in outcomes.into_iter().enumerate() {
            let mine =
                deliveries.iter().filter(|(user, _)| self.route.owner_of(**user) == shard as u16);
            let mine = mine
                .map(|(&user, events)| starling_codec::Delivery { user, events: events.clone() });
            if self.fold {
                let heads: Vec<_> = mine
                    .map(|delivery| {
                        let last = delivery.events.last().expect("an event");
                        let epoch = starling_codec::Epoch(last.epoch);
                        (delivery.user, starling_codec::Place::new(last.seq, epoch))
                    })
                    .collect();
                self.engines[shard].announced(self.now, outcomes, []);
                self.engines[shard].folded(self.now, &heads);
            } else {
                let mine: Vec<_> = mine.collect();
                self.engines[shard].announced(self.now, outcomes, mine);
            }
        }
        count > 0
    }

    fn do_effects(&mut self, shard: usize) -> bool {
        let mut moved = false;
        while let Some(effect) = self.engines[shard].next_effect() {
            moved = true;
            if self.keeps_log {
                self.log.push(format!("shard {shard}: {effect:?}"));
            }
            match effect {
                Effect::Submit(submission) => self.submissions.push_back(submission),
                Effect::Ask(origin, query) => self.reads.push_back((origin, query)),
                Effect::Hop(to, hop) => self.hops.push_back((to, hop)),
                Effect::Hash(origin, work) => {
                    let done = match work {
                        HashWork::Make { password } => HashDone::Made(phc_of(password.reveal())),
                        HashWork::Verify { password, phc, .. } => {
                            let right = phc == Some(phc_of(password.reveal()));
                            if right { HashDone::Right } else { HashDone::Wrong }
                        }
                    };
                    self.engines[usize::from(origin.shard)].hashed(self.now, origin.key, done);
                }
                Effect::Stats(origin) => {
                    let counters = self.engines.iter().enumerate();
                    let counters = counters
                        .flat_map(|(shard, engine)| {
                            engine.counters().render(&format!("shard {shard}"))
                        })
                        .collect();
                    self.engines[usize::from(origin.shard)].counted(self.now, origin.key, counters);
                }
                Effect::Move(ticket, to, migrant) => {
                    // Its peer may have cut it meanwhile.
                    let Some(link) = self.link_of(ticket) else { continue };
                    self.engines[shard].closed(self.now, ticket);
                    let new = self.engines[usize::from(to)].adopt(self.now, migrant);
                    self.links[link].ticket = Some(new);
                    self.links[link].stopped = true;
                }
                Effect::Read(ticket) => {
                    if let Some(link) = self.link_of(ticket) {
                        self.links[link].stopped = false;
                    }
                }
                Effect::Close(ticket) => {
                    if let Some(link) = self.link_of(ticket) {
                        self.links[link].closed = true;
                        self.cut(link);
                    }
                }
            }
        }
        moved
    }

    fn flush(&mut self, shard: usize) -> bool {
        let mut moved = false;
        while let Some(ticket) = self.engines[shard].next_dirty() {
            if let Some(link) = self.link_of(ticket) {
                moved |= self.write(link);
            }
        }
        moved
    }

    /// Writes what the peer's kernel takes.
    pub fn write(&mut self, link: usize) -> bool {
        let Some(ticket) = self.links[link].ticket else { return false };
        let engine = &mut self.engines[usize::from(ticket.shard)];
        let output = engine.output(ticket);
        let count = output.len().min(self.links[link].takes);
        if count == 0 {
            return false;
        }
        self.links[link].takes -= count;
        self.links[link].to_peer.extend_from_slice(&output[..count]);
        if self.record == Some(link) {
            self.recorded.extend_from_slice(&output[..count]);
        }
        engine.written(self.now, ticket, count);
        true
    }

    fn link_of(&self, ticket: Ticket) -> Option<usize> {
        self.links.iter().position(|link| link.ticket == Some(ticket))
    }

    /// What the peer got since it last looked.
    pub fn frames(&mut self, link: usize) -> Vec<(Kind, Vec<u8>)> {
        let bytes = std::mem::take(&mut self.links[link].to_peer);
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let Decoded::Frame(raw) = decode_frame(rest, 1 << 20) {
            let Frame { kind, body } = raw.known().expect("a frame").expect("a known kind");
            assert!(
                kind != Kind::Close || is_told(body),
                "section 14 has not this CLOSE: {body:?}"
            );
            frames.push((kind, body.to_vec()));
            rest = &rest[raw.size..];
        }
        self.links[link].to_peer = rest.to_vec();
        frames
    }
}

/// Whether the specification tells of a CLOSE with this code.
fn is_told(close: &[u8]) -> bool {
    static TOLD: LazyLock<Vec<String>> = LazyLock::new(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol-spec.md");
        let spec = std::fs::read_to_string(path).unwrap();
        let rows = spec.lines().skip_while(|line| *line != "| code of CLOSE | when |").skip(2);
        let cells = rows.map_while(|row| row.strip_prefix("| ")?.split(" | ").next());
        cells.flat_map(|cell| cell.split(", ")).map(Into::into).collect()
    });
    let close = wire::Close::decode(close).unwrap();
    let code = ErrorCode::from_number(close.code).expect("a code of the registry");
    TOLD.iter().any(|told| told == code.name())
}
