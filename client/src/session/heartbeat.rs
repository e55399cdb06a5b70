//! Heartbeats, and the longest that the way to the server bears.
//!
//! Boxes on the way (NATs, firewalls) forget a link that was idle for some time, which differs by
//! network and is told nobody: the link then dies in silence. So the longest heartbeat that a
//! network bears is found by trying. On a network that is not known the server chooses a short one.
//! A heartbeat that was answered often enough is known to be borne, and while no person looks twice
//! of it is tried; one at which an idle link died, although the server could be reached at once
//! after it, is too long for a day. So what is found is more than half of what the network bears,
//! for the price of one lost link. While a person looks heartbeats stay short, as a link that died
//! for another reason is to be found soon.

use super::{Session, SessionSettings, State};
use crate::{Change, KnownNetwork, Network, Store, TooLong};
use starling_codec::{append_ping, limits, wire::AppState};

/// Longest heartbeat while a person looks, or on a network that is not known, in seconds.
const CAUTIOUS_HEARTBEAT_S: u32 = 60;
/// Heartbeats of a length that must be answered before it is known to be borne.
const ANSWERS: u32 = 3;
/// Deaths in a row at a heartbeat that is known to be borne, before it is so no more.
const DEATHS: u32 = 2;
/// How long a heartbeat at which a link died is not tried again, in milliseconds.
const AVOIDED_MS: u64 = 24 * 60 * 60 * 1_000;
/// How much longer or shorter than its heartbeat a link may have been idle, in milliseconds: an
/// answer comes a little after its PING, and a clock may wake us a little late.
const SLACK_MS: u64 = 5_000;

/// What a session has learnt of networks.
#[derive(Debug)]
pub(super) struct Heartbeat {
    network: Network,
    known: Vec<KnownNetwork>,
    /// The least that the last HELLO asked for, in seconds.
    asked_s: u32,
    /// The heartbeat that was answered last, in seconds, and how often in a row.
    answered: (u32, u32),
    /// Links that died in a row, with no heartbeat answered in between.
    deaths: u32,
    /// How the last link died, until it is known whether the network was there at all.
    suspicion: Option<Suspicion>,
}

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    too_long: TooLong,
    /// Without a reset, which others send too.
    in_silence: bool,
}

impl Heartbeat {
    pub fn new(network: Network, known: Vec<KnownNetwork>) -> Heartbeat {
        Heartbeat { network, known, asked_s: 0, answered: (0, 0), deaths: 0, suspicion: None }
    }

    /// What was half learnt of the last network is forgotten.
    fn change_network(&mut self, network: Network) {
        *self = Heartbeat::new(network, std::mem::take(&mut self.known));
    }

    /// The range that HELLO asks for now, in seconds.
    fn range_s(&self, settings: &SessionSettings) -> (u32, u32) {
        let least =
            settings.heartbeat_min_s.clamp(limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S);
        let most = match settings.heartbeat_max_s {
            0 => limits::MAX_HEARTBEAT_S,
            most => most.clamp(least, limits::MAX_HEARTBEAT_S),
        };
        let known = self.known();
        if settings.app_state == AppState::Background && known.heartbeat_s > 0 {
            let heartbeat_s = known.next_s(most).clamp(least, most);
            return (heartbeat_s, heartbeat_s);
        }
        let cautious = match known.too_long {
            Some(too_long) if too_long.heartbeat_s <= CAUTIOUS_HEARTBEAT_S => known.heartbeat_s,
            _ => CAUTIOUS_HEARTBEAT_S,
        };
        (least, cautious.clamp(least, most))
    }

    /// As [`Heartbeat::range_s`], and it is asked for.
    pub fn ask_s(&mut self, settings: &SessionSettings) -> (u32, u32) {
        let range_s = self.range_s(settings);
        self.asked_s = range_s.0;
        range_s
    }

    /// Whether another HELLO would ask for more than the last.
    fn wants_more(&self, settings: &SessionSettings) -> bool {
        self.range_s(settings).0 > self.asked_s
    }

    /// A link that was idle for a whole heartbeat is still there.
    fn is_answered(&mut self, heartbeat_s: u32, server_ms: u64) -> Option<Change> {
        let (last_s, times) = self.answered;
        let times = if last_s == heartbeat_s { times.saturating_add(1) } else { 1 };
        self.answered = (heartbeat_s, times);
        self.deaths = 0;
        let mut known = self.known();
        // By either sign: the server's clock may have been wrong.
        known.too_long =
            known.too_long.filter(|too_long| too_long.at_ms.abs_diff(server_ms) < AVOIDED_MS);
        if times >= ANSWERS && heartbeat_s > known.heartbeat_s {
            known.heartbeat_s = heartbeat_s;
            known.too_long = known.too_long.filter(|too_long| too_long.heartbeat_s > heartbeat_s);
        }
        self.learn(known)
    }

    /// A link that was idle died.
    fn suspect(&mut self, heartbeat_s: u32, server_ms: u64, in_silence: bool) {
        let too_long = TooLong { heartbeat_s, at_ms: server_ms };
        self.suspicion = Some(Suspicion { too_long, in_silence });
    }

    /// The server can be reached. If a link has just died, the network was not to blame, but its
    /// memory.
    pub fn is_reachable(&mut self) -> Option<Change> {
        let Suspicion { too_long, in_silence } = self.suspicion.take()?;
        let mut known = self.known();
        let was_borne = too_long.heartbeat_s <= known.heartbeat_s;
        self.deaths += 1;
        if self.deaths < DEATHS && (was_borne || !in_silence) {
            return None;
        }
        (self.deaths, self.answered) = (0, (0, 0));
        known.too_long = Some(too_long);
        if was_borne || known.heartbeat_s == 0 {
            known.heartbeat_s = too_long.heartbeat_s.div_ceil(2).max(limits::MIN_HEARTBEAT_S);
        }
        self.learn(known)
    }

    /// The server cannot be reached: what the last link died of says nothing.
    pub fn is_unreachable(&mut self) {
        self.suspicion = None;
    }

    fn known(&self) -> KnownNetwork {
        let found = self.known.iter().find(|known| known.network == self.network);
        let unknown = || KnownNetwork { network: self.network.clone(), ..Default::default() };
        found.cloned().unwrap_or_else(unknown)
    }

    fn learn(&mut self, known: KnownNetwork) -> Option<Change> {
        if known == self.known() {
            return None;
        }
        known.clone().keep(&mut self.known);
        Some(Change::Network(known))
    }
}

impl KnownNetwork {
    /// The heartbeat to try next; if the next one is too long or there is none, the one it bears.
    fn next_s(&self, most: u32) -> u32 {
        let next = (self.heartbeat_s * 2).min(most);
        match self.too_long {
            Some(too_long) if next >= too_long.heartbeat_s => self.heartbeat_s,
            _ => next,
        }
    }
}

/// Heartbeats of one link.
#[derive(Debug)]
pub(super) struct Beats {
    /// As agreed: the server waits 1.5 of it.
    heartbeat_ms: u64,
    /// Between two PINGs: the heartbeat, or less while a person looks.
    every_ms: u64,
    next_ping_ms: u64,
    /// When the server was last heard.
    heard_ms: u64,
    /// When something was last said to it, and how many bytes were by then.
    said_ms: u64,
    said_bytes: u64,
    /// How long the link was idle before the first PING that is not answered yet.
    idle_ms: Option<u64>,
}

impl Beats {
    pub fn new(now_ms: u64, heartbeat_ms: u64, app_state: AppState) -> Beats {
        let every_ms = every_ms(heartbeat_ms, app_state);
        Beats {
            heartbeat_ms,
            every_ms,
            next_ping_ms: now_ms + every_ms,
            heard_ms: now_ms,
            said_ms: now_ms,
            said_bytes: 0,
            idle_ms: None,
        }
    }

    fn heartbeat_s(&self) -> u32 {
        // It was read as so many seconds.
        (self.heartbeat_ms / 1_000) as u32
    }

    /// Silence after which a peer is gone.
    pub fn patience_ms(&self) -> u64 {
        self.every_ms * limits::SILENCE_HALF_HEARTBEATS / 2
    }

    pub fn next_deadline(&self) -> u64 {
        self.next_ping_ms.min(self.heard_ms + self.patience_ms())
    }

    pub fn is_silent(&self, now_ms: u64) -> bool {
        now_ms >= self.heard_ms + self.patience_ms()
    }

    /// The server was heard. Gives whether the link was idle for a heartbeat before it.
    pub fn hear(&mut self, now_ms: u64) -> bool {
        self.heard_ms = now_ms;
        self.idle_ms.take().is_some_and(|idle_ms| idle_ms + SLACK_MS >= self.heartbeat_ms)
    }

    /// So many bytes were said by now.
    fn say(&mut self, now_ms: u64, bytes: u64) {
        if self.said_bytes != bytes {
            (self.said_ms, self.said_bytes) = (now_ms, bytes);
        }
    }

    fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.next_ping_ms
    }

    /// A PING is sent. A link on which an answer is owed is not idle, however still.
    fn ping(&mut self, now_ms: u64, is_at_rest: bool) {
        self.next_ping_ms = now_ms + self.every_ms;
        let idle_ms = match is_at_rest {
            true => now_ms.saturating_sub(self.heard_ms.max(self.said_ms)),
            false => 0,
        };
        self.idle_ms.get_or_insert(idle_ms);
    }

    /// Whether a PING is not answered before which the link was idle for about a heartbeat, and
    /// not for longer: a device that slept through its PINGs has nobody to blame.
    fn may_be_forgotten(&self) -> bool {
        let idle = self.heartbeat_ms / 2..=self.heartbeat_ms + SLACK_MS;
        self.idle_ms.is_some_and(|idle_ms| idle.contains(&idle_ms))
    }

    /// When a person begins to look, whether the link is there is asked at once.
    fn set_app_state(&mut self, now_ms: u64, app_state: AppState) {
        let every_ms = every_ms(self.heartbeat_ms, app_state);
        if every_ms < self.every_ms {
            (self.next_ping_ms, self.heard_ms) = (now_ms, now_ms);
        }
        self.every_ms = every_ms;
    }
}

fn every_ms(heartbeat_ms: u64, app_state: AppState) -> u64 {
    match app_state {
        AppState::Background => heartbeat_ms,
        _ => heartbeat_ms.min(u64::from(CAUTIOUS_HEARTBEAT_S) * 1_000),
    }
}

impl<S: Store> Session<S> {
    /// The device is on this network from now on, by a way that is new even if the name is the
    /// same: the link is left, and a new one is wanted at once, or when the server wants it that
    /// asked for time. Nothing is learnt from a link that ended so.
    pub fn change_network(&mut self, now_ms: u64, network: Network) {
        self.heartbeat.change_network(network);
        self.backoff.reset();
        match &mut self.state {
            State::Offline { retry_at_ms, not_before_ms } => {
                *retry_at_ms = now_ms.max(*not_before_ms);
            }
            State::Opening { .. } | State::Live(_) => self.reconnect_at_once(now_ms),
            State::Stopped => {}
        }
        self.settle();
    }

    /// Whether a person looks at the app from now on. The server is told with the next HELLO. A
    /// session in the background lengthens its heartbeat, up to what network and settings allow;
    /// one that is looked at asks after its link at once, and then every 60 seconds or more often.
    pub fn set_app_state(&mut self, now_ms: u64, app_state: AppState) {
        self.settings.app_state = app_state;
        if let State::Live(live) = &mut self.state {
            live.beats.set_app_state(now_ms, app_state);
        }
        self.tick(now_ms);
    }

    /// Takes note of when something was said.
    pub(super) fn note_said(&mut self, now_ms: u64) {
        let bytes = self.written_bytes + self.output.len() as u64;
        if let State::Live(live) = &mut self.state {
            live.beats.say(now_ms, bytes);
        }
    }

    pub(super) fn ping_if_due(&mut self, now_ms: u64) {
        if !matches!(&self.state, State::Live(live) if live.beats.is_due(now_ms)) {
            return;
        }
        let is_at_rest = self.is_at_rest();
        if let State::Live(live) = &mut self.state {
            live.beats.ping(now_ms, is_at_rest);
            append_ping(&mut self.output);
        }
    }

    /// A heartbeat was answered on a link that was idle. If by that a longer one may be tried, it
    /// takes a new HELLO to agree on it, while nothing is under way.
    pub(super) fn heartbeat_answered(&mut self, now_ms: u64) {
        let State::Live(live) = &self.state else { return };
        let (heartbeat_s, server_ms) = (live.beats.heartbeat_s(), live.server_ms(now_ms));
        self.changes.extend(self.heartbeat.is_answered(heartbeat_s, server_ms));
        if self.is_at_rest() && self.heartbeat.wants_more(&self.settings) {
            self.reconnect_at_once(now_ms);
        }
    }

    /// No answer is owed.
    fn is_at_rest(&self) -> bool {
        self.outbox.unanswered() == 0 && self.requests.is_empty()
    }

    /// The link is dead: in silence, or at once when it was used again.
    pub(super) fn link_died(&mut self, now_ms: u64, in_silence: bool) {
        if let State::Live(live) = &self.state
            && live.beats.may_be_forgotten()
        {
            let (heartbeat_s, server_ms) = (live.beats.heartbeat_s(), live.server_ms(now_ms));
            self.heartbeat.suspect(heartbeat_s, server_ms, in_silence);
        }
    }
}
