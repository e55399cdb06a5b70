//! Users and devices.

use crate::varint::{self, Bytes};
use starling_codec::{Cursor, Epoch, Place};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// In normal form.
    pub name: String,
    /// A PHC string; `None`: there is no password.
    pub password_hash: Option<String>,
    /// Unix milliseconds of her making.
    pub time_ms: u64,
}

impl UserRow {
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.time_ms);
        varint::put_sized(out, self.name.as_bytes());
        // Empty is none: a PHC string never is.
        varint::put_sized(out, self.password_hash.as_deref().unwrap_or_default().as_bytes());
    }

    pub fn decode(row: &[u8]) -> Option<UserRow> {
        let mut bytes = Bytes(row);
        let time_ms = bytes.varint()?;
        let name = bytes.text()?;
        let password_hash = Some(bytes.text()?).filter(|hash| !hash.is_empty());
        Some(UserRow { name, password_hash, time_ms })
    }
}

/// A device: what changes at a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Which tokens are good: see [`starling_codec::serial`].
    pub serial: u32,
    pub platform: String,
    /// Unix milliseconds of the last login.
    pub time_ms: u64,
}

impl DeviceRecord {
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, u64::from(self.serial));
        varint::put(out, self.time_ms);
        varint::put_sized(out, self.platform.as_bytes());
    }

    pub fn decode(row: &[u8]) -> Option<DeviceRecord> {
        let mut bytes = Bytes(row);
        // One that cannot be raised was never given.
        let serial = bytes.varint_u32().filter(|serial| *serial < u32::MAX)?;
        let time_ms = bytes.varint()?;
        Some(DeviceRecord { serial, platform: bytes.text()?, time_ms })
    }
}

/// Appends a device's cursor.
pub fn encode_cursor(cursor: Cursor, out: &mut Vec<u8>) {
    varint::put(out, u64::from(cursor.epoch.0));
    varint::put(out, cursor.seq);
}

pub fn decode_cursor(row: &[u8]) -> Option<Cursor> {
    let mut bytes = Bytes(row);
    let epoch = Epoch(bytes.varint_u32()?);
    Some(Place::new(bytes.varint()?, epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_come_back() {
        for password_hash in [None, Some("$argon2id$...".to_owned())] {
            let user = UserRow { name: "ada".to_owned(), password_hash, time_ms: 17 };
            let mut row = Vec::new();
            user.encode(&mut row);
            assert_eq!(UserRow::decode(&row), Some(user));
        }
        let device = DeviceRecord { serial: 3, platform: "linux".to_owned(), time_ms: 99 };
        let mut row = Vec::new();
        device.encode(&mut row);
        assert_eq!(DeviceRecord::decode(&row), Some(device.clone()));
        assert_eq!(DeviceRecord::decode(&row[..2]), None);
        let mut row = Vec::new();
        DeviceRecord { serial: u32::MAX, ..device }.encode(&mut row);
        assert_eq!(DeviceRecord::decode(&row), None);
        let mut row = Vec::new();
        encode_cursor(Place::new(1 << 40, Epoch(9)), &mut row);
        assert_eq!(decode_cursor(&row), Some(Place::new(1 << 40, Epoch(9))));
    }
}
