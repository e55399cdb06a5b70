//! A session at a desk: its bytes are frames laid out by hand, its time is a number.
#![allow(dead_code, reason = "each test file uses its own part")]

use bytes::Bytes;
use prost::Message;
use starling_client::{
    Event, Identity, MemoryStore, Outgoing, Peer, Receipt, Session, SessionSettings, Store, Wish,
    codec::{
        ConversationId, Decoded, DeviceId, Kind, MessageId, Nonce, Place, SendNo, SendWindow,
        UserId, append_frame, decode_frame, wire,
    },
};

pub const ME: UserId = UserId(1);
pub const DEVICE: DeviceId = DeviceId(1);
pub const BOB: UserId = UserId(2);
/// Server time of the first WELCOME.
pub const SERVER_MS: u64 = 1_800_000_000_000;
/// Life of the tokens here.
pub const LIFE_MS: u64 = 1_000_000_000;

pub fn identity() -> Identity {
    let grant = wire::Grant {
        user: ME.0,
        device: DEVICE.0,
        token: Bytes::from_static(b"token"),
        expires_ms: SERVER_MS + LIFE_MS,
        name: "ada".into(),
        ..Default::default()
    };
    Identity::granted(&grant, SERVER_MS)
}

pub fn store() -> MemoryStore {
    MemoryStore::with_identity(identity())
}

pub fn place(seq: u64, epoch: u32) -> wire::Place {
    wire::Place { seq, epoch }
}

pub fn place_of(seq: u64, epoch: u32) -> Place {
    place(seq, epoch).into()
}

/// What a server with an empty inbox says in its first epoch.
pub fn welcome() -> wire::Welcome {
    wire::Welcome {
        version: 1,
        user: ME.0,
        device: DEVICE.0,
        time_ms: SERVER_MS,
        epoch: 1,
        tag: 0xA1,
        heartbeat_s: 30,
        resumed: true,
        head: Some(place(0, 0)),
        window: Some(wire::SendWindow::default()),
        ..Default::default()
    }
}

/// A window in which these numbers arrived.
pub fn window(numbers: impl IntoIterator<Item = u64>) -> Option<wire::SendWindow> {
    let mut window = SendWindow::default();
    numbers.into_iter().for_each(|number| window.apply(SendNo(number)));
    Some(window.into())
}

/// A message of somebody else.
pub fn event(seq: u64, epoch: u32) -> wire::Event {
    let message = wire::Message {
        conversation: 9,
        seq,
        id: 1_000 + seq,
        sender: BOB.0,
        device: 7,
        time_ms: SERVER_MS + seq,
        content: Bytes::from_static(b"hi"),
        ..Default::default()
    };
    wire::Event { seq, epoch, prev: 0, kind: Some(wire::event::Kind::Message(message)) }
}

/// An own message of this device.
pub fn own_event(seq: u64, epoch: u32, send_no: u64, nonce: u64) -> wire::Event {
    let mut own = event(seq, epoch);
    if let Some(wire::event::Kind::Message(message)) = &mut own.kind {
        (message.sender, message.device) = (ME.0, DEVICE.0);
        (message.send_no, message.nonce) = (send_no, nonce);
    }
    own
}

pub fn ack(send_no: u64, seq: u64, epoch: u32) -> wire::SendAck {
    let place = Some(place(seq, epoch));
    wire::SendAck { send_no, id: 1_000 + seq, conversation: 9, seq, place, ..Default::default() }
}

pub fn receipt() -> Receipt {
    Receipt {
        send_no: SendNo(3),
        id: MessageId(u64::MAX),
        conversation: ConversationId::direct(UserId(1), UserId(2)),
        seq: 4,
        place: place_of(5, 6),
        time_ms: 7,
        class: wire::Class::Buffered,
    }
}

pub fn text(text: &str) -> Outgoing {
    Outgoing::text(Peer::User(BOB), text)
}

/// A frame that a session sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub kind: Kind,
    pub body: Vec<u8>,
}

impl Sent {
    pub fn read<M: Message + Default>(&self) -> M {
        M::decode(&*self.body).unwrap()
    }
}

pub fn frames(mut bytes: &[u8]) -> Vec<Sent> {
    let mut frames = Vec::new();
    while let Decoded::Frame(raw) = decode_frame(bytes, 1 << 20) {
        let kind = Kind::from_number(raw.kind).unwrap();
        frames.push(Sent { kind, body: raw.body.to_vec() });
        bytes = &bytes[raw.size..];
    }
    assert_eq!(bytes, b"", "half a frame");
    frames
}

/// A session, its clock, and what it said.
pub struct Desk<S = MemoryStore> {
    pub session: Session<S>,
    pub now_ms: u64,
}

impl Desk {
    pub fn new() -> Desk {
        Desk::with(store())
    }

    /// A desk whose session is live with an empty inbox.
    pub fn live() -> Desk {
        let mut desk = Desk::new();
        desk.come_online(welcome());
        desk
    }
}

impl<S: Store> Desk<S> {
    pub fn with(store: S) -> Desk<S> {
        let session = Session::load(store, SessionSettings::default(), 42).unwrap();
        Desk { session, now_ms: 5_000 }
    }

    /// Opens a link and gives back the HELLO.
    pub fn open(&mut self) -> wire::Hello {
        if let Wish::OpenAt(at_ms) = self.session.wish() {
            self.now_ms = self.now_ms.max(at_ms);
        }
        self.session.opened(self.now_ms);
        let sent = self.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].kind, Kind::Hello);
        sent[0].read()
    }

    /// Opens a link, gives the WELCOME, and gives back what was sent upon it.
    pub fn come_online(&mut self, welcome: wire::Welcome) -> Vec<Sent> {
        self.open();
        self.give(Kind::Welcome, &welcome);
        assert!(self.session.is_live());
        self.sent()
    }

    pub fn give(&mut self, kind: Kind, body: &impl Message) {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, kind, body);
        self.session.receive(self.now_ms, &bytes);
    }

    pub fn give_events(&mut self, events: impl IntoIterator<Item = wire::Event>) {
        let events = wire::Events { events: events.into_iter().collect(), head: 0 };
        self.give(Kind::Events, &events);
    }

    pub fn refuse(&mut self, send_no: u64, code: starling_client::codec::ErrorCode, after_ms: u32) {
        let code = code as u32;
        let refused = wire::SendRefused { send_no, code, retry_after_ms: after_ms };
        self.give(Kind::SendRefused, &refused);
    }

    /// What the session sent since the last time.
    pub fn sent(&mut self) -> Vec<Sent> {
        let frames = frames(self.session.output());
        self.session.written(self.session.output().len());
        frames
    }

    /// Numbers of the SENDs among what it sent.
    pub fn sent_numbers(&mut self) -> Vec<u64> {
        numbers(&self.sent())
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    pub fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.session.tick(self.now_ms);
    }

    pub fn send(&mut self, nonce: u64) {
        self.session.send(self.now_ms, Nonce(nonce), text("hello")).unwrap();
    }

    pub fn lose_link(&mut self) {
        self.session.closed(self.now_ms);
    }

    pub fn is_offline(&self) -> bool {
        matches!(self.session.wish(), Wish::OpenAt(_))
    }
}

pub fn numbers(sent: &[Sent]) -> Vec<u64> {
    let sends = sent.iter().filter(|frame| frame.kind == Kind::Send);
    sends.map(|frame| frame.read::<wire::Send>().send_no).collect()
}

pub fn kinds(sent: &[Sent]) -> Vec<Kind> {
    sent.iter().map(|frame| frame.kind).collect()
}
