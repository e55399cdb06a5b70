//! A load on several processes, of this machine or of others. One coordinates: it deals the
//! scenario out over TCP, lets all begin at once, and adds up what they measured. Who takes part
//! needs no more than its address, and trusts it; so does the coordinator trust whoever connects:
//! tokens go this way, so it belongs into a network of one's own.

mod coordinator;
mod member;

pub use coordinator::{Crew, run};
pub use member::join;

use crate::{
    load::{Measured, Progress},
    scenario::Scenario,
};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// What one of them has to do.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    server: SocketAddr,
    /// Its part of the whole.
    scenario: Scenario,
    language: Language,
    run_id: u64,
    /// Addresses that connections come from, and how many connections others of the same machine
    /// have; one on another machine knows its own.
    sources: Vec<IpAddr>,
    before: usize,
    /// Whose processor time it measures: one of them does.
    server_pid: Option<u32>,
    /// Where it records what its devices see.
    history: Option<PathBuf>,
}

/// What the server is spoken to in.
#[derive(Debug, Serialize, Deserialize)]
enum Language {
    /// With these users, as their file has them.
    Starling { users: String },
    /// With names from here on.
    Relay { first: usize },
}

/// What the coordinator says.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Task(Box<Task>),
    Begin,
    Stop,
}

/// What it hears.
#[derive(Debug, Serialize, Deserialize)]
enum Tell {
    /// All connections are there.
    Ready,
    Progress(Progress),
    /// The users are as their file should have them now.
    Done {
        measured: Box<Measured>,
        users: String,
    },
    Failed(String),
}
