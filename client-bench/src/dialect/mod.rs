//! What a server is spoken to in. The same load drives Starling and its yardsticks, so that only
//! the dialect differs between them.

mod redis;
mod relay;
mod starling;
mod varint;
mod view;

pub use redis::Redis;
#[cfg(test)]
pub use relay::append_header;
pub use relay::{ACK, HEADER_BYTES, Relay};
pub use starling::{Class, Starling, StarlingPeer, WINDOW_EVENTS};

use anyhow::Result;

/// Which end of a pair a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Sender,
    Receiver,
}

/// What a connection heard.
pub trait Ear {
    /// The connection may be used.
    fn ready(&mut self);
    /// The server answers for message `sequence` of the pair: it is on disk if `durable`.
    fn acknowledged(&mut self, sequence: u64, durable: bool);
    /// A message came.
    fn delivered(&mut self, payload: &[u8]);
    /// The server cannot take message `sequence`, or any later one, just now.
    fn put_off(&mut self, sequence: u64, after_ms: u64);
    /// A number is missing, or stands where it must not.
    fn gap(&mut self);
}

/// A protocol, as far as pairs need it.
pub trait Dialect {
    /// What one connection remembers.
    type Peer;

    /// Begins a connection. What is appended goes out once it is connected. One that comes back
    /// `again` in a run hears what it missed; another one, only what is new.
    fn open(&mut self, pair: usize, side: Side, again: bool, out: &mut Vec<u8>) -> Self::Peer;

    /// Appends message `sequence`. A message that was put off is given again, the same.
    fn send(
        &mut self,
        peer: &mut Self::Peer,
        pair: usize,
        sequence: u64,
        nonce: u64,
        payload: &[u8],
        out: &mut Vec<u8>,
    );

    /// Reads what came; says how many bytes it consumed. The rest will come again with more.
    ///
    /// # Errors
    /// The server breaks the protocol, or refuses for good.
    fn read(
        &mut self,
        peer: &mut Self::Peer,
        bytes: &[u8],
        out: &mut Vec<u8>,
        ear: &mut impl Ear,
    ) -> Result<usize>;

    /// Called some times a second: what a connection says unasked.
    fn tick(&mut self, _peer: &mut Self::Peer, _now_ms: u64, _out: &mut Vec<u8>) {}
}
