//! People who use the command `starling`.

use super::PASSWORD;
use crate::common::{
    Server,
    history::{History, Recording},
};
use serde_json::Value;
use starling_client::{
    Client, ClientSettings, Events, SqliteStore, Store,
    codec::{
        DeviceId, Epoch, Place, UserId,
        history::{Fact, Record},
    },
};
use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Mutex,
    time::Duration,
};
use tempfile::TempDir;

const ARGUMENTS: &str = "TEST_ARGUMENTS";

/// What the test `starling_itself` of each program does that uses the command: where arguments for
/// it are set, this process is the command. It is the command's own code in a process of its own;
/// its binary may not have been built for this test.
pub fn be_starling() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let arguments = std::iter::once("starling").chain(arguments.split('\u{1f}'));
    std::process::exit(starling_client::command::run_with(arguments.map(Into::into)).into());
}

/// Somebody with a profile.
pub struct Person {
    profile: TempDir,
    server: String,
    /// What each command with this profile told, one after the other.
    told: Mutex<Vec<Recording>>,
}

/// How a command ended: its exit code, its JSON lines, and what it said on standard error.
pub struct Ended {
    pub code: i32,
    pub lines: Vec<Value>,
    pub said: String,
}

impl Person {
    pub fn new(server: &Server) -> Person {
        Person {
            profile: tempfile::tempdir().unwrap(),
            server: server.address.to_string(),
            told: Mutex::default(),
        }
    }

    /// As she is now, in another folder.
    pub fn copied(&self) -> Person {
        let profile = tempfile::tempdir().unwrap();
        std::fs::copy(self.folder().join("profile.db"), profile.path().join("profile.db")).unwrap();
        Person { profile, server: self.server.clone(), told: Mutex::default() }
    }

    /// Goes on where a copy was made, whatever she did since.
    pub fn restored(self, copy: Person) -> Person {
        let told = self.told;
        let (user, device, place) = copy.at();
        let line = Recording::default();
        line.write(&Record::of(user, device, Fact::Restored(place)));
        told.lock().unwrap().push(line);
        Person { told, ..copy }
    }

    pub fn registered(server: &Server, name: &str) -> Person {
        let person = Person::new(server);
        assert_eq!(person.json(&["register", name]).code, 0);
        person
    }

    pub fn logged_in(server: &Server, name: &str) -> Person {
        let person = Person::new(server);
        assert_eq!(person.json(&["login", name]).code, 0);
        person
    }

    pub fn folder(&self) -> &Path {
        self.profile.path()
    }

    pub fn command(&self, arguments: &[&str], password: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "starling_itself", "--nocapture", "--test-threads=2"])
            .args(["--color", "never"])
            .env(ARGUMENTS, arguments.join("\u{1f}"))
            .env("STARLING_SERVER", &self.server)
            .env("STARLING_PROFILE", self.folder())
            .env("STARLING_PASSWORD", password)
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        command
    }

    pub fn end(mut command: Command) -> Ended {
        let output = command.output().unwrap();
        let lines = output.stdout.lines().map_while(Result::ok);
        Ended {
            code: output.status.code().unwrap(),
            lines: lines.filter_map(|line| json(&line)).collect(),
            said: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn json(&self, arguments: &[&str]) -> Ended {
        let ended = Person::end(self.command(&[&["--json"], arguments].concat(), PASSWORD));
        let told = self.begin_to_tell();
        ended.lines.iter().for_each(|line| told.write_line(&line.to_string()));
        ended
    }

    pub fn human(&self, arguments: &[&str]) -> Ended {
        Person::end(self.command(arguments, PASSWORD))
    }

    pub fn listen(&self) -> Listener {
        self.listen_with(&[])
    }

    pub fn listen_with(&self, arguments: &[&str]) -> Listener {
        let mut command = self.command(&[&["--json", "listen"], arguments].concat(), PASSWORD);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Listener { child, lines, heard: VecDeque::new(), history: self.begin_to_tell() }
    }

    /// Her device as an app runs it. No command may run meanwhile.
    pub fn app(&self) -> (Client, Events) {
        let store = SqliteStore::open(self.folder()).unwrap();
        let recorder = self.begin_to_tell().recorder();
        Client::start_recorded(&self.server, store, ClientSettings::default(), recorder).unwrap()
    }

    pub fn texts(&self, with: &str) -> Vec<String> {
        texts(&self.json(&["history", with]).lines)
    }

    fn begin_to_tell(&self) -> Recording {
        let recording = Recording::default();
        self.told.lock().unwrap().push(recording.clone());
        recording
    }

    /// User and device, and how far it has come.
    fn at(&self) -> (UserId, DeviceId, Place) {
        let saved = SqliteStore::open(self.folder()).unwrap().load().unwrap();
        let own = saved.identity.expect("logged in");
        (own.user, own.device, saved.cursor)
    }

    /// Tells from the beginning all that the server has for her; where that ends.
    fn catch_up(&self) -> (UserId, Place) {
        let place = |line: &Value, seq: &str, epoch: &str| {
            Some(Place::new(line[seq].as_u64()?, Epoch(line[epoch].as_u64()? as u32)))
        };
        loop {
            let mut listener = self.listen_with(&["--after", "0:0"]);
            let online = listener.wait_for("online");
            let head = place(&online, "head_seq", "head_epoch").unwrap();
            let mut told = Place::START;
            while told < head {
                let line = listener.next().expect("it still runs");
                told = place(&line, "inbox_seq", "epoch").unwrap_or(told);
            }
            let rest = listener.end();
            told = rest
                .iter()
                .filter_map(|line| place(line, "inbox_seq", "epoch"))
                .max()
                .unwrap_or(told);
            // What came as it ended was kept, but not told.
            let (user, _, cursor) = self.at();
            if told == cursor {
                return (user, told);
            }
        }
    }

    /// The last line of the device: what it holds, now that all is at rest.
    fn settle(&self) {
        let (user, device, cursor) = self.at();
        let hash = SqliteStore::open(self.folder()).unwrap().state_hash().unwrap();
        self.begin_to_tell().write(&Record::of(user, device, Fact::State { cursor, hash }));
    }
}

/// Nobody runs a command any more: each device tells all that it holds, and what all of them told
/// keeps the contract.
pub fn check(people: &[&Person]) {
    check_with(people, Vec::new());
}

/// The same, with what others recorded.
pub fn check_with(people: &[&Person], others: Vec<Recording>) {
    // A receipt that comes while one device catches up is fetched by those that had caught up.
    let agree = || {
        let mut ends = HashMap::new();
        let places: Vec<_> = people.iter().map(|person| person.catch_up()).collect();
        places.into_iter().all(|(user, place)| *ends.entry(user).or_insert(place) == place)
    };
    while !agree() {}
    people.iter().for_each(|person| person.settle());
    let mut told = others;
    told.extend(people.iter().flat_map(|person| person.told.lock().unwrap().clone()));
    History::of(&told).must_hold();
}

/// The JSON line within a line; the first one shares its line with the words of a test program.
fn json(line: &str) -> Option<Value> {
    serde_json::from_str(&line[line.find('{')?..]).ok()
}

/// The same, and it goes into a history.
fn recorded(history: &Recording, line: &str) -> Option<Value> {
    let value = json(line)?;
    history.write_line(&value.to_string());
    Some(value)
}

pub fn texts(lines: &[Value]) -> Vec<String> {
    let messages = lines.iter().filter(|line| line["type"] == "message");
    messages.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

/// A `starling listen` that runs.
pub struct Listener {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    heard: VecDeque<Value>,
    /// Every line of it that was read, for they are a history.
    history: Recording,
}

impl Listener {
    /// The next line; `None` at the end, which may come within a line.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(line) = self.heard.pop_front() {
                return Some(line);
            }
            let line = self.lines.next()?.unwrap();
            self.heard.extend(recorded(&self.history, &line));
        }
    }

    /// The next line of a type; those between stay for later.
    pub fn wait_for(&mut self, kind: &str) -> Value {
        if let Some(at) = self.heard.iter().position(|line| line["type"] == kind) {
            return self.heard.remove(at).unwrap();
        }
        loop {
            let line = self.lines.next().expect("it still runs").unwrap();
            match recorded(&self.history, &line) {
                Some(line) if line["type"] == kind => return line,
                Some(line) => self.heard.push_back(line),
                None => {}
            }
        }
    }

    pub fn text(&mut self) -> String {
        self.wait_for("message")["text"].as_str().unwrap().to_owned()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointer; the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Ends it as Ctrl-C does; gives what it had not been asked for.
    pub fn end(mut self) -> Vec<Value> {
        self.signal(libc::SIGTERM);
        let rest = self.lines.by_ref().map_while(Result::ok);
        self.heard.extend(rest.filter_map(|line| recorded(&self.history, &line)));
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        self.heard.drain(..).collect()
    }

    /// Kills it where it is. What it printed before can still be read.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Of two listeners with one device between them one is stopped: what it said last.
    pub fn wait_for_either(mut self, mut other: Listener) -> Value {
        loop {
            for listener in [&mut self, &mut other] {
                if listener.child.try_wait().unwrap().is_some() {
                    return listener.wait_for("error");
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
