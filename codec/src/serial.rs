//! Serials: which tokens of a device are still good.
//!
//! A serial has two parts. The lower bits count how often the device's tokens were revoked. The
//! others are random, of the opening of the store in which the device was made: when an older
//! backup is restored, the numbers of users and devices that it does not know are given again, and
//! whoever had such a number before must not get in with her token as the one who has it now.

use crate::EpochTag;

const COUNT_BITS: u32 = 8;

/// The serial that a device begins with, if it is made in the opening with `tag`.
pub fn first_serial(tag: EpochTag) -> u32 {
    let making = (tag.0 as u32) << COUNT_BITS;
    // The top bit stays free: raising a serial by one never overflows. A count that does goes on in
    // the random part, of which only the device's row and its tokens need to agree.
    making & (u32::MAX >> 1) | 1
}

/// Whether a token with the serial `token` is worth nothing for a device whose row has `device`.
pub fn is_revoked(token: u32, device: u32) -> bool {
    token < device || token >> COUNT_BITS != device >> COUNT_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_is_revoked_and_for_the_device_it_was_made_for() {
        let (first, other) = (first_serial(EpochTag(77)), first_serial(EpochTag(u64::MAX)));
        for serial in [first, other, 1] {
            assert!(!is_revoked(serial, serial));
            assert!(is_revoked(serial, serial + 1));
            // The revocation is not in an older backup.
            assert!(!is_revoked(serial + 1, serial));
        }
        for (token, device) in [(first, other), (other, first), (1, first), (first, 1)] {
            assert!(is_revoked(token, device));
            assert!(is_revoked(token + 1, device));
        }
    }

    #[test]
    fn however_often_it_is_revoked_the_newest_token_is_good_and_the_one_before_is_not() {
        let mut serial = first_serial(EpochTag(u64::MAX));
        for _ in 0..1_000 {
            assert!(is_revoked(serial, serial + 1));
            serial += 1;
            assert!(!is_revoked(serial, serial));
        }
    }
}
