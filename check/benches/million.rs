//! What it costs to check a million messages: `cargo bench -p starling-check`. Writes a history of
//! a gigabyte to the temporary folder, checks it, and says how much processor time that took, which
//! a busy machine does not change much, and how much memory.

use starling_check::check_files;
use starling_codec::{
    ConversationId, DeviceId, Epoch, EpochTag, MessageId, Nonce, Place, SendNo, SendWindow, UserId,
    history::{At, EventKind, Fact, Message, Record, StateHash, VERSION},
    wire::Class,
};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

const PAIRS: u32 = 500;
const MESSAGES: u64 = 1_000_000;
/// Messages between two receipts and acknowledgements.
const EVERY: u64 = 16;

fn main() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("million.jsonl");
    let mut out = Writer { out: BufWriter::new(File::create(&path)?), line: Vec::new() };
    write_history(&mut out)?;
    out.out.flush()?;
    let bytes = path.metadata()?.len();
    let begun = processor_s()?;
    let verdict = check_files(&[path]).map_err(io::Error::other)?;
    let took = processor_s()? - begun;
    assert!(verdict.holds(), "{:#?}", verdict.violations);
    assert_eq!((verdict.messages, verdict.settled), (MESSAGES, u64::from(2 * PAIRS)));
    let most_kib = most_memory_kib()?;
    println!(
        "{} messages, {} records, {} MB: {took:.2} s of processor time, {} MiB",
        verdict.messages,
        verdict.records,
        bytes / 1_000_000,
        most_kib / 1024
    );
    assert!(most_kib < 1024 * 1024, "more than a GiB");
    Ok(())
}

/// What this process has used, in seconds.
fn processor_s() -> io::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    let ns = stat.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    ns.map(|ns| ns / 1e9).ok_or_else(|| io::Error::other("no schedstat"))
}

/// The most memory that this process ever had.
fn most_memory_kib() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other("no VmHWM"))
}

struct Writer {
    out: BufWriter<File>,
    line: Vec<u8>,
}

impl Writer {
    fn tell(&mut self, at: At, fact: Fact) -> io::Result<()> {
        self.line.clear();
        Record { at: Some(at), time_ms: Some(1_800_000_000_000), fact }.append(&mut self.line);
        self.out.write_all(&self.line)
    }
}

/// A device under way.
#[derive(Clone, Copy, Default)]
struct Device {
    seq: u64,
    hash: StateHash,
}

fn write_history(out: &mut Writer) -> io::Result<()> {
    let mut line = Vec::new();
    Record::new(Fact::History { version: VERSION, complete: true }).append(&mut line);
    out.out.write_all(&line)?;
    let at = |user: u32| At { user: UserId(user), device: DeviceId(1) };
    let mut devices = vec![Device::default(); 2 * PAIRS as usize + 1];
    for user in 1..=2 * PAIRS {
        let (head, window) = (Place::START, SendWindow::default());
        let (epoch, tag) = (Epoch(1), EpochTag(7));
        out.tell(at(user), Fact::Online { epoch, tag, head, window, resumed: true })?;
    }
    for seq in 1..=MESSAGES / u64::from(PAIRS) {
        for pair in 0..PAIRS {
            let (sender, receiver) = (2 * pair + 1, 2 * pair + 2);
            let conversation = ConversationId::direct(UserId(sender), UserId(receiver));
            let number = seq * u64::from(PAIRS) + u64::from(pair);
            let (id, nonce) = (MessageId(number << 10), Nonce(number.wrapping_mul(0x9E37_79B9)));
            let (send_no, class, digest) = (SendNo(seq), Class::Durable, number ^ 0xABCD);
            out.tell(at(sender), Fact::Send { send_no, nonce, conversation, class, digest })?;
            let message = Message {
                id,
                conversation,
                seq,
                sender: UserId(sender),
                device: DeviceId(1),
                send_no,
                nonce: None,
                class,
                digest: Some(digest),
            };
            let place = Place::new(devices[sender as usize].seq + 1, Epoch(1));
            let nonce = Some(nonce);
            out.tell(
                at(sender),
                Fact::Sent { send_no, nonce, id, conversation, seq, place, class },
            )?;
            for (user, nonce) in [(sender, nonce), (receiver, None)] {
                let kind = EventKind::Message(Message { nonce, ..message });
                apply(out, at(user), &mut devices[user as usize], kind)?;
            }
            if seq % EVERY == 0 {
                let cursor = Place::new(devices[receiver as usize].seq, Epoch(1));
                out.tell(at(receiver), Fact::Acked(cursor))?;
                let kind = EventKind::Delivered { conversation, user: UserId(receiver), seq };
                apply(out, at(sender), &mut devices[sender as usize], kind)?;
            }
        }
    }
    for user in 1..=2 * PAIRS {
        let Device { seq, hash } = devices[user as usize];
        out.tell(at(user), Fact::State { cursor: Place::new(seq, Epoch(1)), hash })?;
    }
    Ok(())
}

fn apply(out: &mut Writer, at: At, device: &mut Device, kind: EventKind) -> io::Result<()> {
    let prev = device.seq;
    device.seq += 1;
    let place = Place::new(device.seq, Epoch(1));
    device.hash.add(place, &kind);
    out.tell(at, Fact::Event { place, prev, kind })
}
