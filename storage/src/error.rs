//! Why a store could not be opened, read or written.

use std::path::PathBuf;

/// Why the store does not open. Each is one line that a person can act on.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0} is in use by another process; stop it, or choose another data directory")]
    Locked(PathBuf),
    #[error("no permission for {0}; give this user rights to it, or choose another data directory")]
    NoPermission(PathBuf),
    #[error(
        "the data is in format {found} and this program reads format {known}; use the program that wrote it"
    )]
    UnknownFormat { found: u32, known: u32 },
    #[error("the data is damaged: {0}; restore a backup")]
    Corrupt(String),
    #[error("the store cannot be opened: {0}")]
    Io(String),
}

/// Why a row could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not in memory, and only memory was to be looked in. Not a failure.
    #[error("not in memory")]
    Incomplete,
    #[error("the store cannot be read: {0}")]
    Failed(String),
    #[error("a row is damaged: {0}")]
    Corrupt(String),
}

/// Why rows could not be written or synced. After one the store is poisoned: what survived is
/// only known at the next opening.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot be written: {0}")]
pub struct WriteError(pub String);
