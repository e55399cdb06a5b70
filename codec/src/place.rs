//! Positions in logs that a power cut may shorten.

/// One opening of the store: a rising number. 0 is "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Epoch(pub u32);

/// A position in a user's inbox, with the epoch in which the event there was written. Ordered by
/// epoch, then seq, as Raft orders (term, index).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub epoch: Epoch,
    pub seq: u64,
}

/// A place up to which everything was applied.
pub type Cursor = Place;

impl Place {
    /// Before the first event.
    pub const START: Place = Place { epoch: Epoch(0), seq: 0 };

    pub fn new(seq: u64, epoch: Epoch) -> Place {
        Place { epoch, seq }
    }
}

impl From<Place> for crate::wire::Place {
    fn from(place: Place) -> Self {
        crate::wire::Place { seq: place.seq, epoch: place.epoch.0 }
    }
}

impl From<crate::wire::Place> for Place {
    fn from(place: crate::wire::Place) -> Self {
        Place { epoch: Epoch(place.epoch), seq: place.seq }
    }
}
