//! protocol-spec.md against the code: its tables, its schema and its worked example.
//!
//! `STARLING_BLESS=1 cargo test --release -p starling-codec --test spec` writes schema and example
//! anew; the tables are written by hand.

mod support;

use prost_reflect::DynamicMessage;
use serde_json::Value;
use starling_codec::{
    Body, ConversationId, Decoded, Direction, ErrorCode, Kind, MAGIC, MessageId, PROTOCOL_VERSION,
    UserId, decode_frame, limits,
    wire::{self, Class},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::PathBuf,
};
use support::{body_type, schema, to_json};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec.md")
}

fn spec() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// The rows of the table that has this header, as cells.
fn table(header: &str) -> Vec<Vec<String>> {
    table_behind(header, header)
}

/// The same of the first such table behind a line.
fn table_behind(line: &str, header: &str) -> Vec<Vec<String>> {
    let spec = spec();
    let mut lines =
        spec.lines().skip_while(|behind| *behind != line).skip_while(|line| *line != header);
    assert!(lines.next().is_some(), "no table {header}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().into()).collect())
        .collect()
}

/// The first columns of a table's rows.
fn columns(rows: &[Vec<String>], count: usize) -> Vec<Vec<&str>> {
    rows.iter().map(|row| row[..count].iter().map(String::as_str).collect()).collect()
}

#[test]
fn the_table_of_kinds_is_that_of_the_code() {
    let rows = table("| number | kind | sent by | body | what it is |");
    let expected: Vec<Vec<String>> = Kind::ALL
        .iter()
        .map(|kind| {
            let sent_by = match kind.direction() {
                Direction::Client => "client",
                Direction::Server => "server",
                Direction::Both => "both",
            };
            let body = if kind.has_body() { format!("{kind:?}") } else { "none".into() };
            vec![format!("0x{:02X}", *kind as u8), kind.name().into(), sent_by.into(), body]
        })
        .collect();
    assert_eq!(columns(&rows, 4), columns(&expected, 4));
    for kind in Kind::ALL.iter().filter(|kind| kind.has_body()) {
        assert_eq!(body_type(&schema(), *kind).name(), format!("{kind:?}"));
    }
}

#[test]
fn the_error_registry_is_that_of_the_code() {
    let rows = table("| number | name | class | retryable | meaning | what the client does |");
    let expected: Vec<Vec<String>> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let retryable = if code.retryable() { "yes" } else { "no" };
            let number = (*code as u16).to_string();
            vec![number, code.name().into(), code.blame().name().into(), retryable.into()]
        })
        .collect();
    assert_eq!(columns(&rows, 4), columns(&expected, 4));
    assert!(rows.iter().all(|row| row.len() == 6 && row.iter().all(|cell| !cell.is_empty())));
}

/// Of an engine under test, no other code is heard in a CLOSE: engine/tests/world sees to that.
#[test]
fn the_reasons_for_closing_are_those_of_the_vectors() {
    let rows = table("| code of CLOSE | when |");
    let told: Vec<&str> = rows.iter().flat_map(|row| row[0].split(", ")).collect();
    let closing = support::all().into_iter().filter(|(_, vector)| {
        vector.kind() == Some(Kind::Close) && vector.expect.refused.is_none()
    });
    let said: BTreeSet<&str> = closing
        .filter_map(|(_, vector)| vector.expect.body?["code"].as_u64())
        .map(|code| ErrorCode::from_number(code as u32).expect("a code of the registry").name())
        .collect();
    assert_eq!(told.len(), said.len(), "one stands there twice, or one is missing");
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), said);
}

/// The words of a cell that are set as code.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(Into::into).collect()
}

/// The fields of a message of the schema, but for `opening`, which is told once for all openers.
fn fields(message: &str) -> BTreeSet<String> {
    let message = schema().get_message_by_name(&format!("starling.v1.{message}")).expect(message);
    let names = message.fields().map(|field| field.name().to_owned());
    names.filter(|name| name != "opening").collect()
}

#[test]
fn the_tables_of_fields_are_those_of_the_schema() {
    let tables = [
        ("Every opener begins with `opening`:", "| field | meaning |", "Opening"),
        ("### HELLO", "| field | meaning |", "Hello"),
        ("### WELCOME", "| field | meaning |", "Welcome"),
        ("## 6. Accounts", "| field of GRANT | meaning |", "Grant"),
        ("## 7. Sending", "| field of SEND | meaning |", "Send"),
        ("## 9. Events", "| field of Event | meaning |", "Event"),
        ("## 12. Contents", "| field | meaning |", "Content"),
    ];
    for (line, header, message) in tables {
        let rows = table_behind(line, header);
        let told: BTreeSet<String> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
        assert_eq!(told, fields(message), "{message}");
    }
}

#[test]
fn the_table_of_accounts_tells_every_field_of_its_frames() {
    let rows = table("| frame | answer |");
    let frames: Vec<&str> = rows.iter().map(|row| row[0].split(' ').next().unwrap()).collect();
    assert_eq!(frames, ["REGISTER", "LOGIN", "CHANGE_PASSWORD", "REFRESH", "LOGOUT"]);
    for (row, name) in rows.iter().zip(frames) {
        let kind = Kind::ALL.iter().find(|kind| kind.name() == name).expect(name);
        let mut expected = fields(&format!("{kind:?}"));
        // Of all requests, section 11.
        expected.remove("request_id");
        assert_eq!(quoted(&row[0]), expected, "{name}");
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let rows = table("| name | value | meaning |");
    let expected: Vec<Vec<String>> = limits::ALL
        .iter()
        .map(|(name, value)| vec![(*name).to_owned(), value.to_string()])
        .collect();
    assert_eq!(columns(&rows, 2), columns(&expected, 2));
}

#[test]
fn the_classes_are_those_of_the_code() {
    let rows = table("| number | class | acknowledged when | survives |");
    let classes = [Class::Durable, Class::Buffered, Class::Replicated];
    let expected: Vec<Vec<String>> = classes
        .iter()
        .map(|class| vec![(*class as i32).to_string(), class.as_str_name().to_owned()])
        .collect();
    assert_eq!(columns(&rows, 2), columns(&expected, 2));
    assert!(Class::try_from(rows.len() as i32).is_err(), "a class that the table lacks");
}

/// What is reserved must not be in use, and what is in use not reserved.
#[test]
fn no_kind_is_where_it_is_reserved() {
    let mut reserved = Vec::new();
    for row in table("| kinds | for |") {
        for range in row[0].split(", ") {
            let (first, last) = range.split_once(" to ").unwrap_or((range, range));
            let number = |text: &str| u8::from_str_radix(&text[2..], 16).unwrap();
            reserved.extend(number(first)..=number(last));
        }
    }
    for number in 0..=u8::MAX {
        let known = Kind::from_number(number).is_some();
        assert_ne!(known, reserved.contains(&number), "0x{number:02X}");
    }
}

/// The sections that a cell names at its beginning: "section 5", "sections 8, 9: ...".
fn sections(cell: &str) -> Vec<String> {
    let Some(rest) = cell.strip_prefix("section") else { return Vec::new() };
    let rest = rest.strip_prefix('s').unwrap_or(rest);
    let numbers = rest.split([':', ';']).next().unwrap_or_default();
    numbers.split(',').map(|number| number.trim().to_owned()).collect()
}

/// A section from its heading to the next.
fn section(number: &str) -> String {
    let spec = spec();
    let begin = spec.find(&format!("\n## {number}. ")).expect(number) + 1;
    let end = spec[begin..].find("\n## ").expect("an appendix follows");
    spec[begin..begin + end].to_owned()
}

/// Every duty is done, or what it will take is reserved; and where the text says that it tells of
/// it, it does.
#[test]
fn the_duties_are_where_their_table_says() {
    let rows = table("| duty | in version 1 | reserved |");
    let duties: Vec<&Vec<String>> =
        rows.iter().filter(|row| row[0].starts_with(|c: char| c.is_ascii_digit())).collect();
    let numbers: Vec<usize> =
        duties.iter().map(|row| row[0].split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=25).collect::<Vec<_>>());
    for row in duties {
        let [duty, now, reserved] = &row[..] else { panic!("three cells: {row:?}") };
        let sections = [sections(now), sections(reserved)].concat();
        assert!(!sections.is_empty(), "{duty} points nowhere");
        let text: String = sections.iter().map(|number| section(number)).collect();
        let told = |word: &&str| {
            word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        let words = now.split(|c: char| !c.is_alphanumeric() && c != '_').filter(told);
        for word in words.map(str::to_owned).chain(quoted(now)) {
            assert!(text.contains(&word), "{duty}: {word} is not in sections {sections:?}");
        }
        for (at, _) in reserved.match_indices("0x") {
            let number = u8::from_str_radix(&reserved[at + 2..at + 4], 16).unwrap();
            assert!(Kind::from_number(number).is_none(), "{duty}: 0x{number:02X} is in use");
        }
    }
}

#[test]
fn every_message_of_the_schema_is_in_the_appendix() {
    let schema = include_str!("../proto/starling.proto");
    fenced("```proto", schema);
}

#[test]
fn the_worked_example_is_what_the_encoder_writes() {
    fenced("```text example", &example());
    fenced("```text send", &dissected_send());
}

/// The text between a fence and the next is `expected`; or becomes it, if that is asked for.
fn fenced(fence: &str, expected: &str) {
    let spec = spec();
    let start = spec.find(&format!("\n{fence}\n")).expect(fence) + fence.len() + 2;
    let end = start + spec[start..].find("```").expect("the end of the fence");
    if std::env::var_os("STARLING_BLESS").is_some() {
        // Others may be writing theirs: read, change and write in one go.
        static WRITING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _writing = WRITING.lock().unwrap();
        let spec = self::spec();
        let start = spec.find(&format!("\n{fence}\n")).expect(fence) + fence.len() + 2;
        let end = start + spec[start..].find("```").expect("the end of the fence");
        let text = format!("{}{expected}{}", &spec[..start], &spec[end..]);
        std::fs::write(path(), text).unwrap();
    } else {
        assert!(
            &spec[start..end] == expected,
            "what follows {fence} is not what it should be; see the head of this file:\n{expected}"
        );
    }
}

const ADA: UserId = UserId(1);
const BOB: UserId = UserId(2);
/// 2026-03-01T12:00:00Z.
const TIME_MS: u64 = 1_772_366_400_000;

fn opening() -> Option<wire::Opening> {
    let client = "example/1".to_owned();
    Some(wire::Opening { magic: MAGIC, version: PROTOCOL_VERSION, capabilities: 0, client })
}

/// As long as a token of this server is; what stands in it is nobody's business.
fn token() -> bytes::Bytes {
    (0..41).map(|byte| byte ^ 0xA5).collect()
}

fn send() -> wire::Send {
    use prost_reflect::prost::Message;
    let text = wire::Text { text: "hi".into() };
    let content =
        wire::Content { kind: Some(wire::content::Kind::Text(text)), ..Default::default() };
    wire::Send {
        send_no: 1,
        nonce: 0x0123_4567_89AB_CDEF,
        oldest: 1,
        to: Some(wire::send::To::User(BOB.0)),
        content: content.encode_to_vec().into(),
        ..Default::default()
    }
}

/// The frames of the example, each with who sends it.
fn conversation() -> Vec<(char, Body)> {
    let (epoch, tag) = (1, 0x0F1E_2D3C_4B5A_6978);
    let message = wire::Message {
        conversation: ConversationId::direct(ADA, BOB).0,
        seq: 1,
        id: MessageId::new(TIME_MS, 0, 0).0,
        sender: ADA.0,
        device: 1,
        send_no: send().send_no,
        class: Class::Durable.into(),
        time_ms: TIME_MS,
        content: send().content,
        nonce: send().nonce,
    };
    let place = wire::Place { seq: 1, epoch };
    vec![
        (
            'C',
            Body::Register(wire::Register {
                opening: opening(),
                name: "Ada".into(),
                password: "correct horse".into(),
                platform: "linux".into(),
            }),
        ),
        (
            'S',
            Body::Grant(wire::Grant {
                request_id: 0,
                user: ADA.0,
                device: 1,
                token: token(),
                expires_ms: TIME_MS + 30 * 24 * 60 * 60 * 1_000,
                name: "ada".into(),
            }),
        ),
        (
            'C',
            Body::Hello(wire::Hello {
                opening: opening(),
                token: token(),
                connect_no: 1,
                heartbeat_min_s: 20,
                heartbeat_max_s: 300,
                window_events: 256,
                window_bytes: 256 * 1024,
                ..Default::default()
            }),
        ),
        ('C', Body::Send(send())),
        (
            'S',
            Body::Welcome(wire::Welcome {
                version: PROTOCOL_VERSION,
                user: ADA.0,
                device: 1,
                time_ms: TIME_MS,
                epoch,
                tag,
                limits: Some(wire::Limits {
                    max_frame_bytes: limits::MAX_FRAME_BYTES as u32,
                    max_content_bytes: limits::MAX_CONTENT_BYTES as u32,
                    max_history_page: limits::MAX_HISTORY_PAGE,
                    max_sends_in_flight: limits::MAX_SEND_SPAN as u32 + 1,
                    sends_per_second: 0,
                    max_requests_in_flight: limits::MAX_REQUESTS_IN_FLIGHT as u32,
                }),
                heartbeat_s: 30,
                head: Some(wire::Place::default()),
                window: Some(wire::SendWindow::default()),
                resumed: true,
                ..Default::default()
            }),
        ),
        (
            'S',
            Body::SendAck(wire::SendAck {
                send_no: 1,
                id: message.id,
                conversation: message.conversation,
                seq: 1,
                place: Some(place),
                time_ms: TIME_MS,
                class: Class::Durable.into(),
            }),
        ),
        (
            'S',
            Body::Events(wire::Events {
                events: vec![wire::Event {
                    seq: 1,
                    epoch,
                    prev: 0,
                    kind: Some(wire::event::Kind::Message(message)),
                }],
                head: 0,
            }),
        ),
        ('C', Body::Ack(wire::Ack { cursor: Some(place) })),
        ('C', Body::Ping(())),
        ('S', Body::Pong(())),
        ('C', Body::Dishello(())),
    ]
}

fn example() -> String {
    let schema = schema();
    let mut text = String::new();
    for (who, body) in conversation() {
        let mut frame = Vec::new();
        body.append(&mut frame);
        let Decoded::Frame(raw) = decode_frame(&frame, limits::MAX_FRAME_BYTES) else {
            panic!("{body:?}")
        };
        let kind = body.kind();
        let json = if kind.has_body() {
            let body = DynamicMessage::decode(body_type(&schema, kind), raw.body).unwrap();
            sorted(to_json(&body)).to_string()
        } else {
            String::new()
        };
        let line = format!("{who} {} {json}", kind.name());
        text.push_str(&fold(line.trim_end()));
        for line in frame.chunks(32) {
            writeln!(text, "    {}", spaced(line)).unwrap();
        }
    }
    text
}

/// By name, whatever order the features of serde_json in this build keep.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let fields: BTreeMap<String, Value> =
                object.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(values) => values.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// Breaks a line after commas, so that it fits a page.
fn fold(line: &str) -> String {
    let (mut text, mut width) = (String::new(), 0);
    for part in line.split_inclusive(',') {
        if width > 0 && width + part.len() > 110 {
            text.push_str("\n  ");
            width = 2;
        }
        text.push_str(part);
        width += part.len();
    }
    text + "\n"
}

fn spaced(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

/// The SEND of the example, field by field.
fn dissected_send() -> String {
    let mut frame = Vec::new();
    Body::Send(send()).append(&mut frame);
    let mut text = String::new();
    let mut line = |bytes: &[u8], meaning: &str| {
        writeln!(text, "{:<27}{meaning}", spaced(bytes)).unwrap();
    };
    line(&frame[..1], &format!("length {}", frame.len() - 1));
    line(&frame[1..2], "kind 0x10: SEND");
    let fields = [
        (2, "field 1, varint: send_no = 1"),
        (9, "field 2, fixed64: nonce = 0x0123456789abcdef"),
        (2, "field 3, varint: oldest = 1"),
        (2, "field 4, varint: user = 2"),
        (2, "field 7, 6 bytes: content, which is an encoded Content:"),
        (2, "  field 1, 4 bytes: text, which is an encoded Text:"),
        (4, "    field 1, 2 bytes: text = \"hi\""),
    ];
    let mut at = 2;
    for (size, meaning) in fields {
        line(&frame[at..at + size], meaning);
        at += size;
    }
    assert_eq!(at, frame.len(), "every byte is told");
    text
}
