//! The server's binary: arguments in, exit code out.

use starling_server::{Failure, run, settings};
use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let command_line = match settings::parse(&arguments) {
        Ok(command_line) => command_line,
        Err(error) => error.exit(),
    };
    if command_line.print_config {
        print!("{}", settings::example_file());
        return ExitCode::SUCCESS;
    }
    if let Some(settings::Task::Size(size)) = &command_line.task {
        print!("{}", size.print());
        return ExitCode::SUCCESS;
    }
    match settings::Settings::gather(command_line).and_then(|settings| run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure),
    }
}

fn end(failure: &Failure) -> ExitCode {
    eprintln!("starling-server: {failure}");
    ExitCode::from(failure.exit_code())
}
