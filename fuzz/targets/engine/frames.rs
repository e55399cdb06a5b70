//! The frames of a script: as clients write them, with odd values, with bodies of rubbish, and
//! bytes that are no frames.

use crate::{
    line::Line,
    world::{OPERATOR_KEY, World, peer::opening},
};
use starling_codec::{
    ConversationId, Kind, UserId, append_frame, append_header, append_ping, wire,
};
use starling_fuzz::Script;

const NAMES: [&str; 5] =
    ["ada", "bob", "Eve", "", "a name that is much too long for a user's name"];
const PASSWORDS: [&str; 3] = ["correct horse", "battery staple", "short"];
const SIZES: [usize; 7] = [5, 0, 1, 200, 4_000, 32 * 1024, 32 * 1024 + 1];

/// Who may log in, and with which tokens.
pub struct People {
    tokens: Vec<(UserId, Vec<u8>)>,
}

impl People {
    pub fn new(world: &mut World) -> People {
        let (ada, phone) = world.user("ada");
        let laptop = world.device(ada);
        let (bob, bobs) = world.user("bob");
        People { tokens: vec![(ada, phone), (ada, laptop), (bob, bobs)] }
    }

    /// A token that the server gave.
    pub fn keep(&mut self, user: UserId, token: Vec<u8>) {
        if self.tokens.len() < 8 {
            self.tokens.push((user, token));
        }
    }

    /// The next frame of a line.
    pub fn append_frame(&self, script: &mut Script, world: &World, line: &mut Line) {
        let out = &mut line.flight;
        match script.byte() % 24 {
            0..=3 => {
                let (user, token) = self.token(script);
                line.users.push(user);
                append_frame(out, Kind::Hello, &hello(script, token));
            }
            4..=8 => append_frame(out, Kind::Send, &send(script)),
            9 | 10 => {
                let head = world.store.head(UserId(1));
                let cursor = place(script, head);
                append_frame(out, Kind::Ack, &wire::Ack { cursor });
            }
            11 => {
                line.sent_sync = true;
                let after = place(script, world.store.head(UserId(1)));
                append_frame(out, Kind::Sync, &wire::Sync { after });
            }
            12 => append_frame(out, Kind::History, &history(script)),
            13 => {
                let who = match script.below(3) {
                    0 => None,
                    1 => Some(wire::resolve::Who::Name(name(script))),
                    _ => Some(wire::resolve::Who::User(script.number() as u32)),
                };
                let request_id = script.number() as u32;
                append_frame(out, Kind::Resolve, &wire::Resolve { request_id, who });
            }
            14 => {
                let register = wire::Register {
                    opening: odd_opening(script),
                    name: name(script),
                    password: password(script),
                    platform: String::new(),
                };
                append_frame(out, Kind::Register, &register);
            }
            15 => {
                let login = wire::Login {
                    opening: odd_opening(script),
                    name: name(script),
                    password: password(script),
                    device: script.number() as u32,
                    platform: String::new(),
                };
                append_frame(out, Kind::Login, &login);
            }
            16 => {
                let key = if script.flag() { OPERATOR_KEY } else { script.some_bytes() };
                let operator =
                    wire::Operator { opening: odd_opening(script), key: key.to_vec().into() };
                append_frame(out, Kind::Operator, &operator);
            }
            17 => {
                let request_id = script.number() as u32;
                match script.below(5) {
                    0 => append_frame(out, Kind::Refresh, &wire::Refresh { request_id }),
                    1 => append_frame(out, Kind::Logout, &wire::Logout { request_id }),
                    2 => {
                        let change = wire::ChangePassword {
                            request_id,
                            old_password: password(script),
                            new_password: password(script),
                        };
                        append_frame(out, Kind::ChangePassword, &change);
                    }
                    3 => append_frame(out, Kind::Stats, &wire::Stats { request_id }),
                    _ => {
                        let names = (0..script.below(4)).map(|_| name(script)).collect();
                        let create = wire::CreateUsers { request_id, names, ..Default::default() };
                        append_frame(out, Kind::CreateUsers, &create);
                    }
                }
            }
            18 => {
                let count = script.one_of(&[1, 2, 70, 600]);
                (0..count).for_each(|_| append_ping(out));
            }
            19 => {
                line.said_goodbye = true;
                append_frame(out, Kind::Dishello, &());
            }
            // A kind, known or not, with any body.
            20 | 21 => {
                line.sent_anything = true;
                let kind = script.one_of(Kind::ALL);
                let body = script.some_bytes();
                append_header(out, kind, body.len());
                out.extend_from_slice(body);
            }
            // The beginning of a frame that is as large as may be, or larger.
            22 => {
                let bytes = script.one_of(&[4 * 1024, 64 * 1024, 64 * 1024 + 1, 256 * 1024]);
                append_header(out, Kind::Send, bytes - 1);
                let sent = script.one_of(&[10, 3_000, bytes / 2]);
                out.resize(out.len() + sent, 7);
                // The next frames of the line are part of this one.
                line.sent_anything = true;
            }
            _ => {
                line.sent_anything = true;
                out.extend_from_slice(script.some_bytes());
            }
        }
    }

    fn token(&self, script: &mut Script) -> (UserId, Vec<u8>) {
        let mut token = script.one_of(&self.tokens);
        // A forged one, now and then.
        if script.byte() % 16 == 15 {
            let at = script.index(token.1.len());
            token.1[at] ^= 1 << script.below(8);
        }
        token
    }
}

fn hello(script: &mut Script, token: Vec<u8>) -> wire::Hello {
    let opening = odd_opening(script);
    let mut hello = wire::Hello { opening, token: token.into(), ..Default::default() };
    if script.flag() {
        hello.connect_no = script.number();
        hello.cursor = place(script, 0);
        hello.highest = place(script, 0);
        hello.last_epoch = script.number() as u32;
        hello.last_tag = script.number();
    }
    if script.flag() {
        hello.window_events = script.number() as u32;
        hello.window_bytes = script.number() as u32;
        hello.heartbeat_min_s = script.number() as u32;
        hello.heartbeat_max_s = script.number() as u32;
    }
    hello
}

/// Usually as it should be.
fn odd_opening(script: &mut Script) -> Option<wire::Opening> {
    let mut opening = opening()?;
    match script.byte() {
        250 => return None,
        251 => opening.magic ^= 1,
        252 => opening.version = script.number() as u32,
        253 => opening.client = script.text() + &script.text(),
        254 => opening.capabilities = script.number(),
        _ => {}
    }
    Some(opening)
}

fn send(script: &mut Script) -> wire::Send {
    let to = match script.byte() {
        0..=99 => Some(wire::send::To::User(1)),
        100..=199 => Some(wire::send::To::User(2)),
        200..=219 => Some(wire::send::To::User(script.number() as u32)),
        220..=239 => Some(wire::send::To::Conversation(conversation(script))),
        _ => None,
    };
    let send_no = script.number();
    let oldest = if script.flag() { script.number() } else { send_no.saturating_sub(3).max(1) };
    wire::Send {
        send_no,
        nonce: send_no.wrapping_add(script.byte() as u64 / 128),
        oldest,
        to,
        class: i32::from(script.byte() % 4),
        content: vec![b'x'; script.one_of(&SIZES)].into(),
        ..Default::default()
    }
}

fn conversation(script: &mut Script) -> u64 {
    match script.below(3) {
        0 => ConversationId::direct(UserId(1), UserId(2)).0,
        1 => ConversationId::direct(UserId(2), UserId(2)).0,
        _ => script.number(),
    }
}

fn history(script: &mut Script) -> wire::History {
    wire::History {
        request_id: script.number() as u32,
        of: match script.below(3) {
            0 => None,
            1 => Some(wire::history::Of::User(script.number() as u32)),
            _ => Some(wire::history::Of::Conversation(conversation(script))),
        },
        start: match script.below(3) {
            0 => None,
            1 => Some(wire::history::Start::BeforeSeq(script.number())),
            _ => Some(wire::history::Start::AfterSeq(script.number())),
        },
        limit: script.number() as u32,
    }
}

/// Anywhere, or where an inbox ends.
fn place(script: &mut Script, head: u64) -> Option<wire::Place> {
    match script.below(4) {
        0 => None,
        1 => Some(wire::Place { seq: head, epoch: 1 }),
        2 => Some(wire::Place { seq: script.number(), epoch: 1 }),
        _ => Some(wire::Place { seq: script.number(), epoch: script.number() as u32 }),
    }
}

fn name(script: &mut Script) -> String {
    if script.flag() { script.one_of(&NAMES).to_owned() } else { script.text() }
}

fn password(script: &mut Script) -> String {
    script.one_of(&PASSWORDS).to_owned()
}
