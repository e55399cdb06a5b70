//! Accounts: REGISTER and LOGIN, which open no session but give a token, and a session's
//! CHANGE_PASSWORD, REFRESH and LOGOUT. Passwords are hashed elsewhere; each step of the way is a
//! state, and the reply to one leads to the next.

use crate::{
    Effect, Engine, HashDone, HashWork, Hop, Identity, Now, RETRY_AFTER_MS, Secret,
    connection::State,
    opening::check_opening,
    request::Request,
    waiting::{Reply, Waiting},
};
use bytes::Bytes;
use starling_codec::{
    Answer, Command, Credential, DeviceId, ErrorCode, Frame, Kind, Outcome, Query, Ticket,
    UserDraft, UserGrant, UserId,
    limits::{
        MAX_CLIENT_NAME_BYTES, MAX_PASSWORD_BYTES, MIN_PASSWORD_BYTES, OPENER_FRUITLESS_FRAMES,
    },
    normal_name, wire,
};

/// What is waited for, and what is known by then.
pub(crate) enum Account {
    /// REGISTER: whether the name is free.
    NameSought { name: String, password: Secret, platform: String },
    /// REGISTER: the hash of the password.
    FirstPasswordHashed { name: String, platform: String },
    /// REGISTER: the new user.
    UserMade { name: String },
    /// LOGIN: how the user proves who she is.
    CredentialSought { name: String, password: Secret, device: Option<DeviceId>, platform: String },
    /// LOGIN: whether the password is right.
    PasswordProved {
        owner: Option<UserId>,
        name: String,
        device: Option<DeviceId>,
        platform: String,
    },
    /// LOGIN: the device, new or taken again.
    DeviceOpened { name: String, taken_again: bool },
    /// LOGIN: the end of the session that the device taken again had.
    OldSessionEnded { name: String, grant: UserGrant },
    /// CHANGE_PASSWORD: how the user proves who she is.
    OwnCredentialSought { request_id: u32, old: Secret, new: Secret },
    /// CHANGE_PASSWORD: whether the old password is right.
    OldPasswordProved { request_id: u32, name: String, new: Secret },
    /// CHANGE_PASSWORD: the hash of the new one.
    NewPasswordHashed { request_id: u32, name: String },
    /// CHANGE_PASSWORD: the new serial of the device that asked.
    PasswordSet { request_id: u32, name: String },
}

/// Where a step leads.
enum Next {
    /// To another step, for which something is asked.
    Wait,
    /// To the end: a token.
    Grant(UserGrant, String),
}

/// A code and when to try again.
type Refusal = (ErrorCode, u32);

impl Account {
    /// 0 of an opener.
    fn request_id(&self) -> u32 {
        match self {
            Account::OwnCredentialSought { request_id, .. }
            | Account::OldPasswordProved { request_id, .. }
            | Account::NewPasswordHashed { request_id, .. }
            | Account::PasswordSet { request_id, .. } => *request_id,
            _ => 0,
        }
    }
}

impl Engine {
    pub(crate) fn register(
        &mut self,
        now: Now,
        number: u32,
        frame: Frame<'_>,
    ) -> Result<(), ErrorCode> {
        let register: wire::Register = frame.body()?;
        check_opening(&register.opening)?;
        check_platform(&register.platform)?;
        let password = Secret::new(register.password);
        match normal_name(&register.name)
            .and_then(|name| check_new_password(&password).map(|()| name))
        {
            Ok(name) => {
                self.start_checking(number);
                let query = Query::Credential { name: name.clone() };
                let platform = register.platform;
                let account = Account::NameSought { name, password, platform };
                self.ask_for_account(self.slots.ticket(number), account, query);
            }
            Err(code) => self.refuse_opener(now, number, (code, 0)),
        }
        Ok(())
    }

    pub(crate) fn login(
        &mut self,
        now: Now,
        number: u32,
        frame: Frame<'_>,
    ) -> Result<(), ErrorCode> {
        let login: wire::Login = frame.body()?;
        check_opening(&login.opening)?;
        check_platform(&login.platform)?;
        if login.password.len() > MAX_PASSWORD_BYTES {
            self.refuse_opener(now, number, (ErrorCode::PasswordInvalid, 0));
            return Ok(());
        }
        match normal_name(&login.name) {
            Ok(name) => {
                self.start_checking(number);
                let query = Query::Credential { name: name.clone() };
                let account = Account::CredentialSought {
                    name,
                    password: Secret::new(login.password),
                    device: (login.device != 0).then_some(DeviceId(login.device)),
                    platform: login.platform,
                };
                self.ask_for_account(self.slots.ticket(number), account, query);
            }
            Err(code) => self.refuse_opener(now, number, (code, 0)),
        }
        Ok(())
    }

    pub(crate) fn change_password(
        &mut self,
        number: u32,
        frame: Frame<'_>,
    ) -> Result<(), ErrorCode> {
        let change: wire::ChangePassword = frame.body()?;
        let Some(user) = self.begin_request(number, change.request_id) else { return Ok(()) };
        let (old, new) = (Secret::new(change.old_password), Secret::new(change.new_password));
        let long = old.reveal().len() > MAX_PASSWORD_BYTES;
        let wrong = long.then_some(ErrorCode::WrongPassword);
        if let Some(code) = wrong.or(check_new_password(&new).err()) {
            self.refuse_request(number, change.request_id, code, 0);
            return Ok(());
        }
        let account = Account::OwnCredentialSought { request_id: change.request_id, old, new };
        self.ask_for_account(self.slots.ticket(number), account, Query::CredentialOf { user });
        Ok(())
    }

    pub(crate) fn refresh(&mut self, number: u32, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let refresh: wire::Refresh = frame.body()?;
        let request_id = refresh.request_id;
        if let Some(user) = self.begin_request(number, request_id) {
            let waiting =
                Waiting::Request(self.slots.ticket(number), Request::Refresh { request_id });
            self.ask(waiting, Query::NameOf { user });
        }
        Ok(())
    }

    pub(crate) fn refreshed(&mut self, now: Now, number: u32, request_id: u32, reply: Reply) {
        match (reply, self.slots.live(number)) {
            (Reply::Answer(Answer::Name(Some(name))), Some(live)) => {
                let identity =
                    Identity { user: live.user, device: live.device, serial: live.serial };
                self.end_request(number);
                self.grant(now, number, request_id, identity, name);
            }
            (reply, _) => self.refuse_reply(number, request_id, reply),
        }
    }

    pub(crate) fn logout(&mut self, number: u32, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let logout: wire::Logout = frame.body()?;
        let request_id = logout.request_id;
        let Some(user) = self.begin_request(number, request_id) else { return Ok(()) };
        let Some(live) = self.slots.live(number) else { return Ok(()) };
        let device = live.device;
        if let Err(code) = self.take_credit() {
            self.refuse_request(number, request_id, code, RETRY_AFTER_MS);
            return Ok(());
        }
        let request = Request::Logout { request_id, user, device };
        let origin = self.waiting.wait(Waiting::Request(self.slots.ticket(number), request));
        self.submit(origin, Command::Revoke { user, device });
        Ok(())
    }

    /// The token of a device is revoked: whatever session it has by now ends.
    pub(crate) fn logged_out(
        &mut self,
        now: Now,
        ticket: Ticket,
        (user, device): (UserId, DeviceId),
        request_id: u32,
        reply: Reply,
    ) {
        let number = self.slots.find(ticket).filter(|&number| self.slots.live(number).is_some());
        match (reply, number) {
            (Reply::Outcome(Outcome::Done), Some(number)) => {
                self.waiting.outdate_greetings(user);
                self.send_frame(number, Kind::Done, &wire::Done { request_id });
                self.close(now, number, ErrorCode::LoggedOut);
            }
            (Reply::Outcome(Outcome::Done), None) => self.revoke(now, user, device, u32::MAX),
            (reply, Some(number)) => self.refuse_reply(number, request_id, reply),
            (_, None) => self.counters.late += 1,
        }
    }

    fn ask_for_account(&mut self, ticket: Ticket, account: Account, query: Query) {
        self.ask(Waiting::Account(ticket, Box::new(account)), query);
    }

    fn hash_for_account(&mut self, ticket: Ticket, account: Account, work: HashWork) -> Next {
        let origin = self.waiting.wait(Waiting::Account(ticket, Box::new(account)));
        self.effects.push_back(Effect::Hash(origin, work));
        Next::Wait
    }

    fn submit_for_account(
        &mut self,
        ticket: Ticket,
        account: Account,
        command: Command,
    ) -> Result<Next, Refusal> {
        self.take_credit().map_err(|code| (code, RETRY_AFTER_MS))?;
        let origin = self.waiting.wait(Waiting::Account(ticket, Box::new(account)));
        self.submit(origin, command);
        Ok(Next::Wait)
    }

    /// A reply is there: the next step, a token, or a refusal.
    pub(crate) fn account_goes_on(
        &mut self,
        now: Now,
        ticket: Ticket,
        account: Account,
        reply: Reply,
    ) {
        let request_id = account.request_id();
        let next = self.next_step(now, ticket, account, reply);
        let Some(number) = self.slots.find(ticket) else {
            self.counters.late += 1;
            return;
        };
        match (&self.slots.at(number).state, next) {
            (_, Ok(Next::Wait)) => {}
            (State::Checking, Ok(Next::Grant(grant, name))) => {
                self.open_again(now, number);
                self.grant(now, number, 0, identity(grant), name);
                self.resume(now, number);
            }
            (State::Checking, Err(refusal)) => {
                self.refuse_opener(now, number, refusal);
                self.resume(now, number);
            }
            (State::Live(_), Ok(Next::Grant(grant, name))) => {
                self.end_request(number);
                self.grant(now, number, request_id, identity(grant), name);
            }
            (State::Live(_), Err((code, retry_after_ms))) => {
                self.refuse_request(number, request_id, code, retry_after_ms);
            }
            _ => self.counters.late += 1,
        }
    }

    fn next_step(
        &mut self,
        now: Now,
        ticket: Ticket,
        account: Account,
        reply: Reply,
    ) -> Result<Next, Refusal> {
        match (account, reply) {
            (
                Account::NameSought { name, password, platform },
                Reply::Answer(Answer::Credential(credential)),
            ) => {
                if credential.is_some() {
                    return Err((ErrorCode::NameTaken, 0));
                }
                let account = Account::FirstPasswordHashed { name, platform };
                Ok(self.hash_for_account(ticket, account, HashWork::Make { password }))
            }
            (
                Account::FirstPasswordHashed { name, platform },
                Reply::Hash(HashDone::Made(hash)),
            ) => {
                let draft = UserDraft { name: name.clone(), password_hash: Some(hash), platform };
                let command = Command::CreateUsers { drafts: vec![draft], time_ms: now.unix_ms };
                self.submit_for_account(ticket, Account::UserMade { name }, command)
            }
            (Account::UserMade { name }, Reply::Outcome(Outcome::Users(users))) => {
                match users.first() {
                    Some(grant) if grant.created => Ok(Next::Grant(*grant, name)),
                    _ => Err((ErrorCode::NameTaken, 0)),
                }
            }

            (
                Account::CredentialSought { name, password, device, platform },
                Reply::Answer(Answer::Credential(credential)),
            ) => {
                let (owner, phc) = match credential {
                    Some(Credential { user, password_hash, .. }) => (Some(user), password_hash),
                    None => (None, None),
                };
                let work = HashWork::Verify { name: name.clone(), password, phc };
                let account = Account::PasswordProved { owner, name, device, platform };
                Ok(self.hash_for_account(ticket, account, work))
            }
            (
                Account::PasswordProved { owner: Some(user), name, device, platform },
                Reply::Hash(HashDone::Right),
            ) => {
                let account = Account::DeviceOpened { name, taken_again: device.is_some() };
                let command = Command::OpenDevice { user, device, platform, time_ms: now.unix_ms };
                self.submit_for_account(ticket, account, command)
            }
            (Account::PasswordProved { owner: None, .. }, Reply::Hash(HashDone::Right)) => {
                Err((ErrorCode::WrongPassword, 0))
            }
            (
                Account::DeviceOpened { name, taken_again },
                Reply::Outcome(Outcome::Granted(grant)),
            ) => {
                if taken_again {
                    self.end_old_session(now, ticket, name, grant)
                } else {
                    Ok(Next::Grant(grant, name))
                }
            }
            (Account::OldSessionEnded { name, grant }, Reply::Revoked) => {
                Ok(Next::Grant(grant, name))
            }

            (
                Account::OwnCredentialSought { request_id, old, new },
                Reply::Answer(Answer::Credential(Some(credential))),
            ) => {
                let Credential { name, password_hash: phc, .. } = credential;
                let work = HashWork::Verify { name: name.clone(), password: old, phc };
                let account = Account::OldPasswordProved { request_id, name, new };
                Ok(self.hash_for_account(ticket, account, work))
            }
            (
                Account::OldPasswordProved { request_id, name, new },
                Reply::Hash(HashDone::Right),
            ) => {
                let account = Account::NewPasswordHashed { request_id, name };
                Ok(self.hash_for_account(ticket, account, HashWork::Make { password: new }))
            }
            (
                Account::NewPasswordHashed { request_id, name },
                Reply::Hash(HashDone::Made(password_hash)),
            ) => {
                // The session may have ended meanwhile; its user then has not asked for it.
                let live = self.slots.find(ticket).and_then(|number| self.slots.live(number));
                let live = live.ok_or((ErrorCode::Internal, 0))?;
                let command =
                    Command::SetPassword { user: live.user, keep: live.device, password_hash };
                let account = Account::PasswordSet { request_id, name };
                self.submit_for_account(ticket, account, command)
            }
            (Account::PasswordSet { name, .. }, Reply::Outcome(Outcome::Granted(grant))) => {
                self.revoke_others(now, grant.user, grant.device);
                let session = self.users.session_of(&self.slots, grant.user, grant.device);
                if let Some(live) = session.and_then(|number| self.slots.live_mut(number)) {
                    live.serial = grant.serial;
                }
                Ok(Next::Grant(grant, name))
            }
            (_, reply) => Err(reply.refusal()),
        }
    }

    /// The token that a device had before it was taken again is revoked, and its session ends,
    /// on the shard where that is.
    fn end_old_session(
        &mut self,
        now: Now,
        ticket: Ticket,
        name: String,
        grant: UserGrant,
    ) -> Result<Next, Refusal> {
        let UserGrant { user, device, serial, .. } = grant;
        let home = self.route.owner_of(user);
        if home == self.settings.shard {
            self.revoke(now, user, device, serial);
            return Ok(Next::Grant(grant, name));
        }
        // The credit that the outcome just gave back stands behind the hop.
        self.credits -= 1;
        let account = Account::OldSessionEnded { name, grant };
        let origin = self.waiting.wait(Waiting::Account(ticket, Box::new(account)));
        self.hop_to(home, Hop::Revoke { origin, user, device, serial });
        Ok(Next::Wait)
    }

    /// Refuses an opener; another one may come.
    fn refuse_opener(&mut self, now: Now, number: u32, (code, retry_after_ms): Refusal) {
        self.open_again(now, number);
        // Whoever's fault it is: an opener is dear, and who was told to wait should.
        self.slots.at_mut(number).count_fruitless(OPENER_FRUITLESS_FRAMES);
        self.refuse(number, 0, code, retry_after_ms);
    }

    fn open_again(&mut self, now: Now, number: u32) {
        let since = self.tick(now);
        self.slots.at_mut(number).state = State::Fresh { since, known: true };
        self.rearm(number);
    }

    fn grant(&mut self, now: Now, number: u32, request_id: u32, identity: Identity, name: String) {
        let expires_s = now.unix_ms / 1_000 + u64::from(self.settings.token_lifetime_s);
        let token = self.keyring.sign(identity, expires_s);
        let grant = wire::Grant {
            request_id,
            user: identity.user.0,
            device: identity.device.0,
            token: Bytes::copy_from_slice(&token),
            expires_ms: expires_s * 1_000,
            name,
        };
        self.send_frame(number, Kind::Grant, &grant);
    }
}

fn identity(grant: UserGrant) -> Identity {
    Identity { user: grant.user, device: grant.device, serial: grant.serial }
}

fn check_new_password(password: &Secret) -> Result<(), ErrorCode> {
    let fits = (MIN_PASSWORD_BYTES..=MAX_PASSWORD_BYTES).contains(&password.reveal().len());
    if fits { Ok(()) } else { Err(ErrorCode::PasswordInvalid) }
}

fn check_platform(platform: &str) -> Result<(), ErrorCode> {
    if platform.len() <= MAX_CLIENT_NAME_BYTES { Ok(()) } else { Err(ErrorCode::BadField) }
}
