//! `cargo xtask`: what is made by machine. What is only checked, the tests of this crate check.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the workspace")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Writes shell completions and manual pages of all commands into a folder
    Manual { folder: PathBuf },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Manual { folder } => xtask::manual::write(&folder),
    }
}
