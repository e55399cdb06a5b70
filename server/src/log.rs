//! Logs: structured lines on standard error. No password, token or message body is ever given to
//! them.

use crate::{
    failure::Failure,
    settings::{LogFormat, Settings},
};
use std::io::{IsTerminal, Write};
use tracing_subscriber::EnvFilter;

/// Starts logging, and has a panic of any thread end the process: a server that lost one of its
/// threads must not look alive.
///
/// # Errors
/// The filter cannot be understood.
pub fn start(settings: &Settings) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.log_filter).map_err(|error| Failure::Settings {
        what: format!("log is {:?}, which is no filter: {error}", settings.log_filter),
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second server in the same process, as in tests, logs through the first one's.
    let _ = match settings.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().with_ansi(false).try_init(),
    };
    Ok(())
}

/// The exit code after a panic.
const PANICKED: i32 = 101;

/// Has a panic of any thread end the process with one line, but for those that say that they go
/// on after one.
pub fn end_process_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("?");
        let what = panic.to_string().replace('\n', " ");
        if starling_storage::catches_panics() {
            tracing::error!(thread, what, "a bug: a thread panicked, and goes on");
            return;
        }
        let line = format!("starling-server: a bug ended the server, in thread {thread}: {what}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        std::process::exit(PANICKED);
    }));
}
