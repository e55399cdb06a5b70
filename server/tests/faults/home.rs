//! Where a server lives over all that happens to it, and starts again.

use super::{own_address, talk::Talk};
use crate::common::{self, Server};
use std::{
    mem,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};
use tempfile::TempDir;

/// A data folder, and an address of its own, at which clients find the server again.
pub struct Home {
    folder: TempDir,
    data: PathBuf,
    address: SocketAddr,
}

impl Home {
    pub fn new() -> Home {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Home { folder, data, address: own_address() }
    }

    /// With its data on another disk.
    pub fn on(disk: &Path) -> Home {
        Home { data: disk.join("data"), ..Home::new() }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// For what a test wants to keep beside the data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn command(&self) -> Command {
        let mut command = common::command();
        // Small memtables, so that what is written soon needs files of its own.
        command.args(["--shards", "2", "--memtable-mib", "8", "--listen", &self.address()]);
        command.arg("--data").arg(&self.data);
        command
    }

    pub fn start(&self) -> Server {
        self.launch(self.command())
    }

    pub fn launch(&self, command: Command) -> Server {
        Server::start_command(command, &self.data)
    }
}

/// Nothing that was promised is missing, of no class: nothing but power takes what was written.
pub async fn kept_all(talk: &Talk, address: &str) {
    talk.flushed().await;
    let kept = talk.check(address, &talk.promises()).await;
    println!("{kept:?}, {} written", talk.written());
    assert!(kept.durable > 0 && kept.buffered > 0);
    assert_eq!((kept.buffered_lost, talk.rewinds()), (0, 0), "what was promised is gone");
}

/// Waits until all is acknowledged. Whenever the server has ended, it is started again; how it
/// ended, and what it said.
pub async fn flushed_by_any(
    talk: &Talk,
    server: &mut Server,
    start: impl Fn() -> Server,
) -> Vec<(ExitStatus, String)> {
    let mut ends = Vec::new();
    let mut flushed = std::pin::pin!(talk.flushed());
    while tokio::time::timeout(Duration::from_millis(100), &mut flushed).await.is_err() {
        if server.has_ended() {
            ends.push(mem::replace(server, start()).wait());
        }
    }
    ends
}
