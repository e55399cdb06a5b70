//! Settings in two steps: what was written ([`Written`]), then what it means ([`Settings`]).

mod example;
mod resolved;
mod written;

pub use example::example_file;
pub use resolved::{Settings, read_file};
pub use written::{CommandLine, LogFormat, Task, Written, parse};
