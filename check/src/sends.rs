//! What devices wrote, and what they were answered.

use crate::{Position, messages::NO_MESSAGE};
use rustc_hash::FxHashMap;
use starling_codec::{Nonce, Place, SendNo, wire::Class};

/// No send.
pub(crate) const NO_SEND: u32 = u32::MAX;

/// What a device wrote under one nonce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Send {
    pub device: u32,
    /// The number it has now.
    pub send_no: SendNo,
    /// Where it was written, if a line says so, and what.
    pub written: Option<Written>,
    pub answer: Answer,
    pub answered_at: Position,
    /// The message that was stored for it, or [`NO_MESSAGE`].
    pub message: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub position: Position,
    pub stream: u32,
    pub class: Class,
    pub digest: u64,
}

/// What the device was told of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    None,
    Sent { place: Place, message: u32 },
    Refused,
    Unsent,
}

/// What stands under a number of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered {
    pub send: u32,
    pub message: u32,
    /// Two things were written under it.
    pub ambiguous: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Sends {
    by_nonce: FxHashMap<(u32, Nonce), u32>,
    by_number: FxHashMap<(u32, SendNo), Numbered>,
    pub list: Vec<Send>,
}

impl Sends {
    /// The send of a device under a nonce; without a nonce, what its number says.
    pub fn find(&mut self, device: u32, nonce: Option<Nonce>, send_no: SendNo) -> u32 {
        let next = self.list.len() as u32;
        let send = match nonce {
            Some(nonce) => *self.by_nonce.entry((device, nonce)).or_insert(next),
            None => match self.numbered(device, send_no) {
                Some(numbered) if numbered.send != NO_SEND => numbered.send,
                _ => next,
            },
        };
        if send == next {
            self.list.push(Send {
                device,
                send_no,
                written: None,
                answer: Answer::None,
                answered_at: Position::default(),
                message: NO_MESSAGE,
            });
        }
        let numbered = self.number(device, send_no);
        if numbered.send == NO_SEND {
            numbered.send = send;
        } else if numbered.send != send {
            numbered.ambiguous = true;
        }
        send
    }

    pub fn numbered(&self, device: u32, send_no: SendNo) -> Option<Numbered> {
        self.by_number.get(&(device, send_no)).copied()
    }

    /// The entry of a number, made if it is not there.
    pub fn number(&mut self, device: u32, send_no: SendNo) -> &mut Numbered {
        self.by_number.entry((device, send_no)).or_insert(Numbered {
            send: NO_SEND,
            message: NO_MESSAGE,
            ambiguous: false,
        })
    }

    /// Joins messages, whose nonce only their writer sees, to what was written under their
    /// number.
    pub fn join(&mut self, joined: &mut [bool]) {
        for numbered in self.by_number.values() {
            if numbered.ambiguous || numbered.send == NO_SEND || numbered.message == NO_MESSAGE {
                continue;
            }
            let send = &mut self.list[numbered.send as usize];
            let taken = &mut joined[numbered.message as usize];
            if send.message == NO_MESSAGE && !*taken {
                send.message = numbered.message;
                *taken = true;
            }
        }
    }
}
