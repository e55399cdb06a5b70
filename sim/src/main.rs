//! `starling-sim`: see the library.

use std::process::ExitCode;

/// A world is made of small things that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    starling_sim::command::main()
}
