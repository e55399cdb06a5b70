//! What goes out, and when. A message that is due is sent between any two reads or writes, not at the
//! end of a turn: a server that answers a hundred connections at once would else hold up what is
//! meant for others, and the tool would be late just when the server is.

use super::{Load, Member, Watcher};
use crate::dialect::Dialect;
use anyhow::Result;

impl<D: Dialect, W: Watcher> Load<'_, D, W> {
    /// Sends every message of the schedule whose time has come.
    pub(super) fn send_due(&mut self) -> Result<()> {
        match self.schedule {
            Some(_) => self.give_due(self.clock.now_ns().min(self.end_ns)),
            None => Ok(()),
        }
    }

    /// Gives every message of the schedule up to `until_ns` to its pair, and writes what may go out.
    pub(super) fn give_due(&mut self, until_ns: u64) -> Result<()> {
        let Some(schedule) = self.schedule else { return Ok(()) };
        loop {
            let intended_ns = schedule.intended_ns(self.given);
            if intended_ns >= self.end_ns || intended_ns > until_ns {
                break;
            }
            let pair = schedule.pair_of(self.given);
            self.given += 1;
            self.pairs[pair].due.push_back(intended_ns);
            self.pump(pair, self.clock.now_ns());
            self.given_to.push((2 * pair, intended_ns));
        }
        let mut given_to = std::mem::take(&mut self.given_to);
        for (sender, intended_ns) in given_to.drain(..) {
            self.measured.late(intended_ns, self.clock.now_ns());
            self.flush_link(sender)?;
        }
        self.given_to = given_to;
        Ok(())
    }

    /// Sends what `pair` may send, with the next flush.
    pub(super) fn pump(&mut self, pair: usize, now_ns: u64) {
        let sender = 2 * pair;
        let Some(Member { link, peer }) = &mut self.members[sender] else { return };
        let state = &mut self.pairs[pair];
        if now_ns < state.held_until_ns {
            return;
        }
        let mut said = false;
        while let Some(sequence) = state.next_sequence(now_ns) {
            if sequence == state.transmit_new {
                state.transmit_new += 1;
                self.measured.sent();
            }
            self.payload.clear();
            state.contents.append(sequence, self.plan.payload_bytes, &mut self.payload);
            let nonce = state.contents.nonce(sequence);
            self.dialect.send(peer, pair, sequence, nonce, &self.payload, link.out());
            said = true;
        }
        if said {
            self.touch(sender);
        }
    }
}
