//! The kinds of frames and their bodies: the table of the protocol.

use crate::{ErrorCode, Frame, append_frame, wire};

/// Who may send a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Client,
    Server,
    Both,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident($body:ty) = $number:literal, $wire:literal, $direction:ident;)*) => {
        /// What a frame is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// All kinds, ascending.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The kind of a number; `None` for one that this version does not know.
            pub fn from_number(number: u8) -> Option<Kind> {
                match number { $($number => Some(Kind::$name),)* _ => None }
            }

            /// Its name in protocol-spec.md.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$name => $wire,)* }
            }

            pub fn direction(self) -> Direction {
                match self { $(Kind::$name => Direction::$direction,)* }
            }
        }

        /// A frame with its body decoded: for whoever wants any kind, as tests and tools do.
        /// Who expects one kind takes [`Frame::body`].
        #[derive(Clone, Debug, PartialEq)]
        pub enum Body { $($name($body),)* }

        impl Body {
            /// Error: `BadFrame` when the body is not the message of its kind.
            pub fn decode(frame: Frame<'_>) -> Result<Body, ErrorCode> {
                match frame.kind {
                    $(Kind::$name if !Kind::$name.has_body() => Ok(Body::$name(Default::default())),
                    Kind::$name => frame.body().map(Body::$name),)*
                }
            }

            pub fn kind(&self) -> Kind {
                match self { $(Body::$name(_) => Kind::$name,)* }
            }

            /// Appends the whole frame.
            pub fn append(&self, out: &mut Vec<u8>) {
                match self { $(Body::$name(body) => append_frame(out, Kind::$name, body),)* }
            }
        }
    };
}

kinds! {
    /// Asks for a PONG; without a body, so two bytes in all.
    Ping(()) = 0x01, "PING", Both;
    /// Answers a PING; without a body.
    Pong(()) = 0x02, "PONG", Both;
    /// Opens a session with a token.
    Hello(wire::Hello) = 0x03, "HELLO", Client;
    /// The session is open.
    Welcome(wire::Welcome) = 0x04, "WELCOME", Server;
    /// The device goes offline; the server closes.
    Dishello(()) = 0x05, "DISHELLO", Client;
    /// The server closes, and why.
    Close(wire::Close) = 0x06, "CLOSE", Server;

    /// Makes a user with a password.
    Register(wire::Register) = 0x08, "REGISTER", Client;
    /// Proves a password.
    Login(wire::Login) = 0x09, "LOGIN", Client;
    /// A token.
    Grant(wire::Grant) = 0x0A, "GRANT", Server;
    ChangePassword(wire::ChangePassword) = 0x0B, "CHANGE_PASSWORD", Client;
    /// Asks for a fresh token.
    Refresh(wire::Refresh) = 0x0C, "REFRESH", Client;
    /// Revokes the token of this device.
    Logout(wire::Logout) = 0x0D, "LOGOUT", Client;

    Send(wire::Send) = 0x10, "SEND", Client;
    SendAck(wire::SendAck) = 0x11, "SEND_ACK", Server;
    SendRefused(wire::SendRefused) = 0x12, "SEND_REFUSED", Server;
    /// Part of the inbox, in order.
    Events(wire::Events) = 0x13, "EVENTS", Server;
    /// How far the device has applied its inbox.
    Ack(wire::Ack) = 0x14, "ACK", Client;
    /// The device lacks what comes after a place.
    Sync(wire::Sync) = 0x15, "SYNC", Client;

    History(wire::History) = 0x20, "HISTORY", Client;
    HistoryPage(wire::HistoryPage) = 0x21, "HISTORY_PAGE", Server;
    /// A name to a user, or back.
    Resolve(wire::Resolve) = 0x22, "RESOLVE", Client;
    Resolved(wire::Resolved) = 0x23, "RESOLVED", Server;
    /// A request succeeded and has nothing more to say.
    Done(wire::Done) = 0x24, "DONE", Server;
    /// A request or an opening was refused.
    Refused(wire::Refused) = 0x25, "REFUSED", Server;

    /// Opens a connection of the operator.
    Operator(wire::Operator) = 0x30, "OPERATOR", Client;
    CreateUsers(wire::CreateUsers) = 0x31, "CREATE_USERS", Client;
    CreatedUsers(wire::CreatedUsers) = 0x32, "CREATED_USERS", Server;
    Stats(wire::Stats) = 0x33, "STATS", Client;
    StatsPage(wire::StatsPage) = 0x34, "STATS_PAGE", Server;
}

impl Kind {
    /// Whether the kind has a body. What stands where there should be none is not looked at.
    pub fn has_body(self) -> bool {
        !matches!(self, Kind::Ping | Kind::Pong | Kind::Dishello)
    }

    /// Set in the kind byte of a compressed frame. Version 1 compresses nothing.
    pub const COMPRESSED: u8 = 0x80;
}
