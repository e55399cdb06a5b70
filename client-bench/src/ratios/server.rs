//! The server under test, started for one measurement with a data directory of its own.

use crate::{
    arguments::Target,
    process::{Helper, free_address},
};
use anyhow::{Context, Result};
use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A server that runs.
pub struct Server {
    helper: Helper,
    address: SocketAddr,
    data: PathBuf,
}

impl Server {
    /// Starts `binary` with its data in `data`, which keeps what an earlier one left there.
    ///
    /// # Errors
    /// It does not start; its log stands beside the data.
    pub fn start(binary: &Path, data: &Path, core: Option<usize>) -> Result<Server> {
        let address = free_address()?;
        let path = data.with_extension("log");
        let log = File::options().create(true).append(true).open(&path)?;
        let mut command = Command::new(binary);
        command
            .args(["--listen", &address.to_string(), "--shards", "1"])
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut helper = Helper::start(command, core)?;
        helper.until_listening(address).with_context(|| {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            format!("the server does not start; it said: {}", log.trim())
        })?;
        Ok(Server { helper, address, data: data.to_owned() })
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
