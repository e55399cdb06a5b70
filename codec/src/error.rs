//! The error registry. The wire code, who is to blame and whether to try again all follow from
//! the variant.

use std::fmt;

/// The class of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client broke the protocol.
    Client,
    /// Who the client is, or is not.
    Auth,
    /// Forbidden by a rule.
    Policy,
    /// Clashes with what is already there.
    Conflict,
    /// Too much, or too fast.
    Quota,
    /// The server cannot just now.
    Overload,
    /// The server failed.
    Server,
}

impl Blame {
    /// Its name in protocol-spec.md.
    pub fn name(self) -> &'static str {
        match self {
            Blame::Client => "client fault",
            Blame::Auth => "auth",
            Blame::Policy => "policy",
            Blame::Conflict => "conflict",
            Blame::Quota => "quota",
            Blame::Overload => "overload",
            Blame::Server => "server fault",
        }
    }
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $wire:literal, $blame:ident, $retryable:literal;)*) => {
        /// Why something was refused or closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[$doc])* $name = $number,)* }

        impl ErrorCode {
            /// All codes, ascending.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            pub fn from_number(number: u32) -> Option<ErrorCode> {
                match number { $($number => Some(ErrorCode::$name),)* _ => None }
            }

            /// Its name in protocol-spec.md.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => $wire,)* }
            }

            pub fn blame(self) -> Blame {
                match self { $(ErrorCode::$name => Blame::$blame,)* }
            }

            /// The same request may succeed later, unchanged.
            pub fn retryable(self) -> bool {
                match self { $(ErrorCode::$name => $retryable,)* }
            }
        }
    };
}

errors! {
    /// Not a frame, or not the body of its kind.
    BadFrame = 1, "BAD_FRAME", Client, false;
    FrameTooLarge = 2, "FRAME_TOO_LARGE", Client, false;
    /// The first frame does not begin as Starling's do.
    BadMagic = 3, "BAD_MAGIC", Client, false;
    /// A kind that the state of the connection does not allow.
    WrongState = 4, "WRONG_STATE", Client, false;
    /// A field has a value it cannot have.
    BadField = 5, "BAD_FIELD", Client, false;
    /// A send number more than 63 above `oldest`, or below it.
    SendSpan = 6, "SEND_SPAN", Client, false;
    /// The peer was silent for longer than the heartbeat allows.
    Silent = 7, "SILENT", Client, true;
    /// The connection did not become a session in time.
    OpeningTimeout = 8, "OPENING_TIMEOUT", Client, true;

    VersionUnsupported = 10, "VERSION_UNSUPPORTED", Policy, false;

    TokenMalformed = 20, "TOKEN_MALFORMED", Auth, false;
    TokenUnknownKey = 21, "TOKEN_UNKNOWN_KEY", Auth, false;
    TokenForged = 22, "TOKEN_FORGED", Auth, false;
    TokenExpired = 23, "TOKEN_EXPIRED", Auth, false;
    TokenRevoked = 24, "TOKEN_REVOKED", Auth, false;
    /// The name is unknown or the password wrong; which of the two is not told.
    WrongPassword = 25, "WRONG_PASSWORD", Auth, false;
    WrongOperatorKey = 26, "WRONG_OPERATOR_KEY", Auth, false;
    /// The device logged out.
    LoggedOut = 27, "LOGGED_OUT", Auth, false;

    NameTaken = 30, "NAME_TAKEN", Conflict, false;
    /// A newer connection of the same device has taken over.
    Replaced = 31, "REPLACED", Conflict, false;
    /// The send number was used for another message.
    SendConflict = 32, "SEND_CONFLICT", Conflict, false;
    /// The send number is below the window: whether it arrived is no longer known here.
    SendStale = 33, "SEND_STALE", Conflict, false;

    NameInvalid = 40, "NAME_INVALID", Policy, false;
    PasswordInvalid = 41, "PASSWORD_INVALID", Policy, false;
    ContentTooLarge = 42, "CONTENT_TOO_LARGE", Policy, false;
    ContentEmpty = 43, "CONTENT_EMPTY", Policy, false;
    UnknownUser = 44, "UNKNOWN_USER", Policy, false;
    /// No such conversation, or not a member of it.
    UnknownConversation = 45, "UNKNOWN_CONVERSATION", Policy, false;
    /// This server cannot reach the durability asked for.
    ClassUnavailable = 46, "CLASS_UNAVAILABLE", Policy, false;

    RateLimited = 50, "RATE_LIMITED", Quota, true;
    TooManyRequests = 51, "TOO_MANY_REQUESTS", Quota, true;
    /// Too many wrong passwords: later ones wait.
    LoginSlowed = 52, "LOGIN_SLOWED", Quota, true;
    UserLimit = 53, "USER_LIMIT", Quota, false;
    DeviceLimit = 54, "DEVICE_LIMIT", Quota, false;

    Overload = 60, "OVERLOAD", Overload, true;
    /// The server is going away.
    Draining = 61, "DRAINING", Overload, true;
    /// An earlier number of this device was refused retryably, so this one is too.
    SendOutOfOrder = 62, "SEND_OUT_OF_ORDER", Overload, true;
    /// The disk is nearly full.
    DiskFull = 63, "DISK_FULL", Overload, true;

    /// The store failed in between: keep the number and repeat after reconnecting.
    UnknownOutcome = 70, "UNKNOWN_OUTCOME", Server, true;
    Internal = 71, "INTERNAL", Server, true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for ErrorCode {}
