//! The one door for messages: size, span, class, rate and a credit. Only here is a send refused
//! retryably, and once a number was, the later ones are too until it comes again (go-back-N), so
//! that overload does not change the order of what a person wrote.

use crate::{DoorSend, Engine, Hop, Now, session::Live};
use starling_codec::{
    Accepted, Blame, ConversationId, ErrorCode, Frame, Kind, Nonce, SendNo, Ticket, UserId,
    limits::{MAX_CONTENT_BYTES, MAX_SEND_SPAN},
    planted::{Fault, is_planted},
    wire::{self, Class, send::To},
};

/// Sends of one device that may be without an outcome.
const MAX_SENDS: u8 = MAX_SEND_SPAN as u8 + 1;

/// What a device that sends too fast is told to wait at least: a client that goes back with all
/// that is in flight whenever one more would be let in is refused most of it, again and again.
const RATE_RETRY_MS: u32 = 500;

/// How many sends of one device may be without an outcome: when less than half of the credits is
/// left, the fewer the less, so that who sends much cannot keep out who sends little.
fn share(credits: u32, all: u32) -> u8 {
    let half = u64::from(all / 2).max(1);
    let share = u64::from(MAX_SENDS) * u64::from(credits) / half;
    share.clamp(1, MAX_SENDS.into()) as u8
}

/// Why the door stays shut, and when to try again (0: never, or when an earlier one got through).
struct Refusal {
    code: ErrorCode,
    retry_after_ms: u32,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal { code, retry_after_ms: 0 }
    }
}

impl Engine {
    pub(crate) fn send(
        &mut self,
        now: Now,
        number: u32,
        frame: Frame<'_>,
    ) -> Result<(), ErrorCode> {
        let send: wire::Send = frame.body()?;
        let class = Class::try_from(send.class).map_err(|_| ErrorCode::BadField)?;
        let to = send.to.ok_or(ErrorCode::BadField)?;
        if send.send_no == 0 {
            return Err(ErrorCode::BadField);
        }
        // Only sessions are allowed to send.
        let Some(live) = self.slots.live(number) else { return Err(ErrorCode::WrongState) };
        let (user, device) = (live.user, live.device);
        match self.let_in(now, number, &send, to, class) {
            Ok(conversation) => self.hand_over(
                now,
                DoorSend {
                    ticket: self.slots.ticket(number),
                    conversation,
                    sender: user,
                    device,
                    send_no: SendNo(send.send_no),
                    oldest: SendNo(send.oldest),
                    nonce: Nonce(send.nonce),
                    content: send.content,
                    class,
                },
            ),
            Err(Refusal { code, retry_after_ms }) => {
                let ours = matches!(code, ErrorCode::Overload | ErrorCode::DiskFull);
                let retry_after_ms = if ours { self.retry_after_ms() } else { retry_after_ms };
                if code.retryable()
                    && let Some(live) = self.slots.live_mut(number)
                {
                    live.wait_for(send.send_no);
                }
                self.refuse_send(number, send.send_no, code, retry_after_ms);
            }
        }
        Ok(())
    }

    /// The conversation it goes to, with a credit taken for it.
    fn let_in(
        &mut self,
        now: Now,
        number: u32,
        send: &wire::Send,
        to: To,
        class: Class,
    ) -> Result<ConversationId, Refusal> {
        let sends_per_second = self.settings.sends_per_second;
        let Some(live) = self.slots.live_mut(number) else {
            return Err(ErrorCode::WrongState.into());
        };
        let conversation = match to {
            To::User(other) => {
                let other = UserId::from_wire(other).ok_or(ErrorCode::UnknownUser)?;
                ConversationId::direct(live.user, other)
            }
            To::Conversation(id) => Some(ConversationId(id))
                .filter(|conversation| conversation.peer_of(live.user).is_some())
                .ok_or(ErrorCode::UnknownConversation)?,
        };
        if !(1..=send.send_no).contains(&send.oldest) || send.send_no - send.oldest > MAX_SEND_SPAN
        {
            return Err(ErrorCode::SendSpan.into());
        }
        match send.content.len() {
            0 => return Err(ErrorCode::ContentEmpty.into()),
            1..=MAX_CONTENT_BYTES => {}
            _ => return Err(ErrorCode::ContentTooLarge.into()),
        }
        if class == Class::Replicated {
            return Err(ErrorCode::ClassUnavailable.into());
        }
        if !live.is_next(send.send_no, send.oldest) && !is_planted(Fault::DoorForgetsOrder) {
            return Err(ErrorCode::SendOutOfOrder.into());
        }
        let wait_us = live.rate_wait_us(now, sends_per_second);
        if wait_us > 0 {
            let retry_after_ms = (wait_us.div_ceil(1_000) as u32).max(RATE_RETRY_MS);
            return Err(Refusal { code: ErrorCode::RateLimited, retry_after_ms });
        }
        if live.sends >= share(self.credits, self.settings.credits) {
            return Err(ErrorCode::Overload.into());
        }
        self.take_credit()?;
        if let Some(live) = self.slots.live_mut(number) {
            live.note_let_in(send.send_no, now, sends_per_second);
        }
        Ok(conversation)
    }

    /// Goes to the conversation's home, which often is here.
    fn hand_over(&mut self, now: Now, send: DoorSend) {
        let home = self.route.owner_of(send.conversation);
        if home == self.settings.shard {
            self.converse(now, send);
        } else {
            self.hop_to(home, Hop::Send(send));
        }
    }

    /// A message is in its place: the connection that it came on hears of it. A device that has
    /// another by now repeats the send there, if it still means that message.
    pub(crate) fn tell_accepted(&mut self, ticket: Ticket, accepted: Accepted) {
        let Some((number, _)) = self.outcome_of_send(ticket) else { return };
        let ack = wire::SendAck {
            send_no: accepted.send_no.0,
            id: accepted.id.0,
            conversation: accepted.conversation.0,
            seq: accepted.seq,
            place: Some(accepted.place.into()),
            time_ms: accepted.id.time_ms(),
            class: match is_planted(Fault::AckFlatters) {
                true => Class::Durable as i32,
                false => accepted.class as i32,
            },
        };
        self.send_frame(number, Kind::SendAck, &ack);
    }

    /// A message was in its place before. Who sends without end what is there already has the
    /// store search for it without end.
    pub(crate) fn tell_repeated(&mut self, ticket: Ticket, accepted: Accepted) {
        if let Some(number) = self.slots.find(ticket) {
            self.slots.at_mut(number).count_fruitless(1);
        }
        self.tell_accepted(ticket, accepted);
    }

    /// A message was refused behind the door.
    pub(crate) fn tell_refused(&mut self, ticket: Ticket, send_no: SendNo, code: ErrorCode) {
        let Some((number, live)) = self.outcome_of_send(ticket) else { return };
        if code.retryable() {
            // The store could not after all: from here on as if the door had known.
            live.wait_for(send_no.0);
        }
        let retry_after_ms = if code.retryable() { self.retry_after_ms() } else { 0 };
        self.refuse_send(number, send_no.0, code, retry_after_ms);
    }

    /// The session that waits for the outcome of one of its sends, if it is still there.
    fn outcome_of_send(&mut self, ticket: Ticket) -> Option<(u32, &mut Live)> {
        let number = self.slots.find(ticket).filter(|&number| self.slots.live(number).is_some());
        let Some(number) = number else {
            self.counters.late += 1;
            return None;
        };
        let live = self.slots.live_mut(number)?;
        live.sends -= 1;
        Some((number, live))
    }

    fn refuse_send(&mut self, number: u32, send_no: u64, code: ErrorCode, retry_after_ms: u32) {
        self.counters.refused(code);
        // Whoever the server has no room for is not to blame, but should wait with what is behind.
        if code.blame() != Blame::Overload || code == ErrorCode::SendOutOfOrder {
            self.slots.at_mut(number).count_fruitless(1);
        }
        let refused = wire::SendRefused { send_no, code: code as u32, retry_after_ms };
        self.send_frame(number, Kind::SendRefused, &refused);
    }
}

impl Live {
    /// `send_no` was refused retryably: the later ones wait for it.
    fn wait_for(&mut self, send_no: u64) {
        if self.refused == 0 {
            (self.refused, self.refused_span) = (send_no, 0);
            return;
        }
        let top = self.refused + u64::from(self.refused_span);
        self.refused = self.refused.min(send_no);
        self.refused_span = (top.max(send_no) - self.refused).min(u8::MAX.into()) as u8;
    }

    /// Whether `send_no` may come now: no lower number is waited for. Numbers below `oldest` have
    /// their final answer, or were given up.
    fn is_next(&mut self, send_no: u64, oldest: u64) -> bool {
        if self.refused != 0 && oldest > self.refused {
            self.drop_refused_below(oldest);
        }
        self.refused == 0 || send_no <= self.refused
    }

    /// `send_no` is through; of those that were refused, the next one is waited for.
    fn note_let_in(&mut self, send_no: u64, now: Now, sends_per_second: u32) {
        self.sends += 1;
        if self.refused == send_no {
            self.drop_refused_below(send_no + 1);
        }
        if sends_per_second > 0 {
            let interval_us = 1_000_000 / u64::from(sends_per_second);
            self.rate_us = self.rate_us.max(now.mono_ms * 1_000) + interval_us;
        }
    }

    fn drop_refused_below(&mut self, send_no: u64) {
        let top = self.refused + u64::from(self.refused_span);
        if send_no > top {
            (self.refused, self.refused_span) = (0, 0);
        } else {
            (self.refused, self.refused_span) = (send_no, (top - send_no) as u8);
        }
    }

    /// How long until the rate allows a send, in microseconds. The generic cell rate algorithm:
    /// a bucket of one second's sends in one number.
    fn rate_wait_us(&self, now: Now, sends_per_second: u32) -> u64 {
        if sends_per_second == 0 {
            return 0;
        }
        let interval_us = 1_000_000 / u64::from(sends_per_second);
        let full_us = now.mono_ms * 1_000 + 1_000_000;
        (self.rate_us + interval_us).saturating_sub(full_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_is_left_the_less_one_device_may_have() {
        assert_eq!(
            [8_192, 4_096, 2_048, 64, 1, 0].map(|left| share(left, 8_192)),
            [64, 64, 32, 1, 1, 1]
        );
        assert_eq!([2, 1].map(|left| share(left, 2)), [64, 64]);
        assert_eq!(share(1, 1), 64);
    }
}
