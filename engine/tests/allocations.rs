//! What is allocated while all is going well: nothing for a heartbeat, little for a message.

mod world;

use starling_codec::{
    Accepted, Answer, Command, Delivery, DeviceId, DeviceState, Epoch, EpochTag, Kind, Outcome,
    Place, Resumption, SendNo, SendWindow, Ticket, UserId, append_frame, append_ping, wire,
};
use starling_engine::{Effect, Engine, Identity, Keyring, Now, Settings};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is passed on to the system's allocator as it came; counting touches only a cell of
// the thread, which needs no allocation and no destructor. Exercised by the tests below.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as of the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as of the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as of the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const NOW: Now = Now { mono_ms: 1_000, unix_ms: world::START_MS };

/// A session of user 1 on an engine of its own.
fn session() -> (Engine, Ticket) {
    let keyring = Keyring::new(1, &[7; 32]);
    let identity = Identity { user: UserId(1), device: DeviceId(1), serial: 1 };
    let token = keyring.sign(identity, NOW.unix_ms / 1_000 + 60).to_vec();
    let mut engine = Engine::new(Settings::default(), keyring, NOW);
    let ticket = engine.open(NOW).unwrap();
    engine.receive(NOW, ticket, &world::peer::Peer::new(token).hello());
    let Some(Effect::Ask(origin, _)) = engine.next_effect() else { panic!("no question") };
    let state = DeviceState {
        serial: 1,
        cursor: Place::START,
        passed_seq: 0,
        window: SendWindow::default(),
        head: Place::START,
        epoch: Epoch(1),
        tag: EpochTag(1),
        resumption: Resumption::Continues,
    };
    engine.answered(NOW, origin.key, Answer::Device(Some(state)));
    flush(&mut engine);
    while engine.next_effect().is_some() {}
    (engine, ticket)
}

fn flush(engine: &mut Engine) {
    engine.turn(NOW);
    while let Some(ticket) = engine.next_dirty() {
        let bytes = engine.output(ticket).len();
        engine.written(NOW, ticket, bytes);
    }
}

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn a_heartbeat_allocates_nothing() {
    let (mut engine, ticket) = session();
    let mut ping = Vec::new();
    append_ping(&mut ping);
    let mut beat = || {
        engine.receive(NOW, ticket, &ping);
        assert_eq!(engine.output(ticket).len(), 2);
        flush(&mut engine);
    };
    beat();
    assert_eq!(allocations(|| (0..500).for_each(|_| beat())), 0);
}

/// A message to oneself, from its SEND to its acknowledgement and its event; what the store would
/// allocate is made beforehand.
#[test]
fn a_message_allocates_its_content_and_little_more() {
    let (mut engine, ticket) = session();
    let me = UserId(1);
    let mut round = |number: u64| {
        let mut bytes = Vec::new();
        let send = wire::Send {
            send_no: number,
            oldest: number,
            content: vec![7; 100].into(),
            to: Some(wire::send::To::User(me.0)),
            ..Default::default()
        };
        append_frame(&mut bytes, Kind::Send, &send);
        let mut ack = Vec::new();
        let cursor = Some(wire::Place { seq: number, epoch: 1 });
        append_frame(&mut ack, Kind::Ack, &wire::Ack { cursor });
        let place = Place::new(number, Epoch(1));
        let message = wire::Message { seq: number, sender: 1, ..Default::default() };
        let kind = Some(wire::event::Kind::Message(message));
        let events = vec![wire::Event { seq: number, epoch: 1, prev: 0, kind }];
        let mut made = None;
        let counted = allocations(|| {
            engine.receive(NOW, ticket, &bytes);
            engine.turn(NOW);
            while let Some(effect) = engine.next_effect() {
                if let Effect::Submit(submission) = effect
                    && let Command::Append(append) = submission.command
                {
                    made = Some((submission.origin, append));
                }
            }
        });
        let (origin, append) = made.expect("a command");
        let accepted = Accepted {
            send_no: SendNo(number),
            id: append.id,
            conversation: append.conversation,
            seq: number,
            place,
            class: append.class,
        };
        let outcome = Outcome::Appended(accepted);
        let counted_back = allocations(|| {
            engine.announced(NOW, [(origin.key, outcome)], [Delivery { user: me, events }]);
            flush(&mut engine);
            engine.receive(NOW, ticket, &ack);
            flush(&mut engine);
        });
        while engine.next_effect().is_some() {}
        (counted, counted_back)
    };
    (1..=10).for_each(|number| {
        round(number);
    });
    let total =
        (11..=1_010).map(&mut round).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    // The content is copied out of the receive buffer, once; the way back allocates nothing.
    assert_eq!(total, (1_000, 0));
}
