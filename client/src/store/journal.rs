//! What a terminal client keeps beside a session: which events it has shown, and names.

use super::{
    StoreError,
    sqlite::{RESET_UNTOLD, hash_up_to, open_database},
};
use crate::Event;
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Row, params};
use starling_codec::{Epoch, Place, UserId, history::StateHash, wire};
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

    /// What became of events that were shown, if whoever saw them has not been told: that they
    /// were taken back, to a place or wholly. Comes before what [`Journal::unshown`] gives.
    pub fn taken_back(&self) -> Result<Option<Event>, StoreError> {
        let Some(shown) = self.shown()? else { return Ok(Some(Event::Reset)) };
        // The highest event that still stands of those that were shown.
        let mut select = self.0.prepare_cached(
            "SELECT seq, epoch FROM event WHERE seq <= ?1 AND epoch <= ?2
             ORDER BY seq DESC LIMIT 1",
        )?;
        let bounds = params![shown.seq as i64, shown.epoch.0];
        let left = select.query_row(bounds, read_place).optional()?.unwrap_or(Place::START);
        Ok((left != shown).then_some(Event::Rewound(left)))
    }

    /// All events up to the place were shown. Places rise over a REWIND too, so what comes in the
    /// stead of what was taken back counts as not shown. After a RESET nothing was shown, until
    /// [`Journal::told_reset`].
    pub fn set_shown(&self, place: Place) -> Result<(), StoreError> {
        let mut update =
            self.0.prepare_cached("UPDATE shown SET seq = ?1, epoch = ?2 WHERE seq <> ?3")?;
        update.execute(params![place.seq as i64, place.epoch.0, RESET_UNTOLD])?;
        Ok(())
    }

    /// Whoever is shown events knows that all of them were taken back.
    pub fn told_reset(&self) -> Result<(), StoreError> {
        let update = "UPDATE shown SET seq = 0, epoch = 0 WHERE seq = ?1";
        self.0.execute(update, [RESET_UNTOLD])?;
        Ok(())
    }

    /// How far events were shown; `None` if a RESET took them back and that is not told yet.
    pub fn shown(&self) -> Result<Option<Place>, StoreError> {
        let (seq, place) = self.0.query_row("SELECT seq, epoch FROM shown", [], |row| {
            Ok((row.get::<_, i64>(0)?, read_place(row)?))
        })?;
        Ok((seq != RESET_UNTOLD).then_some(place))
    }

    /// How far events were shown, and the hash of those: with it the lines of a listener end.
    /// `None` as with [`Journal::shown`].
    pub fn shown_state(&self) -> Result<Option<(Place, StateHash)>, StoreError> {
        let Some(shown) = self.shown()? else { return Ok(None) };
        Ok(Some((shown, hash_up_to(&self.0, shown)?)))
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

fn read_place(row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok(Place::new(row.get::<_, i64>(0)? as u64, Epoch(row.get(1)?)))
}
