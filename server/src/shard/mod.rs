//! A shard: one pinned thread with its ring, its connections and its engine.
//!
//! A few tasks wait, for sockets, the doorbell, the alarm, who wants in; what they call borrows the
//! state, never across an await. All else happens in the shard's turn (see `pump`): the runtime's
//! main future, which it polls once after each batch of tasks and before it enters the ring.

pub mod affinity;
mod clock;
mod counters;
mod effects;
mod lingering;
mod links;
mod pump;
mod quiet;
mod sockets;

pub use lingering::MAX_LINGERING;

use crate::{
    failure::Failure,
    hashing::HashingPool,
    mesh::{MAX_REPLIES, Mesh, Parcel, Waiting},
    net,
    stats::StatsBoard,
};
use clock::Clock;
use counters::ShardCounters;
use lingering::Lingering;
use links::Links;
use quiet::Quiet;
use starling_codec::{ErrorCode, Origin, Query, Ticket};
use starling_engine::{Engine, Keyring};
use starling_storage::StoreHandle;
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io,
    os::fd::{AsRawFd, OwnedFd},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Poll, Waker},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Bytes that one recv may bring.
const BUFFER_BYTES: usize = 64 * 1024;

/// What all shards share.
pub struct Commons {
    pub mesh: Arc<Mesh>,
    pub store: StoreHandle,
    pub hashing: HashingPool,
    pub board: StatsBoard,
    pub orders: Orders,
}

/// What the control thread tells all shards. It rings them after it changed anything.
#[derive(Debug)]
pub struct Orders {
    /// Number of the code to close all connections with, and then to end; 0: not yet.
    closing: AtomicU32,
    disk_full: AtomicBool,
    /// Connections that the process holds, and may hold.
    connections: AtomicU32,
    max_connections: u32,
}

impl Orders {
    pub fn new(max_connections: u32) -> Orders {
        Orders {
            closing: AtomicU32::new(0),
            disk_full: AtomicBool::new(false),
            connections: AtomicU32::new(0),
            max_connections,
        }
    }

    /// Shards close every connection with `code`, then end.
    pub fn close(&self, code: ErrorCode) {
        self.closing.store(code as u32, Ordering::Release);
    }

    fn closing(&self) -> Option<ErrorCode> {
        ErrorCode::from_number(self.closing.load(Ordering::Acquire))
    }

    /// While true, shards refuse what would add rows. Returns whether that is news.
    pub fn set_disk_full(&self, full: bool) -> bool {
        self.disk_full.swap(full, Ordering::Relaxed) != full
    }

    fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Whether there is room for one connection more; then it counts as held.
    fn admit(&self) -> bool {
        let held = self.connections.fetch_add(1, Ordering::Relaxed);
        if held >= self.max_connections {
            self.release();
        }
        held < self.max_connections
    }

    fn release(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one shard starts from.
pub struct Setup {
    pub engine: starling_engine::Settings,
    pub keyring: Keyring,
    pub listener: OwnedFd,
    pub processor: usize,
    pub commons: Arc<Commons>,
}

/// A shard, as its tasks see it.
pub struct Shard {
    number: u16,
    commons: Arc<Commons>,
    state: RefCell<State>,
    /// Wakes the turn.
    turn: RefCell<Option<Waker>>,
    /// Wakes the task that asks for another turn, after the ring had its chance.
    again: RefCell<Option<Waker>>,
}

struct State {
    engine: Engine,
    links: Links,
    readiness: net::Readiness,
    /// The set of sockets has something to tell.
    sockets_ready: bool,
    /// Sockets that may have more to read, of which the set will not tell again.
    unread: Vec<Ticket>,
    lingering: Lingering,
    clock: Clock,
    alarm: net::Alarm,
    /// When it will ring.
    alarm_at_ms: Option<u64>,
    /// All reads of the shard go through this one.
    buffer: Box<[u8]>,
    counters: ShardCounters,
    listener: Rc<OwnedFd>,
    /// By receiving shard: what found its lane full.
    waiting: Vec<Waiting<Parcel>>,
    /// What no reader had room for.
    questions: VecDeque<(Origin, Query)>,
    /// Whether inboxes are being read that are not in memory.
    cold: effects::Cold,
    /// Questions and passwords without a reply; at most [`MAX_REPLIES`].
    replies_due: usize,
    /// Connections with something to read that give way to the others, each once.
    guests: VecDeque<Ticket>,
    /// Sockets that have room again.
    unblocked: Vec<Ticket>,
    stats: Vec<StatsRequest>,
    stats_put: u64,
    disk_full: bool,
    /// When the shard ends at the latest, once it is to end.
    ends_at_ms: Option<u64>,
    quiet: Quiet,
}

struct StatsRequest {
    key: u64,
    request: u64,
    /// A shard that does not answer is not waited for.
    until_ms: u64,
}

/// Starts a shard's thread. It ends when [`Orders::close`] was called and all connections are
/// closed.
///
/// # Errors
/// The thread cannot be started; what the thread returns, when it gets no ring.
pub fn start(setup: Setup) -> io::Result<JoinHandle<Result<(), Failure>>> {
    std::thread::Builder::new()
        .name(format!("shard-{}", setup.engine.shard))
        .spawn(move || run(setup))
}

fn run(setup: Setup) -> Result<(), Failure> {
    affinity::pin(setup.processor);
    let mut runtime = net::ring::runtime().map_err(|error| Failure::NoIoUring { error })?;
    let no_descriptor = |error| Failure::NoIoUring { error };
    let readiness = net::Readiness::new(setup.engine.shard).map_err(no_descriptor)?;
    let alarm = net::Alarm::new().map_err(no_descriptor)?;
    let accept_pause = net::Alarm::new().map_err(no_descriptor)?;
    let shard = Rc::new(Shard::new(setup, readiness, alarm));
    runtime.block_on(shard.serve(accept_pause));
    // The ring may have polls in flight that nobody waits for; the process is about to end, so
    // they need no clearing away.
    std::mem::forget(runtime);
    Ok(())
}

impl Shard {
    fn new(setup: Setup, readiness: net::Readiness, alarm: net::Alarm) -> Shard {
        let mut clock = Clock::new();
        let number = setup.engine.shard;
        let shards = setup.engine.shards;
        let engine = Engine::new(setup.engine, setup.keyring, clock.now());
        Shard {
            number,
            state: RefCell::new(State {
                engine,
                links: Links::default(),
                readiness,
                sockets_ready: false,
                unread: Vec::new(),
                lingering: Lingering::default(),
                clock,
                alarm,
                alarm_at_ms: None,
                buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
                counters: ShardCounters::default(),
                listener: Rc::new(setup.listener),
                waiting: (0..shards).map(|_| Waiting::default()).collect(),
                questions: VecDeque::new(),
                cold: effects::Cold::default(),
                replies_due: 0,
                guests: VecDeque::new(),
                unblocked: Vec::new(),
                stats: Vec::new(),
                stats_put: 0,
                disk_full: false,
                ends_at_ms: None,
                quiet: Quiet::default(),
            }),
            commons: setup.commons,
            turn: RefCell::new(None),
            again: RefCell::new(None),
        }
    }

    /// The main future: ends when the shard has been told to and all is closed.
    async fn serve(self: Rc<Self>, accept_pause: net::Alarm) {
        let listener = Rc::clone(&self.state.borrow().listener);
        self.spawn(net::accept(Rc::clone(&self), listener, accept_pause));
        self.spawn(Rc::clone(&self).hear_sockets());
        self.spawn(Rc::clone(&self).hear_doorbell());
        self.spawn(Rc::clone(&self).hear_alarm());
        self.spawn(Rc::clone(&self).turn_again());
        poll_fn(|context| {
            if self.turn.borrow().is_none() {
                *self.turn.borrow_mut() = Some(context.waker().clone());
            }
            pump::turn(&self)
        })
        .await;
    }

    /// Starts a task. Whenever it runs, the shard turns after it and the other tasks that are
    /// ready, and then enters the ring: so there is one io_uring_enter for each turn.
    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let shard = Rc::clone(self);
        monoio::spawn(async move {
            let mut task = pin!(task);
            poll_fn(|context| {
                shard.ask_for_turn();
                task.as_mut().poll(context)
            })
            .await;
        });
    }

    /// Has the shard turn after the tasks that are ready.
    fn ask_for_turn(&self) {
        self.commons.mesh.port(self.number).doorbell.sleeper().get_up();
        if let Some(turn) = &*self.turn.borrow() {
            turn.wake_by_ref();
        }
    }

    /// Has the shard turn again at once, but first lets the ring submit, complete and run tasks.
    /// Were the turn itself woken, it would be polled again before any of that.
    fn ask_for_turn_again(&self) {
        if let Some(again) = &*self.again.borrow() {
            again.wake_by_ref();
        }
    }

    async fn turn_again(self: Rc<Self>) {
        poll_fn(|context| {
            *self.again.borrow_mut() = Some(context.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    }

    async fn hear_sockets(self: Rc<Self>) {
        let descriptor = self.state.borrow().readiness.descriptor();
        // With io_uring it cannot fail.
        let Ok(watch) = net::Watch::new(descriptor) else { return };
        loop {
            let _ = self.readable(&watch).await;
            self.state.borrow_mut().sockets_ready = true;
        }
    }

    async fn hear_doorbell(self: Rc<Self>) {
        let commons = Arc::clone(&self.commons);
        let doorbell = &commons.mesh.port(self.number).doorbell;
        // With io_uring it cannot fail.
        let Ok(watch) = net::Watch::new(doorbell.event().descriptor()) else { return };
        loop {
            let _ = self.readable(&watch).await;
            doorbell.silence();
            self.state.borrow_mut().counters.doorbell_reads += 1;
        }
    }

    async fn hear_alarm(self: Rc<Self>) {
        let descriptor = self.state.borrow().alarm.descriptor();
        // With io_uring it cannot fail.
        let Ok(watch) = net::Watch::new(descriptor) else { return };
        loop {
            let _ = self.readable(&watch).await;
            let state = &mut *self.state.borrow_mut();
            state.alarm.silence();
            state.alarm_at_ms = None;
            state.counters.alarm_reads += 1;
        }
    }

    /// Waits for a descriptor. All that the ring is given goes through here.
    pub async fn readable(&self, watch: &net::Watch) -> io::Result<()> {
        self.state.borrow_mut().counters.submit();
        let readable = watch.readable().await;
        self.state.borrow_mut().counters.ring_completions += 1;
        readable
    }

    /// Waits for so long, by an alarm of the task's own that `over` watches.
    pub async fn pause(&self, alarm: &net::Alarm, over: &net::Watch, time: Duration) {
        self.state.borrow_mut().counters.alarm_sets += 1;
        alarm.set(time);
        let _ = self.readable(over).await;
        alarm.silence();
        self.state.borrow_mut().counters.alarm_reads += 1;
    }

    fn watch(&self, socket: &impl AsRawFd) -> net::Watch {
        // With io_uring it cannot fail.
        net::Watch::new(socket.as_raw_fd()).expect("io_uring watches any descriptor")
    }
}

impl State {
    /// Has the shard turn at `at_ms` at the latest.
    fn wake_at(&mut self, at_ms: u64) {
        // An alarm that is early does no harm, and to leave it alone is cheap.
        if self.alarm_at_ms.is_some_and(|set_ms| set_ms <= at_ms) {
            return;
        }
        self.alarm_at_ms = Some(at_ms);
        self.counters.alarm_sets += 1;
        self.alarm.set(self.clock.instant_of(at_ms).saturating_duration_since(Instant::now()));
    }

    /// Whether another question or password may be without a reply.
    fn may_ask(&self) -> bool {
        self.replies_due < MAX_REPLIES
    }
}
