//! Argon2id in memory that a thread takes once, at its start: a flood of logins then makes the
//! server no larger than it was before it.

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        self,
        phc::{Output, ParamsString, PasswordHash, Salt},
        try_generate_salt,
    },
};
use std::io;

/// Memory and passes, as OWASP's password storage sheet gives them for Argon2id. Of its settings,
/// which all defend alike, this is the one with the least memory that keeps the passes few.
const MEMORY_KIB: u32 = 12 * 1024;
const PASSES: u32 = 3;
const OUTPUT_BYTES: usize = Params::DEFAULT_OUTPUT_LEN;

/// Costs as much to compare as a true one, for names that nobody has: made with the constants
/// above from a password that a test knows.
pub const DECOY: &str = "$argon2id$v=19$m=12288,t=3,p=1$umFPsjYDHGw7W1Fov4GGww$\
                         qecOpHs4cW7szzI4NwqUbrBawmxK3PUhQmzWu37B7NU";

/// The memory of one thread that hashes.
pub struct Arena {
    blocks: Vec<Block>,
}

impl Arena {
    /// Takes all the memory that making or comparing a password needs.
    pub fn new() -> Arena {
        // Every page is written to, so that none is missing when it is needed.
        Arena { blocks: vec![Block::new(); params().block_count()] }
    }

    /// A PHC string with a salt of its own.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn make(&mut self, password: &[u8]) -> io::Result<String> {
        let salt = try_generate_salt().map_err(io::Error::other)?;
        let hash = Salt::new(&salt)
            .map_err(password_hash::Error::from)
            .and_then(|salt| self.hash(password, Version::default(), params(), salt))
            .map_err(io::Error::other)?;
        Ok(hash.to_string())
    }

    /// Whether `phc` was made from this password. The string says itself with what settings.
    pub fn is_right(&mut self, password: &[u8], phc: &str) -> bool {
        let Ok(expected) = PasswordHash::new(phc) else { return false };
        let (Some(salt), Some(output)) = (expected.salt, expected.hash) else { return false };
        let version = expected.version.map_or(Ok(Version::default()), Version::try_from);
        let (Ok(params), Ok(version)) = (Params::try_from(&expected), version) else {
            return false;
        };
        if expected.algorithm != Algorithm::Argon2id.ident() {
            return false;
        }
        // Outputs are compared in constant time.
        self.hash(password, version, params, salt).is_ok_and(|made| made.hash == Some(output))
    }

    fn hash(
        &mut self,
        password: &[u8],
        version: Version,
        params: Params,
        salt: Salt,
    ) -> password_hash::Result<PasswordHash> {
        let argon2 = Argon2::new(Algorithm::Argon2id, version, params.clone());
        let mut output = [0; Output::MAX_LENGTH];
        let output = output
            .get_mut(..params.output_len().unwrap_or(OUTPUT_BYTES))
            .ok_or(password_hash::Error::OutputSize)?;
        if params.block_count() <= self.blocks.len() {
            argon2.hash_password_into_with_memory(password, &salt, output, &mut self.blocks)?;
        } else {
            // Made by a version that took more.
            argon2.hash_password_into(password, &salt, output)?;
        }
        Ok(PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(&params)?,
            salt: Some(salt),
            hash: Some(Output::new(output)?),
        })
    }
}

fn params() -> Params {
    // Constants that the crate allows.
    Params::new(MEMORY_KIB, PASSES, 1, Some(OUTPUT_BYTES)).expect("valid parameters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoy_is_a_hash_like_any_other() {
        let mut arena = Arena::new();
        let fresh = arena.make(b"nobody's password").unwrap();
        assert!(arena.is_right(b"nobody's password", DECOY), "one that would do: {fresh}");
        let parameters = |phc: &str| phc.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(parameters(DECOY), parameters(&fresh), "one that would do: {fresh}");
    }

    #[test]
    fn what_was_made_with_other_settings_is_compared_with_those() {
        // Of the crate itself: 19 MiB, which is more than an arena has, and two passes.
        let phc = "$argon2id$v=19$m=19456,t=2,p=1$Z0zG2vokU0mOWRAYAxuHwQ$\
                   lR4d8SKKgwOGIGuajaCR1gmYIBQ9IYA217ddXdf298g";
        let mut arena = Arena::new();
        assert!(arena.is_right(b"nobody's password", phc));
        assert!(!arena.is_right(b"somebody's password", phc));
        // An arena that was used is as good as a new one.
        let made = arena.make(b"correct horse").unwrap();
        assert!(Arena::new().is_right(b"correct horse", &made));
        assert!(arena.is_right(b"correct horse", &made) && !arena.is_right(b"battery", &made));
        for rubbish in ["", "$argon2id$v=19$", "$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAA"] {
            assert!(!arena.is_right(b"correct horse", rubbish));
        }
    }
}
