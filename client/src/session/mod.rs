//! One device's side of the protocol, without I/O.
//!
//! The transport opens a link and says so ([`Session::opened`]), hands over what it reads
//! ([`Session::receive`]), writes [`Session::output`], and calls [`Session::tick`] at
//! [`Session::next_deadline`]. The app takes [`Session::poll_event`]. Time is milliseconds of any
//! clock that never goes back. Every call ends by committing what it changed, so nothing that
//! depends on the store leaves before the store has it.

mod event;
mod heartbeat;
mod inbox;
mod opening;
mod outbox;
mod recorder;
mod requests;

pub use event::{Event, StopReason, Welcomed, Wish};
#[cfg(feature = "tokio")]
pub(crate) use opening::opening;

use crate::{
    Change, Entry, EntryState, Identity, Network, Outgoing, QueueError, Refusal, Request,
    RequestError, Store, StoreError, backoff::Backoff,
};
use heartbeat::Heartbeat;
use opening::Live;
use outbox::Outbox;
use recorder::Recorder;
use requests::Requests;
use starling_codec::{
    Decoded, Epoch, EpochTag, ErrorCode, Frame, Kind, Nonce, Place, append_frame, append_pong,
    decode_frame,
    history::{Fact, Record},
    limits,
    wire::{self, AppState},
};
use std::{collections::VecDeque, mem};

/// What an app chooses for its session.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Name and version of the program, for the server's logs; at most 64 bytes.
    pub program: String,
    pub app_state: AppState,
    /// The network that the device is on when the session begins.
    pub network: Network,
    /// The range of heartbeats that the app allows, in seconds; 0: the protocol's own limit. What
    /// the network bears of it is learnt: [`Session::set_app_state`].
    pub heartbeat_min_s: u32,
    pub heartbeat_max_s: u32,
    /// Events, and bytes of them, that the server may send beyond the cursor.
    pub window_events: u32,
    pub window_bytes: u32,
}

impl Default for SessionSettings {
    fn default() -> Self {
        SessionSettings {
            program: concat!("starling-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            app_state: AppState::Foreground,
            heartbeat_min_s: limits::MIN_HEARTBEAT_S,
            network: Network::default(),
            heartbeat_max_s: limits::MAX_HEARTBEAT_S,
            window_events: 1_024,
            window_bytes: 256 * 1024,
        }
    }
}

/// A device's session, over as many connections as its life takes.
pub struct Session<S> {
    store: S,
    settings: SessionSettings,
    identity: Option<Identity>,
    connect_no: u64,
    epoch: Epoch,
    tag: EpochTag,
    cursor: Place,
    highest: Place,
    outbox: Outbox,
    requests: Requests,
    state: State,
    backoff: Backoff,
    heartbeat: Heartbeat,
    /// The app takes its events about as fast as they come.
    keeping_up: bool,
    /// The front of a frame whose rest has not come.
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of the output was taken, ever.
    written_bytes: u64,
    /// To be committed, and to be told after that.
    changes: Vec<Change>,
    news: Vec<Event>,
    events: VecDeque<Event>,
    recorder: Option<Recorder>,
}

#[derive(Debug)]
enum State {
    /// Without a link until a time.
    Offline {
        retry_at_ms: u64,
        /// The server asked for so much time.
        not_before_ms: u64,
    },
    /// HELLO is sent; WELCOME must come before the deadline.
    Opening {
        deadline_ms: u64,
    },
    Live(Live),
    Stopped,
}

impl<S: Store> Session<S> {
    /// A session of the device that `store` knows. `seed` is entropy for the waits between
    /// connections. A store without a token gives a session that has stopped.
    pub fn load(
        mut store: S,
        settings: SessionSettings,
        seed: u64,
    ) -> Result<Session<S>, StoreError> {
        let saved = store.load()?;
        let mut session = Session {
            store,
            heartbeat: Heartbeat::new(settings.network.clone(), saved.networks),
            settings,
            connect_no: saved.connect_no,
            epoch: saved.epoch,
            tag: saved.tag,
            cursor: saved.cursor,
            highest: saved.highest,
            outbox: Outbox::new(saved.outbox, saved.next_send_no),
            identity: saved.identity,
            requests: Requests::default(),
            state: State::Offline { retry_at_ms: 0, not_before_ms: 0 },
            backoff: Backoff::new(seed),
            keeping_up: true,
            input: Vec::new(),
            output: Vec::new(),
            written_bytes: 0,
            changes: Vec::new(),
            news: Vec::new(),
            events: VecDeque::new(),
            recorder: None,
        };
        if !session.identity.as_ref().is_some_and(Identity::is_logged_in) {
            session.stop(StopReason::NotLoggedIn);
            session.settle();
        }
        Ok(session)
    }

    /// A link is open: says HELLO with a number that no connection of this device had.
    pub fn opened(&mut self, now_ms: u64) {
        if let State::Offline { .. } = self.state {
            self.changes.extend(self.heartbeat.is_reachable());
            self.say_hello(now_ms);
            self.settle();
        }
    }

    /// The link is lost, or could not be opened.
    pub fn closed(&mut self, now_ms: u64) {
        if self.has_link() {
            self.link_died(now_ms, false);
            self.reconnect(now_ms, None);
        } else if let State::Offline { retry_at_ms, .. } = &mut self.state {
            *retry_at_ms = now_ms + self.backoff.wait_ms(0);
            self.heartbeat.is_unreachable();
        }
        self.settle();
    }

    /// Bytes that the link brought, in any pieces.
    pub fn receive(&mut self, now_ms: u64, bytes: &[u8]) {
        if !self.has_link() {
            return;
        }
        let mut kept = mem::take(&mut self.input);
        // The usual case: whole frames are read where they lie.
        let input: &[u8] = match kept.is_empty() {
            true => bytes,
            false => {
                kept.extend_from_slice(bytes);
                &kept
            }
        };
        let is_borne = match &mut self.state {
            State::Live(live) => live.beats.hear(now_ms),
            _ => false,
        };
        let mut taken = 0;
        while self.has_link() {
            match decode_frame(&input[taken..], limits::MAX_LARGE_FRAME_BYTES) {
                Decoded::NeedMore => break,
                Decoded::Reject(_) => self.reconnect(now_ms, None),
                Decoded::Frame(raw) => {
                    taken += raw.size;
                    let read = match raw.known() {
                        Ok(Some(frame)) => self.read(now_ms, frame),
                        // A kind of a later version.
                        Ok(None) => Ok(()),
                        Err(code) => Err(code),
                    };
                    // A server that breaks the protocol is left, and tried again.
                    if read.is_err() {
                        self.reconnect(now_ms, None);
                    }
                }
            }
        }
        if self.has_link() {
            if kept.is_empty() {
                kept.extend_from_slice(&bytes[taken..]);
            } else {
                kept.drain(..taken);
            }
            self.input = kept;
            self.acknowledge_many();
            self.settle_doubts();
            self.write_sends(now_ms);
            self.note_said(now_ms);
            if is_borne {
                self.heartbeat_answered(now_ms);
            }
        }
        self.settle();
    }

    /// Bytes to be written to the link, in order.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The link took the first `bytes` of the output.
    pub fn written(&mut self, bytes: usize) {
        self.output.drain(..bytes);
        self.written_bytes += bytes as u64;
    }

    /// When [`Session::tick`] is to be called next.
    pub fn next_deadline(&self) -> Option<u64> {
        match &self.state {
            State::Offline { .. } | State::Stopped => None,
            State::Opening { deadline_ms } => Some(*deadline_ms),
            State::Live(live) => {
                [live.next_deadline(), self.outbox.paused_until_ms()].into_iter().flatten().min()
            }
        }
    }

    /// Whether the app keeps up. While it does not, no cursor is acknowledged, so the server stops
    /// at the end of the window that HELLO named; answers still come, and messages still go.
    pub fn set_keeping_up(&mut self, keeping_up: bool) {
        let caught_up = keeping_up && !self.keeping_up;
        self.keeping_up = keeping_up;
        if caught_up {
            // The time to acknowledge may have passed meanwhile.
            self.acknowledge();
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: u64) {
        self.note_said(now_ms);
        match &mut self.state {
            State::Offline { .. } | State::Stopped => {}
            State::Opening { deadline_ms } => {
                if now_ms >= *deadline_ms {
                    self.reconnect(now_ms, None);
                }
            }
            State::Live(live) => {
                if live.beats.is_silent(now_ms) {
                    self.link_died(now_ms, true);
                    self.reconnect(now_ms, None);
                } else if live.is_owed(now_ms) {
                    self.reconnect(now_ms, None);
                } else {
                    if live.ack_due_ms.is_some_and(|due| now_ms >= due) {
                        live.ack_due_ms = None;
                        self.acknowledge();
                    }
                    self.refresh_if_due(now_ms);
                    self.write_sends(now_ms);
                    self.ping_if_due(now_ms);
                    self.note_said(now_ms);
                }
            }
        }
        self.settle();
    }

    /// What the transport is to do.
    pub fn wish(&self) -> Wish {
        match self.state {
            State::Offline { retry_at_ms, .. } => Wish::OpenAt(retry_at_ms),
            State::Opening { .. } | State::Live(_) => Wish::Keep,
            State::Stopped => Wish::Close,
        }
    }

    /// What happened next, if anything did.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// From now on a history of the session is kept, which whoever asked for it must take.
    pub fn start_recording(&mut self) {
        self.recorder.get_or_insert_default();
    }

    /// The next record of the session's history, if it is recorded.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.recorder.as_mut()?.next()
    }

    /// Takes a message into the outbox, where it survives the process, and sends it as soon as it
    /// can. `nonce` is random and names the message from now on.
    pub fn send(&mut self, now_ms: u64, nonce: Nonce, message: Outgoing) -> Result<(), QueueError> {
        if let State::Stopped = self.state {
            return Err(QueueError::Stopped);
        }
        let added = self.outbox.add(nonce, message)?;
        if let [_, Change::Outbox(entry)] = &added {
            self.record_send(entry);
        }
        self.changes.extend(added);
        self.write_sends(now_ms);
        self.note_said(now_ms);
        self.settle();
        match self.state {
            State::Stopped => Err(QueueError::Stopped),
            _ => Ok(()),
        }
    }

    /// Messages that went back to the app.
    pub fn unsent(&self) -> impl Iterator<Item = &Entry> {
        self.outbox.entries().filter(|entry| matches!(entry.state, EntryState::Unsent(_)))
    }

    /// All that the outbox holds, by number.
    pub fn outbox(&self) -> impl Iterator<Item = &Entry> {
        self.outbox.entries()
    }

    /// Messages whose answer is not known yet.
    pub fn unanswered(&self) -> usize {
        self.outbox.unanswered()
    }

    /// The app has taken an unsent message back: it is forgotten here.
    pub fn discard(&mut self, nonce: Nonce) {
        self.changes.extend(self.outbox.discard(nonce));
        self.settle();
    }

    /// Asks the server. The answer comes as [`Event::Answered`] with the id that this returns.
    pub fn request(&mut self, now_ms: u64, request: Request) -> Result<u32, RequestError> {
        if let State::Stopped = self.state {
            return Err(RequestError::Stopped);
        }
        let id = self.requests.add(request, true)?;
        self.write_requests();
        self.tick(now_ms);
        Ok(id)
    }

    /// Tells the server that the device goes offline, and ends the session. If it is recorded, its
    /// last record says what the device holds.
    pub fn close(&mut self) {
        if let State::Stopped = self.state {
            return;
        }
        if let State::Live(_) = self.state {
            self.acknowledge();
            starling_codec::append_header(&mut self.output, Kind::Dishello, 0);
        }
        let goodbye = mem::take(&mut self.output);
        self.stop(StopReason::Closed);
        self.output = goodbye;
        self.settle();
        self.record_end();
    }

    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// How far the inbox was applied.
    pub fn cursor(&self) -> Place {
        self.cursor
    }

    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    pub fn store(&self) -> &S {
        &self.store
    }

    pub fn into_store(self) -> S {
        self.store
    }

    fn has_link(&self) -> bool {
        matches!(self.state, State::Opening { .. } | State::Live(_))
    }

    /// A frame came.
    fn read(&mut self, now_ms: u64, frame: Frame<'_>) -> Result<(), ErrorCode> {
        match (&self.state, frame.kind) {
            (_, Kind::Ping) => append_pong(&mut self.output),
            (_, Kind::Pong) => {}
            (_, Kind::Close) => self.read_close(now_ms, frame.body()?),
            (State::Opening { .. }, Kind::Welcome) => self.read_welcome(now_ms, frame.body()?)?,
            (State::Opening { .. }, Kind::Refused) => {
                let refused: wire::Refused = frame.body()?;
                self.turn_away(now_ms, Refusal::new(refused.code, refused.retry_after_ms));
            }
            (State::Live(_), Kind::Events) => self.read_events(now_ms, frame.body()?),
            (State::Live(_), Kind::SendAck) => self.read_send_ack(frame.body()?),
            (State::Live(_), Kind::SendRefused) => self.read_send_refused(now_ms, frame.body()?),
            (
                State::Live(_),
                Kind::HistoryPage | Kind::Resolved | Kind::Grant | Kind::Done | Kind::Refused,
            ) => self.read_answer(now_ms, frame)?,
            _ => return Err(ErrorCode::WrongState),
        }
        Ok(())
    }

    /// Leaves the link, to come back after a wait.
    fn reconnect(&mut self, now_ms: u64, why: Option<Refusal>) {
        let asked_ms = why.map_or(0, |refusal| u64::from(refusal.retry_after_ms));
        let retry_in_ms = self.backoff.wait_ms(asked_ms);
        let (retry_at_ms, not_before_ms) = (now_ms + retry_in_ms, now_ms + asked_ms);
        self.leave(State::Offline { retry_at_ms, not_before_ms });
        self.news.push(Event::Offline { why, retry_in_ms });
        self.news.extend(self.requests.connection_lost());
    }

    /// Leaves the link for a better one.
    fn reconnect_at_once(&mut self, now_ms: u64) {
        self.leave(State::Offline { retry_at_ms: now_ms, not_before_ms: now_ms });
        self.news.push(Event::Offline { why: None, retry_in_ms: 0 });
        self.news.extend(self.requests.connection_lost());
    }

    /// Ends the session.
    fn stop(&mut self, reason: StopReason) {
        self.leave(State::Stopped);
        self.news.extend(self.requests.stopped());
        self.news.push(Event::Stopped(reason));
    }

    fn leave(&mut self, state: State) {
        self.state = state;
        self.input.clear();
        self.output.clear();
        self.outbox.connection_lost();
    }

    /// Commits what changed; then it may be told and, by returning, sent.
    fn settle(&mut self) {
        let committed = match self.changes.is_empty() {
            true => Ok(()),
            false => self.store.commit(&self.changes),
        };
        self.changes.clear();
        if let Err(error) = committed {
            // What was to be told did not happen.
            self.news.clear();
            if let Some(recorder) = &mut self.recorder {
                recorder.failed();
            }
            self.stop(StopReason::Store(error.to_string()));
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.committed(self.identity.as_ref(), &self.news);
        }
        self.events.extend(self.news.drain(..));
    }

    /// Takes note of what is no event.
    fn record(&mut self, fact: impl FnOnce() -> Fact) {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(self.news.len(), fact());
        }
    }

    /// What the device holds now that its session is over.
    fn record_end(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        // Without it the history has no such end; what the store failed with is told elsewhere.
        if let Ok(Some(hash)) = self.store.held() {
            recorder.note(0, Fact::Left { cursor: self.cursor, hash });
            recorder.committed(self.identity.as_ref(), &[]);
        }
    }

    fn record_send(&mut self, entry: &Entry) {
        if let Some(own) = self.identity.as_ref().map(|identity| identity.user) {
            self.record(|| recorder::send(entry, own));
        }
    }

    fn write<M: prost::Message>(&mut self, kind: Kind, body: &M) {
        append_frame(&mut self.output, kind, body);
    }
}
