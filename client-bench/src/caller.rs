//! A connection that blocks: for what is asked and answered one after the other, before, after or
//! instead of a load, and never beside one.

use anyhow::{Context, Result, bail};
use prost::Message;
use starling_codec::{Decoded, ErrorCode, Frame, Kind, append_frame, decode_frame, limits, wire};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const CHUNK_BYTES: usize = 64 * 1024;

/// One connection.
pub struct Caller {
    stream: TcpStream,
    /// What one read takes.
    chunk: Box<[u8]>,
    input: Vec<u8>,
    /// Bytes of `input` that were taken.
    consumed: usize,
    last_request: u32,
}

impl Caller {
    /// # Errors
    /// There is no server.
    pub fn connect(server: SocketAddr) -> Result<Caller> {
        let stream =
            TcpStream::connect(server).with_context(|| format!("no server at {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let chunk = vec![0; CHUNK_BYTES].into();
        Ok(Caller { stream, chunk, input: Vec::new(), consumed: 0, last_request: 0 })
    }

    /// Another number for a request on this connection.
    pub fn next_request(&mut self) -> u32 {
        self.last_request += 1;
        self.last_request
    }

    /// Sends one frame.
    pub fn tell<M: Message>(&mut self, kind: Kind, body: &M) -> Result<()> {
        let mut out = Vec::new();
        append_frame(&mut out, kind, body);
        self.send(&out)
    }

    /// Sends frames.
    pub fn send(&mut self, frames: &[u8]) -> Result<()> {
        self.stream.write_all(frames).context("the server takes nothing")
    }

    /// Reads until `take` finds the answer in a frame of `kind`.
    ///
    /// # Errors
    /// The server refuses, closes, or says nothing for long.
    pub fn answer<T>(
        &mut self,
        kind: Kind,
        take: impl Fn(&Frame<'_>) -> Result<Option<T>, ErrorCode>,
    ) -> Result<T> {
        loop {
            loop {
                let input = &self.input[self.consumed..];
                let frame = match decode_frame(input, limits::MAX_LARGE_FRAME_BYTES) {
                    Decoded::NeedMore => break,
                    Decoded::Reject(code) => bail!("the server sent no frame: {code}"),
                    Decoded::Frame(frame) => frame,
                };
                self.consumed += frame.size;
                match frame.known()? {
                    Some(frame) if frame.kind == kind => {
                        if let Some(found) = take(&frame)? {
                            return Ok(found);
                        }
                    }
                    Some(frame) => refuse(&frame)?,
                    None => {}
                }
            }
            self.input.drain(..self.consumed);
            self.consumed = 0;
            match self.stream.read(&mut self.chunk).context("the server does not answer")? {
                0 => bail!("the server closed the connection"),
                count => self.input.extend_from_slice(&self.chunk[..count]),
            }
        }
    }
}

/// An error if the frame is the server's no.
fn refuse(frame: &Frame<'_>) -> Result<()> {
    let code = match frame.kind {
        Kind::Refused => frame.body::<wire::Refused>()?.code,
        Kind::SendRefused => frame.body::<wire::SendRefused>()?.code,
        Kind::Close => frame.body::<wire::Close>()?.code,
        _ => return Ok(()),
    };
    bail!("the server refuses: {}", error_name(code))
}

/// The name of an error, or its number.
pub fn error_name(code: u32) -> String {
    ErrorCode::from_number(code).map_or_else(|| format!("error {code}"), |code| code.to_string())
}
