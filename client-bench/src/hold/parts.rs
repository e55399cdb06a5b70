//! A crowd that is more than one process may hold is split over several. They are told what to do
//! on their standard input, a line each, and answer with a line.

use super::{HoldPlan, HoldTally, Manner, holder::Holder};
use crate::{
    arguments::Target, history, interrupt, latency::Latencies, machine, process::Helper,
    progress::Progress, sources::Sources, users::Users,
};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    ops::Range,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

/// The processes of a crowd.
pub enum Parts {
    /// All in this one.
    Own(Box<Holder>),
    Others {
        parts: Vec<Part>,
        /// As long as it is there they may be told to stop.
        _held: Arc<()>,
        progress: Progress,
        /// Where their users are, until all is over.
        _directory: tempfile::TempDir,
    },
}

/// A process that holds some of the devices.
pub struct Part {
    helper: Helper,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    users: PathBuf,
    devices: Range<usize>,
}

/// What a part tells at its end.
#[derive(Serialize, Deserialize)]
struct Closing {
    tally: HoldTally,
    login: String,
}

const GROW: &str = "grow";
const UNTIL_BEATEN: &str = "until-beaten";
const CUT: &str = "cut";
const FINISH: &str = "finish";
const STOP: &str = "stop";
const DONE: &str = "done";
/// Whether Ctrl-C asked for the end is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Parts {
    /// Splits devices and users over `processes`. User `connections + p` writes for process `p`.
    pub fn start(
        target: &Target,
        plan: &HoldPlan,
        processes: usize,
        users: &mut Users,
    ) -> Result<Parts> {
        let manner = plan.manner.shared_by(processes);
        if processes == 1 {
            let list = users.list.part(share(0..plan.connections, plan.connections));
            let history = plan.history.as_deref();
            let sources = Sources::new(plan.sources.clone(), 0);
            let holder = Holder::new(target.server, list, sources, &manner, history)?;
            return Ok(Parts::Own(Box::new(holder)));
        }
        let directory = tempfile::tempdir()?;
        let each = plan.connections.div_ceil(processes);
        let parts = (0..processes).map(|index| {
            let devices = index * each..plan.connections.min((index + 1) * each);
            let path = directory.path().join(format!("users-{index}"));
            let list = users.list.part(share(devices.clone(), plan.connections + index));
            Users::part(&path, list).save()?;
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args(["hold-part", "--server", &target.server.to_string()])
                .arg("--users")
                .arg(&path)
                .args(["--before", &(index * (each + 1)).to_string()])
                .args(plan.sources.iter().map(|source| format!("--sources={source}")))
                .args(manner.arguments())
                .args(plan.history.iter().flat_map(|path| {
                    [OsString::from("--history"), history::of_part(path, index).into()]
                }))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut helper = Helper::start(command, None)?;
            let (input, output) = (helper.stdin()?, helper.stdout()?);
            Ok(Part { helper, input, output, users: path, devices })
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let held = Arc::new(());
        stop_when_asked(&parts, Arc::downgrade(&held))?;
        let progress = Progress::new(plan.manner.progress);
        Ok(Parts::Others { parts, _held: held, progress, _directory: directory })
    }

    /// Holds the first `count` devices, each with its message.
    pub fn grow_to(&mut self, count: usize) -> Result<()> {
        match self {
            Parts::Own(holder) => holder.grow_to(count),
            Parts::Others { parts, .. } => {
                // All at once, so that they log in side by side.
                for part in parts.iter_mut() {
                    let own =
                        count.clamp(part.devices.start, part.devices.end) - part.devices.start;
                    part.tell(&format!("{GROW} {own}"))?;
                }
                parts.iter_mut().try_for_each(Part::done)
            }
        }
    }

    /// Holds until the server answered a heartbeat of each device.
    pub fn until_beaten(&mut self) -> Result<()> {
        match self {
            Parts::Own(holder) => holder.until_beaten(),
            Parts::Others { parts, .. } => tell_all(parts, UNTIL_BEATEN),
        }
    }

    /// Cuts off every `step`th device, which must come back.
    pub fn cut(&mut self, step: usize) -> Result<()> {
        match self {
            Parts::Own(holder) => holder.cut(step),
            Parts::Others { parts, .. } => tell_all(parts, &format!("{CUT} {step}")),
        }
    }

    /// Holds for `duration`.
    pub fn keep(&mut self, duration: Duration) -> Result<()> {
        match self {
            Parts::Own(holder) => holder.keep(duration),
            Parts::Others { parts, progress, .. } => {
                progress.begin("quiet");
                let until = Instant::now() + duration;
                while Instant::now() < until && !interrupt::requested() {
                    let left = until.saturating_duration_since(Instant::now());
                    thread::sleep(left.min(LOOK_EVERY));
                    progress.tell(|| format!("{:.0} s left", left.as_secs_f64()));
                }
                parts.iter_mut().try_for_each(|part| part.helper.still_runs())
            }
        }
    }

    /// What was heard, and how long logging in took; gives `users` what their devices must
    /// remember. The devices of this process are held until this is dropped.
    pub fn finish(&mut self, users: &mut Users) -> Result<(HoldTally, Latencies)> {
        match self {
            Parts::Own(holder) => {
                let finished = holder.finish()?;
                let devices = holder.users().len() - 1;
                users.list.absorb(holder.users(), share(0..devices, devices));
                Ok(finished)
            }
            Parts::Others { parts, .. } => {
                let (mut tally, mut login) = (HoldTally::default(), Latencies::default());
                let connections = parts.last().map_or(0, |part| part.devices.end);
                for (index, part) in parts.iter_mut().enumerate() {
                    part.tell(FINISH)?;
                    let closing: Closing = serde_json::from_str(&part.hear()?)?;
                    tally.add(closing.tally);
                    login.merge(&Latencies::from_hex(&closing.login)?);
                    let list = Users::open(Some(&part.users))?.list;
                    users.list.absorb(&list, share(part.devices.clone(), connections + index));
                }
                Ok((tally, login))
            }
        }
    }
}

/// Tells the parts to leave it at what they have once Ctrl-C asks for the end: whoever waits for
/// one of them cannot. Ends with `held`.
fn stop_when_asked(parts: &[Part], held: Weak<()>) -> Result<()> {
    let inputs = parts.iter().map(|part| part.input.as_fd().try_clone_to_owned().map(File::from));
    let mut inputs = inputs.collect::<std::io::Result<Vec<File>>>()?;
    thread::spawn(move || {
        while held.strong_count() > 0 {
            if interrupt::requested() {
                for input in &mut inputs {
                    // Who is gone has stopped.
                    let _ = writeln!(input, "{STOP}");
                }
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
    });
    Ok(())
}

/// The writer, then the devices.
fn share(devices: Range<usize>, writer: usize) -> impl ExactSizeIterator<Item = usize> {
    let count = 1 + devices.len();
    (0..count).map(move |place| if place == 0 { writer } else { devices.start + place - 1 })
}

/// All do it side by side.
fn tell_all(parts: &mut [Part], order: &str) -> Result<()> {
    parts.iter_mut().try_for_each(|part| part.tell(order))?;
    parts.iter_mut().try_for_each(Part::done)
}

impl Part {
    fn done(&mut self) -> Result<()> {
        match self.hear()?.as_str() {
            DONE => Ok(()),
            other => bail!("a part said {other:?}"),
        }
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("a part of the crowd ended")
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("a part of the crowd ended");
        }
        Ok(line.trim().to_owned())
    }
}

/// Does what is told on standard input, as one part of a crowd.
pub fn serve_part(
    server: SocketAddr,
    path: &Path,
    sources: Sources,
    manner: &Manner,
    history: Option<&Path>,
) -> Result<()> {
    // A terminal's Ctrl-C comes here too.
    interrupt::listen()?;
    machine::raise_file_limit()?;
    let users = Users::open(Some(path))?.list;
    let mut holder = Holder::new(server, users, sources, manner, history)?;
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == STOP {
                interrupt::request();
            } else if sender.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        let order = match orders.try_recv() {
            Ok(order) => order,
            // Hearts beat between orders.
            Err(mpsc::TryRecvError::Empty) => {
                holder.keep_on(Duration::from_millis(20))?;
                continue;
            }
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
        };
        match order.split_once(' ') {
            Some((GROW, count)) => {
                holder.grow_to(count.parse().context("not a count")?)?;
                println!("{DONE}");
            }
            Some((CUT, step)) => {
                holder.cut(step.parse().context("not a number")?)?;
                println!("{DONE}");
            }
            None if order == UNTIL_BEATEN => {
                holder.until_beaten()?;
                println!("{DONE}");
            }
            None if order == FINISH => {
                let (tally, login) = holder.finish()?;
                Users::part(path, holder.users().clone()).save()?;
                println!("{}", serde_json::to_string(&Closing { tally, login: login.to_hex()? })?);
                return Ok(());
            }
            _ => bail!("unknown order {order:?}"),
        }
    }
}
