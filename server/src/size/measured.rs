//! What the calculator rests on: every constant, with the day it was measured and how to measure
//! it again. Nothing else in the calculator is a number of this kind.

/// A figure that was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub value: f64,
    pub what: &'static str,
    /// Year, month, day.
    pub date: &'static str,
    /// The command, and the machine if it matters.
    pub how: &'static str,
}

pub const KERNEL_BYTES_PER_CONNECTION: Measured = Measured {
    value: 3_928.0,
    what: "bytes of kernel memory for an idle connection: half of what both its ends take when epoll \
           watches them (Linux 6.1)",
    date: "2026-11-21",
    how: "tuning/million/run --connections 20000, its bare holder (Y1)",
};

pub const USER_BYTES_PER_CONNECTION: Measured = Measured {
    value: 799.0,
    what: "bytes of the server for an idle logged-in connection, without its store",
    date: "2026-11-21",
    how: "tuning/measure/idle",
};

pub const USER_BYTES_OF_AN_EMPTY_SERVER: Measured = Measured {
    value: 27_700_000.0,
    what: "bytes of a server that nobody is connected to",
    date: "2026-11-21",
    how: "tuning/measure/idle",
};

pub const CPU_US_PER_MESSAGE: Measured = Measured {
    value: 28.0,
    what: "us of server CPU for a 1:1 message when each comes alone (500 pairs, one in flight); \
           in batches it is a fifth of that",
    date: "2026-11-21",
    how: "starling-bench ratios --only P5 --rounds 3 --seconds 2",
};

pub const CPU_US_PER_HEARTBEAT: Measured = Measured {
    value: 14.7,
    what: "us of server CPU for a heartbeat and its answer",
    date: "2026-11-21",
    how: "tuning/measure/idle",
};

pub const CPU_US_PER_LOGIN: Measured = Measured {
    value: 40.0,
    what: "us of server CPU to accept and log in with a token",
    date: "2026-11-21",
    how: "starling-bench ratios --only P10 --rounds 3 --seconds 2",
};

pub const DISK_RATIO: Measured = Measured {
    value: 1.05,
    what: "disk bytes of a 1:1 message after compaction, as a multiple of its payload and 40 B",
    date: "2026-11-21",
    how: "starling-bench ratios --only P12",
};

/// All of them, as `--evidence` lists them.
pub const ALL: [Measured; 7] = [
    KERNEL_BYTES_PER_CONNECTION,
    USER_BYTES_PER_CONNECTION,
    USER_BYTES_OF_AN_EMPTY_SERVER,
    CPU_US_PER_MESSAGE,
    CPU_US_PER_HEARTBEAT,
    CPU_US_PER_LOGIN,
    DISK_RATIO,
];
