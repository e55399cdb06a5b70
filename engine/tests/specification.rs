//! The specification against the code: which kind is allowed in which state, and what leads from
//! state to state.

mod world;

use prost::Message;
use starling_codec::{
    Direction, ErrorCode, Kind, UserId, append_frame,
    limits::{MAX_HEARTBEAT_S, OPENING_TIMEOUT_MS, SILENCE_HALF_HEARTBEATS},
    wire,
};
use starling_engine::{Phase, allowed};
use world::{
    OPERATOR_KEY, World,
    peer::{Peer, opening},
};

/// The table of section 4 that begins so, header and all, without the line below the header.
fn table(begin: &str) -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol-spec.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with(begin))
        .take_while(|line| line.starts_with('|'))
        .filter(|line| !line.starts_with("|---"));
    let cells = |line: &str| {
        let line = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
        line.expect("a row").split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

#[test]
fn the_table_of_states_is_what_the_engine_does() {
    let rows = table("| kind | OPENING |");
    let mut rows = rows.iter().map(|row| row.iter().map(String::as_str).collect::<Vec<_>>());
    let header = rows.next().expect("the table of section 4");
    let phases: Vec<&str> = Phase::ALL.iter().map(|phase| phase.name()).collect();
    assert_eq!(header[1..], phases);
    let rows: Vec<Vec<&str>> = rows.collect();
    let row = |name: &str| rows.iter().find(|row| row[0] == name);
    for &kind in Kind::ALL {
        let told = row(kind.name()).or(row("any other")).expect("a row");
        assert_eq!(kind.direction() == Direction::Server, told[0] == "any other");
        for (&phase, &word) in Phase::ALL.iter().zip(&told[1..]) {
            let expected = match phase {
                Phase::Checking => "waits",
                Phase::Closing => "ignored",
                _ if allowed(kind, phase) => "yes",
                _ => "closes",
            };
            assert_eq!(word, expected, "{} in {}", kind.name(), phase.name());
        }
    }
}

const PASSWORD: &str = "correct horse";

/// A connection, on a server that knows Ada, who has a password.
struct Stage {
    world: World,
    link: usize,
    token: Vec<u8>,
    revoked: Vec<u8>,
}

impl Stage {
    fn new() -> Stage {
        let mut world = World::new(1);
        let link = world.connect();
        let mut stage = Stage { world, link, token: Vec::new(), revoked: Vec::new() };
        stage.register("ada");
        let (_, granted) = stage.world.frames(link).remove(0);
        let grant = wire::Grant::decode(&granted[..]).unwrap();
        stage.token = grant.token.to_vec();
        let user = UserId(grant.user);
        stage.revoked = stage.world.token(user, grant.device, 0);
        stage.link = stage.world.connect();
        stage
    }

    /// Where the ways out of `phase` begin, with a store that does not answer yet. What leads out of
    /// CHECKING is an opener, which is looked at when it does.
    fn at(phase: &str) -> Stage {
        let mut stage = Stage::new();
        match phase {
            "OPENING" | "CHECKING" => {}
            "SESSION" => stage.hello(stage.token.clone()),
            "OPERATOR" => stage.operator(OPERATOR_KEY),
            other => panic!("no way leads out of {other}"),
        }
        // What came until then is no answer to what happens next.
        stage.world.frames(stage.link);
        (stage.world.hold_reads, stage.world.hold_commits) = (true, true);
        stage
    }

    fn say<M: Message>(&mut self, kind: Kind, body: &M) {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, kind, body);
        self.world.send(self.link, &bytes);
        self.world.run();
    }

    fn hello(&mut self, token: Vec<u8>) {
        let hello = Peer::new(token).hello();
        self.world.send(self.link, &hello);
        self.world.run();
    }

    fn operator(&mut self, key: &[u8]) {
        let key = key.to_vec().into();
        self.say(Kind::Operator, &wire::Operator { opening: opening(), key });
    }

    fn register(&mut self, name: &str) {
        let (name, password) = (name.into(), PASSWORD.into());
        let platform = String::new();
        let register = wire::Register { opening: opening(), name, password, platform };
        self.say(Kind::Register, &register);
    }

    fn login(&mut self, password: &str) {
        let (name, password) = ("ada".into(), password.into());
        let login = wire::Login { opening: opening(), name, password, ..Default::default() };
        self.say(Kind::Login, &login);
    }

    /// The store answers what it was asked.
    fn answer(&mut self) {
        (self.world.hold_reads, self.world.hold_commits) = (false, false);
        self.world.run();
    }

    /// What came first, in the words of the table.
    fn answered(&mut self) -> String {
        let frames = self.world.frames(self.link);
        let Some((kind, body)) = frames.first() else { return String::new() };
        let request = match kind {
            Kind::Close => {
                let code = wire::Close::decode(&body[..]).unwrap().code;
                return format!("CLOSE {}", ErrorCode::from_number(code).unwrap().name());
            }
            Kind::Grant => wire::Grant::decode(&body[..]).unwrap().request_id,
            Kind::Refused => wire::Refused::decode(&body[..]).unwrap().request_id,
            Kind::Done => wire::Done::decode(&body[..]).unwrap().request_id,
            kind => return kind.name().to_owned(),
        };
        format!("{}, request {request}", kind.name())
    }

    /// Where it is, by what the table of kinds says of PING and STATS.
    fn phase(mut self) -> Phase {
        if self.world.links[self.link].closed {
            return Phase::Closing;
        }
        self.say(Kind::Ping, &());
        match &self.answered()[..] {
            "" => return Phase::Checking,
            "CLOSE WRONG_STATE" => return Phase::Opening,
            answer => assert_eq!(answer, "PONG"),
        }
        self.say(Kind::Stats, &wire::Stats::default());
        match &self.answered()[..] {
            "CLOSE WRONG_STATE" => Phase::Session,
            answer => {
                assert_eq!(answer, "STATS_PAGE");
                Phase::Operator
            }
        }
    }
}

type Form = fn(&mut Stage);

/// What may happen, each in so many forms; in a state that it can happen in.
const HAPPENINGS: &[(&str, &[Form])] = &[
    (
        "an opener comes",
        &[
            |stage| stage.hello(stage.token.clone()),
            |stage| stage.register("bob"),
            |stage| stage.login(PASSWORD),
        ],
    ),
    (
        "nothing comes for OPENING_TIMEOUT_MS",
        &[|stage| stage.world.wait(OPENING_TIMEOUT_MS / 1_000 + 1)],
    ),
    ("HELLO is right", &[|stage| stage.hello(stage.token.clone())]),
    ("HELLO is wrong", &[|stage| stage.hello(stage.revoked.clone()), |stage| stage.hello(vec![1])]),
    ("REGISTER or LOGIN succeeds", &[|stage| stage.register("bob"), |stage| stage.login(PASSWORD)]),
    (
        "REGISTER or LOGIN is refused",
        &[|stage| stage.register("Ada"), |stage| stage.login("another horse")],
    ),
    ("the operator's key is right", &[|stage| stage.operator(OPERATOR_KEY)]),
    ("the operator's key is wrong", &[|stage| stage.operator(b"another key")]),
    ("silence, see section 13", &[|stage| stage.world.wait(MAX_SILENCE_S)]),
    ("DISHELLO", &[|stage| stage.say(Kind::Dishello, &())]),
    (
        "the server has a reason, see section 14",
        &[|stage| {
            let now = stage.world.now;
            stage.world.engines[0].drain(now, ErrorCode::Draining);
            stage.world.run();
        }],
    ),
];

/// In whatever state.
const MAX_SILENCE_S: u64 = MAX_HEARTBEAT_S as u64 * SILENCE_HALF_HEARTBEATS / 2 + 1;

#[test]
fn the_ways_from_state_to_state_are_those_of_the_engine() {
    let rows = table("| from | what happens |");
    assert_eq!(rows[0], ["from", "what happens", "answer", "to"]);
    let told: Vec<&str> = rows[1..].iter().map(|row| &row[1][..]).collect();
    let known: Vec<&str> = HAPPENINGS.iter().map(|(what, _)| *what).collect();
    assert_eq!(told, known);
    for (row, (what, forms)) in rows[1..].iter().zip(HAPPENINGS) {
        let (from, answer, to) = (&row[0][..], &row[2][..], &row[3][..]);
        let anywhere = from == "any";
        let from = if anywhere { "OPENING, CHECKING, SESSION, OPERATOR" } else { from };
        for from in from.split(", ") {
            for form in *forms {
                let mut stage = Stage::at(from);
                if anywhere && from == "CHECKING" {
                    stage.hello(stage.token.clone());
                }
                form(&mut stage);
                if to != "CHECKING" {
                    stage.answer();
                }
                let answered = stage.answered();
                match answer {
                    "CLOSE" | "CLOSE with the code" => assert!(answered.starts_with("CLOSE ")),
                    answer => assert_eq!(answered, answer, "{what} in {from}"),
                }
                assert_eq!(stage.phase().name(), to, "{what} in {from}");
            }
        }
    }
}
