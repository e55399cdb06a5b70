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
// Not an `async fn`: that would keep each argument twice.
#[expect(clippy::manual_async_fn)]
pub fn read(shard: Rc<Shard>, ticket: Ticket, watch: Watch) -> impl Future<Output = ()> {
    async move {
        loop {
            // A poll that fails says nothing about the socket; reading from it does.
            let _ = watch.readable().await;
            if shard.readable(ticket) == Reading::Stop {
                break;
            }
        }
        watch.end();
    }
}

/// Has the connection flushed again once its socket has room.
pub async fn write_again(shard: Rc<Shard>, ticket: Ticket, watch: Watch) {
    let _ = watch.writable().await;
    watch.end();
    shard.writable(ticket);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// monoio adds 40 bytes for the task, and keeps some 100 for the descriptor and its poll.
    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let bytes = size_of_future(read);
        assert!(bytes <= 120, "{bytes} bytes");
    }
}
