//! How far devices have come, stored at most once a second each, with what that newly tells the
//! senders: per conversation the highest message that no device of the user had passed before.
//! Cursor and watermarks go in one command, so a crash takes both or neither, and the next HELLO
//! brings them again.

use crate::{
    Engine, Now,
    connection::Mark,
    outlet,
    waiting::{Reply, Waiting},
};
use starling_codec::{
    Answer, Command, ConversationId, Place, Query, Ticket, UserId, limits::ACK_EVERY_MS,
};
use std::collections::VecDeque;

/// Most marks that sending adds to a session's: with that many messages not passed, it gets no
/// more events until it acknowledges some.
pub(crate) const MAX_MARKS: usize = 1_024;
/// With so many marks, those that the cursor has passed are folded.
const FOLD_MARKS: usize = MAX_MARKS / 2;
/// Most cursors of closed connections that wait for a credit. What finds no room is brought again
/// by the next HELLO.
const MAX_LATE: usize = 4_096;
/// Events of one read for what was passed in an earlier connection.
const REGAIN_EVENTS: usize = 256;
const REGAIN_BYTES: usize = 64 * 1024;

#[derive(Default)]
pub(crate) struct Receipts {
    /// Sessions whose cursor is to be stored, and when: all wait equally long, so in order.
    due: VecDeque<(u64, Ticket)>,
    /// Cursors of connections that closed when there was no credit.
    late: VecDeque<Command>,
}

impl Receipts {
    /// When the next cursor is to be stored, in milliseconds of `mono_ms`.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        let due = self.due.front().map(|&(due_ms, _)| due_ms);
        if self.late.is_empty() { due } else { Some(0) }
    }
}

impl Engine {
    /// The cursor of the session on `number` has moved.
    pub(crate) fn store_cursor_soon(&mut self, now: Now, number: u32) {
        let ticket = self.slots.ticket(number);
        let Some(live) = self.slots.live_mut(number) else { return };
        let cursor_seq = live.cursor().seq;
        if !std::mem::replace(&mut live.cursor_waits, true) {
            self.receipts.due.push_back((now.mono_ms + ACK_EVERY_MS, ticket));
        }
        // Marks hold back what a device may get, so a quick reader's must not pile up until its
        // cursor is stored.
        if let Some(activity) = &mut self.slots.at_mut(number).activity
            && activity.marks.len() >= FOLD_MARKS
        {
            fold_marks(&mut activity.marks, cursor_seq);
        }
    }

    /// Stores what is due, as long as there are credits.
    pub(crate) fn store_due_cursors(&mut self, now: Now) {
        while !self.receipts.late.is_empty() && self.take_credit().is_ok() {
            if let Some(command) = self.receipts.late.pop_front() {
                self.submit(self.waiting.nobody(), command);
            }
        }
        while let Some(&(due_ms, ticket)) = self.receipts.due.front()
            && due_ms <= now.mono_ms
        {
            let waits = |number: u32| self.slots.live(number).is_some_and(|live| live.cursor_waits);
            let Some(number) = self.slots.find(ticket).filter(|&number| waits(number)) else {
                self.receipts.due.pop_front();
                continue;
            };
            let regaining = self.slots.live(number).is_some_and(|live| live.regaining);
            if !regaining && self.take_credit().is_err() {
                return;
            }
            self.receipts.due.pop_front();
            if regaining {
                // Its watermarks are not all known yet.
                self.receipts.due.push_back((now.mono_ms + ACK_EVERY_MS, ticket));
            } else if let Some(command) = self.take_cursor(now, number) {
                self.submit(self.waiting.nobody(), command);
                // It may have been held back by its marks.
                self.await_outlet(number);
            }
        }
    }

    /// The command that stores the cursor of the session on `number`.
    fn take_cursor(&mut self, now: Now, number: u32) -> Option<Command> {
        let live = self.slots.live_mut(number)?;
        live.cursor_waits = false;
        let (user, device, cursor) = (live.user, live.device, live.cursor());
        let entry = self.users.get_mut(user)?;
        let passed = entry.passed_seq;
        entry.passed_seq = passed.max(cursor.seq);
        let mut delivered = Vec::new();
        if let Some(activity) = &mut self.slots.at_mut(number).activity {
            while let Some(mark) = activity.marks.front()
                && mark.inbox_seq <= cursor.seq
            {
                if mark.inbox_seq > passed {
                    delivered.push((mark.conversation, mark.seq));
                }
                activity.marks.pop_front();
            }
        }
        self.slots.settle(number);
        keep_highest(&mut delivered);
        Some(Command::Advance { user, device, cursor, delivered, time_ms: now.unix_ms })
    }

    /// What a session had not stored yet when it ends.
    pub(crate) fn store_last_cursor(&mut self, now: Now, number: u32) {
        let Some(live) = self.slots.live(number) else { return };
        if !live.cursor_waits || live.regaining {
            return;
        }
        let Some(command) = self.take_cursor(now, number) else { return };
        if self.take_credit().is_ok() {
            self.submit(self.waiting.nobody(), command);
        } else if self.receipts.late.len() < MAX_LATE {
            self.receipts.late.push_back(command);
        } else {
            self.counters.dropped_cursors += 1;
        }
    }

    /// At the start of a session: if its device has passed what no device was known to have, its
    /// watermarks were lost on the way and are looked up again.
    pub(crate) fn regain_or_store(&mut self, now: Now, number: u32, stored: Place) {
        let Some(live) = self.slots.live(number) else { return };
        let (user, cursor) = (live.user, live.cursor());
        let passed = self.users.get(user).map_or(0, |entry| entry.passed_seq);
        if cursor > stored {
            self.store_cursor_soon(now, number);
        }
        if cursor.seq > passed {
            self.regain(number, user, passed, cursor.seq);
        }
    }

    fn regain(&mut self, number: u32, user: UserId, after_seq: u64, until: u64) {
        if let Some(live) = self.slots.live_mut(number) {
            live.regaining = true;
        }
        let max_events = REGAIN_EVENTS.min((until - after_seq) as usize);
        let query = Query::Inbox { user, after_seq, max_events, max_bytes: REGAIN_BYTES };
        let ticket = self.slots.ticket(number);
        self.ask(Waiting::Regain(ticket, until), query);
    }

    /// Part of what a device passed in an earlier connection.
    pub(crate) fn regained(&mut self, now: Now, ticket: Ticket, until: u64, reply: Reply) {
        let Some(number) = self.slots.find(ticket) else {
            self.counters.late += 1;
            return;
        };
        let Some(live) = self.slots.live_mut(number) else { return };
        live.regaining = false;
        let user = live.user;
        let Reply::Answer(Answer::Events { events, .. }) = reply else {
            return self.close(now, number, starling_codec::ErrorCode::Internal);
        };
        let passed = self.users.get(user).map_or(0, |entry| entry.passed_seq);
        let mut found: Vec<(ConversationId, u64)> = events
            .iter()
            .take_while(|event| event.seq <= until)
            .filter_map(|event| outlet::mark(event, user, passed))
            .map(|mark| (mark.conversation, mark.seq))
            .collect();
        let activity = self.slots.activity(number);
        // Those of earlier parts stand in front, as marks at `until`.
        while let Some(mark) = activity.marks.front()
            && mark.inbox_seq <= until
        {
            found.push((mark.conversation, mark.seq));
            activity.marks.pop_front();
        }
        keep_highest(&mut found);
        for &(conversation, seq) in found.iter().rev() {
            activity.marks.push_front(Mark { inbox_seq: until, conversation, seq });
        }
        match events.last() {
            Some(last) if last.seq < until => self.regain(number, user, last.seq, until),
            _ => self.store_cursor_soon(now, number),
        }
        self.slots.settle(number);
    }
}

/// Of the marks up to `cursor_seq` only the last of each conversation stays: it alone tells.
fn fold_marks(marks: &mut VecDeque<Mark>, cursor_seq: u64) {
    let passed = marks.partition_point(|mark| mark.inbox_seq <= cursor_seq);
    let mut last: Vec<Mark> = marks.drain(..passed).rev().collect();
    // Stable: of one conversation the latest comes first, and that one is kept.
    last.sort_by_key(|mark| mark.conversation);
    last.dedup_by_key(|mark| mark.conversation);
    last.sort_by_key(|mark| std::cmp::Reverse(mark.inbox_seq));
    last.into_iter().for_each(|mark| marks.push_front(mark));
}

/// Of each conversation only the highest.
fn keep_highest(delivered: &mut Vec<(ConversationId, u64)>) {
    delivered.sort_unstable_by(|one, other| other.cmp(one));
    delivered.dedup_by_key(|(conversation, _)| *conversation);
    delivered.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_passed_the_last_of_each_conversation_stays() {
        let mark = |inbox_seq, conversation, seq| Mark {
            inbox_seq,
            conversation: ConversationId(conversation),
            seq,
        };
        let mut marks = VecDeque::from([
            mark(5, 2, 1),
            mark(6, 1, 7),
            mark(7, 2, 2),
            mark(9, 1, 8),
            mark(10, 2, 3),
        ]);
        fold_marks(&mut marks, 8);
        assert_eq!(marks, [mark(6, 1, 7), mark(7, 2, 2), mark(9, 1, 8), mark(10, 2, 3)]);
        fold_marks(&mut marks, 10);
        assert_eq!(marks, [mark(9, 1, 8), mark(10, 2, 3)]);
        fold_marks(&mut marks, 3);
        assert_eq!(marks.len(), 2);
    }

    #[test]
    fn the_highest_of_each_conversation_is_kept() {
        let (one, two) = (ConversationId(1), ConversationId(2));
        let mut delivered = vec![(two, 4), (one, 9), (two, 7), (one, 3)];
        keep_highest(&mut delivered);
        assert_eq!(delivered, [(one, 9), (two, 7)]);
    }
}
