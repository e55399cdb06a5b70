//! Getting a token: by a new name, or by a password.
//!
//! ```no_run
//! use starling_client::{Client, ClientSettings, MemoryStore, account};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut store = MemoryStore::new();
//! account::register("127.0.0.1:7400", &mut store, "alice", "correct horse").await?;
//! let (client, events) = Client::connect("127.0.0.1:7400", store, ClientSettings::default()).await?;
//! # Ok(())
//! # }
//! ```

use super::link::{CallError, Link, Reply};
use crate::{Change, Identity, Store, session::opening};
use prost::Message;
use starling_codec::{ErrorCode, Kind, wire};
use std::time::{SystemTime, UNIX_EPOCH};

const PROGRAM: &str = concat!("starling-client/", env!("CARGO_PKG_VERSION"));

/// Makes a user with a password and a first device, and keeps its token in `store`. If the store
/// belonged to another device, it begins anew.
///
/// # Errors
/// [`CallError::Refused`] with NAME_TAKEN, NAME_INVALID, PASSWORD_INVALID or USER_LIMIT among
/// others; [`CallError::NoConnection`].
pub async fn register(
    server: &str,
    store: &mut impl Store,
    name: &str,
    password: &str,
) -> Result<Identity, CallError> {
    let register = wire::Register {
        opening: Some(opening(PROGRAM)),
        name: name.to_owned(),
        password: password.to_owned(),
        platform: platform(),
    };
    open(server, store, Kind::Register, &register).await
}

/// Logs a device in and keeps its token in `store`. If the store holds a device of that name it
/// is the same device again, with its outbox and its cursor; otherwise the user gets a new one
/// and the store begins anew.
///
/// # Errors
/// [`CallError::Refused`] with WRONG_PASSWORD, LOGIN_SLOWED (wait for its `retry_after_ms`) or
/// DEVICE_LIMIT among others; [`CallError::NoConnection`].
pub async fn login(
    server: &str,
    store: &mut impl Store,
    name: &str,
    password: &str,
) -> Result<Identity, CallError> {
    let known = store.load()?.identity.filter(|known| known.name == name);
    let login = wire::Login {
        opening: Some(opening(PROGRAM)),
        name: name.to_owned(),
        password: password.to_owned(),
        device: known.map_or(0, |known| known.device.0),
        platform: platform(),
    };
    open(server, store, Kind::Login, &login).await
}

async fn open(
    server: &str,
    store: &mut impl Store,
    kind: Kind,
    opener: &impl Message,
) -> Result<Identity, CallError> {
    let mut link = Link::open(server).await?;
    let reply: Reply = link.call(kind, opener).await?;
    if reply.kind != Kind::Grant {
        return Err(link.protocol(ErrorCode::WrongState));
    }
    let grant: wire::Grant = reply.body().map_err(|code| link.protocol(code))?;
    let identity = Identity::granted(&grant, unix_ms());
    store.commit(&[Change::Identity(identity.clone())])?;
    Ok(identity)
}

fn platform() -> String {
    std::env::consts::OS.to_owned()
}

fn unix_ms() -> u64 {
    // A clock before 1970 only makes the token be refreshed early.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
