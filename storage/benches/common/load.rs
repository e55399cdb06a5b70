//! The messages of many pairs, as the benchmark and the instruction counts take them.

use starling_codec::{
    Append, Command, ConversationId, DeviceId, MessageId, Nonce, Origin, Recipients, SendNo,
    Submission, UserId, wire::Class,
};

pub const PAIRS: u32 = 500;
const CONTENT_BYTES: usize = 170;

/// Sends of pair after pair, each in its turn.
pub struct Load {
    number: u64,
    content: bytes::Bytes,
    class: Class,
}

impl Load {
    pub fn new(class: Class) -> Load {
        // Nothing that a table could make smaller.
        let mut content = vec![0; CONTENT_BYTES];
        getrandom::fill(&mut content).unwrap();
        Load { number: 0, content: content.into(), class }
    }

    pub fn batch(&mut self, size: usize) -> Vec<Submission> {
        (0..size).map(|_| self.next()).collect()
    }

    pub fn next(&mut self) -> Submission {
        let pair = (self.number % u64::from(PAIRS)) as u32;
        let send_no = self.number / u64::from(PAIRS) + 1;
        self.number += 1;
        let (sender, other) = (UserId(2 * pair + 1), UserId(2 * pair + 2));
        let conversation = ConversationId::direct(sender, other);
        let append = Append {
            conversation,
            sender,
            device: DeviceId(1),
            send_no: SendNo(send_no),
            oldest: SendNo(send_no),
            nonce: Nonce(self.number.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            id: MessageId::new(
                MessageId::TIME_ZERO_MS + self.number / 300,
                0,
                (self.number % 1_000) as u16,
            ),
            content: self.content.clone(),
            recipients: Recipients::Two(sender, other),
            class: self.class,
        };
        let origin = Origin { shard: 0, key: self.number };
        Submission { origin, command: Command::Append(append) }
    }
}
