//! `starling-sim`: see the library.

mod memory;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::keep();
    starling_sim::command::main()
}
