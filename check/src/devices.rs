//! What each device did, saw and holds.

use crate::{Position, openings::NO_OPENING};
use rustc_hash::FxHashMap;
use starling_codec::{
    Epoch, Place, SendWindow,
    history::{At, StateHash},
};

/// No event before.
const NO_EVENT: u32 = u32::MAX;

/// An event that a device holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub seq: u64,
    pub what: What,
    pub position: Position,
    pub epoch: Epoch,
    /// The event before it in the same stream, as an index into what the device holds.
    before: u32,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Number of a message, and of its stream.
    Message {
        message: u32,
        stream: u32,
    },
    /// Every message up to `seq` was delivered.
    Receipt {
        stream: u32,
        seq: u64,
    },
    Unknown,
}

impl What {
    fn stream(&self) -> Option<u32> {
        match self {
            What::Message { stream, .. } | What::Receipt { stream, .. } => Some(*stream),
            What::Unknown => None,
        }
    }
}

impl Held {
    pub fn place(&self) -> Place {
        Place::new(self.seq, self.epoch)
    }
}

/// An event that a device was told to remove.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removed {
    pub held: Held,
    /// Where it was told so, and in which opening.
    pub position: Position,
    pub opening: u32,
}

/// A send window that a device was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub window: SendWindow,
    pub opening: u32,
    pub position: Position,
}

/// A device that was welcomed in another opening than it knew, and was not reset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WentOn {
    /// The opening that it knew.
    pub known: u32,
    /// The opening that it was welcomed in, and where.
    pub welcomed: (u32, Position),
    /// Where it did something else first.
    pub position: Position,
}

/// A device that was told to remove everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WasReset {
    /// The opening that it knew before, if the history says so.
    pub known: u32,
    /// The opening that it was welcomed in.
    pub welcomed: u32,
    pub position: Position,
}

/// What a device says of itself at the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub cursor: Place,
    pub hash: StateHash,
    pub position: Position,
    /// All was at rest by then; else others may have gone on without it.
    pub at_rest: bool,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub at: At,
    /// What it holds, by seq.
    pub held: Vec<Held>,
    pub removed: Vec<Removed>,
    /// `None` until the history says where it stands.
    pub cursor: Option<Place>,
    pub cursor_at: Position,
    /// The history has its inbox from the first event on.
    pub whole: bool,
    /// Where the first event of it is.
    pub began_at: Position,
    pub acked: Place,
    pub acked_at: Position,
    /// The highest place it ever acknowledged.
    pub acked_top: Place,
    pub opening: u32,
    pub online_at: Position,
    /// The opening of the welcome before.
    pub last_opening: u32,
    /// The opening that it knew before it was welcomed in another, until it goes on.
    pub came_from: Option<u32>,
    pub went_on: Vec<WentOn>,
    pub windows: Vec<Told>,
    pub top_send_no: u64,
    /// Its last line, if that says what it holds.
    pub end: Option<Settled>,
    /// A restored device forgot what it wrote up to here.
    pub forgot: Option<Position>,
    pub resets: Vec<WasReset>,
    /// Its recorder began anew, and may repeat what it had written before.
    pub may_repeat: bool,
    pub last_file: u16,
}

#[derive(Debug, Default)]
pub(crate) struct Devices {
    numbers: FxHashMap<At, u32>,
    pub list: Vec<Device>,
    /// The last event of each stream that a device holds.
    latest: FxHashMap<(u32, u32), u32>,
}

impl Devices {
    pub fn number(&mut self, at: At) -> u32 {
        *self.numbers.entry(at).or_insert_with(|| {
            self.list.push(Device::new(at));
            self.list.len() as u32 - 1
        })
    }

    /// The last event of a stream that a device holds.
    pub fn latest(&self, device: u32, stream: u32) -> Option<&Held> {
        let at = *self.latest.get(&(device, stream))?;
        self.list[device as usize].held.get(at as usize)
    }

    /// The event of the same stream before one.
    pub fn before(&self, device: u32, held: &Held) -> Option<&Held> {
        self.list[device as usize].held.get(held.before as usize)
    }

    pub fn apply(&mut self, number: u32, mut held: Held) {
        let device = &mut self.list[number as usize];
        if let Some(stream) = held.what.stream() {
            let at = device.held.len() as u32;
            held.before = self.latest.insert((number, stream), at).unwrap_or(NO_EVENT);
        }
        device.cursor = Some(held.place());
        device.cursor_at = held.position;
        device.held.push(held);
    }

    /// Takes away what has a higher place, the highest first.
    pub fn cut(&mut self, number: u32, place: Place) -> Vec<Held> {
        let device = &mut self.list[number as usize];
        let mut cut = Vec::new();
        while let Some(held) = device.held.pop_if(|held| held.place() > place) {
            if let Some(stream) = held.what.stream() {
                if held.before == NO_EVENT {
                    self.latest.remove(&(number, stream));
                } else {
                    self.latest.insert((number, stream), held.before);
                }
            }
            cut.push(held);
        }
        cut
    }
}

impl Held {
    pub fn new(place: Place, what: What, position: Position) -> Held {
        Held { seq: place.seq, epoch: place.epoch, what, position, before: NO_EVENT }
    }
}

impl Device {
    fn new(at: At) -> Device {
        Device {
            at,
            held: Vec::new(),
            removed: Vec::new(),
            cursor: None,
            cursor_at: Position::default(),
            whole: true,
            began_at: Position::default(),
            acked: Place::START,
            acked_at: Position::default(),
            acked_top: Place::START,
            opening: NO_OPENING,
            online_at: Position::default(),
            last_opening: NO_OPENING,
            came_from: None,
            went_on: Vec::new(),
            windows: Vec::new(),
            top_send_no: 0,
            end: None,
            forgot: None,
            resets: Vec::new(),
            may_repeat: false,
            last_file: 0,
        }
    }

    /// What it said that it holds when all was at rest.
    pub fn settled(&self) -> Option<Settled> {
        self.end.filter(|end| end.at_rest)
    }

    pub fn held_at(&self, seq: u64) -> Option<&Held> {
        let at = self.held.binary_search_by_key(&seq, |held| held.seq).ok()?;
        self.held.get(at)
    }
}
