//! `stats`: the server's counters.

use super::{failure::Failure, json::Line, profile::Context, terminal::Terminal};
use crate::operator::{Operator, read_key};
use std::path::Path;

pub(super) async fn run(
    context: &Context,
    terminal: &mut Terminal,
    key: &Path,
) -> Result<(), Failure> {
    let key = read_key(key).map_err(|error| {
        Failure::Usage(format!(
            "the operator key {} cannot be read ({error}): name the one in the server's data \
             directory with --operator-key FILE",
            key.display()
        ))
    })?;
    let failed = |error| Failure::call(error, "");
    let mut operator = Operator::connect(&context.server, &key).await.map_err(failed)?;
    for counter in operator.stats().await.map_err(failed)? {
        let (name, part, source) = (counter.name, counter.part, counter.source);
        let value = counter.value;
        let what = if part.is_empty() { name.clone() } else { format!("{name} {part}") };
        let text = format!("{source:<12} {what:<40} {value:>16}");
        terminal.print(&Line::Counter { name, part, source, value }, |_| text)?;
    }
    terminal.flush()
}
