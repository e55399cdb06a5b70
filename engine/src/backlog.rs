//! Input that a connection has sent and the engine has not used: the beginning of a frame, or what
//! waits behind something. Over all connections of a shard it is bounded; when it would be more,
//! whoever has kept much of it for longest makes room. Who sends a whole frame in good time, or
//! little, is not that one.

use crate::{
    Engine, Now,
    connection::{Link, NONE, Slab},
};
use starling_codec::ErrorCode;

/// Bytes of unused input that a shard holds at most.
pub(crate) const MAX_BACKLOG_BYTES: usize = 3 * 1024 * 1024;

/// Room that a small rest may have beyond twice its size.
const SLACK_BYTES: usize = 4 * 1024;

/// Input larger than this is much.
const MUCH_BYTES: usize = 4 * 1024;

/// Two lists through the activities of the connections that have unused input, of those that have
/// much and of the others, each in the order in which they came to it.
pub(crate) struct Backlog {
    much: Ends,
    little: Ends,
    bytes: usize,
}

/// First and last connection of a list.
struct Ends {
    first: u32,
    last: u32,
}

/// A connection's place in its list.
pub(crate) struct Waits {
    link: Link,
    bytes: usize,
}

impl Waits {
    fn is_much(&self) -> bool {
        self.bytes > MUCH_BYTES
    }
}

impl Backlog {
    pub(crate) fn new() -> Backlog {
        let empty = || Ends { first: NONE, last: NONE };
        Backlog { much: empty(), little: empty(), bytes: 0 }
    }

    fn list(&mut self, much: bool) -> &mut Ends {
        if much { &mut self.much } else { &mut self.little }
    }

    /// Who is to make room.
    fn oldest(&self) -> u32 {
        if self.much.first == NONE { self.little.first } else { self.much.first }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A connection has so many bytes of unused input, which began just now if it is `new`.
    fn note(&mut self, slots: &mut Slab, number: u32, bytes: usize, new: bool) {
        if let Some(waits) = &mut slots.activity(number).waits {
            let stays = (bytes > MUCH_BYTES) == waits.is_much();
            if stays && !new {
                self.bytes = self.bytes - waits.bytes + bytes;
                waits.bytes = bytes;
                return;
            }
            self.forget(slots, number);
        }
        self.bytes += bytes;
        let ends = self.list(bytes > MUCH_BYTES);
        let link = Link { prev: std::mem::replace(&mut ends.last, number), next: NONE };
        match link.prev {
            NONE => ends.first = number,
            prev => link_of(slots, prev).next = number,
        }
        slots.activity(number).waits = Some(Waits { link, bytes });
    }

    /// A connection has no unused input, or not here any more.
    pub(crate) fn forget(&mut self, slots: &mut Slab, number: u32) {
        let activity = slots.at_mut(number).activity.as_mut();
        let Some(waits) = activity.and_then(|activity| activity.waits.take()) else { return };
        self.bytes -= waits.bytes;
        let ends = self.list(waits.is_much());
        let Link { prev, next } = waits.link;
        match prev {
            NONE => ends.first = next,
            prev => link_of(slots, prev).next = next,
        }
        match next {
            NONE => ends.last = prev,
            next => link_of(slots, next).prev = prev,
        }
    }
}

/// The link of a connection that is in a list.
fn link_of(slots: &mut Slab, number: u32) -> &mut Link {
    let waits = slots.activity(number).waits.as_mut();
    // Neighbours are taken out when their connections end.
    &mut waits.expect("a neighbour is in a list").link
}

impl Engine {
    /// Keeps what is not used up of a connection's input; `new` if it is not the rest of what was
    /// kept before.
    pub(crate) fn keep_input(&mut self, now: Now, number: u32, mut input: Vec<u8>, new: bool) {
        if input.is_empty() {
            self.backlog.forget(&mut self.slots, number);
            if input.capacity() > 0 && self.slots.at(number).activity.is_some() {
                self.slots.activity(number).input = input;
            }
            return;
        }
        if input.capacity() > 2 * input.len() + SLACK_BYTES {
            input.shrink_to_fit();
        }
        self.backlog.note(&mut self.slots, number, input.capacity(), new);
        self.slots.activity(number).input = input;
        while self.backlog.bytes > MAX_BACKLOG_BYTES {
            let oldest = self.backlog.oldest();
            self.counters.unfinished += 1;
            self.close(now, oldest, ErrorCode::Overload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::State;

    #[test]
    fn the_lists_are_in_the_order_of_beginning_and_count_what_they_hold() {
        const MUCH: usize = MUCH_BYTES + 1;
        let mut slots = Slab::new(0);
        let numbers: [u32; 4] =
            std::array::from_fn(|_| slots.insert(State::Fresh { since: 0, known: false }, 0).slot);
        let [one, two, three, four] = numbers;
        let mut backlog = Backlog::new();
        let order = |backlog: &Backlog, slots: &mut Slab| {
            let mut order = Vec::new();
            for mut next in [backlog.much.first, backlog.little.first] {
                while next != NONE {
                    order.push(next);
                    next = link_of(slots, next).next;
                }
            }
            order
        };
        for number in numbers {
            backlog.note(&mut slots, number, 10, true);
        }
        backlog.note(&mut slots, one, 30, false);
        assert_eq!((order(&backlog, &mut slots), backlog.bytes()), (numbers.to_vec(), 60));
        // What is begun anew goes to the end, what became much to the other list, and what is
        // gone leaves no gap.
        backlog.note(&mut slots, one, 5, true);
        backlog.note(&mut slots, four, MUCH, false);
        backlog.note(&mut slots, three, MUCH, false);
        assert_eq!(order(&backlog, &mut slots), [four, three, two, one]);
        assert_eq!(backlog.oldest(), four);
        backlog.forget(&mut slots, four);
        backlog.forget(&mut slots, four);
        assert_eq!(order(&backlog, &mut slots), [three, two, one]);
        assert_eq!(backlog.bytes(), MUCH + 15);
        backlog.note(&mut slots, three, 1, false);
        assert_eq!((order(&backlog, &mut slots), backlog.oldest()), (vec![two, one, three], two));
        for number in numbers {
            backlog.forget(&mut slots, number);
        }
        assert_eq!((order(&backlog, &mut slots), backlog.bytes()), (vec![], 0));
        let ends = |ends: &Ends| (ends.first, ends.last);
        assert_eq!((ends(&backlog.much), ends(&backlog.little)), ((NONE, NONE), (NONE, NONE)));
    }

    /// While its input is read, a connection in a list has neither input nor anything else.
    #[test]
    fn a_connection_with_nothing_left_keeps_its_place_until_it_is_forgotten() {
        let mut slots = Slab::new(0);
        let numbers: [u32; 3] =
            std::array::from_fn(|_| slots.insert(State::Fresh { since: 0, known: false }, 0).slot);
        let [one, two, three] = numbers;
        let mut backlog = Backlog::new();
        for number in numbers {
            backlog.note(&mut slots, number, 10, true);
            slots.settle(number);
        }
        backlog.forget(&mut slots, two);
        assert_eq!(link_of(&mut slots, one).next, three);
        assert_eq!(link_of(&mut slots, three).prev, one);
        assert_eq!(backlog.bytes(), 20);
        // Who has no place any more gives back what it had.
        slots.settle(two);
        assert!(slots.at(two).activity.is_none());
    }
}
