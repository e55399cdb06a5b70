//! Openings of the server's store, and what each excuses.
//!
//! Epochs rise from opening to opening, until an older backup is restored: then numbers come
//! again, with other tags. What lies between two restores is an age.

use crate::{Position, Property, evidence::Violations};
use rustc_hash::FxHashMap;
use starling_codec::{Epoch, EpochTag, history::After, wire::Class};

/// No opening is known.
pub(crate) const NO_OPENING: u32 = u32::MAX;

/// When something was written: age, epoch. Ordered as time was.
pub(crate) type Rank = (u32, u32);

#[derive(Debug)]
struct Opening {
    epoch: Epoch,
    tag: EpochTag,
    after: Option<After>,
    age: u32,
    position: Position,
}

#[derive(Debug, Default)]
pub(crate) struct Openings {
    known: Vec<Opening>,
    numbers: FxHashMap<(Epoch, EpochTag), u32>,
    age: u32,
    /// The last opening of the age that the history names.
    last: Option<(Epoch, Position)>,
}

impl Openings {
    /// A device was welcomed in an epoch.
    pub fn welcomed(&mut self, position: Position, epoch: Epoch, tag: EpochTag) -> u32 {
        *self.numbers.entry((epoch, tag)).or_insert_with(|| {
            self.known.push(Opening { epoch, tag, after: None, age: 0, position });
            self.known.len() as u32 - 1
        })
    }

    /// The history says what an opening came after.
    pub fn opened(
        &mut self,
        position: Position,
        after: After,
        epoch: Epoch,
        tag: EpochTag,
        violations: &mut Violations,
    ) {
        if after == After::Restore {
            (self.age, self.last) = (self.age + 1, None);
        }
        if let Some((last, last_at)) = self.last.replace((epoch, position))
            && epoch <= last
        {
            violations.add(Property::Epochs, [last_at, position], || {
                format!("the store was opened in epoch {} after epoch {}", epoch.0, last.0)
            });
        }
        let number = self.welcomed(position, epoch, tag);
        let opening = &mut self.known[number as usize];
        opening.after = Some(after);
        opening.age = self.age;
    }

    pub fn epoch(&self, opening: u32) -> Option<Epoch> {
        self.known.get(opening as usize).map(|opening| opening.epoch)
    }

    /// Once all is known: the openings in the order of time.
    pub fn into_ages(mut self, violations: &mut Violations) -> Ages {
        let ranks = self.known.iter().map(|opening| opening.rank()).collect();
        self.known.sort_by_key(Opening::rank);
        for pair in self.known.windows(2) {
            if pair[0].rank() == pair[1].rank() && pair[0].tag != pair[1].tag {
                let evidence = [pair[0].position, pair[1].position];
                violations.add(Property::Epochs, evidence, || {
                    format!("epoch {} has two tags", pair[0].epoch.0)
                });
            }
        }
        Ages { ranks, known: self.known, newest_age: self.age }
    }
}

impl Opening {
    fn rank(&self) -> Rank {
        (self.age, self.epoch.0)
    }
}

/// The openings in the order of time.
#[derive(Debug)]
pub(crate) struct Ages {
    /// By the number of the opening.
    ranks: Vec<Rank>,
    /// By rank.
    known: Vec<Opening>,
    newest_age: u32,
}

impl Ages {
    pub fn rank(&self, opening: u32) -> Rank {
        self.ranks.get(opening as usize).copied().unwrap_or_default()
    }

    pub fn newest(&self) -> Rank {
        self.known.last().map(Opening::rank).unwrap_or_default()
    }

    pub fn restored(&self) -> bool {
        self.newest_age > 0
    }

    /// Whether a fault took, or may have taken, what was written then, if its class was this. A
    /// power cut takes what was buffered in the epoch it ended; an opening makes durable what it
    /// finds. A restore may take anything older.
    pub fn excuses(&self, written: Rank, class: Class) -> bool {
        if self.newest_age > written.0 {
            return true;
        }
        let next = self.known.partition_point(|opening| opening.rank() <= written);
        let next = self.known.get(next);
        class == Class::Buffered
            && next.is_some_and(|opening| opening.after == Some(After::PowerCut))
    }

    /// Whether a device that was welcomed in one opening cannot go on in a later one: its epoch is
    /// gone, or is another's now.
    pub fn must_reset(&self, known: u32, welcomed: u32) -> bool {
        let ((known_age, known), (age, epoch)) = (self.rank(known), self.rank(welcomed));
        // A backup begins anew with the number after its own last one: what had that number or a
        // higher one is not in it.
        let first_of = |age: u32| {
            let at = self.known.partition_point(|opening| opening.age < age);
            self.known.get(at).map(|opening| opening.epoch.0)
        };
        let mut later_ages = known_age + 1..=age;
        epoch <= known || later_ages.any(|age| first_of(age).is_some_and(|first| first <= known))
    }

    /// Whether something may have been lost between two times.
    pub fn lossy_between(&self, earlier: Rank, later: Rank) -> bool {
        later.0 > earlier.0
            || self.known.iter().any(|opening| {
                let rank = opening.rank();
                opening.after == Some(After::PowerCut) && earlier < rank && rank <= later
            })
    }
}
