//! `starling-sim`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    starling_sim::command::main()
}
