//! Every limit of the protocol. protocol-spec.md lists them; a test compares.

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: $type = $value;)*

        /// All of them, by name.
        pub const ALL: &[(&str, u64)] = &[$((stringify!($name), $value as u64),)*];
    };
}

limits! {
    /// Longest length prefix of a frame, in bytes.
    MAX_LENGTH_BYTES: usize = 4;
    /// Largest frame a connection may send before it is a session: kind byte and body, in bytes.
    MAX_OPENING_FRAME_BYTES: usize = 4 * 1024;
    /// Largest frame of a session, in bytes.
    MAX_FRAME_BYTES: usize = 64 * 1024;
    /// Largest frame of an operator and of the server, in bytes.
    MAX_LARGE_FRAME_BYTES: usize = 256 * 1024;
    /// Largest encoded content of a message, in bytes.
    MAX_CONTENT_BYTES: usize = 32 * 1024;
    /// A send number is at most this far above the lowest without a final answer.
    MAX_SEND_SPAN: u64 = 63;
    /// Most requests of one connection that may be without an answer.
    MAX_REQUESTS_IN_FLIGHT: usize = 16;
    /// Most messages of one page of history.
    MAX_HISTORY_PAGE: u32 = 200;
    /// Most names of one CREATE_USERS.
    MAX_CREATE_USERS: usize = 1_000;
    /// Shortest and longest user name, in characters of its normal form.
    MIN_NAME_CHARS: usize = 3;
    MAX_NAME_CHARS: usize = 32;
    /// Shortest and longest password, in bytes.
    MIN_PASSWORD_BYTES: usize = 8;
    MAX_PASSWORD_BYTES: usize = 256;
    /// Most devices that a user may ever open.
    MAX_DEVICES: u32 = 1_000;
    /// Longest session token, in bytes.
    MAX_TOKEN_BYTES: usize = 128;
    /// Longest name of a client program or a platform, in bytes.
    MAX_CLIENT_NAME_BYTES: usize = 64;
    /// Range in which the server chooses the heartbeat, in seconds.
    MIN_HEARTBEAT_S: u32 = 20;
    MAX_HEARTBEAT_S: u32 = 15 * 60;
    /// The most a client may let the server send beyond its cursor: events, and bytes of them.
    MAX_WINDOW_EVENTS: u32 = 4_096;
    MAX_WINDOW_BYTES: u32 = 1024 * 1024;
    /// The least that makes progress certain.
    MIN_WINDOW_EVENTS: u32 = 1;
    MIN_WINDOW_BYTES: u32 = 64 * 1024;
    /// A cursor is acknowledged at the latest after so many events, or so many milliseconds.
    ACK_EVERY_EVENTS: u64 = 32;
    ACK_EVERY_MS: u64 = 1_000;
    /// Most frames of a connection in a second that change nothing; then RATE_LIMITED.
    MAX_FRUITLESS_FRAMES: u16 = 512;
    /// A refused opener counts as so many of them.
    OPENER_FRUITLESS_FRAMES: u16 = 64;
    /// A connection has this long to become a session, in milliseconds.
    OPENING_TIMEOUT_MS: u64 = 10_000;
    /// A peer that is silent for this many heartbeats, in halves, is gone: 1.5 heartbeats.
    SILENCE_HALF_HEARTBEATS: u64 = 3;
}

const _: () = assert!(MAX_OPENING_FRAME_BYTES < MAX_FRAME_BYTES);
const _: () = assert!(MAX_FRAME_BYTES < MAX_LARGE_FRAME_BYTES);
const _: () = assert!(MAX_LARGE_FRAME_BYTES < 1 << (7 * MAX_LENGTH_BYTES));
const _: () = assert!(MAX_CONTENT_BYTES * 2 <= MAX_FRAME_BYTES);
// An event of the largest content always fits what a client lets the server send.
const _: () = assert!(MAX_CONTENT_BYTES < MIN_WINDOW_BYTES as usize);
const _: () = assert!(MAX_SEND_SPAN < crate::SendWindow::WIDTH);
// A client that goes back twice a second with all that may be in flight is far from it.
const _: () = assert!(4 * (MAX_SEND_SPAN as usize + 1) <= MAX_FRUITLESS_FRAMES as usize);
const _: () = assert!(
    MAX_NAME_CHARS * 4 + MAX_PASSWORD_BYTES + MAX_CLIENT_NAME_BYTES < MAX_OPENING_FRAME_BYTES
);
