//! Users and devices: made, opened, revoked.

use crate::{
    Family, ReadError, Rows,
    backend::Reads,
    layout::{self, DevicePart, MetaKey},
    rows::{DeviceRecord, UserRow},
};
use starling_codec::{
    DeviceId, Epoch, EpochTag, ErrorCode, Outcome, UserDraft, UserGrant, UserId,
    limits::MAX_DEVICES, serial::first_serial,
};
use std::{collections::BTreeMap, ops::ControlFlow};

/// The device that a user is made with.
const FIRST_DEVICE: DeviceId = DeviceId(1);

/// Accounts change seldom, so nothing is remembered of them but what the batch being built has
/// written: later commands of the batch must see it.
#[derive(Debug)]
pub struct Accounts {
    /// The highest user that was given.
    last_user: u32,
    /// What devices begin with that are made in this opening.
    first_serial: u32,
    fresh: BTreeMap<(Family, Vec<u8>), Vec<u8>>,
}

impl Accounts {
    pub fn new(epoch: Epoch, reads: Reads<'_>) -> Result<Accounts, ReadError> {
        let last_user = reads.get(Family::Meta, &MetaKey::LastUser.bytes(), decode_user)?;
        let last_user = last_user.map_or(0, |user| user.0);
        let tag = reads.get(Family::Meta, &MetaKey::Epoch(epoch).bytes(), decode_tag)?;
        let tag = tag.ok_or_else(|| ReadError::Corrupt("an epoch without its row".to_owned()))?;
        Ok(Accounts { last_user, first_serial: first_serial(tag), fresh: BTreeMap::new() })
    }

    /// Moves what the batch changed to its rows.
    pub fn write(&mut self, rows: &mut Rows) {
        for ((family, key), value) in std::mem::take(&mut self.fresh) {
            rows.put(family, &key, |out| out.extend_from_slice(&value));
        }
    }

    pub fn create_users(
        &mut self,
        reads: Reads<'_>,
        drafts: Vec<UserDraft>,
        time_ms: u64,
    ) -> Result<Outcome, ReadError> {
        if drafts.len() as u64 > u64::from(UserId::MAX.0 - self.last_user) {
            return Ok(Outcome::Refused(ErrorCode::UserLimit));
        }
        let mut grants = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let name_key = layout::name_key(&draft.name);
            let grant = match self.get(reads, Family::Name, &name_key, decode_user)? {
                Some(user) => self.grant_of(reads, user, FIRST_DEVICE)?,
                None => Some(self.create_user(name_key, draft, time_ms)),
            };
            match grant {
                Some(grant) => grants.push(grant),
                None => return Err(ReadError::Corrupt("a name without its user".to_owned())),
            }
        }
        Ok(Outcome::Users(grants))
    }

    fn create_user(&mut self, name_key: Vec<u8>, draft: UserDraft, time_ms: u64) -> UserGrant {
        self.last_user += 1;
        let user = UserId(self.last_user);
        let UserDraft { name, password_hash, platform } = draft;
        let number = user.0.to_le_bytes().to_vec();
        self.fresh.insert((Family::Name, name_key), number.clone());
        self.fresh.insert((Family::Meta, MetaKey::LastUser.bytes().to_vec()), number);
        self.put_user(user, &UserRow { name, password_hash, time_ms });
        let serial = self.first_serial;
        let record = DeviceRecord { serial, platform, time_ms };
        self.put_device(user, FIRST_DEVICE, &record);
        UserGrant { user, device: FIRST_DEVICE, serial, created: true }
    }

    pub fn open_device(
        &mut self,
        reads: Reads<'_>,
        user: UserId,
        device: Option<DeviceId>,
        platform: String,
        time_ms: u64,
    ) -> Result<Outcome, ReadError> {
        let devices = self.devices(reads, user)?;
        // Every user is made with a device.
        let Some((last, _)) = devices.last_key_value() else {
            return Ok(Outcome::Refused(ErrorCode::UnknownUser));
        };
        // A device that this store does not know (it was restored from an older backup) gets a
        // new number.
        let known = device.and_then(|device| Some((device, devices.get(&device)?.serial + 1)));
        let (device, serial) = match known {
            Some(known) => known,
            None if last.0 >= MAX_DEVICES => {
                return Ok(Outcome::Refused(ErrorCode::DeviceLimit));
            }
            None => (DeviceId(last.0 + 1), self.first_serial),
        };
        self.put_device(user, device, &DeviceRecord { serial, platform, time_ms });
        Ok(Outcome::Granted(UserGrant { user, device, serial, created: known.is_none() }))
    }

    pub fn set_password(
        &mut self,
        reads: Reads<'_>,
        user: UserId,
        keep: DeviceId,
        password_hash: String,
    ) -> Result<Outcome, ReadError> {
        let row = self.get(reads, Family::User, &layout::user_key(user), UserRow::decode)?;
        let devices = self.devices(reads, user)?;
        let (Some(row), true) = (row, devices.contains_key(&keep)) else {
            return Ok(Outcome::Refused(ErrorCode::UnknownUser));
        };
        self.put_user(user, &UserRow { password_hash: Some(password_hash), ..row });
        let mut serial = self.first_serial;
        for (device, mut record) in devices {
            record.serial += 1;
            if device == keep {
                serial = record.serial;
            }
            self.put_device(user, device, &record);
        }
        Ok(Outcome::Granted(UserGrant { user, device: keep, serial, created: false }))
    }

    pub fn revoke(
        &mut self,
        reads: Reads<'_>,
        user: UserId,
        device: DeviceId,
    ) -> Result<Outcome, ReadError> {
        let Some(mut record) = self.device(reads, user, device)? else {
            return Ok(Outcome::Refused(ErrorCode::UnknownUser));
        };
        record.serial += 1;
        self.put_device(user, device, &record);
        Ok(Outcome::Done)
    }

    fn grant_of(
        &self,
        reads: Reads<'_>,
        user: UserId,
        device: DeviceId,
    ) -> Result<Option<UserGrant>, ReadError> {
        let record = self.device(reads, user, device)?;
        Ok(record.map(|DeviceRecord { serial, .. }| UserGrant {
            user,
            device,
            serial,
            created: false,
        }))
    }

    fn device(
        &self,
        reads: Reads<'_>,
        user: UserId,
        device: DeviceId,
    ) -> Result<Option<DeviceRecord>, ReadError> {
        let key = layout::device_key(user, device, DevicePart::Record);
        self.get(reads, Family::Device, &key, DeviceRecord::decode)
    }

    /// All devices of a user, as the store and the batch being built have them.
    fn devices(
        &self,
        reads: Reads<'_>,
        user: UserId,
    ) -> Result<BTreeMap<DeviceId, DeviceRecord>, ReadError> {
        let mut devices = BTreeMap::new();
        let mut take = |key: &[u8], value: &[u8]| {
            let (device, part) = layout::device_of(key)?;
            if part == DevicePart::Record {
                devices.insert(device, DeviceRecord::decode(value)?);
            }
            Some(ControlFlow::Continue(()))
        };
        let from = layout::user_key(user);
        let end = layout::after_prefix(u64::from(user.0));
        reads.scan(Family::Device, &from, &end, &mut take)?;
        let fresh = (Family::Device, from.to_vec())..(Family::Device, end.to_vec());
        for ((_, key), value) in self.fresh.range(fresh) {
            // What was encoded in this batch decodes.
            take(key, value);
        }
        Ok(devices)
    }

    fn get<T>(
        &self,
        reads: Reads<'_>,
        family: Family,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, ReadError> {
        match self.fresh.get(&(family, key.to_vec())) {
            Some(value) => Ok(decode(value)),
            None => reads.get(family, key, decode),
        }
    }

    fn put_user(&mut self, user: UserId, row: &UserRow) {
        let mut value = Vec::new();
        row.encode(&mut value);
        self.fresh.insert((Family::User, layout::user_key(user).to_vec()), value);
    }

    fn put_device(&mut self, user: UserId, device: DeviceId, record: &DeviceRecord) {
        let mut value = Vec::new();
        record.encode(&mut value);
        let key = layout::device_key(user, device, DevicePart::Record);
        self.fresh.insert((Family::Device, key.to_vec()), value);
    }
}

/// A user's number as a name, or the last one given, is kept.
pub fn decode_user(row: &[u8]) -> Option<UserId> {
    UserId::from_wire(u32::from_le_bytes(row.try_into().ok()?))
}

/// The tag of an epoch, as its row has it.
pub fn decode_tag(row: &[u8]) -> Option<EpochTag> {
    Some(EpochTag(u64::from_le_bytes(row.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_no_user_has_is_damage() {
        for user in [UserId(1), UserId::MAX] {
            assert_eq!(decode_user(&user.0.to_le_bytes()), Some(user));
        }
        for number in [0, UserId::MAX.0 + 1, u32::MAX] {
            assert_eq!(decode_user(&number.to_le_bytes()), None, "{number}");
        }
    }
}
