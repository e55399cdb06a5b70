//! What a shard counts of its own work: system calls, and what waited. The engine counts what
//! messages do.

use crate::net::ring;

/// Plain integers; all but `connections_*` only rise.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardCounters {
    /// Passes of the loop. monoio enters the ring once after it has run the tasks that were ready,
    /// and as every task asks for a turn, there is one turn before each io_uring_enter. See
    /// [`ShardCounters::ring_enters`].
    pub turns: u64,
    /// Polls given to the ring since it was entered, and how often it was entered because it had no
    /// room for one more.
    queued: u32,
    enters_for_room: u64,
    /// Turns that followed at once, because a budget was used up.
    pub turns_at_once: u64,
    /// Polls given to the ring, which gets nothing else, and those that came back.
    pub ring_submissions: u64,
    pub ring_completions: u64,
    /// Questions to the kernel which sockets are ready, and how many were.
    pub readiness_calls: u64,
    pub sockets_ready: u64,
    pub recv_calls: u64,
    pub recv_bytes: u64,
    /// Reads from connections that gave way to the others.
    pub guest_reads: u64,
    pub send_calls: u64,
    pub send_bytes: u64,
    /// Sends that found no room, or not enough.
    pub send_blocked: u64,
    /// Questions to the listener who waits, those that found nobody among them.
    pub accept_calls: u64,
    pub accepted: u64,
    /// Connections refused because there were as many as may be.
    pub accept_refused: u64,
    pub accept_pauses: u64,
    /// Sockets cut off because they went on sending after their CLOSE.
    pub lingering_cut: u64,
    /// Sockets put into the set that tells which are ready, or taken out of it.
    pub watch_calls: u64,
    /// Of sockets and of the listener; [`super::lingering::Lingering`] counts those it makes.
    pub shutdown_calls: u64,
    pub close_calls: u64,
    /// Reads of the doorbell.
    pub doorbell_reads: u64,
    /// Times that an alarm was set, and that it was silenced after it rang.
    pub alarm_sets: u64,
    pub alarm_reads: u64,
    /// Questions answered at once, from memory and the block cache.
    pub reads_now: u64,
    /// Questions that went to a reader thread.
    pub reads_later: u64,
    /// What found its lane full and was sent later.
    pub parcels_delayed: u64,
    pub questions_delayed: u64,
}

impl ShardCounters {
    /// A turn begins. The polls of the tasks before it are in the queue, a turn adds none, and then
    /// the ring is entered, which empties it.
    pub fn begin_turn(&mut self) {
        self.turns += 1;
        self.queued = 0;
    }

    /// A poll is given to the ring. If its queue is full, monoio enters it first.
    pub fn submit(&mut self) {
        self.ring_submissions += 1;
        self.queued += 1;
        if self.queued > ring::ENTRIES {
            self.enters_for_room += 1;
            self.queued = 1;
        }
    }

    /// Calls of io_uring_enter, when asked within a turn: one after each turn before this one, and
    /// those for room. tests/system_calls.rs compares it with what ptrace sees.
    fn ring_enters(&self) -> u64 {
        self.turns.saturating_sub(1) + self.enters_for_room
    }

    /// Name and value of each, when asked within a turn.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("loop_turns", self.turns),
            ("loop_turns_at_once", self.turns_at_once),
            ("ring_enters", self.ring_enters()),
            ("ring_submissions", self.ring_submissions),
            ("ring_completions", self.ring_completions),
            ("readiness_calls", self.readiness_calls),
            ("sockets_ready", self.sockets_ready),
            ("recv_calls", self.recv_calls),
            ("recv_bytes", self.recv_bytes),
            ("guest_reads", self.guest_reads),
            ("send_calls", self.send_calls),
            ("send_bytes", self.send_bytes),
            ("send_blocked", self.send_blocked),
            ("accept_calls", self.accept_calls),
            ("accepted", self.accepted),
            ("accept_refused", self.accept_refused),
            ("accept_pauses", self.accept_pauses),
            ("lingering_cut", self.lingering_cut),
            ("watch_calls", self.watch_calls),
            ("shutdown_calls", self.shutdown_calls),
            ("close_calls", self.close_calls),
            ("doorbell_reads", self.doorbell_reads),
            ("alarm_sets", self.alarm_sets),
            ("alarm_reads", self.alarm_reads),
            ("questions_now", self.reads_now),
            ("questions_later", self.reads_later),
            ("parcels_delayed", self.parcels_delayed),
            ("questions_delayed", self.questions_delayed),
        ]
        .into_iter()
    }
}
