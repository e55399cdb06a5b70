//! The commands, for tests that take several of them: a test's program is each of them, for the load
//! tool starts itself again for a part of a load, and their binaries may not have been built.

use starling_server::settings::{self, Settings};
use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

/// Which of the commands this process is.
const ROLE: &str = "TEST_ROLE";
const SERVER: &str = "server";
const BENCH: &str = "bench";

/// What this process is to do: one of the commands, or `test`.
pub fn main(test: fn()) -> ExitCode {
    match env::var(ROLE).as_deref() {
        Ok(SERVER) => serve(),
        Ok(BENCH) => starling_bench::main(),
        _ => {
            test();
            ExitCode::SUCCESS
        }
    }
}

fn serve() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let command_line = settings::parse(&arguments).unwrap_or_else(|error| error.exit());
    match Settings::gather(command_line).and_then(|settings| starling_server::run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => panic!("{failure}"),
    }
}

fn role(role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(ROLE, role).stdin(Stdio::null());
    command
}

/// The load tool.
pub fn bench() -> Command {
    role(BENCH)
}

/// A server that ends with this.
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    pub fn start(data: &Path) -> Server {
        let mut command = role(SERVER);
        command.args(["--listen", "127.0.0.1:0", "--shards", "2", "--data"]).arg(data);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (_, rest) = line.split_once(" ready on ").unwrap_or_else(|| panic!("{line}"));
        let address = rest.split(',').next().unwrap().to_owned();
        Server { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
