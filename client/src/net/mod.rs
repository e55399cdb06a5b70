//! The transport: sessions and single calls over TCP, with tokio.

pub mod account;
mod client;
mod driver;
mod link;
pub mod operator;

pub use client::{Client, ClientSettings, ConnectError, Events, SendError, Sending, Status};
pub use link::CallError;
