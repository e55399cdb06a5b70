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
use crate::{Change, Entry, EntryState, Identity, Saved, Store, StoreError, session::opening};
use prost::Message;
use starling_codec::{ErrorCode, Kind, wire};
use std::time::{SystemTime, UNIX_EPOCH};

const PROGRAM: &str = concat!("starling-client/", env!("CARGO_PKG_VERSION"));

/// Makes a user with a password and a first device, and keeps its token in `store`. If the store
/// belonged to another device, it begins anew.
///
/// # Errors
/// [`CallError::Unsent`] if what that device wrote would be forgotten unsent;
/// [`CallError::Refused`] with NAME_TAKEN, NAME_INVALID, PASSWORD_INVALID or USER_LIMIT among
/// others; [`CallError::NoConnection`].
pub async fn register(
    server: &str,
    store: &mut impl Store,
    name: &str,
    password: &str,
) -> Result<Identity, CallError> {
    may_begin_anew(&store.load()?)?;
    let register = wire::Register {
        opening: Some(opening(PROGRAM)),
        name: name.to_owned(),
        password: password.to_owned(),
        platform: platform(),
    };
    open(server, store, Kind::Register, &register).await
}

/// Logs a device in and keeps its token in `store`. If the store holds a device of that name, in
/// whatever spelling, it is the same device again, with its outbox and its cursor; otherwise, or
/// if the server does not know that device any more, the user gets a new one and the store begins
/// anew.
///
/// # Errors
/// [`CallError::Unsent`] if what another device wrote would be forgotten unsent: the store is then
/// as it was. [`CallError::Refused`] with WRONG_PASSWORD, LOGIN_SLOWED (wait for its
/// `retry_after_ms`) or DEVICE_LIMIT among others; [`CallError::NoConnection`].
pub async fn login(
    server: &str,
    store: &mut impl Store,
    name: &str,
    password: &str,
) -> Result<Identity, CallError> {
    let saved = store.load()?;
    let known = saved.identity.as_ref().filter(|known| known.is_called(name));
    if known.is_none() {
        may_begin_anew(&saved)?;
    }
    let login = wire::Login {
        opening: Some(opening(PROGRAM)),
        name: name.to_owned(),
        password: password.to_owned(),
        device: known.map_or(0, |known| known.device.0),
        platform: platform(),
    };
    open(server, store, Kind::Login, &login).await
}

/// Takes what is not sent out of the outbox of a store, so that another device may log in there.
/// To be called when whoever wrote it gives it up.
///
/// # Errors
/// [`StoreError`] if the store cannot be read or written.
pub fn give_up_unsent(store: &mut impl Store) -> Result<Vec<Entry>, StoreError> {
    let mut outbox = store.load()?.outbox;
    outbox.retain(is_unsent);
    let settled: Vec<Change> = outbox.iter().map(|entry| Change::Settled(entry.nonce)).collect();
    store.commit(&settled)?;
    Ok(outbox)
}

/// The outbox of another device is forgotten, so nothing in it may wait.
fn may_begin_anew(saved: &Saved) -> Result<(), CallError> {
    // What nobody has logged in with is nobody else's.
    let others = saved.identity.iter().flat_map(|_| &saved.outbox);
    match others.filter(|entry| is_unsent(entry)).count() {
        0 => Ok(()),
        unsent => Err(CallError::Unsent(unsent)),
    }
}

fn is_unsent(entry: &Entry) -> bool {
    !matches!(entry.state, EntryState::Acknowledged(_))
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
    let saved = store.load()?;
    if !saved.belongs_to(identity.user, identity.device) {
        may_begin_anew(&saved)?;
    }
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
