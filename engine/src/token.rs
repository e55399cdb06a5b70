//! Session tokens: signed names of a user's device. They are checked without a read; only
//! whether they were revoked is asked of the store.
//!
//! Layout, integers big-endian: version (1 byte, 1), key id (4), user (4), device (4), serial (4),
//! expiry in Unix seconds (8), then the first 16 bytes of HMAC-SHA256 over all that.

use hmac::{Hmac, KeyInit, Mac};
use rustc_hash::FxHashMap;
use sha2::Sha256;
use starling_codec::{DeviceId, ErrorCode, UserId, limits::MAX_TOKEN_BYTES};
use std::fmt;

const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 25;
const MAC_BYTES: usize = 16;
/// Size of a token.
pub const TOKEN_BYTES: usize = SIGNED_BYTES + MAC_BYTES;

const _: () = assert!(TOKEN_BYTES <= MAX_TOKEN_BYTES);

/// Whom a checked token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    pub device: DeviceId,
    /// The device's row says whether it is still good: see [`starling_codec::serial`].
    pub serial: u32,
}

/// The keys that sign tokens: one makes new ones, all are believed.
#[derive(Clone)]
pub struct Keyring {
    signing: u32,
    keys: FxHashMap<u32, Hmac<Sha256>>,
}

impl Keyring {
    /// A ring whose one key, `id`, signs.
    pub fn new(id: u32, secret: &[u8; 32]) -> Keyring {
        let mut ring = Keyring { signing: id, keys: FxHashMap::default() };
        ring.believe(id, secret);
        ring
    }

    /// Tokens of this key are valid too.
    pub fn believe(&mut self, id: u32, secret: &[u8; 32]) {
        // HMAC takes a key of any length, so this cannot fail.
        let key = Hmac::new_from_slice(secret).expect("a key of any length");
        self.keys.insert(id, key);
    }

    /// A token of `identity` that is valid until `expires_s` (Unix seconds).
    pub fn sign(&self, identity: Identity, expires_s: u64) -> [u8; TOKEN_BYTES] {
        let mut token = [0; TOKEN_BYTES];
        token[0] = VERSION;
        token[1..5].copy_from_slice(&self.signing.to_be_bytes());
        token[5..9].copy_from_slice(&identity.user.0.to_be_bytes());
        token[9..13].copy_from_slice(&identity.device.0.to_be_bytes());
        token[13..17].copy_from_slice(&identity.serial.to_be_bytes());
        token[17..SIGNED_BYTES].copy_from_slice(&expires_s.to_be_bytes());
        let mac = self.keys[&self.signing].clone().chain_update(&token[..SIGNED_BYTES]);
        token[SIGNED_BYTES..].copy_from_slice(&mac.finalize().into_bytes()[..MAC_BYTES]);
        token
    }

    /// Whom `token` names, or what is wrong with it at `unix_s`. The expiry is looked at last,
    /// so that only the holder of a true token learns that it has expired.
    pub fn check(&self, token: &[u8], unix_s: u64) -> Result<Identity, ErrorCode> {
        let Ok(token) = <&[u8; TOKEN_BYTES]>::try_from(token) else {
            return Err(ErrorCode::TokenMalformed);
        };
        if token[0] != VERSION {
            return Err(ErrorCode::TokenMalformed);
        }
        let key = self.keys.get(&word(token, 1)).ok_or(ErrorCode::TokenUnknownKey)?;
        key.clone()
            .chain_update(&token[..SIGNED_BYTES])
            .verify_truncated_left(&token[SIGNED_BYTES..])
            .map_err(|_| ErrorCode::TokenForged)?;
        let user = UserId::from_wire(word(token, 5)).ok_or(ErrorCode::TokenMalformed)?;
        let expires_s = u64::from(word(token, 17)) << 32 | u64::from(word(token, 21));
        if unix_s >= expires_s {
            return Err(ErrorCode::TokenExpired);
        }
        Ok(Identity { user, device: DeviceId(word(token, 9)), serial: word(token, 13) })
    }
}

/// The big-endian number at `start`, which is at most 21.
fn word(token: &[u8; TOKEN_BYTES], start: usize) -> u32 {
    u32::from_be_bytes([token[start], token[start + 1], token[start + 2], token[start + 3]])
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("signing", &self.signing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: Identity = Identity { user: UserId(7), device: DeviceId(2), serial: 3 };

    #[test]
    fn a_signed_token_names_its_device_until_it_expires() {
        let ring = Keyring::new(1, &[9; 32]);
        let token = ring.sign(ADA, 1_000);
        assert_eq!(ring.check(&token, 999), Ok(ADA));
        assert_eq!(ring.check(&token, 1_000), Err(ErrorCode::TokenExpired));
    }

    #[test]
    fn a_token_changed_in_any_bit_is_refused() {
        let ring = Keyring::new(1, &[9; 32]);
        let token = ring.sign(ADA, 1_000);
        for bit in 0..TOKEN_BYTES * 8 {
            let mut changed = token;
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0 => ErrorCode::TokenMalformed,
                1..=4 => ErrorCode::TokenUnknownKey,
                _ => ErrorCode::TokenForged,
            };
            assert_eq!(ring.check(&changed, 0), Err(expected), "bit {bit}");
        }
        assert_eq!(ring.check(&token[..40], 0), Err(ErrorCode::TokenMalformed));
        assert_eq!(ring.check(&[], 0), Err(ErrorCode::TokenMalformed));
    }

    #[test]
    fn an_old_key_is_believed_but_signs_no_more() {
        let old = Keyring::new(1, &[9; 32]);
        let mut new = Keyring::new(2, &[8; 32]);
        let token = old.sign(ADA, 1_000);
        assert_eq!(new.check(&token, 0), Err(ErrorCode::TokenUnknownKey));
        new.believe(1, &[9; 32]);
        assert_eq!(new.check(&token, 0), Ok(ADA));
        assert_eq!(old.check(&new.sign(ADA, 1_000), 0), Err(ErrorCode::TokenUnknownKey));
    }
}
