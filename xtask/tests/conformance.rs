//! The engine does with the conformance vectors what they say. It is here because the vectors are
//! codec's, and codec knows no engine.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use starling_codec::{
    Answer, Body, Decoded, DeviceId, DeviceState, Epoch, EpochTag, Kind, MAGIC, PROTOCOL_VERSION,
    Place, Query, Resumption, SendWindow, Ticket, UserId, append_frame, decode_frame, limits, wire,
};
use starling_engine::{Effect, Engine, Identity, Keyring, Now, Settings};

const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_772_366_400_000 };
/// Whose the sessions are, as codec/vectors/README.md says.
const USER: UserId = UserId(7);
const OPERATOR_KEY: &[u8] = b"the key of this test";

#[derive(Deserialize)]
struct Vector {
    name: String,
    state: Option<String>,
    hex: Hex,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    close: Option<String>,
    refused: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Hex {
    Digits(String),
    Parts(Vec<Hex>),
    Run { byte: String, times: usize },
}

impl Hex {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Hex::Digits(digits) => (0..digits.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
                .collect(),
            Hex::Parts(parts) => parts.iter().flat_map(Hex::bytes).collect(),
            Hex::Run { byte, times } => Hex::Digits(byte.clone()).bytes().repeat(*times),
        }
    }
}

/// An engine with one connection.
struct Server {
    engine: Engine,
    ticket: Ticket,
    token: Vec<u8>,
}

impl Server {
    /// With a connection in a state of protocol-spec.md.
    fn in_state(state: &str) -> Server {
        let keyring = Keyring::new(1, &[7; 32]);
        let identity = Identity { user: USER, device: DeviceId(1), serial: 1 };
        let token = keyring.sign(identity, NOW.unix_ms / 1_000 + 3_600).to_vec();
        let settings = Settings {
            operator_key_hash: Sha256::digest(OPERATOR_KEY).into(),
            ..Settings::default()
        };
        let mut engine = Engine::new(settings, keyring, NOW);
        let ticket = engine.open(NOW).unwrap();
        let mut server = Server { engine, ticket, token };
        let opening =
            Some(wire::Opening { magic: MAGIC, version: PROTOCOL_VERSION, ..Default::default() });
        let (opener, answer) = match state {
            "OPENING" => return server,
            "SESSION" => {
                let token = server.token.clone().into();
                let hello = wire::Hello { opening, token, connect_no: 1, ..Default::default() };
                (Body::Hello(hello), Kind::Welcome)
            }
            "OPERATOR" => {
                let key = OPERATOR_KEY.into();
                (Body::Operator(wire::Operator { opening, key }), Kind::Done)
            }
            other => panic!("no vector is for the state {other}"),
        };
        let mut bytes = Vec::new();
        opener.append(&mut bytes);
        let answers = server.take(&bytes);
        assert_eq!(answers.iter().map(Body::kind).collect::<Vec<_>>(), [answer]);
        server
    }

    /// Bytes come from the client; what the server says to that. The store knows the user's
    /// device; other questions are not answered, so whatever is allowed waits.
    fn take(&mut self, bytes: &[u8]) -> Vec<Body> {
        self.engine.receive(NOW, self.ticket, bytes);
        self.engine.turn(NOW);
        while let Some(effect) = self.engine.next_effect() {
            if let Effect::Ask(origin, Query::Device { .. }) = effect {
                self.engine.answered(NOW, origin.key, Answer::Device(Some(device())));
                self.engine.turn(NOW);
            }
        }
        let output = self.engine.output(self.ticket).to_vec();
        self.engine.written(NOW, self.ticket, output.len());
        bodies(&output)
    }
}

fn device() -> DeviceState {
    DeviceState {
        serial: 1,
        cursor: Place::START,
        passed_seq: 0,
        window: SendWindow::default(),
        head: Place::START,
        epoch: Epoch(3),
        tag: EpochTag(9),
        resumption: Resumption::Continues,
    }
}

fn bodies(mut output: &[u8]) -> Vec<Body> {
    let mut bodies = Vec::new();
    while let Decoded::Frame(raw) = decode_frame(output, limits::MAX_LARGE_FRAME_BYTES) {
        bodies.push(Body::decode(raw.known().unwrap().unwrap()).unwrap());
        output = &output[raw.size..];
    }
    assert!(output.is_empty(), "the server writes whole frames");
    bodies
}

/// A vector's token is none of this server's: a true one takes its place.
fn with_true_token(bytes: Vec<u8>, token: &[u8]) -> Vec<u8> {
    let Decoded::Frame(raw) = decode_frame(&bytes, usize::MAX) else { return bytes };
    let Ok(Some(frame)) = raw.known() else { return bytes };
    match Body::decode(frame) {
        Ok(Body::Hello(mut hello)) => {
            hello.token = token.to_vec().into();
            let mut bytes = Vec::new();
            append_frame(&mut bytes, Kind::Hello, &hello);
            bytes
        }
        _ => bytes,
    }
}

/// Names of the codes by which a server ended or refused.
fn codes(bodies: &[Body]) -> (Option<&'static str>, Option<&'static str>) {
    let name = |code| starling_codec::ErrorCode::from_number(code).map(|code| code.name());
    let (mut closed, mut refused) = (None, None);
    for body in bodies {
        match body {
            Body::Close(close) => closed = name(close.code),
            Body::Refused(answer) => refused = name(answer.code),
            Body::SendRefused(answer) => refused = name(answer.code),
            _ => {}
        }
    }
    (closed, refused)
}

#[test]
fn the_engine_answers_every_vector_as_it_says() {
    let mut tried = 0;
    let folder = xtask::root().join("codec/vectors");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let vectors: Vec<Vector> = serde_json::from_str(&text).unwrap();
        for vector in vectors {
            let Some(state) = &vector.state else { continue };
            let mut server = Server::in_state(state);
            let mut bytes = vector.hex.bytes();
            if vector.expect.close.is_none() {
                bytes = with_true_token(bytes, &server.token);
            }
            let says = server.take(&bytes);
            let what = format!("{}: {}: {says:?}", path.display(), vector.name);
            let expected = (vector.expect.close.as_deref(), vector.expect.refused.as_deref());
            if expected.0.is_some() || !wrong_operator(&bytes) {
                assert_eq!(codes(&says), expected, "{what}");
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "only {tried} vectors were tried");
}

/// A vector's operator key is not this server's, and a key cannot be replaced as a token can.
fn wrong_operator(bytes: &[u8]) -> bool {
    match decode_frame(bytes, usize::MAX) {
        Decoded::Frame(raw) => raw.kind == Kind::Operator as u8,
        _ => false,
    }
}
