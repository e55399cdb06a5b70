//! From an open link to a live session, and what ends one: HELLO, WELCOME, CLOSE.

use super::{Event, Session, State, StopReason, Welcomed, heartbeat::Beats};
use crate::{Change, Refusal, Request, Store};
use starling_codec::{
    Blame, Epoch, EpochTag, ErrorCode, Kind, MAGIC, PROTOCOL_VERSION, Place, SendWindow,
    history::Fact,
    limits,
    planted::{Fault, is_planted},
    wire,
};

/// What a session knows only while it is live.
#[derive(Debug)]
pub(super) struct Live {
    pub beats: Beats,
    /// Events applied and not acknowledged, and when they must be.
    pub unacknowledged: u64,
    /// Encoded, as the window counts them.
    pub unacknowledged_bytes: usize,
    pub ack_due_ms: Option<u64>,
    /// A SYNC waits for its events since then.
    pub syncing_since_ms: Option<u64>,
    pub max_sends_in_flight: usize,
    /// When the token is to be exchanged; `None` while that is under way.
    pub refresh_at_ms: Option<u64>,
    /// Server time minus our clock, in milliseconds.
    pub server_ahead_ms: i128,
}

impl Live {
    pub fn next_deadline(&self) -> Option<u64> {
        let sync = self.syncing_since_ms.map(|since| since + self.beats.patience_ms());
        [Some(self.beats.next_deadline()), self.ack_due_ms, sync, self.refresh_at_ms]
            .into_iter()
            .flatten()
            .min()
    }

    /// The server owes the answer to a SYNC for too long.
    pub fn is_owed(&self, now_ms: u64) -> bool {
        self.syncing_since_ms.is_some_and(|since| now_ms >= since + self.beats.patience_ms())
    }

    /// Server time, Unix milliseconds.
    pub fn server_ms(&self, now_ms: u64) -> u64 {
        (i128::from(now_ms) + self.server_ahead_ms).clamp(0, i128::from(u64::MAX)) as u64
    }
}

/// The first field of every opening frame.
pub(crate) fn opening(program: &str) -> wire::Opening {
    wire::Opening {
        magic: MAGIC,
        version: PROTOCOL_VERSION,
        capabilities: 0,
        client: program.to_owned(),
    }
}

impl<S: Store> Session<S> {
    pub(super) fn say_hello(&mut self, now_ms: u64) {
        let Some(identity) = &self.identity else {
            return self.stop(StopReason::NotLoggedIn);
        };
        self.connect_no += 1;
        self.changes.push(Change::ConnectNo(self.connect_no));
        let (heartbeat_min_s, heartbeat_max_s) = self.heartbeat.ask_s(&self.settings);
        let hello = wire::Hello {
            opening: Some(opening(&self.settings.program)),
            token: identity.token.clone(),
            connect_no: self.connect_no,
            cursor: Some(self.cursor.into()),
            highest: Some(self.highest.into()),
            last_epoch: self.epoch.0,
            last_tag: self.tag.0,
            app_state: self.settings.app_state.into(),
            heartbeat_min_s,
            heartbeat_max_s,
            window_events: self.settings.window_events,
            window_bytes: self.settings.window_bytes,
            trace_id: 0,
        };
        if self.cursor > Place::START {
            let cursor = self.cursor;
            self.record(|| Fact::Acked(cursor));
        }
        self.write(Kind::Hello, &hello);
        self.state = State::Opening { deadline_ms: now_ms + limits::OPENING_TIMEOUT_MS };
    }

    pub(super) fn read_welcome(
        &mut self,
        now_ms: u64,
        welcome: wire::Welcome,
    ) -> Result<(), ErrorCode> {
        let head = welcome.head.map(Place::from).unwrap_or_default();
        let heartbeat_ms = u64::from(welcome.heartbeat_s) * 1_000;
        if heartbeat_ms == 0 {
            return Err(ErrorCode::BadField);
        }
        let server_ahead_ms = i128::from(welcome.time_ms) - i128::from(now_ms);
        let refresh_server_ms = self.identity.as_ref().map_or(u64::MAX, |own| own.refresh_at_ms);
        let refresh_in_ms = refresh_server_ms.saturating_sub(welcome.time_ms);
        let max_sends = welcome.limits.map_or(0, |limits| limits.max_sends_in_flight) as usize;
        self.state = State::Live(Live {
            beats: Beats::new(now_ms, heartbeat_ms, self.settings.app_state),
            unacknowledged: 0,
            unacknowledged_bytes: 0,
            ack_due_ms: None,
            syncing_since_ms: None,
            // A server that names no limit leaves that of the protocol.
            max_sends_in_flight: if max_sends == 0 { usize::MAX } else { max_sends },
            refresh_at_ms: now_ms.checked_add(refresh_in_ms),
            server_ahead_ms,
        });
        self.backoff.reset();

        let (epoch, tag) = (Epoch(welcome.epoch), EpochTag(welcome.tag));
        let window = welcome.window.map(SendWindow::from).unwrap_or_default();
        self.news.push(Event::Online(Welcomed {
            epoch,
            tag,
            head,
            window,
            time_ms: welcome.time_ms,
            heartbeat_s: welcome.heartbeat_s,
            resumed: welcome.resumed,
        }));
        if welcome.reset {
            self.reset();
        } else if let Some(place) = welcome.rewind
            && !is_planted(Fault::RewindIgnored)
        {
            self.rewind(place.into());
        }
        (self.epoch, self.tag) = (epoch, tag);
        self.changes.push(Change::Epoch(self.epoch, self.tag));

        self.changes.extend(self.outbox.welcomed(window, head.seq));
        self.settle_doubts();
        self.write_requests();
        self.refresh_if_due(now_ms);
        self.write_sends(now_ms);
        Ok(())
    }

    /// A power cut took the end of the server's history: it goes here too.
    fn rewind(&mut self, place: Place) {
        let own = match &self.identity {
            Some(identity) => self.store.own_above(place, identity.user, identity.device),
            None => Ok(Vec::new()),
        };
        let own = match own {
            Ok(own) => own,
            Err(error) => return self.stop(StopReason::Store(error.to_string())),
        };
        self.changes.push(Change::Rewind(place));
        self.news.push(Event::Rewound(place));
        self.cursor = self.cursor.min(place);
        self.highest = self.highest.min(place);
        for entry in self.outbox.rewind(place, own) {
            self.changes.push(Change::Outbox(entry.clone()));
            self.news.push(Event::Unsent(entry));
        }
    }

    /// The server was restored from an older backup: all but the outbox is fetched anew.
    fn reset(&mut self) {
        self.changes.push(Change::Reset);
        self.news.push(Event::Reset);
        (self.cursor, self.highest) = (Place::START, Place::START);
        self.changes.extend(self.outbox.reset());
    }

    pub(super) fn read_close(&mut self, now_ms: u64, close: wire::Close) {
        let refusal = Refusal::new(close.code, close.retry_after_ms);
        match refusal.code() {
            Some(ErrorCode::Replaced) if close.winner_connect_no > self.connect_no => {
                // Counting on above the winner is for the user to decide, by starting again.
                self.connect_no = close.winner_connect_no;
                self.changes.push(Change::ConnectNo(self.connect_no));
                self.stop(StopReason::Replaced { winner: self.connect_no });
            }
            _ => self.turn_away(now_ms, refusal),
        }
    }

    /// The server does not go on with this connection.
    pub(super) fn turn_away(&mut self, now_ms: u64, refusal: Refusal) {
        match refusal.code() {
            Some(ErrorCode::LoggedOut) => self.logged_out(),
            Some(code) if code.blame() == Blame::Auth => {
                self.stop(StopReason::LoginNeeded(refusal));
            }
            Some(ErrorCode::VersionUnsupported) => self.stop(StopReason::Version),
            _ => self.reconnect(now_ms, Some(refusal)),
        }
    }

    /// The token is revoked, as the user asked.
    pub(super) fn logged_out(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.token.clear();
        }
        self.changes.push(Change::LoggedOut);
        self.news.extend(self.requests.logged_out());
        self.stop(StopReason::LoggedOut);
    }

    pub(super) fn refresh_if_due(&mut self, now_ms: u64) {
        let State::Live(live) = &mut self.state else { return };
        if live.refresh_at_ms.is_some_and(|due| now_ms >= due) {
            live.refresh_at_ms = None;
            // With too many requests under way the next connection asks.
            if self.requests.add(Request::Refresh, false).is_ok() {
                self.write_requests();
            }
        }
    }
}
