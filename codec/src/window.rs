//! Which of a device's send numbers were applied: the anti-replay window of IPsec (RFC 4303,
//! 3.4.3), the one memory against doubled messages.

use crate::{SendNo, wire};

/// The highest number applied and a bitmap of the 64 below it. Numbers need not come in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendWindow {
    highest: u64,
    /// Bit `i` stands for `highest - 1 - i`.
    bitmap: u64,
}

/// How a number stands to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Never applied.
    New,
    /// Applied, and near enough for its first answer to be found.
    Applied,
    /// Below the window: nothing is known of it any more.
    Stale,
}

impl SendWindow {
    /// Numbers below the highest that are remembered.
    pub const WIDTH: u64 = 64;

    /// The highest number applied; 0 if there was none.
    pub fn highest(self) -> SendNo {
        SendNo(self.highest)
    }

    pub fn standing(self, number: SendNo) -> Standing {
        let Some(below) = self.highest.checked_sub(number.0) else { return Standing::New };
        match below {
            // Number 0 is nobody's: an empty window has applied nothing.
            _ if number.0 == 0 => Standing::Stale,
            0 => Standing::Applied,
            1..=Self::WIDTH if self.bitmap & 1 << (below - 1) != 0 => Standing::Applied,
            1..=Self::WIDTH => Standing::New,
            _ => Standing::Stale,
        }
    }

    /// Marks a number as applied. A number below the window is left alone.
    pub fn apply(&mut self, number: SendNo) {
        if number.0 > self.highest {
            let risen = number.0 - self.highest;
            // The old highest becomes one of those below, unless there was none.
            let kept = if risen > Self::WIDTH {
                0
            } else {
                self.bitmap.checked_shl(risen as u32).unwrap_or(0)
            };
            let old = if self.highest == 0 || risen > Self::WIDTH { 0 } else { 1 << (risen - 1) };
            *self = SendWindow { highest: number.0, bitmap: kept | old };
        } else if let below @ 1..=Self::WIDTH = self.highest - number.0 {
            self.bitmap |= 1 << (below - 1);
        }
    }

    pub fn from_parts(highest: SendNo, bitmap: u64) -> SendWindow {
        SendWindow { highest: highest.0, bitmap }
    }

    pub fn bitmap(self) -> u64 {
        self.bitmap
    }
}

impl From<SendWindow> for wire::SendWindow {
    fn from(window: SendWindow) -> Self {
        wire::SendWindow { highest: window.highest, bitmap: window.bitmap }
    }
}

impl From<wire::SendWindow> for SendWindow {
    fn from(window: wire::SendWindow) -> Self {
        SendWindow { highest: window.highest, bitmap: window.bitmap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a set that forgets nothing: inside the window the two agree, below it the
        /// window says so.
        #[test]
        fn agrees_with_a_set(numbers in proptest::collection::vec(1u64..400, 1..300)) {
            let mut window = SendWindow::default();
            let mut applied = BTreeSet::new();
            for number in numbers {
                let expected = match applied.last() {
                    Some(highest) if number + SendWindow::WIDTH < *highest => Standing::Stale,
                    _ if applied.contains(&number) => Standing::Applied,
                    _ => Standing::New,
                };
                prop_assert_eq!(window.standing(SendNo(number)), expected);
                if expected == Standing::New {
                    window.apply(SendNo(number));
                    applied.insert(number);
                }
            }
        }
    }
}
