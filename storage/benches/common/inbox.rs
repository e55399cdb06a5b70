//! An inbox with messages of several people, as the benchmark and the instruction counts read it.

use starling_codec::{
    Append, Command, ConversationId, DeviceId, EpochTag, MessageId, Nonce, Origin, Query,
    Recipients, SendNo, Submission, UserId, wire::Class,
};
use starling_storage::{Backend, Epochs, Reads, Sequencer, Tier, begin};

/// Events of a page.
pub const PAGE_EVENTS: u64 = 192;
/// There is more than what is read.
const PAGES: u64 = 20;
/// Messages that come in one commit.
const TOGETHER: u64 = 16;
const CONTENT_BYTES: usize = 131;
const READER: UserId = UserId(1);

/// Fills the inbox of an empty store: so many people send to the reader, by turns.
pub fn fill(backend: &dyn Backend, senders: u64) -> Epochs {
    let epochs = begin(backend, EpochTag(1)).expect("an empty store").epochs;
    let view = backend.view();
    let reads = Reads::new(&*view, Tier::All);
    let mut sequencer = Sequencer::new(epochs.current().0, 1 << 20, reads).expect("an empty store");
    for first in (0..PAGES * PAGE_EVENTS).step_by(TOGETHER as usize) {
        let together = first..first + TOGETHER;
        let mut commands = together.map(|number| message(number, senders)).collect();
        let view = backend.view();
        let reads = Reads::new(&*view, Tier::All);
        let commit = sequencer.apply(reads, &mut commands, true).expect("rows that were written");
        backend.write(sequencer.rows()).expect("a store that takes rows");
        sequencer.announced(commit.number);
    }
    backend.settle().expect("a store that takes rows");
    epochs
}

/// A page in the midst of it.
pub fn page() -> Query {
    Query::Inbox {
        user: READER,
        after_seq: PAGES / 2 * PAGE_EVENTS,
        max_events: PAGE_EVENTS as usize,
        max_bytes: 1 << 20,
    }
}

fn message(number: u64, senders: u64) -> Submission {
    let sender = UserId(READER.0 + 1 + (number % senders) as u32);
    let send_no = SendNo(number / senders + 1);
    let append = Append {
        conversation: ConversationId::direct(READER, sender),
        sender,
        device: DeviceId(1),
        send_no,
        oldest: send_no,
        nonce: Nonce(number + 1),
        id: MessageId::new(MessageId::TIME_ZERO_MS + number, 0, 0),
        content: vec![number as u8; CONTENT_BYTES].into(),
        recipients: Recipients::Two(READER, sender),
        class: Class::Buffered,
    };
    Submission { origin: Origin { shard: 0, key: number }, command: Command::Append(append) }
}
