//! What the system must give before anything starts, and what it must allow.

use crate::{failure::Failure, shard::MAX_LINGERING};
use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// The oldest kernel that has all that shards use.
const OLDEST_KERNEL: (u32, u32) = (6, 1);
/// With fewer files nothing useful could be held.
const LEAST_FILES: u64 = 1_024;
/// Files beside connections and tables: the log and other files of the store, standard streams,
/// keys, and for each shard its ring, set of sockets, doorbell, listener, alarms and lingering
/// sockets.
const RESERVED_FILES: u64 = 64;
const RESERVED_FILES_PER_SHARD: u64 = 6 + MAX_LINGERING as u64;
/// Files of the store: an eighth of all, within these bounds.
const STORE_FILES: std::ops::RangeInclusive<u64> = 128..=512;

/// What the limit on open files is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileBudget {
    /// Files that the store may hold open.
    pub store: u32,
    pub max_connections: u32,
}

/// Raises the soft limit on open files to the hard one and spends it.
///
/// # Errors
/// It is too low.
pub fn budget_files(shards: u16) -> Result<FileBudget, Failure> {
    share_out(raise_file_limit(), shards)
}

/// The limit on open files with which so many connections can be held.
pub fn files_needed(connections: u32, shards: u16) -> u64 {
    let spent = spent(*STORE_FILES.end(), shards);
    LEAST_FILES.max(2 * spent).max(u64::from(connections) + spent)
}

/// Files that no connection may have.
fn spent(store: u64, shards: u16) -> u64 {
    store + RESERVED_FILES + RESERVED_FILES_PER_SHARD * u64::from(shards)
}

pub(crate) fn share_out(limit: u64, shards: u16) -> Result<FileBudget, Failure> {
    let store = (limit / 8).clamp(*STORE_FILES.start(), *STORE_FILES.end());
    let spent = spent(store, shards);
    let needed = LEAST_FILES.max(2 * spent);
    if limit < needed {
        return Err(Failure::FileLimit { limit, needed });
    }
    let max_connections = u32::try_from(limit - spent).unwrap_or(u32::MAX);
    // Clamped above.
    Ok(FileBudget { store: store as u32, max_connections })
}

fn raise_file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills, then reads, the struct it is given. Raising the soft limit to the
    // hard one is always allowed.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
    }
    limit.rlim_cur
}

/// Checks that the kernel is new enough and gives rings.
///
/// # Errors
/// It is not, or does not.
pub fn check_kernel() -> Result<(), Failure> {
    check_release(&release())?;
    crate::net::ring::probe().map_err(|error| Failure::NoIoUring { error })
}

fn release() -> String {
    let mut names = std::mem::MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the kernel fills the struct it is given, each name with a zero at its end; one of
    // zeroes is valid.
    let release = unsafe {
        libc::uname(names.as_mut_ptr());
        std::ffi::CStr::from_ptr((*names.as_ptr()).release.as_ptr()).to_owned()
    };
    release.to_string_lossy().into_owned()
}

fn check_release(release: &str) -> Result<(), Failure> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut number = || numbers.next().and_then(Result::ok);
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST_KERNEL => {
            Err(Failure::KernelTooOld { found: release.to_owned() })
        }
        // One that does not say what it is is given the benefit of the doubt: the ring is tried.
        _ => Ok(()),
    }
}

/// Makes the data folder if it is not there, and locks it for as long as the file is open.
///
/// # Errors
/// There are no rights to it, or another process has it.
pub fn take_data_dir(path: &Path) -> Result<File, Failure> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Failure::DataRights { path: path.to_owned(), error }
        }
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            Failure::DataNoFolder { path: path.to_owned() }
        }
        _ => Failure::Data { path: path.to_owned(), error },
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("server.lock"))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failure::DataLocked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused() {
        for old in ["5.15.0-91-generic", "6.0.19", "4.4"] {
            assert!(check_release(old).is_err(), "{old}");
        }
        for new in ["6.1.0-18-cloud-amd64", "6.18.44-fc", "7.0", "strange"] {
            assert!(check_release(new).is_ok(), "{new}");
        }
        check_kernel().unwrap();
    }

    #[test]
    fn files_are_shared_out() {
        assert!(share_out(1_023, 1).is_err());
        assert!(share_out(256, 1).is_err());
        let least = share_out(1_024, 2).unwrap();
        assert_eq!(least, FileBudget { store: 128, max_connections: 1_024 - 128 - 64 - 140 });
        assert_eq!(share_out(20_000, 1).unwrap().store, 512);
        // Many shards need more than the least.
        assert!(share_out(1_024, 64).is_err());
        assert_eq!(share_out(u64::MAX, 1).unwrap().max_connections, u32::MAX);
    }

    #[test]
    fn a_data_folder_has_one_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/data");
        let lock = take_data_dir(&path).unwrap();
        assert!(matches!(take_data_dir(&path), Err(Failure::DataLocked { .. })));
        drop(lock);
        take_data_dir(&path).unwrap();
        let file = parent.path().join("file");
        File::create(&file).unwrap();
        for no_folder in [file.clone(), file.join("data")] {
            assert!(matches!(take_data_dir(&no_folder), Err(Failure::DataNoFolder { .. })));
        }
    }
}
