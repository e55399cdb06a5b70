//! The operator's connection: users in bulk, and the counters. It is used before and after a load,
//! never during one.

use crate::caller::Caller;
use anyhow::{Context, Result};
use serde::Serialize;
use starling_codec::{Kind, MAGIC, PROTOCOL_VERSION, wire};
use std::{collections::BTreeMap, net::SocketAddr, path::Path};

/// A connection of the operator.
pub struct Operator(Caller);

/// The server's counters, each named by its source without its number, its name and its part:
/// "committer syncs", "shard frames_in/SEND". Those of all shards are summed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters(pub BTreeMap<String, u64>);

impl Counters {
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What rose since `earlier`, and by how much.
    pub fn since(&self, earlier: &Counters) -> Counters {
        let risen = self.0.iter().filter_map(|(name, now)| {
            let rise = now.saturating_sub(earlier.get(name));
            (rise > 0).then(|| (name.clone(), rise))
        });
        Counters(risen.collect())
    }
}

/// What the first frame of this tool's connections begins with.
pub fn opening() -> wire::Opening {
    wire::Opening {
        magic: MAGIC,
        version: PROTOCOL_VERSION,
        capabilities: 0,
        client: concat!("starling-bench ", env!("CARGO_PKG_VERSION")).into(),
    }
}

impl Operator {
    /// Connects as who holds the key in `key_file`.
    ///
    /// # Errors
    /// No key, no server, or the key is not this server's.
    pub fn connect(server: SocketAddr, key_file: &Path) -> Result<Operator> {
        let key = std::fs::read_to_string(key_file)
            .with_context(|| format!("cannot read the operator's key {}", key_file.display()))?;
        let mut operator = Operator(Caller::connect(server)?);
        let body =
            wire::Operator { opening: Some(opening()), key: key.trim().as_bytes().to_vec().into() };
        operator.0.tell(Kind::Operator, &body)?;
        // Whatever is wrong with the key shows before anything is built on it.
        operator.counters()?;
        Ok(operator)
    }

    /// Makes users with these names, one device each.
    pub fn create_users(&mut self, names: Vec<String>) -> Result<Vec<wire::CreatedUser>> {
        let request_id = self.0.next_request();
        let body = wire::CreateUsers { request_id, names, token_lifetime_s: 0 };
        self.0.tell(Kind::CreateUsers, &body)?;
        self.0.answer(Kind::CreatedUsers, |frame| {
            let answer: wire::CreatedUsers = frame.body()?;
            Ok((answer.request_id == request_id).then_some(answer.users))
        })
    }

    /// The server's counters now.
    pub fn counters(&mut self) -> Result<Counters> {
        let request_id = self.0.next_request();
        self.0.tell(Kind::Stats, &wire::Stats { request_id })?;
        let page = self.0.answer(Kind::StatsPage, |frame| {
            let answer: wire::StatsPage = frame.body()?;
            Ok((answer.request_id == request_id).then_some(answer.counters))
        })?;
        let mut counters = Counters::default();
        for counter in page {
            let wire::Counter { name, part, source, value } = counter;
            let source = source.split(' ').next().unwrap_or_default();
            let slash = if part.is_empty() { "" } else { "/" };
            *counters.0.entry(format!("{source} {name}{slash}{part}")).or_default() += value;
        }
        Ok(counters)
    }
}
