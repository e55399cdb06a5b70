//! A script of frames, whole, cut and broken, of time that passes, of kernels that take little, and
//! of what the store does, against real engines over a stand-in of the store. Whatever happens:
//! nothing panics or grows without a bound; each connection hears only what its state allows, its
//! own events as they stand in the inbox, and why it is closed; and when the script is over a
//! newcomer is served as if nothing had been, and nothing of the others is left.
#![no_main]

#[path = "../../../engine/tests/world/mod.rs"]
mod world;

mod frames;
mod line;

use frames::People;
use libfuzzer_sys::fuzz_target;
use line::Line;
use starling_codec::{
    Answer, Epoch, ErrorCode, Kind, Place, Resumption, append_frame, limits::MAX_LARGE_FRAME_BYTES,
    wire,
};
use starling_fuzz::Script;
use world::World;

/// Connections of one script.
const MOST_LINES: usize = 10;
/// Steps of one script, so that no input is slow.
const MOST_STEPS: usize = 400;
/// What a connection may have unsent: answers to what it had asked for before it was no longer
/// read from, and the frame that says it is too much.
const MOST_OUTPUT_BYTES: usize = 4 * 1024 * 1024 + MAX_LARGE_FRAME_BYTES;
/// Unused input of a shard, with room for the one that is being looked at.
const MOST_BACKLOG_BYTES: u64 = 4 * 1024 * 1024;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let mut stage = Stage::new(&mut script);
    for _ in 0..MOST_STEPS {
        if script.is_over() {
            break;
        }
        stage.step(&mut script);
        stage.check();
    }
    stage.end();
});

struct Stage {
    world: World,
    people: People,
    lines: Vec<Line>,
    credits: u32,
}

impl Stage {
    fn new(script: &mut Script) -> Stage {
        let shards = 1 + script.below(2) as u16;
        let credits = script.one_of(&[2, 3, 5]);
        let rate = script.one_of(&[0, 0, 5]);
        let mut world = World::with(shards, |settings| {
            settings.credits = credits;
            settings.sends_per_second = rate;
        });
        world.keeps_log = false;
        let people = People::new(&mut world);
        Stage { world, people, lines: Vec::new(), credits }
    }

    fn step(&mut self, script: &mut Script) {
        let what = script.byte();
        match what % 32 {
            0 if self.lines.len() < MOST_LINES => {
                self.world.connect();
                self.lines.push(Line::default());
            }
            1..=15 => {
                if let Some(number) = self.any_line(script) {
                    let line = &mut self.lines[number];
                    self.people.append_frame(script, &self.world, line);
                }
            }
            16..=18 => {
                if let Some(number) = self.any_line(script) {
                    let flight = &mut self.lines[number].flight;
                    let count = script.one_of(&[usize::MAX, 1, 2, 7, 100, 5_000]);
                    let rest = flight.split_off(count.min(flight.len()));
                    self.world.send(number, &std::mem::replace(flight, rest));
                    self.world.step();
                }
            }
            19 => {
                self.world.step();
            }
            20 => self.world.run(),
            21 => {
                // A turn that comes seconds late finds what it had to say overdue.
                self.world.run();
                let ms = script.one_of(&[1, 250, 1_000, 5_000, 11_000, 46_000]);
                self.world.advance(ms);
            }
            // The wall clock steps, either way.
            22 => {
                let ms = script.one_of(&[1_000, 3_600_000]);
                let unix_ms = self.world.now.unix_ms;
                let back = script.flag();
                self.world.now.unix_ms = if back { unix_ms - ms } else { unix_ms + ms };
            }
            23 => {
                self.world.hold_commits = script.flag();
                self.world.hold_reads = script.flag();
            }
            24 if self.world.has_asked() => match script.below(3) {
                0 => self.world.answer_one_with(Answer::Failed(ErrorCode::Overload)),
                1 => self.world.answer_one_with(Answer::Failed(ErrorCode::UnknownOutcome)),
                _ => self.world.answer_one(),
            },
            25 => {
                self.world.batch = script.one_of(&[64, 1, 2]);
                self.world.fold = script.flag();
                self.world.commit();
            }
            26 => {
                self.world.store.full = script.flag();
                let code = script.flag().then_some(ErrorCode::DiskFull);
                for engine in &mut self.world.engines {
                    engine.refuse_commands(code);
                }
            }
            27 => {
                self.world.store.resumption = match script.below(3) {
                    0 => Resumption::Continues,
                    1 => Resumption::Rewind(Place::new(script.number(), Epoch(1))),
                    _ => Resumption::Reset,
                };
            }
            28 => {
                if let Some(number) = self.any_line(script) {
                    self.world.cut(number);
                    self.lines[number].is_cut = true;
                }
            }
            29 => {
                if let Some(number) = self.any_line(script) {
                    let takes = script.one_of(&[usize::MAX, 0, 1, 100, 10_000]);
                    self.world.links[number].takes = takes;
                    self.lines[number].took_little |= takes < usize::MAX;
                    self.world.write(number);
                }
            }
            30 => {
                for engine in &mut self.world.engines {
                    engine.rest();
                }
            }
            31 if script.below(4) == 0 => {
                self.world.restart_engines();
                for line in &mut self.lines {
                    line.is_cut = true;
                }
            }
            _ => {}
        }
    }

    fn any_line(&self, script: &mut Script) -> Option<usize> {
        let count = self.lines.len();
        (count > 0).then(|| script.below(count))
    }

    /// What must be true at any moment.
    fn check(&mut self) {
        for (number, line) in self.lines.iter_mut().enumerate() {
            line.look(&mut self.world, &mut self.people, number);
            let Some(ticket) = self.world.links[number].ticket else { continue };
            let unsent = self.world.engines[usize::from(ticket.shard)].output(ticket).len();
            assert!(unsent <= MOST_OUTPUT_BYTES, "{unsent} bytes wait for connection {number}");
        }
        for engine in &self.world.engines {
            assert!(engine.counters().unfinished_bytes <= MOST_BACKLOG_BYTES);
        }
    }

    /// Faults end, and everything comes to rest.
    fn end(mut self) {
        let world = &mut self.world;
        (world.hold_commits, world.hold_reads, world.fold) = (false, false, false);
        (world.batch, world.store.full) = (64, false);
        world.store.resumption = Resumption::Continues;
        for engine in &mut world.engines {
            engine.refuse_commands(None);
        }
        for link in 0..world.links.len() {
            world.links[link].takes = usize::MAX;
            world.write(link);
        }
        for _ in 0..4 {
            world.advance(1_000);
        }
        self.check();
        self.serve_a_newcomer();
        for number in 0..self.world.links.len() {
            self.world.cut(number);
        }
        self.world.run();
        for engine in &mut self.world.engines {
            let counters = engine.counters();
            let left = [
                counters.connections,
                counters.sessions,
                counters.users,
                counters.unfinished_bytes,
            ];
            assert_eq!(left, [0; 4], "connections, sessions, users, bytes of input");
        }
    }

    /// As many sends at once as there are credits are all taken: none was lost on the way.
    fn serve_a_newcomer(&mut self) {
        let world = &mut self.world;
        let (user, token) = world.user("a newcomer");
        let link = world.connect();
        world.send(link, &world::peer::Peer::new(token).hello());
        world.run();
        let kinds: Vec<Kind> = world.frames(link).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::Welcome]);
        let sends = self.credits;
        let mut flight = Vec::new();
        for send_no in 1..=u64::from(sends) {
            let to = Some(wire::send::To::User(user.0));
            let content = b"hello"[..].into();
            let send = wire::Send { send_no, oldest: 1, content, to, ..Default::default() };
            append_frame(&mut flight, Kind::Send, &send);
        }
        world.send(link, &flight);
        world.run();
        let frames = world.frames(link);
        let acked = frames.iter().filter(|(kind, _)| *kind == Kind::SendAck).count();
        assert_eq!(acked, sends as usize, "{frames:?}");
    }
}
