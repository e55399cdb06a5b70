//! The goals that are ratios, and what must be reached first.

/// Something to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub id: &'static str,
    /// One of several figures with this id.
    pub part: Option<&'static str>,
    pub what: What,
    pub goal: f64,
    pub floor: f64,
    pub unit: &'static str,
    pub better: Better,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// A number of pairs, and of messages in flight in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crew {
    pub pairs: usize,
    pub window: u32,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An idle connection: server memory; kernel memory against a bare socket; processor time.
    Idle,
    /// Buffered messages per server CPU-second, against a relay.
    Relay(Crew),
    /// Durable messages a second, against RocksDB alone.
    Rocks(Crew),
    /// Latency of a durable acknowledgement with little to do, against a bare sync: 50th percentile
    /// and 99th; latency of delivery with half of what can be done: 99.9th percentile.
    Latency,
    /// Events a second to devices that have nothing, against RocksDB reading the same ranges.
    CatchUp,
    /// Others' 99.9th percentile of delivery when some stop reading, against when they read; memory
    /// of each that does not read.
    SlowReaders,
    /// Error of the load tool's own percentiles when a server stands still.
    Freeze,
    /// Logins a second, and per server CPU-second, against a relay that accepts: the lower of the
    /// two ratios.
    Logins,
    /// Disk bytes a message, against the payload and 40 bytes.
    Disk,
    /// Durable messages a second, against Redis streams.
    Redis(Crew),
}

/// Many users who wait for each other.
pub const MANY: Crew = Crew { pairs: 500, window: 1 };
/// Fewer users who do not.
pub const BUSY: Crew = Crew { pairs: 50, window: 16 };

const RATIO: &str = "x";

#[rustfmt::skip]
pub const GOALS: &[Goal] = &[
    goal("P1", None, What::Idle, 400.0, 640.0, "B", Better::Less),
    goal("P2", None, What::Idle, 1.05, 1.10, RATIO, Better::Less),
    goal("P4", None, What::Idle, 0.5, 1.0, "us/s", Better::Less),
    goal("P5", None, What::Relay(MANY), 0.60, 0.45, RATIO, Better::More),
    goal("P5b", None, What::Relay(BUSY), 0.25, 0.10, RATIO, Better::More),
    goal("P7", None, What::Rocks(BUSY), 0.80, 0.50, RATIO, Better::More),
    goal("P8", Some("p50"), What::Latency, 2.0, 3.0, RATIO, Better::Less),
    goal("P8", Some("p99"), What::Latency, 3.0, 5.0, RATIO, Better::Less),
    goal("P9", None, What::Latency, 10.0, 25.0, "ms", Better::Less),
    goal("P10", None, What::Logins, 0.60, 0.35, RATIO, Better::More),
    goal("P11", None, What::CatchUp, 0.70, 0.40, RATIO, Better::More),
    goal("P12", None, What::Disk, 1.5, 2.0, RATIO, Better::Less),
    goal("P13", Some("others' p99.9"), What::SlowReaders, 1.2, 1.5, RATIO, Better::Less),
    goal("P13", Some("memory"), What::SlowReaders, 64.0, 128.0, "KiB", Better::Less),
    goal("P14", None, What::Freeze, 2.0, 5.0, "%", Better::Less),
    goal("P15", Some("500 x 1"), What::Redis(MANY), 1.2, 0.8, RATIO, Better::More),
    goal("P15", Some("50 x 16"), What::Redis(BUSY), 1.0, 0.5, RATIO, Better::More),
];

const fn goal(
    id: &'static str,
    part: Option<&'static str>,
    what: What,
    goal: f64,
    floor: f64,
    unit: &'static str,
    better: Better,
) -> Goal {
    Goal { id, part, what, goal, floor, unit, better }
}

impl Goal {
    /// Is the floor reached?
    pub fn holds(&self, measured: f64) -> bool {
        match self.better {
            Better::More => measured >= self.floor,
            Better::Less => measured <= self.floor,
        }
    }

    /// Whether the yardstick does the bare minimum for the same work, so that nothing can do better:
    /// a ratio above 1 says that it is a bad one.
    pub fn is_against_the_bare_minimum(&self) -> bool {
        matches!(self.what, What::Relay(_) | What::Rocks(_) | What::CatchUp | What::Logins)
    }

    pub fn name(&self) -> String {
        self.part.map_or_else(|| self.id.into(), |part| format!("{} {part}", self.id))
    }
}
