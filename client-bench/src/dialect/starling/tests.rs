//! A peer, fed what a server says.

use super::*;

#[derive(Default)]
struct Heard {
    ready: usize,
    acknowledged: Vec<u64>,
    delivered: Vec<Vec<u8>>,
    put_off: Vec<(u64, u64)>,
    gaps: usize,
}

impl Ear for Heard {
    fn ready(&mut self) {
        self.ready += 1;
    }
    fn acknowledged(&mut self, sequence: u64, _durable: bool) {
        self.acknowledged.push(sequence);
    }
    fn delivered(&mut self, payload: &[u8]) {
        self.delivered.push(payload.to_vec());
    }
    fn put_off(&mut self, sequence: u64, after_ms: u64) {
        self.put_off.push((sequence, after_ms));
    }
    fn gap(&mut self) {
        self.gaps += 1;
    }
}

fn dialect() -> Starling {
    let mut users = Roster::with_room(2);
    for user in [1, 2] {
        let cursor = Place::new(10, Epoch(1));
        users.push((user, 1), &[7; 50], cursor, (Epoch(1), EpochTag(5)));
    }
    Starling::new(users, 2, Class::Buffered, (20, 60))
}

fn frames(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = bytes;
    let mut frames = Vec::new();
    while let Decoded::Frame(frame) = decode_frame(rest, limits::MAX_LARGE_FRAME_BYTES) {
        frames.push((frame.kind, frame.body.to_vec()));
        rest = &rest[frame.size..];
    }
    assert!(rest.is_empty());
    frames
}

fn event(seq: u64, prev: u64, payload: &[u8]) -> wire::Event {
    let content = wire::Content {
        kind: Some(wire::content::Kind::Opaque(payload.to_vec().into())),
        ..Default::default()
    };
    let mut encoded = Vec::new();
    append_frame(&mut encoded, Kind::Ping, &content);
    let content = encoded[2..].to_vec().into();
    let message = wire::Message { conversation: 9, seq, sender: 1, content, ..Default::default() };
    wire::Event { seq, epoch: 1, prev, kind: Some(wire::event::Kind::Message(message)) }
}

fn welcome(head: u64) -> wire::Welcome {
    wire::Welcome {
        epoch: 1,
        tag: 5,
        heartbeat_s: 20,
        head: Some(wire::Place { seq: head, epoch: 1 }),
        window: Some(wire::SendWindow { highest: 41, bitmap: 0 }),
        ..Default::default()
    }
}

#[test]
fn a_send_is_what_the_generated_type_reads() {
    let mut dialect = dialect();
    let mut out = Vec::new();
    let mut peer = dialect.open(0, Side::Sender, false, &mut out);
    let hello = frames(&out);
    assert_eq!(hello[0].0, Kind::Hello as u8);
    let mut heard = Heard::default();
    dialect.welcomed(&mut peer, &welcome(10), &mut heard);
    assert_eq!(heard.ready, 1);
    out.clear();
    dialect.send(&mut peer, 0, 2, 99, &[5; 200], &mut out);
    let sent = frames(&out);
    let frame = Frame { kind: Kind::Send, body: &sent[0].1 };
    let send: wire::Send = frame.body().unwrap();
    assert_eq!((send.send_no, send.oldest, send.nonce), (44, 42, 99));
    assert_eq!(send.class, wire::Class::Buffered as i32);
    assert_eq!(send.to, Some(wire::send::To::User(2)));
    assert_eq!(view::opaque(&send.content), [5; 200]);
}

#[test]
fn a_receiver_applies_drops_and_asks() {
    let mut dialect = dialect();
    let mut peer = dialect.open(0, Side::Receiver, false, &mut Vec::new());
    let (mut heard, mut input, mut out) = (Heard::default(), Vec::new(), Vec::new());
    append_frame(&mut input, Kind::Welcome, &welcome(11));
    let old = wire::Events { events: vec![event(11, 0, b"old")], head: 0 };
    let live = wire::Events { events: vec![event(11, 0, b"old"), event(12, 11, b"a")], head: 0 };
    let torn = wire::Events { events: vec![event(14, 0, b"c")], head: 0 };
    append_frame(&mut input, Kind::Events, &old);
    append_frame(&mut input, Kind::Events, &live);
    append_frame(&mut input, Kind::Events, &torn);
    let consumed = dialect.read(&mut peer, &input, &mut out, &mut heard).unwrap();
    assert_eq!((consumed, heard.ready, heard.gaps), (input.len(), 1, 1));
    assert_eq!(heard.delivered, [b"a"]);
    assert_eq!(dialect.cursor(&peer).seq, 12);
    assert_eq!(frames(&out)[0].0, Kind::Sync as u8);
}

#[test]
fn a_message_that_is_missing_between_two_connections_is_a_gap() {
    let mut dialect = dialect();
    let (mut heard, mut out) = (Heard::default(), Vec::new());
    for (seq, prev, gaps) in [(11, 0, 0), (12, 0, 0), (14, 12, 1)] {
        // The inbox joins on each time; what is missing of it, the conversation tells.
        let mut peer = dialect.open(0, Side::Receiver, true, &mut Vec::new());
        dialect.welcomed(&mut peer, &welcome(seq), &mut heard);
        let events = wire::Events { events: vec![event(seq, prev, b"a")], head: 0 };
        let mut input = Vec::new();
        append_frame(&mut input, Kind::Events, &events);
        dialect.read(&mut peer, &input, &mut out, &mut heard).unwrap();
        assert_eq!(heard.gaps, gaps);
    }
    assert_eq!(heard.delivered.len(), 3);
}

#[test]
fn the_cursor_is_told_after_32_events_or_a_while() {
    let mut dialect = dialect();
    let mut peer = dialect.open(0, Side::Receiver, false, &mut Vec::new());
    let (mut heard, mut out) = (Heard::default(), Vec::new());
    dialect.welcomed(&mut peer, &welcome(10), &mut heard);
    dialect.tick(&mut peer, 1_000, &mut out);
    let mut feed = |peer: &mut StarlingPeer, from: u64, to: u64, out: &mut Vec<u8>| {
        let events = (from..=to).map(|seq| event(seq, 0, b"x")).collect();
        let mut input = Vec::new();
        append_frame(&mut input, Kind::Events, &wire::Events { events, head: 0 });
        dialect.read(peer, &input, out, &mut heard).unwrap();
    };
    feed(&mut peer, 11, 41, &mut out);
    assert!(out.is_empty());
    feed(&mut peer, 42, 42, &mut out);
    assert_eq!(frames(&out).len(), 1);
    out.clear();
    feed(&mut peer, 43, 43, &mut out);
    dialect.tick(&mut peer, 1_100, &mut out);
    assert!(out.is_empty());
    dialect.tick(&mut peer, 2_000, &mut out);
    assert_eq!(frames(&out)[0].0, Kind::Ack as u8);
    out.clear();
    dialect.tick(&mut peer, 2_100, &mut out);
    dialect.tick(&mut peer, 22_200, &mut out);
    assert_eq!(frames(&out), [(Kind::Ping as u8, vec![])]);
}

#[test]
fn the_cursor_is_told_after_a_quarter_of_the_window() {
    let mut dialect = dialect();
    let mut peer = dialect.open(0, Side::Receiver, false, &mut Vec::new());
    let (mut heard, mut out) = (Heard::default(), Vec::new());
    dialect.welcomed(&mut peer, &welcome(10), &mut heard);
    let quarter = WINDOW_BYTES as usize / 4;
    let mut bytes = 0;
    for seq in 11.. {
        let event = event(seq, 0, &[7; 15_000]);
        let mut input = Vec::new();
        append_frame(&mut input, Kind::Events, &event);
        bytes += frames(&input)[0].1.len();
        input.clear();
        append_frame(&mut input, Kind::Events, &wire::Events { events: vec![event], head: 0 });
        dialect.read(&mut peer, &input, &mut out, &mut heard).unwrap();
        if bytes >= quarter {
            break;
        }
        assert!(out.is_empty(), "{bytes} bytes");
    }
    assert_eq!(frames(&out)[0].0, Kind::Ack as u8);
}

#[test]
fn answers_may_come_in_any_order() {
    let mut peer = dialect().open(0, Side::Sender, false, &mut Vec::new());
    for (sequence, oldest) in [(1, 0), (0, 2), (3, 2), (3, 2), (2, 4)] {
        peer.answer(sequence);
        assert_eq!(peer.talk.as_ref().unwrap().oldest, oldest);
    }
    (4..68).rev().for_each(|sequence| peer.answer(sequence));
    assert_eq!(peer.talk.unwrap().oldest, 68);
}
