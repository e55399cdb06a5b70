//! The life of the process: checks, start, what it does while it serves, and the end.

use crate::{
    failure::Failure,
    hashing::HashingPool,
    keys, log, memory,
    mesh::{Mesh, MeshAnnouncer, MeshAnswers},
    net,
    priority::{self, stand_back},
    settings::Settings,
    shard::{self, Commons, Orders, Setup},
    stats::StatsBoard,
    system::{self, FileBudget},
};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use sha2::{Digest, Sha256};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use starling_codec::ErrorCode;
use starling_engine::Keyring;
use starling_storage::{OpenError, Store, StoreHandle, StoreSettings};
use std::{
    io::Write,
    net::SocketAddr,
    os::fd::OwnedFd,
    panic::resume_unwind,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often the state of the store is looked at.
const WATCH: Duration = Duration::from_millis(500);
/// How long nothing must be written before the store's free memory is given back.
const QUIET: Duration = Duration::from_secs(10);
/// Shards end within so many seconds, or the process ends without them: a failed store must have
/// ended it within 5 s.
const END_S: u64 = 4;
/// What the process exits with when it is told a second time to end.
const EXIT_AT_ONCE: i32 = 130;
/// What the store reports as its state when the disk is nearly full.
const STATE_DISK_FULL: u64 = 1;
/// Conversations whose existence a shard remembers.
const KNOWN_CONVERSATIONS: usize = 65_536;

type ShardThread = JoinHandle<Result<(), Failure>>;

/// Runs a server until it is told to end.
///
/// # Errors
/// It cannot start, or its store failed.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    memory::refuse_huge_pages();
    memory::share_system_heap();
    log::start(settings)?;
    log::end_process_on_panic();
    system::check_kernel()?;
    let budget = system::budget_files(settings.shards.get())?;
    let _lock = system::take_data_dir(&settings.data_dir)?;
    let (address, listeners) = net::listen::listen(settings.listen, settings.shards.get())?;
    let signals = watch_signals()?;

    let mut server = Server::start(settings, budget, listeners)?;
    say_ready(settings, address, server.max_connections);
    let end = server.serve(&signals);
    server.end(end)
}

/// One line on standard output: whoever started the process waits for it.
fn say_ready(settings: &Settings, address: SocketAddr, max_connections: u32) {
    let (version, shards) = (env!("CARGO_PKG_VERSION"), settings.shards);
    let plural = if shards.get() == 1 { "" } else { "s" };
    let mut out = std::io::stdout().lock();
    // Standard output may be closed, which is no reason not to serve.
    let _ = writeln!(
        out,
        "starling-server {version} ready on {address}, {shards} shard{plural}, up to \
         {max_connections} connections"
    );
    let _ = out.flush();
    // In the log it would be the same line once more, on most consoles below the first.
    tracing::debug!(%address, shards, max_connections, data = %settings.data_dir.display(), "ready");
}

/// The first signal is told; at the second the process exits.
fn watch_signals() -> Result<Receiver<i32>, Failure> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|error| Failure::Signals { error })?;
    let (told, first) = unbounded();
    let watch = move || {
        for (index, signal) in signals.forever().enumerate() {
            if index > 0 {
                std::process::exit(EXIT_AT_ONCE);
            }
            // The main thread listens as long as it lives.
            let _ = told.send(signal);
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(watch)
        .map_err(|error| Failure::Thread { error })?;
    Ok(first)
}

/// Why serving ends.
enum End {
    Asked,
    Poisoned(String),
    ShardEnded,
}

struct Server {
    commons: Arc<Commons>,
    shards: Vec<ShardThread>,
    alarm: Receiver<String>,
    max_connections: u32,
}

impl Server {
    fn start(
        settings: &Settings,
        budget: FileBudget,
        listeners: Vec<OwnedFd>,
    ) -> Result<Server, Failure> {
        let keyring = keyring(settings)?;
        let operator_key = keys::operator_key(&settings.data_dir.join("operator.key"))?;
        let out_of_files = |error| Failure::Thread { error };
        let repliers = settings.hashing_threads + settings.readers.max(1);
        let mesh = Mesh::new(settings.shards.get(), settings.credits, repliers);
        let mesh = Arc::new(mesh.map_err(out_of_files)?);
        let (raise, alarm) = unbounded();
        let store = open_store(settings, budget, &mesh, raise)?;
        let hashing = HashingPool::start(settings.hashing_threads, Arc::clone(&mesh))
            .map_err(out_of_files)?;
        let max_connections = settings.max_connections.min(budget.max_connections);
        let id_floor_ms = store.id_floor_ms();
        let commons = Arc::new(Commons {
            mesh,
            store,
            hashing,
            board: StatsBoard::new(settings.shards.get()),
            orders: Orders::new(max_connections),
        });
        let mut shards = Vec::new();
        for (number, listener) in (0..).zip(listeners) {
            let processor = settings.processors[usize::from(number) % settings.processors.len()];
            let engine = starling_engine::Settings {
                shard: number,
                shards: settings.shards.get(),
                max_connections,
                credits: settings.credits,
                sends_per_second: settings.sends_per_second,
                heartbeat_s: settings.heartbeat_s,
                token_lifetime_s: settings.token_lifetime_s,
                id_floor_ms,
                operator_key_hash: Sha256::digest(&operator_key).into(),
                max_known_conversations: KNOWN_CONVERSATIONS,
            };
            let (keyring, commons) = (keyring.clone(), Arc::clone(&commons));
            let setup = Setup { engine, keyring, listener, processor, commons };
            shards.push(shard::start(setup).map_err(|error| Failure::Thread { error })?);
        }
        Ok(Server { commons, shards, alarm, max_connections })
    }

    /// Watches over the server until it is to end.
    fn serve(&mut self, signals: &Receiver<i32>) -> End {
        let mut written = (0, 0);
        let mut changed = Instant::now();
        let mut given_back = false;
        loop {
            match signals.recv_timeout(WATCH) {
                Ok(signal) => {
                    tracing::info!(signal, "told to end");
                    return End::Asked;
                }
                // The thread that tells lives as long as the process.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if let Ok(reason) = self.alarm.try_recv() {
                return End::Poisoned(reason);
            }
            if self.shards.iter().any(JoinHandle::is_finished) {
                return End::ShardEnded;
            }
            let store = self.commons.store.counters();
            self.pass_on_disk_full(store.state == STATE_DISK_FULL);
            // A store at rest flushes its memtables, which frees the most.
            if (store.commands, store.memtable_bytes) != written {
                written = (store.commands, store.memtable_bytes);
                (changed, given_back) = (Instant::now(), false);
            } else if !given_back && changed.elapsed() >= QUIET {
                given_back = true;
                memory::give_back_of_system_heap();
                memory::give_back_of_thread();
            }
        }
    }

    fn pass_on_disk_full(&self, full: bool) {
        if self.commons.orders.set_disk_full(full) {
            self.commons.mesh.ring_all();
            if full {
                tracing::error!(
                    "the disk is nearly full: messages are refused until there is room"
                );
            } else {
                tracing::info!("there is room on the disk again");
            }
        }
    }

    /// Tells all clients, ends the shards, and finishes what the store has begun.
    fn end(self, end: End) -> Result<(), Failure> {
        let code = match &end {
            End::Asked | End::ShardEnded => ErrorCode::Draining,
            End::Poisoned(reason) => {
                tracing::error!(%reason, "ALARM: the store failed; the server ends");
                ErrorCode::UnknownOutcome
            }
        };
        self.commons.orders.close(code);
        self.commons.mesh.ring_all();
        let shards = join_all(self.shards);
        match end {
            // What a failed store has to finish it cannot; waiting for it would only keep the
            // process from being started anew.
            End::Poisoned(reason) => Err(Failure::StorePoisoned { reason }),
            End::Asked | End::ShardEnded => {
                self.commons.store.close();
                tracing::info!("ended");
                shards
            }
        }
    }
}

fn join_all(shards: Vec<ShardThread>) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(END_S);
    while !shards.iter().all(JoinHandle::is_finished) {
        if Instant::now() >= until {
            return Err(Failure::Stuck { seconds: END_S });
        }
        thread::sleep(Duration::from_millis(2));
    }
    // A shard that panicked has ended the process.
    shards.into_iter().try_for_each(|shard| shard.join().unwrap_or(Ok(())))
}

fn keyring(settings: &Settings) -> Result<Keyring, Failure> {
    let keys = keys::signing_keys(&settings.data_dir.join("signing.key"))?;
    // A file of keys has at least one.
    let (signing, older) = keys.split_last().expect("a signing key");
    let mut keyring = Keyring::new(signing.id, &signing.secret);
    older.iter().for_each(|key| keyring.believe(key.id, &key.secret));
    Ok(keyring)
}

fn open_store(
    settings: &Settings,
    budget: FileBudget,
    mesh: &Arc<Mesh>,
    alarm: Sender<String>,
) -> Result<StoreHandle, Failure> {
    let path = &settings.data_dir;
    let store_settings = StoreSettings {
        data_dir: path.clone(),
        block_cache_bytes: settings.block_cache_bytes,
        memtable_bytes: settings.memtable_bytes,
        max_open_files: budget.store,
        reader_threads: settings.readers,
        writers: settings.shards.get(),
        // All credits fit, so the mailbox is never full.
        mailbox: settings.credits as usize * usize::from(settings.shards.get()),
        ..StoreSettings::default()
    };
    // The database's own threads, which flush and compact, stand back as the one does that they
    // are started by.
    let opening = thread::Builder::new().name("opening".to_owned()).spawn(|| {
        stand_back(priority::OF_UPKEEP);
        Store::open(store_settings)
    });
    let opened = opening.map_err(|error| Failure::Thread { error })?.join();
    let store =
        opened.unwrap_or_else(|panic| resume_unwind(panic)).map_err(|error| match error {
            OpenError::Locked(path) => Failure::DataLocked { path },
            what => Failure::Store { path: path.clone(), what: what.to_string() },
        })?;
    let announcer = MeshAnnouncer::new(Arc::clone(mesh), alarm);
    let answers = MeshAnswers { mesh: Arc::clone(mesh), first_replier: settings.hashing_threads };
    store.start(announcer, answers).map_err(|error| Failure::Thread { error })
}
