//! What an engine wants done. Whoever runs it takes the effects in order and does them; the
//! engine never waits.

use crate::{Hop, Migrant, Secret};
use starling_codec::{Origin, Query, Submission, Ticket};

/// Something only the world outside can do.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// For the committer. Its outcome comes back to the origin's shard by
    /// [`announced`](crate::Engine::announced). A credit stands behind it, so there is room.
    Submit(Submission),
    /// For the store; comes back by [`answered`](crate::Engine::answered), at once or later.
    Ask(Origin, Query),
    /// For the engine of another shard. A credit stands behind it, so there is room.
    Hop(u16, Hop),
    /// For the hashing pool; comes back by [`hashed`](crate::Engine::hashed).
    Hash(Origin, HashWork),
    /// Asks for all counters of the process; they come back by
    /// [`counted`](crate::Engine::counted).
    Stats(Origin),
    /// The connection belongs to another shard: its descriptor goes there, with the migrant for
    /// [`adopt`](crate::Engine::adopt). Nothing is read from it here any more. When the
    /// descriptor is gone, [`closed`](crate::Engine::closed) is called as for every connection.
    Move(Ticket, u16, Migrant),
    /// Reading, which [`Reading::Stop`](crate::Reading::Stop) had stopped, may go on.
    Read(Ticket),
    /// All that could be written was: close the socket.
    Close(Ticket),
}

/// Work for the hashing pool, which also slows down who guesses passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashWork {
    /// Is this the password? With `phc` `None` nobody's password can be right, and to find that
    /// out takes as long. Wrong ones are counted by `name`, which is in normal form.
    Verify { name: String, password: Secret, phc: Option<String> },
    /// Makes a PHC string.
    Make { password: Secret },
}

/// What the hashing pool found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashDone {
    Right,
    Wrong,
    /// Too many wrong ones for this name; nothing was compared.
    Slowed {
        retry_after_ms: u32,
    },
    /// The PHC string of a [`HashWork::Make`].
    Made(String),
    /// The pool has no room.
    Busy {
        retry_after_ms: u32,
    },
}

/// Whether to go on reading from a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    More,
    /// Not before [`Effect::Read`].
    Stop,
}
