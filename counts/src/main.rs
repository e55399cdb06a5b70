//! Does one of the things that every message pays for, so many times: `counts THING ROUNDS`, and
//! without arguments names the things. How many instructions that takes is for run.sh to say.

#[path = "../../codec/benches/common/frames.rs"]
mod frames;
#[path = "../../storage/benches/common/inbox.rs"]
mod inbox;
#[path = "../../storage/benches/common/load.rs"]
mod load;
#[path = "../../engine/benches/common/pairs.rs"]
mod pairs;

// The mesh's own files, so that nothing else of the server is built for this.
#[allow(dead_code)]
#[path = "../../server/src/mesh/lane.rs"]
mod lane;
#[allow(dead_code)]
#[path = "../../server/src/mesh/sleeper.rs"]
mod sleeper;
#[path = "../../storage/src/spsc.rs"]
mod spsc;
mod atomic {
    pub use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
}

use sleeper::Sleeper;
use starling_codec::{EpochTag, Kind, append_frame, wire};
use starling_storage::{Backend, MemoryBackend, Reads, Sequencer, Tier, answer, begin};
use std::{env, hint::black_box, process::ExitCode};

/// As in the mesh.
type SpscQueue<T> = spsc::SpscQueue<crossbeam::queue::ArrayQueue<T>>;

/// By name, what is done a number of times.
const THINGS: [(&str, fn(usize)); 10] = [
    ("codec/read-send", read_send),
    ("codec/write-send-ack", write_send_ack),
    ("codec/write-32-events", write_events),
    ("codec/read-32-events", read_events),
    ("engine/heartbeat", heartbeat),
    ("engine/message-of-500-pairs", |rounds| messages(rounds, 500, 1)),
    ("engine/message-of-50-pairs-16-in-flight", |rounds| messages(rounds, 50, 16)),
    ("mesh/hop", hop),
    ("storage/message-in-batches-of-64", batches),
    ("storage/event-in-pages-of-192", pages),
];

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let Some(wanted) = arguments.next() else {
        THINGS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok());
    let thing = THINGS.iter().find(|(name, _)| *name == wanted);
    let (Some((_, thing)), Some(rounds)) = (thing, rounds) else {
        eprintln!("counts THING ROUNDS");
        return ExitCode::FAILURE;
    };
    thing(rounds);
    ExitCode::SUCCESS
}

fn read_send(rounds: usize) {
    let mut bytes = Vec::new();
    append_frame(&mut bytes, Kind::Send, &frames::send(7));
    for _ in 0..rounds {
        let (frame, _) = frames::frame(black_box(&bytes));
        black_box(frame.body::<wire::Send>()).expect("a SEND");
    }
}

fn write_send_ack(rounds: usize) {
    let ack = frames::send_ack();
    let mut out = Vec::with_capacity(4 * 1_024);
    for _ in 0..rounds {
        out.clear();
        append_frame(&mut out, Kind::SendAck, black_box(&ack));
        black_box(&out);
    }
}

fn write_events(rounds: usize) {
    let events = frames::events(32);
    let mut out = Vec::with_capacity(64 * 1_024);
    for _ in 0..rounds {
        out.clear();
        append_frame(&mut out, Kind::Events, black_box(&events));
        black_box(&out);
    }
}

fn read_events(rounds: usize) {
    let mut bytes = Vec::new();
    append_frame(&mut bytes, Kind::Events, &frames::events(32));
    let shared = bytes::Bytes::from(bytes);
    for _ in 0..rounds {
        let (frame, _) = frames::frame(black_box(&shared));
        black_box(frame.body_within::<wire::Events>(&shared)).expect("an EVENTS");
    }
}

fn heartbeat(rounds: usize) {
    let mut bench = pairs::Bench::new(1);
    (0..rounds).for_each(|_| bench.heartbeat());
}

/// From the bytes of SEND to those of its acknowledgement, of the events of both, and back to
/// their cursors. Users are of a size with a real shard's, so that tables are too.
fn messages(rounds: usize, pairs: u32, in_flight: u64) {
    let mut bench = pairs::Bench::new(2 * pairs);
    let per_round = pairs as usize * in_flight as usize;
    for _ in 0..rounds.div_ceil(per_round) {
        bench.round(in_flight);
    }
}

/// An entry of a lane, and the question whether its shard sleeps.
fn hop(rounds: usize) {
    let lane = lane::Lane::new(1_024);
    let sleeper = Sleeper::default();
    for round in 0..rounds {
        let entry = [round as u64; 16];
        lane.push(black_box(entry)).expect("room");
        black_box(sleeper.must_wake());
        black_box(lane.pop()).expect("an entry");
        black_box(lane.has_relieved());
    }
}

/// Sequenced to rows and outcomes; what a backend does with the rows is its own.
fn batches(rounds: usize) {
    const BATCH: usize = 64;
    let backend = MemoryBackend::new();
    let epoch = begin(&backend, EpochTag(1)).expect("an empty store").epochs.current().0;
    let view = backend.view();
    let reads = Reads::new(&*view, Tier::All);
    let mut sequencer = Sequencer::new(epoch, 1 << 20, reads).expect("an empty store");
    let mut load = load::Load::new(wire::Class::Durable);
    let mut commands = load.batch(load::PAIRS as usize);
    sequencer.apply(reads, &mut commands, true).expect("rows in memory");
    for _ in 0..rounds.div_ceil(BATCH) {
        let mut commands = load.batch(BATCH);
        let commit = sequencer.apply(reads, &mut commands, true).expect("rows in memory");
        sequencer.announced(commit.number);
        black_box(commit);
    }
}

/// Of an inbox with sixteen conversations, as it goes out; how a backend finds the rows is its own.
fn pages(rounds: usize) {
    const SENDERS: u64 = 16;
    let backend = MemoryBackend::new();
    let epochs = inbox::fill(&backend, SENDERS);
    let view = backend.view();
    let reads = Reads::new(&*view, Tier::All);
    let query = inbox::page();
    for _ in 0..rounds.div_ceil(inbox::PAGE_EVENTS as usize) {
        black_box(answer(reads, &epochs, black_box(&query)).expect("a page"));
    }
}
