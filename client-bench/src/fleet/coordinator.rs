//! Deals a load out, lets all begin at once, and adds up what they measured.

use super::{Language, Order, Task, Tell};
use crate::{
    history, interrupt,
    lines::{hear, say},
    load::{Measured, Progress, Watcher},
    process::Helper,
    roster::Roster,
    scenario::Scenario,
    users,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{BufReader, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// Who takes part.
#[derive(Clone, Debug)]
pub struct Crew {
    /// Processes of this machine.
    pub processes: usize,
    /// Processes that others start, with `starling-bench join`.
    pub machines: usize,
    /// Where they find the coordinator.
    pub listen: SocketAddr,
    /// Addresses that connections of this machine come from; none: chosen.
    pub sources: Vec<IpAddr>,
}

impl Crew {
    /// Processes of this machine alone.
    pub fn here(processes: usize, sources: Vec<IpAddr>) -> Crew {
        Crew { processes, machines: 0, listen: (Ipv4Addr::LOCALHOST, 0).into(), sources }
    }

    pub fn size(&self) -> usize {
        self.processes + self.machines
    }
}

/// A part of the load, and who does it.
struct Part {
    stream: TcpStream,
    /// Places of its users in the roster.
    users: Vec<Range<usize>>,
    progress: Progress,
    measured: Option<Measured>,
}

/// Runs `scenario` on `server`, shared by `crew`: with the users of `roster`, which learn what
/// their devices must remember; without a roster the server is a relay. Each records its part of
/// a `history`.
///
/// # Errors
/// One of them fails, or goes away.
pub fn run(
    crew: &Crew,
    scenario: &Scenario,
    server: SocketAddr,
    server_pid: Option<u32>,
    mut roster: Option<&mut Roster>,
    history: Option<&Path>,
    watcher: &mut impl Watcher,
) -> Result<Measured> {
    let all = crew.size();
    ensure!(
        (1..=scenario.pairs + scenario.idle).contains(&all),
        "{all} processes are too many for {} pairs and {} idle devices",
        scenario.pairs,
        scenario.idle
    );
    let listener = TcpListener::bind(crew.listen)
        .with_context(|| format!("cannot coordinate at {}", crew.listen))?;
    let address = listener.local_addr()?;
    let mut helpers = Vec::new();
    let (run_id, mut before, mut pairs_before, mut idle_before) = (rand::random(), 0, 0, 0);
    let (sender, told) = mpsc::channel();
    let mut parts: Vec<Part> = Vec::new();
    for index in 0..all {
        let here = index < crew.processes;
        if here {
            helpers.push(start(address)?);
        } else {
            eprintln!("waiting for load machine {} of {} at {address}", parts.len() + 1, all);
        }
        let mut stream = accept(&listener)?;
        let own = scenario.part(index, all);
        let users = vec![
            2 * pairs_before..2 * (pairs_before + own.pairs),
            2 * scenario.pairs + idle_before..2 * scenario.pairs + idle_before + own.idle,
        ];
        let language = match &roster {
            Some(roster) => {
                let part = roster.part(users.iter().cloned().flatten());
                Language::Starling { users: users::render_roster(&part) }
            }
            None => Language::Relay { first: before },
        };
        let task = Task {
            server,
            language,
            run_id,
            sources: if here { crew.sources.clone() } else { Vec::new() },
            before: if here { before } else { 0 },
            server_pid: server_pid.filter(|_| index == 0 && here),
            history: history.map(|path| history::of_part(path, index)),
            scenario: own.clone(),
        };
        before += own.connections();
        pairs_before += own.pairs;
        idle_before += own.idle;
        say(&mut stream, &Order::Task(Box::new(task)))?;
        let (mut reader, sender) = (BufReader::new(stream.try_clone()?), sender.clone());
        thread::spawn(move || {
            loop {
                let heard = hear::<Tell>(&mut reader);
                let last = !matches!(heard, Ok(Some(_)));
                if sender.send((index, heard)).is_err() || last {
                    return;
                }
            }
        });
        parts.push(Part { stream, users, progress: Progress::default(), measured: None });
    }
    drop(sender);
    let (mut ready, mut done, mut stopped) = (0, 0, false);
    while done < all {
        if interrupt::requested() && !std::mem::replace(&mut stopped, true) {
            parts.iter_mut().try_for_each(|part| say(&mut part.stream, &Order::Stop))?;
        }
        let (index, heard) = match told.recv_timeout(Duration::from_millis(100)) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => bail!("all parts of the load are gone"),
        };
        match heard? {
            Some(Tell::Ready) => {
                ready += 1;
                if ready == all {
                    parts.iter_mut().try_for_each(|part| say(&mut part.stream, &Order::Begin))?;
                }
            }
            Some(Tell::Progress(progress)) => {
                parts[index].progress = progress;
                watcher.progress(&sum(&parts))?;
            }
            Some(Tell::Done { measured, users: text }) => {
                if let Some(roster) = &mut roster {
                    let part = users::parse_roster(&text).context("the users are none")?;
                    roster.absorb(&part, parts[index].users.iter().cloned().flatten());
                }
                parts[index].measured = Some(*measured);
                done += 1;
            }
            Some(Tell::Failed(error)) => bail!("part {index} of the load: {error}"),
            None if parts[index].measured.is_some() => {}
            None => bail!("part {index} of the load went away"),
        }
    }
    let mut whole = Measured::default();
    parts.into_iter().filter_map(|part| part.measured).for_each(|part| whole.merge(part));
    Ok(whole)
}

/// Another process of this program, which ends with this one.
fn start(coordinator: SocketAddr) -> Result<Helper> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["join", &coordinator.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    Helper::start(command, None)
}

/// The next that wants to take part; Ctrl-C ends the waiting.
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(!interrupt::requested(), "interrupted before all were there");
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error).context("cannot let others take part"),
        }
    }
}

/// The phase is that of the last of them.
fn sum(parts: &[Part]) -> Progress {
    let all = || parts.iter().map(|part| &part.progress);
    Progress {
        phase: all().map(|one| one.phase).min().flatten(),
        elapsed_s: all().map(|one| one.elapsed_s).fold(0.0, f64::max),
        connected: all().map(|one| one.connected).sum(),
        sent: all().map(|one| one.sent).sum(),
        delivered: all().map(|one| one.delivered).sum(),
        errors: all().map(|one| one.errors).sum(),
    }
}
