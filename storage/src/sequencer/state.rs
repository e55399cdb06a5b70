//! What is remembered of users and conversations, and when it must be written down.

use crate::{
    Family, Rows,
    layout::{DevicePart, device_key},
    rows::{WindowRow, encode_cursor},
};
use starling_codec::{
    Cursor, DeviceId, Place, SendWindow, UserId,
    wire::{Event, event::Kind},
};

/// An open window is written again after so many own sends,
const SENDS_PER_ROW: u32 = 64;
/// or so many inbox rows: the most that rebuilding it has to read.
const INBOX_ROWS_PER_ROW: u32 = 1_024;

/// Mark for "nothing pending".
pub const NONE: u32 = u32::MAX;

/// A user whose inbox was written to.
#[derive(Debug)]
pub struct UserState {
    /// Of the inbox, with what the batch being built adds.
    pub head: Place,
    /// The last batch that had to do with the user.
    pub batch: u64,
    /// Index of what the batch being built adds to the inbox, or [`NONE`].
    pub pending: u32,
    /// Inbox rows since the state was derived.
    pub rows: u32,
    pub devices: Vec<DeviceState>,
}

/// A device that sent or acknowledged.
#[derive(Debug)]
pub struct DeviceState {
    pub device: DeviceId,
    /// `None`: not derived yet.
    pub window: Option<WindowState>,
    /// `None`: not read yet.
    pub cursor: Option<Cursor>,
    pub cursor_changed: bool,
}

#[derive(Debug)]
pub struct WindowState {
    pub window: SendWindow,
    /// Seq in the inbox of the last own message; 0: there is none.
    pub last_own: u64,
    /// The row in the store says that more may follow.
    open: bool,
    sends_since_row: u32,
    /// [`UserState::rows`] when the row was written.
    row_at: u32,
}

impl WindowState {
    pub fn derived(row: &WindowRow, rows: u32) -> WindowState {
        WindowState {
            window: row.window,
            last_own: row.last_own,
            // Whatever the row says: it is of another loading, so the first send writes it anew.
            open: false,
            sends_since_row: 0,
            row_at: rows,
        }
    }

    /// Notes a send that was applied.
    pub fn sent(&mut self, number: starling_codec::SendNo, inbox_seq: u64) {
        self.window.apply(number);
        self.last_own = inbox_seq;
        self.sends_since_row += 1;
    }

    /// Whether the row must be written now, and if so whether as open.
    fn due(&self, rows: u32) -> Option<bool> {
        let crowded = rows - self.row_at >= INBOX_ROWS_PER_ROW;
        let sent = self.sends_since_row > 0;
        if sent && (!self.open || crowded || self.sends_since_row >= SENDS_PER_ROW) {
            Some(true)
        } else if self.open && crowded {
            // Silent for so long: the next send opens it again.
            Some(false)
        } else {
            None
        }
    }
}

impl UserState {
    pub fn derived(head: Place) -> UserState {
        UserState { head, batch: 0, pending: NONE, rows: 0, devices: Vec::new() }
    }

    /// Index of a device.
    pub fn device(&mut self, device: DeviceId) -> usize {
        match self.devices.iter().position(|known| known.device == device) {
            Some(index) => index,
            None => {
                // Most users have one: a Vec that grows by itself begins with room for four.
                self.devices.reserve_exact(1);
                self.devices.push(DeviceState {
                    device,
                    window: None,
                    cursor: None,
                    cursor_changed: false,
                });
                self.devices.len() - 1
            }
        }
    }

    /// Puts what has to be written of the user's devices after a batch.
    pub fn write_due(&mut self, user: UserId, rows: &mut Rows) {
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            if std::mem::take(&mut device.cursor_changed)
                && let Some(cursor) = device.cursor
            {
                let key = device_key(user, device.device, DevicePart::Cursor);
                rows.put(Family::Device, &key, |out| encode_cursor(cursor, out));
            }
            let due = device.window.as_ref().and_then(|window| window.due(self.rows));
            if let Some(open) = due {
                self.write_window(user, index, open, rows);
            }
        }
    }

    /// Puts the windows that are open, as closed: nothing will be remembered of them.
    pub fn write_closed(&mut self, user: UserId, rows: &mut Rows) {
        for index in 0..self.devices.len() {
            if self.devices[index].window.as_ref().is_some_and(|window| window.open) {
                self.write_window(user, index, false, rows);
            }
        }
    }

    fn write_window(&mut self, user: UserId, index: usize, open: bool, rows: &mut Rows) {
        let device = &mut self.devices[index];
        let Some(state) = &mut device.window else { return };
        state.open = open;
        state.sends_since_row = 0;
        state.row_at = self.rows;
        let row =
            WindowRow { open, as_of: self.head, window: state.window, last_own: state.last_own };
        let key = device_key(user, device.device, DevicePart::Window);
        rows.put(Family::Device, &key, |out| row.encode(out));
    }
}

/// A conversation that was written to.
#[derive(Debug)]
pub struct ConversationState {
    pub head: u64,
    pub batch: u64,
}

/// What the batch being built adds to one inbox.
#[derive(Debug, Default)]
pub struct Pending {
    pub user: UserId,
    /// Seq of its first event.
    pub first: u64,
    /// The entries, encoded.
    pub entries: Vec<u8>,
    pub events: Vec<Event>,
    /// What is told beside messages, in the order of the commands: it comes after all messages.
    pub notices: Vec<Kind>,
}
