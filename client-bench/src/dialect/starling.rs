//! The dialect of Starling, on top of codec: what a device with an empty app does, no more and no
//! less. It applies events by the rule, acknowledges by cursor and beats its heart.

use super::{Dialect, Ear, Side, varint, view};
use crate::{caller::error_name, history::HistoryFile, operator::opening, roster::Roster};
use anyhow::{Result, bail};
use starling_codec::{
    Decoded, DeviceId, Epoch, EpochTag, ErrorCode, Frame, Kind, Nonce, Place, SendNo, UserId,
    append_frame, append_header, append_ping, append_pong, decode_frame, history::At, limits, wire,
};

/// What a device may be sent before it says that it has it: as the client of this repository.
pub const WINDOW_EVENTS: u32 = 1_024;
const WINDOW_BYTES: u32 = 256 * 1024;
/// Sizes of events are counted in blocks of so many bytes, so that a count is small.
const BLOCK_BYTES: usize = 16;
/// As many are told of at once, for the server need not wait for the rest of a window.
const QUARTER_BLOCKS: u16 = (WINDOW_BYTES as usize / BLOCK_BYTES / 4) as u16;

/// The durability that messages ask for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Buffered,
    Durable,
    /// Every other message of a pair is durable.
    Mixed,
}

/// Speaks to a Starling server; connection `side` of pair `p` is user `2p + side`.
pub struct Starling {
    pub users: Roster,
    /// Users below it write or are written to; the others are mostly idle.
    talkers: usize,
    /// Of those: the conversation of the last message seen, and its seq there. It outlasts their
    /// connections, as nothing may be missing between two of them either.
    last_messages: Vec<(u64, u64)>,
    class: Class,
    connect_no: u64,
    heartbeat_s: (u32, u32),
    /// Heartbeats sent.
    pub beats: u64,
    /// Where the load is recorded, if it is.
    pub history: Option<HistoryFile>,
    /// Bodies are made here, because their length goes before them.
    body: Vec<u8>,
}

/// One session. What its device must remember stands in the roster, and stays there.
pub struct StarlingPeer {
    /// Place of its user in the roster.
    user: u32,
    /// When this side last said something, and last told its cursor, in milliseconds, as far as
    /// ticks know.
    said_ms: u32,
    told_ms: u32,
    heartbeat_s: u16,
    /// Events since the server was last told the cursor, and what they take, in blocks.
    untold: u8,
    untold_blocks: u16,
    said: bool,
    welcome: bool,
    ready: bool,
    beaten: bool,
    /// It came back in this run: what it missed counts.
    again: bool,
    /// None for an idle one.
    talk: Option<Box<Talk>>,
}

const _: () = assert!(size_of::<StarlingPeer>() <= 32);

/// What a session needs until it is ready, and one that talks for longer.
#[derive(Default)]
struct Talk {
    /// Ready when the cursor is here: the inbox head of WELCOME.
    head_seq: u64,
    /// The number of message 0.
    first_no: u64,
    /// Messages below are answered, and so are those above it with a bit here.
    oldest: u64,
    answered: u64,
    /// The user written to.
    to: u32,
}

impl Starling {
    /// `heartbeat_s` is the range that HELLO names; the first `talkers` users do more than wait.
    pub fn new(users: Roster, talkers: usize, class: Class, heartbeat_s: (u32, u32)) -> Starling {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let connect_no = now.as_millis() as u64;
        let (beats, history, body) = (0, None, Vec::new());
        let last_messages = vec![(0, 0); talkers];
        Starling {
            users,
            talkers,
            last_messages,
            class,
            connect_no,
            heartbeat_s,
            beats,
            history,
            body,
        }
    }

    /// Begins a session of the user at `index`, who writes to user `to`.
    fn hello(&mut self, index: usize, to: u32, again: bool, out: &mut Vec<u8>) -> StarlingPeer {
        // It rises, so that a server which still believes in a connection that was cut lets go.
        self.connect_no += 1;
        let user = &self.users.users[index];
        let (cursor, last) = (user.cursor(), self.users.last(user));
        let hello = wire::Hello {
            opening: Some(opening()),
            token: self.users.token(user).to_vec().into(),
            connect_no: self.connect_no,
            cursor: Some(cursor.into()),
            highest: Some(cursor.into()),
            last_epoch: last.0.0,
            last_tag: last.1.0,
            app_state: wire::AppState::Foreground.into(),
            heartbeat_min_s: self.heartbeat_s.0,
            heartbeat_max_s: self.heartbeat_s.1,
            window_events: WINDOW_EVENTS,
            window_bytes: WINDOW_BYTES,
            trace_id: 0,
        };
        append_frame(out, Kind::Hello, &hello);
        StarlingPeer {
            user: index as u32,
            said_ms: 0,
            told_ms: 0,
            heartbeat_s: 0,
            untold: 0,
            untold_blocks: 0,
            said: true,
            welcome: false,
            ready: false,
            beaten: false,
            again,
            talk: Some(Box::new(Talk { to, ..Talk::default() })),
        }
    }

    /// As [`Dialect::send`], to the user at `index`.
    pub fn send_to(
        &mut self,
        peer: &mut StarlingPeer,
        index: usize,
        sequence: u64,
        nonce: u64,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) {
        let to = self.users.users[index].user;
        peer.talk.get_or_insert_default().to = to;
        self.send(peer, 0, sequence, nonce, payload, out);
    }

    fn cursor(&self, peer: &StarlingPeer) -> Place {
        self.users.users[peer.user as usize].cursor()
    }

    fn welcomed(&mut self, peer: &mut StarlingPeer, welcome: &wire::Welcome, ear: &mut impl Ear) {
        let index = peer.user as usize;
        self.users.welcomed(index, (Epoch(welcome.epoch), EpochTag(welcome.tag)));
        let user = &mut self.users.users[index];
        // What a server lost has other numbers from now on.
        if let Some(last) = self.last_messages.get_mut(index)
            && (welcome.reset || welcome.rewind.is_some())
        {
            *last = (0, 0);
        }
        if welcome.reset {
            user.set_cursor(Place::START);
        } else if let Some(rewind) = welcome.rewind {
            user.set_cursor(user.cursor().min(rewind.into()));
        }
        peer.welcome = true;
        // The protocol's range fits.
        peer.heartbeat_s = welcome.heartbeat_s.min(u16::MAX.into()) as u16;
        let talk = peer.talk.get_or_insert_default();
        talk.head_seq = welcome.head.unwrap_or_default().seq;
        talk.first_no = welcome.window.unwrap_or_default().highest + 1;
        self.settle(peer, ear);
    }

    /// Caught up for the first time?
    fn settle(&mut self, peer: &mut StarlingPeer, ear: &mut impl Ear) {
        if peer.ready || !peer.welcome {
            return;
        }
        let head_seq = peer.talk.as_ref().map_or(0, |talk| talk.head_seq);
        if self.cursor(peer).seq >= head_seq {
            peer.ready = true;
            if peer.user as usize >= self.talkers {
                peer.talk = None;
            }
            ear.ready();
        }
    }

    /// The rule: what is known is dropped, what joins on is applied, anything else is a gap.
    fn event(
        &mut self,
        peer: &mut StarlingPeer,
        event: view::Event<'_>,
        out: &mut Vec<u8>,
        ear: &mut impl Ear,
    ) {
        let user = &mut self.users.users[peer.user as usize];
        let cursor = user.cursor();
        if event.seq <= cursor.seq {
            return;
        }
        let prev = if event.prev == 0 { event.seq - 1 } else { event.prev };
        if prev != cursor.seq {
            ear.gap();
            append_frame(out, Kind::Sync, &wire::Sync { after: Some(cursor.into()) });
            return;
        }
        user.set_cursor(Place::new(event.seq, Epoch(event.epoch)));
        peer.untold = peer.untold.saturating_add(1);
        // An event of the largest size has far fewer blocks than fit.
        let blocks = event.bytes.div_ceil(BLOCK_BYTES) as u16;
        peer.untold_blocks = peer.untold_blocks.saturating_add(blocks);
        let Some(message) = event.message else { return };
        if !peer.ready && !peer.again {
            return;
        }
        if let Some(last) = self.last_messages.get_mut(peer.user as usize) {
            let (conversation, seq) = *last;
            if message.conversation == conversation && message.seq != seq + 1 {
                ear.gap();
            }
            *last = (message.conversation, message.seq);
        }
        // Own messages come too, as every device of their sender must have them.
        if message.sender != user.user {
            ear.delivered(view::opaque(message.content));
        }
    }

    /// The device of a session, as a history names it.
    fn at(&self, peer: &StarlingPeer) -> At {
        let user = &self.users.users[peer.user as usize];
        At { user: UserId(user.user), device: DeviceId(user.device) }
    }

    fn tell_cursor(&mut self, peer: &mut StarlingPeer, out: &mut Vec<u8>) {
        let (at, cursor) = (self.at(peer), self.cursor(peer));
        if let Some(history) = &mut self.history {
            history.acked(at, cursor);
        }
        append_frame(out, Kind::Ack, &wire::Ack { cursor: Some(self.cursor(peer).into()) });
        (peer.untold, peer.untold_blocks) = (0, 0);
        peer.said = true;
    }

    fn frame(
        &mut self,
        peer: &mut StarlingPeer,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        ear: &mut impl Ear,
    ) -> Result<()> {
        match frame.kind {
            Kind::Events => {
                let read = view::events(frame.body, |event| self.event(peer, event, out, ear));
                if read.is_none() {
                    bail!("the server sent an EVENTS that is none");
                }
                self.settle(peer, ear);
            }
            Kind::SendAck => {
                let Some(ack) = view::SendAck::read(frame.body) else {
                    bail!("the server sent a SEND_ACK that is none");
                };
                let Some(sequence) = peer.sequence_of(ack.send_no) else {
                    bail!("the server acknowledged {}, which was never sent", ack.send_no);
                };
                peer.answer(sequence);
                ear.acknowledged(sequence, ack.class == wire::Class::Durable as u64);
            }
            Kind::SendRefused => {
                let refused: wire::SendRefused = frame.body()?;
                let retryable =
                    ErrorCode::from_number(refused.code).is_some_and(ErrorCode::retryable);
                match peer.sequence_of(refused.send_no) {
                    Some(sequence) if retryable => {
                        ear.put_off(sequence, refused.retry_after_ms.into());
                    }
                    _ => bail!("the server refused a message: {}", error_name(refused.code)),
                }
            }
            Kind::Welcome => self.welcomed(peer, &frame.body()?, ear),
            Kind::Ping => append_pong(out),
            Kind::Pong => peer.beaten = true,
            Kind::Close => {
                bail!("the server closed: {}", error_name(frame.body::<wire::Close>()?.code))
            }
            Kind::Refused => {
                let code = frame.body::<wire::Refused>()?.code;
                bail!("the server refused to open a session: {}", error_name(code))
            }
            _ => {}
        }
        Ok(())
    }
}

impl Starling {
    /// A heartbeat that is not due yet.
    pub fn beat(&mut self, peer: &mut StarlingPeer, out: &mut Vec<u8>) {
        append_ping(out);
        self.beats += 1;
        peer.said = true;
    }
}

impl StarlingPeer {
    /// Whether a heartbeat of this session was answered.
    pub fn has_beaten(&self) -> bool {
        self.beaten
    }

    /// Messages below this one have their answer.
    pub fn oldest(&self) -> u64 {
        self.talk.as_ref().map_or(0, |talk| talk.oldest)
    }

    fn sequence_of(&self, send_no: u64) -> Option<u64> {
        send_no.checked_sub(self.talk.as_ref()?.first_no)
    }

    fn answer(&mut self, sequence: u64) {
        let Some(talk) = &mut self.talk else { return };
        let Some(above) = sequence.checked_sub(talk.oldest).filter(|above| *above < 64) else {
            return;
        };
        talk.answered |= 1 << above;
        let done = talk.answered.trailing_ones();
        talk.oldest += u64::from(done);
        talk.answered = talk.answered.checked_shr(done).unwrap_or(0);
    }
}

impl Dialect for Starling {
    type Peer = StarlingPeer;

    fn open(&mut self, pair: usize, side: Side, again: bool, out: &mut Vec<u8>) -> StarlingPeer {
        let (own, other) = match side {
            Side::Sender => (2 * pair, 2 * pair + 1),
            Side::Receiver => (2 * pair + 1, 2 * pair),
        };
        // The last of an odd number of users writes to nobody.
        let to = self.users.users.get(other).map_or(0, |user| user.user);
        self.hello(own, to, again, out)
    }

    fn send(
        &mut self,
        peer: &mut StarlingPeer,
        _pair: usize,
        sequence: u64,
        nonce: u64,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) {
        let talk = peer.talk.get_or_insert_default();
        let durable = match self.class {
            Class::Durable => true,
            Class::Buffered => false,
            Class::Mixed => sequence.is_multiple_of(2),
        };
        let body = &mut self.body;
        body.clear();
        let mut number = |field: u8, value: u64| {
            body.push(field << 3);
            varint::append(body, value);
        };
        number(1, talk.first_no + sequence);
        number(3, talk.first_no + talk.oldest);
        number(4, talk.to.into());
        if !durable {
            number(6, wire::Class::Buffered as u64);
        }
        body.push(2 << 3 | 1);
        body.extend_from_slice(&nonce.to_le_bytes());
        // The content: its field of opaque bytes is the payload.
        let content_bytes = 1 + varint::size(payload.len() as u64) + payload.len();
        body.push(7 << 3 | 2);
        varint::append(body, content_bytes as u64);
        body.push(9 << 3 | 2);
        varint::append(body, payload.len() as u64);
        body.extend_from_slice(payload);
        append_header(out, Kind::Send, body.len());
        out.extend_from_slice(body);
        if let Some(history) = &mut self.history {
            let user = &self.users.users[peer.user as usize];
            let at = At { user: UserId(user.user), device: DeviceId(user.device) };
            let class = if durable { wire::Class::Durable } else { wire::Class::Buffered };
            let (to, send_no) = (UserId(talk.to), SendNo(talk.first_no + sequence));
            let content = &body[body.len() - content_bytes..];
            history.send(at, to, send_no, Nonce(nonce), class, content);
        }
        peer.said = true;
    }

    fn read(
        &mut self,
        peer: &mut StarlingPeer,
        bytes: &[u8],
        out: &mut Vec<u8>,
        ear: &mut impl Ear,
    ) -> Result<usize> {
        let mut consumed = 0;
        loop {
            match decode_frame(&bytes[consumed..], limits::MAX_LARGE_FRAME_BYTES) {
                Decoded::NeedMore => break,
                Decoded::Reject(code) => bail!("the server sent no frame: {code}"),
                Decoded::Frame(raw) => {
                    consumed += raw.size;
                    if let Some(frame) = raw.known()? {
                        let (at, cursor) = (self.at(peer), self.cursor(peer));
                        if let Some(history) = &mut self.history {
                            history.frame(at, cursor, &frame)?;
                        }
                        self.frame(peer, &frame, out, ear)?;
                    }
                }
            }
        }
        let many = u64::from(peer.untold) >= limits::ACK_EVERY_EVENTS;
        if many || peer.untold_blocks >= QUARTER_BLOCKS {
            self.tell_cursor(peer, out);
        }
        Ok(consumed)
    }

    fn tick(&mut self, peer: &mut StarlingPeer, now_ms: u64, out: &mut Vec<u8>) {
        if !peer.welcome {
            return;
        }
        // Seven weeks from when the process began to measure.
        let now_ms = now_ms as u32;
        if peer.untold == 0 {
            peer.told_ms = now_ms;
        } else if now_ms >= peer.told_ms + limits::ACK_EVERY_MS as u32 / 2 {
            self.tell_cursor(peer, out);
            peer.told_ms = now_ms;
        }
        if peer.said {
            peer.said = false;
            peer.said_ms = now_ms;
        } else if now_ms >= peer.said_ms + 1_000 * u32::from(peer.heartbeat_s) {
            append_ping(out);
            self.beats += 1;
            peer.said_ms = now_ms;
        }
    }
}

#[cfg(test)]
mod tests;
