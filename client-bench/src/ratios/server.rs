//! The server under test, started for one measurement with a data directory of its own.

use crate::{arguments::Target, process::Helper};
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
};

/// What the server prints before its address once it is ready.
const READY: &str = " ready on ";

/// A server that runs.
pub struct Server {
    helper: Helper,
    address: SocketAddr,
    data: PathBuf,
    /// Kept open, so that the server may go on printing.
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts `binary` with its data in `data`, which keeps what an earlier one left there, and with
    /// `settings` besides.
    ///
    /// # Errors
    /// It does not start; what it said is in the error.
    pub fn start(
        binary: &Path,
        data: &Path,
        core: Option<usize>,
        settings: &[&str],
    ) -> Result<Server> {
        let path = data.with_extension("log");
        let mut command = Command::new(binary);
        command
            .args(["--listen", "127.0.0.1:0", "--shards", "1", "--data"])
            .arg(data)
            .args(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&path)?);
        let mut helper = Helper::start(command, core)?;
        let mut output = helper.stdout()?;
        let mut line = String::new();
        let address = loop {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                let log = std::fs::read_to_string(&path).unwrap_or_default();
                bail!("the server does not start; it said: {}", log.trim());
            }
            if let Some((_, rest)) = line.split_once(READY) {
                let address = rest.split([',', ' ', '\n']).next().unwrap_or_default();
                break address.parse().with_context(|| format!("no address in {line:?}"))?;
            }
        };
        Ok(Server { helper, address, data: data.to_owned(), _output: output })
    }

    pub fn target(&self) -> Target {
        Target {
            server: self.address,
            operator_key: self.data.join("operator.key"),
            users: Some(self.data.with_extension("users")),
            server_pid: Some(self.helper.pid()),
        }
    }

    /// Ends it in order.
    pub fn stop(self) -> Result<()> {
        self.helper.stop().context("the server")
    }
}
