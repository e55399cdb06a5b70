//! The inbox side: the one rule for events, and the acknowledgement of the cursor.

use super::{Event, Session, State};
use crate::{Change, Receipt, Store};
use prost::Message as _;
use starling_codec::{
    ConversationId, Epoch, Kind, MessageId, Nonce, Place, SendNo,
    history::Fact,
    limits,
    planted::{Fault, is_planted},
    wire::{self, event::Kind as EventKind},
};

impl<S: Store> Session<S> {
    pub(super) fn read_events(&mut self, now_ms: u64, events: wire::Events) {
        for event in events.events {
            if !self.has_link() {
                return;
            }
            self.read_event(now_ms, event);
        }
    }

    /// The rule: what is known is dropped, what joins on is applied, a gap is asked for, and
    /// anything else is a connection that cannot be trusted.
    fn read_event(&mut self, now_ms: u64, mut event: wire::Event) {
        if event.prev == 0 {
            event.prev = event.seq.saturating_sub(1);
        }
        let mine = self.cursor.seq;
        if event.seq <= mine {
            return;
        }
        if event.prev == mine {
            self.apply(now_ms, event);
        } else if event.prev > mine {
            self.ask_for_gap(now_ms);
        } else {
            self.reconnect(now_ms, None);
        }
    }

    fn apply(&mut self, now_ms: u64, event: wire::Event) {
        self.cursor = Place::new(event.seq, Epoch(event.epoch));
        self.highest = self.highest.max(self.cursor);
        if let State::Live(live) = &mut self.state {
            live.syncing_since_ms = None;
            live.unacknowledged += 1;
            live.unacknowledged_bytes += event.encoded_len();
            live.ack_due_ms.get_or_insert(now_ms + limits::ACK_EVERY_MS);
        }
        self.changes.push(Change::Applied(event.clone()));
        if let Some(EventKind::Message(message)) = &event.kind {
            self.find_own(message);
        }
        self.news.push(Event::Applied(event));
    }

    /// An own message in the inbox is the answer to its entry in the outbox.
    fn find_own(&mut self, message: &wire::Message) {
        let Some(identity) = &self.identity else { return };
        if message.sender != identity.user.0 || message.device != identity.device.0 {
            return;
        }
        let nonce = Nonce(message.nonce);
        let Some(entry) = self.outbox.settle(nonce) else { return };
        self.changes.push(Change::Settled(nonce));
        if entry.state == crate::EntryState::Unanswered {
            let receipt = Receipt {
                send_no: SendNo(message.send_no),
                id: MessageId(message.id),
                conversation: ConversationId(message.conversation),
                seq: message.seq,
                place: self.cursor,
                time_ms: message.time_ms,
                class: message.class(),
            };
            self.news.push(Event::Sent { nonce, receipt });
        }
    }

    fn ask_for_gap(&mut self, now_ms: u64) {
        let State::Live(live) = &mut self.state else { return };
        if live.syncing_since_ms.is_none() {
            live.syncing_since_ms = Some(now_ms);
            let after = Some(self.cursor.into());
            self.write(Kind::Sync, &wire::Sync { after });
        }
    }

    /// Acknowledges the cursor if enough has gathered, or a quarter of the window is used up: the
    /// server, which counts in halves, is to go on before it is at its end.
    pub(super) fn acknowledge_many(&mut self) {
        let events = u64::from(self.settings.window_events / 4).clamp(1, limits::ACK_EVERY_EVENTS);
        let bytes = self.settings.window_bytes.min(limits::MAX_WINDOW_BYTES) as usize / 4;
        if let State::Live(live) = &self.state
            && (live.unacknowledged >= events || live.unacknowledged_bytes >= bytes)
        {
            self.acknowledge();
        }
    }

    /// Acknowledges the cursor if the server does not know it.
    pub(super) fn acknowledge(&mut self) {
        let State::Live(live) = &mut self.state else { return };
        if live.unacknowledged > 0 && self.keeping_up {
            live.unacknowledged = 0;
            live.unacknowledged_bytes = 0;
            live.ack_due_ms = None;
            let cursor = match is_planted(Fault::AcksAhead) {
                true => self.highest,
                false => self.cursor,
            };
            self.record(|| Fact::Acked(cursor));
            self.write(Kind::Ack, &wire::Ack { cursor: Some(cursor.into()) });
        }
    }
}
