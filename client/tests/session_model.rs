//! Sessions against a small server that loses links at random: whatever is cut, every message
//! arrives once and in order, and every device ends with the same inbox.

mod support;

use proptest::prelude::*;
use prost::Message;
use starling_client::{
    EntryState, Event, Identity, MemoryStore, Session, SessionSettings, Wish,
    codec::{
        Decoded, DeviceId, ErrorCode, Kind, Nonce, SendNo, SendWindow, Standing, append_frame,
        decode_frame, wire,
    },
};
use std::collections::{BTreeMap, BTreeSet};
use support::*;

/// One user's inbox on a server that forgets nothing.
#[derive(Default)]
struct Model {
    inbox: Vec<wire::Event>,
    windows: BTreeMap<u32, SendWindow>,
    /// Refuses the next so many sends, and those behind them, as a server under load does.
    busy: u32,
}

/// The server's end of one connection.
#[derive(Default)]
struct Link {
    input: Vec<u8>,
    output: Vec<u8>,
    device: u32,
    live: bool,
    told: u64,
    /// Numbers that were refused for now and have not come again: those above them wait too.
    refused: BTreeSet<u64>,
}

impl Model {
    fn receive(&mut self, link: &mut Link, bytes: &[u8]) {
        link.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut link.input);
        let mut rest = &input[..];
        while let Decoded::Frame(raw) = decode_frame(rest, 1 << 20) {
            rest = &rest[raw.size..];
            match Kind::from_number(raw.kind).unwrap() {
                Kind::Hello => self.hello(link, wire::Hello::decode(raw.body).unwrap()),
                Kind::Send => self.send(link, wire::Send::decode(raw.body).unwrap()),
                Kind::Sync => {
                    let after = wire::Sync::decode(raw.body).unwrap().after.unwrap();
                    link.told = after.seq;
                }
                Kind::Ack | Kind::Ping => {}
                kind => panic!("{kind:?}"),
            }
        }
        link.input = rest.to_vec();
    }

    fn hello(&mut self, link: &mut Link, hello: wire::Hello) {
        link.device = hello.token[0].into();
        link.live = true;
        link.told = hello.cursor.unwrap().seq;
        let window = self.windows.entry(link.device).or_default();
        let head = self.inbox.len() as u64;
        let welcome = wire::Welcome {
            head: Some(place(head, u32::from(head > 0))),
            window: Some((*window).into()),
            ..welcome()
        };
        append_frame(&mut link.output, Kind::Welcome, &welcome);
    }

    fn send(&mut self, link: &mut Link, send: wire::Send) {
        assert!(send.send_no >= send.oldest && send.send_no - send.oldest <= 63, "{send:?}");
        link.refused.retain(|number| *number >= send.oldest);
        let stuck = link.refused.first().is_some_and(|first| *first < send.send_no);
        if stuck || self.busy > 0 {
            self.busy = self.busy.saturating_sub(1);
            link.refused.insert(send.send_no);
            let code = if stuck { ErrorCode::SendOutOfOrder } else { ErrorCode::Overload } as u32;
            let refused = wire::SendRefused { send_no: send.send_no, code, retry_after_ms: 20 };
            return append_frame(&mut link.output, Kind::SendRefused, &refused);
        }
        link.refused.remove(&send.send_no);
        let window = self.windows.entry(link.device).or_default();
        if window.standing(SendNo(send.send_no)) == Standing::New {
            window.apply(SendNo(send.send_no));
            let seq = self.inbox.len() as u64 + 1;
            let mut event = own_event(seq, 1, send.send_no, send.nonce);
            event.prev = seq - 1;
            if let Some(wire::event::Kind::Message(message)) = &mut event.kind {
                message.device = link.device;
            }
            self.inbox.push(event);
        }
        let first = self.inbox.iter().find(|event| {
            let Some(wire::event::Kind::Message(message)) = &event.kind else { return false };
            message.device == link.device && message.send_no == send.send_no
        });
        let first = first.expect("what was applied is in the inbox");
        append_frame(&mut link.output, Kind::SendAck, &ack(send.send_no, first.seq, first.epoch));
    }

    fn push(&self, link: &mut Link, most: usize) {
        let news = self.inbox.iter().skip(link.told as usize).take(most);
        let events: Vec<_> = news.cloned().collect();
        if link.live && !events.is_empty() {
            link.told += events.len() as u64;
            append_frame(&mut link.output, Kind::Events, &wire::Events { events, head: 0 });
        }
    }
}

/// One device with its link.
struct Seat {
    session: Session<MemoryStore>,
    link: Option<Link>,
    applied: Vec<u64>,
    arrived: Vec<u64>,
}

impl Seat {
    fn new(device: u32) -> Seat {
        let token = vec![device as u8].into();
        let identity = Identity { device: DeviceId(device), token, ..identity() };
        Seat::with(MemoryStore::with_identity(identity), device.into())
    }

    fn with(store: MemoryStore, seed: u64) -> Seat {
        let session = Session::load(store, SessionSettings::default(), seed).unwrap();
        Seat { session, link: None, applied: Vec::new(), arrived: Vec::new() }
    }

    /// Moves up to `most` bytes each way.
    fn step(&mut self, model: &mut Model, now_ms: u64, most: usize) {
        match (self.session.wish(), &mut self.link) {
            (Wish::OpenAt(at_ms), link) => {
                *link = None;
                if now_ms >= at_ms {
                    *link = Some(Link::default());
                    self.session.opened(now_ms);
                }
            }
            (Wish::Keep, Some(link)) => {
                let bytes = self.session.output();
                let bytes = bytes[..bytes.len().min(most)].to_vec();
                self.session.written(bytes.len());
                model.receive(link, &bytes);
                model.push(link, most);
                let bytes: Vec<u8> = link.output.drain(..link.output.len().min(most)).collect();
                self.session.receive(now_ms, &bytes);
            }
            (wish, _) => panic!("{wish:?}"),
        }
        self.session.tick(now_ms);
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Applied(event) => self.applied.push(event.seq),
                Event::Sent { nonce, .. } => self.arrived.push(nonce.0),
                Event::Online(_) | Event::Offline { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    }

    fn is_done(&self, model: &Model) -> bool {
        self.session.unanswered() == 0 && self.session.cursor().seq == model.inbox.len() as u64
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Move(usize, usize),
    Cut(usize),
    /// The process dies and comes back with what was committed.
    Restart(usize),
    Busy(u32),
    /// An event is lost on the way: the next one leaves a gap.
    Skip(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let seat = 0usize..2;
    prop_oneof![
        6 => seat.clone().prop_map(Step::Write),
        12 => (seat.clone(), 1usize..400).prop_map(|(seat, most)| Step::Move(seat, most)),
        1 => seat.clone().prop_map(Step::Cut),
        1 => seat.clone().prop_map(Step::Restart),
        1 => (1u32..4).prop_map(Step::Busy),
        1 => seat.prop_map(Step::Skip),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_message_arrives_once_and_in_order(steps in prop::collection::vec(step(), 1..250)) {
        let mut model = Model::default();
        let mut seats = [Seat::new(1), Seat::new(2)];
        let mut written = [Vec::new(), Vec::new()];
        let mut now_ms = 0;
        for step in steps {
            now_ms += 37;
            match step {
                Step::Write(seat) => {
                    let nonce = (seat as u64 + 1) * 1_000_000 + written[seat].len() as u64;
                    seats[seat].session.send(now_ms, Nonce(nonce), text("hi")).unwrap();
                    written[seat].push(nonce);
                }
                Step::Move(seat, most) => seats[seat].step(&mut model, now_ms, most),
                Step::Cut(seat) => {
                    if seats[seat].link.take().is_some() {
                        seats[seat].session.closed(now_ms);
                    }
                }
                Step::Restart(seat) => {
                    let (applied, arrived) =
                        (seats[seat].applied.clone(), seats[seat].arrived.clone());
                    let store = seats[seat].session.store().clone();
                    seats[seat] = Seat { applied, arrived, ..Seat::with(store, now_ms) };
                }
                Step::Busy(times) => model.busy += times,
                Step::Skip(seat) => {
                    if let Some(link) = seats[seat].link.as_mut().filter(|link| link.live) {
                        link.told = (link.told + 1).min(model.inbox.len() as u64);
                    }
                }
            }
        }
        // The weather clears: all comes to its end. What was skipped at the very end shows when
        // something follows it, as in life.
        model.busy = 0;
        seats[0].session.send(now_ms, Nonce(7), text("last")).unwrap();
        written[0].push(7);
        for _ in 0..5_000 {
            now_ms += 50;
            seats.iter_mut().for_each(|seat| seat.step(&mut model, now_ms, 100_000));
            if seats.iter().all(|seat| seat.is_done(&model)) {
                break;
            }
        }
        for (seat, written) in seats.iter().zip(&written) {
            prop_assert!(seat.is_done(&model), "{:?}", seat.session.wish());
            // Each event once and in order, whatever the process went through.
            prop_assert!(seat.applied.iter().copied().eq(1..=model.inbox.len() as u64));
            prop_assert!(seat.session.store().events().values().eq(&model.inbox));
            // Each message was told once.
            let mut arrived = seat.arrived.clone();
            arrived.sort_unstable();
            let mut expected = written.clone();
            expected.sort_unstable();
            prop_assert_eq!(arrived, expected);
            let open = |state| matches!(state, EntryState::Unanswered);
            prop_assert!(!seat.session.outbox().any(|entry| open(entry.state)));
        }
        // The inbox holds what each device wrote, once, in the order in which it was written.
        for (device, written) in [1, 2].into_iter().zip(&written) {
            let nonces = model.inbox.iter().filter_map(|event| match &event.kind {
                Some(wire::event::Kind::Message(message)) if message.device == device => {
                    Some(message.nonce)
                }
                _ => None,
            });
            prop_assert_eq!(&nonces.collect::<Vec<_>>(), written);
        }
    }
}
