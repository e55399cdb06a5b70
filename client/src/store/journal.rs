//! What a terminal client keeps beside a session: which events it has shown, and names.

use super::{StoreError, sqlite::open_database};
use prost::Message;
use rusqlite::{Connection, OptionalExtension, params};
use starling_codec::{Epoch, Place, UserId, wire};
use std::path::Path;

/// A second look into an open profile, from the same process.
#[derive(Debug)]
pub struct Journal(Connection);

impl Journal {
    /// Opens the journal of a profile that a [`SqliteStore`](crate::SqliteStore) of this process
    /// has opened.
    pub fn open(path: &Path) -> Result<Journal, StoreError> {
        Ok(Journal(open_database(path)?))
    }

    /// Applied events that were not shown yet, in order.
    pub fn unshown(&self) -> Result<Vec<wire::Event>, StoreError> {
        let mut statement = self.0.prepare(
            "SELECT body FROM event WHERE (epoch, seq) > (SELECT epoch, seq FROM shown)
             ORDER BY seq",
        )?;
        let bodies = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        bodies.map(|body| wire::Event::decode(&*body?).map_err(StoreError::new)).collect()
    }

    /// All events up to the place were shown. Places rise over a REWIND too, so what comes in the
    /// stead of what was taken back counts as not shown.
    pub fn set_shown(&self, place: Place) -> Result<(), StoreError> {
        let mut update = self.0.prepare_cached("UPDATE shown SET seq = ?1, epoch = ?2")?;
        update.execute(params![place.seq as i64, place.epoch.0])?;
        Ok(())
    }

    pub fn shown(&self) -> Result<Place, StoreError> {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Place::new(row.get::<_, i64>(0)? as u64, Epoch(row.get(1)?)))
        };
        Ok(self.0.query_row("SELECT seq, epoch FROM shown", [], read)?)
    }

    /// The name of a user, if it was heard before.
    pub fn name_of(&self, user: UserId) -> Result<Option<String>, StoreError> {
        let mut select = self.0.prepare_cached("SELECT name FROM name WHERE user = ?1")?;
        Ok(select.query_row([user.0], |row| row.get(0)).optional()?)
    }

    pub fn keep_name(&self, user: UserId, name: &str) -> Result<(), StoreError> {
        let mut replace = self.0.prepare_cached("INSERT OR REPLACE INTO name VALUES (?1, ?2)")?;
        replace.execute(params![user.0, name])?;
        Ok(())
    }
}
