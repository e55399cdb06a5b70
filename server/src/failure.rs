//! Why the server does not start or does not go on: one line each, with what to do.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why the process ends without having been asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{what}; see --help or --print-config")]
    Settings { what: String },
    #[error(
        "{listen} is not loopback and nothing would be encrypted: passwords, tokens and messages \
         could be read on the way. Listen on 127.0.0.1 behind a TLS proxy, or say \
         --allow-plaintext if the network is trusted"
    )]
    Plaintext { listen: SocketAddr },
    #[error("{listen} is in use: end the other server, or choose another with --listen ADDR:PORT")]
    PortInUse { listen: SocketAddr },
    #[error("cannot listen on {listen}: {error}; choose another with --listen ADDR:PORT")]
    Listen { listen: SocketAddr, error: io::Error },
    #[error(
        "no rights on the data folder {}: {error}; change its owner or choose another with --data \
         DIR", path.display()
    )]
    DataRights { path: PathBuf, error: io::Error },
    #[error(
        "the data folder {} is locked by another process: end it, or choose another with --data \
         DIR", path.display()
    )]
    DataLocked { path: PathBuf },
    #[error("{} is no folder: choose another with --data DIR", path.display())]
    DataNoFolder { path: PathBuf },
    #[error("the data folder {} cannot be used: {error}; see its file system", path.display())]
    Data { path: PathBuf, error: io::Error },
    #[error("{} cannot be used: {what}", path.display())]
    Key { path: PathBuf, what: String },
    #[error("the store in {} cannot be opened: {what}", path.display())]
    Store { path: PathBuf, what: String },
    #[error("the kernel is {found}; Starling needs Linux 6.1 or newer")]
    KernelTooOld { found: String },
    #[error(
        "io_uring cannot be used: {error}; allow it (sysctl kernel.io_uring_disabled=0, and in a \
         container a seccomp profile with io_uring_setup, io_uring_enter and io_uring_register)"
    )]
    NoIoUring { error: io::Error },
    #[error(
        "this process may open {limit} files; Starling needs {needed}: raise the limit (ulimit -n, \
         or LimitNOFILE= of the service)"
    )]
    FileLimit { limit: u64, needed: u64 },
    #[error("a thread could not be started: {error}")]
    Thread { error: io::Error },
    #[error("signals cannot be watched: {error}")]
    Signals { error: io::Error },
    #[error(
        "the store failed: {reason}. What was acknowledged is safe; see the disk, then start again"
    )]
    StorePoisoned { reason: String },
    #[error("the shards did not end within {seconds} s")]
    Stuck { seconds: u64 },
}

impl Failure {
    /// What the process exits with: 2 for wrong usage, 3 for a failed store, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Settings { .. } | Failure::Plaintext { .. } => 2,
            Failure::StorePoisoned { .. } => 3,
            _ => 1,
        }
    }
}
