//! Y1: sockets that are held and nothing else. What the kernel keeps for them is the floor.

use crate::{
    interrupt,
    link::Link,
    machine::{self, Memory},
    poller::{Poller, Watch},
    process::Helper,
    sources::Sources,
};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    thread::sleep,
    time::{Duration, Instant},
};

/// Whether Ctrl-C asked for the end is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A holder that has not accepted all after so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// The kernel keeps a closed socket for 60 s at most.
const FORGOTTEN: Duration = Duration::from_secs(75);

/// What one held connection costs.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    pub connections: usize,
    /// Both ends, for both are on this machine.
    pub slab_bytes_per_connection: f64,
    /// The same, of objects in use and but for those of files; only root may know.
    pub slab_object_bytes_per_connection: Option<f64>,
    /// Of the end that connected, alone, if that was asked for. Both ends share pages, so it has
    /// the share that it has of the objects in them: those that are left when the holder is gone
    /// and the kernel has forgotten its sockets.
    pub client_slab_bytes_per_connection: Option<f64>,
    /// Of the holder.
    pub pss_bytes_per_connection: f64,
}

/// Accepts and holds until the process is ended.
pub fn serve() -> Result<()> {
    let listener = super::serving()?;
    listener.set_nonblocking(true)?;
    let mut poller = Poller::new()?;
    poller.add(&listener, 0, Watch::Read)?;
    let mut held: Vec<TcpStream> = Vec::new();
    loop {
        for position in 0..poller.wait(None)? {
            let ready = poller.ready(position);
            if ready.index > 0 {
                // A peer that closed; nobody here ever writes.
                poller.remove(&held[ready.index - 1])?;
                continue;
            }
            loop {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(true)?;
                        held.push(stream);
                        poller.add(&held[held.len() - 1], held.len(), Watch::Read)?;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// Holds `connections`, and measures after `quiet`.
///
/// With `split` the holder then ends, and what is left is measured too.
pub fn measure(
    connections: usize,
    quiet: Duration,
    split: bool,
    core: Option<usize>,
) -> Result<Idle> {
    let limit = machine::connection_limit()?;
    ensure!(connections <= limit, "a process may open {limit} connections here");
    let (holder, address) = Helper::role(&["yardstick", "idle", "--serve"], core)?;
    let warm = TcpStream::connect(address)?;
    rest(quiet)?;
    let before = Memory::now(Some(holder.pid()))?;
    let files_before = machine::open_files(holder.pid())?;
    let objects_before = split.then(machine::slab_object_bytes).transpose()?;
    let sources = Sources::default();
    // Watched, as a crowd's are, so that both ends are alike.
    let poller = Poller::new()?;
    let mut links: Vec<Link> = Vec::with_capacity(connections);
    for index in 0..connections {
        let link = Link::connect(address, sources.of(address, index)?)?;
        poller.add(link.stream(), index, Watch::Read)?;
        links.push(link);
    }
    until_open(holder.pid(), files_before + connections)?;
    rest(quiet)?;
    let after = Memory::now(Some(holder.pid()))?;
    let client_share = match objects_before {
        None => None,
        Some(before) => {
            let both = machine::slab_object_bytes()?.saturating_sub(before);
            drop(holder);
            until_forgotten()?;
            // The end of the stream is a packet that waits to be read; it is no part of an idle one.
            for link in &links {
                ensure!(matches!(link.stream().read(&mut [0]), Ok(0)), "the holder said something");
            }
            let client = machine::slab_object_bytes()?.saturating_sub(before);
            Some(client as f64 / both as f64)
        }
    };
    // Nothing of it stays behind for who measures next.
    links.iter().try_for_each(Link::reset_on_close)?;
    drop((poller, links, warm));
    let per = |after: u64, before: u64| (after as f64 - before as f64) / connections as f64;
    let slab = per(after.slab_bytes, before.slab_bytes);
    Ok(Idle {
        connections,
        slab_bytes_per_connection: slab,
        slab_object_bytes_per_connection: after
            .slab_object_bytes
            .zip(before.slab_object_bytes)
            .map(|(after, before)| per(after, before)),
        client_slab_bytes_per_connection: client_share.map(|share| share * slab),
        pss_bytes_per_connection: per(
            after.server_pss_bytes.unwrap_or_default(),
            before.server_pss_bytes.unwrap_or_default(),
        ),
    })
}

/// Waits for `duration`.
///
/// # Errors
/// Ctrl-C ends it.
fn rest(duration: Duration) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < duration {
        ensure!(!interrupt::requested(), "interrupted");
        sleep(duration.saturating_sub(begun.elapsed()).min(LOOK_EVERY));
    }
    Ok(())
}

/// Waits until the holder has so many files, and so has accepted all, which it may come to late on a
/// busy machine. A connection that was not accepted takes less, and ends by a reset with the holder.
fn until_open(holder: u32, files: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let open = machine::open_files(holder)?;
        if open >= files {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "the holder has {open} files open, not {files}");
        rest(LOOK_EVERY)?;
    }
}

/// Waits until the kernel has no socket any more that only waits for late packets and frees
/// nothing more, or until its time for that is over: other work may close sockets all along.
///
/// # Errors
/// Only root may know.
pub fn until_forgotten() -> Result<()> {
    let begun = Instant::now();
    let mut bytes = u64::MAX;
    while begun.elapsed() < FORGOTTEN {
        rest(Duration::from_secs(2))?;
        let now = machine::slab_object_bytes()?;
        if machine::waiting_sockets()? < 1_000 && now >= bytes {
            break;
        }
        bytes = now;
    }
    Ok(())
}
