//! A logged-in device on a connection.

use crate::{Engine, Now, connection::NONE, token::Identity};
use starling_codec::{
    DeviceId, ErrorCode, Place, UserId,
    limits::{MAX_WINDOW_BYTES, MAX_WINDOW_EVENTS, MIN_WINDOW_BYTES, MIN_WINDOW_EVENTS},
    serial::is_revoked,
    wire,
};

/// What a session remembers, and all that a device costs: it stands in the connection's slot.
pub(crate) struct Live {
    pub(crate) connect_no: u64,
    /// The highest seq of the inbox that was sent.
    pub(crate) sent: u64,
    pub(crate) cursor_seq: u64,
    /// What is sent beyond the cursor, in bytes, in two parts: up to this seq `older_bytes`, the
    /// rest `newer_bytes`. Each part counts until the cursor has passed it whole, so the sum is
    /// never too small.
    older_end: u64,
    /// The lowest send number the door refused retryably and waits for; 0: none.
    pub(crate) refused: u64,
    /// The rate of sends is used up until then, in microseconds of the steady clock.
    pub(crate) rate_us: u64,
    pub(crate) cursor_epoch: u32,
    older_bytes: u32,
    newer_bytes: u32,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) serial: u32,
    /// Slot of the user's next session.
    pub(crate) sibling: u32,
    window_events: u16,
    window_kib: u16,
    pub(crate) heartbeat_s: u16,
    /// Requests without an answer.
    pub(crate) requests: u8,
    /// Sends let in and without an outcome.
    pub(crate) sends: u8,
    /// How far above `refused` the highest refused number is.
    pub(crate) refused_span: u8,
    pub(crate) feed: Feed,
    pub(crate) cursor_state: CursorState,
    /// A page of history is under way.
    pub(crate) paging: bool,
}

/// How a session stands to its user's inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// All was sent.
    Level,
    /// Not all was sent when the outlet last looked.
    Behind,
    /// What comes next is being read.
    Reading,
    /// As `Reading`, but the device wants another part by now.
    ReadingInVain,
}

/// How a session's cursor stands to the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CursorState {
    Stored,
    /// It will be stored within a second.
    Waits,
    /// What it passed in an earlier connection is being looked up; then it waits.
    Regaining,
}

/// A window that the client left open to the server.
const DEFAULT_WINDOW_EVENTS: u32 = 256;
const DEFAULT_WINDOW_BYTES: u32 = 256 * 1024;

const _: () = assert!(MAX_WINDOW_EVENTS <= u16::MAX as u32);
const _: () = assert!(MAX_WINDOW_BYTES / 1024 <= u16::MAX as u32);

impl Live {
    /// A session that continues from `cursor`.
    pub(crate) fn new(
        identity: Identity,
        hello: &wire::Hello,
        cursor: Place,
        heartbeat_s: u32,
    ) -> Live {
        let or = |asked: u32, default: u32| if asked == 0 { default } else { asked };
        let events = or(hello.window_events, DEFAULT_WINDOW_EVENTS)
            .clamp(MIN_WINDOW_EVENTS, MAX_WINDOW_EVENTS);
        let bytes =
            or(hello.window_bytes, DEFAULT_WINDOW_BYTES).clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES);
        Live {
            connect_no: hello.connect_no,
            sent: cursor.seq,
            cursor_seq: cursor.seq,
            older_end: cursor.seq,
            refused: 0,
            rate_us: 0,
            cursor_epoch: cursor.epoch.0,
            older_bytes: 0,
            newer_bytes: 0,
            user: identity.user,
            device: identity.device,
            serial: identity.serial,
            sibling: NONE,
            window_events: events as u16,
            window_kib: (bytes / 1024) as u16,
            heartbeat_s: heartbeat_s as u16,
            requests: 0,
            sends: 0,
            refused_span: 0,
            feed: Feed::Level,
            cursor_state: CursorState::Stored,
            paging: false,
        }
    }

    pub(crate) fn cursor(&self) -> Place {
        Place::new(self.cursor_seq, starling_codec::Epoch(self.cursor_epoch))
    }

    /// Slot of the user's next session.
    pub(crate) fn next_session(&self) -> Option<u32> {
        (self.sibling != NONE).then_some(self.sibling)
    }

    /// Events the client lets the server send now.
    pub(crate) fn event_room(&self) -> usize {
        let outstanding = self.sent.saturating_sub(self.cursor_seq);
        u64::from(self.window_events).saturating_sub(outstanding) as usize
    }

    /// Bytes of events that the server may send now, in one go.
    ///
    /// What is beyond the cursor is counted in two parts of half a window each, and a part is free
    /// once the cursor has passed all of it. So a client that acknowledges every quarter of its
    /// window never has the server wait for it, however large the events are.
    pub(crate) fn byte_room(&self) -> usize {
        let window = self.window_bytes();
        let outstanding = self.older_bytes + self.newer_bytes;
        let part = match (self.older_bytes, self.newer_bytes) {
            // The largest event is larger than half of the smallest window.
            (0, 0) => window,
            (_, newer) => (window / 2).saturating_sub(newer),
        };
        part.min(window.saturating_sub(outstanding)) as usize
    }

    fn window_bytes(&self) -> u32 {
        u32::from(self.window_kib) * 1024
    }

    /// Events up to `seq`, of `bytes` in all, were sent.
    pub(crate) fn note_sent(&mut self, seq: u64, bytes: usize) {
        self.sent = seq;
        let bytes = bytes as u32;
        let older = self.older_bytes + bytes;
        if self.older_bytes == 0 || (self.newer_bytes == 0 && older <= self.window_bytes() / 2) {
            (self.older_bytes, self.older_end) = (older, seq);
        } else {
            self.newer_bytes += bytes;
        }
    }

    /// The device has applied all up to `cursor`, which is not above what was sent. Says whether
    /// that is news.
    pub(crate) fn advance(&mut self, cursor: Place) -> bool {
        if cursor.seq <= self.cursor_seq {
            return false;
        }
        (self.cursor_seq, self.cursor_epoch) = (cursor.seq, cursor.epoch.0);
        if self.cursor_seq >= self.older_end {
            self.older_bytes = std::mem::take(&mut self.newer_bytes);
            self.older_end = self.sent;
        }
        if self.cursor_seq >= self.sent {
            self.older_bytes = 0;
        }
        true
    }

    /// The device lacks what comes after `seq`: it is sent again.
    pub(crate) fn rewind(&mut self, seq: u64) {
        self.sent = seq;
        self.cursor_seq = self.cursor_seq.min(seq);
        (self.older_end, self.older_bytes, self.newer_bytes) = (seq, 0, 0);
        if self.feed == Feed::Reading {
            self.feed = Feed::ReadingInVain;
        }
    }
}

impl Engine {
    /// The session on a slot, if there is one, ends: it is no longer one of its user's.
    pub(crate) fn end_session(&mut self, now: Now, number: u32) {
        if self.slots.live(number).is_some() {
            self.store_last_cursor(now, number);
            self.users.detach(&mut self.slots, number);
            self.counters.sessions -= 1;
        }
    }

    /// The tokens of a device were revoked but those of `serial`: its session ends.
    pub(crate) fn revoke(&mut self, now: Now, user: UserId, device: DeviceId, serial: u32) {
        self.waiting.outdate_greetings(user);
        if let Some(number) = self.users.session_of(&self.slots, user, device)
            && self.slots.live(number).is_some_and(|live| is_revoked(live.serial, serial))
        {
            self.close(now, number, ErrorCode::TokenRevoked);
        }
    }

    /// The tokens of all devices but one were revoked: their sessions end.
    pub(crate) fn revoke_others(&mut self, now: Now, user: UserId, keep: DeviceId) {
        self.waiting.outdate_greetings(user);
        let mut next = self.users.first_session(user);
        while let Some(number) = next {
            let Some(live) = self.slots.live(number) else { return };
            next = live.next_session();
            if live.device != keep {
                self.close(now, number, ErrorCode::TokenRevoked);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_codec::Epoch;

    fn live(window_bytes: u32) -> Live {
        let identity = Identity { user: UserId(1), device: DeviceId(1), serial: 1 };
        let hello = wire::Hello { window_bytes, window_events: 4_096, ..Default::default() };
        Live::new(identity, &hello, Place::START, 30)
    }

    proptest! {
        /// What is counted as outstanding is never less than the truth, and nothing once all is
        /// acknowledged.
        #[test]
        fn outstanding_bytes_are_bounded_from_above(
            steps in proptest::collection::vec((1u32..900, any::<bool>(), 0.0f64..1.0), 1..200),
        ) {
            let mut live = live(1024 * 1024);
            let mut sizes = vec![0u32];
            for (bytes, acks, share) in steps {
                sizes.push(bytes);
                live.note_sent(live.sent + 1, bytes as usize);
                if acks {
                    let beyond = live.sent - live.cursor_seq;
                    let seq = live.cursor_seq + (beyond as f64 * share).ceil() as u64;
                    live.advance(Place::new(seq, Epoch(1)));
                }
                let truth: u32 = sizes[live.cursor_seq as usize + 1..].iter().sum();
                prop_assert!(live.older_bytes + live.newer_bytes >= truth);
                if live.cursor_seq == live.sent {
                    prop_assert_eq!(live.older_bytes + live.newer_bytes, 0);
                }
            }
        }
    }

    #[test]
    fn windows_are_kept_within_the_limits() {
        assert_eq!(live(0).byte_room(), DEFAULT_WINDOW_BYTES as usize);
        assert_eq!(live(1).byte_room(), MIN_WINDOW_BYTES as usize);
        assert_eq!(live(u32::MAX).byte_room(), MAX_WINDOW_BYTES as usize);
    }
}
