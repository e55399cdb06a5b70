//! One process of a load: does the part that the coordinator gives it.

use super::{Language, Order, Task, Tell};
use crate::{
    dialect::{Relay, Starling},
    history::HistoryFile,
    interrupt,
    lines::{hear, say},
    load::{self, Plan, Progress, Watcher},
    machine,
    sources::Sources,
    users,
};
use anyhow::{Context, Result, bail};
use std::{
    io::BufReader,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::mpsc::{self, Receiver, TryRecvError},
    thread,
    time::{Duration, Instant},
};

/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// The coordinator may start later than those who take part.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes part in the load that `coordinator` deals out; connections come from `sources` if any are
/// given.
pub fn join(coordinator: SocketAddr, sources: &[IpAddr]) -> Result<()> {
    interrupt::listen()?;
    machine::raise_file_limit()?;
    let mut stream = connect(coordinator)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(Order::Task(task)) = hear(&mut reader)? else {
        bail!("the coordinator had no task");
    };
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(Some(order)) = hear::<Order>(&mut reader) {
            if matches!(order, Order::Stop) {
                interrupt::request();
            }
            if sender.send(order).is_err() {
                return;
            }
        }
        // Without a coordinator nobody wants the rest.
        interrupt::request();
    });
    let told = work(*task, sources, &mut stream, orders);
    match told {
        Ok(done) => say(&mut stream, &done),
        Err(error) => {
            say(&mut stream, &Tell::Failed(format!("{error:#}")))?;
            Err(error)
        }
    }
}

fn connect(coordinator: SocketAddr) -> Result<TcpStream> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(coordinator) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if begun.elapsed() > PATIENCE || interrupt::requested() => {
                return Err(error).with_context(|| format!("nobody coordinates at {coordinator}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn work(
    task: Task,
    sources: &[IpAddr],
    stream: &mut TcpStream,
    orders: Receiver<Order>,
) -> Result<Tell> {
    let Task { server, scenario, language, run_id, sources: given, before, server_pid, history } =
        task;
    let sources = match sources {
        [] => Sources::new(given, before),
        own => Sources::new(own.to_vec(), 0),
    };
    let plan: Plan = scenario.plan(server, sources, server_pid);
    let mut remote = Remote { stream, orders, ready: false, next: Instant::now() };
    let (measured, users) = match language {
        Language::Starling { users: text } => {
            let roster = users::parse_roster(&text).context("the users are none")?;
            let (class, heartbeat_s) = (scenario.class, scenario.heartbeat_s);
            let mut dialect = Starling::new(roster, 2 * scenario.pairs, class, heartbeat_s);
            dialect.history = history.as_deref().map(HistoryFile::create).transpose()?;
            let (measured, mut dialect) = load::run(plan, run_id, dialect, &mut remote)?;
            if let Some(mut history) = dialect.history.take() {
                history.settled(&dialect.users);
                history.finish()?;
            }
            (measured, users::render_roster(&dialect.users))
        }
        Language::Relay { first } => {
            let (measured, _) = load::run(plan, run_id, Relay { first }, &mut remote)?;
            (measured, String::new())
        }
    };
    Ok(Tell::Done { measured: Box::new(measured), users })
}

/// The coordinator looks on.
struct Remote<'a> {
    stream: &'a mut TcpStream,
    orders: Receiver<Order>,
    ready: bool,
    next: Instant,
}

impl Watcher for Remote<'_> {
    fn may_begin(&mut self) -> Result<bool> {
        if !std::mem::replace(&mut self.ready, true) {
            say(self.stream, &Tell::Ready)?;
        }
        match self.orders.try_recv() {
            Ok(Order::Begin) => Ok(true),
            Ok(_) | Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => bail!("the coordinator is gone"),
        }
    }

    fn progress(&mut self, progress: &Progress) -> Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + TELL_EVERY;
        say(self.stream, &Tell::Progress(progress.clone()))
    }
}
