//! The turn of a shard: every input that has arrived, then the engine's own turn, then all that
//! it wants done, then one flush of each connection that has output, then what is left for those
//! that give way to the others; in this order, each within a budget, so that nothing starves.

use super::{Commons, Shard, State, effects::Hands};
use crate::{
    mesh::{Parcel, Reply},
    net::MAX_READY,
    stats::{counter, process_counters},
};
use starling_codec::{ErrorCode, wire::Counter};
use std::{net::Shutdown, os::fd::AsFd, rc::Rc, task::Poll, time::Duration};

/// Inputs of one kind that a turn takes: parcels from one shard, commits, replies.
const PARCELS: usize = 512;
const COMMITS: usize = 64;
const REPLIES: usize = 512;
/// Connections that are flushed in one go, and how often effects and flushes alternate.
const FLUSHES: usize = 4_096;
const ROUNDS: usize = 4;

/// How long a turn listens at least to connections that are no sessions yet, or send what brings
/// nothing, and which share of what the others took. However many they are, who talks waits no
/// longer for them than this. Without the share a machine so slow that a turn takes tens of
/// milliseconds heard one of them a turn, and the last of a few hundred not within its ten seconds.
const FOR_GUESTS: Duration = Duration::from_micros(200);
const SHARE_OF_GUESTS: u32 = 4;

/// A shard turns at least this often, for what has no deadline of its own.
const LONGEST_SLEEP_MS: u64 = 1_000;
/// How soon questions that no reader had room for are asked again.
const QUESTION_RETRY_MS: u64 = 2;
/// How long clients have to take their CLOSE.
const CLOSING_MS: u64 = 3_000;

/// One turn. Ready when the shard has been told to end and has.
pub(super) fn turn(shard: &Rc<Shard>) -> Poll<()> {
    let state = &mut *shard.state.borrow_mut();
    shard.commons.mesh.port(shard.number).doorbell.sleeper().get_up();
    state.counters.begin_turn();
    // A connection that was accepted between two turns has read it.
    state.clock.forget();
    let now = state.clock.now();
    let mut turn = Turn { hands: Hands { shard, state, now }, more: false };

    turn.hear_orders();
    turn.read_sockets();
    turn.take_parcels();
    turn.take_commits();
    turn.take_replies();
    turn.hands.retry_parcels();
    turn.hands.retry_questions();
    turn.hands.do_effects();
    turn.hands.state.engine.turn(now);
    turn.put_out();
    turn.hear_guests();
    turn.serve_stats();
    turn.tidy();
    if turn.has_ended() {
        return Poll::Ready(());
    }

    let wake_at_ms = turn.wake_at_ms();
    let Turn { hands, more } = turn;
    hands.state.clock.forget();
    let more = more || !hands.state.unread.is_empty();
    if more || wake_at_ms <= now.mono_ms || !may_sleep(shard, hands.state) {
        hands.state.counters.turns_at_once += 1;
        shard.ask_for_turn_again();
    } else {
        hands.state.wake_at(wake_at_ms);
    }
    Poll::Pending
}

/// Lies down, and looks once more: whatever comes after this rings the doorbell.
fn may_sleep(shard: &Shard, state: &State) -> bool {
    let Commons { mesh, board, orders, .. } = &*shard.commons;
    let port = mesh.port(shard.number);
    port.doorbell.sleeper().lie_down();
    let news = !port.is_empty()
        || board.wanted() != state.stats_put
        || orders.disk_full() != state.disk_full
        || (orders.closing().is_some() && state.ends_at_ms.is_none());
    if news {
        port.doorbell.sleeper().get_up();
    }
    !news
}

struct Turn<'a> {
    hands: Hands<'a>,
    /// A budget was used up.
    more: bool,
}

impl Turn<'_> {
    fn hear_orders(&mut self) {
        let Hands { shard, state, now } = &mut self.hands;
        let disk_full = shard.commons.orders.disk_full();
        if disk_full != state.disk_full {
            state.disk_full = disk_full;
            state.engine.refuse_commands(disk_full.then_some(ErrorCode::DiskFull));
        }
        if let (Some(code), None) = (shard.commons.orders.closing(), state.ends_at_ms) {
            state.ends_at_ms = Some(now.mono_ms + CLOSING_MS);
            // Ends the accepting task.
            crate::net::socket::shut_down(state.listener.as_fd(), Shutdown::Both);
            state.counters.shutdown_calls += 1;
            state.engine.drain(*now, code);
        }
    }

    /// Reads what has come, once from each socket.
    fn read_sockets(&mut self) {
        let Hands { shard, state, .. } = &mut self.hands;
        for ticket in std::mem::take(&mut state.unread) {
            shard.read(state, ticket);
        }
        if !std::mem::take(&mut state.sockets_ready) {
            return;
        }
        let ready = state.readiness.look();
        state.counters.readiness_calls += 1;
        state.counters.sockets_ready += ready as u64;
        for index in 0..ready {
            shard.socket_ready(state, state.readiness.ready(index));
        }
        // There may be more to tell.
        state.sockets_ready = ready == MAX_READY;
        self.more |= state.sockets_ready;
    }

    fn take_parcels(&mut self) {
        let Hands { shard, state, now } = &mut self.hands;
        let (mesh, number) = (&shard.commons.mesh, shard.number);
        for sender in 0..mesh.shards() {
            let lane = mesh.port(number).parcels_from(sender);
            let mut taken = 0;
            while taken < PARCELS
                && let Some(parcel) = lane.pop()
            {
                taken += 1;
                match parcel {
                    Parcel::Hop(hop) => state.engine.hop(*now, hop),
                    Parcel::Move { socket, migrant } => {
                        let ticket = state.engine.adopt(*now, *migrant);
                        // The engine says when it is to be read.
                        shard.hold(state, ticket, socket);
                    }
                }
            }
            self.more |= taken == PARCELS;
            if taken > 0 && lane.has_relieved() {
                mesh.port(sender).doorbell.ring();
            }
        }
    }

    fn take_commits(&mut self) {
        let Hands { shard, state, now } = &mut self.hands;
        let lane = &shard.commons.mesh.port(shard.number).announcements;
        let mut taken = 0;
        while taken < COMMITS
            && let Some(commit) = lane.pop()
        {
            taken += 1;
            state.engine.announced(*now, commit.outcomes, commit.deliveries);
        }
        self.more |= taken == COMMITS;
        let folded = lane.take_folded();
        if !folded.is_empty() {
            state.engine.folded(*now, &folded);
        }
    }

    fn take_replies(&mut self) {
        let Hands { shard, state, now } = &mut self.hands;
        let port = shard.commons.mesh.port(shard.number);
        let mut taken = 0;
        while taken < REPLIES
            && let Some(reply) = port.pop_reply()
        {
            taken += 1;
            state.replies_due -= 1;
            match reply {
                Reply::Answer(key, answer) => state.engine.answered(*now, key, answer),
                Reply::Hashed(key, done) => state.engine.hashed(*now, key, done),
            }
        }
        self.more |= taken == REPLIES;
    }

    /// Effects may bring output, and output that was written may bring effects.
    fn put_out(&mut self) {
        self.hands.flush_unblocked();
        for _ in 0..ROUNDS {
            let did = self.hands.do_effects();
            let (flushed, all) = self.hands.flush(FLUSHES);
            self.more |= !all;
            if !did && !flushed {
                return;
            }
        }
        self.more = true;
    }

    fn hear_guests(&mut self) {
        let Hands { shard, state, .. } = &mut self.hands;
        if state.guests.is_empty() {
            return;
        }
        let taken = state.clock.turn_so_far();
        let until = taken + for_guests(taken);
        let shard = *shard;
        while shard.read_guest(self.hands.state) {
            self.hands.do_effects();
            if self.hands.state.clock.turn_so_far() >= until {
                break;
            }
        }
        // What they are told goes out next turn, as does what was not come to.
        self.more = true;
    }

    /// Puts this shard's counters where others look for them, if they do, and answers those
    /// that asked here.
    fn serve_stats(&mut self) {
        let Hands { shard, state, now } = &mut self.hands;
        let board = &shard.commons.board;
        let wanted = board.wanted();
        if wanted != state.stats_put {
            state.stats_put = wanted;
            board.put(shard.number, wanted, counters_of(shard, state));
            shard.commons.mesh.ring_all();
        }
        let (engine, now_ms) = (&mut state.engine, now.mono_ms);
        state.stats.retain(|asked| {
            let wait = !board.is_complete(asked.request) && now_ms < asked.until_ms;
            if !wait {
                engine.counted(*now, asked.key, counters_of_all(shard));
            }
            wait
        });
        // What was just answered is output.
        let (flushed, all) = self.hands.flush(FLUSHES);
        self.more |= flushed || !all;
    }

    fn tidy(&mut self) {
        let Hands { state, now, .. } = &mut self.hands;
        state.lingering.expire(now.mono_ms);
        if state.quiet.begins(state.engine.counters(), now.mono_ms) {
            state.engine.rest();
            crate::memory::give_back_of_thread();
        }
    }

    fn has_ended(&self) -> bool {
        let Hands { state, now, .. } = &self.hands;
        state.ends_at_ms.is_some_and(|ends_at_ms| {
            let all_gone = state.engine.counters().connections == 0 && state.lingering.is_empty();
            all_gone || now.mono_ms >= ends_at_ms
        })
    }

    fn wake_at_ms(&self) -> u64 {
        let Hands { state, now, .. } = &self.hands;
        let soon = (!state.questions.is_empty()).then_some(now.mono_ms + QUESTION_RETRY_MS);
        let stats = state.stats.first().map(|asked| asked.until_ms);
        [state.engine.wake_at(), state.lingering.next_deadline_ms(), soon, stats]
            .into_iter()
            .flatten()
            .fold(now.mono_ms + LONGEST_SLEEP_MS, u64::min)
    }
}

/// How long a turn listens to guests after it took so long for the others.
fn for_guests(taken: Duration) -> Duration {
    FOR_GUESTS.max(taken / SHARE_OF_GUESTS)
}

fn counters_of(shard: &Shard, state: &State) -> Vec<Counter> {
    let source = format!("shard {}", shard.number);
    let port = shard.commons.mesh.port(shard.number);
    let (parcels, replies) = port.high_water();
    let mut counters = state.engine.counters().render(&source);
    let mut own = state.counters;
    own.close_calls += state.lingering.closed();
    own.shutdown_calls += state.lingering.shut_down();
    let own = own.iter().chain([
        ("doorbell_rings", port.doorbell.rings()),
        ("parcels_high_water", parcels as u64),
        ("replies_high_water", replies as u64),
        ("commits_high_water", port.announcements.high_water() as u64),
        ("deliveries_folded", port.announcements.deliveries_folded()),
    ]);
    counters.extend(own.map(|(name, value)| counter(&source, name, value)));
    counters
}

fn counters_of_all(shard: &Shard) -> Vec<Counter> {
    let commons = &shard.commons;
    let mut counters = commons.board.gather();
    let store = commons.store.counters();
    counters.extend(store.iter().map(|(name, value)| counter("committer", name, value)));
    let hashing = commons.hashing.counters();
    counters.extend(hashing.into_iter().map(|(name, value)| counter("process", name, value)));
    counters.extend(process_counters());
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_have_a_moment_of_a_short_turn_and_a_share_of_a_long_one() {
        let short = Duration::from_micros(30);
        let long = Duration::from_millis(40);
        assert_eq!(for_guests(short), FOR_GUESTS);
        assert_eq!(for_guests(long), long / SHARE_OF_GUESTS);
    }
}
