//! Whether what devices removed and hold agrees with each other, and with what is stored.

use super::{Judge, seq_of};
use crate::{
    Position, Property,
    devices::{Device, Held, Removed, WasReset, WentOn, What},
    messages::Message,
    openings::{NO_OPENING, Rank},
};
use starling_codec::{
    Place, UserId,
    history::{self, EventKind, StateHash},
    wire::Class,
};

impl Judge {
    /// Where the whole of every inbox is in the history, each begins with its first event.
    pub(super) fn judge_beginnings(&mut self) {
        let late = self.devices.list.iter().filter(|device| self.complete && !device.whole);
        for device in late {
            self.violations.add(Property::InboxDense, [device.began_at], || {
                "the first event of the device joins on to one that it never got".to_owned()
            });
        }
    }

    /// Who knew an epoch that is gone was reset, and nobody else.
    pub(super) fn judge_resets(&mut self) {
        let resets = self.devices.list.iter().flat_map(|device| &device.resets);
        for &WasReset { known, welcomed, position } in resets {
            // Of a device that was restored itself the history does not say what it knew.
            let is_known = ![known, welcomed].contains(&NO_OPENING);
            if self.ages.are_one() || is_known && self.ages.can_go_on(known, welcomed) {
                self.violations.add(Property::Rewind, [position], || {
                    "a device was reset, and its epoch was not lost with a backup that was restored"
                        .to_owned()
                });
            }
        }
        let devices = self.devices.list.iter().flat_map(|device| &device.went_on);
        for &WentOn { known, welcomed: (welcomed, online_at), position } in devices {
            if self.ages.must_reset(known, welcomed) {
                self.violations.add(Property::Epochs, [online_at, position], || {
                    "the device was welcomed in an epoch that does not follow its own, and was not \
                     reset"
                        .to_owned()
                });
            }
        }
    }

    /// What a device was told to remove was lost, and a fault excuses it.
    pub(super) fn judge_removed(&mut self) {
        for number in 0..self.devices.list.len() {
            let device = &mut self.devices.list[number];
            let removed = std::mem::take(&mut device.removed);
            for Removed { held, position, opening } in removed {
                let written = self.ages.written(opening, held.epoch);
                // It was lost, and a backup from before that brought it back.
                let may_be_back = self.ages.is_cut_after(self.ages.rank(opening).0, written);
                match held.what {
                    What::Message { message, .. } => match self.alive[message as usize] {
                        Some(_) if may_be_back => {}
                        Some(alive) => {
                            self.violations.add(Property::Rewind, [position, alive], || {
                                format!("event {} was removed, and its message is there", held.seq)
                            });
                        }
                        None if !self.excuses(message) => {
                            self.lost(held, position);
                        }
                        None => {}
                    },
                    _ if !self.ages.excuses(written, Class::Buffered) => self.lost(held, position),
                    _ if may_be_back => {}
                    _ => self.judge_removed_receipt(number as u32, &held, written, position),
                }
            }
        }
    }

    /// What is no message was removed: was it lost, or does a device of the user that knows of the
    /// newest opening hold it? What was written at another time has only its place.
    fn judge_removed_receipt(
        &mut self,
        device: u32,
        held: &Held,
        written: Rank,
        removed_at: Position,
    ) {
        let newest = self.ages.newest();
        let user = self.devices.list[device as usize].at.user;
        let holders = self.by_user.get(&user).into_iter().flatten();
        let alive = holders.filter_map(|number| {
            let other = &self.devices.list[*number as usize];
            let is_it = |there: &&Held| {
                there.what == held.what && self.ages.written(other.opening, there.epoch) == written
            };
            let there = other.held_at(held.seq).filter(is_it);
            there.filter(|_| self.ages.rank(other.opening) == newest)
        });
        if !self.ages.is_blurred(written)
            && let Some(alive) = alive.map(|there| there.position).next()
        {
            self.violations.add(Property::Rewind, [removed_at, alive], || {
                format!("event {} was removed, and it is there", held.seq)
            });
        }
    }

    fn lost(&mut self, held: Held, removed_at: Position) {
        self.violations.add(Property::Kept, [held.position, removed_at], || {
            format!("event {} was taken back, and no fault in the history excuses it", held.seq)
        });
    }

    /// What devices of one user hold is the same, and nobody holds what they were to remove.
    pub(super) fn judge_held(&mut self) {
        let users: Vec<Vec<u32>> =
            self.by_user.values().filter(|devices| devices.len() > 1).cloned().collect();
        for devices in users {
            // What the devices before hold, by seq, as what each holds is.
            let mut inbox: Vec<(Held, u32)> = Vec::new();
            for number in devices {
                let (mut next, known) = (0, inbox.len());
                for at in 0..self.devices.list[number as usize].held.len() {
                    let held = self.devices.list[number as usize].held[at];
                    while next < known && inbox[next].0.seq < held.seq {
                        next += 1;
                    }
                    if next == known || inbox[next].0.seq != held.seq {
                        inbox.push((held, number));
                        continue;
                    }
                    let (other, holder) = inbox[next];
                    if (other.epoch, other.what) == (held.epoch, held.what) {
                        continue;
                    }
                    self.judge_rival_events((other, holder), (held, number));
                    if held.epoch > other.epoch {
                        inbox[next] = (held, number);
                    }
                }
                // Two runs that ascend: they are merged.
                inbox.sort_by_key(|(held, _)| held.seq);
            }
        }
        if !self.replaced_by.is_empty() {
            self.judge_replaced();
        }
    }

    fn judge_rival_events(&mut self, one: (Held, u32), other: (Held, u32)) {
        let age = |number: u32| self.ages.rank(self.devices.list[number as usize].opening).0;
        if age(one.1) != age(other.1) {
            return;
        }
        let evidence = [one.0.position, other.0.position];
        if one.0.epoch == other.0.epoch {
            self.violations.add(Property::OneInbox, evidence, || {
                format!("two devices of a user hold different events at {}", one.0.seq)
            });
            return;
        }
        let (stale, fresh) = if one.0.epoch < other.0.epoch { (one, other) } else { (other, one) };
        let opening = self.devices.list[fresh.1 as usize].opening;
        let fresh_rank = self.ages.written(opening, fresh.0.epoch);
        self.judge_stale(stale.1, &stale.0, fresh_rank, fresh.0.position);
    }

    /// Messages that gave way to others are not held by those who were told of it.
    fn judge_replaced(&mut self) {
        for number in 0..self.devices.list.len() {
            for at in 0..self.devices.list[number].held.len() {
                let held = self.devices.list[number].held[at];
                let What::Message { message, .. } = held.what else { continue };
                let Some(later) = self.replaced_by.get(&message).copied() else { continue };
                let (rank, position) = (self.rank(later), self.told(later));
                self.judge_stale(number as u32, &held, rank, position);
            }
        }
    }

    /// A device holds what gave way to something written at `fresh`.
    fn judge_stale(&mut self, number: u32, stale: &Held, fresh: Rank, fresh_at: Position) {
        let device = &self.devices.list[number as usize];
        if self.ages.rank(device.opening) >= fresh {
            let evidence = [stale.position, fresh_at, device.online_at];
            self.violations.add(Property::Rewind, evidence, || {
                format!("event {} was lost, and the device was not told to remove it", stale.seq)
            });
        }
    }

    /// Receipts tell of what was acknowledged.
    pub(super) fn judge_receipts(&mut self) {
        if !self.complete {
            return;
        }
        for number in 0..self.devices.list.len() as u32 {
            let receipts: Vec<Held> = self.devices.list[number as usize]
                .held
                .iter()
                .filter(|held| matches!(held.what, What::Receipt { .. }))
                .filter(|held| self.is_latest(number, held))
                .copied()
                .collect();
            for held in receipts {
                let What::Receipt { stream, seq } = held.what else { continue };
                let user = self.streams.user(stream);
                let told = self.streams.messages_beside(stream);
                if !told.is_some_and(|stream| self.has_acknowledged(user, stream, seq)) {
                    self.violations.add(Property::ReceiptsTrue, [held.position], || {
                        format!("no device of user {user} has acknowledged message {seq}")
                    });
                }
            }
        }
    }

    fn is_latest(&self, number: u32, held: &Held) -> bool {
        let What::Receipt { stream, .. } = held.what else { return false };
        self.devices.latest(number, stream).is_some_and(|latest| latest.seq == held.seq)
    }

    /// A device of the user has acknowledged a message of the conversation, or a later one.
    fn has_acknowledged(&self, user: UserId, stream: u32, seq: u64) -> bool {
        let devices = self.by_user.get(&user).map(Vec::as_slice).unwrap_or_default();
        devices.iter().any(|number| {
            let top = self.devices.list[*number as usize].acked_top;
            let mut held = self.devices.latest(*number, stream);
            while let Some(event) = held {
                if seq_of(&self.messages, event).is_none_or(|here| here < seq) {
                    return false;
                }
                if event.place() <= top {
                    return true;
                }
                held = self.devices.before(*number, event);
            }
            false
        })
    }

    /// What devices say at the end that they hold.
    pub(super) fn judge_settled(&mut self) {
        for device in &self.devices.list {
            let Some(end) = device.end else { continue };
            // What it held before its first line only a complete history says: nothing.
            let Some(cursor) = device.cursor.or(self.complete.then_some(Place::START)) else {
                continue;
            };
            let told = self.hash_of(device);
            let differs = device.whole && told.is_some_and(|hash| hash != end.hash);
            if differs || cursor != end.cursor {
                self.violations.add(Property::Converge, [end.position], || {
                    "the device holds something else than it has applied".to_owned()
                });
            }
        }
        for devices in self.by_user.values() {
            let settled =
                devices.iter().filter_map(|number| self.devices.list[*number as usize].settled());
            let settled: Vec<_> = settled.collect();
            for pair in settled.windows(2) {
                if (pair[0].cursor, pair[0].hash) != (pair[1].cursor, pair[1].hash) {
                    let evidence = [pair[0].position, pair[1].position];
                    self.violations.add(Property::Converge, evidence, || {
                        "two devices of a user end with different states".to_owned()
                    });
                }
            }
        }
    }

    /// The hash of what the history says that a device holds, if it says all that is needed.
    fn hash_of(&self, device: &Device) -> Option<StateHash> {
        let mut hash = StateHash::default();
        for held in &device.held {
            let kind = match held.what {
                What::Unknown => EventKind::Unknown,
                What::Receipt { stream, seq } => EventKind::Delivered {
                    conversation: self.streams.conversation(stream),
                    user: self.streams.user(stream),
                    seq,
                },
                What::Message { message, .. } => {
                    EventKind::Message(self.as_told(&self.messages[message as usize])?)
                }
            };
            hash.add(held.place(), &kind);
        }
        Some(hash)
    }

    fn as_told(&self, message: &Message) -> Option<history::Message> {
        let sender = self.devices.list[message.sender as usize].at;
        Some(history::Message {
            id: message.id,
            conversation: self.streams.conversation(message.stream),
            seq: message.seq,
            sender: sender.user,
            device: sender.device,
            send_no: message.send_no,
            nonce: None,
            class: message.class,
            digest: Some(message.digest?),
        })
    }
}
