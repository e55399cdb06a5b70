//! A connection that speaks frames and nothing more: what a test wants to say, right or wrong.

use super::PATIENCE;
use bytes::Bytes;
use prost::Message;
use starling_codec::{
    Decoded, ErrorCode, Kind, MAGIC, PROTOCOL_VERSION, append_frame, append_header, decode_frame,
    limits::MAX_LARGE_FRAME_BYTES, wire,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

pub struct Wire {
    pub stream: TcpStream,
    input: Vec<u8>,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire { stream, input: Vec::new() }
    }

    pub fn send<M: Message>(&mut self, kind: Kind, body: &M) {
        let mut frame = Vec::new();
        append_frame(&mut frame, kind, body);
        self.send_bytes(&frame);
    }

    /// A frame of any kind and body, known or not.
    pub fn send_bare(&mut self, kind: Kind) {
        let mut frame = Vec::new();
        append_header(&mut frame, kind, 0);
        self.send_bytes(&frame);
    }

    /// The server may have closed already: what it said is then still to be read.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame; `None` at the end.
    pub fn next(&mut self) -> Option<(Kind, Vec<u8>)> {
        loop {
            match decode_frame(&self.input, MAX_LARGE_FRAME_BYTES) {
                Decoded::Frame(raw) => {
                    let kind = Kind::from_number(raw.kind).expect("a kind the server may send");
                    let (body, size) = (raw.body.to_vec(), raw.size);
                    self.input.drain(..size);
                    return Some((kind, body));
                }
                Decoded::Reject(code) => panic!("the server sent a bad frame: {code}"),
                Decoded::NeedMore => {}
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer).expect("the server answers, or ends well") {
                0 => {
                    assert!(self.input.is_empty(), "the end within a frame");
                    return None;
                }
                bytes => self.input.extend_from_slice(&buffer[..bytes]),
            }
        }
    }

    /// The next frame, which must be of `kind`.
    pub fn expect<M: Message + Default>(&mut self, kind: Kind) -> M {
        let (found, body) = self.next().unwrap_or_else(|| panic!("the end, not {}", kind.name()));
        assert_eq!(found, kind, "{:?}", error_in(found, &body));
        M::decode(Bytes::from(body)).unwrap()
    }

    /// The next frame of `kind`, whatever comes before it.
    pub fn await_kind<M: Message + Default>(&mut self, kind: Kind) -> M {
        loop {
            let (found, body) =
                self.next().unwrap_or_else(|| panic!("the end, not {}", kind.name()));
            if found == kind {
                return M::decode(Bytes::from(body)).unwrap();
            }
        }
    }

    /// CLOSE and then the end; with which code.
    pub fn expect_close(&mut self) -> ErrorCode {
        let close: wire::Close = self.await_kind(Kind::Close);
        assert_eq!(self.next(), None);
        ErrorCode::from_number(close.code).expect("a code of the registry")
    }

    /// REFUSED or SEND_REFUSED next; with which code.
    pub fn expect_refused(&mut self) -> ErrorCode {
        let (kind, body) = self.next().expect("an answer");
        error_in(kind, &body).unwrap_or_else(|| panic!("{} is no refusal", kind.name()))
    }

    pub fn register(&mut self, name: &str, password: &str) -> wire::Grant {
        self.send(Kind::Register, &register(name, password));
        self.expect(Kind::Grant)
    }

    /// On a connection of the operator: the counters.
    pub fn counters(&mut self) -> Vec<wire::Counter> {
        self.send(Kind::Stats, &wire::Stats { request_id: 1 });
        self.expect::<wire::StatsPage>(Kind::StatsPage).counters
    }

    /// Greets with a token and all credit.
    pub fn hello(&mut self, token: &Bytes, connect_no: u64) -> wire::Welcome {
        self.send(Kind::Hello, &hello(token, connect_no));
        self.expect(Kind::Welcome)
    }
}

/// A counter over all its sources.
pub fn sum(counters: &[wire::Counter], name: &str, part: &str) -> u64 {
    let of_name = counters.iter().filter(|c| c.name == name && c.part == part);
    of_name.map(|counter| counter.value).sum()
}

fn error_in(kind: Kind, body: &[u8]) -> Option<ErrorCode> {
    let code = match kind {
        Kind::Refused => wire::Refused::decode(body).unwrap().code,
        Kind::SendRefused => wire::SendRefused::decode(body).unwrap().code,
        Kind::Close => wire::Close::decode(body).unwrap().code,
        _ => return None,
    };
    ErrorCode::from_number(code)
}

pub fn opening() -> Option<wire::Opening> {
    Some(wire::Opening {
        magic: MAGIC,
        version: PROTOCOL_VERSION,
        capabilities: 0,
        client: "wire test".into(),
    })
}

pub fn register(name: &str, password: &str) -> wire::Register {
    wire::Register {
        opening: opening(),
        name: name.into(),
        password: password.into(),
        platform: "test".into(),
    }
}

pub fn login(name: &str, password: &str) -> wire::Login {
    wire::Login {
        opening: opening(),
        name: name.into(),
        password: password.into(),
        device: 0,
        platform: "test".into(),
    }
}

pub fn hello(token: &Bytes, connect_no: u64) -> wire::Hello {
    wire::Hello {
        opening: opening(),
        token: token.clone(),
        connect_no,
        heartbeat_min_s: 20,
        heartbeat_max_s: 900,
        window_events: 256,
        window_bytes: 64 * 1024,
        ..wire::Hello::default()
    }
}

pub fn send_to(user: u32, send_no: u64, text: &str) -> wire::Send {
    let content = wire::Content {
        kind: Some(wire::content::Kind::Text(wire::Text { text: text.into() })),
        ..wire::Content::default()
    };
    wire::Send {
        send_no,
        nonce: send_no.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        oldest: send_no,
        to: Some(wire::send::To::User(user)),
        class: wire::Class::Durable as i32,
        content: content.encode_to_vec().into(),
        trace_id: 0,
    }
}
