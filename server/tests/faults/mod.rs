//! A server whose disk and threads misbehave on command: a small library of C, compiled here and
//! preloaded into it, and what tests against it share.
#![allow(dead_code)] // Each test program uses a part of this.

pub mod foes;
pub mod home;
pub mod people;
pub mod process;
pub mod processors;
pub mod profile;
pub mod talk;

use crate::common::{self, PATIENCE, Server};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What the library is told, and what it tells: places in the control file, as in shim.c.
#[derive(Clone, Copy, Debug)]
pub enum Control {
    /// How long each sync takes longer.
    SyncDelayMs = 0,
    /// What each sync fails with; 0: nothing.
    SyncErrno = 1,
    /// What each write fails with once half of it is written; 0: nothing.
    WriteErrno = 2,
    /// How long a paused thread stays so.
    PauseMs = 3,
    SyncsBegun = 4,
    SyncsDone = 5,
    PausesBegun = 6,
    PausesDone = 7,
    WritesFailed = 8,
    /// Not 0: what fails says that it succeeded, as it would look to a server that does not care.
    HidesFailures = 9,
}

const CONTROL_BYTES: u64 = 10 * 4;

/// Longer than any test: until it is told otherwise.
pub const HELD_MS: u32 = 600_000;

/// A data folder, an address, and the faults of the server that is started there.
pub struct House {
    folder: TempDir,
    control: File,
    address: SocketAddr,
    arguments: Vec<String>,
}

impl House {
    /// Compiles the library; no server runs yet.
    pub fn new(arguments: &[&str]) -> House {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/shim.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(folder.path().join("shim.so"))
            .arg(source)
            .output()
            .expect("a C compiler, as for RocksDB");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let path = folder.path().join("control");
        let control = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        control.set_len(CONTROL_BYTES).unwrap();
        File::create(folder.path().join("syncs")).unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        House { folder, control, address: own_address(), arguments }
    }

    /// Starts the server, at the same address each time: clients find it again.
    pub fn start(&self) -> Server {
        let mut command = common::command();
        command
            .env("LD_PRELOAD", self.folder.path().join("shim.so"))
            .env("FAULTS_CONTROL", self.folder.path().join("control"))
            .env("FAULTS_SYNC_LOG", self.folder.path().join("syncs"))
            .args(["--listen", &self.address.to_string(), "--data"])
            .arg(self.data())
            .args(&self.arguments);
        let data = self.data();
        Server::start_command(command, &data)
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn set(&self, what: Control, value: u32) {
        self.control.write_all_at(&value.to_ne_bytes(), what as u64 * 4).unwrap();
    }

    pub fn get(&self, what: Control) -> u32 {
        let mut bytes = [0; 4];
        self.control.read_exact_at(&mut bytes, what as u64 * 4).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// No faults any more.
    pub fn heal(&self) {
        for what in [
            Control::SyncDelayMs,
            Control::SyncErrno,
            Control::WriteErrno,
            Control::PauseMs,
            Control::HidesFailures,
        ] {
            self.set(what, 0);
        }
    }

    /// Waits until a counter is above `value`.
    pub async fn above(&self, what: Control, value: u32) {
        let until = Instant::now() + PATIENCE;
        while self.get(what) <= value {
            assert!(Instant::now() < until, "{what:?} stays at {value}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Stops a thread of the server where it is, for [`Control::PauseMs`].
    pub fn pause(&self, server: &Server, thread: &str) {
        let tasks = format!("/proc/{}/task", server.pid());
        let named = fs::read_dir(tasks).unwrap().map(|task| task.unwrap()).find(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == thread)
        });
        let task = named.unwrap_or_else(|| panic!("no thread {thread}"));
        let number: i32 = task.file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: tgkill takes no pointer; the process is our child and has not been waited for.
        let sent =
            unsafe { libc::syscall(libc::SYS_tgkill, server.pid(), number, libc::SIGRTMIN() + 5) };
        assert_eq!(sent, 0);
    }

    /// The logs of the store in their order, each with how far it was written at its last completed
    /// sync and is now.
    pub fn logs(&self) -> Vec<Log> {
        let mut synced = BTreeMap::new();
        let text = fs::read_to_string(self.folder.path().join("syncs")).unwrap();
        for line in text.lines() {
            let (bytes, path) = line.split_once(' ').unwrap();
            synced.insert(PathBuf::from(path), bytes.parse().unwrap());
        }
        let files = fs::read_dir(self.data().join("store")).unwrap();
        let mut logs: Vec<Log> = files
            .map(|file| file.unwrap().path().canonicalize().unwrap())
            .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
            .map(|path| {
                let synced = synced.get(&path).copied().unwrap_or(0);
                // Behind what is written there are zeros; and it may end in some.
                let bytes = fs::read(&path).unwrap();
                let last = bytes.iter().rposition(|byte| *byte != 0);
                let written = last.map_or(0, |last| last as u64 + 1).max(synced);
                Log { path, synced, written }
            })
            .collect();
        logs.sort_by(|one, other| one.path.cmp(&other.path));
        logs
    }
}

/// A file of the log.
#[derive(Debug)]
pub struct Log {
    pub path: PathBuf,
    pub synced: u64,
    pub written: u64,
}

impl Log {
    /// While no server runs: what lies behind the last sync is gone, but for so many bytes.
    pub fn cut(&self, kept: u64) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.set_len(self.synced + kept).unwrap();
    }
}

/// A loopback address of this process's own: its port is nobody else's, and no outgoing connection
/// takes it while the server is down.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(7_400);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, 0x40 | high & 0x3F, middle, low], port))
}

/// Proportional share of the server's memory, in bytes.
pub fn memory_of(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}
