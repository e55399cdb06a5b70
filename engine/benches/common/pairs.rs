//! Pairs of users on one engine, as the benchmark and the instruction counts take them.

use starling_codec::{
    Accepted, Answer, Command, Delivery, DeviceId, DeviceState, Epoch, EpochTag, Kind, MAGIC,
    MessageId, Nonce, Outcome, PROTOCOL_VERSION, Place, Query, Resumption, SendWindow, Ticket,
    UserId, append_frame, append_ping, wire,
};
use starling_engine::{Effect, Engine, Identity, Keyring, Now, Settings};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const CONTENT_BYTES: usize = 128;

/// An engine with pairs of users who talk.
pub struct Bench {
    pub engine: Engine,
    pub now: Now,
    /// By user number, from 1: first of a pair, second of a pair, and so on.
    pub tickets: Vec<Ticket>,
    heads: Vec<u64>,
    sent: u64,
    ping: Vec<u8>,
    beats: u64,
}

impl Bench {
    /// So many users, each with a session.
    pub fn new(users: u32) -> Bench {
        Bench::with_settings(users, Settings::default())
    }

    /// The same on an engine with settings of its own.
    pub fn with_settings(users: u32, settings: Settings) -> Bench {
        let now = Now { mono_ms: 0, unix_ms: MessageId::TIME_ZERO_MS + 1_000_000 };
        let keyring = Keyring::new(1, &[1; 32]);
        let engine = Engine::new(settings, keyring.clone(), now);
        let heads = vec![0; users as usize + 1];
        let mut ping = Vec::new();
        append_ping(&mut ping);
        let (tickets, sent, beats) = (Vec::new(), 0, 0);
        let mut bench = Bench { engine, now, tickets, heads, sent, ping, beats };
        for number in 1..=users {
            let user = UserId(number);
            let identity = Identity { user, device: DeviceId(1), serial: 1 };
            let token = keyring.sign(identity, now.unix_ms / 1_000 + 1_000_000).to_vec();
            let hello = wire::Hello {
                opening: Some(wire::Opening {
                    magic: MAGIC,
                    version: PROTOCOL_VERSION,
                    ..Default::default()
                }),
                token: token.into(),
                ..Default::default()
            };
            let mut bytes = Vec::new();
            append_frame(&mut bytes, Kind::Hello, &hello);
            let ticket = bench.engine.open(now).expect("room");
            bench.engine.receive(now, ticket, &bytes);
            bench.tickets.push(ticket);
            bench.effects();
            bench.flush();
        }
        bench
    }

    fn effects(&mut self) -> Vec<(u64, starling_codec::Append)> {
        let mut appends = Vec::new();
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Ask(origin, query) => {
                    let answer = match query {
                        Query::Device { .. } => Answer::Device(Some(DeviceState {
                            serial: 1,
                            cursor: Place::START,
                            passed_seq: 0,
                            window: SendWindow::default(),
                            head: Place::START,
                            epoch: Epoch(1),
                            tag: EpochTag(1),
                            resumption: Resumption::Continues,
                        })),
                        _ => Answer::Users(true),
                    };
                    self.engine.answered(self.now, origin.key, answer);
                }
                Effect::Submit(submission) => match submission.command {
                    Command::Append(append) => appends.push((submission.origin.key, append)),
                    _ => self.engine.announced(self.now, [(0, Outcome::Done)], []),
                },
                _ => {}
            }
        }
        appends
    }

    /// The end of a turn, with all output written.
    pub fn flush(&mut self) {
        self.engine.turn(self.now);
        while let Some(ticket) = self.engine.next_dirty() {
            let bytes = self.engine.output(ticket).len();
            self.engine.written(self.now, ticket, bytes);
        }
    }

    /// A PING of the first user, its turn and its PONG. Not more of them in a second than may be.
    pub fn heartbeat(&mut self) {
        self.engine.receive(self.now, self.tickets[0], &self.ping);
        self.flush();
        self.beats += 1;
        if self.beats.is_multiple_of(256) {
            self.now.mono_ms += 1_000;
        }
    }

    /// Every first of a pair sends `in_flight` messages to the second, which acknowledges. The
    /// time that the engine takes.
    pub fn round(&mut self, in_flight: u64) -> Duration {
        let mut flights = Vec::new();
        for first in (1..=self.tickets.len() as u32).step_by(2) {
            let mut bytes = Vec::new();
            for number in self.sent + 1..=self.sent + in_flight {
                let send = wire::Send {
                    send_no: number,
                    oldest: self.sent + 1,
                    nonce: number,
                    content: vec![7; CONTENT_BYTES].into(),
                    to: Some(wire::send::To::User(first + 1)),
                    ..Default::default()
                };
                append_frame(&mut bytes, Kind::Send, &send);
            }
            flights.push((self.tickets[first as usize - 1], bytes));
        }
        self.sent += in_flight;

        let start = Instant::now();
        for (ticket, bytes) in &flights {
            self.engine.receive(self.now, *ticket, bytes);
        }
        self.engine.turn(self.now);
        let appends = self.effects();
        let mut spent = start.elapsed();

        let (outcomes, deliveries) = self.store(appends);
        let start = Instant::now();
        self.engine.announced(self.now, outcomes, deliveries);
        self.flush();
        spent += start.elapsed();

        let mut acks = Vec::new();
        for (index, ticket) in self.tickets.iter().enumerate() {
            let mut bytes = Vec::new();
            let cursor = Some(wire::Place { seq: self.heads[index + 1], epoch: 1 });
            append_frame(&mut bytes, Kind::Ack, &wire::Ack { cursor });
            acks.push((*ticket, bytes));
        }
        let start = Instant::now();
        for (ticket, bytes) in &acks {
            self.engine.receive(self.now, *ticket, bytes);
        }
        self.flush();
        spent += start.elapsed();
        // Time goes on, so that cursors are stored once a second: at 10,000 rounds of a second.
        self.now.mono_ms += u64::from(self.sent % 10 < in_flight);
        self.effects();
        spent
    }

    fn store(
        &mut self,
        appends: Vec<(u64, starling_codec::Append)>,
    ) -> (Vec<(u64, Outcome)>, Vec<Delivery>) {
        let mut outcomes = Vec::new();
        let mut deliveries: BTreeMap<UserId, Vec<wire::Event>> = BTreeMap::new();
        for (key, append) in appends {
            let message = append.to_wire(append.send_no.0, Nonce(0));
            for user in append.recipients.iter() {
                let head = &mut self.heads[user.0 as usize];
                *head += 1;
                let kind = Some(wire::event::Kind::Message(message.clone()));
                let event = wire::Event { seq: *head, epoch: 1, prev: 0, kind };
                deliveries.entry(user).or_default().push(event);
            }
            let accepted = Accepted {
                send_no: append.send_no,
                id: append.id,
                conversation: append.conversation,
                seq: append.send_no.0,
                place: Place::new(self.heads[append.sender.0 as usize], Epoch(1)),
                class: append.class,
            };
            outcomes.push((key, Outcome::Appended(accepted)));
        }
        let deliveries =
            deliveries.into_iter().map(|(user, events)| Delivery { user, events }).collect();
        (outcomes, deliveries)
    }
}
