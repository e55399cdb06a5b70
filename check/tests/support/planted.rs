//! Faults planted in a true history: what a defect would have left behind.

use super::{World, an_evening, an_evening_after_a_restore, at};
use starling_check::Property;
use starling_codec::{
    Epoch, EpochTag, MessageId, Place, SendNo, SendWindow,
    history::{After, At, EventKind, Fact, Message, Record, StateHash},
    wire::Class,
};

/// A fault, what must find it, and how it is done to a true history.
pub struct Planted {
    pub fault: &'static str,
    pub property: Property,
    pub plant: fn(&mut History),
}

/// A history under the knife.
pub struct History(pub Vec<Record>);

pub const ALL: &[Planted] = &[
    Planted {
        fault: "a kill takes a buffered message",
        property: Property::Kept,
        plant: |history| {
            let cut = history.find(|record| opened_after(record, After::PowerCut));
            let Fact::Opened { after, .. } = &mut history.0[cut].fact else { unreachable!() };
            *after = After::Kill;
        },
    },
    Planted {
        fault: "a power cut takes a durable message",
        property: Property::Kept,
        plant: |history| {
            let at = history.find(|record| matches!(record.fact, Fact::Rewind(_)));
            let Fact::Rewind(place) = &mut history.0[at].fact else { unreachable!() };
            *place = Place::START;
        },
    },
    Planted {
        fault: "a device never gets the last message",
        property: Property::Kept,
        plant: |history| {
            let last = history.find_last(|record| is_message(record, EVE));
            history.0.remove(last);
        },
    },
    Planted {
        fault: "the place in an acknowledgement has another event",
        property: Property::Kept,
        plant: |history| {
            let at = history.find(|record| is_sent(record, BOB));
            let Fact::Sent { place, .. } = &mut history.0[at].fact else { unreachable!() };
            place.seq += 1;
        },
    },
    Planted {
        fault: "a message has two places in an inbox",
        property: Property::Once,
        plant: |history| {
            let last = history.find_last(|record| is_message(record, EVE));
            let mut again = history.0[last].clone();
            let Fact::Event { place, prev, .. } = &mut again.fact else { unreachable!() };
            (*prev, place.seq) = (place.seq, place.seq + 1);
            history.0.insert(last + 1, again);
        },
    },
    Planted {
        fault: "a repeated send is stored as another message",
        property: Property::Once,
        plant: |history| {
            let first = history.find(|record| is_sent(record, BOB));
            let Fact::Sent { send_no, nonce, .. } = history.0[first].fact else { unreachable!() };
            history.each(|record| match &mut record.fact {
                Fact::Sent { send_no: number, nonce: of, .. } if record.at == Some(BOB) => {
                    (*number, *of) = (send_no, nonce);
                }
                _ => {}
            });
        },
    },
    Planted {
        fault: "another message has the place in the conversation",
        property: Property::OneOrder,
        plant: |history| {
            let id = history.message(history.find_last(|record| is_message(record, EVE))).id;
            history.each_message(EVE, |message| {
                if message.id == id {
                    message.id = MessageId(id.0 + 1);
                }
            });
        },
    },
    Planted {
        fault: "two messages of a conversation have one place",
        property: Property::OneOrder,
        plant: |history| {
            let last = history.find_last(|record| is_message(record, EVE));
            let seq = history.message(last).seq;
            history.each_message(EVE, |message| {
                if message.seq == seq {
                    message.seq -= 1;
                }
            });
        },
    },
    Planted {
        fault: "a retried message overtakes a later one",
        property: Property::WritingOrder,
        plant: |history| {
            let mut numbers = history.0.iter().filter_map(|record| match record.fact {
                Fact::Send { send_no, .. } if record.at == Some(ADA) => Some(send_no),
                _ => None,
            });
            let (Some(first), Some(second)) = (numbers.next(), numbers.next()) else { panic!() };
            let swap = |send_no: &mut SendNo| {
                *send_no = match *send_no {
                    number if number == first => second,
                    number if number == second => first,
                    other => other,
                };
            };
            history.each(|record| match &mut record.fact {
                Fact::Send { send_no, .. } | Fact::Sent { send_no, .. }
                    if record.at == Some(ADA) =>
                {
                    swap(send_no);
                }
                Fact::Event { kind: EventKind::Message(message), .. }
                    if (message.sender, message.device) == (ADA.user, ADA.device) =>
                {
                    swap(&mut message.send_no);
                }
                _ => {}
            });
        },
    },
    Planted {
        fault: "a message is left out of an inbox",
        property: Property::ConversationDense,
        plant: |history| {
            let at = history.find(|record| is_message(record, BOB));
            let Fact::Event { kind, .. } = &mut history.0[at].fact else { unreachable!() };
            *kind = EventKind::Unknown;
        },
    },
    Planted {
        fault: "an event is not pushed",
        property: Property::InboxDense,
        plant: |history| {
            let at = history.find(|record| is_message(record, BOB));
            history.0.remove(at);
        },
    },
    Planted {
        fault: "an event is applied twice",
        property: Property::InboxDense,
        plant: |history| {
            let at = history.find(|record| is_message(record, BOB));
            history.0.insert(at, history.0[at].clone());
        },
    },
    Planted {
        fault: "two devices of a user get different events",
        property: Property::OneInbox,
        plant: |history| {
            let at = history.find(|record| is_receipt(record, PHONE));
            let Fact::Event { kind, .. } = &mut history.0[at].fact else { unreachable!() };
            *kind = EventKind::Unknown;
        },
    },
    Planted {
        fault: "one recipient gets another content",
        property: Property::SameMessage,
        plant: |history| {
            let id = history.message(history.find(|record| is_message(record, BOB))).id;
            history.each_message(BOB, |message| {
                if message.id == id {
                    message.digest = Some(1);
                }
            });
        },
    },
    Planted {
        fault: "a content is changed on the way",
        property: Property::AsWritten,
        plant: |history| {
            let at = history.find(|record| matches!(record.fact, Fact::Send { .. }));
            let Fact::Send { digest, .. } = &mut history.0[at].fact else { unreachable!() };
            *digest += 1;
        },
    },
    Planted {
        fault: "a message that nobody wrote",
        property: Property::AsWritten,
        plant: |history| {
            let at = history.find(|record| matches!(record.fact, Fact::Send { .. }));
            history.0.remove(at);
        },
    },
    Planted {
        fault: "a durable message is acknowledged as buffered",
        property: Property::Class,
        plant: |history| {
            let at = history
                .find(|record| matches!(record.fact, Fact::Send { class: Class::Buffered, .. }));
            let Fact::Send { class, .. } = &mut history.0[at].fact else { unreachable!() };
            *class = Class::Durable;
        },
    },
    Planted {
        fault: "a cursor goes back",
        property: Property::AcksRise,
        plant: |history| {
            let at = history.find(|record| is_acked(record, BOB));
            let Fact::Acked(place) = history.0[at].fact else { unreachable!() };
            let lower = Fact::Acked(Place::new(place.seq - 1, place.epoch));
            history.0.insert(at + 1, Record { fact: lower, ..history.0[at].clone() });
        },
    },
    Planted {
        fault: "a cursor runs ahead of what was applied",
        property: Property::AcksRise,
        plant: |history| {
            let at = history.find(|record| is_acked(record, BOB));
            let Fact::Acked(place) = &mut history.0[at].fact else { unreachable!() };
            place.seq += 1;
        },
    },
    Planted {
        fault: "a receipt falls",
        property: Property::ReceiptsRise,
        plant: |history| {
            let at = history.find_last(|record| is_receipt(record, BOB));
            history.each(|record| {
                if let Fact::Event { kind: EventKind::Delivered { seq, .. }, place, .. } =
                    &mut record.fact
                    && record.at == Some(BOB)
                {
                    // The first is now the highest.
                    *seq = 1_000 - place.seq;
                }
            });
            assert!(is_receipt(&history.0[at], BOB));
        },
    },
    Planted {
        fault: "a receipt for what nobody acknowledged",
        property: Property::ReceiptsTrue,
        plant: |history| history.0.retain(|record| !is_acked(record, BOB)),
    },
    Planted {
        fault: "a message that was refused for good is stored",
        property: Property::Window,
        plant: |history| {
            let at = history.find(|record| is_sent(record, ADA));
            let Fact::Sent { send_no, nonce, .. } = history.0[at].fact else { unreachable!() };
            history.0[at].fact = Fact::Refused { send_no, nonce, code: 44 };
        },
    },
    Planted {
        fault: "a repeat gets another answer than the first",
        property: Property::Window,
        plant: |history| {
            let at = history.find(|record| is_sent(record, ADA));
            let mut again = history.0[at].clone();
            let Fact::Sent { place, .. } = &mut again.fact else { unreachable!() };
            place.seq += 1;
            history.0.insert(at + 1, again);
        },
    },
    Planted {
        fault: "a kill makes the send window forget",
        property: Property::Window,
        plant: |history| {
            let at = history.find(|record| opened_after(record, After::Kill));
            let online = at + history.find_from(at, |record| is_online(record, ADA));
            let Fact::Online { window, .. } = &mut history.0[online].fact else { unreachable!() };
            *window = SendWindow::default();
        },
    },
    Planted {
        fault: "the send window claims what was never stored",
        property: Property::Window,
        plant: |history| {
            let refused = history.find(|record| matches!(record.fact, Fact::Refused { .. }));
            let Fact::Refused { send_no, .. } = history.0[refused].fact else { unreachable!() };
            let at = history.find_last(|record| is_online(record, EVE));
            let Fact::Online { window, .. } = &mut history.0[at].fact else { unreachable!() };
            window.apply(send_no);
            history.0.remove(refused);
        },
    },
    Planted {
        fault: "a message is given back as unsent, and stored",
        property: Property::Window,
        plant: |history| {
            let at = history.find_last(|record| is_sent(record, ADA));
            let Fact::Sent { send_no, nonce, .. } = history.0[at].fact else { unreachable!() };
            let reason = starling_codec::history::Reason::Stale;
            history.0[at].fact = Fact::Unsent { send_no, nonce, reason };
        },
    },
    Planted {
        fault: "a rewind removes what is still there",
        property: Property::Rewind,
        plant: |history| {
            let last = history.find_last(|record| is_message(record, EVE));
            let Fact::Event { place, prev, .. } = history.0[last].fact else { unreachable!() };
            let before = Fact::Rewind(Place::new(prev, place.epoch));
            let again = history.0[last].clone();
            history.0.insert(last + 1, Record { fact: before, ..again.clone() });
            history.0.insert(last + 2, again);
        },
    },
    Planted {
        fault: "a rewind removes a receipt that is still there",
        property: Property::Rewind,
        plant: |history| {
            // Of the epoch that the power cut ended, which excuses the loss of what it took.
            let cut = history.find(|record| opened_after(record, After::PowerCut));
            let Fact::Opened { epoch: after, .. } = history.0[cut].fact else { unreachable!() };
            let at = history.find_last(|record| {
                let of_then = |place: Place| place.epoch.0 + 1 == after.0;
                is_receipt(record, PHONE)
                    && matches!(record.fact, Fact::Event { place, .. } if of_then(place))
            });
            let Fact::Event { place, prev, .. } = history.0[at].fact else { unreachable!() };
            let again = history.0[at].clone();
            let rewind = Fact::Rewind(Place::new(prev, place.epoch));
            history.0.insert(at + 1, Record { fact: rewind, ..again.clone() });
            history.0.insert(at + 2, again);
        },
    },
    Planted {
        fault: "a device is not told what was lost",
        property: Property::Rewind,
        plant: |history| {
            let cut = history.find(|record| opened_after(record, After::PowerCut));
            let online = cut + history.find_from(cut, |record| is_online(record, BOB));
            let mut index = 0;
            history.0.retain(|record| {
                index += 1;
                index <= online + 1 || record.at != Some(BOB)
            });
        },
    },
    Planted {
        fault: "a device is reset for no reason",
        property: Property::Rewind,
        plant: |history| {
            history.0.push(Record { at: Some(EVE), time_ms: None, fact: Fact::Reset });
        },
    },
    Planted {
        fault: "an epoch has two tags",
        property: Property::Epochs,
        plant: |history| {
            let at = history.find(|record| is_online(record, ADA));
            let Fact::Online { tag, .. } = &mut history.0[at].fact else { unreachable!() };
            *tag = EpochTag(7);
        },
    },
    Planted {
        fault: "a device of a lost epoch is not reset",
        property: Property::Epochs,
        plant: |history| {
            let at = history.find_last(|record| is_online(record, EVE));
            let Fact::Online { epoch, .. } = &mut history.0[at].fact else { unreachable!() };
            *epoch = Epoch(1);
        },
    },
    Planted {
        fault: "a device is not reset, and its lost epoch is another's by now",
        property: Property::Epochs,
        plant: |history| {
            let opened = |after, epoch| {
                let (epoch, tag) = (Epoch(epoch), EpochTag(u64::from(epoch)));
                Record::new(Fact::Opened { after, epoch, tag })
            };
            // The evening ends in epoch 3, and the backup was made in the first.
            let openings = [(After::Restore, 2), (After::Kill, 3), (After::Kill, 4)];
            history.0.extend(openings.map(|(after, epoch)| opened(after, epoch)));
            let online = history.find_last(|record| is_online(record, EVE));
            let mut online = history.0[online].clone();
            let Fact::Online { epoch, tag, .. } = &mut online.fact else { unreachable!() };
            (*epoch, *tag) = (Epoch(4), EpochTag(4));
            let acked = history.find_last(|record| is_acked(record, EVE));
            let acked = history.0[acked].clone();
            history.0.extend([online, acked]);
        },
    },
    Planted {
        fault: "the store is opened in an epoch that it had before",
        property: Property::Epochs,
        plant: |history| {
            let first = history.find(|record| opened_after(record, After::Stop));
            let again = history.0[first].clone();
            let kill = history.find(|record| opened_after(record, After::Kill));
            history.0.insert(kill + 1, again);
        },
    },
    Planted {
        fault: "the epochs of an inbox fall",
        property: Property::Epochs,
        plant: |history| {
            let last = history.find_last(|record| is_message(record, EVE));
            let Fact::Event { place, .. } = &mut history.0[last].fact else { unreachable!() };
            place.epoch = Epoch(0);
        },
    },
    Planted {
        fault: "a device holds something else than it applied",
        property: Property::Converge,
        plant: |history| {
            let at = history.find(|record| matches!(record.fact, Fact::State { .. }));
            let Fact::State { hash, .. } = &mut history.0[at].fact else { unreachable!() };
            *hash = StateHash(1);
        },
    },
    Planted {
        fault: "two devices of a user end at different places",
        property: Property::Converge,
        plant: |history| {
            let is_state = |record: &Record| {
                record.at == Some(PHONE) && matches!(record.fact, Fact::State { .. })
            };
            let at = history.find(is_state);
            let Fact::State { cursor, .. } = &mut history.0[at].fact else { unreachable!() };
            cursor.seq -= 1;
        },
    },
    Planted {
        fault: "a send is never answered",
        property: Property::Answered,
        plant: |history| {
            let at = history.find_last(|record| is_sent(record, ADA));
            history.0.remove(at);
        },
    },
    Planted {
        fault: "a message is lost, and its writer is not told",
        property: Property::Answered,
        plant: |history| {
            let at = history.find(|record| matches!(record.fact, Fact::Unsent { .. }));
            history.0.remove(at);
        },
    },
];

/// Faults that a restore itself would leave behind, for the history with one.
pub const OF_A_RESTORE: &[Planted] = &[
    Planted {
        fault: "a backup lacks what is older than its last epoch",
        property: Property::Kept,
        plant: |history| {
            let mut world = World::new();
            world.online(ADA);
            world.send(ADA, 2, Class::Durable);
            world.kill();
            let backup = world.backup();
            world.restore(backup.emptied());
            world.online(ADA);
            world.send(ADA, 2, Class::Durable);
            world.settle();
            *history = History(world.records);
        },
    },
    Planted {
        fault: "a message that the backup has is stored again",
        property: Property::Once,
        plant: |history| {
            let first = history.find(|record| is_sent(record, ADA));
            let Fact::Sent { send_no, nonce, .. } = history.0[first].fact else { unreachable!() };
            let last = history.find_last(|record| is_sent(record, ADA));
            let Fact::Sent { send_no: number, nonce: of, .. } = &mut history.0[last].fact else {
                unreachable!()
            };
            (*number, *of) = (send_no, nonce);
        },
    },
    Planted {
        fault: "the send window forgets what the backup has",
        property: Property::Window,
        plant: |history| {
            let restored = history.find(|record| opened_after(record, After::Restore));
            let online = restored + history.find_from(restored, |record| is_online(record, ADA));
            let Fact::Online { window, .. } = &mut history.0[online].fact else { unreachable!() };
            *window = SendWindow::default();
        },
    },
    Planted {
        fault: "a device is reset whose epoch the backup has",
        property: Property::Rewind,
        plant: |history| {
            let rewind = history.rewind_of_bob();
            history.0[rewind].fact = Fact::Reset;
        },
    },
    Planted {
        fault: "a device goes back to before what the backup has",
        property: Property::Rewind,
        plant: |history| {
            let rewind = history.rewind_of_bob();
            history.0[rewind].fact = Fact::Rewind(Place::START);
        },
    },
];

const ADA: At = at(1, 1);
const PHONE: At = at(1, 2);
const BOB: At = at(2, 1);
const EVE: At = at(3, 1);

/// The history that the faults are planted in.
pub fn true_history() -> History {
    let World { records, .. } = an_evening();
    History(records)
}

/// A history with a restore: what was before it, with its opening, and what came after.
pub fn history_with_a_restore() -> (Vec<Record>, History) {
    let mut history = History(an_evening_after_a_restore().records);
    let restored = history.find(|record| opened_after(record, After::Restore));
    let after = history.0.split_off(restored + 1);
    (history.0, History(after))
}

impl History {
    /// Bob's epoch is in the backup, and some of what he holds is not.
    fn rewind_of_bob(&self) -> usize {
        let restored = self.find(|record| opened_after(record, After::Restore));
        let is_rewind =
            |record: &Record| record.at == Some(BOB) && matches!(record.fact, Fact::Rewind(_));
        restored + self.find_from(restored, is_rewind)
    }

    fn find(&self, is_it: impl Fn(&Record) -> bool) -> usize {
        self.0.iter().position(is_it).expect("the evening has one")
    }

    fn find_last(&self, is_it: impl Fn(&Record) -> bool) -> usize {
        self.0.iter().rposition(is_it).expect("the evening has one")
    }

    /// Counted from an index.
    fn find_from(&self, index: usize, is_it: impl Fn(&Record) -> bool) -> usize {
        self.0[index..].iter().position(is_it).expect("the evening has one")
    }

    fn message(&self, index: usize) -> Message {
        match self.0[index].fact {
            Fact::Event { kind: EventKind::Message(message), .. } => message,
            _ => panic!("no message at {index}"),
        }
    }

    fn each(&mut self, change: impl FnMut(&mut Record)) {
        self.0.iter_mut().for_each(change);
    }

    /// Every message that a device applied.
    fn each_message(&mut self, device: At, mut change: impl FnMut(&mut Message)) {
        self.each(|record| {
            if let Fact::Event { kind: EventKind::Message(message), .. } = &mut record.fact
                && record.at == Some(device)
            {
                change(message);
            }
        });
    }
}

fn opened_after(record: &Record, what: After) -> bool {
    matches!(record.fact, Fact::Opened { after, .. } if after == what)
}

fn is_message(record: &Record, device: At) -> bool {
    record.at == Some(device)
        && matches!(record.fact, Fact::Event { kind: EventKind::Message(_), .. })
}

fn is_receipt(record: &Record, device: At) -> bool {
    record.at == Some(device)
        && matches!(record.fact, Fact::Event { kind: EventKind::Delivered { .. }, .. })
}

fn is_sent(record: &Record, device: At) -> bool {
    record.at == Some(device) && matches!(record.fact, Fact::Sent { .. })
}

fn is_acked(record: &Record, device: At) -> bool {
    record.at == Some(device) && matches!(record.fact, Fact::Acked(_))
}

fn is_online(record: &Record, device: At) -> bool {
    record.at == Some(device) && matches!(record.fact, Fact::Online { .. })
}
