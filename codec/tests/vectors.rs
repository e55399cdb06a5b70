//! The conformance vectors against this crate, and against the schema alone: the bodies of the
//! vectors are read by reflection, which shares no line with the generated code.

mod support;

use prost_reflect::{DynamicMessage, ReflectMessage, prost::Message};
use starling_codec::{
    Body, Decoded, Direction, ErrorCode, Kind, append_header, decode_frame, limits, wire,
};
use std::collections::BTreeSet;
use support::{Vector, all, body_type, hex, schema, to_json};

#[test]
fn bytes_become_what_the_vector_says() {
    for (file, vector) in all() {
        let what = format!("{file}: {}", vector.name);
        let bytes = vector.bytes();
        let expect = &vector.expect;
        match decode_frame(&bytes, vector.max_frame_bytes()) {
            Decoded::NeedMore => assert!(expect.incomplete, "{what}: incomplete"),
            Decoded::Reject(code) => {
                assert!(expect.kind.is_none(), "{what}: no frame");
                assert_eq!(expect.close.as_deref(), Some(code.name()), "{what}");
            }
            Decoded::Frame(raw) => {
                assert!(!expect.incomplete, "{what}: complete");
                // What looks like a frame by chance may have something behind it.
                assert!(raw.size == bytes.len() || expect.kind.is_none(), "{what}: {}", raw.size);
                let body = raw.known().and_then(|frame| frame.map(Body::decode).transpose());
                match body {
                    Err(code) => assert_eq!(expect.close.as_deref(), Some(code.name()), "{what}"),
                    Ok(None) => assert!(
                        expect.skipped || expect.close.as_deref() == Some("BAD_MAGIC"),
                        "{what}: unknown kind"
                    ),
                    Ok(Some(body)) => assert_eq!(vector.kind(), Some(body.kind()), "{what}"),
                }
            }
        }
    }
}

#[test]
fn bodies_read_as_the_vector_says_and_write_as_its_bytes() {
    let schema = schema();
    for (file, vector) in all() {
        let Some(kind) = vector.kind() else { continue };
        let what = format!("{file}: {}", vector.name);
        let bytes = vector.bytes();
        let Decoded::Frame(raw) = decode_frame(&bytes, usize::MAX) else { panic!("{what}") };

        // By the generated code.
        let body = Body::decode(raw.known().unwrap().unwrap()).unwrap();
        let mut written = Vec::new();
        body.append(&mut written);
        if vector.expect.exact {
            assert_eq!(hex(&written), hex(&bytes), "{what}");
        }
        if !kind.has_body() {
            continue;
        }

        // By the schema alone.
        let body_type = body_type(&schema, kind);
        let mut reflected = DynamicMessage::decode(body_type.clone(), raw.body).unwrap();
        drop_unknown(&mut reflected);
        if let Some(expected) = &vector.expect.body {
            assert_eq!(&to_json(&reflected), expected, "{what}");
            let from_json = DynamicMessage::deserialize(body_type, expected).unwrap();
            assert_eq!(frame(kind, &from_json), written, "{what}");
        }
        if vector.expect.exact {
            assert_eq!(frame(kind, &reflected), written, "{what}");
        }
        if let (Body::Send(send), Some(expected)) = (&body, &vector.content) {
            let content = schema.get_message_by_name("starling.v1.Content").unwrap();
            let mut content = DynamicMessage::decode(content, send.content.clone()).unwrap();
            drop_unknown(&mut content);
            assert_eq!(&to_json(&content), expected, "{what}");
        }
    }
}

fn frame(kind: Kind, body: &DynamicMessage) -> Vec<u8> {
    let body = body.encode_to_vec();
    let mut frame = Vec::new();
    append_header(&mut frame, kind, body.len());
    frame.extend_from_slice(&body);
    frame
}

/// The generated code ignores unknown fields, so they are ignored here too.
fn drop_unknown(message: &mut DynamicMessage) {
    let json = to_json(message);
    *message = DynamicMessage::deserialize(message.descriptor(), json).unwrap();
}

#[test]
fn every_field_of_every_body_is_in_a_vector() {
    let schema = schema();
    let mut shown = BTreeSet::new();
    let mut note = |message: &DynamicMessage| note_fields(message, &mut shown);
    for (_, vector) in all() {
        let Some(kind) = vector.kind().filter(|kind| kind.has_body()) else { continue };
        let bytes = vector.bytes();
        let Decoded::Frame(raw) = decode_frame(&bytes, usize::MAX) else { continue };
        note(&DynamicMessage::decode(body_type(&schema, kind), raw.body).unwrap());
        if let (Kind::Send, Some(_)) = (kind, &vector.content) {
            let send = wire::Send::decode(raw.body).unwrap();
            let content = schema.get_message_by_name("starling.v1.Content").unwrap();
            note(&DynamicMessage::decode(content, send.content).unwrap());
        }
    }
    // Reserved: nothing sends them yet.
    let reserved = ["starling.v1.Welcome.redirect", "starling.v1.Close.redirect"];
    let zero_in_version_1 = ["starling.v1.Welcome.capabilities"];
    for message in schema.all_messages() {
        for field in message.fields() {
            let name = field.full_name();
            let exempt = reserved.contains(&name) || zero_in_version_1.contains(&name);
            assert!(shown.contains(name) || exempt, "{name} is in no vector");
        }
    }
}

fn note_fields(message: &DynamicMessage, shown: &mut BTreeSet<String>) {
    for (field, value) in message.fields() {
        shown.insert(field.full_name().to_owned());
        let values = value.as_list().unwrap_or(std::slice::from_ref(value));
        for nested in values.iter().filter_map(|value| value.as_message()) {
            note_fields(nested, shown);
        }
    }
}

fn vectors_show(shows: impl Fn(&Vector) -> Vec<String>) -> BTreeSet<String> {
    all().iter().flat_map(|(_, vector)| shows(vector)).collect()
}

#[test]
fn every_kind_is_in_a_vector() {
    let shown = vectors_show(|vector| vector.expect.kind.iter().cloned().collect());
    for kind in Kind::ALL {
        assert!(shown.contains(kind.name()), "{} is in no vector", kind.name());
    }
}

#[test]
fn every_error_code_is_in_a_vector() {
    let named = vectors_show(|vector| vector.errors.clone());
    for code in ErrorCode::ALL {
        assert!(named.contains(code.name()), "{code} is in no vector");
    }
    // And the bytes say what the name says.
    for (_, vector) in all() {
        for name in &vector.errors {
            let bytes = vector.bytes();
            let Decoded::Frame(raw) = decode_frame(&bytes, usize::MAX) else { panic!("{name}") };
            let code = match Body::decode(raw.known().unwrap().unwrap()).unwrap() {
                Body::Close(close) => close.code,
                Body::Refused(refused) => refused.code,
                Body::SendRefused(refused) => refused.code,
                other => panic!("{name} in {other:?}"),
            };
            assert_eq!(ErrorCode::from_number(code).map(ErrorCode::name), Some(name.as_str()));
        }
    }
}

#[test]
fn every_limit_is_in_a_vector() {
    let shown = vectors_show(|vector| vector.limits.clone());
    for (name, _) in limits::ALL {
        assert!(shown.contains(*name), "{name} is in no vector");
    }
    for name in &shown {
        assert!(limits::ALL.iter().any(|(limit, _)| limit == name), "there is no limit {name}");
    }
}

#[test]
fn names_are_unique_and_codes_known() {
    let mut names = BTreeSet::new();
    for (file, vector) in all() {
        assert!(names.insert((file, vector.name.clone())), "{file}: {} twice", vector.name);
        for code in vector.expect.close.iter().chain(&vector.expect.refused) {
            let known = ErrorCode::ALL.iter().any(|known| known.name() == code);
            assert!(known, "{file}: {}: no code {code}", vector.name);
        }
    }
}

/// A vector with a state is sent by a client; what only a server sends is in one only to be
/// turned away.
#[test]
fn states_agree_with_directions() {
    for (file, vector) in all() {
        let Some(kind) = vector.kind() else { continue };
        let turned_away = vector.expect.close.as_deref() == Some("WRONG_STATE");
        let agrees = match kind.direction() {
            Direction::Both => true,
            Direction::Client => vector.state.is_some(),
            Direction::Server => vector.state.is_none() || turned_away,
        };
        assert!(agrees, "{file}: {}", vector.name);
    }
}
