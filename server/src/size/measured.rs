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

macro_rules! measured {
    ($($name:ident = $value:literal: $what:literal, $date:literal by $how:literal;)*) => {
        $(pub const $name: Measured =
            Measured { value: $value, what: $what, date: $date, how: $how };)*

        /// All of them, as `--evidence` lists them.
        pub const ALL: &[Measured] = &[$($name),*];
    };
}

measured! {
    KERNEL_BYTES_PER_CONNECTION = 3_928.0:
        "bytes of kernel memory for an idle connection: half of what both its ends take when epoll \
         watches them (Linux 6.1)",
        "2026-11-21" by "tuning/million/run --connections 20000, its bare holder (Y1)";
    USER_BYTES_PER_CONNECTION = 428.0:
        "bytes of the server for an idle logged-in connection, without its store",
        "2026-11-22" by "tuning/measure/idle";
    USER_BYTES_OF_AN_EMPTY_SERVER = 48_300_000.0:
        "bytes of a server that nobody is connected to, without its store; 25.2 million of them are \
         for two threads that hash passwords",
        "2026-11-22" by "tuning/measure/idle";
    CPU_US_PER_MESSAGE = 28.0:
        "us of server CPU for a 1:1 message when each comes alone (500 pairs, one in flight); in \
         batches it is a fifth of that",
        "2026-11-21" by "starling-bench ratios --only P5 --rounds 3 --seconds 2";
    CPU_US_PER_HEARTBEAT = 14.7:
        "us of server CPU for a heartbeat and its answer",
        "2026-11-21" by "tuning/measure/idle";
    CPU_US_PER_LOGIN = 40.0:
        "us of server CPU to accept and log in with a token",
        "2026-11-21" by "starling-bench ratios --only P10 --rounds 3 --seconds 2";
    DISK_RATIO = 1.05:
        "disk bytes of a 1:1 message after compaction, as a multiple of its payload and 40 B",
        "2026-11-21" by "starling-bench ratios --only P12";
}
