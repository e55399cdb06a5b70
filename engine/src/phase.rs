//! Which kind of frame is allowed in which state of a connection: the one place that knows.
//! protocol-spec.md shows it as a table; a test compares.

use starling_codec::{
    Kind,
    limits::{MAX_FRAME_BYTES, MAX_LARGE_FRAME_BYTES, MAX_OPENING_FRAME_BYTES},
};

/// The state of a connection as the protocol knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// An opener is expected: HELLO, REGISTER, LOGIN or OPERATOR. A refused one leaves it so.
    Opening,
    /// An opener is being looked at. Frames that follow it wait, unread.
    Checking,
    /// WELCOME was sent.
    Session,
    /// The operator's key was right.
    Operator,
    /// The server closes; what arrives is ignored.
    Closing,
}

impl Phase {
    pub const ALL: &'static [Phase] =
        &[Phase::Opening, Phase::Checking, Phase::Session, Phase::Operator, Phase::Closing];

    /// Its name in protocol-spec.md.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Opening => "OPENING",
            Phase::Checking => "CHECKING",
            Phase::Session => "SESSION",
            Phase::Operator => "OPERATOR",
            Phase::Closing => "CLOSING",
        }
    }

    /// Largest frame a client may send: kind byte and body, in bytes.
    pub fn max_frame_bytes(self) -> usize {
        match self {
            Phase::Opening => MAX_OPENING_FRAME_BYTES,
            Phase::Checking | Phase::Session | Phase::Closing => MAX_FRAME_BYTES,
            Phase::Operator => MAX_LARGE_FRAME_BYTES,
        }
    }
}

/// Whether a client may send `kind` in `phase`. What it may not send closes the connection with
/// WRONG_STATE. In CHECKING everything waits for the next phase and in CLOSING everything is
/// ignored, so there nothing is "allowed".
pub fn allowed(kind: Kind, phase: Phase) -> bool {
    match kind {
        Kind::Hello | Kind::Register | Kind::Login | Kind::Operator => phase == Phase::Opening,
        Kind::Ping | Kind::Pong => matches!(phase, Phase::Session | Phase::Operator),
        Kind::Dishello
        | Kind::ChangePassword
        | Kind::Refresh
        | Kind::Logout
        | Kind::Send
        | Kind::Ack
        | Kind::Sync
        | Kind::History
        | Kind::Resolve => phase == Phase::Session,
        Kind::CreateUsers | Kind::Stats => phase == Phase::Operator,
        Kind::Welcome
        | Kind::Close
        | Kind::Grant
        | Kind::SendAck
        | Kind::SendRefused
        | Kind::Events
        | Kind::HistoryPage
        | Kind::Resolved
        | Kind::Done
        | Kind::Refused
        | Kind::CreatedUsers
        | Kind::StatsPage => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_codec::Direction;

    #[test]
    fn what_only_a_server_sends_is_allowed_nowhere_and_the_rest_somewhere() {
        for &kind in Kind::ALL {
            let somewhere = Phase::ALL.iter().any(|&phase| allowed(kind, phase));
            assert_eq!(somewhere, kind.direction() != Direction::Server, "{}", kind.name());
        }
    }
}
