//! What can be said only when the whole history is known: what was lost and whether a fault
//! excuses it, who holds what at the end, and whether all tells agree.

mod devices;
mod windows;

use crate::{
    Checker, Position, Property,
    checker::{Twins, is_weaker},
    devices::{Devices, Held, What},
    evidence::Violations,
    messages::{Message, NO_MESSAGE},
    openings::{Ages, Rank},
    sends::{Answer, Send, Sends},
    streams::Streams,
};
use rustc_hash::FxHashMap;
use starling_codec::{SendNo, UserId};

pub(crate) struct Judge {
    streams: Streams,
    ages: Ages,
    messages: Vec<Message>,
    sends: Sends,
    devices: Devices,
    by_user: FxHashMap<UserId, Vec<u32>>,
    twins: Vec<Twins>,
    violations: Violations,
    complete: bool,
    /// By message: who of the devices that know of the newest opening holds it.
    alive: Vec<Option<Position>>,
    /// By message: another has its place in the conversation.
    replaced_by: FxHashMap<u32, u32>,
}

impl Judge {
    pub fn new(checker: Checker) -> Judge {
        let Checker { streams, openings, messages, sends, devices, twins, complete, .. } = checker;
        let mut violations = checker.violations;
        let mut by_user: FxHashMap<UserId, Vec<u32>> = FxHashMap::default();
        for (number, device) in devices.list.iter().enumerate() {
            by_user.entry(device.at.user).or_default().push(number as u32);
        }
        Judge {
            ages: openings.into_ages(&mut violations),
            alive: vec![None; messages.list.len()],
            replaced_by: FxHashMap::default(),
            messages: messages.list,
            streams,
            sends,
            devices,
            by_user,
            twins,
            violations,
            complete,
        }
    }

    pub fn judge(mut self) -> Violations {
        self.find_alive();
        self.join_sends();
        self.judge_twins();
        self.judge_conversations();
        self.judge_sends();
        self.judge_windows();
        self.judge_beginnings();
        self.judge_resets();
        self.judge_removed();
        self.judge_held();
        self.judge_receipts();
        self.judge_settled();
        self.violations
    }

    fn rank(&self, message: u32) -> Rank {
        let message = &self.messages[message as usize];
        self.ages.written(message.opening, message.epoch)
    }

    /// Both were written at the same time, for sure.
    fn same_time(&self, one: u32, other: u32) -> bool {
        let rank = self.rank(one);
        rank == self.rank(other) && !self.ages.is_blurred(rank)
    }

    fn excuses(&self, message: u32) -> bool {
        self.ages.excuses(self.rank(message), self.messages[message as usize].class)
    }

    /// The message is there at the end, as far as the history tells.
    fn is_there(&self, message: u32) -> bool {
        self.alive[message as usize].is_some()
            || !self.replaced_by.contains_key(&message) && !self.excuses(message)
    }

    /// It may have been lost and brought back by a backup that was restored.
    fn may_be_back(&self, message: u32) -> bool {
        let rank = self.rank(message);
        self.ages.is_cut_after(rank.0, rank)
    }

    /// Where a message was told of first.
    fn told(&self, message: u32) -> Position {
        self.messages[message as usize].position
    }

    /// What a device that was welcomed in the newest opening holds has survived.
    fn find_alive(&mut self) {
        let newest = self.ages.newest();
        for device in &self.devices.list {
            if self.ages.rank(device.opening) != newest {
                continue;
            }
            for held in &device.held {
                if let What::Message { message, .. } = held.what {
                    self.alive[message as usize].get_or_insert(held.position);
                }
            }
        }
    }

    fn join_sends(&mut self) {
        let mut joined = vec![false; self.messages.len()];
        for send in &self.sends.list {
            if let Some(joined) = joined.get_mut(send.message as usize) {
                *joined = true;
            }
        }
        self.sends.join(&mut joined);
    }

    /// Two messages for what was written once: the earlier must have been lost.
    fn judge_twins(&mut self) {
        for &Twins { messages: [one, other], shared } in &self.twins {
            let earlier = if self.rank(one) <= self.rank(other) { one } else { other };
            let both_live =
                self.alive[one as usize].is_some() && self.alive[other as usize].is_some();
            if both_live || self.same_time(one, other) || !self.excuses(earlier) {
                self.violations.add(Property::Once, [self.told(one), self.told(other)], || {
                    format!("two messages have one {shared}: what was written once is stored twice")
                });
            }
        }
    }

    /// The messages of each conversation in their order.
    fn judge_conversations(&mut self) {
        let mut order: Vec<u32> = (0..self.messages.len() as u32).collect();
        order.sort_by_cached_key(|message| {
            let Message { stream, seq, .. } = self.messages[*message as usize];
            (stream, seq, self.rank(*message))
        });
        for pair in order.windows(2) {
            let (earlier, later) = (pair[0], pair[1]);
            let of = |message: u32| {
                let message = &self.messages[message as usize];
                (message.stream, message.seq)
            };
            if of(earlier) == of(later) {
                self.judge_rivals(earlier, later);
            }
        }
        order.retain(|message| self.is_there(*message));
        self.judge_writing_order(&order);
        self.judge_tops(&order);
    }

    /// Two messages at one place: the earlier was lost, or the order is not one.
    fn judge_rivals(&mut self, earlier: u32, later: u32) {
        let evidence = [self.told(earlier), self.told(later)];
        let both_live =
            self.alive[earlier as usize].is_some() && self.alive[later as usize].is_some();
        let seq = self.messages[later as usize].seq;
        let excused = self.excuses(earlier);
        if self.same_time(earlier, later) || both_live && !excused {
            self.violations.add(Property::OneOrder, evidence, || {
                format!("two messages are at {seq} of one conversation")
            });
            return;
        }
        if !excused {
            self.violations.add(Property::Kept, evidence, || {
                format!("message {seq} of the conversation is gone, and another has its place")
            });
        }
        // A backup that was restored may have brought it back, and taken the other.
        let is_back = self.alive[earlier as usize].is_some()
            && self.ages.is_cut_after(self.rank(later).0, self.rank(earlier));
        if !is_back {
            self.replaced_by.insert(earlier, later);
        }
    }

    fn judge_writing_order(&mut self, order: &[u32]) {
        // By writer, within the conversation under way.
        let mut last: FxHashMap<u32, (SendNo, u32)> = FxHashMap::default();
        let mut stream = None;
        for number in order {
            let message = self.messages[*number as usize];
            if stream != Some(message.stream) {
                stream = Some(message.stream);
                last.clear();
            }
            let before = last.insert(message.sender, (message.send_no, *number));
            if let Some((send_no, before)) = before
                && send_no > message.send_no
            {
                let evidence = [self.told(before), message.position];
                self.violations.add(Property::WritingOrder, evidence, || {
                    format!("send {} has its place after send {send_no}", message.send_no)
                });
            }
        }
    }

    /// At the end everybody in a conversation has its last message.
    fn judge_tops(&mut self, order: &[u32]) {
        for (at, top) in order.iter().enumerate() {
            let message = self.messages[*top as usize];
            let next = order.get(at + 1).map(|next| self.messages[*next as usize].stream);
            if next == Some(message.stream) {
                continue;
            }
            let Some((low, high)) = self.streams.conversation(message.stream).users() else {
                continue;
            };
            let users = if low == high { vec![low] } else { vec![low, high] };
            let devices = users.iter().filter_map(|user| self.by_user.get(user)).flatten();
            for number in devices {
                let device = &self.devices.list[*number as usize];
                let Some(settled) = device.settled() else { continue };
                let latest = self.devices.latest(*number, message.stream);
                let has = latest.and_then(|held| seq_of(&self.messages, held));
                // Of a device whose first events are not there, only what follows them counts.
                if (device.whole || has.is_some()) && has.is_none_or(|seq| seq < message.seq) {
                    let evidence = [message.position, settled.position];
                    self.violations.add(Property::Kept, evidence, || {
                        format!(
                            "device {}.{} does not hold message {} of the conversation",
                            device.at.user, device.at.device, message.seq
                        )
                    });
                }
            }
        }
    }

    fn judge_sends(&mut self) {
        let sends = std::mem::take(&mut self.sends.list);
        for send in &sends {
            self.judge_answer(send);
            if send.message != NO_MESSAGE {
                self.judge_content(send);
            }
        }
        let mut is_written = vec![!self.complete; self.messages.len()];
        for send in sends.iter().filter(|send| send.written.is_some()) {
            if let Some(is_written) = is_written.get_mut(send.message as usize) {
                *is_written = true;
            }
        }
        self.sends.list = sends;
        // What was lost and sent again was written too; the last pair has what came last.
        for Twins { messages, .. } in self.twins.iter().rev() {
            let [one, other] = messages.map(|message| message as usize);
            let either = is_written[one] || is_written[other];
            (is_written[one], is_written[other]) = (either, either);
        }
        for (message, is_written) in self.messages.iter().zip(is_written) {
            if !is_written {
                self.violations.add(Property::AsWritten, [message.position], || {
                    format!("nobody wrote message {}", message.id)
                });
            }
        }
    }

    fn judge_answer(&mut self, send: &Send) {
        let device = &self.devices.list[send.device as usize];
        let stored = send.message != NO_MESSAGE;
        match send.answer {
            // What was lost before it was answered may be refused when it comes again.
            Answer::Refused if stored && self.is_there(send.message) => {
                let evidence = [send.answered_at, self.told(send.message)];
                self.violations.add(Property::Window, evidence, || {
                    format!("send {} was refused for good, and stored", send.send_no)
                });
            }
            Answer::Unsent
                if stored
                    && let Some(alive) = self.alive[send.message as usize]
                    && !self.may_be_back(send.message) =>
            {
                self.violations.add(Property::Window, [send.answered_at, alive], || {
                    format!("send {} was given back as unsent, and is stored", send.send_no)
                });
            }
            Answer::Sent { place, message } => {
                let other = device.held_at(place.seq).filter(|held| {
                    !matches!(held.what, What::Message { message: here, .. } if here == message)
                });
                // In a later time the place may be another's, if a fault excuses it; and in one from
                // which a backup was restored.
                let is_another_time = |held: &Held| {
                    let (there, then) =
                        (self.ages.written(device.opening, held.epoch), self.rank(message));
                    let may_be_earlier = there < then || self.ages.is_blurred(there);
                    there > then || may_be_earlier && self.ages.is_cut_after(then.0, there)
                };
                if let Some(other) = other
                    && !(is_another_time(other) && self.excuses(message))
                {
                    self.violations.add(Property::Kept, [send.answered_at, other.position], || {
                        format!("another event has the place of send {} in the inbox", send.send_no)
                    });
                }
                self.judge_untold(send, message);
            }
            Answer::None => {
                let forgotten = |position| device.forgot.is_some_and(|forgot| position < forgot);
                if let Some(written) = send.written
                    && let Some(settled) = device.settled()
                    && !forgotten(written.position)
                {
                    let evidence = [written.position, settled.position];
                    self.violations.add(Property::Answered, evidence, || {
                        format!("send {} has no final answer", send.send_no)
                    });
                }
            }
            Answer::Refused | Answer::Unsent => {}
        }
    }

    /// Whoever wrote what was acknowledged, and then lost in a power cut, got it back. What is lost
    /// with a restored backup nobody gets back.
    fn judge_untold(&mut self, send: &Send, message: u32) {
        let device = &self.devices.list[send.device as usize];
        let newest = self.ages.newest();
        let knows = self.ages.rank(device.opening) == newest && self.rank(message).0 == newest.0;
        let remembers = device.forgot.is_none_or(|forgot| send.answered_at > forgot);
        if let Some(settled) = device.settled()
            && knows
            && remembers
            && self.alive[message as usize].is_none()
            && self.excuses(message)
        {
            self.violations.add(Property::Answered, [send.answered_at, settled.position], || {
                format!("send {} was lost, and its writer was not told", send.send_no)
            });
        }
    }

    /// What was stored is what was written.
    fn judge_content(&mut self, send: &Send) {
        let message = self.messages[send.message as usize];
        let Some(written) = send.written else { return };
        let evidence = [written.position, message.position];
        if message.stream != written.stream
            || message.digest.is_some_and(|digest| digest != written.digest)
        {
            self.violations.add(Property::AsWritten, evidence, || {
                format!("message {} is not what was written", message.id)
            });
        }
        if is_weaker(message.class, written.class) {
            self.violations.add(Property::Class, evidence, || {
                format!("message {} reached a weaker class than was asked for", message.id)
            });
        }
    }
}

/// The place of a message in its conversation.
fn seq_of(messages: &[Message], held: &Held) -> Option<u64> {
    match held.what {
        What::Message { message, .. } => Some(messages[message as usize].seq),
        _ => None,
    }
}
