//! Any bytes as a stream: reading them never panics, a frame that is read lies in the input, a
//! known body that decodes survives being encoded and decoded again, and what its fields are
//! turned into takes every value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use starling_codec::{
    Body, Decoded, ErrorCode, Frame, Place, SendNo, SendWindow, decode_frame, limits,
};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    loop {
        match decode_frame(rest, limits::MAX_FRAME_BYTES) {
            Decoded::NeedMore => break,
            Decoded::Reject(code) => {
                assert!(matches!(code, ErrorCode::BadFrame | ErrorCode::FrameTooLarge));
                break;
            }
            Decoded::Frame(raw) => {
                assert!(raw.size <= rest.len() && raw.body.len() < limits::MAX_FRAME_BYTES);
                if let Ok(Some(frame)) = raw.known() {
                    read(frame);
                }
                rest = &rest[raw.size..];
            }
        }
    }
});

fn read(frame: Frame<'_>) {
    let Ok(body) = Body::decode(frame) else { return };
    assert_eq!(body.kind(), frame.kind);
    let once = encode(&body);
    let Decoded::Frame(raw) = decode_frame(&once, usize::MAX) else { panic!("{body:?}") };
    let again = Body::decode(raw.known().unwrap().unwrap()).expect("what was encoded decodes");
    // By their encodings, because a NaN in a body is not equal to itself.
    assert_eq!(encode(&again), once);

    if let Body::Welcome(welcome) = body {
        let window = SendWindow::from(welcome.window.unwrap_or_default());
        for below in 0..=SendWindow::WIDTH + 1 {
            window.standing(SendNo(window.highest().0.wrapping_sub(below)));
        }
        assert!(Place::from(welcome.head.unwrap_or_default()) >= Place::START);
    }
}

fn encode(body: &Body) -> Vec<u8> {
    let mut out = Vec::new();
    body.append(&mut out);
    out
}
