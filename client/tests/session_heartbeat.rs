//! The longest heartbeat that a network bears is found, against a NAT that forgets idle links.

mod support;

use proptest::prelude::*;
use starling_client::{
    KnownNetwork, MemoryStore, Network, Session, SessionSettings, TooLong, Wish,
    codec::{
        ErrorCode, Kind, append_frame, append_pong, limits,
        wire::{self, AppState},
    },
};
use support::*;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
/// From a PING to its PONG.
const ROUND_TRIP_MS: u64 = 200;
/// What the server wishes for.
const WISH_S: u32 = 30;

fn background() -> SessionSettings {
    SessionSettings { app_state: AppState::Background, ..SessionSettings::default() }
}

fn network(name: &str) -> Network {
    Network::named(name).unwrap()
}

fn desk(store: MemoryStore, settings: SessionSettings) -> Desk {
    Desk { session: Session::load(store, settings, 42).unwrap(), now_ms: 5_000 }
}

/// A device, a server, and between them a NAT.
struct Road {
    desk: Desk,
    wish_s: u32,
    /// How long the NAT remembers an idle link; `None`: it forgets none.
    memory_ms: Option<u64>,
    /// What it does not know it answers with a reset.
    resets: bool,
    /// When the link was last used, on the device's side of the NAT, and heard of by the server.
    used_ms: u64,
    heard_ms: u64,
    heartbeat_s: u32,
    /// How often a link was opened, and how often one was lost to the NAT.
    opened: u32,
    lost: u32,
    forgotten: bool,
}

impl Road {
    fn new(memory_s: Option<u64>) -> Road {
        Road::with(desk(store(), background()), memory_s)
    }

    fn with(desk: Desk, memory_s: Option<u64>) -> Road {
        Road {
            desk,
            wish_s: WISH_S,
            memory_ms: memory_s.map(|seconds| seconds * SECOND),
            resets: false,
            used_ms: 0,
            heard_ms: 0,
            heartbeat_s: 0,
            opened: 0,
            lost: 0,
            forgotten: false,
        }
    }

    /// Lets so much time pass.
    fn run(&mut self, ms: u64) {
        let end_ms = self.desk.now_ms + ms;
        loop {
            let next_ms = match self.desk.session.wish() {
                Wish::OpenAt(at_ms) => at_ms,
                _ => self.desk.session.next_deadline().unwrap(),
            };
            if next_ms > end_ms {
                break;
            }
            self.desk.now_ms = self.desk.now_ms.max(next_ms);
            let now_ms = self.desk.now_ms;
            match self.desk.session.wish() {
                Wish::OpenAt(_) => self.open(),
                _ => self.desk.session.tick(now_ms),
            }
            self.carry();
        }
        self.desk.now_ms = end_ms;
    }

    fn open(&mut self) {
        self.lost += u32::from(self.forgotten);
        self.forgotten = false;
        self.opened += 1;
        (self.used_ms, self.heard_ms) = (self.desk.now_ms, self.desk.now_ms);
        self.desk.session.opened(self.desk.now_ms);
    }

    /// Takes what the session says through the NAT, and the server's answers back.
    fn carry(&mut self) {
        let sent = self.desk.sent();
        if sent.is_empty() {
            return;
        }
        let now_ms = self.desk.now_ms;
        self.forgotten |= self.memory_ms.is_some_and(|memory| now_ms - self.used_ms > memory);
        if self.forgotten {
            if self.resets {
                self.desk.session.closed(now_ms);
            }
            return;
        }
        let patience = u64::from(self.heartbeat_s) * SECOND * limits::SILENCE_HALF_HEARTBEATS / 2;
        assert!(now_ms - self.heard_ms <= patience, "the server would have closed");
        self.heard_ms = now_ms;
        let mut answers = Vec::new();
        for frame in sent {
            match frame.kind {
                Kind::Hello => self.welcome(&frame.read(), &mut answers),
                Kind::Ping => append_pong(&mut answers),
                Kind::Refresh => {
                    let grant = wire::Grant {
                        request_id: frame.read::<wire::Refresh>().request_id,
                        user: ME.0,
                        device: DEVICE.0,
                        token: "fresh".into(),
                        expires_ms: SERVER_MS + now_ms + LIFE_MS,
                        ..Default::default()
                    };
                    append_frame(&mut answers, Kind::Grant, &grant);
                }
                _ => {}
            }
        }
        self.desk.now_ms += ROUND_TRIP_MS;
        self.used_ms = self.desk.now_ms;
        self.desk.session.receive(self.desk.now_ms, &answers);
    }

    fn welcome(&mut self, hello: &wire::Hello, answers: &mut Vec<u8>) {
        self.heartbeat_s = self.wish_s.clamp(hello.heartbeat_min_s, hello.heartbeat_max_s);
        let time_ms = SERVER_MS + self.desk.now_ms;
        let welcome = wire::Welcome { heartbeat_s: self.heartbeat_s, time_ms, ..welcome() };
        append_frame(answers, Kind::Welcome, &welcome);
    }

    fn known(&self) -> &[KnownNetwork] {
        &self.desk.session.store().saved().networks
    }
}

#[test]
fn one_link_is_lost_to_find_more_than_half_of_what_a_nat_bears() {
    for memory_s in (20..900).step_by(8) {
        let mut road = Road::new(Some(memory_s));
        road.run(20 * HOUR);
        let found_s = u64::from(road.heartbeat_s);
        assert!(found_s <= memory_s && memory_s < found_s * 2, "{found_s} of {memory_s}");
        assert_eq!(road.lost, 1, "{memory_s}");
    }
}

#[test]
fn where_nothing_forgets_the_longest_is_found_within_an_hour_and_no_link_is_lost() {
    let mut road = Road::new(None);
    road.run(HOUR);
    assert_eq!((road.heartbeat_s, road.lost), (limits::MAX_HEARTBEAT_S, 0));
    // 30, 60, 120, 240, 480, 900.
    assert_eq!(road.opened, 6);
    road.run(10 * DAY);
    assert_eq!((road.opened, road.lost), (6, 0));
}

#[test]
fn an_app_that_wants_no_long_heartbeats_gets_none() {
    let settings = SessionSettings { heartbeat_max_s: 100, ..background() };
    let mut road = Road::with(desk(store(), settings), None);
    road.run(DAY);
    assert_eq!(road.heartbeat_s, 100);
}

#[test]
fn a_server_that_grants_no_longer_heartbeat_is_asked_once() {
    let mut desk = desk(store(), background());
    let mut asked = Vec::new();
    for _ in 0..100 {
        if desk.is_offline() {
            asked.push(desk.open().heartbeat_min_s);
            desk.give(Kind::Welcome, &welcome());
        }
        desk.wait(30_000);
        desk.session.receive(desk.now_ms, &[1, Kind::Pong as u8]);
    }
    assert_eq!(asked, [limits::MIN_HEARTBEAT_S, 60]);
}

#[test]
fn a_nat_that_resets_what_it_forgot_costs_two_links() {
    let mut road = Road::new(Some(350));
    road.resets = true;
    road.run(20 * HOUR);
    assert_eq!((road.heartbeat_s, road.lost), (240, 2));
}

#[test]
fn what_was_too_long_is_tried_again_after_a_day_and_not_before() {
    let mut road = Road::new(Some(300));
    road.run(23 * HOUR);
    assert_eq!((road.heartbeat_s, road.lost), (240, 1));
    road.run(9 * DAY + HOUR);
    assert!((9..=10).contains(&road.lost), "{}", road.lost);
    assert_eq!(road.heartbeat_s, 240);
    road.memory_ms = None;
    road.run(2 * DAY);
    assert_eq!(road.heartbeat_s, limits::MAX_HEARTBEAT_S);
}

#[test]
fn networks_are_learnt_each_by_itself_and_asked_for_at_once() {
    let mut road = Road::new(None);
    for _ in 0..10 {
        for (name, memory_ms) in [("cellular", Some(250 * SECOND)), ("wifi", None)] {
            road.memory_ms = memory_ms;
            road.desk.session.change_network(road.desk.now_ms, network(name));
            assert_eq!(road.desk.session.wish(), Wish::OpenAt(road.desk.now_ms));
            road.run(HOUR);
        }
    }
    assert_eq!(road.lost, 1);
    let of = |name| road.known().iter().find(|known| known.network == network(name)).unwrap();
    let too_long = of("cellular").too_long.map(|too_long| too_long.heartbeat_s);
    assert_eq!((of("cellular").heartbeat_s, too_long), (240, Some(480)));
    assert_eq!((of("wifi").heartbeat_s, of("wifi").too_long), (limits::MAX_HEARTBEAT_S, None));

    // Another process begins where this one was.
    let settings = SessionSettings { network: network("cellular"), ..background() };
    let mut road = Road::with(desk(road.desk.session.into_store(), settings), Some(250));
    road.run(HOUR);
    assert_eq!((road.heartbeat_s, road.opened, road.lost), (240, 1, 0));
}

/// A desk that knows 60 seconds to be borne, in the background, on a new link.
fn known_60() -> Desk {
    let mut store = store();
    let known = KnownNetwork { heartbeat_s: 60, ..KnownNetwork::default() };
    starling_client::Store::commit(&mut store, &[starling_client::Change::Network(known)]).unwrap();
    let mut desk = desk(store, background());
    come_online_with(&mut desk);
    desk
}

/// How a link ends.
type Ending = fn(&mut Desk);

/// Opens a link, on which the server grants what is asked for. Gives that, in seconds.
fn come_online_with(desk: &mut Desk) -> u32 {
    let hello = desk.open();
    assert_eq!(hello.heartbeat_min_s, hello.heartbeat_max_s);
    let heartbeat_s = hello.heartbeat_min_s;
    let time_ms = SERVER_MS + desk.now_ms;
    desk.give(Kind::Welcome, &wire::Welcome { heartbeat_s, time_ms, ..welcome() });
    heartbeat_s
}

/// Does what is due for so long.
fn wait_by_ticks(desk: &mut Desk, ms: u64) {
    let end_ms = desk.now_ms + ms;
    while desk.session.is_live()
        && let Some(at_ms) = desk.session.next_deadline()
        && at_ms <= end_ms
    {
        desk.wait(at_ms.saturating_sub(desk.now_ms));
    }
    desk.now_ms = end_ms;
}

/// Without a word for 1.5 of 120 seconds.
fn die_idle(desk: &mut Desk) {
    wait_by_ticks(desk, 181_000);
}

#[test]
fn what_did_not_die_of_idling_teaches_nothing() {
    let endings: [(&str, Ending); 8] = [
        ("events flow, and then nothing does", |desk| {
            for seq in 1..12 {
                wait_by_ticks(desk, 10_000);
                desk.give_events([event(seq, 1)]);
            }
            wait_by_ticks(desk, 181_000);
        }),
        ("messages go, and no answer comes", |desk| {
            for _ in 1..20 {
                wait_by_ticks(desk, 10_000);
                desk.send(desk.now_ms);
            }
        }),
        ("a reset", |desk| {
            wait_by_ticks(desk, 110_000);
            desk.lose_link();
        }),
        ("the server closes", |desk| {
            wait_by_ticks(desk, 121_000);
            let code = ErrorCode::Overload as u32;
            desk.give(Kind::Close, &wire::Close { code, ..Default::default() });
        }),
        ("another network", |desk| {
            wait_by_ticks(desk, 121_000);
            desk.session.change_network(desk.now_ms, Network::default());
        }),
        ("a device that slept", |desk| {
            desk.wait(150_000);
            wait_by_ticks(desk, 181_000);
        }),
        ("a person looks", |desk| {
            wait_by_ticks(desk, 20_000);
            desk.session.set_app_state(desk.now_ms, AppState::Foreground);
            wait_by_ticks(desk, 181_000);
            desk.session.set_app_state(desk.now_ms, AppState::Background);
        }),
        ("no network for a moment", |desk| {
            die_idle(desk);
            desk.lose_link();
        }),
    ];
    for (name, end) in endings {
        let mut desk = known_60();
        for _ in 0..5 {
            end(&mut desk);
            assert!(desk.is_offline(), "{name}");
            assert_eq!(come_online_with(&mut desk), 120, "{name}");
        }
    }
    // And what did.
    let mut desk = known_60();
    die_idle(&mut desk);
    assert_eq!(come_online_with(&mut desk), 60);
    let known = &desk.session.store().saved().networks[0];
    let at_ms = SERVER_MS + 5_000 + 180_000;
    assert_eq!(known.too_long, Some(TooLong { heartbeat_s: 120, at_ms }));
}

#[test]
fn an_idle_link_after_much_to_catch_up_with_teaches_too() {
    let mut desk = known_60();
    wait_by_ticks(&mut desk, 2_000);
    desk.give_events((1..100).map(|seq| event(seq, 1)));
    wait_by_ticks(&mut desk, 200_000);
    assert_eq!(come_online_with(&mut desk), 60);
}

#[test]
fn a_heartbeat_that_is_borne_is_given_up_when_two_links_in_a_row_die_of_it() {
    let mut desk = known_60();
    wait_by_ticks(&mut desk, 181_000);
    // 120 is too long, 60 is borne: a death now and then does not change that.
    for _ in 0..5 {
        assert_eq!(come_online_with(&mut desk), 60);
        wait_by_ticks(&mut desk, 60_000);
        desk.session.receive(desk.now_ms, &[1, Kind::Pong as u8]);
        wait_by_ticks(&mut desk, 91_000);
    }
    assert_eq!(come_online_with(&mut desk), 60);
    wait_by_ticks(&mut desk, 91_000);
    assert_eq!(come_online_with(&mut desk), 30);
}

#[test]
fn while_a_person_looks_heartbeats_are_short() {
    let mut road = Road::with(desk(store(), SessionSettings::default()), None);
    road.run(DAY);
    assert_eq!((road.heartbeat_s, road.opened), (WISH_S, 1));
    road.desk.session.set_app_state(road.desk.now_ms, AppState::Background);
    road.run(HOUR);
    assert_eq!(road.heartbeat_s, limits::MAX_HEARTBEAT_S);

    // She looks again: the link is asked after at once, and given up after 1.5 minutes.
    road.run(500 * SECOND);
    let mut desk = road.desk;
    desk.session.set_app_state(desk.now_ms, AppState::Foreground);
    assert_eq!(kinds(&desk.sent()), [Kind::Ping]);
    let asked_ms = desk.now_ms;
    wait_by_ticks(&mut desk, 89_999);
    assert!(desk.session.is_live());
    assert_eq!(kinds(&desk.sent()), [Kind::Ping]);
    assert_eq!(desk.session.next_deadline(), Some(asked_ms + 90_000));
    wait_by_ticks(&mut desk, 1);
    assert!(desk.is_offline());
    let hello = desk.open();
    assert_eq!((hello.heartbeat_min_s, hello.heartbeat_max_s), (limits::MIN_HEARTBEAT_S, 60));
}

#[test]
fn another_network_is_not_waited_for_unless_the_server_asked_for_time() {
    let mut desk = Desk::new();
    for _ in 0..20 {
        desk.lose_link();
    }
    desk.session.change_network(desk.now_ms, network("wifi"));
    assert_eq!(desk.session.wish(), Wish::OpenAt(desk.now_ms));
    desk.open();
    let code = ErrorCode::Overload as u32;
    desk.give(Kind::Close, &wire::Close { code, retry_after_ms: 9_000, ..Default::default() });
    desk.session.change_network(desk.now_ms, network("cellular"));
    assert_eq!(desk.session.wish(), Wish::OpenAt(desk.now_ms + 9_000));
    desk.session.close();
    desk.session.change_network(desk.now_ms, network("wifi"));
    assert_eq!(desk.session.wish(), Wish::Close);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_forgets_and_whatever_the_server_wishes_few_links_are_lost(
        memory_s in 20u64..2_000,
        wish_s in limits::MIN_HEARTBEAT_S..=limits::MAX_HEARTBEAT_S,
        resets: bool,
    ) {
        let mut road = Road::new(Some(memory_s));
        (road.wish_s, road.resets) = (wish_s, resets);
        road.run(20 * HOUR);
        let found_s = u64::from(road.heartbeat_s);
        prop_assert!(found_s <= memory_s, "{}", found_s);
        prop_assert!(found_s * 2 > memory_s.min(limits::MAX_HEARTBEAT_S.into()), "{}", found_s);
        // At a first wish of a minute, where no half of it is borne either.
        let most = if resets { 4 } else if memory_s < 30 { 3 } else { 1 };
        prop_assert!(road.lost <= most, "{}", road.lost);
        let lost = road.lost;
        road.run(3 * HOUR);
        prop_assert_eq!((u64::from(road.heartbeat_s), road.lost), (found_s, lost));
    }
}
