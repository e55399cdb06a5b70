//! A message: flags, id, device, send number, content. Conversation and seq are its key, its time
//! is the id's, and the sender of a direct conversation is one bit.

use crate::varint::{self, Bytes};
use starling_codec::{
    Append, ConversationId, DeviceId, MessageId, MessageParts, SendNo, UserId, wire::Class,
};

const SENDER_IS_HIGHER: u8 = 1;
const BUFFERED: u8 = 2;
/// The sender is written out: not a direct conversation.
const SENDER_NAMED: u8 = 4;

/// A message row, borrowed from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRow<'a> {
    pub sender: UserId,
    pub device: DeviceId,
    pub send_no: SendNo,
    pub id: MessageId,
    pub class: Class,
    pub content: &'a [u8],
}

/// Appends the row of a message.
pub fn encode_message(append: &Append, out: &mut Vec<u8>) {
    let mut flags = if append.class == Class::Buffered { BUFFERED } else { 0 };
    let named = match append.conversation.users() {
        Some((_, high)) => {
            flags |= if append.sender == high { SENDER_IS_HIGHER } else { 0 };
            None
        }
        None => {
            flags |= SENDER_NAMED;
            Some(append.sender)
        }
    };
    out.push(flags);
    out.extend_from_slice(&append.id.0.to_le_bytes());
    if let Some(sender) = named {
        varint::put(out, u64::from(sender.0));
    }
    varint::put(out, u64::from(append.device.0));
    varint::put(out, append.send_no.0);
    out.extend_from_slice(&append.content);
}

impl<'a> MessageRow<'a> {
    pub fn decode(conversation: ConversationId, row: &'a [u8]) -> Option<MessageRow<'a>> {
        let mut bytes = Bytes(row);
        let flags = bytes.byte()?;
        let id = MessageId(bytes.u64()?);
        let sender = if flags & SENDER_NAMED != 0 {
            UserId(bytes.varint_u32()?)
        } else {
            let (low, high) = conversation.users()?;
            if flags & SENDER_IS_HIGHER != 0 { high } else { low }
        };
        let device = DeviceId(bytes.varint_u32()?);
        let send_no = SendNo(bytes.varint()?);
        let class = if flags & BUFFERED != 0 { Class::Buffered } else { Class::Durable };
        Some(MessageRow { sender, device, send_no, id, class, content: bytes.0 })
    }

    /// The message as it is told of; the nonce is for the sender's own inbox alone.
    pub fn parts(self, conversation: ConversationId, seq: u64, nonce: u64) -> MessageParts<'a> {
        MessageParts {
            conversation: conversation.0,
            seq,
            id: self.id.0,
            sender: self.sender.0,
            device: self.device.0,
            send_no: self.send_no.0,
            class: self.class as i32,
            time_ms: self.id.time_ms(),
            content: self.content,
            nonce,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_codec::{Nonce, Recipients};

    proptest! {
        #[test]
        fn a_message_comes_back(
            higher: bool, group: bool, device in 1u32.., send_no in 1u64.., id: u64, buffered: bool,
            content: Vec<u8>,
        ) {
            let (low, high) = (UserId(3), UserId(9));
            let conversation =
                if group { ConversationId(77) } else { ConversationId::direct(low, high) };
            let append = Append {
                conversation,
                sender: if higher { high } else { low },
                device: DeviceId(device),
                send_no: SendNo(send_no),
                oldest: SendNo(1),
                nonce: Nonce(1),
                id: MessageId(id),
                content: content.clone().into(),
                recipients: Recipients::Two(low, high),
                class: if buffered { Class::Buffered } else { Class::Durable },
            };
            let mut row = Vec::new();
            encode_message(&append, &mut row);
            let message = MessageRow::decode(conversation, &row).unwrap();
            prop_assert_eq!(message, MessageRow {
                sender: append.sender,
                device: append.device,
                send_no: append.send_no,
                id: append.id,
                class: append.class,
                content: &content,
            });
        }
    }
}
