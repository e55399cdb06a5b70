//! Defects that a test switches on, one at a time, to see that the checks find them.
//!
//! Without the feature `planted-faults` no defect can be switched on, and the code has none of
//! this in it. Only the test that plants them turns the feature on; no build of the workspace
//! does. It stands in codec because all that may be defective depends on codec.

/// A defect that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The door lets later sends in after it refused one.
    DoorForgetsOrder,
    /// A receipt names one message more than was passed.
    ReceiptRunsAhead,
    /// An acknowledgement says durable, whatever was reached.
    AckFlatters,
    /// A rewind goes back to the start.
    RewindTooFar,
    /// An event is passed over when it could be pushed; the client asks for it.
    EventPassedOver,
    /// A repeated send is stored again.
    RepeatStored,
    /// A conversation's numbers skip one.
    ConversationSkips,
    /// Two messages of a conversation get one number.
    ConversationStands,
    /// The last byte of a content is lost on the way.
    ContentCut,
    /// A batch is announced before its sync.
    AnnouncedUnsynced,
    /// An opening takes the number of the last one.
    EpochStands,
    /// A place is compared by its seq alone.
    EpochIgnored,
    /// A client keeps what it is told to remove.
    RewindIgnored,
    /// A client in doubt numbers anew before it has caught up.
    NumberedAnewTooEarly,
    /// A client acknowledges what it has only heard of.
    AcksAhead,
    /// A client's store keeps what it is told to remove.
    StoreKeeps,
}

impl Fault {
    pub const ALL: &[Fault] = &[
        Fault::DoorForgetsOrder,
        Fault::ReceiptRunsAhead,
        Fault::AckFlatters,
        Fault::RewindTooFar,
        Fault::EventPassedOver,
        Fault::RepeatStored,
        Fault::ConversationSkips,
        Fault::ConversationStands,
        Fault::ContentCut,
        Fault::AnnouncedUnsynced,
        Fault::EpochStands,
        Fault::EpochIgnored,
        Fault::RewindIgnored,
        Fault::NumberedAnewTooEarly,
        Fault::AcksAhead,
        Fault::StoreKeeps,
    ];
}

/// Whether the code is to have a defect.
#[cfg(not(feature = "planted-faults"))]
#[inline(always)]
pub const fn is_planted(_: Fault) -> bool {
    false
}

#[cfg(feature = "planted-faults")]
pub use planting::{Planted, is_planted, plant};

#[cfg(feature = "planted-faults")]
mod planting {
    use super::Fault;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// The defect is there, on this thread, until this is dropped.
    #[derive(Debug)]
    pub struct Planted(());

    pub fn plant(fault: Fault) -> Planted {
        PLANTED.set(Some(fault));
        Planted(())
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }

    pub fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}
