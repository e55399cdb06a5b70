//! As much of codec as a lane of announcements looks at: whose an event is, and where it stands.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u32);

/// Ordered by epoch, then seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub epoch: Epoch,
    pub seq: u64,
}

#[derive(Debug, PartialEq)]
pub struct Event {
    pub seq: u64,
    pub epoch: u32,
}

#[derive(Debug, PartialEq)]
pub struct Delivery {
    pub user: UserId,
    pub events: Vec<Event>,
}

#[derive(Debug, PartialEq)]
pub enum Outcome {
    Done,
}
