//! REGISTER or LOGIN, as an app would do it: before there is a session.

use super::{Doing, Process};
use crate::{coverage::Branch, person::Person, profile::Profile, stage::Stage, witness::Witness};
use starling_client::{Change, Identity, Store};
use starling_codec::{
    Decoded, ErrorCode, Kind, MAGIC, PROTOCOL_VERSION, append_frame, decode_frame, limits, wire,
};

/// REGISTER or LOGIN under way.
#[derive(Default)]
pub(super) struct LogIn {
    pub register: bool,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    /// No link before this time.
    pub wait_until_us: u64,
}

impl Process {
    /// REGISTER or LOGIN: one look at how it goes.
    pub(super) fn log_in(
        &mut self,
        stage: &mut Stage,
        people: &mut [Person],
        witness: &mut Witness,
    ) {
        let Doing::LogsIn(log_in) = &mut self.doing else { return };
        let Some(link) = self.link else {
            let wait_until_us = log_in.wait_until_us;
            if self.opening_until_us.is_some() {
                return;
            }
            return match stage.now_us >= wait_until_us {
                true => self.open_link(stage),
                false => self.wake_at(stage, wait_until_us),
            };
        };
        if !log_in.output.is_empty() {
            let taken = stage.send_to_server(link, &log_in.output);
            log_in.output.drain(..taken);
            // No longer than a server waits for an opening.
            let patience_us = 2 * limits::OPENING_TIMEOUT_MS * 1_000;
            log_in.wait_until_us = stage.now_us + patience_us;
            self.wake_at(stage, stage.now_us + patience_us);
            return;
        }
        let input = std::mem::take(&mut log_in.input);
        let Decoded::Frame(raw) = decode_frame(&input, limits::MAX_FRAME_BYTES) else {
            log_in.input = input;
            let wait_until_us = log_in.wait_until_us;
            if stage.now_us >= wait_until_us {
                self.drop_link(stage);
            }
            return self.wake_at(stage, wait_until_us);
        };
        let person = &mut people[self.person];
        let frame = raw.known().ok().flatten();
        let kind = frame.map(|frame| frame.kind);
        stage.tell(|| format!("process {} logs in: {kind:?}", self.number));
        let (mut retry_after_ms, mut refused) = (100, None);
        match frame.map(|frame| (frame.kind, frame)) {
            Some((Kind::Grant, frame)) => {
                let grant: wire::Grant = frame.body().expect("the server's grant");
                let identity = Identity::granted(&grant, stage.now().unix_ms);
                let registered = std::mem::replace(&mut person.registered, true);
                let taken_again = self
                    .profile
                    .look(|store| store.saved().belongs_to(identity.user, identity.device))
                    && self.profile.look(|store| store.saved().identity.is_some());
                stage.coverage.reach(match (registered, taken_again) {
                    (false, _) => Branch::Registered,
                    (true, true) => Branch::LoggedInAgain,
                    (true, false) => Branch::NewDevice,
                });
                witness.granted(stage, &person.name, identity.user);
                person.user = Some(identity.user);
                self.guesses = 0;
                self.drop_link(stage);
                if self.profile.clone().commit(&[Change::Identity(identity)]).is_ok() {
                    self.start_session(stage, witness);
                }
                return self.wake_at(stage, stage.now_us);
            }
            Some((Kind::Refused, frame)) => {
                let answer: wire::Refused = frame.body().expect("the server's refusal");
                retry_after_ms = u64::from(answer.retry_after_ms);
                refused = ErrorCode::from_number(answer.code);
            }
            Some((Kind::Close, frame)) => {
                let close: wire::Close = frame.body().expect("the server's close");
                retry_after_ms = u64::from(close.retry_after_ms);
            }
            _ => {}
        }
        self.drop_link(stage);
        stage.tell(|| format!("process {} is refused: {refused:?}", self.number));
        match refused {
            Some(ErrorCode::NameTaken) => person.registered = true,
            Some(ErrorCode::WrongPassword) => {
                self.guesses += 1;
                stage.coverage.reach(Branch::LoginRefused);
            }
            Some(ErrorCode::DeviceLimit) => self.doing = Doing::Gone,
            _ => {}
        }
        if let Doing::LogsIn(log_in) = &mut self.doing {
            log_in.register = !person.registered;
            log_in.wait_until_us = stage.now_us + retry_after_ms.max(10) * 1_000;
        }
        self.wake_at(stage, stage.now_us);
    }
}

/// A REGISTER or LOGIN frame.
pub(super) fn opener(
    profile: &Profile,
    person: &Person,
    register: bool,
    guesses: usize,
) -> Vec<u8> {
    let opening = Some(wire::Opening {
        magic: MAGIC,
        version: PROTOCOL_VERSION,
        capabilities: 0,
        client: "simulation".to_owned(),
    });
    let (name, platform) = (person.name.clone(), "simulation".to_owned());
    // The likeliest first; each person has at least one.
    let at = person.passwords.len() - 1 - guesses % person.passwords.len();
    let password = person.passwords[at].clone();
    let mut frame = Vec::new();
    if register {
        let register = wire::Register { opening, name, password, platform };
        append_frame(&mut frame, Kind::Register, &register);
    } else {
        let device = profile.look(|store| store.saved().identity.as_ref().map(|own| own.device.0));
        let device = device.unwrap_or_default();
        let login = wire::Login { opening, name, password, device, platform };
        append_frame(&mut frame, Kind::Login, &login);
    }
    frame
}
