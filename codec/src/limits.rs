//! Every limit of the protocol. protocol-spec.md lists them; a test compares.

/// Longest length prefix of a frame, in bytes.
pub const MAX_LENGTH_BYTES: usize = 4;
/// Largest frame a connection may send before it is a session: kind byte and body, in bytes.
pub const MAX_OPENING_FRAME_BYTES: usize = 4 * 1024;
/// Largest frame of a session, in bytes.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Largest frame of an operator and of the server, in bytes.
pub const MAX_LARGE_FRAME_BYTES: usize = 256 * 1024;
/// Largest encoded content of a message, in bytes.
pub const MAX_CONTENT_BYTES: usize = 32 * 1024;
/// A send number is at most this far above the lowest without a final answer.
pub const MAX_SEND_SPAN: u64 = 63;
/// Most requests of one connection that may be without an answer.
pub const MAX_REQUESTS_IN_FLIGHT: usize = 16;
/// Most messages of one page of history.
pub const MAX_HISTORY_PAGE: u32 = 200;
/// Most names of one CREATE_USERS.
pub const MAX_CREATE_USERS: usize = 1_000;
/// Shortest and longest user name, in characters of its normal form.
pub const MIN_NAME_CHARS: usize = 3;
pub const MAX_NAME_CHARS: usize = 32;
/// Shortest and longest password, in bytes.
pub const MIN_PASSWORD_BYTES: usize = 8;
pub const MAX_PASSWORD_BYTES: usize = 256;
/// Longest session token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 128;
/// Longest name of a client program or a platform, in bytes.
pub const MAX_CLIENT_NAME_BYTES: usize = 64;
/// Range in which the server chooses the heartbeat, in seconds.
pub const MIN_HEARTBEAT_S: u32 = 20;
pub const MAX_HEARTBEAT_S: u32 = 15 * 60;
/// The most a client may let the server send beyond its cursor: events, and bytes of them.
pub const MAX_WINDOW_EVENTS: u32 = 4_096;
pub const MAX_WINDOW_BYTES: u32 = 1024 * 1024;
/// The least that makes progress certain.
pub const MIN_WINDOW_EVENTS: u32 = 1;
pub const MIN_WINDOW_BYTES: u32 = 64 * 1024;
/// A cursor is acknowledged at the latest after so many events, or so many milliseconds.
pub const ACK_EVERY_EVENTS: u64 = 32;
pub const ACK_EVERY_MS: u64 = 1_000;
/// A connection has this long to become a session, in milliseconds.
pub const OPENING_TIMEOUT_MS: u64 = 10_000;
/// A peer that is silent for this many heartbeats, in halves, is gone: 1.5 heartbeats.
pub const SILENCE_HALF_HEARTBEATS: u64 = 3;

const _: () = assert!(MAX_OPENING_FRAME_BYTES < MAX_FRAME_BYTES);
const _: () = assert!(MAX_FRAME_BYTES < MAX_LARGE_FRAME_BYTES);
const _: () = assert!(MAX_LARGE_FRAME_BYTES < 1 << (7 * MAX_LENGTH_BYTES));
const _: () = assert!(MAX_CONTENT_BYTES * 2 <= MAX_FRAME_BYTES);
// An event of the largest content always fits what a client lets the server send.
const _: () = assert!(MAX_CONTENT_BYTES < MIN_WINDOW_BYTES as usize);
const _: () = assert!(MAX_SEND_SPAN < crate::SendWindow::WIDTH);
const _: () = assert!(
    MAX_NAME_CHARS * 4 + MAX_PASSWORD_BYTES + MAX_CLIENT_NAME_BYTES < MAX_OPENING_FRAME_BYTES
);
