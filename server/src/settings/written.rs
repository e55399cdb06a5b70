//! What was written: on the command line, in the environment, in the file. Everything may be
//! absent, and nothing is checked beyond its type.
//!
//! This is the one definition of the settings. Flags, environment, help, manual page, completions
//! and the example file all follow from it.

use crate::size::SizeArguments;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Deserialize;
use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "starling-server",
    args_conflicts_with_subcommands = true,
    about = "The Starling instant-messaging server",
    long_about = "The Starling instant-messaging server.\n\nWithout arguments it listens on \
                  127.0.0.1:7400 and keeps its data in ./starling-data. A setting is taken from \
                  the command line, else the environment, else the file of --config, else its \
                  default.",
    version = crate::version()
)]
pub struct CommandLine {
    /// File of settings (TOML); --print-config shows one
    #[arg(long, env = "STARLING_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print a settings file with every setting, its meaning and its default, and stop
    #[arg(long)]
    pub print_config: bool,
    #[command(flatten)]
    pub written: Written,
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// Something else than serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Calculate what a number of connections and messages needs, from measurements
    Size(SizeArguments),
}

/// The settings, as written in one place.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env = "STARLING_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7400")]
    pub listen: Option<SocketAddr>,
    /// Folder of the data; made if it is not there
    #[arg(long, env = "STARLING_DATA", value_name = "DIR", default_value = "./starling-data")]
    pub data: Option<PathBuf>,
    /// Threads that hold connections, each pinned to a processor [default: one for each
    /// processor this process may run on]
    #[arg(long, env = "STARLING_SHARDS", value_name = "N")]
    pub shards: Option<u16>,
    /// What to log: error, warn, info, debug, trace, or a filter such as
    /// "info,starling_server=debug"
    #[arg(long, env = "STARLING_LOG", value_name = "FILTER", default_value = "info")]
    pub log: Option<String>,
    /// How a log line looks
    #[arg(long, env = "STARLING_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: Option<LogFormat>,
    /// Listen beyond loopback although nothing is encrypted: passwords, tokens and messages can
    /// be read on the way, so do it only inside a trusted network or behind a TLS proxy
    #[arg(
        long,
        env = "STARLING_ALLOW_PLAINTEXT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "false"
    )]
    pub allow_plaintext: Option<bool>,
    /// Connections held at once; one more is told OVERLOAD [default: what the limit on open
    /// files leaves]
    #[arg(long, env = "STARLING_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<u32>,
    /// Memory of the store's block cache, in MiB
    #[arg(long, env = "STARLING_BLOCK_CACHE_MIB", value_name = "N", default_value = "64")]
    pub block_cache_mib: Option<u32>,
    /// Most memory of the store's unwritten tables together, in MiB
    #[arg(long, env = "STARLING_MEMTABLE_MIB", value_name = "N", default_value = "128")]
    pub memtable_mib: Option<u32>,
    /// Threads that read what the block cache lacks
    #[arg(long, env = "STARLING_READERS", value_name = "N", default_value = "2")]
    pub readers: Option<u16>,
    /// Threads that check passwords [default: the processors, at most 2]
    #[arg(long, env = "STARLING_HASHING_THREADS", value_name = "N")]
    pub hashing_threads: Option<u16>,
    /// Sends and changes of one shard that may be on their way to the store at once
    #[arg(long, env = "STARLING_CREDITS", value_name = "N", default_value = "8192")]
    pub credits: Option<u32>,
    /// Sends a second that one device may make; 0 is no limit
    #[arg(long, env = "STARLING_SENDS_PER_SECOND", value_name = "N", default_value = "0")]
    pub sends_per_second: Option<u32>,
    /// Heartbeat that a client is given where the range it names allows, in seconds
    #[arg(long, env = "STARLING_HEARTBEAT_S", value_name = "N", default_value = "30")]
    pub heartbeat_s: Option<u32>,
    /// How long a session token is good, in seconds
    #[arg(long, env = "STARLING_TOKEN_LIFETIME_S", value_name = "N", default_value = "2592000")]
    pub token_lifetime_s: Option<u32>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Written {
    /// These settings, and where they are silent those of `under`.
    pub fn over(self, under: Written) -> Written {
        Written {
            listen: self.listen.or(under.listen),
            data: self.data.or(under.data),
            shards: self.shards.or(under.shards),
            log: self.log.or(under.log),
            log_format: self.log_format.or(under.log_format),
            allow_plaintext: self.allow_plaintext.or(under.allow_plaintext),
            max_connections: self.max_connections.or(under.max_connections),
            block_cache_mib: self.block_cache_mib.or(under.block_cache_mib),
            memtable_mib: self.memtable_mib.or(under.memtable_mib),
            readers: self.readers.or(under.readers),
            hashing_threads: self.hashing_threads.or(under.hashing_threads),
            credits: self.credits.or(under.credits),
            sends_per_second: self.sends_per_second.or(under.sends_per_second),
            heartbeat_s: self.heartbeat_s.or(under.heartbeat_s),
            token_lifetime_s: self.token_lifetime_s.or(under.token_lifetime_s),
        }
    }

    /// What holds where nobody wrote anything.
    pub fn defaults() -> Written {
        let silent = CommandLine::command().mut_args(|argument| argument.env(None::<&str>));
        from_matches(silent.get_matches_from(["starling-server"])).written
    }
}

/// Parses the arguments (the first is the program's name) and the environment; a setting that is
/// in neither stays absent.
///
/// # Errors
/// What clap says; `--help` and `--version` are among it.
pub fn parse(arguments: &[OsString]) -> Result<CommandLine, clap::Error> {
    CommandLine::command().try_get_matches_from(arguments)?;
    // The file comes between the flags and the defaults, so once more without these.
    let explicit = CommandLine::command().mut_args(|argument| {
        if argument.get_action().takes_values() {
            argument.default_value(None::<&str>)
        } else {
            argument
        }
    });
    explicit.try_get_matches_from(arguments).map(from_matches)
}

fn from_matches(matches: ArgMatches) -> CommandLine {
    // The matches were made by the command of this very type.
    CommandLine::from_arg_matches(&matches).expect("matches of our own command")
}
