//! The dialect of Redis: a stream for every pair, XADD by the sender, XREAD BLOCK by the
//! receiver, pipelined.

use super::{Dialect, Ear, Side};
use anyhow::{Context, Result, bail};
use std::io::Write as _;

/// The most entries one XREAD asks for.
const READ_COUNT: usize = 1_000;
/// Nested arrays of an XREAD: streams, entries, an entry, its fields.
const MAX_DEPTH: usize = 6;

/// Speaks RESP2 to a Redis.
#[derive(Debug)]
pub struct Redis {
    run: u64,
}

/// One connection.
#[derive(Debug)]
pub struct RedisPeer {
    side: Side,
    pair: usize,
    acknowledged: u64,
}

impl Redis {
    /// `run` makes the streams' names new.
    pub fn new(run: u64) -> Redis {
        Redis { run }
    }

    fn ask(&self, pair: usize, after: &[u8], out: &mut Vec<u8>) {
        let stream = self.stream(pair);
        append_command(
            out,
            &[
                b"XREAD",
                b"COUNT",
                READ_COUNT.to_string().as_bytes(),
                b"BLOCK",
                b"0",
                b"STREAMS",
                stream.as_bytes(),
                after,
            ],
        );
    }

    fn stream(&self, pair: usize) -> String {
        format!("{:x}:{pair}", self.run)
    }
}

fn append_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

impl Dialect for Redis {
    type Peer = RedisPeer;

    fn open(&mut self, pair: usize, side: Side, _again: bool, out: &mut Vec<u8>) -> RedisPeer {
        append_command(out, &[b"PING"]);
        if side == Side::Receiver {
            self.ask(pair, b"0", out);
        }
        RedisPeer { side, pair, acknowledged: 0 }
    }

    fn send(
        &mut self,
        _peer: &mut RedisPeer,
        pair: usize,
        _sequence: u64,
        _nonce: u64,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) {
        let stream = self.stream(pair);
        append_command(out, &[b"XADD", stream.as_bytes(), b"*", b"p", payload]);
    }

    fn read(
        &mut self,
        peer: &mut RedisPeer,
        bytes: &[u8],
        out: &mut Vec<u8>,
        ear: &mut impl Ear,
    ) -> Result<usize> {
        let mut rest = bytes;
        while let Some(end) = end_of_reply(rest, MAX_DEPTH)? {
            let reply = &rest[..end];
            rest = &rest[end..];
            match (reply.first(), peer.side) {
                (Some(b'+'), _) => ear.ready(),
                (Some(b'$'), Side::Sender) => {
                    ear.acknowledged(peer.acknowledged, true);
                    peer.acknowledged += 1;
                }
                (Some(b'*'), Side::Receiver) => {
                    let last = entries(reply, ear).context("XREAD answered nonsense")?;
                    self.ask(peer.pair, last, out);
                }
                _ => bail!("Redis answered {}", String::from_utf8_lossy(reply).trim()),
            }
        }
        Ok(bytes.len() - rest.len())
    }
}

/// Takes a line off the front: its type and what stands behind it.
fn take_line<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = input.split_at(end + 1);
    *input = rest;
    let (kind, text) = line.split_first()?;
    Some((*kind, text.strip_suffix(b"\r\n")?))
}

fn number(text: &[u8]) -> Option<i64> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Where the first reply of `input` ends; `None` if it is not all there.
fn end_of_reply(input: &[u8], depth: usize) -> Result<Option<usize>> {
    let mut rest = input;
    let Some((kind, text)) = take_line(&mut rest) else { return Ok(None) };
    let head = input.len() - rest.len();
    match kind {
        b'+' | b'-' | b':' => Ok(Some(head)),
        b'$' => {
            let length = number(text).context("Redis sent a length that is none")?;
            let end = if length < 0 { head } else { head + length as usize + 2 };
            Ok((end <= input.len()).then_some(end))
        }
        b'*' if depth > 0 => {
            let count = number(text).context("Redis sent a count that is none")?;
            let mut end = head;
            for _ in 0..count {
                let Some(item) = end_of_reply(&input[end..], depth - 1)? else { return Ok(None) };
                end += item;
            }
            Ok(Some(end))
        }
        _ => bail!("Redis sent what is not RESP"),
    }
}

/// Tells `ear` of every entry of an XREAD's whole reply, and gives the last entry's id.
fn entries<'a>(reply: &'a [u8], ear: &mut impl Ear) -> Option<&'a [u8]> {
    let mut rest = reply;
    // One stream: its name and its entries.
    take_count(&mut rest).filter(|count| *count == 1)?;
    take_count(&mut rest)?;
    let _name = take_bulk(&mut rest)?;
    let mut last = None;
    for _ in 0..take_count(&mut rest)? {
        // An entry: its id and its fields, here one.
        take_count(&mut rest)?;
        last = Some(take_bulk(&mut rest)?);
        take_count(&mut rest).filter(|count| *count == 2)?;
        let _field = take_bulk(&mut rest)?;
        ear.delivered(take_bulk(&mut rest)?);
    }
    last
}

fn take_count(input: &mut &[u8]) -> Option<i64> {
    match take_line(input)? {
        (b'*', text) => number(text),
        _ => None,
    }
}

fn take_bulk<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (b'$', text) = take_line(input)? else { return None };
    let length = usize::try_from(number(text)?).ok()?;
    let (bulk, rest) = input.split_at_checked(length)?;
    *input = rest.strip_prefix(b"\r\n")?;
    Some(bulk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Vec<Vec<u8>>);

    impl Ear for Heard {
        fn ready(&mut self) {}
        fn acknowledged(&mut self, _: u64, _: bool) {}
        fn delivered(&mut self, payload: &[u8]) {
            self.0.push(payload.to_vec());
        }
        fn put_off(&mut self, _: u64, _: u64) {}
        fn gap(&mut self) {}
    }

    #[test]
    fn entries_are_read_once_they_are_whole() {
        let reply =
            b"*1\r\n*2\r\n$3\r\n1:0\r\n*2\r\n*2\r\n$3\r\n5-1\r\n*2\r\n$1\r\np\r\n$2\r\n\r\n\r\n\
            *2\r\n$3\r\n5-2\r\n*2\r\n$1\r\np\r\n$3\r\nabc\r\n";
        let mut redis = Redis::new(1);
        for end in 0..=reply.len() {
            let mut peer = redis.open(0, Side::Receiver, false, &mut Vec::new());
            let (mut heard, mut out) = (Heard::default(), Vec::new());
            let consumed = redis.read(&mut peer, &reply[..end], &mut out, &mut heard).unwrap();
            if end < reply.len() {
                assert_eq!((consumed, heard.0.len()), (0, 0));
            } else {
                assert_eq!((consumed, heard.0), (end, vec![b"\r\n".to_vec(), b"abc".to_vec()]));
                assert!(out.ends_with(b"$3\r\n5-2\r\n"));
            }
        }
    }
}
