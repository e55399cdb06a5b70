//! The load tool: it drives a Starling server, drives the yardsticks the same way, and says how
//! the two compare. docs and flags stand in `arguments`.
//!
//! It knows a server by its protocol only. It keeps a connection small and a turn short, because
//! a tool that is slower than the server measures itself; what it cannot keep up with it calls
//! invalid.

mod arguments;
mod caller;
mod capacity;
mod clock;
mod compare;
mod content;
mod crowd;
mod dialect;
mod fleet;
mod hex;
mod history;
mod hold;
mod interrupt;
mod latency;
mod lines;
mod link;
mod load;
mod machine;
mod operator;
mod pages;
mod pair;
mod parts;
mod poller;
mod process;
mod progress;
mod ratios;
mod report;
mod roster;
mod scenario;
mod schedule;
mod sockets;
mod sources;
mod storm;
mod sync;
mod users;
mod workflow;
mod yardstick;

use clap::{CommandFactory, FromArgMatches};
use std::{process::ExitCode, sync::LazyLock};

/// Exit code of a run that was made but cannot be believed: messages lost, or the tool too slow.
const INVALID: u8 = 4;

/// Version, commit and protocol version, as `--version` prints them.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (commit {}, protocol {})",
        env!("CARGO_PKG_VERSION"),
        env!("STARLING_COMMIT"),
        starling_codec::PROTOCOL_VERSION
    )
});

/// The definition of the command line, for completions and manual pages.
pub fn command() -> clap::Command {
    arguments::Arguments::command().version(VERSION.as_str())
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let arguments =
        arguments::Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match arguments.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(INVALID),
        Err(error) => {
            eprintln!("starling-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod counting;

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }
}
