//! The terminal client. All of it stands in the library, where it can be tested and documented.

fn main() -> std::process::ExitCode {
    starling_client::command::main()
}
