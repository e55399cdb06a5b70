//! The command. All of it stands in the library.

fn main() -> std::process::ExitCode {
    starling_check::command::main()
}
