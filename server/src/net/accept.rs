//! Accepting.
//!
//! By readiness and accept4(2), not by monoio's accept: dropped while pending, that one may
//! leave a socket behind that nobody owns. A pending poll may be dropped.

use super::{Alarm, Watch, socket};
use crate::shard::Shard;
use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

/// Connections accepted in one go; then others have their turn.
const BUDGET: usize = 8;
/// How long accepting pauses when there is no descriptor or memory for a connection.
const PAUSE: Duration = Duration::from_millis(500);

/// Accepts until the listener is shut down. `pause` is there before it is needed: when it is,
/// there may be no descriptor to be had.
pub async fn accept(shard: Rc<Shard>, listener: Rc<OwnedFd>, pause: Alarm) {
    // With io_uring they cannot fail.
    let Ok(watch) = Watch::new(listener.as_raw_fd()) else { return };
    let Ok(pause_over) = Watch::new(pause.descriptor()) else { return };
    while shard.readable(&watch).await.is_ok() {
        match accept_some(&shard, &listener) {
            Go::On => {}
            Go::Pause => shard.pause(&pause, &pause_over, PAUSE).await,
            Go::Home => break,
        }
    }
    watch.end();
    pause_over.end();
}

enum Go {
    On,
    Pause,
    Home,
}

fn accept_some(shard: &Rc<Shard>, listener: &OwnedFd) -> Go {
    for _ in 0..BUDGET {
        shard.count_accept_call();
        match socket::accept(listener.as_fd()) {
            socket::Accepted::Socket(socket) => shard.accepted(socket),
            socket::Accepted::Gone => {}
            socket::Accepted::Nobody => break,
            socket::Accepted::Exhausted(error) => {
                shard.count_accept_pause();
                tracing::warn!(%error, "accepting pauses: no room for one more connection");
                return Go::Pause;
            }
            socket::Accepted::End => return Go::Home,
        }
    }
    Go::On
}
