//! Y5: Redis streams, synced before it answers, under the same load.

use crate::{
    dialect::Redis,
    load::{self, Outcome, Plan, Unwatched},
    process::{Helper, free_address},
};
use anyhow::{Context, Result};
use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

/// Debian's Redis.
pub const PROGRAM: &str = "redis-server";

/// A Redis of our own.
pub struct RedisServer {
    helper: Helper,
    address: SocketAddr,
    /// Its files go with it.
    _directory: tempfile::TempDir,
}

impl RedisServer {
    /// Starts Debian's redis-server with its files under `directory`.
    ///
    /// # Errors
    /// It is not installed (Debian: redis-server), or does not start.
    pub fn start(directory: &Path, core: Option<usize>) -> Result<RedisServer> {
        let address = free_address()?;
        let directory = tempfile::Builder::new().prefix("redis-").tempdir_in(directory)?;
        let mut command = Command::new(PROGRAM);
        command
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .args(["--auto-aof-rewrite-percentage", "0", "--protected-mode", "no"])
            .args(["--loglevel", "warning"])
            .arg("--dir")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut helper = Helper::start(command, core)?;
        helper.until_listening(address)?;
        Ok(RedisServer { helper, address, _directory: directory })
    }

    /// Runs `plan` against it.
    pub fn measure(&self, plan: &Plan) -> Result<Outcome> {
        let plan =
            Plan { server: self.address, server_pid: Some(self.helper.pid()), ..plan.clone() };
        let run_id = rand::random();
        let (measured, _) = load::run(plan, run_id, Redis::new(run_id), &mut Unwatched)?;
        measured.outcome().context("interrupted before anything was measured")
    }
}
