//! What is proved of a history, each under one name.

use std::fmt;

macro_rules! properties {
    ($($(#[doc = $promise:literal])+ $variant:ident = $name:literal,)+) => {
        /// What must hold of a history.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Property {
            $($(#[doc = $promise])+ $variant,)+
        }

        impl Property {
            pub const ALL: &[Property] = &[$(Property::$variant),+];

            /// Its name, as docs/delivery-contract.md and the command use it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Property::$variant => $name,)+
                }
            }

            /// What it says, in a sentence.
            pub fn promise(self) -> &'static str {
                match self {
                    $(Property::$variant => concat!($($promise),+).trim_ascii(),)+
                }
            }
        }
    };
}

properties! {
    /// What was acknowledged or shown to anybody is not lost, but by a fault that its class does
    /// not survive.
    Kept = "kept",
    /// A message that somebody wrote is stored at most once.
    Once = "once",
    /// A place in a conversation has one message, the same for everybody.
    OneOrder = "one-order",
    /// Messages of one device to one conversation have their places in the order of their numbers.
    WritingOrder = "writing-order",
    /// A device sees the messages of a conversation one after another, without a gap.
    ConversationDense = "conversation-dense",
    /// A device applies the events of its inbox one after another: each joins on to the one
    /// before it.
    InboxDense = "inbox-dense",
    /// A place in an inbox has one event, the same for every device of its user.
    OneInbox = "one-inbox",
    /// What is told of a message is the same wherever it is told.
    SameMessage = "same-message",
    /// What arrives is what was written, by the device that wrote it.
    AsWritten = "as-written",
    /// The class reached is at least the class asked for.
    Class = "class",
    /// A device acknowledges what it has applied, and never takes an acknowledgement back.
    AcksRise = "acks-rise",
    /// A receipt never falls below an earlier one.
    ReceiptsRise = "receipts-rise",
    /// A receipt tells of messages that a device of that user has acknowledged.
    ReceiptsTrue = "receipts-true",
    /// Whether a number was applied has one answer, in whatever way it is told.
    Window = "window",
    /// A rewind removes what was lost, and nothing else.
    Rewind = "rewind",
    /// Epochs rise, each has one tag, and a device whose epoch is gone is reset.
    Epochs = "epochs",
    /// At the end all devices of a user hold the same.
    Converge = "converge",
    /// At the end every message that was written has a final answer.
    Answered = "answered",
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
