//! Chance that can be repeated: set STARLING_SEED to the seed that a failed test printed.

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// Seeded by STARLING_SEED, or by the operating system; says which, for when the test fails.
    pub fn new(test: &str) -> Random {
        let seed = match std::env::var("STARLING_SEED") {
            Ok(seed) => seed.parse().expect("STARLING_SEED is a number"),
            Err(_) => {
                let mut seed = [0; 8];
                getrandom::fill(&mut seed).unwrap();
                u64::from_le_bytes(seed)
            }
        };
        println!("{test}: STARLING_SEED={seed}");
        Random(seed)
    }

    pub fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// At least `from`, below `to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.range(0, 100) < percent
    }
}
