//! `starling`: two people talk from their terminals.
//!
//! Each command is one file. What goes wrong ends as a [`Failure`]: one line that says what to
//! type next, and an exit code.

mod account;
mod chat;
mod failure;
mod history;
mod json;
mod listen;
mod next;
mod profile;
mod send;
mod stats;
mod terminal;

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand, builder::NonEmptyStringValueParser,
    parser::ValueSource,
};
use failure::Failure;
use std::{ffi::OsString, path::PathBuf, process::ExitCode};
use terminal::Terminal;

/// Talk to people over a Starling server.
#[derive(Debug, Parser)]
#[command(name = "starling", version = VERSION, max_term_width = 100)]
struct Arguments {
    /// The server, as HOST:PORT.
    #[arg(long, global = true, env = "STARLING_SERVER", default_value = "127.0.0.1:7400")]
    server: String,

    /// The folder that holds this device: its token, its outbox, its messages. One process uses
    /// it at a time [default: a folder under your data directory].
    #[arg(long, global = true, env = "STARLING_PROFILE", value_name = "DIR")]
    profile: Option<PathBuf>,

    /// Print one JSON object a line, as docs/json.md describes.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    action: Action,
}

/// Version, commit and protocol version.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("STARLING_COMMIT"),
    ", protocol 1, json 1)"
);
const _: () = assert!(crate::codec::PROTOCOL_VERSION == 1 && json::FORMAT == 1);

#[derive(Debug, Subcommand)]
enum Action {
    /// Make an account and log in. The password is taken from STARLING_PASSWORD, or asked for.
    Register { name: String },
    /// Log this device in. The password is taken from STARLING_PASSWORD, or asked for.
    Login { name: String },
    /// Log this device out.
    Logout,
    /// Change the password; all your other devices are logged out. The old one is taken from
    /// STARLING_PASSWORD, the new one from STARLING_NEW_PASSWORD, or asked for.
    Passwd,
    /// Send a message and wait until the server has it safe.
    Send {
        name: String,
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        text: String,
    },
    /// Print what comes in, and what came in since the last time, until Ctrl-C.
    Listen {
        /// Print what came in after this place instead: `inbox_seq` and `epoch` of the last JSON
        /// line that you have dealt with.
        #[arg(long, value_name = "SEQ:EPOCH", value_parser = listen::place)]
        after: Option<crate::codec::Place>,
    },
    /// Print the last messages with somebody.
    History {
        name: String,
        /// How many messages.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Talk with somebody until Ctrl-D.
    Chat { name: String },
    /// Print the server's counters. For whoever holds the operator key.
    Stats {
        /// The file that the server made at its first start.
        #[arg(long, value_name = "FILE", default_value = "starling-data/operator.key")]
        operator_key: PathBuf,
    },
}

/// The definition of the command, for completions and manual pages.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command with the arguments of this process.
pub fn main() -> ExitCode {
    ExitCode::from(run_with(std::env::args_os()))
}

/// The exit code that shells give to what Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Runs the command with these arguments, its own name first, and gives its exit code: 0 done,
/// 1 refused by the server, 2 wrong usage, 3 no connection, 130 Ctrl-C at a password.
pub fn run_with(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let matches = command().get_matches_from(arguments);
    let typed = |option| matches.value_source(option) == Some(ValueSource::CommandLine);
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    next::remember(
        typed("server").then_some(arguments.server.as_str()),
        arguments.profile.as_deref().filter(|_| typed("profile")),
    );
    let mut terminal = Terminal::new(arguments.json);
    match run(arguments, &mut terminal) {
        Ok(()) => 0,
        // Whoever read the output went away, which is how `starling listen | head` ends; or whoever
        // typed Ctrl-C knows why it ends.
        Err(failure @ (Failure::OutputClosed | Failure::Interrupted)) => failure.exit_code(),
        Err(failure) => {
            terminal.fail(&failure);
            failure.exit_code()
        }
    }
}

fn run(arguments: Arguments, terminal: &mut Terminal) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Usage(error.to_string()))?;
    let Arguments { server, profile, action, .. } = arguments;
    let context = profile::Context { server, folder: profile };
    let done = runtime.block_on(async {
        match action {
            Action::Register { name } => account::register(&context, terminal, &name).await,
            Action::Login { name } => account::login(&context, terminal, &name).await,
            Action::Logout => account::logout(&context, terminal).await,
            Action::Passwd => account::passwd(&context, terminal).await,
            Action::Send { name, text } => send::run(&context, terminal, &name, &text).await,
            Action::Listen { after } => listen::run(&context, terminal, after).await,
            Action::History { name, limit } => history::run(&context, terminal, &name, limit).await,
            Action::Chat { name } => chat::run(&context, terminal, &name).await,
            Action::Stats { operator_key } => stats::run(&context, terminal, &operator_key).await,
        }
    });
    // A thread may still wait for a line that nobody types.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_is_sound() {
        super::command().debug_assert();
    }
}
