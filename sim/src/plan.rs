//! What a seed makes of its world: how large it is, what people do, and what goes wrong. Each
//! seed turns features and faults on and off (swarm testing: what is rare when everything happens
//! at once is common in a world where little else does).

use crate::random::Random;

macro_rules! troubles {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// A feature or a fault that a world has or has not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Trouble { $($(#[$doc])* $name,)* }

        impl Trouble {
            pub const ALL: &[Trouble] = &[$(Trouble::$name,)*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Trouble::$name => $word,)* }
            }
        }
    };
}

troubles! {
    /// Messages of the buffered class, not only durable ones.
    Buffered = "buffered",
    History = "history",
    Passwords = "passwords",
    Logouts = "logouts",
    /// People talk to themselves, to nobody, and too much.
    Nonsense = "nonsense",
    /// Connections break, and both ends hear of it.
    Cuts = "cuts",
    /// Connections die, and nobody hears of it.
    HalfOpen = "half-open",
    /// Bytes stand still for seconds.
    Stalls = "stalls",
    /// The server cannot be reached.
    Unreachable = "unreachable",
    /// Kernel buffers hold next to nothing.
    SmallBuffers = "small-buffers",
    /// A shard does not turn for seconds.
    PausedShards = "paused-shards",
    /// Lanes between shards, credits and batches are tiny.
    TinyLanes = "tiny-lanes",
    /// Sends per second are limited.
    RateLimit = "rate-limit",
    /// Next to nothing is remembered between batches.
    Forgetful = "forgetful",
    /// The server is killed; its page cache lives.
    Kills = "kills",
    /// The power fails: what was not synced is lost, from some batch on.
    PowerCuts = "power-cuts",
    /// The server is told to end, and ends well.
    Shutdowns = "shutdowns",
    /// The database is restored from an older backup.
    Restores = "restores",
    FailedWrites = "failed-writes",
    FailedSyncs = "failed-syncs",
    /// Syncs take seconds.
    SlowSyncs = "slow-syncs",
    FullDisks = "full-disks",
    /// Reads miss the cache.
    ColdCache = "cold-cache",
    /// The server's wall clock steps.
    ClockSteps = "clock-steps",
    /// Clocks of devices run fast or slow.
    ClockDrift = "clock-drift",
    /// Apps are killed and started again.
    AppCrashes = "app-crashes",
    /// A device is restored from its own older backup.
    OldPhones = "old-phones",
    /// Two processes run with copies of one profile.
    CopiedProfiles = "copied-profiles",
    /// Apps do not take their events.
    SlowApps = "slow-apps",
    /// Stores of devices fail.
    FailedStores = "failed-stores",
}

/// Which troubles a world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Troubles(u64);

const _: () = assert!(Trouble::ALL.len() <= 64);

impl Troubles {
    pub const NONE: Troubles = Troubles(0);

    pub fn has(self, trouble: Trouble) -> bool {
        self.0 & 1 << trouble as u8 != 0
    }

    pub fn with(self, trouble: Trouble) -> Troubles {
        Troubles(self.0 | 1 << trouble as u8)
    }

    pub fn without(self, trouble: Trouble) -> Troubles {
        Troubles(self.0 & !(1 << trouble as u8))
    }

    pub fn iter(self) -> impl Iterator<Item = Trouble> {
        Trouble::ALL.iter().copied().filter(move |&trouble| self.has(trouble))
    }

    fn draw(random: &mut Random) -> Troubles {
        // Some worlds are crowded with troubles, some have next to none.
        let percent = [10, 25, 50, 75][random.below(4) as usize];
        let drawn = Trouble::ALL.iter().filter(|_| random.chance(percent));
        drawn.fold(Troubles::NONE, |troubles, &trouble| troubles.with(trouble))
    }
}

/// A world to be.
#[derive(Clone, Debug)]
pub struct Plan {
    pub troubles: Troubles,
    pub shards: u16,
    pub people: usize,
    /// Of each person.
    pub devices: usize,
    /// Mean time between two things that a person does.
    pub act_every_us: u64,
    /// Mean time between two faults.
    pub fault_every_us: u64,
    /// Mean time that bytes are under way.
    pub latency_us: u64,
    /// Mean time of a sync.
    pub sync_us: u64,
    /// Mean time that a reader takes to answer.
    pub read_us: u64,
    /// Mean time from an input to the shard's turn, and from a command to the committer's step.
    pub turn_us: u64,
    /// Bytes that the kernel takes of one direction of a connection.
    pub buffer_bytes: usize,
    pub lane_entries: usize,
    pub delivery_entries: usize,
    pub credits: u32,
    pub max_batch_commands: usize,
    pub hot_entries: usize,
    pub sends_per_second: u32,
    pub token_lifetime_s: u32,
    pub known_conversations: usize,
    pub window_events: u32,
    /// Reads that miss the cache, in percent.
    pub cold_percent: u64,
    /// Largest message, in bytes.
    pub content_bytes: u64,
    /// Most messages written in one go.
    pub burst: u64,
}

impl Plan {
    /// The plan of a seed, with some of its troubles taken away. What is taken away changes
    /// nothing else that is drawn here.
    pub fn draw(random: &mut Random, taken_away: Troubles) -> Plan {
        let mut troubles = Troubles::draw(random);
        for trouble in taken_away.iter() {
            troubles = troubles.without(trouble);
        }
        let has = |trouble| troubles.has(trouble);
        let (tiny, forgetful) = (has(Trouble::TinyLanes), has(Trouble::Forgetful));
        let one_of = |random: &mut Random, from: &[u64]| {
            // None of the lists here is empty.
            random.pick(from).expect("a choice")
        };
        let shards = random.range(1, 5) as u16;
        let people = random.range(2, 7) as usize;
        let devices = random.range(1, 4) as usize;
        let act_every_us = one_of(random, &[2_000, 20_000, 200_000, 2_000_000]);
        let fault_every_us = one_of(random, &[50_000, 500_000, 5_000_000, 20_000_000]);
        let latency_us = one_of(random, &[50, 1_000, 20_000, 200_000]);
        let sync_us = one_of(random, &[100, 2_000, 20_000]);
        let read_us = one_of(random, &[50, 500, 5_000]);
        let turn_us = one_of(random, &[5, 50, 500]);
        let small = one_of(random, &[500, 1_000, 3_000]) as usize;
        let lanes = one_of(random, &[1, 2, 8]) as usize;
        let deliveries = one_of(random, &[1, 2, 4]) as usize;
        let credits = one_of(random, &[2, 4, 16]) as u32;
        let batch = one_of(random, &[1, 2, 5]) as usize;
        let hot = one_of(random, &[1, 3, 8]) as usize;
        let rate = one_of(random, &[5, 20, 50]) as u32;
        let token_lifetime_s = one_of(random, &[60, 3_600, 2_592_000]) as u32;
        let window_events = one_of(random, &[8, 64, 1_024]) as u32;
        let cold = one_of(random, &[5, 30, 100]);
        let content_bytes = one_of(random, &[16, 200, 4_000]);
        let burst = one_of(random, &[1, 3, 20, 100]);
        let if_has = |has: bool, tiny: usize, usual: usize| if has { tiny } else { usual };
        Plan {
            troubles,
            shards,
            people,
            devices,
            act_every_us,
            fault_every_us,
            latency_us,
            sync_us,
            read_us,
            turn_us,
            buffer_bytes: if_has(has(Trouble::SmallBuffers), small, 128 * 1024),
            lane_entries: if_has(tiny, lanes, 1_024),
            delivery_entries: if_has(tiny, deliveries, 1_024),
            credits: if tiny { credits } else { 8_192 },
            max_batch_commands: if_has(tiny, batch, 4_096),
            hot_entries: if_has(forgetful, hot, 262_144),
            sends_per_second: if has(Trouble::RateLimit) { rate } else { 0 },
            token_lifetime_s,
            known_conversations: if_has(forgetful, 1, 65_536),
            window_events,
            cold_percent: if has(Trouble::ColdCache) { cold } else { 0 },
            // What creeps through small buffers is to be small, or nothing else happens.
            content_bytes: if has(Trouble::SmallBuffers) { 100 } else { content_bytes },
            burst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_away_changes_nothing_else() {
        for seed in 0..200 {
            let whole = Plan::draw(&mut Random::new(seed), Troubles::NONE);
            let less = Troubles::NONE.with(Trouble::Cuts);
            let part = Plan::draw(&mut Random::new(seed), less);
            assert!(!part.troubles.has(Trouble::Cuts));
            let expected = Plan { troubles: whole.troubles.without(Trouble::Cuts), ..whole };
            assert_eq!(format!("{part:?}"), format!("{expected:?}"));
        }
    }

    #[test]
    fn every_trouble_is_on_in_some_worlds_and_off_in_others() {
        let plans = (0..200).map(|seed| Plan::draw(&mut Random::new(seed), Troubles::NONE));
        let plans: Vec<_> = plans.collect();
        for &trouble in Trouble::ALL {
            let on = plans.iter().filter(|plan| plan.troubles.has(trouble)).count();
            assert!((20..180).contains(&on), "{}: {on}", trouble.name());
        }
    }
}
