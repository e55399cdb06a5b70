//! The operator's connection: users in bulk, and the counters. It blocks: it is used before and
//! after a load, never during one.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use starling_codec::{
    Decoded, ErrorCode, Frame, Kind, MAGIC, PROTOCOL_VERSION, append_frame, decode_frame, limits,
    wire,
};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection of the operator.
pub struct Operator {
    stream: TcpStream,
    input: Vec<u8>,
    last_request: u32,
}

/// The server's counters, each named by its source without its number, its name and its part:
/// "committer syncs", "shard frames_in/SEND". Those of all shards are summed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters(pub BTreeMap<String, u64>);

impl Counters {
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What rose since `earlier`, and by how much.
    pub fn since(&self, earlier: &Counters) -> Counters {
        let risen = self.0.iter().filter_map(|(name, now)| {
            let rise = now.saturating_sub(earlier.get(name));
            (rise > 0).then(|| (name.clone(), rise))
        });
        Counters(risen.collect())
    }
}

/// What the first frame of this tool's connections begins with.
pub fn opening() -> wire::Opening {
    wire::Opening {
        magic: MAGIC,
        version: PROTOCOL_VERSION,
        capabilities: 0,
        client: concat!("starling-bench ", env!("CARGO_PKG_VERSION")).into(),
    }
}

impl Operator {
    /// Connects as who holds the key in `key_file`.
    ///
    /// # Errors
    /// No key, no server, or the key is not this server's.
    pub fn connect(server: SocketAddr, key_file: &Path) -> Result<Operator> {
        let key = std::fs::read_to_string(key_file)
            .with_context(|| format!("cannot read the operator's key {}", key_file.display()))?;
        let stream =
            TcpStream::connect(server).with_context(|| format!("no server at {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut operator = Operator { stream, input: Vec::new(), last_request: 0 };
        let body =
            wire::Operator { opening: Some(opening()), key: key.trim().as_bytes().to_vec().into() };
        let mut out = Vec::new();
        append_frame(&mut out, Kind::Operator, &body);
        operator.stream.write_all(&out)?;
        // Whatever is wrong with the key shows before anything is built on it.
        operator.counters()?;
        Ok(operator)
    }

    /// Makes users with these names, one device each.
    pub fn create_users(&mut self, names: Vec<String>) -> Result<Vec<wire::CreatedUser>> {
        let request_id = self.next_request();
        let body = wire::CreateUsers { request_id, names, token_lifetime_s: 0 };
        let mut out = Vec::new();
        append_frame(&mut out, Kind::CreateUsers, &body);
        self.stream.write_all(&out)?;
        self.answer(Kind::CreatedUsers, |frame| {
            let answer: wire::CreatedUsers = frame.body()?;
            Ok((answer.request_id == request_id).then_some(answer.users))
        })
    }

    /// The server's counters now.
    pub fn counters(&mut self) -> Result<Counters> {
        let request_id = self.next_request();
        let mut out = Vec::new();
        append_frame(&mut out, Kind::Stats, &wire::Stats { request_id });
        self.stream.write_all(&out)?;
        let page = self.answer(Kind::StatsPage, |frame| {
            let answer: wire::StatsPage = frame.body()?;
            Ok((answer.request_id == request_id).then_some(answer.counters))
        })?;
        let mut counters = Counters::default();
        for counter in page {
            let wire::Counter { name, part, source, value } = counter;
            let source = source.split(' ').next().unwrap_or_default();
            let slash = if part.is_empty() { "" } else { "/" };
            *counters.0.entry(format!("{source} {name}{slash}{part}")).or_default() += value;
        }
        Ok(counters)
    }

    fn next_request(&mut self) -> u32 {
        self.last_request += 1;
        self.last_request
    }

    /// Reads until `take` finds the answer in a frame of `kind`.
    fn answer<T>(
        &mut self,
        kind: Kind,
        take: impl Fn(&Frame<'_>) -> Result<Option<T>, ErrorCode>,
    ) -> Result<T> {
        let mut chunk = [0; 16 * 1024];
        loop {
            let mut consumed = 0;
            let mut found = None;
            while found.is_none() {
                let frame =
                    match decode_frame(&self.input[consumed..], limits::MAX_LARGE_FRAME_BYTES) {
                        Decoded::NeedMore => break,
                        Decoded::Reject(code) => bail!("the server sent no frame: {code}"),
                        Decoded::Frame(frame) => frame,
                    };
                consumed += frame.size;
                match frame.known()? {
                    Some(frame) if frame.kind == kind => found = take(&frame)?,
                    Some(frame) => refuse(&frame)?,
                    None => {}
                }
            }
            self.input.drain(..consumed);
            if let Some(found) = found {
                return Ok(found);
            }
            match self.stream.read(&mut chunk).context("the server does not answer")? {
                0 => bail!("the server closed the operator's connection"),
                count => self.input.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

/// An error if the frame is the server's no.
fn refuse(frame: &Frame<'_>) -> Result<()> {
    let code = match frame.kind {
        Kind::Refused => frame.body::<wire::Refused>()?.code,
        Kind::Close => frame.body::<wire::Close>()?.code,
        _ => return Ok(()),
    };
    bail!("the server refuses the operator: {}", error_name(code))
}

/// The name of an error, or its number.
pub fn error_name(code: u32) -> String {
    ErrorCode::from_number(code).map_or_else(|| format!("error {code}"), |code| code.to_string())
}
