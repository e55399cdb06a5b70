//! What the holder of the operator key may do.
//!
//! ```no_run
//! use starling_client::operator::{Operator, read_key};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let key = read_key("starling-data/operator.key")?;
//! let mut operator = Operator::connect("127.0.0.1:7400", &key).await?;
//! let users = operator.create_users(&["alice".to_owned(), "bob".to_owned()]).await?;
//! for counter in operator.stats().await? {
//!     println!("{} {} {} {}", counter.source, counter.name, counter.part, counter.value);
//! }
//! # Ok(())
//! # }
//! ```

use super::link::{CallError, Link, Reply};
use crate::session::opening;
use bytes::Bytes;
use starling_codec::{
    DeviceId, ErrorCode, Kind, UserId, append_frame,
    limits::{MAX_CREATE_USERS, MAX_OPENING_FRAME_BYTES},
    wire::{self, Counter},
};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

const PROGRAM: &str = concat!("starling-operator/", env!("CARGO_PKG_VERSION"));
/// Requests under way at once: enough to keep a server busy, fewer than it allows.
const PIPELINE: usize = 8;
/// Most bytes of a file that holds a key; the opener that carries the key has room for them.
const MAX_KEY_FILE_BYTES: u64 = MAX_OPENING_FRAME_BYTES as u64 / 2;

/// A connection of the operator. The server closes one that is silent for long: connect again.
pub struct Operator {
    link: Link,
    last_id: u32,
}

/// A user that was made, with a first device that is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedUser {
    pub user: UserId,
    pub device: DeviceId,
    pub token: Bytes,
}

/// The key as its file holds it, without the white space around it.
///
/// # Errors
/// The file cannot be read, or holds more than any key: the frame that carries one could not.
pub fn read_key(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    File::open(path)?.take(MAX_KEY_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_KEY_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long for a key"));
    }
    Ok(text.trim().as_bytes().to_vec())
}

impl Operator {
    /// # Errors
    /// [`CallError::Refused`] with WRONG_OPERATOR_KEY; [`CallError::NoConnection`].
    pub async fn connect(server: &str, key: &[u8]) -> Result<Operator, CallError> {
        let mut link = Link::open(server).await?;
        let key = Bytes::copy_from_slice(key);
        let opener = wire::Operator { opening: Some(opening(PROGRAM)), key };
        let reply = link.call(Kind::Operator, &opener).await?;
        match reply.kind {
            Kind::Done => Ok(Operator { link, last_id: 0 }),
            _ => Err(link.protocol(ErrorCode::WrongState)),
        }
    }

    /// Makes users without passwords, any number of them; answers in the order of the names. The
    /// tokens live as long as the server's own do.
    ///
    /// # Errors
    /// [`CallError::Refused`] with NAME_TAKEN, NAME_INVALID or USER_LIMIT among others. The users
    /// of other requests may have been made by then.
    pub async fn create_users(&mut self, names: &[String]) -> Result<Vec<CreatedUser>, CallError> {
        let mut created = Vec::with_capacity(names.len());
        for names in names.chunks(MAX_CREATE_USERS * PIPELINE) {
            let first_id = self.last_id.wrapping_add(1);
            let mut requests = Vec::new();
            for names in names.chunks(MAX_CREATE_USERS) {
                let names = names.to_vec();
                let request_id = self.next_id();
                let request = wire::CreateUsers { request_id, names, token_lifetime_s: 0 };
                append_frame(&mut requests, Kind::CreateUsers, &request);
            }
            let count = names.len().div_ceil(MAX_CREATE_USERS);
            let replies = self.link.exchange(&requests, count).await?;
            let mut pages: Vec<Option<wire::CreatedUsers>> = vec![None; count];
            for reply in replies {
                let page: wire::CreatedUsers = self.body(&reply, Kind::CreatedUsers)?;
                let at = page.request_id.wrapping_sub(first_id) as usize;
                *pages.get_mut(at).ok_or(self.link.protocol(ErrorCode::BadField))? = Some(page);
            }
            for page in pages {
                let page = page.ok_or(self.link.protocol(ErrorCode::BadField))?;
                created.extend(page.users.into_iter().map(|user| CreatedUser {
                    user: UserId(user.user),
                    device: DeviceId(user.device),
                    token: user.token,
                }));
            }
        }
        if created.len() != names.len() {
            return Err(self.link.protocol(ErrorCode::BadField));
        }
        Ok(created)
    }

    /// The server's counters.
    pub async fn stats(&mut self) -> Result<Vec<Counter>, CallError> {
        let request = wire::Stats { request_id: self.next_id() };
        let reply = self.link.call(Kind::Stats, &request).await?;
        let page: wire::StatsPage = self.body(&reply, Kind::StatsPage)?;
        Ok(page.counters)
    }

    fn body<M: prost::Message + Default>(&self, reply: &Reply, kind: Kind) -> Result<M, CallError> {
        if reply.kind != kind {
            return Err(self.link.protocol(ErrorCode::WrongState));
        }
        reply.body().map_err(|code| self.link.protocol(code))
    }

    fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }
}
