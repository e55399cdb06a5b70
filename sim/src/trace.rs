//! The trace of a run: everything that happened, as a hash; in words, for whoever asks.

use std::fmt;

/// A hash of all that was noted, made like FNV-1a but of whole words.
pub struct Trace {
    hash: u64,
    told: bool,
}

impl Trace {
    /// `told`: every line goes to standard error too.
    pub fn new(told: bool) -> Trace {
        Trace { hash: 0xCBF2_9CE4_8422_2325, told }
    }

    /// Notes that something happened: what, and numbers that say more.
    pub fn note(&mut self, at_us: u64, what: &str, numbers: &[u64]) {
        self.bytes(&at_us.to_le_bytes());
        self.bytes(what.as_bytes());
        for number in numbers {
            self.bytes(&number.to_le_bytes());
        }
        if self.told {
            eprintln!("{:>12.6} {what} {numbers:?}", at_us as f64 / 1e6);
        }
    }

    /// Notes bytes that went over the network.
    pub fn bytes(&mut self, bytes: &[u8]) {
        // Whole words first: a run hashes every byte that any link carried.
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            // The chunk has eight bytes.
            let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
        }
        for byte in words.remainder() {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    /// More than the hash says, in words; costs nothing when nobody listens.
    pub fn tell(&self, at_us: u64, words: impl FnOnce() -> String) {
        if self.told {
            eprintln!("{:>12.6}     {}", at_us as f64 / 1e6, words());
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.hash)
    }
}
