//! What stands in a row: the bytes of each kind, written and read in one place. Reading answers
//! `None` for bytes that are no such row.

mod account;
mod inbox;
mod message;

pub use account::{DeviceRecord, UserRow, decode_cursor, encode_cursor};
pub use inbox::{Entry, InboxRow, encode_inbox_row, entries};
pub use message::{MessageRow, encode_message};

pub use window::WindowRow;
mod window;
