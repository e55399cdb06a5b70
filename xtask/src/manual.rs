//! Shell completions and manual pages, made from the definitions that the commands themselves
//! parse their arguments with.

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use std::{fs, path::Path};

/// Every command of the workspace, by the name of its file.
pub fn commands() -> Vec<Command> {
    let named = |name: &'static str, command: Command| {
        // `--help` says the same, and needs no pages of its own.
        command.name(name).bin_name(name).disable_help_subcommand(true)
    };
    vec![
        named("starling-server", starling_server::command()),
        named("starling", starling_client::command::command()),
        named("starling-bench", starling_bench::command()),
        named("starling-check", starling_check::command::command()),
        named("starling-sim", starling_sim::command::command()),
    ]
}

/// Writes `completions/` and `man/` into a folder: a file a command and shell, and a page a
/// command and subcommand.
pub fn write(folder: &Path) -> Result<()> {
    let (completions, pages) = (folder.join("completions"), folder.join("man"));
    for folder in [&completions, &pages] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    for mut command in commands() {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command, &name, &completions)
                .with_context(|| completions.display().to_string())?;
        }
        clap_mangen::generate_to(command, &pages).with_context(|| pages.display().to_string())?;
    }
    Ok(())
}
