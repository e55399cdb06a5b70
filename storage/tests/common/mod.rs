//! What the store's tests share: a store on either backend that can be opened again, commands in
//! short words, and a backend that fails as it is told.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod around;
pub mod checker;
pub mod faults;
pub mod garbled;
pub mod log;
pub mod random;

use starling_codec::{
    Accepted, Announcement, Answer, Append, Command, ConversationId, Cursor, Delivery, DeviceId,
    DeviceState, Epoch, EpochTag, ErrorCode, HistoryRequest, MessageId, Nonce, Notice, Origin,
    Outcome, Page, PageDirection, Place, Query, Recipients, SendNo, Submission, UserDraft,
    UserGrant, UserId,
    wire::{Class, Delivered, Event, event::Kind},
};
use starling_storage::{
    Announcer, Answers, Backend, MemoryBackend, Store, StoreHandle, StoreSettings,
};
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

/// Longest that any wait of a test lasts: only a broken store comes near it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Time of the first message of every test.
pub const TIME_MS: u64 = MessageId::TIME_ZERO_MS + 1_000_000;

/// That the other user of a direct conversation hears what reached a device of `by`.
pub fn receipt(by: UserId, conversation: ConversationId, seq: u64, time_ms: u64) -> Notice {
    let told = Delivered { conversation: conversation.0, user: by.0, seq, time_ms };
    Notice { to: conversation.peer_of(by).unwrap(), event: Kind::Delivered(told) }
}

pub enum Told {
    Announcement(Announcement),
    Poisoned(String),
}

pub struct Teller(pub mpsc::Sender<Told>);

impl Announcer for Teller {
    fn announce(&mut self, announcement: Announcement) {
        let _ = self.0.send(Told::Announcement(announcement));
    }

    fn poisoned(&mut self, reason: &str) {
        let _ = self.0.send(Told::Poisoned(reason.to_owned()));
    }
}

pub struct Answering(mpsc::SyncSender<(Origin, Answer)>);

impl Answers for Answering {
    fn answer(&self, _: usize, origin: Origin, answer: Answer) {
        let _ = self.0.send((origin, answer));
    }
}

/// A running store, and what it told.
pub struct Running {
    pub handle: StoreHandle,
    pub told: mpsc::Receiver<Told>,
    pub answers: mpsc::Receiver<(Origin, Answer)>,
    pub outcomes: HashMap<u64, Outcome>,
    pub deliveries: Vec<Delivery>,
    pub poisoned: Option<String>,
    next_key: u64,
    next_ms: u64,
}

impl Running {
    pub fn start(store: Store) -> Running {
        let (tell, told) = mpsc::channel();
        let (answer, answers) = mpsc::sync_channel(1_024);
        let next_ms = TIME_MS.max(store.id_floor_ms());
        let handle = store.start(Teller(tell), Answering(answer)).unwrap();
        Running {
            handle,
            told,
            answers,
            outcomes: HashMap::new(),
            deliveries: Vec::new(),
            poisoned: None,
            next_key: 1,
            next_ms,
        }
    }

    pub fn on(backend: Arc<dyn Backend>) -> Running {
        Running::with(backend, settings())
    }

    pub fn with(backend: Arc<dyn Backend>, settings: StoreSettings) -> Running {
        Running::start(Store::open_on(backend, settings).unwrap())
    }

    /// Submits a command; the key finds its outcome.
    pub fn submit(&mut self, command: Command) -> u64 {
        let key = self.queue(command);
        self.handle.wake();
        key
    }

    /// As `submit`, into the same batch as what is queued next, if the committer sleeps.
    pub fn queue(&mut self, command: Command) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        let submission = Submission { origin: Origin { shard: 0, key }, command };
        self.handle.queue(0, submission).expect("room in the mailbox");
        key
    }

    /// Takes one thing that was told; false: nothing came in time.
    pub fn hear(&mut self, at_most: Duration) -> bool {
        match self.told.recv_timeout(at_most) {
            Ok(Told::Announcement(announcement)) => {
                for (origin, outcome) in announcement.outcomes {
                    let before = self.outcomes.insert(origin.key, outcome);
                    assert_eq!(before, None, "an outcome came twice");
                }
                self.deliveries.extend(announcement.deliveries);
                true
            }
            Ok(Told::Poisoned(reason)) => {
                self.poisoned = Some(reason);
                true
            }
            Err(_) => false,
        }
    }

    pub fn outcome(&mut self, key: u64) -> Outcome {
        while !self.outcomes.contains_key(&key) {
            assert!(self.hear(PATIENCE), "no outcome for {key}");
        }
        self.outcomes.remove(&key).unwrap()
    }

    pub fn run(&mut self, command: Command) -> Outcome {
        let key = self.submit(command);
        self.outcome(key)
    }

    pub fn next_id(&mut self) -> MessageId {
        self.next_ms += 1;
        MessageId::new(self.next_ms, 0, 0)
    }

    pub fn send(&mut self, send: Send) -> Outcome {
        let command = self.append(send);
        self.run(command)
    }

    pub fn append(&mut self, send: Send) -> Command {
        let id = self.next_id();
        send.command(id)
    }

    pub fn sent(&mut self, send: Send) -> Accepted {
        accepted(self.send(send))
    }

    /// Asks on this thread and, when it is not in memory, by a reader.
    pub fn ask(&mut self, query: Query) -> Answer {
        if let Some(answer) = self.handle.read_now(&query) {
            return answer;
        }
        self.ask_later(query)
    }

    pub fn ask_later(&mut self, query: Query) -> Answer {
        self.handle.read_later(Origin { shard: 0, key: 0 }, query).unwrap();
        self.answers.recv_timeout(PATIENCE).expect("an answer").1
    }

    pub fn inbox(&mut self, user: UserId, after_seq: u64) -> (Vec<Event>, Place) {
        self.inbox_page(user, after_seq, 1 << 20, 1 << 30)
    }

    pub fn inbox_page(
        &mut self,
        user: UserId,
        after_seq: u64,
        max_events: usize,
        max_bytes: usize,
    ) -> (Vec<Event>, Place) {
        match self.ask(Query::Inbox { user, after_seq, max_events, max_bytes }) {
            Answer::Events { events, head } => (events.decode(), head),
            other => panic!("{other:?}"),
        }
    }

    pub fn history(
        &mut self,
        conversation: ConversationId,
        user: UserId,
        direction: PageDirection,
        limit: u32,
    ) -> Page {
        let request = HistoryRequest { conversation, user, direction, limit };
        match self.ask(Query::History(request)) {
            Answer::Page(page) => page,
            other => panic!("{other:?}"),
        }
    }

    pub fn device(
        &mut self,
        user: UserId,
        device: u32,
        held: (Place, Epoch, EpochTag),
    ) -> DeviceState {
        let (highest, last_epoch, last_tag) = held;
        let device = DeviceId(device);
        match self.ask(Query::Device { user, device, highest, last_epoch, last_tag }) {
            Answer::Device(Some(state)) => state,
            other => panic!("{other:?}"),
        }
    }

    /// As a client that comes for the first time.
    pub fn fresh_device(&mut self, user: UserId, device: u32) -> DeviceState {
        self.device(user, device, (Place::START, Epoch(0), EpochTag(0)))
    }

    pub fn users(&mut self, names: &[&str]) -> Vec<UserGrant> {
        let drafts = names
            .iter()
            .map(|name| UserDraft {
                name: (*name).to_owned(),
                password_hash: None,
                platform: "test".to_owned(),
            })
            .collect();
        match self.run(Command::CreateUsers { drafts, time_ms: TIME_MS }) {
            Outcome::Users(grants) => grants,
            other => panic!("{other:?}"),
        }
    }

    pub fn advance(&mut self, user: UserId, cursor: Cursor, delivered: &[(ConversationId, u64)]) {
        let notices = delivered
            .iter()
            .map(|&(conversation, seq)| receipt(user, conversation, seq, TIME_MS))
            .collect();
        let command = Command::Advance { user, device: DeviceId(1), cursor, notices };
        assert_eq!(self.run(command), Outcome::Done);
    }

    /// Ends it well.
    pub fn close(self) {
        self.handle.close();
    }
}

/// A send in short words: device 1, its own number as nonce, durable.
#[derive(Clone, Copy)]
pub struct Send {
    pub from: UserId,
    pub to: UserId,
    pub device: u32,
    pub send_no: u64,
    pub oldest: u64,
    pub nonce: u64,
    pub class: Class,
}

impl Send {
    pub fn new(from: UserId, to: UserId, send_no: u64) -> Send {
        let (oldest, nonce) = (1, send_no * 1_000);
        Send { from, to, device: 1, send_no, oldest, nonce, class: Class::Durable }
    }

    pub fn buffered(self) -> Send {
        Send { class: Class::Buffered, ..self }
    }

    /// The device waits for none below it.
    pub fn oldest(self, oldest: u64) -> Send {
        Send { oldest, ..self }
    }

    pub fn nonce(self, nonce: u64) -> Send {
        Send { nonce, ..self }
    }

    pub fn device(self, device: u32) -> Send {
        Send { device, ..self }
    }

    pub fn command(self, id: MessageId) -> Command {
        let conversation = ConversationId::direct(self.from, self.to);
        let content = format!("{} to {}: {}/{}", self.from, self.to, self.device, self.send_no);
        Command::Append(Append {
            conversation,
            sender: self.from,
            device: DeviceId(self.device),
            send_no: SendNo(self.send_no),
            oldest: SendNo(self.oldest),
            nonce: Nonce(self.nonce),
            id,
            content: content.into(),
            recipients: Recipients::direct(conversation).unwrap(),
            class: self.class,
        })
    }
}

pub fn accepted(outcome: Outcome) -> Accepted {
    match outcome {
        Outcome::Appended(accepted) | Outcome::Repeated(accepted) => accepted,
        other => panic!("{other:?}"),
    }
}

pub fn refused(outcome: Outcome) -> ErrorCode {
    match outcome {
        Outcome::SendRefused { code, .. } | Outcome::Refused(code) => code,
        other => panic!("{other:?}"),
    }
}

pub fn settings() -> StoreSettings {
    StoreSettings {
        block_cache_bytes: 8 << 20,
        memtable_bytes: 32 << 20,
        min_free_bytes: 0,
        mailbox: 16_384,
        ..StoreSettings::default()
    }
}

/// The same for a store in a folder, with memtables that fill soon.
pub fn settings_in(directory: &Path) -> StoreSettings {
    StoreSettings { data_dir: directory.to_owned(), memtable_bytes: 8 << 20, ..settings() }
}

/// Something that can be opened again and again: a test runs on each.
pub struct Home {
    memory: MemoryBackend,
    directory: Option<tempfile::TempDir>,
}

impl Home {
    pub fn memory() -> Home {
        Home { memory: MemoryBackend::new(), directory: None }
    }

    #[cfg(feature = "rocksdb")]
    pub fn rocks() -> Home {
        Home { memory: MemoryBackend::new(), directory: Some(tempfile::tempdir().unwrap()) }
    }

    pub fn settings(&self) -> StoreSettings {
        let mut settings = settings();
        if let Some(directory) = &self.directory {
            settings.data_dir = directory.path().to_owned();
        }
        settings
    }

    pub fn backend(&self) -> Arc<dyn Backend> {
        #[cfg(feature = "rocksdb")]
        if self.directory.is_some() {
            return Arc::new(starling_storage::RocksBackend::open(&self.settings()).unwrap());
        }
        Arc::new(self.memory.clone())
    }

    pub fn open(&self) -> Running {
        Running::with(self.backend(), self.settings())
    }
}

/// Runs a test on both backends, or on the one that is there.
pub fn on_each(test: impl Fn(&Home)) {
    test(&Home::memory());
    #[cfg(feature = "rocksdb")]
    test(&Home::rocks());
}
