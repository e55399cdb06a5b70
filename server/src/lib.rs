//! The server: the only crate on the server side with sockets, threads and a clock. It hands what
//! sockets bring to an engine per shard, hands what the engines want to the store and to each
//! other, and knows nothing of what a message is.

pub mod failure;
pub mod hashing;
pub mod keys;
mod log;
mod memory;
pub mod mesh;
pub mod net;
mod priority;
mod process;
pub mod settings;
pub mod shard;
pub mod size;
mod stats;
mod system;

pub use failure::Failure;
pub use process::run;

use clap::CommandFactory;
use std::sync::LazyLock;

/// Version, commit and protocol version.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{} (commit {}, protocol {})",
            env!("CARGO_PKG_VERSION"),
            env!("STARLING_COMMIT"),
            starling_codec::PROTOCOL_VERSION
        )
    });
    &VERSION
}

/// The definition of the command line, for completions and manual pages.
pub fn command() -> clap::Command {
    settings::CommandLine::command()
}
