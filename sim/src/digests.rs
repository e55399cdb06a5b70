//! Digests of contents, each worked out once. A message is seen by every device that it comes to,
//! again in pages of its conversation and again at the end, and a digest takes a step a byte.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use starling_codec::{
    DeviceId, SendNo, UserId,
    history::{At, digest},
    wire,
};

/// To work out the digest of so few bytes takes no longer than to look for it.
const FEW_BYTES: usize = 64;

/// What was seen last of each send: by its writer and its number.
#[derive(Default)]
pub struct Digests {
    known: FxHashMap<(At, SendNo), (Bytes, u64)>,
}

impl Digests {
    /// The digest of what somebody sent under a number. What is known of it counts only if every
    /// byte is the same.
    pub fn of(&mut self, writer: At, send_no: SendNo, content: &Bytes) -> u64 {
        if content.len() <= FEW_BYTES {
            return digest(content);
        }
        let work_out = || (content.clone(), digest(content));
        let known = self.known.entry((writer, send_no)).or_insert_with(work_out);
        if known.0 != *content {
            *known = work_out();
        }
        known.1
    }

    /// The digest of a message's content.
    pub fn of_message(&mut self, message: &wire::Message) -> u64 {
        let writer = At { user: UserId(message.sender), device: DeviceId(message.device) };
        self.of(writer, SendNo(message.send_no), &message.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_content_under_the_same_number_has_its_own_digest() {
        let mut digests = Digests::default();
        for (letter, bytes) in
            [(b'a', 99), (b'a', 99), (b'b', 99), (b'b', 98), (b'b', 3), (b'a', 99)]
        {
            let content = vec![letter; bytes];
            let (sender, device, send_no) = (1, 2, 3);
            let content = Bytes::from(content);
            let message = wire::Message { sender, device, send_no, content, ..Default::default() };
            assert_eq!(digests.of_message(&message), digest(&message.content), "{message:?}");
        }
    }
}
