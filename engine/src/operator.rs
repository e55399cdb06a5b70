//! The operator: who holds the key makes users in bulk and reads the counters.

use crate::{
    Effect, Engine, Identity, Now, RETRY_AFTER_MS,
    connection::State,
    opening::check_opening,
    request::Request,
    waiting::{Reply, Waiting},
};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use starling_codec::{
    Command, DeviceId, ErrorCode, Frame, Kind, Outcome, UserDraft, UserGrant,
    limits::MAX_CREATE_USERS, normal_name, wire,
};

impl Engine {
    pub(crate) fn operator(&mut self, number: u32, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let operator: wire::Operator = frame.body()?;
        check_opening(&operator.opening)?;
        // Hashes are compared, so the time it takes tells nothing of the key.
        if Sha256::digest(&operator.key).as_slice() != self.settings.operator_key_hash {
            return Err(ErrorCode::WrongOperatorKey);
        }
        self.slots.at_mut(number).state = State::Operator { requests: 0 };
        self.rearm(number);
        self.send_frame(number, Kind::Done, &wire::Done { request_id: 0 });
        Ok(())
    }

    /// Makes users without passwords. One bad name refuses them all; a name given twice is one
    /// user.
    pub(crate) fn create_users(
        &mut self,
        now: Now,
        number: u32,
        frame: Frame<'_>,
    ) -> Result<(), ErrorCode> {
        let create: wire::CreateUsers = frame.body()?;
        let request_id = create.request_id;
        if self.begin_request(number, request_id).is_none() {
            return Ok(());
        }
        if create.names.is_empty() || create.names.len() > MAX_CREATE_USERS {
            self.refuse_request(number, request_id, ErrorCode::BadField, 0);
            return Ok(());
        }
        let (drafts, order) = match drafts(&create.names) {
            Ok(drafts) => drafts,
            Err(code) => {
                self.refuse_request(number, request_id, code, 0);
                return Ok(());
            }
        };
        if let Err(code) = self.take_credit() {
            self.refuse_request(number, request_id, code, RETRY_AFTER_MS);
            return Ok(());
        }
        let lifetime_s = match create.token_lifetime_s {
            0 => self.settings.token_lifetime_s,
            lifetime_s => lifetime_s,
        };
        let expires_s = now.unix_ms / 1_000 + u64::from(lifetime_s);
        let request = Request::CreateUsers { request_id, expires_s, order };
        let origin = self.waiting.wait(Waiting::Request(self.slots.ticket(number), request));
        self.submit(origin, Command::CreateUsers { drafts, time_ms: now.unix_ms });
        Ok(())
    }

    pub(crate) fn users_created(
        &mut self,
        number: u32,
        request_id: u32,
        expires_s: u64,
        order: &[usize],
        reply: Reply,
    ) {
        let Reply::Outcome(Outcome::Users(grants)) = reply else {
            return self.refuse_reply(number, request_id, reply);
        };
        let users = order.iter().filter_map(|&index| grants.get(index));
        let users = users.map(|grant| self.created_user(grant, expires_s)).collect();
        self.end_request(number);
        let created = wire::CreatedUsers { request_id, users };
        self.send_frame(number, Kind::CreatedUsers, &created);
    }

    /// A user that was there already gets a token too, unless the store names no device of hers.
    fn created_user(&self, grant: &UserGrant, expires_s: u64) -> wire::CreatedUser {
        let UserGrant { user, device, serial, .. } = *grant;
        let token = match device {
            DeviceId(0) => Bytes::new(),
            _ => {
                let token = self.keyring.sign(Identity { user, device, serial }, expires_s);
                Bytes::copy_from_slice(&token)
            }
        };
        wire::CreatedUser { user: user.0, device: device.0, token }
    }

    pub(crate) fn stats(&mut self, number: u32, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let stats: wire::Stats = frame.body()?;
        let request_id = stats.request_id;
        if self.begin_request(number, request_id).is_some() {
            let request = Request::Stats { request_id };
            let origin = self.waiting.wait(Waiting::Request(self.slots.ticket(number), request));
            self.effects.push_back(Effect::Stats(origin));
        }
        Ok(())
    }

    pub(crate) fn stats_counted(&mut self, number: u32, request_id: u32, reply: Reply) {
        let Reply::Counters(counters) = reply else {
            return self.refuse_reply(number, request_id, reply);
        };
        self.end_request(number);
        self.send_frame(number, Kind::StatsPage, &wire::StatsPage { request_id, counters });
    }
}

/// A draft per different name, and for each name given the index of its draft.
fn drafts(names: &[String]) -> Result<(Vec<UserDraft>, Vec<usize>), ErrorCode> {
    let mut drafts = Vec::with_capacity(names.len());
    let mut order = Vec::with_capacity(names.len());
    let mut known = FxHashMap::default();
    for name in names {
        let name = normal_name(name)?;
        let index = *known.entry(name.clone()).or_insert(drafts.len());
        if index == drafts.len() {
            drafts.push(UserDraft { name, password_hash: None, platform: String::new() });
        }
        order.push(index);
    }
    Ok((drafts, order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_given_twice_is_one_user() {
        let names = ["ada", "bob", "Ada", "eve"].map(String::from);
        let (drafts, order) = drafts(&names).unwrap();
        let made: Vec<&str> = drafts.iter().map(|draft| draft.name.as_str()).collect();
        assert_eq!(made, ["ada", "bob", "eve"]);
        assert_eq!(order, [0, 1, 0, 2]);
    }
}
