//! Clients that are processes of their own, each with a profile on disk, which are killed like the
//! server and go on where their store is. What they record goes to the same check as all else.

use super::people::{PASSWORD, text, within};
use crate::common::history::Recording;
use starling_client::{
    Client, ClientSettings, Entry, EntryState, Event, Identity, Journal, Peer, QueueError, Receipt,
    SqliteStore, Store, account,
};
use starling_codec::{
    ConversationId, Epoch, MessageId, Nonce, Place, SendNo, UserId,
    history::{Fact, Record, digest},
    wire::{self, Class, event::Kind},
};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};
use tempfile::TempDir;
use tokio::sync::mpsc;

const ARGUMENTS: &str = "TEST_CLIENT";
/// What a client is told, a word a line, and what it says when it has no message without an answer.
const WRITE: &str = "write";
const FLUSH: &str = "flush";
const SETTLE: &str = "settle";
const FLUSHED: &str = "flushed";
/// Messages that it writes when it is told to.
const BURST: usize = 4;

/// A user whose one device is a process.
pub struct Process {
    pub user: UserId,
    server: String,
    /// With a folder for the profile, and the history of each life.
    folder: TempDir,
    lives: usize,
    running: Option<Running>,
}

struct Running {
    child: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Process {
    /// Registers; no process runs yet.
    pub async fn new(server: &str, name: &str) -> Process {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(&profile(folder.path())).unwrap();
        let own = account::register(server, &mut store, name, PASSWORD).await.unwrap();
        let server = server.to_owned();
        Process { user: own.user, server, folder, lives: 0, running: None }
    }

    /// Starts it: it goes on where the life before it ended, and writes to `peers` when told to.
    /// A test of this name calls [`be_client`].
    pub fn start(&mut self, test: &str, peers: &[UserId]) {
        self.lives += 1;
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        let arguments = [
            self.server.clone(),
            self.folder.path().display().to_string(),
            self.lives.to_string(),
            peers.join(","),
        ];
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=2"])
            .env(ARGUMENTS, arguments.join("\u{1f}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = child.stdin.take().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        self.running = Some(Running { child, told, says });
    }

    /// It writes a few messages, some durable.
    pub fn burst(&mut self) {
        self.tell(WRITE);
    }

    /// Waits until all that it wrote is answered.
    pub fn flushed(&mut self) {
        self.tell(FLUSH);
        let running = self.running.as_mut().expect("it runs");
        let mut line = String::new();
        while line.trim() != FLUSHED {
            line.clear();
            assert!(running.says.read_line(&mut line).unwrap() > 0, "the client has ended");
        }
    }

    fn tell(&mut self, word: &str) {
        let running = self.running.as_mut().expect("it runs");
        writeln!(running.told, "{word}").expect("it listens");
    }

    /// Ends it as the kernel does.
    pub fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    /// Ends it in order.
    pub fn end(&mut self) {
        let Running { mut child, told, mut says } = self.running.take().expect("it runs");
        drop(told);
        // Its last words are for nobody, but it must be able to say them.
        std::io::copy(&mut says, &mut std::io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Nobody writes any more: lets it catch up, and say what it holds.
    pub fn settle(&mut self, test: &str) {
        self.start(test, &[]);
        self.tell(SETTLE);
        self.end();
    }

    /// What all its lives recorded, in their order.
    pub fn histories(&self) -> impl Iterator<Item = Recording> {
        (1..=self.lives).map(|life| Recording::read(&history(self.folder.path(), life)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}

fn profile(folder: &Path) -> PathBuf {
    folder.join("profile")
}

fn history(folder: &Path, life: usize) -> PathBuf {
    folder.join(format!("{life}.history"))
}

/// What the test that [`Process::start`] names does: where it is told to, this process is a client.
pub fn be_client() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let arguments: Vec<&str> = arguments.split('\u{1f}').collect();
    let [server, folder, life, peers] = arguments[..] else { panic!("{arguments:?}") };
    let folder = Path::new(folder);
    let file = File::create_new(history(folder, life.parse().unwrap())).unwrap();
    let peers = peers.split(',').filter(|peer| !peer.is_empty());
    let peers: Vec<UserId> = peers.map(|peer| UserId(peer.parse().unwrap())).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(live(server, folder, life, Lines(file), &peers));
    std::process::exit(0);
}

/// A file that has each record as soon as it is handed over.
struct Lines(File);

impl Lines {
    fn write(&mut self, record: &Record) {
        let mut line = Vec::new();
        record.append(&mut line);
        self.0.write_all(&line).unwrap();
    }
}

async fn live(server: &str, folder: &Path, life: &str, mut lines: Lines, peers: &[UserId]) {
    let mut store = SqliteStore::open(&profile(folder)).unwrap();
    let saved = store.load().unwrap();
    let own = saved.identity.clone().expect("registered");
    tell_again(&own, &saved.outbox, &Journal::open(&profile(folder)).unwrap(), &mut lines);
    let mut recorded = Lines(lines.0.try_clone().unwrap());
    let recorder = move |record: Record| recorded.write(&record);
    let settings = ClientSettings::default();
    let (client, mut events) = Client::start_recorded(server, store, settings, recorder).unwrap();
    let (heads, mut head) = mpsc::unbounded_channel();
    let mut cursor = saved.cursor;
    tokio::spawn(async move {
        let mut target = None;
        while let Some(event) = events.next().await {
            match event {
                Event::Online(welcomed) => target = Some(welcomed.head),
                Event::Applied(event) => {
                    cursor = Place::new(event.seq, Epoch(event.epoch));
                }
                _ => {}
            }
            // Nobody may be interested.
            let _ = heads.send(target.is_some_and(|target| cursor >= target));
        }
    });
    let mut words = words();
    let mut written = 0;
    let mut settles = false;
    while let Some(word) = words.recv().await {
        match &*word {
            WRITE => {
                for to in peers.iter().cycle().skip(written).take(BURST) {
                    let class = if written % 2 == 0 { Class::Durable } else { Class::Buffered };
                    let body = format!("life {life} of {}, {written}", own.name);
                    written += 1;
                    match client.post(text(*to, &body, class)).await {
                        Ok(_) | Err(QueueError::OutboxFull(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            FLUSH => {
                within("all is acknowledged", client.flushed()).await;
                // A line of its own, whatever the test program says.
                println!("\n{FLUSHED}");
            }
            SETTLE => {
                within("all is acknowledged", client.flushed()).await;
                let caught_up = async { while !head.recv().await.expect("a session") {} };
                within("it catches up", caught_up).await;
                settles = true;
            }
            other => panic!("{other}"),
        }
    }
    within("it closes", client.close()).await;
    if settles {
        let mut store = SqliteStore::open(&profile(folder)).unwrap();
        let (cursor, hash) = (store.load().unwrap().cursor, store.state_hash().unwrap());
        lines.write(&Record::of(own.user, own.device, Fact::State { cursor, hash }));
    }
}

/// The words on standard input.
fn words() -> mpsc::UnboundedReceiver<String> {
    let (told, words) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for word in std::io::stdin().lines().map_while(Result::ok) {
            if told.send(word).is_err() {
                return;
            }
        }
    });
    words
}

/// A recorder that was killed may not have lived to tell what its store had: a history may repeat,
/// in another file, what is in it already.
fn tell_again(own: &Identity, outbox: &[Entry], journal: &Journal, lines: &mut Lines) {
    let mut tell = |fact| lines.write(&Record::of(own.user, own.device, fact));
    for entry in outbox {
        tell(Fact::Send {
            send_no: entry.send_no,
            nonce: entry.nonce,
            conversation: match entry.message.to {
                Peer::User(user) => ConversationId::direct(own.user, user),
                Peer::Conversation(conversation) => conversation,
            },
            class: entry.message.class,
            digest: digest(&entry.message.content),
        });
        if let EntryState::Acknowledged(receipt) = entry.state {
            tell(receipt.fact(entry.nonce));
        }
    }
    // Nothing is ever shown to anybody here, so this is all that the store has.
    for event in journal.unshown().unwrap() {
        tell((&event).into());
        if let Some(Kind::Message(message)) = &event.kind
            && (message.sender, message.device) == (own.user.0, own.device.0)
        {
            tell(receipt_in(&event, message).fact(Nonce(message.nonce)));
        }
    }
}

fn receipt_in(event: &wire::Event, message: &wire::Message) -> Receipt {
    Receipt {
        send_no: SendNo(message.send_no),
        id: MessageId(message.id),
        conversation: ConversationId(message.conversation),
        seq: message.seq,
        place: Place::new(event.seq, Epoch(event.epoch)),
        time_ms: message.time_ms,
        class: message.class(),
    }
}
