//! What went wrong, in one line that ends with what to type next.

use super::next;
use crate::{
    CallError, ConnectError, OpenError, QueueError, Refusal, RequestError, SendError, StopReason,
    StoreError,
    codec::{Blame, ErrorCode},
};
use std::borrow::Cow;

/// Why a command ends early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said no, and what that means here.
    Refused {
        refusal: Refusal,
        line: String,
    },
    /// The command cannot be carried out as it was given.
    Usage(String),
    NotLoggedIn,
    NoConnection(String),
    /// Another process uses the profile.
    ProfileInUse(String),
    /// The folder of the profile cannot be used.
    Profile(String),
    /// Nobody reads the output any more.
    OutputClosed,
    /// Ctrl-C where a password was asked for.
    Interrupted,
}

impl Failure {
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::OutputClosed => 0,
            Failure::Refused { .. } => 1,
            Failure::Usage(_)
            | Failure::NotLoggedIn
            | Failure::ProfileInUse(_)
            | Failure::Profile(_) => 2,
            Failure::NoConnection(_) => 3,
            Failure::Interrupted => super::INTERRUPTED,
        }
    }

    pub fn line(&self) -> Cow<'_, str> {
        match self {
            Failure::Refused { line, .. }
            | Failure::Usage(line)
            | Failure::NoConnection(line)
            | Failure::ProfileInUse(line)
            | Failure::Profile(line) => line.into(),
            Failure::NotLoggedIn => format!(
                "not logged in: type `{}`, or `{}` for a new account",
                next::command("login NAME"),
                next::command("register NAME")
            )
            .into(),
            Failure::OutputClosed => "nobody reads the output".into(),
            Failure::Interrupted => "interrupted".into(),
        }
    }

    /// Number, name and retryability for machines. What never reached a server has number 0.
    pub fn code(&self) -> (u32, &'static str, bool) {
        match self {
            Failure::Refused { refusal, .. } => {
                (refusal.number, refusal.name(), refusal.retryable())
            }
            Failure::Usage(_) => (0, "USAGE", false),
            Failure::NotLoggedIn => (0, "NOT_LOGGED_IN", false),
            Failure::NoConnection(_) => (0, "NO_CONNECTION", true),
            Failure::ProfileInUse(_) => (0, "PROFILE_IN_USE", true),
            Failure::Profile(_) => (0, "PROFILE", false),
            Failure::OutputClosed => (0, "OUTPUT_CLOSED", false),
            Failure::Interrupted => (0, "INTERRUPTED", false),
        }
    }

    /// What a refusal means to someone who asked for something about `name`.
    pub fn refused(refusal: Refusal, name: &str) -> Failure {
        let seconds = refusal.retry_after_ms.div_ceil(1_000).max(1);
        let login = next::command(format_args!("login {name}"));
        let line = match refusal.code() {
            Some(ErrorCode::UnknownUser) => format!(
                "nobody here is called {name}: check the spelling, or let them type `starling \
                 register {name}`"
            ),
            Some(ErrorCode::NameTaken) => format!(
                "the name {name} is taken: if it is yours type `{login}`, if not `{}` with another \
                 name",
                next::command("register")
            ),
            Some(ErrorCode::NameInvalid) => format!(
                "{name} cannot be a name: type `{}` with 3 to 32 letters, digits, dots, dashes or \
                 underscores, a letter or digit first",
                next::command("register NAME")
            ),
            Some(ErrorCode::PasswordInvalid) => {
                "a password has 8 to 256 bytes: type the command again with another".to_owned()
            }
            Some(ErrorCode::WrongPassword) => format!(
                "wrong name or password: type `{login}` to try again, or `{}` for a new account",
                next::command(format_args!("register {name}"))
            ),
            Some(ErrorCode::LoginSlowed) => {
                format!("too many wrong passwords: wait {seconds} s, then type `{login}`")
            }
            Some(ErrorCode::WrongOperatorKey) => "the server does not know this operator key: \
                 name the one in its data directory with --operator-key FILE"
                .to_owned(),
            Some(code) if code.blame() == Blame::Auth => {
                format!("this device is no longer logged in ({code}): type `{login}`")
            }
            _ if refusal.retryable() => {
                format!("{refusal}: wait {seconds} s, then type the command again")
            }
            _ => refusal.to_string(),
        };
        Failure::Refused { refusal, line }
    }

    fn no_connection(server: &str, reason: &str) -> Failure {
        Failure::NoConnection(format!(
            "no server at {server} ({reason}): type `starling-server` to start one here, or name \
             another with --server HOST:PORT"
        ))
    }

    pub fn call(error: CallError, name: &str) -> Failure {
        match error {
            CallError::NoConnection { server, reason } => Failure::no_connection(&server, &reason),
            CallError::Refused(refusal) => Failure::refused(refusal, name),
            CallError::Protocol { server, code } => Failure::NoConnection(format!(
                "what listens at {server} is no Starling server of this version ({code}): name \
                 another with --server HOST:PORT"
            )),
            CallError::Unsent(count) => Failure::Usage(format!(
                "this profile holds {count} messages that are not sent, and would forget them for \
                 another device: log in as who wrote them and type `{}`, or name another folder \
                 with --profile DIR, also if the server does not know this device any more",
                next::command("listen")
            )),
            CallError::Store(error) => error.into(),
        }
    }

    pub fn connect(error: ConnectError, own_name: &str) -> Failure {
        match error {
            ConnectError::NoConnection { server, reason } => {
                Failure::no_connection(&server, &reason)
            }
            ConnectError::Refused(refusal) => Failure::refused(refusal, own_name),
            ConnectError::Stopped(reason) => Failure::stopped(reason, own_name),
            ConnectError::Store(error) => error.into(),
        }
    }

    pub fn stopped(reason: StopReason, own_name: &str) -> Failure {
        match reason {
            StopReason::LoginNeeded(refusal) => Failure::refused(refusal, own_name),
            StopReason::NotLoggedIn | StopReason::LoggedOut => Failure::NotLoggedIn,
            StopReason::Replaced { .. } => Failure::Refused {
                refusal: Refusal::new(ErrorCode::Replaced as u32, 0),
                line: "a copy of this profile is connected elsewhere: stop it and type the \
                       command again, or type `starling login NAME` with another --profile"
                    .to_owned(),
            },
            StopReason::Version => Failure::Refused {
                refusal: Refusal::new(ErrorCode::VersionUnsupported as u32, 0),
                line: "the server speaks another version of the protocol: update this command"
                    .to_owned(),
            },
            StopReason::Store(line) => Failure::Profile(line),
            StopReason::Closed => Failure::Usage("the session was closed".to_owned()),
        }
    }

    pub fn request(error: RequestError, name: &str) -> Failure {
        match error {
            RequestError::Refused(refusal) => Failure::refused(refusal, name),
            RequestError::Lost => Failure::NoConnection(
                "the connection was lost before the answer came: type the command again".to_owned(),
            ),
            RequestError::Busy | RequestError::Stopped => Failure::Usage(error.to_string()),
        }
    }

    pub fn send(error: SendError, name: &str) -> Failure {
        match error {
            SendError::Queue(QueueError::OutboxFull(count)) => Failure::Usage(format!(
                "{count} messages wait for the server: type `{}` until they are sent",
                next::command("listen")
            )),
            SendError::Queue(error) => Failure::Usage(error.to_string()),
            SendError::Refused(refusal) => Failure::refused(refusal, name),
            SendError::Unsent(_) => Failure::NoConnection(format!(
                "the server lost the message: type `{}` again",
                next::command(format_args!("send {name} TEXT"))
            )),
            SendError::Stopped => Failure::kept(),
        }
    }

    /// A message is in the outbox and its answer has not come.
    pub fn kept() -> Failure {
        Failure::NoConnection(format!(
            "the server has not acknowledged the message: it is kept, and goes out once with the \
             next command, as `{}`",
            next::command("listen")
        ))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Locked(_) => Failure::ProfileInUse(format!(
                "{error}: stop that one, or log in another device with --profile DIR"
            )),
            _ => Failure::Profile(format!("{error}: name another with --profile DIR")),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Profile(format!("{error}: make room, or name another with --profile DIR"))
    }
}
