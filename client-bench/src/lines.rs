//! What processes of this tool say to each other, over TCP or pipes: a line of JSON each.

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{BufRead, Write};

/// One message.
pub fn say<M: Serialize>(to: &mut impl Write, message: &M) -> Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    to.write_all(line.as_bytes()).context("the other end of the load is gone")
}

/// None: the other end closed.
pub fn hear<M: DeserializeOwned>(from: &mut impl BufRead) -> Result<Option<M>> {
    let mut line = String::new();
    if from.read_line(&mut line).context("the other end of the load is gone")? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line).context("the other end speaks another version")?))
}
