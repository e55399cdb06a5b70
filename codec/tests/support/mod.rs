//! The conformance vectors, read from their files.
#![allow(dead_code)] // Each test uses a part of it.

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::Deserialize;
use starling_codec::{Kind, limits};
use std::path::Path;

/// The files in codec/vectors/.
pub const FILES: &[&str] =
    &["kinds", "contents", "errors", "limits", "malformed", "lenient", "states"];

/// One vector; codec/vectors/README.md says what its fields mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    pub name: String,
    #[serde(default)]
    pub note: String,
    pub state: Option<String>,
    #[serde(default)]
    pub limits: Vec<String>,
    #[serde(default)]
    pub errors: Vec<String>,
    hex: Hex,
    pub content: Option<serde_json::Value>,
    pub expect: Expect,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    pub incomplete: bool,
    pub skipped: bool,
    pub kind: Option<String>,
    pub body: Option<serde_json::Value>,
    #[serde(default = "yes")]
    pub exact: bool,
    pub refused: Option<String>,
    pub close: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Hex {
    Digits(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Part {
    Digits(String),
    Run { byte: String, times: usize },
}

impl Vector {
    pub fn bytes(&self) -> Vec<u8> {
        match &self.hex {
            Hex::Digits(digits) => unhex(digits),
            Hex::Parts(parts) => parts
                .iter()
                .flat_map(|part| match part {
                    Part::Digits(digits) => unhex(digits),
                    Part::Run { byte, times } => unhex(byte).repeat(*times),
                })
                .collect(),
        }
    }

    /// The largest frame that may come where this one comes, in bytes.
    pub fn max_frame_bytes(&self) -> usize {
        match self.state.as_deref() {
            Some("OPENING") => limits::MAX_OPENING_FRAME_BYTES,
            Some("SESSION") => limits::MAX_FRAME_BYTES,
            Some("OPERATOR") | None => limits::MAX_LARGE_FRAME_BYTES,
            Some(other) => panic!("{}: no state {other}", self.name),
        }
    }

    /// The kind of the frame, if it is one.
    pub fn kind(&self) -> Option<Kind> {
        let name = self.expect.kind.as_deref()?;
        let kind = Kind::ALL.iter().find(|kind| kind.name() == name);
        Some(*kind.unwrap_or_else(|| panic!("{}: no kind {name}", self.name)))
    }
}

/// All vectors of all files, each with the name of its file.
pub fn all() -> Vec<(&'static str, Vector)> {
    FILES
        .iter()
        .flat_map(|&file| read(file).into_iter().map(move |vector| (file, vector)))
        .collect()
}

pub fn read(file: &str) -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}.json: {error}"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "half a byte: {digits}");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// The schema, as the build script compiled it.
pub fn schema() -> DescriptorPool {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schema.bin"));
    DescriptorPool::decode(bytes).unwrap()
}

/// The message of a kind is named as the kind: SEND_ACK has SendAck.
pub fn body_type(schema: &DescriptorPool, kind: Kind) -> MessageDescriptor {
    schema.get_message_by_name(&format!("starling.v1.{kind:?}")).unwrap()
}

/// The canonical JSON of protobuf, with the schema's own names of fields.
pub fn to_json(message: &DynamicMessage) -> serde_json::Value {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}
