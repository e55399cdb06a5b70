//! The least a client must be: it greets, sends in order, applies events by the one rule, keeps
//! what it wrote until it has a final answer, and goes back when it is told to.

use super::World;
use prost::Message as _;
use starling_codec::{
    ErrorCode, Kind, MAGIC, PROTOCOL_VERSION, UserId, append_frame, append_ping,
    wire::{self, Event},
};
use std::collections::BTreeMap;

pub struct Peer {
    pub token: Vec<u8>,
    pub link: Option<usize>,
    pub connect_no: u64,
    pub cursor: wire::Place,
    pub highest: wire::Place,
    pub last: (u32, u64),
    /// Everything applied, in order.
    pub events: Vec<Event>,
    /// Written and without a final answer.
    pub outbox: BTreeMap<u64, (UserId, Vec<u8>)>,
    pub next_no: u64,
    /// Numbers refused for good.
    pub refused: Vec<(u64, ErrorCode)>,
    pub acked: Vec<wire::SendAck>,
    pub welcome: Option<wire::Welcome>,
    pub close: Option<wire::Close>,
    pub window_events: u32,
    /// What else came.
    pub others: Vec<(Kind, Vec<u8>)>,
    /// Times the sequence of events had a hole.
    pub holes: usize,
    pub acks: bool,
    /// All sends are to be repeated.
    go_back: bool,
}

pub fn opening() -> Option<wire::Opening> {
    let client = String::from("peer");
    Some(wire::Opening { magic: MAGIC, version: PROTOCOL_VERSION, capabilities: 0, client })
}

impl Peer {
    pub fn new(token: Vec<u8>) -> Peer {
        Peer {
            token,
            link: None,
            connect_no: 0,
            cursor: wire::Place::default(),
            highest: wire::Place::default(),
            last: (0, 0),
            events: Vec::new(),
            outbox: BTreeMap::new(),
            next_no: 1,
            refused: Vec::new(),
            acked: Vec::new(),
            welcome: None,
            close: None,
            window_events: 0,
            others: Vec::new(),
            holes: 0,
            acks: true,
            go_back: false,
        }
    }

    pub fn hello(&mut self) -> Vec<u8> {
        self.connect_no += 1;
        let hello = wire::Hello {
            opening: opening(),
            token: self.token.clone().into(),
            connect_no: self.connect_no,
            cursor: Some(self.cursor),
            highest: Some(self.highest),
            last_epoch: self.last.0,
            last_tag: self.last.1,
            window_events: self.window_events,
            ..Default::default()
        };
        let mut bytes = Vec::new();
        append_frame(&mut bytes, Kind::Hello, &hello);
        bytes
    }

    /// Connects, greets, and repeats in the same flight what has no answer yet.
    pub fn connect(&mut self, world: &mut World) {
        if let Some(link) = self.link.take() {
            world.cut(link);
            world.links[link].to_peer.clear();
        }
        (self.welcome, self.close, self.go_back) = (None, None, false);
        let link = world.connect();
        let mut flight = self.hello();
        flight.extend(self.sends_from(0));
        world.send(link, &flight);
        self.link = Some(link);
    }

    fn sends_from(&self, number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let oldest = self.outbox.keys().next().copied().unwrap_or(self.next_no);
        for (&send_no, (to, content)) in self.outbox.range(number..) {
            let send = wire::Send {
                send_no,
                nonce: send_no * 1_000 + u64::from(to.0),
                oldest,
                content: content.clone().into(),
                to: Some(wire::send::To::User(to.0)),
                ..Default::default()
            };
            append_frame(&mut bytes, Kind::Send, &send);
        }
        bytes
    }

    /// Writes a message.
    pub fn write(&mut self, world: &mut World, to: UserId, content: &[u8]) -> u64 {
        let number = self.next_no;
        self.next_no += 1;
        self.outbox.insert(number, (to, content.to_vec()));
        if let Some(link) = self.link {
            let bytes = self.sends_from(number);
            world.send(link, &bytes);
        }
        number
    }

    pub fn frame<M: prost::Message>(&self, world: &mut World, kind: Kind, body: &M) {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, kind, body);
        world.send(self.link.expect("connected"), &bytes);
    }

    pub fn ping(&self, world: &mut World) {
        let mut bytes = Vec::new();
        append_ping(&mut bytes);
        world.send(self.link.expect("connected"), &bytes);
    }

    /// Looks at what came, and answers. Says how many frames that were.
    pub fn look(&mut self, world: &mut World) -> usize {
        let Some(link) = self.link else { return 0 };
        let before = self.cursor.seq;
        let frames = world.frames(link);
        let count = frames.len();
        for (kind, body) in frames {
            match kind {
                Kind::Welcome => {
                    let welcome = wire::Welcome::decode(&body[..]).unwrap();
                    self.last = (welcome.epoch, welcome.tag);
                    self.welcome = Some(welcome);
                }
                Kind::Close => self.close = Some(wire::Close::decode(&body[..]).unwrap()),
                Kind::SendAck => {
                    let ack = wire::SendAck::decode(&body[..]).unwrap();
                    if self.outbox.remove(&ack.send_no).is_some() {
                        self.acked.push(ack);
                    }
                }
                Kind::SendRefused => {
                    let refused = wire::SendRefused::decode(&body[..]).unwrap();
                    let code = ErrorCode::from_number(refused.code).unwrap();
                    if code.retryable() {
                        self.go_back = true;
                    } else if self.outbox.remove(&refused.send_no).is_some() {
                        self.refused.push((refused.send_no, code));
                    }
                }
                Kind::Events => {
                    let events = wire::Events::decode(&body[..]).unwrap();
                    for event in events.events {
                        if event.seq == self.cursor.seq + 1 {
                            self.cursor = wire::Place { seq: event.seq, epoch: event.epoch };
                            self.highest = self.cursor;
                            self.events.push(event);
                        } else if event.seq > self.cursor.seq {
                            self.holes += 1;
                        }
                    }
                }
                Kind::Pong => {}
                _ => self.others.push((kind, body)),
            }
        }
        if self.acks && self.cursor.seq > before {
            self.frame(world, Kind::Ack, &wire::Ack { cursor: Some(self.cursor) });
        }
        count
    }

    /// Repeats, in order, what was refused retryably.
    pub fn retry(&mut self, world: &mut World) {
        if std::mem::take(&mut self.go_back)
            && let Some(link) = self.link
        {
            let bytes = self.sends_from(0);
            world.send(link, &bytes);
        }
    }

    /// The messages applied, as (sender, send_no).
    pub fn messages(&self) -> Vec<(u32, u64)> {
        let message = |event: &Event| match &event.kind {
            Some(wire::event::Kind::Message(message)) => Some((message.sender, message.send_no)),
            _ => None,
        };
        self.events.iter().filter_map(message).collect()
    }

    /// The receipts applied, as (user, seq).
    pub fn receipts(&self) -> Vec<(u32, u64)> {
        let receipt = |event: &Event| match &event.kind {
            Some(wire::event::Kind::Delivered(told)) => Some((told.user, told.seq)),
            _ => None,
        };
        self.events.iter().filter_map(receipt).collect()
    }

    pub fn code(&self) -> Option<ErrorCode> {
        self.close.as_ref().and_then(|close| ErrorCode::from_number(close.code))
    }
}

/// Lets peers and engines talk until all is said.
pub fn talk(world: &mut World, peers: &mut [&mut Peer]) {
    loop {
        world.run();
        let frames: usize = peers.iter_mut().map(|peer| peer.look(world)).sum();
        if frames == 0 {
            return;
        }
    }
}
