//! What comes in on a connection: bytes become frames, and frames go to whoever knows their
//! kind.

use crate::{
    Effect, Engine, Migrant, Now, Reading,
    connection::{Leaving, State},
    phase::{Phase, allowed},
};
use starling_codec::{Decoded, ErrorCode, Frame, Kind, append_pong, decode_frame};

/// What became of a frame.
pub(crate) enum Handled {
    Done,
    /// It waits in the input, and with it all that is behind.
    Waits,
    /// The peer broke the protocol, or may not be here.
    Close(ErrorCode),
}

impl From<Result<(), ErrorCode>> for Handled {
    fn from(result: Result<(), ErrorCode>) -> Handled {
        result.map_or_else(Handled::Close, |()| Handled::Done)
    }
}

impl Engine {
    pub(crate) fn take_in(&mut self, now: Now, number: u32, bytes: &[u8]) -> Reading {
        let tick = self.tick(now);
        let slot = self.slots.at_mut(number);
        slot.hear(tick);
        let kept = slot.activity.as_mut().map(|activity| std::mem::take(&mut activity.input));
        let mut input = kept.unwrap_or_default();
        if input.is_empty() {
            // The usual case: whole frames are handled where they lie and nothing is kept.
            let (used, reading) = self.handle_frames(now, number, bytes);
            input.extend_from_slice(&bytes[used..]);
            self.keep(now, number, input, used, reading)
        } else {
            // To the byte: half of what is not there would count as well.
            input.reserve_exact(bytes.len());
            input.extend_from_slice(bytes);
            let (used, reading) = self.handle_frames(now, number, &input);
            input.drain(..used);
            self.keep(now, number, input, used, reading)
        }
    }

    /// Goes on with what was kept, and with reading.
    pub(crate) fn resume(&mut self, now: Now, number: u32) {
        let slot = self.slots.at_mut(number);
        if !slot.stopped {
            return;
        }
        let kept = slot.activity.as_mut().map(|activity| std::mem::take(&mut activity.input));
        let mut input = kept.unwrap_or_default();
        let (used, reading) = self.handle_frames(now, number, &input);
        input.drain(..used);
        // A connection that was closed goes on by itself.
        let stopped = self.slots.at(number).stopped;
        if self.keep(now, number, input, used, reading) == Reading::More && stopped {
            let ticket = self.slots.ticket(number);
            self.effects.push_back(Effect::Read(ticket));
        }
    }

    /// Keeps what is not used up yet, after so many bytes that were. Of a connection that closes,
    /// that is nothing; of one that leaves, it goes along.
    fn keep(
        &mut self,
        now: Now,
        number: u32,
        input: Vec<u8>,
        used: usize,
        reading: Reading,
    ) -> Reading {
        let slot = self.slots.at_mut(number);
        slot.stopped = reading == Reading::Stop;
        match std::mem::replace(&mut slot.state, State::Moving) {
            State::Leaving(leaving) => {
                let Leaving { shard, migrant } = *leaving;
                let ticket = self.slots.ticket(number);
                self.backlog.forget(&mut self.slots, number);
                self.counters.moved_out += 1;
                let unsent = self.slots.take_unsent(number);
                let migrant = Migrant { rest: input, unsent, ..migrant };
                self.effects.push_back(Effect::Move(ticket, shard, migrant));
            }
            state => {
                slot.state = state;
                if slot.state.phase() != Phase::Closing {
                    self.keep_input(now, number, input, used > 0);
                }
            }
        }
        self.slots.settle(number);
        reading
    }

    /// Handles the frames at the front of `input` as far as the state allows, and says how many
    /// bytes are used up and whether more may be read.
    fn handle_frames(&mut self, now: Now, number: u32, input: &[u8]) -> (usize, Reading) {
        let mut used = 0;
        loop {
            let phase = self.slots.at(number).state.phase();
            match phase {
                Phase::Closing if matches!(self.slots.at(number).state, State::Leaving(_)) => {
                    return (used, Reading::Stop);
                }
                Phase::Closing => return (input.len(), Reading::More),
                Phase::Checking => return (used, Reading::Stop),
                Phase::Opening | Phase::Session | Phase::Operator => {}
            }
            if self.is_clogged(number) {
                return (used, Reading::Stop);
            }
            let raw = match decode_frame(&input[used..], phase.max_frame_bytes()) {
                Decoded::NeedMore => return (used, Reading::More),
                Decoded::Reject(code) => {
                    self.close(now, number, code);
                    return (input.len(), Reading::More);
                }
                Decoded::Frame(raw) => raw,
            };
            if self.slots.at(number).floods() {
                self.close(now, number, ErrorCode::RateLimited);
                return (input.len(), Reading::More);
            }
            let handled = match raw.known() {
                Ok(Some(frame)) => {
                    let handled = self.handle_frame(now, number, phase, frame);
                    if !matches!(handled, Handled::Waits) {
                        self.counters.frame_in(frame.kind, raw.size);
                    }
                    handled
                }
                // What does not even begin with a known kind is not Starling's.
                Ok(None) if self.is_first(number) => Handled::Close(ErrorCode::BadMagic),
                Ok(None) => {
                    self.counters.skipped.frames += 1;
                    self.counters.skipped.bytes += raw.size as u64;
                    self.slots.at_mut(number).count_fruitless(1);
                    Handled::Done
                }
                Err(code) => Handled::Close(code),
            };
            match handled {
                Handled::Done => used += raw.size,
                Handled::Waits => return (used, Reading::Stop),
                Handled::Close(code) => {
                    self.close(now, number, code);
                    return (input.len(), Reading::More);
                }
            }
        }
    }

    fn is_first(&self, number: u32) -> bool {
        matches!(self.slots.at(number).state, State::Fresh { known: false, .. })
    }

    fn handle_frame(&mut self, now: Now, number: u32, phase: Phase, frame: Frame<'_>) -> Handled {
        if !allowed(frame.kind, phase) {
            return Handled::Close(ErrorCode::WrongState);
        }
        match frame.kind {
            Kind::Ping => {
                let output = self.slots.activity(number).output();
                let before = output.len();
                append_pong(output);
                let bytes = output.len() - before;
                self.counters.frame_out(Kind::Pong, bytes);
                self.slots.at_mut(number).count_fruitless(1);
                self.mark_dirty(number);
                Handled::Done
            }
            Kind::Pong => {
                self.slots.at_mut(number).count_fruitless(1);
                Handled::Done
            }
            Kind::Hello => self.hello(now, number, frame).into(),
            Kind::Register => self.register(now, number, frame).into(),
            Kind::Login => self.login(now, number, frame).into(),
            Kind::Operator => self.operator(number, frame).into(),
            Kind::Dishello => {
                self.end(now, number);
                Handled::Done
            }
            Kind::Send => self.send(now, number, frame).into(),
            Kind::Ack => self.ack(now, number, frame).into(),
            Kind::Sync => self.sync(number, frame).into(),
            Kind::ChangePassword => self.change_password(number, frame).into(),
            Kind::Refresh => self.refresh(number, frame).into(),
            Kind::Logout => self.logout(number, frame).into(),
            Kind::History => self.history(number, frame),
            Kind::Resolve => self.resolve(number, frame).into(),
            Kind::CreateUsers => self.create_users(now, number, frame).into(),
            Kind::Stats => self.stats(number, frame).into(),
            // Only servers send the rest, so no phase allows it.
            _ => Handled::Close(ErrorCode::WrongState),
        }
    }
}
