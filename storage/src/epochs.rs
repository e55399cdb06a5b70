//! What an opening of the store begins with: is the format ours, which epochs there were, and the
//! row of the new one, durable before anything is served.

use crate::{
    Backend, Family, OpenError, ReadError, Rows, WriteError,
    backend::{Reads, Tier},
    layout::{FORMAT, MetaKey},
    sequencer::read_high_water,
};
use starling_codec::{
    Epoch, EpochTag,
    planted::{Fault, is_planted},
};
use std::{collections::BTreeMap, ops::ControlFlow};

/// All openings of this store, by number. Never empty.
#[derive(Clone, Debug)]
pub struct Epochs {
    tags: BTreeMap<Epoch, EpochTag>,
    current: Epoch,
}

impl Epochs {
    /// This opening.
    pub fn current(&self) -> (Epoch, EpochTag) {
        (self.current, self.tags[&self.current])
    }

    pub fn tag(&self, epoch: Epoch) -> Option<EpochTag> {
        self.tags.get(&epoch).copied()
    }
}

/// What an opening found.
pub struct Opening {
    pub epochs: Epochs,
    /// Unix milliseconds: no id of an earlier time may be made.
    pub id_floor_ms: u64,
}

/// Begins an epoch: all that earlier ones left is made durable first, then the row of this one.
/// So an epoch starts from rows that no power cut can take.
pub fn begin(backend: &dyn Backend, tag: EpochTag) -> Result<Opening, OpenError> {
    let view = backend.view();
    let reads = Reads::new(&*view, Tier::All);
    let format = reads.get(Family::Meta, &MetaKey::Format.bytes(), |row| {
        Some(u32::from_le_bytes(row.try_into().ok()?))
    })?;
    if let Some(found) = format.filter(|format| *format != FORMAT) {
        return Err(OpenError::UnknownFormat { found, known: FORMAT });
    }
    let mut tags = read_epochs(reads)?;
    let last = tags.last_key_value().map_or(0, |(last, _)| last.0);
    let current = match is_planted(Fault::EpochStands) {
        true => Epoch(last.max(1)),
        false => Epoch(last + 1),
    };
    tags.insert(current, tag);
    backend.settle()?;

    let mut rows = Rows::default();
    if format.is_none() {
        rows.put(Family::Meta, &MetaKey::Format.bytes(), |out| {
            out.extend_from_slice(&FORMAT.to_le_bytes());
        });
    }
    rows.put(Family::Meta, &MetaKey::Epoch(current).bytes(), |out| {
        out.extend_from_slice(&tag.0.to_le_bytes());
    });
    rows.sort();
    backend.write(&rows)?;
    backend.sync()?;
    Ok(Opening { epochs: Epochs { tags, current }, id_floor_ms: read_high_water(reads)? })
}

fn read_epochs(reads: Reads<'_>) -> Result<BTreeMap<Epoch, EpochTag>, ReadError> {
    let mut tags = BTreeMap::new();
    let from = MetaKey::Epoch(Epoch(0)).bytes();
    reads.scan(Family::Meta, &from, &MetaKey::AFTER_EPOCHS, |key, value| {
        let (_, number) = key.split_first()?;
        let epoch = Epoch(u32::from_be_bytes(number.try_into().ok()?));
        tags.insert(epoch, EpochTag(u64::from_le_bytes(value.try_into().ok()?)));
        Some(ControlFlow::Continue(()))
    })?;
    Ok(tags)
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Corrupt(what) => OpenError::Corrupt(what),
            ReadError::Failed(what) => OpenError::Io(what),
            ReadError::Incomplete => OpenError::Io(error.to_string()),
        }
    }
}

impl From<WriteError> for OpenError {
    fn from(error: WriteError) -> Self {
        OpenError::Io(error.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBackend;

    #[test]
    fn every_opening_is_an_epoch_of_its_own() {
        let backend = MemoryBackend::new();
        for number in 1..=3u32 {
            let opening = begin(&backend, EpochTag(u64::from(number) * 11)).unwrap();
            let current = (Epoch(number), EpochTag(u64::from(number) * 11));
            assert_eq!(opening.epochs.current(), current);
            assert_eq!(opening.epochs.tag(Epoch(1)), Some(EpochTag(11)));
            assert_eq!(opening.epochs.tag(Epoch(number + 1)), None);
            let (synced, written) = backend.log_ends();
            assert_eq!(synced, written);
        }
    }

    #[test]
    fn another_format_is_refused() {
        let backend = MemoryBackend::new();
        let mut rows = Rows::default();
        rows.put(Family::Meta, &MetaKey::Format.bytes(), |out| {
            out.extend_from_slice(&(FORMAT + 1).to_le_bytes());
        });
        backend.write(&rows).unwrap();
        let refused = begin(&backend, EpochTag(1));
        let Err(OpenError::UnknownFormat { found, known: FORMAT }) = refused else {
            panic!("another format was read");
        };
        assert_eq!(found, FORMAT + 1);
    }
}
