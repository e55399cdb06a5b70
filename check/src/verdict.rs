//! What a check found.

use crate::{Property, Violation};

/// Whether a history keeps the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Of each property that does not hold, the shortest contradiction.
    pub violations: Vec<Violation>,
    /// Contradictions in all.
    pub contradictions: u64,
    pub records: u64,
    /// Lines of types that this version does not know.
    pub skipped: u64,
    pub messages: u64,
    pub devices: u64,
    pub conversations: u64,
    /// Devices that said at the end what they hold.
    pub settled: u64,
    /// Every device that took part is in the history.
    pub complete: bool,
}

impl Verdict {
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }

    pub fn violates(&self, property: Property) -> bool {
        self.violations.iter().any(|violation| violation.property == property)
    }
}
