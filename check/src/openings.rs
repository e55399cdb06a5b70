//! Openings of the server's store, and what each excuses.
//!
//! Epochs rise from opening to opening, until an older backup is restored: then numbers come
//! again, with other tags. What lies between two restores is an age. A backup begins anew with the
//! number after its own last one, so the first epoch of an age says where the backup was cut: what
//! is of earlier epochs was written in an earlier age, and what is of the last of these may be in
//! the backup or not. Each try to open it that came to nothing may have used up a number.
//!
//! After a second restore a history does not say whether the backup was made before or after the
//! first. What was written between two restores is then excused by the second.

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

/// What begins with a backup that is restored.
#[derive(Debug)]
struct Age {
    /// The first epoch of it.
    first: u32,
    /// The epoch that the backup began anew with, or an earlier one.
    begun: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Openings {
    known: Vec<Opening>,
    numbers: FxHashMap<(Epoch, EpochTag), u32>,
    /// The ages after the first, which no backup began.
    ages: Vec<Age>,
    /// Openings that came to nothing since the last that did not.
    failed: u32,
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

    /// The store was not opened, though it was to be.
    pub fn not_opened(&mut self) {
        self.failed += 1;
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
            let begun = epoch.0.saturating_sub(self.failed);
            self.ages.push(Age { first: epoch.0, begun });
            self.last = None;
        }
        self.failed = 0;
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
        opening.age = self.ages.len() as u32;
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
        Ages { ranks, known: self.known, ages: self.ages }
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
    /// Those after the first.
    ages: Vec<Age>,
}

impl Ages {
    pub fn rank(&self, opening: u32) -> Rank {
        self.ranks.get(opening as usize).copied().unwrap_or_default()
    }

    pub fn newest(&self) -> Rank {
        self.known.last().map(Opening::rank).unwrap_or_default()
    }

    /// When something was written that has this epoch and was told in this opening. The latest age
    /// that can be meant; it is the right one unless it [is blurred](Ages::is_blurred).
    pub fn written(&self, opening: u32, epoch: Epoch) -> Rank {
        let told = self.rank(opening).0;
        // Without an epoch nothing says that it is older.
        let age = match epoch {
            Epoch(0) => told,
            _ => (1..=told).rev().find(|age| self.first_of(*age) <= epoch.0).unwrap_or_default(),
        };
        (age, epoch.0)
    }

    /// What seems to be of this time may be of another: a backup that was restored later may be of
    /// before it, and have the same epochs.
    pub fn is_blurred(&self, written: Rank) -> bool {
        0 < written.0 && written.0 < self.newest_age()
    }

    fn newest_age(&self) -> u32 {
        self.ages.len() as u32
    }

    /// 0 of the first age, as is what it [has begun with](Ages::begun_with).
    fn first_of(&self, age: u32) -> u32 {
        self.age(age).map_or(0, |age| age.first)
    }

    fn begun_with(&self, age: u32) -> u32 {
        self.age(age).map_or(0, |age| age.begun)
    }

    fn age(&self, age: u32) -> Option<&Age> {
        self.ages.get((age as usize).checked_sub(1)?)
    }

    /// Whether a fault took, or may have taken, what was written then, if its class was this. A
    /// power cut takes what was buffered in the epoch it ended; an opening makes durable what it
    /// finds. A restore takes all that is not in the backup, which has the epochs before its last
    /// one whole.
    pub fn excuses(&self, written: Rank, class: Class) -> bool {
        if self.is_cut_after(written.0, written) {
            return true;
        }
        let next = self.known.partition_point(|opening| opening.rank() <= written);
        let next = self.known.get(next);
        class == Class::Buffered
            && next.is_some_and(|opening| opening.after == Some(After::PowerCut))
    }

    /// After this age a backup was restored that was made, or may have been, before the epoch of
    /// what was written then was over: it may lack that, and it may have what was lost since.
    pub fn is_cut_after(&self, age: u32, written: Rank) -> bool {
        let (of, epoch) = written;
        let mut later_ages = age + 1..=self.newest_age();
        // What was lost with a restore is in a backup that was made before it, and restored later.
        let of_before = of > 0 || of < age || epoch == 0;
        later_ages.any(|later| of_before || self.begun_with(later) <= epoch + 1)
    }

    /// Whether a device that was welcomed in one opening cannot go on in a later one: its epoch is
    /// gone, or is another's now.
    pub fn must_reset(&self, known: u32, welcomed: u32) -> bool {
        let ((known_age, known), (age, epoch)) = (self.rank(known), self.rank(welcomed));
        // What had the number that the backup began anew with, or a higher one, is not in it.
        epoch <= known || known_age < age && self.first_of(age) <= known
    }

    /// No backup was restored.
    pub fn are_one(&self) -> bool {
        self.ages.is_empty()
    }

    /// Whether it can go on for sure: every backup that was restored since has its epoch.
    pub fn can_go_on(&self, known: u32, welcomed: u32) -> bool {
        let ((known_age, known), (age, epoch)) = (self.rank(known), self.rank(welcomed));
        let mut later_ages = known_age + 1..=age;
        known <= epoch && later_ages.all(|later| known_age == 0 && known < self.begun_with(later))
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
