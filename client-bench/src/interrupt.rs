//! Ctrl-C: the first asks for an end with what there is, the second ends at once.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// What a shell says of a process that Ctrl-C ended.
const EXIT: i32 = 130;

/// From now on Ctrl-C asks instead of ending the process.
pub fn listen() -> Result<()> {
    if REQUESTED.get().is_some() {
        return Ok(());
    }
    let flag = REQUESTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset, sets it, and goes on.
        signal_hook::flag::register_conditional_shutdown(signal, EXIT, flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .context("cannot listen for Ctrl-C")?;
    }
    Ok(())
}

/// Asks as Ctrl-C does.
pub fn request() {
    REQUESTED.get_or_init(Arc::default).store(true, Ordering::Relaxed);
}

/// Has anybody asked for the end?
pub fn requested() -> bool {
    REQUESTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}
