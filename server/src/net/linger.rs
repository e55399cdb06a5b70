//! The last moments of a socket: we have said CLOSE and ended our side. Closing it while
//! something unread lies in it would make the kernel reset the connection, and the reset can
//! overtake the CLOSE. So what still comes is read and thrown away, for a short while.

use super::Watch;
use crate::shard::Shard;
use std::rc::Rc;

/// Throws away what comes until the peer ends or the time is over.
pub async fn linger(shard: Rc<Shard>, number: u64, watch: Watch) {
    loop {
        let _ = shard.readable(&watch).await;
        if !shard.discard(number) {
            break;
        }
    }
    watch.end();
}
