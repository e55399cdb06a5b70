//! What contradicts a property, and where in the history it stands.

use crate::Property;
use std::fmt;

/// A line of a history: which of its files, from 0, and which line there, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    const LINE_BITS: u32 = 48;

    pub fn new(file: u16, line: u64) -> Position {
        Position(u64::from(file) << Self::LINE_BITS | line)
    }

    pub fn file(self) -> u16 {
        (self.0 >> Self::LINE_BITS) as u16
    }

    pub fn line(self) -> u64 {
        self.0 & ((1 << Self::LINE_BITS) - 1)
    }
}

/// A property that does not hold, and the few lines that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub property: Property,
    /// What is wrong, in a sentence.
    pub what: String,
    /// In the order of the history.
    pub evidence: Vec<Position>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}

/// The violations found: of each property the one with the least evidence.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    shortest: Vec<Violation>,
    count: u64,
}

impl Violations {
    pub fn add(
        &mut self,
        property: Property,
        evidence: impl IntoIterator<Item = Position>,
        what: impl FnOnce() -> String,
    ) {
        self.count += 1;
        let mut evidence: Vec<Position> = evidence.into_iter().collect();
        evidence.sort_unstable();
        evidence.dedup();
        let known = self.shortest.iter().position(|known| known.property == property);
        if let Some(known) = known {
            if self.shortest[known].evidence.len() <= evidence.len() {
                return;
            }
            self.shortest.swap_remove(known);
        }
        self.shortest.push(Violation { property, what: what(), evidence });
    }

    /// All, in the order of the properties, and how many contradictions there were.
    pub fn into_parts(mut self) -> (Vec<Violation>, u64) {
        self.shortest.sort_by_key(|violation| violation.property);
        (self.shortest, self.count)
    }
}
