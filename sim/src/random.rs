//! Chance that can be repeated: a seed gives the same numbers for ever.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A stream of its own: what is drawn from it moves nothing of what is drawn here.
    pub fn fork(&mut self) -> Random {
        Random(self.draw())
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// Below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        // The upper half of a product: no division, and a bias that no simulation sees.
        ((u128::from(self.draw()) * u128::from(end)) >> 64) as u64
    }

    /// At least `from`, below `end`.
    pub fn range(&mut self, from: u64, end: u64) -> u64 {
        from + self.below(end - from)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One in so many.
    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many.max(1)) == 0
    }

    /// An index of something with so many entries; `None`: there are none.
    pub fn index(&mut self, entries: usize) -> Option<usize> {
        (entries > 0).then(|| self.below(entries as u64) as usize)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        self.index(from.len()).map(|index| from[index])
    }

    /// Around `mean`, never 0: mostly less, sometimes many times as much.
    pub fn around(&mut self, mean: u64) -> u64 {
        // Two uniform draws multiplied have a long tail without a logarithm, whose last digit
        // could differ between machines.
        let scale = self.range(1, 1_024) * self.range(1, 1_024);
        (mean.saturating_mul(4).saturating_mul(scale) >> 20).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_a_fork_its_own() {
        let draw = |mut random: Random| (0..5).map(|_| random.draw()).collect::<Vec<_>>();
        assert_eq!(draw(Random::new(7)), draw(Random::new(7)));
        let mut random = Random::new(7);
        assert_ne!(draw(random.fork()), draw(random));
    }

    #[test]
    fn draws_stay_in_their_range_and_fill_it() {
        let mut random = Random::new(1);
        let mut seen = [0; 10];
        for _ in 0..10_000 {
            seen[random.range(20, 30) as usize - 20] += 1;
        }
        assert!(seen.iter().all(|&count| count > 700), "{seen:?}");
        let sum: u64 = (0..10_000).map(|_| random.around(1_000)).sum();
        assert!((800..1_200).contains(&(sum / 10_000)), "{}", sum / 10_000);
    }
}
