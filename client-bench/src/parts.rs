//! A crowd that is more than one process may hold is split over several. They are told what to do
//! on their standard input and answer on their standard output; what goes wrong in one is an answer
//! too, so that whoever started the crowd hears of it.

use crate::{
    interrupt,
    lines::{hear, say},
    machine,
    process::Helper,
    roster::Roster,
    users::Users,
};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    ffi::OsString,
    fs::File,
    io::{BufReader, stdin, stdout},
    net::{IpAddr, SocketAddr},
    ops::Range,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        Arc, Weak,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// Whether Ctrl-C asked for the end is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A part that holds connections looks for orders this often.
const BETWEEN_ORDERS: Duration = Duration::from_millis(20);

/// How many processes share `connections`, of which one takes `per_process` at most, and no more
/// than it may open files.
///
/// # Errors
/// There is nothing to share.
pub fn processes(connections: usize, per_process: usize) -> Result<usize> {
    let limit = machine::connection_limit()?.min(per_process);
    ensure!(connections > 0 && limit > 0, "no connections");
    Ok(connections.div_ceil(limit))
}

/// The places of each process's connections.
pub fn split(connections: usize, processes: usize) -> impl Iterator<Item = Range<usize>> {
    let each = connections.div_ceil(processes);
    (0..processes).map(move |index| index * each..connections.min((index + 1) * each))
}

/// What one of them has to do.
pub struct Share {
    /// Places of its users in the roster.
    pub users: Vec<Range<usize>>,
    /// Connections that the processes before it have.
    pub before: usize,
    /// What its command is told besides.
    pub arguments: Vec<OsString>,
}

/// The processes of a crowd.
pub struct Parts {
    parts: Vec<Part>,
    heard: Receiver<(usize, Result<Option<Answer>>)>,
    /// As long as it is there they may be told to stop.
    _held: Arc<()>,
    /// Where their users are, until all is over.
    _directory: tempfile::TempDir,
}

struct Part {
    helper: Helper,
    input: ChildStdin,
    /// The file of its users, and their places in the roster.
    users: PathBuf,
    places: Vec<Range<usize>>,
}

/// What a part is told; `O` are the orders of its kind of crowd.
#[derive(Serialize, Deserialize)]
enum Told<O> {
    Do(O),
    /// Say what there is, and write down what the devices must remember.
    Finish,
    /// Ctrl-C: leave it at what there is.
    Stop,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
enum Answer {
    Done(Value),
    /// Its last word.
    Failed(String),
}

impl Parts {
    /// Starts a process for each of `shares`: this program's command `role`, with users of `users`
    /// and connections from `sources`.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(
        role: &str,
        server: SocketAddr,
        sources: &[IpAddr],
        users: &Users,
        shares: Vec<Share>,
    ) -> Result<Parts> {
        let directory = tempfile::tempdir()?;
        let (sender, heard) = mpsc::channel();
        let mut parts = Vec::new();
        for (index, share) in shares.into_iter().enumerate() {
            let path = directory.path().join(format!("users-{index}"));
            let list = users.list.part(share.users.iter().cloned().flatten());
            Users::part(&path, list).save()?;
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args([role, "--server", &server.to_string(), "--users"])
                .arg(&path)
                .args(["--before", &share.before.to_string()])
                .args(sources.iter().map(|source| format!("--sources={source}")))
                .args(share.arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut helper = Helper::start(command, None)?;
            let (input, mut output) = (helper.stdin()?, helper.stdout()?);
            let sender = sender.clone();
            thread::spawn(move || {
                loop {
                    let heard = hear::<Answer>(&mut output);
                    let last = !matches!(heard, Ok(Some(_)));
                    if sender.send((index, heard)).is_err() || last {
                        return;
                    }
                }
            });
            parts.push(Part { helper, input, users: path, places: share.users });
        }
        let held = Arc::new(());
        stop_when_asked(&parts, Arc::downgrade(&held))?;
        Ok(Parts { parts, heard, _held: held, _directory: directory })
    }

    /// All do what `order` says of each, side by side; their answers, in their order.
    ///
    /// # Errors
    /// That of the first that fails, or ends.
    pub fn all<O: Serialize, A: DeserializeOwned>(
        &mut self,
        order: impl Fn(usize) -> O,
    ) -> Result<Vec<A>> {
        self.ask(|index| Told::Do(order(index)))
    }

    /// As [`Parts::all`], for the last time: gives `users` what their devices must remember.
    pub fn finish<A: DeserializeOwned>(&mut self, users: &mut Users) -> Result<Vec<A>> {
        let answers = self.ask(|_| Told::<()>::Finish)?;
        for part in &self.parts {
            let list = Users::open(Some(&part.users))?.list;
            users.list.absorb(&list, part.places.iter().cloned().flatten());
        }
        Ok(answers)
    }

    /// Lets them hold for `duration`, or until Ctrl-C. `look` hears now and then how much is left.
    ///
    /// # Errors
    /// One fails, or ends.
    pub fn keep(&mut self, duration: Duration, mut look: impl FnMut(Duration)) -> Result<()> {
        let until = Instant::now() + duration;
        while Instant::now() < until && !interrupt::requested() {
            let left = until.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left.min(LOOK_EVERY)) {
                Err(RecvTimeoutError::Timeout) => look(left),
                Err(RecvTimeoutError::Disconnected) => bail!("all parts of the crowd ended"),
                Ok((index, heard)) => {
                    self.answer(index, heard)?;
                    bail!("{} spoke unasked", self.name(index));
                }
            }
        }
        Ok(())
    }

    fn ask<O: Serialize, A: DeserializeOwned>(
        &mut self,
        told: impl Fn(usize) -> Told<O>,
    ) -> Result<Vec<A>> {
        for (index, part) in self.parts.iter_mut().enumerate() {
            // Who is gone has said why, or its end says it.
            let _ = say(&mut part.input, &told(index));
        }
        let mut answers: Vec<Option<A>> = self.parts.iter().map(|_| None).collect();
        while answers.iter().any(Option::is_none) {
            let (index, heard) = self.heard.recv().context("all parts of the crowd ended")?;
            answers[index] = Some(serde_json::from_value(self.answer(index, heard)?)?);
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// What the part at `index` answered.
    fn answer(&mut self, index: usize, heard: Result<Option<Answer>>) -> Result<Value> {
        let name = self.name(index);
        match heard.with_context(|| name.clone())? {
            Some(Answer::Done(value)) => Ok(value),
            Some(Answer::Failed(error)) => bail!("{name}: {error}"),
            None => bail!("{name} ended: {}", self.parts[index].helper.ended()?),
        }
    }

    fn name(&self, index: usize) -> String {
        format!("part {} of {} of the crowd", index + 1, self.parts.len())
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
                    let _ = say(input, &Told::<()>::Stop);
                }
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
    });
    Ok(())
}

/// What a part does.
pub trait Work {
    type Order: DeserializeOwned + Send + 'static;

    /// Does it, and answers.
    fn obey(&mut self, order: Self::Order) -> Result<Value>;

    /// Whether it has connections.
    fn holds(&self) -> bool;

    /// Holds them for `duration`.
    fn keep_on(&mut self, duration: Duration) -> Result<()>;

    /// The last answer.
    fn finish(&mut self) -> Result<Value>;

    /// Its users, as they are now.
    fn users(&self) -> &Roster;
}

/// Does as one part of a crowd what is told on standard input, with the users in the file `users`.
///
/// # Errors
/// Nobody is there to be told of one.
pub fn serve<W: Work>(users: &Path, begin: impl FnOnce(Roster) -> Result<W>) -> Result<()> {
    // A terminal's Ctrl-C comes here too.
    interrupt::listen()?;
    match work(users, begin) {
        Ok(()) => Ok(()),
        Err(error) => say(&mut stdout(), &Answer::Failed(format!("{error:#}"))),
    }
}

fn work<W: Work>(path: &Path, begin: impl FnOnce(Roster) -> Result<W>) -> Result<()> {
    machine::raise_file_limit()?;
    let mut work = begin(Users::open(Some(path))?.list)?;
    let orders = orders::<W::Order>();
    loop {
        // Hearts beat between orders; who has none to beat hears of the next at once.
        let wait = if work.holds() { Duration::ZERO } else { LOOK_EVERY };
        let answer = match orders.recv_timeout(wait) {
            Ok(Told::Do(order)) => work.obey(order)?,
            Ok(Told::Finish) => {
                let answer = work.finish()?;
                Users::part(path, work.users().clone()).save()?;
                answer
            }
            Ok(Told::Stop) => continue,
            Err(RecvTimeoutError::Timeout) => {
                if work.holds() {
                    work.keep_on(BETWEEN_ORDERS)?;
                }
                continue;
            }
            // Without whoever started it nobody wants the rest.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        say(&mut stdout(), &Answer::Done(answer))?;
    }
}

/// What standard input says, read beside the work: to stop must be heard amid it.
fn orders<O: DeserializeOwned + Send + 'static>() -> Receiver<Told<O>> {
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || {
        let mut input = BufReader::new(stdin());
        while let Ok(Some(told)) = hear::<Told<O>>(&mut input) {
            if matches!(told, Told::Stop) {
                interrupt::request();
            }
            if sender.send(told).is_err() {
                return;
            }
        }
    });
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_a_share_and_none_more_than_it_may() {
        for connections in 1..200 {
            for per_process in 1..=connections + 1 {
                let processes = processes(connections, per_process).unwrap();
                let shares: Vec<_> = split(connections, processes).collect();
                assert_eq!(shares.len(), processes);
                assert!(shares.iter().all(|share| (1..=per_process).contains(&share.len())));
                assert!(shares.into_iter().flatten().eq(0..connections));
            }
        }
        assert!(processes(0, 5).is_err() && processes(5, 0).is_err());
        let limit = machine::connection_limit().unwrap();
        assert_eq!(processes(limit, usize::MAX).unwrap(), 1);
        assert_eq!(processes(limit + 1, usize::MAX).unwrap(), 2);
    }
}
