//! Connections: what one costs while it is idle, and the slots they live in.

use crate::{Migrant, backlog::Waits, phase::Phase, session::Live};
use starling_codec::{Ticket, limits::MAX_FRUITLESS_FRAMES};
use std::collections::VecDeque;

/// No slot: the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// What a buffer that is empty keeps of its room.
const KEPT_BYTES: usize = 4 * 1024;
/// One with more room gives it back as soon as it is written, though its connection goes on.
const LARGE_BYTES: usize = 16 * 1024;

/// A connection that sent more fruitless frames than this in a tick yields to the others.
const YIELDS_ABOVE: u16 = 64;

/// One connection. A million of these are held, so its size is a contract: what only a busy
/// connection needs is in its [`Activity`], and nothing that can be derived is kept.
pub(crate) struct Slot {
    generation: u32,
    /// Tick in which bytes last came in, or went out to a peer that took them.
    heard: u32,
    /// Frames in that tick that brought nothing.
    fruitless: u16,
    /// Neighbours in the bucket of the timing wheel.
    pub(crate) timer: Link,
    /// `None` while there is nothing to remember between turns.
    pub(crate) activity: Option<Box<Activity>>,
    /// Named to the world as having output, and not asked for it since.
    pub(crate) dirty: bool,
    /// In the list of those that the outlet looks at this turn.
    pub(crate) awaits_outlet: bool,
    /// Reading was stopped.
    pub(crate) stopped: bool,
    /// `Effect::Close` was given.
    pub(crate) close_told: bool,
    pub(crate) state: State,
}

const _: () = assert!(size_of::<Slot>() <= 120);

impl Slot {
    pub(crate) fn heard(&self) -> u32 {
        self.heard
    }

    /// The peer is there.
    pub(crate) fn hear(&mut self, tick: u32) {
        if tick != self.heard {
            (self.heard, self.fruitless) = (tick, 0);
        }
    }

    /// A frame was answered, refused or skipped, and changed nothing. Counts as so many.
    pub(crate) fn count_fruitless(&mut self, frames: u16) {
        self.fruitless = self.fruitless.saturating_add(frames);
    }

    /// No client that means well has sent so many such frames in a second: it may send no more.
    pub(crate) fn floods(&self) -> bool {
        self.fruitless >= MAX_FRUITLESS_FRAMES
    }

    /// Whether those who talk go first.
    pub(crate) fn yields(&self) -> bool {
        let talks = matches!(self.state, State::Live(_) | State::Operator { .. });
        !talks || self.fruitless > YIELDS_ABOVE
    }
}

/// Where a connection is in its life.
pub(crate) enum State {
    /// No connection: the next free slot.
    Free {
        next: u32,
    },
    /// An opener is expected since this tick; `known` once there was one.
    Fresh {
        since: u32,
        known: bool,
    },
    /// What the opener started is in the engine's table of what waits.
    Checking,
    /// About to go to another shard, with what is not read yet.
    Leaving(Box<Leaving>),
    /// Handed to another shard; the socket is about to go.
    Moving,
    Live(Live),
    Operator {
        requests: u8,
    },
    /// Since this tick only the output is still to be written.
    Closing {
        since: u32,
    },
}

impl State {
    pub(crate) fn phase(&self) -> Phase {
        match self {
            State::Fresh { .. } => Phase::Opening,
            State::Checking => Phase::Checking,
            State::Live(_) => Phase::Session,
            State::Operator { .. } => Phase::Operator,
            State::Free { .. } | State::Leaving(_) | State::Moving | State::Closing { .. } => {
                Phase::Closing
            }
        }
    }
}

/// Where a connection goes, and what goes with it.
pub(crate) struct Leaving {
    pub(crate) shard: u16,
    pub(crate) migrant: Migrant,
}

/// Neighbours in a doubly linked list through the slots. `prev` of the first names the bucket.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

impl Link {
    pub(crate) const LOOSE: Link = Link { prev: NONE, next: NONE };
}

/// What a connection has only while something is going on. It comes from a pool and goes back
/// there when it is empty.
#[derive(Default)]
pub(crate) struct Activity {
    /// Bytes that are not yet a whole frame, or not yet to be looked at.
    pub(crate) input: Vec<u8>,
    /// Where that stands among the input of others.
    pub(crate) waits: Option<Waits>,
    output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
    /// Messages sent that are to be told as delivered once the cursor passes them, ascending.
    pub(crate) marks: VecDeque<Mark>,
    /// How many of the first marks were already reduced to one a conversation.
    pub(crate) reduced_marks: usize,
}

/// A message of someone else in the inbox; or a run of them, neighbours there and in their
/// conversation, of which it is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Its place in the inbox.
    pub(crate) inbox_seq: u64,
    pub(crate) conversation: starling_codec::ConversationId,
    /// Its place in the conversation.
    pub(crate) seq: u64,
    /// How many right before it belong to the run.
    pub(crate) before: u32,
}

impl Activity {
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// Where to append output.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        // What is written is dropped before the buffer would grow for it.
        if self.written > 0 && self.written * 2 >= self.output.len() {
            self.output.drain(..self.written);
            self.written = 0;
        }
        &mut self.output
    }

    pub(crate) fn note_written(&mut self, bytes: usize) {
        self.written = (self.written + bytes).min(self.output.len());
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            if self.output.capacity() > LARGE_BYTES {
                self.output.shrink_to(KEPT_BYTES);
            }
        } else if self.output.capacity() > LARGE_BYTES {
            // Who takes no more for now may not for long: no more room than what is left.
            self.output.drain(..self.written);
            self.written = 0;
            self.output.shrink_to_fit();
        }
    }

    fn is_empty(&self) -> bool {
        self.waits.is_none()
            && self.input.is_empty()
            && self.output.is_empty()
            && self.marks.is_empty()
    }

    /// Gives back what one busy moment made large.
    fn trim(&mut self) {
        self.input.shrink_to(KEPT_BYTES);
        self.output.shrink_to(KEPT_BYTES);
        self.marks.shrink_to(KEPT_BYTES / size_of::<Mark>());
    }
}

/// The slots of a shard, in pages so that growing moves nothing, and the pool of activities.
pub(crate) struct Slab {
    shard: u16,
    pages: Vec<Box<[Slot]>>,
    free: u32,
    used: u32,
    /// Boxed, as they go to and fro between here and the slots.
    #[expect(clippy::vec_box)]
    pool: Vec<Box<Activity>>,
}

const PAGE_SLOTS: usize = 1_024;
const POOLED_ACTIVITIES: usize = 1_024;

impl Slab {
    pub(crate) fn new(shard: u16) -> Slab {
        Slab { shard, pages: Vec::new(), free: NONE, used: 0, pool: Vec::new() }
    }

    /// Slots in use.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Slots in use and free ones.
    pub(crate) fn capacity(&self) -> u32 {
        (self.pages.len() * PAGE_SLOTS) as u32
    }

    pub(crate) fn insert(&mut self, state: State, tick: u32) -> Ticket {
        if self.free == NONE {
            self.grow();
        }
        let number = self.free;
        let slot = self.at_mut(number);
        let State::Free { next } = slot.state else {
            unreachable!("the free list holds free slots")
        };
        slot.state = state;
        (slot.heard, slot.fruitless) = (tick, 0);
        self.free = next;
        self.used += 1;
        self.ticket(number)
    }

    fn grow(&mut self) {
        let first = self.capacity();
        let last = first + PAGE_SLOTS as u32 - 1;
        let page = (first..=last).map(|number| Slot {
            generation: 0,
            heard: 0,
            fruitless: 0,
            timer: Link::LOOSE,
            activity: None,
            dirty: false,
            awaits_outlet: false,
            stopped: false,
            close_told: false,
            state: State::Free { next: if number == last { NONE } else { number + 1 } },
        });
        self.pages.push(page.collect());
        self.free = first;
    }

    /// Frees a slot that is in no list any more. Its tickets name nothing from now on.
    pub(crate) fn remove(&mut self, number: u32) {
        let next = self.free;
        let slot = self.at_mut(number);
        // One that is freed while armed would join two lists: of free slots, and of a bucket.
        assert!(slot.timer.prev == NONE && slot.timer.next == NONE, "a slot is freed while armed");
        let activity = slot.activity.take();
        slot.generation = slot.generation.wrapping_add(1);
        (slot.dirty, slot.awaits_outlet, slot.stopped, slot.close_told) =
            (false, false, false, false);
        slot.state = State::Free { next };
        self.free = number;
        self.used -= 1;
        if let Some(mut activity) = activity {
            activity.input.clear();
            activity.output.clear();
            activity.written = 0;
            activity.marks.clear();
            activity.reduced_marks = 0;
            self.pool(activity);
        }
    }

    /// The slot of a ticket that still names a connection.
    pub(crate) fn find(&self, ticket: Ticket) -> Option<u32> {
        if ticket.slot >= self.capacity() || ticket.shard != self.shard {
            return None;
        }
        let slot = self.at(ticket.slot);
        let current = slot.generation == ticket.generation;
        (current && !matches!(slot.state, State::Free { .. })).then_some(ticket.slot)
    }

    pub(crate) fn ticket(&self, number: u32) -> Ticket {
        Ticket { shard: self.shard, slot: number, generation: self.at(number).generation }
    }

    pub(crate) fn at(&self, number: u32) -> &Slot {
        &self.pages[number as usize / PAGE_SLOTS][number as usize % PAGE_SLOTS]
    }

    pub(crate) fn at_mut(&mut self, number: u32) -> &mut Slot {
        &mut self.pages[number as usize / PAGE_SLOTS][number as usize % PAGE_SLOTS]
    }

    /// The session on a slot.
    pub(crate) fn live(&self, number: u32) -> Option<&Live> {
        match &self.at(number).state {
            State::Live(live) => Some(live),
            _ => None,
        }
    }

    pub(crate) fn live_mut(&mut self, number: u32) -> Option<&mut Live> {
        match &mut self.at_mut(number).state {
            State::Live(live) => Some(live),
            _ => None,
        }
    }

    /// The activity of a slot, taken from the pool if it had none.
    pub(crate) fn activity(&mut self, number: u32) -> &mut Activity {
        if self.at(number).activity.is_none() {
            let activity = self.pool.pop().unwrap_or_default();
            self.at_mut(number).activity = Some(activity);
        }
        // Filled just above.
        self.at_mut(number).activity.as_mut().expect("an activity")
    }

    /// Bytes not yet written.
    pub(crate) fn unsent(&self, number: u32) -> &[u8] {
        self.at(number).activity.as_ref().map_or(&[], |activity| activity.unsent())
    }

    /// Bytes not yet written, which are to be written elsewhere.
    pub(crate) fn take_unsent(&mut self, number: u32) -> Vec<u8> {
        self.at_mut(number).activity.as_mut().map_or_else(Vec::new, |activity| {
            activity.output.drain(..std::mem::take(&mut activity.written));
            std::mem::take(&mut activity.output)
        })
    }

    /// Gives an empty activity back to the pool.
    pub(crate) fn settle(&mut self, number: u32) {
        let activity = &mut self.at_mut(number).activity;
        if activity.as_ref().is_some_and(|activity| activity.is_empty())
            && let Some(activity) = activity.take()
        {
            self.pool(activity);
        }
    }

    /// Lets go of the activities that nobody uses.
    pub(crate) fn rest(&mut self) {
        self.pool = Vec::new();
    }

    fn pool(&mut self, mut activity: Box<Activity>) {
        if self.pool.len() < POOLED_ACTIVITIES {
            activity.trim();
            self.pool.push(activity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_outlives_its_connection_as_the_name_of_nothing() {
        let mut slab = Slab::new(2);
        let old = slab.insert(State::Fresh { since: 0, known: false }, 0);
        slab.remove(old.slot);
        assert_eq!(slab.find(old), None);
        let new = slab.insert(State::Fresh { since: 0, known: false }, 0);
        assert_eq!(new.slot, old.slot);
        assert_eq!((slab.find(old), slab.find(new)), (None, Some(new.slot)));
        assert_eq!(slab.find(Ticket { shard: 1, ..new }), None);
        assert_eq!(slab.find(Ticket { slot: 1_000_000, ..new }), None);
    }

    #[test]
    #[should_panic(expected = "freed while armed")]
    fn a_slot_whose_timer_is_armed_is_not_freed() {
        let (mut slab, mut wheel) = (Slab::new(0), crate::wheel::Wheel::new());
        let ticket = slab.insert(State::Fresh { since: 0, known: false }, 0);
        wheel.arm(&mut slab, ticket.slot, 5);
        slab.remove(ticket.slot);
    }

    #[test]
    fn pages_are_added_as_needed_and_slots_used_again() {
        let mut slab = Slab::new(0);
        let tickets: Vec<Ticket> =
            (0..3_000).map(|_| slab.insert(State::Fresh { since: 0, known: false }, 0)).collect();
        assert_eq!((slab.used(), slab.capacity()), (3_000, 3_072));
        for ticket in &tickets {
            slab.remove(ticket.slot);
        }
        for _ in 0..3_000 {
            slab.insert(State::Fresh { since: 0, known: false }, 0);
        }
        assert_eq!((slab.used(), slab.capacity()), (3_000, 3_072));
    }

    #[test]
    fn written_output_is_forgotten() {
        let mut activity = Activity::default();
        activity.output().extend_from_slice(b"abcdef");
        activity.note_written(4);
        activity.output().extend_from_slice(b"gh");
        assert_eq!(activity.unsent(), b"efgh");
        assert_eq!(activity.output.len(), 4);
        activity.note_written(4);
        assert!(activity.is_empty());
    }

    #[test]
    fn what_is_left_unwritten_takes_no_more_room_than_it_needs() {
        let mut activity = Activity::default();
        activity.output().resize(40_000, 7);
        activity.note_written(30_000);
        assert_eq!(activity.unsent(), [7; 10_000]);
        assert!(activity.output.capacity() < 11_000, "{}", activity.output.capacity());
        activity.output().resize(40_000, 7);
        activity.note_written(40_000);
        assert!(activity.output.capacity() <= KEPT_BYTES, "{}", activity.output.capacity());
    }
}
