//! The tasks of a connection. Most of the time, for most connections, the reading task is all
//! there is, so its size is a contract.

use super::Watch;
use crate::shard::Shard;
use starling_codec::Ticket;
use starling_engine::Reading;
use std::rc::Rc;

/// Reads from a connection until it is gone, or the engine says to stop.
///
/// Waits for readiness before it reads: an idle connection then owns no buffer.
pub async fn read(shard: Rc<Shard>, ticket: Ticket, watch: Watch) {
    // A poll that fails says nothing about the socket; reading from it does.
    let _ = watch.readable().await;
    while let Reading::More = shard.readable(ticket) {
        let _ = watch.readable().await;
    }
    watch.end();
}

/// Has the connection flushed again once its socket has room.
pub async fn write_again(shard: Rc<Shard>, ticket: Ticket, watch: Watch) {
    let _ = watch.writable().await;
    watch.end();
    shard.writable(ticket);
}
