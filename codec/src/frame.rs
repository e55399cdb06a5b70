//! Frames: a varint length, a byte of kind, a body.

use crate::{ErrorCode, Kind, limits::MAX_LENGTH_BYTES};
use bytes::{BufMut, Bytes};
use prost::Message;

/// A frame whose kind this version knows. `body` borrows from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub body: &'a [u8],
}

/// A frame as it lies in the input, its kind not looked at yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    pub kind: u8,
    pub body: &'a [u8],
    /// Bytes of the whole frame, length prefix included.
    pub size: usize,
}

/// What the front of the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Not yet a whole frame.
    NeedMore,
    Frame(RawFrame<'a>),
    /// Not a frame; nothing after it can be read.
    Reject(ErrorCode),
}

/// Looks at the front of `input`. A frame (kind byte and body) larger than `max_bytes` is
/// rejected as soon as its length is known, before anything is kept for it.
pub fn decode_frame(input: &[u8], max_bytes: usize) -> Decoded<'_> {
    let mut length = 0usize;
    for index in 0..MAX_LENGTH_BYTES {
        let Some(byte) = input.get(index) else { return Decoded::NeedMore };
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return decode_rest(input, index + 1, length, max_bytes);
        }
    }
    Decoded::Reject(ErrorCode::BadFrame)
}

fn decode_rest(input: &[u8], start: usize, length: usize, max_bytes: usize) -> Decoded<'_> {
    if length == 0 {
        return Decoded::Reject(ErrorCode::BadFrame);
    }
    if length > max_bytes {
        return Decoded::Reject(ErrorCode::FrameTooLarge);
    }
    match input.get(start..start + length) {
        Some([kind, body @ ..]) => {
            Decoded::Frame(RawFrame { kind: *kind, body, size: start + length })
        }
        _ => Decoded::NeedMore,
    }
}

impl<'a> RawFrame<'a> {
    /// The frame, or `None` if the kind is one to skip. A compressed frame is an error in
    /// version 1, which never agrees to compress.
    pub fn known(self) -> Result<Option<Frame<'a>>, ErrorCode> {
        if self.kind & Kind::COMPRESSED != 0 {
            return Err(ErrorCode::BadFrame);
        }
        Ok(Kind::from_number(self.kind).map(|kind| Frame { kind, body: self.body }))
    }
}

impl Frame<'_> {
    /// The body as its message.
    pub fn body<M: Message + Default>(&self) -> Result<M, ErrorCode> {
        M::decode(self.body).map_err(|_| ErrorCode::BadFrame)
    }

    /// The body as its message, whose contents share `input` instead of being copied. So they
    /// keep all of it: for who reads a few large frames, not for who keeps small contents long.
    ///
    /// # Panics
    /// If the frame was not decoded from `input`.
    pub fn body_within<M: Message + Default>(&self, input: &Bytes) -> Result<M, ErrorCode> {
        M::decode(input.slice_ref(self.body)).map_err(|_| ErrorCode::BadFrame)
    }
}

/// Appends a whole frame.
pub fn append_frame<M: Message>(out: &mut Vec<u8>, kind: Kind, body: &M) {
    let body_bytes = body.encoded_len();
    append_header(out, kind, body_bytes);
    // A Vec grows as needed, so encoding into it cannot run out of room.
    body.encode_raw(out);
}

/// Appends length prefix and kind of a frame whose body of `body_bytes` the caller appends.
pub fn append_header(out: &mut Vec<u8>, kind: Kind, body_bytes: usize) {
    prost::encoding::encode_varint(body_bytes as u64 + 1, out);
    out.put_u8(kind as u8);
}

pub fn append_ping(out: &mut Vec<u8>) {
    append_header(out, Kind::Ping, 0);
}

pub fn append_pong(out: &mut Vec<u8>) {
    append_header(out, Kind::Pong, 0);
}
