//! The real server, started on a free port with a data folder of its own.
#![allow(dead_code)] // Each test program uses a part of this.

pub mod history;
pub mod wire;

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, quiet, on a free port, with what the environment says left out.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling-server"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STARLING_")) {
        command.env_remove(name);
    }
    command.env("STARLING_LISTEN", "127.0.0.1:0").env("STARLING_LOG", "warn");
    command
}

/// The command behind what a shell does first, such as `ulimit -n 512 &&`.
pub fn in_shell(first: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{first} exec \"$@\"")).arg("sh");
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// A running server, killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub ready_line: String,
    /// Read to its end when the server has ended.
    stderr: Option<std::process::ChildStderr>,
    data: Data,
}

enum Data {
    Own(TempDir),
    Lent(PathBuf),
}

impl Server {
    /// With an empty data folder.
    pub fn start(arguments: &[&str]) -> Server {
        let data = tempfile::tempdir().unwrap();
        let mut command = command();
        command.arg("--data").arg(data.path()).args(arguments);
        Server::launch(command, Data::Own(data))
    }

    /// With a data folder that stays.
    pub fn start_in(data: &Path, arguments: &[&str]) -> Server {
        let mut command = command();
        command.arg("--data").arg(data).args(arguments);
        Server::launch(command, Data::Lent(data.to_owned()))
    }

    /// From a command that names a data folder.
    pub fn start_command(command: Command, data: &Path) -> Server {
        Server::launch(command, Data::Lent(data.to_owned()))
    }

    fn launch(mut command: Command, data: Data) -> Server {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
        let mut ready_line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready_line).unwrap();
        let mut stderr = child.stderr.take();
        let Some(address) = address_in(&ready_line) else {
            let mut said = String::new();
            stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("not ready: {ready_line:?} {said}");
        };
        Server { child, address, ready_line, stderr, data }
    }

    pub fn data(&self) -> &Path {
        match &self.data {
            Data::Own(folder) => folder.path(),
            Data::Lent(path) => path,
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn operator_key(&self) -> Vec<u8> {
        let text = std::fs::read_to_string(self.data().join("operator.key")).unwrap();
        text.trim().as_bytes().to_vec()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointer; the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Ends it as a power cut would, but for the machine.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sets the soft limit on its open files; what it was.
    pub fn limit_files(&self, files: u64) -> u64 {
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel fills and reads the structs it is given.
        unsafe {
            let own = libc::RLIMIT_NOFILE;
            assert_eq!(libc::prlimit(self.pid(), own, std::ptr::null(), &mut old), 0);
            let new = libc::rlimit { rlim_cur: files, ..old };
            assert_eq!(libc::prlimit(self.pid(), own, &new, std::ptr::null_mut()), 0);
        }
        old.rlim_cur
    }

    pub fn open_files(&self) -> u64 {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count() as u64
    }

    /// Waits for its end; what it exited with, and what it said on standard error.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.child);
        let mut said = String::new();
        self.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status, said)
    }

    /// Tells it to end, and expects that it does so well.
    pub fn end(self) {
        self.signal(libc::SIGTERM);
        let (status, said) = self.wait();
        assert_eq!(status.code(), Some(0), "{said}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server that cannot start exits with, and its one line.
pub fn refusal(mut command: Command) -> (i32, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = wait(&mut child);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "", "nothing but the ready line goes to standard output");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 1, "one line: {said}");
    assert!(lines[0].starts_with("starling-server: "), "{said}");
    (status.code().expect("an exit code"), said)
}

fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("the server does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn address_in(ready_line: &str) -> Option<SocketAddr> {
    ready_line.split_once(" ready on ")?.1.split(',').next()?.parse().ok()
}
