//! What goes from one shard to another.

use crate::token::Identity;
use bytes::Bytes;
use starling_codec::{
    ConversationId, DeviceId, ErrorCode, Nonce, Origin, SendNo, Ticket, UserId,
    wire::{Class, Hello},
};

/// A value sent from one shard to another. Each has a credit of a shard behind it.
#[derive(Clone, Debug, PartialEq)]
pub enum Hop {
    /// A send that the sender's home let through its door, to the conversation's home.
    Send(DoorSend),
    /// Back to the door: refused for good.
    Refused { ticket: Ticket, send_no: SendNo, code: ErrorCode },
    /// To the user's home: tokens of the device but those of `serial` are revoked, so its session
    /// ends.
    Revoke { origin: Origin, user: UserId, device: DeviceId, serial: u32 },
    /// Back to the origin of a `Revoke`: it is done.
    Revoked { key: u64 },
}

/// A send on its way from the door to the conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct DoorSend {
    /// The connection that it came on: whoever sends the same number on another may mean another
    /// message, so only here is the outcome told.
    pub ticket: Ticket,
    pub conversation: ConversationId,
    pub sender: UserId,
    pub device: DeviceId,
    pub send_no: SendNo,
    pub oldest: SendNo,
    pub nonce: Nonce,
    pub content: Bytes,
    pub class: Class,
}

/// A connection that moves to its user's home: who it is, how it greeted, the bytes that were read
/// past its HELLO, and those that it was told before and are not written yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Migrant {
    pub identity: Identity,
    /// Its token is checked and taken out.
    pub hello: Hello,
    pub rest: Vec<u8>,
    pub unsent: Vec<u8>,
}
