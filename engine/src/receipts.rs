//! How far devices have come, stored at most once a second each, with what that newly tells the
//! senders: per conversation the highest message that no device of the user had passed before.
//! Cursor and receipts go in one command, so a crash takes both or neither, and the next HELLO
//! brings them again.

use crate::{
    Engine, Now,
    connection::{Activity, Mark},
    engine::trim,
    events::Events,
    session::{CursorState, Feed},
    waiting::{Reply, Waiting},
};
use starling_codec::{
    Answer, Command, ConversationId, Notice, Place, Query, Ticket, UserId,
    limits::ACK_EVERY_MS,
    planted::{Fault, is_planted},
    wire,
};
use std::{cmp::Reverse, collections::VecDeque};

/// Most marks of messages that were sent and not acknowledged: with that many, a session gets no
/// more events until it acknowledges some.
const MAX_OPEN_MARKS: usize = 1_024;
/// Most marks in all: with that many, a session gets no more events until its cursor is stored.
const MAX_MARKS: usize = 4 * MAX_OPEN_MARKS;
/// So many acknowledged marks are reduced to one a conversation.
const REDUCED_MARKS: usize = 64;
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
    /// Cursors of connections that closed when there was no credit, and whose they are.
    late: VecDeque<(UserId, Command)>,
}

impl Receipts {
    /// When the next cursor is to be stored, in milliseconds of `mono_ms`.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        let due = self.due.front().map(|&(due_ms, _)| due_ms);
        if self.late.is_empty() { due } else { Some(0) }
    }

    pub(crate) fn trim(&mut self) {
        trim(&mut self.due);
        trim(&mut self.late);
    }

    pub(crate) fn rest(&mut self) {
        self.due.shrink_to_fit();
        self.late.shrink_to_fit();
    }
}

impl Mark {
    /// Cuts off what of a run is not above a place in the inbox, and gives that.
    pub(crate) fn cut(&mut self, inbox_seq: u64) -> Option<Mark> {
        let above = self.inbox_seq.checked_sub(inbox_seq).filter(|above| *above > 0)?;
        let before = u64::from(self.before).checked_sub(above)?;
        // Both are less than what was before it.
        let part = Mark { inbox_seq, seq: self.seq - above, before: before as u32, ..*self };
        self.before = above as u32 - 1;
        Some(part)
    }
}

impl Activity {
    /// Adds a mark behind all others. A conversation that nothing comes between is one run, however
    /// long its reader does not acknowledge it.
    pub(crate) fn push_mark(&mut self, mark: Mark) {
        match self.marks.back_mut() {
            Some(last)
                if last.conversation == mark.conversation
                    && last.inbox_seq + 1 + u64::from(mark.before) == mark.inbox_seq
                    && last.seq + 1 + u64::from(mark.before) == mark.seq =>
            {
                *last = Mark { before: last.before + 1 + mark.before, ..mark };
            }
            _ => self.marks.push_back(mark),
        }
    }

    /// Forgets the marks above a place in the inbox: what they mark is sent again.
    pub(crate) fn forget_marks_above(&mut self, inbox_seq: u64) {
        let kept = self.marks.partition_point(|mark| mark.inbox_seq <= inbox_seq);
        let part = self.marks.get_mut(kept).and_then(|mark| mark.cut(inbox_seq));
        self.marks.truncate(kept);
        self.marks.extend(part);
    }

    /// Takes the marks up to the cursor.
    fn take_marks(&mut self, cursor_seq: u64) -> Vec<Mark> {
        let count = self.marks.partition_point(|mark| mark.inbox_seq <= cursor_seq);
        let mut taken: Vec<Mark> = self.marks.drain(..count).collect();
        taken.extend(self.marks.front_mut().and_then(|mark| mark.cut(cursor_seq)));
        self.reduced_marks = 0;
        taken
    }

    /// For how many more messages there is room for a mark.
    pub(crate) fn mark_room(&self, cursor_seq: u64) -> usize {
        if self.marks.is_empty() {
            return MAX_OPEN_MARKS;
        }
        let passed = self.marks.partition_point(|mark| mark.inbox_seq <= cursor_seq);
        let open = self.marks.len() - passed;
        MAX_OPEN_MARKS.saturating_sub(open).min(MAX_MARKS.saturating_sub(self.marks.len()))
    }

    /// Reduces the marks up to the cursor to one a conversation, when that is worth it.
    pub(crate) fn reduce_marks(&mut self, cursor_seq: u64) {
        // Twice as many as last time, so that each is looked at a few times at most.
        let enough = REDUCED_MARKS + 2 * self.reduced_marks;
        if self.marks.len() >= enough {
            let passed = self.marks.partition_point(|mark| mark.inbox_seq <= cursor_seq);
            if passed >= enough {
                self.replace_front(passed, Vec::new());
            }
        }
    }

    /// Adds `more` to the first `count` marks, and keeps of each conversation the highest.
    fn replace_front(&mut self, count: usize, more: Vec<Mark>) {
        let mut front: Vec<Mark> = self.marks.drain(..count).chain(more).collect();
        keep_highest(&mut front);
        self.reduced_marks = front.len();
        front.into_iter().rev().for_each(|mark| self.marks.push_front(mark));
    }
}

impl Engine {
    pub(crate) fn store_cursor_soon(&mut self, now: Now, number: u32) {
        let ticket = self.slots.ticket(number);
        if let Some(live) = self.slots.live_mut(number)
            && live.cursor_state == CursorState::Stored
        {
            live.cursor_state = CursorState::Waits;
            self.receipts.due.push_back((now.mono_ms + ACK_EVERY_MS, ticket));
        }
    }

    /// Stores what is due, as long as there are credits.
    pub(crate) fn store_due_cursors(&mut self, now: Now) {
        while !self.receipts.late.is_empty() && self.take_credit().is_ok() {
            if let Some((user, command)) = self.receipts.late.pop_front() {
                self.submit(self.waiting.cursor_of(user), command);
            }
        }
        while let Some(&(due_ms, ticket)) = self.receipts.due.front()
            && due_ms <= now.mono_ms
        {
            let waits = |number: &u32| {
                self.slots.live(*number).is_some_and(|live| live.cursor_state == CursorState::Waits)
            };
            let Some(number) = self.slots.find(ticket).filter(waits) else {
                self.receipts.due.pop_front();
                continue;
            };
            if self.take_credit().is_err() {
                return;
            }
            self.receipts.due.pop_front();
            match self.take_cursor(now, number) {
                Some((user, command)) => {
                    self.users.enter(user);
                    self.submit(self.waiting.cursor_of(user), command);
                }
                None => self.credits += 1,
            }
            // There is room for marks again.
            if self.slots.live(number).is_some_and(|live| live.feed == Feed::Behind) {
                self.await_outlet(number);
            }
        }
    }

    /// The command that stores the cursor of the session on `number`, and whose that is.
    fn take_cursor(&mut self, now: Now, number: u32) -> Option<(UserId, Command)> {
        let live = self.slots.live_mut(number)?;
        live.cursor_state = CursorState::Stored;
        let (user, device, cursor) = (live.user, live.device, live.cursor());
        let entry = self.users.get_mut(user)?;
        let passed = entry.passed_seq;
        entry.passed_seq = passed.max(cursor.seq);
        let mut told = Vec::new();
        if let Some(activity) = &mut self.slots.at_mut(number).activity {
            told = activity.take_marks(cursor.seq);
            told.retain(|mark| mark.inbox_seq > passed);
        }
        self.slots.settle(number);
        keep_highest(&mut told);
        let ahead = u64::from(is_planted(Fault::ReceiptRunsAhead));
        let notices = told
            .iter()
            .filter_map(|mark| receipt(user, mark.conversation, mark.seq + ahead, now.unix_ms))
            .collect();
        Some((user, Command::Advance { user, device, cursor, notices }))
    }

    /// What a session had not stored yet when it ends.
    pub(crate) fn store_last_cursor(&mut self, now: Now, number: u32) {
        let Some(live) = self.slots.live(number) else { return };
        if live.cursor_state != CursorState::Waits {
            return;
        }
        let Some((user, command)) = self.take_cursor(now, number) else { return };
        // Not before those that wait: their receipts are lower.
        if self.receipts.late.is_empty() && self.take_credit().is_ok() {
            self.users.enter(user);
            self.submit(self.waiting.cursor_of(user), command);
        } else if self.receipts.late.len() < MAX_LATE {
            self.users.enter(user);
            self.receipts.late.push_back((user, command));
        } else {
            self.counters.dropped_cursors += 1;
        }
    }

    /// At the start of a session: if its device has passed what no device was known to have, its
    /// receipts were lost on the way and are looked up again.
    pub(crate) fn regain_or_store(&mut self, now: Now, number: u32, stored: Place) {
        let Some(live) = self.slots.live(number) else { return };
        let (user, cursor) = (live.user, live.cursor());
        let passed = self.users.get(user).map_or(0, |entry| entry.passed_seq);
        if cursor.seq > passed {
            self.regain(number, user, passed, cursor.seq);
        } else if cursor > stored {
            self.store_cursor_soon(now, number);
        }
    }

    fn regain(&mut self, number: u32, user: UserId, after_seq: u64, until: u64) {
        if let Some(live) = self.slots.live_mut(number) {
            live.cursor_state = CursorState::Regaining;
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
        live.cursor_state = CursorState::Stored;
        let user = live.user;
        let Reply::Answer(Answer::Events { events, .. }) = reply else {
            return self.close(now, number, starling_codec::ErrorCode::Internal);
        };
        let passed = self.users.get(user).map_or(0, |entry| entry.passed_seq);
        let found = (0..events.count()).take_while(|&index| events.seq(index) <= until);
        let found = found.filter_map(|index| events.mark(index, user, passed)).collect();
        let activity = self.slots.activity(number);
        let before = activity.marks.partition_point(|mark| mark.inbox_seq <= until);
        activity.replace_front(before, found);
        match events.iter().last().map(|last| last.place.seq) {
            Some(last) if last < until => self.regain(number, user, last, until),
            _ => self.store_cursor_soon(now, number),
        }
        self.slots.settle(number);
    }
}

/// What the other user of a direct conversation hears of it once `by` has all up to `seq`; nobody hears
/// of their own cursor.
fn receipt(by: UserId, conversation: ConversationId, seq: u64, time_ms: u64) -> Option<Notice> {
    let to = conversation.peer_of(by).filter(|peer| *peer != by)?;
    let told = wire::Delivered { conversation: conversation.0, user: by.0, seq, time_ms };
    Some(Notice { to, event: wire::event::Kind::Delivered(told) })
}

/// Keeps of each conversation the highest message, in the order of the inbox.
fn keep_highest(marks: &mut Vec<Mark>) {
    marks.sort_unstable_by_key(|mark| (mark.conversation, Reverse(mark.seq)));
    marks.dedup_by_key(|mark| mark.conversation);
    marks.sort_unstable_by_key(|mark| mark.inbox_seq);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(inbox_seq: u64, conversation: u64, seq: u64) -> Mark {
        Mark { inbox_seq, conversation: ConversationId(conversation), seq, before: 0 }
    }

    #[test]
    fn the_highest_of_each_conversation_is_kept() {
        let mut marks = vec![mark(1, 2, 6), mark(2, 1, 3), mark(3, 2, 7), mark(4, 1, 4)];
        keep_highest(&mut marks);
        assert_eq!(marks, [mark(3, 2, 7), mark(4, 1, 4)]);
    }

    #[test]
    fn a_conversation_that_nothing_comes_between_is_one_mark() {
        let mut activity = Activity::default();
        (1..=1_000).for_each(|seq| activity.push_mark(mark(40 + seq, 7, seq)));
        activity.push_mark(mark(1_041, 8, 1));
        assert_eq!(activity.marks.len(), 2);
        assert_eq!(activity.take_marks(40), []);
        assert_eq!(activity.take_marks(45), [Mark { before: 4, ..mark(45, 7, 5) }]);
        activity.forget_marks_above(60);
        assert_eq!(activity.marks, [Mark { before: 14, ..mark(60, 7, 20) }]);
        assert_eq!(activity.take_marks(60), [Mark { before: 14, ..mark(60, 7, 20) }]);
        assert!(activity.marks.is_empty());
    }

    proptest! {
        /// What is told is what would be if each message had a mark of its own.
        #[test]
        fn runs_tell_what_single_marks_would(
            steps in proptest::collection::vec((0u64..3, 0u8..10, 0.0f64..1.0), 1..300),
        ) {
            let (mut activity, mut single, mut seqs) = (Activity::default(), Vec::new(), [0; 3]);
            let (mut head, mut cursor) = (0, 0);
            for (conversation, what, share) in steps {
                let place = cursor + ((head - cursor) as f64 * share) as u64;
                match what {
                    // The device comes further, and its cursor is stored; or will be.
                    0 | 1 => {
                        cursor = place;
                        if what == 1 {
                            activity.reduce_marks(cursor);
                            continue;
                        }
                        let mut told = activity.take_marks(cursor);
                        let (mut passed, left): (Vec<Mark>, Vec<Mark>) =
                            single.into_iter().partition(|mark: &Mark| mark.inbox_seq <= cursor);
                        single = left;
                        keep_highest(&mut told);
                        keep_highest(&mut passed);
                        let highest = |marks: Vec<Mark>| -> Vec<(u64, u64)> {
                            marks.iter().map(|mark| (mark.conversation.0, mark.seq)).collect()
                        };
                        prop_assert_eq!(highest(told), highest(passed));
                    }
                    // It asks for what comes after a place again.
                    2 => {
                        activity.forget_marks_above(place);
                        single.retain(|mark| mark.inbox_seq <= place);
                        head = place;
                    }
                    // Something else comes, or a message.
                    3 => head += 1,
                    _ => {
                        head += 1;
                        seqs[conversation as usize] += 1;
                        let new = mark(head, conversation, seqs[conversation as usize]);
                        activity.push_mark(new);
                        single.push(new);
                    }
                }
            }
        }
    }

    #[test]
    fn acknowledged_marks_are_reduced_and_open_ones_are_bounded() {
        let mut activity = Activity::default();
        for seq in 1..=100_000 {
            if activity.mark_room(seq - 1) > 0 {
                activity.marks.push_back(mark(seq, seq % 3, seq));
            }
            activity.reduce_marks(seq);
        }
        assert!(activity.marks.len() <= REDUCED_MARKS + 6);
        activity.replace_front(activity.marks.len(), Vec::new());
        let highest: Vec<u64> = activity.marks.iter().map(|mark| mark.seq).collect();
        assert_eq!(highest, [99_998, 99_999, 100_000]);

        activity.marks.clear();
        for seq in 1..=2_000 {
            if activity.mark_room(0) > 0 {
                activity.marks.push_back(mark(seq, seq, seq));
            }
        }
        assert_eq!(activity.marks.len(), MAX_OPEN_MARKS);
    }
}
