//! A store in a folder: SQLite beside a lock, so that one process owns a profile.

use super::{Change, Saved, Store, StoreError, add_to};
use crate::{
    Entry, EntryState, Identity, KnownNetwork, Network, Outgoing, Peer, Receipt, TooLong, Unsent,
};
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use starling_codec::{
    ConversationId, DeviceId, Epoch, EpochTag, MessageId, Nonce, Place, SendNo, UserId,
    history::StateHash,
    wire::{self, Class, event::Kind},
};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Version of the tables. A later one migrates or refuses; it never guesses.
const FORMAT: i64 = 2;
pub(super) const DATABASE: &str = "profile.db";
const LOCK: &str = "lock";
/// Stands for the seq of what was shown after a RESET, until whoever is shown events knows of it.
pub(super) const RESET_UNTOLD: i64 = -1;

/// Numbers of 64 bits stand in SQLite's signed integers bit by bit; seqs never get that large.
const TABLES: &str = "
    CREATE TABLE profile (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        user INTEGER, device INTEGER, name TEXT, token BLOB,
        expires_ms INTEGER, refresh_at_ms INTEGER,
        connect_no INTEGER NOT NULL, epoch INTEGER NOT NULL, tag INTEGER NOT NULL,
        cursor_seq INTEGER NOT NULL, cursor_epoch INTEGER NOT NULL,
        highest_seq INTEGER NOT NULL, highest_epoch INTEGER NOT NULL,
        next_send_no INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL,
        sender INTEGER, device INTEGER, body BLOB NOT NULL
    ) STRICT;
    CREATE TABLE outbox (
        nonce INTEGER PRIMARY KEY, send_no INTEGER NOT NULL,
        to_user INTEGER, to_conversation INTEGER, class INTEGER NOT NULL, content BLOB NOT NULL,
        state INTEGER NOT NULL, receipt BLOB
    ) STRICT;
    CREATE TABLE shown (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        seq INTEGER NOT NULL, epoch INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE name (user INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
    INSERT INTO shown VALUES (1, 0, 0);
";

/// New with format 2.
const NETWORK_TABLE: &str = "
    CREATE TABLE network (
        name TEXT PRIMARY KEY, heartbeat_s INTEGER NOT NULL,
        too_long_s INTEGER, too_long_at_ms INTEGER
    ) STRICT;
";

/// Why a profile cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the profile {} is in use by another process", .0.display())]
    Locked(PathBuf),
    #[error("the profile {} cannot be opened: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the profile {} has format {format}, which this version does not know", .path.display())]
    UnknownFormat { path: PathBuf, format: i64 },
    #[error("the profile {} cannot be read: {source}", .path.display())]
    Broken { path: PathBuf, source: StoreError },
}

/// A device's memory on disk. Every transaction is synced before it is acted upon.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    /// All but the outbox, as it stands in the table.
    kept: Saved,
    /// Held as long as the store lives; the system lets go of it if the process dies.
    _lock: ProfileLock,
}

impl SqliteStore {
    /// Opens the profile in the folder `path`, and makes it if it is not there.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if another process has it.
    pub fn open(path: &Path) -> Result<SqliteStore, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        make_folder(path).map_err(failed)?;
        let lock = match ProfileLock::take(path) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        };
        let broken = |source: rusqlite::Error| OpenError::Broken {
            path: path.to_owned(),
            source: source.into(),
        };
        let mut connection = open_database(path).map_err(broken)?;
        let format = prepare(&mut connection).map_err(broken)?;
        if format != FORMAT {
            return Err(OpenError::UnknownFormat { path: path.to_owned(), format });
        }
        let mut kept = read_profile(&connection).map_err(broken)?.unwrap_or_default();
        kept.networks = read_networks(&connection).map_err(broken)?;
        Ok(SqliteStore { connection, kept, _lock: lock })
    }

    /// The hash of what the device holds, as a history's last line of it has it.
    pub fn state_hash(&self) -> Result<StateHash, StoreError> {
        hash_up_to(&self.connection, Place::new(i64::MAX as u64, Epoch(u32::MAX)))
    }
}

/// The hash of the events up to a place.
pub(super) fn hash_up_to(connection: &Connection, place: Place) -> Result<StateHash, StoreError> {
    let mut select = connection.prepare("SELECT body FROM event WHERE (epoch, seq) <= (?1, ?2)")?;
    let mut hash = StateHash::default();
    let bounds = params![place.epoch.0, place.seq as i64];
    for body in select.query_map(bounds, |row| row.get::<_, Vec<u8>>(0))? {
        let event = wire::Event::decode(&*body?).map_err(StoreError::new)?;
        add_to(&mut hash, &event);
    }
    Ok(hash)
}

/// The right to a profile.
#[derive(Debug)]
struct ProfileLock(File);

impl ProfileLock {
    fn take(path: &Path) -> Result<ProfileLock, TryLockError> {
        let file = File::create(path.join(LOCK)).map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(ProfileLock(file))
    }
}

impl Drop for ProfileLock {
    /// Lets go at once. To close the file is not enough: a process that another thread is just
    /// starting holds a copy of it until it runs its own program.
    fn drop(&mut self) {
        // Closing the file lets go too, if a moment later, should this fail.
        let _ = self.0.unlock();
    }
}

/// A connection that waits for its sibling in the same process.
pub(super) fn open_database(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path.join(DATABASE))?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What was committed survives a power cut, as the numbers in it must not be used again.
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Tokens are kept here, so the folder is the user's alone.
fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

/// Makes the tables of a new database, and those that an older one lacks; gives the format of any.
fn prepare(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction()?;
    let format: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match format {
        0 => transaction.execute_batch(TABLES)?,
        1 => {}
        _ => return Ok(format),
    }
    transaction.execute_batch(NETWORK_TABLE)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()?;
    Ok(FORMAT)
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Saved, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT nonce, send_no, to_user, to_conversation, class, content, state, receipt
             FROM outbox ORDER BY send_no",
        )?;
        let rows = statement.query_map([], |row| Ok(read_entry(row)))?;
        let outbox = rows.map(|row| row?).collect::<Result<Vec<Entry>, StoreError>>()?;
        Ok(Saved { outbox, ..self.kept.clone() })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut kept = self.kept.clone();
        let transaction = self.connection.transaction()?;
        for change in changes {
            match change {
                Change::Identity(new) if !kept.belongs_to(new.user, new.device) => {
                    transaction.execute_batch(
                        "DELETE FROM event; DELETE FROM outbox; DELETE FROM name;
                         UPDATE shown SET seq = 0, epoch = 0",
                    )?;
                    kept.change(change);
                }
                Change::Outbox(entry) => write_entry(&transaction, entry)?,
                Change::Settled(nonce) => {
                    let mut delete =
                        transaction.prepare_cached("DELETE FROM outbox WHERE nonce = ?1")?;
                    delete.execute([nonce.0 as i64])?;
                }
                Change::Applied(event) => {
                    write_event(&transaction, event)?;
                    kept.change(change);
                }
                Change::Rewind(place) => {
                    let above = "DELETE FROM event WHERE (epoch, seq) > (?1, ?2)";
                    transaction.execute(above, params![place.epoch.0, place.seq as i64])?;
                    kept.change(change);
                }
                Change::Reset => {
                    transaction.execute_batch("DELETE FROM event; DELETE FROM name")?;
                    let untold = "UPDATE shown SET seq = ?1, epoch = 0";
                    transaction.execute(untold, [RESET_UNTOLD])?;
                    kept.change(change);
                }
                Change::Identity(_)
                | Change::LoggedOut
                | Change::ConnectNo(_)
                | Change::Epoch(..)
                | Change::Highest(_)
                | Change::NextSendNo(_)
                | Change::Network(_) => kept.change(change),
            }
        }
        if kept != self.kept {
            write_profile(&transaction, &kept)?;
        }
        if kept.networks != self.kept.networks {
            write_networks(&transaction, &kept.networks)?;
        }
        transaction.commit()?;
        self.kept = kept;
        Ok(())
    }

    fn own_above(
        &mut self,
        place: Place,
        user: UserId,
        device: DeviceId,
    ) -> Result<Vec<wire::Message>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT body FROM event
             WHERE (epoch, seq) > (?1, ?2) AND sender = ?3 AND device = ?4 ORDER BY seq",
        )?;
        let bounds = params![place.epoch.0, place.seq as i64, user.0, device.0];
        let rows = statement.query_map(bounds, |row| row.get::<_, Vec<u8>>(0))?;
        let mut messages = Vec::new();
        for body in rows {
            let event = wire::Event::decode(&*body?).map_err(StoreError::new)?;
            if let Some(Kind::Message(message)) = event.kind {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    fn held(&mut self) -> Result<Option<StateHash>, StoreError> {
        self.state_hash().map(Some)
    }
}

fn read_profile(connection: &Connection) -> rusqlite::Result<Option<Saved>> {
    let read = |row: &Row<'_>| {
        let place = |seq: usize| -> rusqlite::Result<Place> {
            Ok(Place::new(number(row, seq)?, Epoch(row.get(seq + 1)?)))
        };
        let identity = match row.get::<_, Option<u32>>(0)? {
            None => None,
            Some(user) => Some(Identity {
                user: UserId(user),
                device: DeviceId(row.get(1)?),
                name: row.get(2)?,
                token: row.get::<_, Vec<u8>>(3)?.into(),
                expires_ms: number(row, 4)?,
                refresh_at_ms: number(row, 5)?,
            }),
        };
        Ok(Saved {
            identity,
            connect_no: number(row, 6)?,
            epoch: Epoch(row.get(7)?),
            tag: EpochTag(number(row, 8)?),
            cursor: place(9)?,
            highest: place(11)?,
            next_send_no: number(row, 13)?,
            networks: Vec::new(),
            outbox: Vec::new(),
        })
    };
    let columns = "SELECT user, device, name, token, expires_ms, refresh_at_ms, connect_no, epoch,
         tag, cursor_seq, cursor_epoch, highest_seq, highest_epoch, next_send_no FROM profile";
    connection.query_row(columns, [], read).optional()
}

fn write_profile(transaction: &Transaction<'_>, kept: &Saved) -> rusqlite::Result<()> {
    let identity = kept.identity.as_ref();
    let mut replace = transaction.prepare_cached(
        "INSERT OR REPLACE INTO profile VALUES
         (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    replace.execute(params![
        identity.map(|own| own.user.0),
        identity.map(|own| own.device.0),
        identity.map(|own| &own.name),
        identity.map(|own| &own.token[..]),
        identity.map(|own| own.expires_ms as i64),
        identity.map(|own| own.refresh_at_ms as i64),
        kept.connect_no as i64,
        kept.epoch.0,
        kept.tag.0 as i64,
        kept.cursor.seq as i64,
        kept.cursor.epoch.0,
        kept.highest.seq as i64,
        kept.highest.epoch.0,
        kept.next_send_no as i64,
    ])?;
    Ok(())
}

fn read_networks(connection: &Connection) -> rusqlite::Result<Vec<KnownNetwork>> {
    let mut select = connection.prepare(
        "SELECT name, heartbeat_s, too_long_s, too_long_at_ms FROM network ORDER BY rowid",
    )?;
    let rows = select.query_map([], |row| {
        let name: String = row.get(0)?;
        let too_long = match row.get::<_, Option<u32>>(2)? {
            None => None,
            Some(heartbeat_s) => Some(TooLong { heartbeat_s, at_ms: number(row, 3)? }),
        };
        Ok((name, row.get(1)?, too_long))
    })?;
    let mut networks = Vec::new();
    for row in rows {
        let (name, heartbeat_s, too_long) = row?;
        // A name that is too long is nobody's.
        if let Ok(network) = Network::named(&name) {
            KnownNetwork { network, heartbeat_s, too_long }.keep(&mut networks);
        }
    }
    Ok(networks)
}

/// There are few, and they change a few times in a network's life.
fn write_networks(
    transaction: &Transaction<'_>,
    networks: &[KnownNetwork],
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM network", [])?;
    let mut insert = transaction.prepare_cached("INSERT INTO network VALUES (?1, ?2, ?3, ?4)")?;
    for KnownNetwork { network, heartbeat_s, too_long } in networks {
        let at_ms = too_long.map(|too_long| too_long.at_ms as i64);
        let too_long_s = too_long.map(|too_long| too_long.heartbeat_s);
        insert.execute(params![network.name(), heartbeat_s, too_long_s, at_ms])?;
    }
    Ok(())
}

fn write_event(transaction: &Transaction<'_>, event: &wire::Event) -> rusqlite::Result<()> {
    let message = match &event.kind {
        Some(Kind::Message(message)) => Some(message),
        _ => None,
    };
    let mut insert =
        transaction.prepare_cached("INSERT OR REPLACE INTO event VALUES (?1, ?2, ?3, ?4, ?5)")?;
    insert.execute(params![
        event.seq as i64,
        event.epoch,
        message.map(|message| message.sender),
        message.map(|message| message.device),
        event.encode_to_vec(),
    ])?;
    Ok(())
}

fn write_entry(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let (user, conversation) = match entry.message.to {
        Peer::User(user) => (Some(user.0), None),
        Peer::Conversation(conversation) => (None, Some(conversation.0 as i64)),
    };
    let (state, receipt) = match entry.state {
        EntryState::Unanswered => (0, None),
        EntryState::Acknowledged(receipt) => (1, Some(encode_receipt(receipt))),
        EntryState::Unsent(Unsent::Lost) => (2, None),
        EntryState::Unsent(Unsent::Stale) => (3, None),
    };
    let mut replace = transaction
        .prepare_cached("INSERT OR REPLACE INTO outbox VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    replace.execute(params![
        entry.nonce.0 as i64,
        entry.send_no.0 as i64,
        user,
        conversation,
        entry.message.class as i32,
        &entry.message.content[..],
        state,
        receipt,
    ])?;
    Ok(())
}

fn read_entry(row: &Row<'_>) -> Result<Entry, StoreError> {
    let to = match (row.get::<_, Option<u32>>(2)?, row.get::<_, Option<i64>>(3)?) {
        (Some(user), _) => Peer::User(UserId(user)),
        (None, Some(conversation)) => Peer::Conversation(ConversationId(conversation as u64)),
        (None, None) => return Err(StoreError::new("a message in the outbox goes to nobody")),
    };
    let receipt = row.get::<_, Option<Vec<u8>>>(7)?;
    let state = match (row.get(6)?, receipt) {
        (0, _) => EntryState::Unanswered,
        (1, Some(receipt)) => EntryState::Acknowledged(decode_receipt(&receipt)?),
        (2, _) => EntryState::Unsent(Unsent::Lost),
        (3, _) => EntryState::Unsent(Unsent::Stale),
        (state, _) => return Err(StoreError::new(format!("no state of an outbox has {state}"))),
    };
    Ok(Entry {
        nonce: Nonce(number(row, 0)?),
        send_no: SendNo(number(row, 1)?),
        message: Outgoing {
            to,
            class: Class::try_from(row.get::<_, i32>(4)?).map_err(StoreError::new)?,
            content: row.get::<_, Vec<u8>>(5)?.into(),
        },
        state,
    })
}

/// A receipt is kept as the SEND_ACK it came as.
fn encode_receipt(receipt: Receipt) -> Vec<u8> {
    let ack = wire::SendAck {
        send_no: receipt.send_no.0,
        id: receipt.id.0,
        conversation: receipt.conversation.0,
        seq: receipt.seq,
        place: Some(receipt.place.into()),
        time_ms: receipt.time_ms,
        class: receipt.class.into(),
    };
    ack.encode_to_vec()
}

fn decode_receipt(bytes: &[u8]) -> Result<Receipt, StoreError> {
    let ack = wire::SendAck::decode(bytes).map_err(StoreError::new)?;
    Ok(Receipt {
        send_no: SendNo(ack.send_no),
        id: MessageId(ack.id),
        conversation: ConversationId(ack.conversation),
        seq: ack.seq,
        place: ack.place.map(Place::from).unwrap_or_default(),
        time_ms: ack.time_ms,
        class: ack.class(),
    })
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| number as u64)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::new(error)
    }
}
