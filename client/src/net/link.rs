//! One connection for calls that are not a session: openers and the operator's requests.

use crate::Refusal;
use prost::Message;
use starling_codec::{Decoded, ErrorCode, Frame, Kind, decode_frame, limits, wire};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a link may take to open.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take: hashing passwords waits its turn on a busy server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 64 * 1024;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No server, or the connection was lost before the answer came.
    #[error("no connection to {server}: {reason}")]
    NoConnection { server: String, reason: String },
    /// The server said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The peer does not speak the protocol as this version knows it.
    #[error("{server} does not answer as a Starling server: {code}")]
    Protocol { server: String, code: ErrorCode },
    /// To log in would begin the store anew, and so many messages in its outbox are not sent:
    /// see [`give_up_unsent`](super::account::give_up_unsent).
    #[error("{0} messages that are not sent would be forgotten")]
    Unsent(usize),
    /// The local store failed.
    #[error(transparent)]
    Store(#[from] crate::StoreError),
}

/// A frame that came.
pub(super) struct Reply {
    pub kind: Kind,
    body: Vec<u8>,
}

impl Reply {
    pub fn body<M: Message + Default>(&self) -> Result<M, ErrorCode> {
        Frame { kind: self.kind, body: &self.body }.body()
    }
}

pub(super) struct Link {
    server: String,
    stream: TcpStream,
    input: Vec<u8>,
}

impl Link {
    pub async fn open(server: &str) -> Result<Link, CallError> {
        let stream = connect(server).await.map_err(|reason| CallError::NoConnection {
            server: server.to_owned(),
            reason: reason.to_string(),
        })?;
        Ok(Link { server: server.to_owned(), stream, input: Vec::new() })
    }

    /// Writes `request` and reads its answer. A refusal is an error.
    pub async fn call<M: Message>(&mut self, kind: Kind, request: &M) -> Result<Reply, CallError> {
        let mut out = Vec::new();
        starling_codec::append_frame(&mut out, kind, request);
        let mut replies = self.exchange(&out, 1).await?;
        // `exchange` gives as many as were asked for.
        Ok(replies.remove(0))
    }

    /// Writes requests while it reads as many answers, so that neither side waits for the other.
    /// A refusal is an error.
    pub async fn exchange(
        &mut self,
        requests: &[u8],
        answers: usize,
    ) -> Result<Vec<Reply>, CallError> {
        let (mut reader, mut writer) = self.stream.split();
        let input = &mut self.input;
        let reading = async {
            let mut replies = Vec::with_capacity(answers);
            loop {
                take_replies(input, &mut replies)?;
                if replies.len() >= answers {
                    return Ok(replies);
                }
                input.reserve(READ_BYTES);
                if reader.read_buf(input).await? == 0 {
                    return Err(Broken::Lost("the server closed it".to_owned()));
                }
            }
        };
        let writing = async {
            // What cannot be written may still have been answered: a CLOSE says why.
            let _ = writer.write_all(requests).await;
        };
        let both = async { tokio::join!(reading, writing).0 };
        let outcome = match timeout(ANSWER_TIMEOUT, both).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Broken::Lost("the server does not answer".to_owned())),
        };
        outcome.map_err(|broken| self.error(broken))
    }

    pub fn protocol(&self, code: ErrorCode) -> CallError {
        self.error(Broken::Protocol(code))
    }

    fn error(&self, broken: Broken) -> CallError {
        let server = self.server.clone();
        match broken {
            Broken::Lost(reason) => CallError::NoConnection { server, reason },
            Broken::Refused(refusal) => CallError::Refused(refusal),
            Broken::Protocol(code) => CallError::Protocol { server, code },
        }
    }
}

/// A link with small writes sent at once.
pub(super) async fn connect(server: &str) -> std::io::Result<TcpStream> {
    let stream = timeout(OPEN_TIMEOUT, TcpStream::connect(server)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

enum Broken {
    Lost(String),
    Refused(Refusal),
    Protocol(ErrorCode),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Broken::Lost(error.to_string())
    }
}

impl From<ErrorCode> for Broken {
    fn from(code: ErrorCode) -> Self {
        Broken::Protocol(code)
    }
}

fn take_replies(input: &mut Vec<u8>, replies: &mut Vec<Reply>) -> Result<(), Broken> {
    let mut taken = 0;
    loop {
        match decode_frame(&input[taken..], limits::MAX_LARGE_FRAME_BYTES) {
            Decoded::NeedMore => break,
            Decoded::Reject(code) => return Err(Broken::Protocol(code)),
            Decoded::Frame(raw) => {
                taken += raw.size;
                let Some(frame) = raw.known()? else { continue };
                match frame.kind {
                    Kind::Ping | Kind::Pong => {}
                    Kind::Refused => {
                        let no: wire::Refused = frame.body()?;
                        return Err(Broken::Refused(Refusal::new(no.code, no.retry_after_ms)));
                    }
                    Kind::Close => {
                        let no: wire::Close = frame.body()?;
                        return Err(Broken::Refused(Refusal::new(no.code, no.retry_after_ms)));
                    }
                    kind => replies.push(Reply { kind, body: frame.body.to_vec() }),
                }
            }
        }
    }
    input.drain(..taken);
    Ok(())
}
