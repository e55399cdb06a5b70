//! From HELLO to WELCOME: whose session it is to be, on which shard, and from where it goes on.

use crate::{
    Engine, Identity, Migrant, Now,
    connection::{Leaving, State},
    session::Live,
    waiting::{Reply, Waiting},
};
use starling_codec::{
    Answer, DeviceState, Epoch, EpochTag, ErrorCode, Frame, Kind, MAGIC, PROTOCOL_VERSION, Place,
    Query, Resumption, Ticket,
    limits::{
        MAX_CLIENT_NAME_BYTES, MAX_CONTENT_BYTES, MAX_FRAME_BYTES, MAX_HEARTBEAT_S,
        MAX_HISTORY_PAGE, MAX_REQUESTS_IN_FLIGHT, MAX_SEND_SPAN, MAX_TOKEN_BYTES, MIN_HEARTBEAT_S,
    },
    planted::{Fault, is_planted},
    serial, wire,
};

/// A HELLO with a true token, on the shard of its user.
pub(crate) struct Greeting {
    ticket: Ticket,
    pub(crate) identity: Identity,
    hello: wire::Hello,
    /// Tokens of the user were revoked after the state of the device was asked for.
    pub(crate) outdated: bool,
}

/// Looks at what every opener begins with.
pub(crate) fn check_opening(opening: &Option<wire::Opening>) -> Result<(), ErrorCode> {
    let opening = opening.as_ref().filter(|opening| opening.magic == MAGIC);
    let opening = opening.ok_or(ErrorCode::BadMagic)?;
    if opening.client.len() > MAX_CLIENT_NAME_BYTES {
        return Err(ErrorCode::BadField);
    }
    // A newer client is answered with the version that this server speaks.
    if opening.version >= PROTOCOL_VERSION { Ok(()) } else { Err(ErrorCode::VersionUnsupported) }
}

impl Engine {
    pub(crate) fn hello(
        &mut self,
        now: Now,
        number: u32,
        frame: Frame<'_>,
    ) -> Result<(), ErrorCode> {
        let mut hello: wire::Hello = frame.body()?;
        check_opening(&hello.opening)?;
        let token = std::mem::take(&mut hello.token);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(ErrorCode::TokenMalformed);
        }
        let identity = self.keyring.check(&token, now.unix_ms / 1_000)?;
        let home = self.route.owner_of(identity.user);
        if home == self.settings.shard {
            self.start_checking(number);
            self.greet(self.slots.ticket(number), identity, hello);
        } else {
            let migrant = Migrant { identity, hello, rest: Vec::new(), unsent: Vec::new() };
            self.wheel.disarm(&mut self.slots, number);
            let leaving = Leaving { shard: home, migrant };
            self.slots.at_mut(number).state = State::Leaving(Box::new(leaving));
        }
        Ok(())
    }

    /// An opener is looked at; until that is over nothing more is read.
    pub(crate) fn start_checking(&mut self, number: u32) {
        self.slots.at_mut(number).state = State::Checking;
    }

    /// Asks for the state of the device. The user's entry is made first, so that what is
    /// delivered from now on raises its head.
    pub(crate) fn greet(&mut self, ticket: Ticket, identity: Identity, hello: wire::Hello) {
        self.users.enter(identity.user);
        self.ask_for_device(Greeting { ticket, identity, hello, outdated: false });
    }

    fn ask_for_device(&mut self, greeting: Greeting) {
        let query = Query::Device {
            user: greeting.identity.user,
            device: greeting.identity.device,
            highest: greeting.hello.highest.unwrap_or_default().into(),
            last_epoch: Epoch(greeting.hello.last_epoch),
            last_tag: EpochTag(greeting.hello.last_tag),
        };
        self.ask(Waiting::Greeting(Box::new(greeting)), query);
    }

    /// The state of the device is there: the session begins, unless it may not.
    pub(crate) fn welcome(&mut self, now: Now, greeting: Greeting, reply: Reply) {
        let user = greeting.identity.user;
        match self.slots.find(greeting.ticket) {
            Some(number) if matches!(self.slots.at(number).state, State::Checking) => {
                if greeting.outdated {
                    self.ask_for_device(Greeting { outdated: false, ..greeting });
                    return;
                }
                match self.admit(now, number, &greeting, reply) {
                    Ok(()) => self.resume(now, number),
                    Err((code, close)) => self.close_with(now, number, code, &close),
                }
            }
            _ => self.counters.late += 1,
        }
        self.users.leave(user);
    }

    fn admit(
        &mut self,
        now: Now,
        number: u32,
        greeting: &Greeting,
        reply: Reply,
    ) -> Result<(), (ErrorCode, wire::Close)> {
        let Greeting { identity, hello, .. } = greeting;
        let close = |code: ErrorCode| wire::Close { code: code as u32, ..Default::default() };
        let state = match reply {
            Reply::Answer(Answer::Device(Some(state))) => state,
            // A device that is no more.
            Reply::Answer(Answer::Device(None)) => {
                return Err((ErrorCode::TokenRevoked, close(ErrorCode::TokenRevoked)));
            }
            reply => {
                let (code, retry_after_ms) = reply.refusal();
                return Err((code, wire::Close { retry_after_ms, ..close(code) }));
            }
        };
        if serial::is_revoked(identity.serial, state.serial) {
            return Err((ErrorCode::TokenRevoked, close(ErrorCode::TokenRevoked)));
        }
        self.take_over(now, identity, hello.connect_no).map_err(|winner_connect_no| {
            let code = ErrorCode::Replaced;
            (code, wire::Close { winner_connect_no, ..close(code) })
        })?;
        self.begin(now, number, identity, hello, state);
        Ok(())
    }

    /// Among the connections of a device the highest number stays, of equals the newer. The error
    /// is the number of the one that stays instead of this.
    fn take_over(&mut self, now: Now, identity: &Identity, connect_no: u64) -> Result<(), u64> {
        let other = self.users.session_of(&self.slots, identity.user, identity.device);
        let Some(other) = other else { return Ok(()) };
        let other_no = self.slots.live(other).map_or(0, |live| live.connect_no);
        if other_no > connect_no {
            return Err(other_no);
        }
        let code = ErrorCode::Replaced;
        let close =
            wire::Close { code: code as u32, winner_connect_no: connect_no, ..Default::default() };
        self.close_with(now, other, code, &close);
        Ok(())
    }

    fn begin(
        &mut self,
        now: Now,
        number: u32,
        identity: &Identity,
        hello: &wire::Hello,
        state: DeviceState,
    ) {
        // `greet` made the entry, and it stays until `welcome` is done.
        let Some(user) = self.users.get_mut(identity.user) else { return };
        user.raise_head(state.head);
        user.passed_seq = user.passed_seq.max(state.passed_seq);
        let head = user.head();
        let claimed: Place = hello.cursor.unwrap_or_default().into();
        let cursor = match state.resumption {
            Resumption::Continues => at_most(claimed, head),
            Resumption::Rewind(last) => at_most(at_most(claimed, last), head),
            Resumption::Reset => Place::START,
        };
        let heartbeat_s = heartbeat_s(self.settings.heartbeat_s, hello);
        let live = Live::new(*identity, hello, cursor, heartbeat_s);
        self.slots.at_mut(number).state = State::Live(live);
        self.users.attach(&mut self.slots, number);
        self.counters.sessions += 1;

        let welcome = wire::Welcome {
            version: PROTOCOL_VERSION,
            capabilities: 0,
            user: identity.user.0,
            device: identity.device.0,
            time_ms: now.unix_ms,
            epoch: state.epoch.0,
            tag: state.tag.0,
            limits: Some(self.limits()),
            heartbeat_s,
            head: Some(head.into()),
            window: Some(state.window.into()),
            resumed: state.resumption == Resumption::Continues,
            rewind: match state.resumption {
                Resumption::Rewind(_) if is_planted(Fault::RewindTooFar) => {
                    Some(Place::START.into())
                }
                Resumption::Rewind(last) => Some(last.into()),
                _ => None,
            },
            reset: state.resumption == Resumption::Reset,
            redirect: String::new(),
        };
        self.send_frame(number, Kind::Welcome, &welcome);
        self.rearm(number);
        self.regain_or_store(now, number, state.cursor);
        self.await_outlet(number);
    }

    fn limits(&self) -> wire::Limits {
        wire::Limits {
            max_frame_bytes: MAX_FRAME_BYTES as u32,
            max_content_bytes: MAX_CONTENT_BYTES as u32,
            max_history_page: MAX_HISTORY_PAGE,
            max_sends_in_flight: MAX_SEND_SPAN as u32 + 1,
            sends_per_second: self.settings.sends_per_second,
            max_requests_in_flight: MAX_REQUESTS_IN_FLIGHT as u32,
        }
    }
}

/// The lower of two places of one inbox. A place with the higher seq and the lower epoch is from
/// a history that was cut, and its seq counts for nothing.
fn at_most(place: Place, limit: Place) -> Place {
    if place > limit || place.seq > limit.seq { limit } else { place }
}

/// What the server would choose, within what client and protocol allow. A range that the client
/// left open is the protocol's.
fn heartbeat_s(chosen_s: u32, hello: &wire::Hello) -> u32 {
    let min_s = hello.heartbeat_min_s.clamp(MIN_HEARTBEAT_S, MAX_HEARTBEAT_S);
    let max_s = match hello.heartbeat_max_s {
        0 => MAX_HEARTBEAT_S,
        max_s => max_s.clamp(min_s, MAX_HEARTBEAT_S),
    };
    chosen_s.clamp(min_s, max_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heartbeat_is_within_what_the_client_allows() {
        let range = |heartbeat_min_s, heartbeat_max_s| wire::Hello {
            heartbeat_min_s,
            heartbeat_max_s,
            ..Default::default()
        };
        assert_eq!(heartbeat_s(30, &range(0, 0)), 30);
        assert_eq!(heartbeat_s(30, &range(60, 300)), 60);
        assert_eq!(heartbeat_s(300, &range(20, 60)), 60);
        assert_eq!(heartbeat_s(5, &range(1, 10)), MIN_HEARTBEAT_S);
        assert_eq!(heartbeat_s(30, &range(120, 60)), 120);
        assert_eq!(heartbeat_s(10_000, &range(20, 100_000)), MAX_HEARTBEAT_S);
    }

    #[test]
    fn a_cursor_beyond_the_end_is_the_end() {
        let place = |seq, epoch| Place::new(seq, Epoch(epoch));
        assert_eq!(at_most(place(5, 1), place(9, 2)), place(5, 1));
        assert_eq!(at_most(place(12, 2), place(9, 2)), place(9, 2));
        assert_eq!(at_most(place(5, 3), place(9, 2)), place(9, 2));
        assert_eq!(at_most(place(12, 1), place(9, 2)), place(9, 2));
    }
}
