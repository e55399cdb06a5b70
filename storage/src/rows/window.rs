//! A device's send window as it was at one place of the user's inbox. A closed one is exact until
//! it is written again; after an open one the device may have sent more, in the same epoch.

use crate::varint::{self, Bytes};
use starling_codec::{Epoch, Place, SendNo, SendWindow};

/// The window of a device, some 20 to 40 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowRow {
    pub open: bool,
    /// Head of the user's inbox when it was written.
    pub as_of: Place,
    pub window: SendWindow,
    /// Seq in the user's inbox of the device's last own message; 0: there is none.
    pub last_own: u64,
}

impl WindowRow {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.open));
        varint::put(out, u64::from(self.as_of.epoch.0));
        varint::put(out, self.as_of.seq);
        varint::put(out, self.last_own);
        varint::put(out, self.window.highest().0);
        out.extend_from_slice(&self.window.bitmap().to_le_bytes());
    }

    pub fn decode(row: &[u8]) -> Option<WindowRow> {
        let mut bytes = Bytes(row);
        let open = bytes.byte()? != 0;
        let epoch = Epoch(bytes.varint_u32()?);
        let as_of = Place::new(bytes.varint()?, epoch);
        let last_own = bytes.varint()?;
        let window = SendWindow::from_parts(SendNo(bytes.varint()?), bytes.u64()?);
        Some(WindowRow { open, as_of, window, last_own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_comes_back_in_40_bytes() {
        let window = WindowRow {
            open: true,
            as_of: Place::new(1 << 34, Epoch(300)),
            window: SendWindow::from_parts(SendNo(1 << 34), u64::MAX),
            last_own: (1 << 34) - 1,
        };
        let mut row = Vec::new();
        window.encode(&mut row);
        assert!(row.len() <= 40);
        assert_eq!(WindowRow::decode(&row), Some(window));
        assert_eq!(WindowRow::decode(&row[..row.len() - 1]), None);
    }
}
