//! Pages of old messages.

use super::{Target, seconds};
use crate::{
    content::MIN_PAYLOAD_BYTES,
    pages::{self, Plan},
    report::Report,
};
use anyhow::{Result, ensure};
use clap::Args;
use starling_codec::limits::MAX_HISTORY_PAGE;

#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    target: Target,
    /// Conversations, each of two users.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Messages of all conversations together. Those that are missing are written first, buffered.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of the payload of a message that is written, at least 16; they do not compress.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    payload: usize,
    /// Messages of a page.
    #[arg(long, value_name = "N", default_value_t = MAX_HISTORY_PAGE, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HISTORY_PAGE)))]
    limit: u32,
    /// Who ask at the same time, each for one page after the other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    readers: u32,
    /// Measured time.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    #[arg(long)]
    json: bool,
}

impl History {
    pub(super) fn run(self) -> Result<bool> {
        ensure!(self.payload >= MIN_PAYLOAD_BYTES, "a payload has {MIN_PAYLOAD_BYTES} bytes");
        ensure!(self.messages >= self.pairs.into(), "a conversation has a message at least");
        let plan = Plan {
            pairs: self.pairs as usize,
            messages_of_each: self.messages / u64::from(self.pairs),
            payload_bytes: self.payload,
            limit: self.limit,
            readers: self.readers.min(self.pairs) as usize,
            measured: seconds(self.seconds),
        };
        pages::run(&self.target, &plan)?.print(self.json)
    }
}
