//! The dialect of the bare relay: a length, a destination, bytes. The relay tells the sender of
//! each message with a few bytes.

use super::{Dialect, Ear, Side};
use anyhow::Result;

/// A frame: length of the rest (32 bits, little-endian), then destination (likewise), then bytes.
/// A frame without even a destination is the relay's acknowledgement of one message.
pub const HEADER_BYTES: usize = 8;
/// The relay's acknowledgement.
pub const ACK: [u8; 4] = [0; 4];
/// What Starling's frames have around a payload of 128 bytes: a SEND 30, an event 57. A relayed
/// message is as much longer as their mean, so that as many bytes cross the wire.
pub const WIRE_OVERHEAD_BYTES: usize = 44;

/// Speaks to a relay. A connection's number is its name: the first frame of each has no bytes.
#[derive(Debug, Default)]
pub struct Relay {
    /// The name of connection 0, where several loads share a relay.
    pub first: usize,
}

/// One connection.
#[derive(Debug)]
pub struct RelayPeer {
    acknowledged: u64,
    ready: bool,
}

/// Appends length and destination of a frame with so many bytes behind them.
pub fn append_header(out: &mut Vec<u8>, destination: u32, bytes: usize) {
    out.extend_from_slice(&(4 + bytes as u32).to_le_bytes());
    out.extend_from_slice(&destination.to_le_bytes());
}

impl Dialect for Relay {
    type Peer = RelayPeer;

    fn open(&mut self, pair: usize, side: Side, _again: bool, out: &mut Vec<u8>) -> RelayPeer {
        let name = self.first + 2 * pair + usize::from(side == Side::Receiver);
        append_header(out, name as u32, 0);
        RelayPeer { acknowledged: 0, ready: false }
    }

    fn send(
        &mut self,
        _peer: &mut RelayPeer,
        pair: usize,
        _sequence: u64,
        _nonce: u64,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) {
        let padding = WIRE_OVERHEAD_BYTES - HEADER_BYTES;
        let receiver = self.first + 2 * pair + 1;
        append_header(out, receiver as u32, padding + payload.len());
        out.extend_from_slice(&[0; WIRE_OVERHEAD_BYTES - HEADER_BYTES]);
        out.extend_from_slice(payload);
    }

    fn read(
        &mut self,
        peer: &mut RelayPeer,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        ear: &mut impl Ear,
    ) -> Result<usize> {
        let mut rest = bytes;
        while let Some((length, behind)) = rest.split_first_chunk() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((frame, behind)) = behind.split_at_checked(length) else { break };
            rest = behind;
            match (frame.get(WIRE_OVERHEAD_BYTES - 4..), peer.ready) {
                (Some(payload), _) => ear.delivered(payload),
                (None, true) => {
                    ear.acknowledged(peer.acknowledged, false);
                    peer.acknowledged += 1;
                }
                (None, false) => {
                    peer.ready = true;
                    ear.ready();
                }
            }
        }
        Ok(bytes.len() - rest.len())
    }
}
