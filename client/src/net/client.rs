//! What an app holds: a handle to a session that runs on its own.

use super::driver::{Call, Driver, Recorder};
use crate::{
    Answer, Entry, Event, Network, Outgoing, Page, Peer, QueueError, Receipt, Refusal, Request,
    RequestError, Session, SessionSettings, StopReason, Store, StoreError, Unsent,
};
use starling_codec::{
    Nonce, UserId,
    history::Record,
    wire::{self, AppState},
};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Events that may wait for the app before the server is no longer told that they came.
const EVENT_ROOM: usize = 1_024;
/// Calls that may wait for the session.
const CALL_ROOM: usize = 256;

/// How a client runs.
pub type ClientSettings = SessionSettings;

/// A logged-in device, connected whenever it can be. Clones speak for the same session; when the
/// last is dropped the session says goodbye and ends.
///
/// ```no_run
/// use starling_client::{Client, ClientSettings, Event, MemoryStore, Outgoing, Peer, account};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let server = "127.0.0.1:7400";
/// let mut store = MemoryStore::new();
/// account::login(server, &mut store, "alice", "correct horse").await?;
/// let (client, mut events) = Client::connect(server, store, ClientSettings::default()).await?;
///
/// let bob = client.resolve("bob").await?;
/// let receipt = client.send(Outgoing::text(Peer::User(bob), "hello")).await?;
/// println!("kept as message {} of the conversation", receipt.seq);
///
/// while let Some(event) = events.next().await {
///     if let Event::Applied(event) = event {
///         println!("{event:?}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    calls: mpsc::Sender<Call>,
    status: watch::Receiver<Status>,
}

/// What happens to a client, in order: see [`Event`]. An app that does not read them should drop
/// them; for one that reads slowly the server waits, with events only.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the session has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}

/// How a client stands to its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not connected yet.
    Starting,
    Online,
    /// Not connected, for this reason; it tries again.
    Offline {
        reason: String,
        refusal: Option<Refusal>,
    },
    Stopped(StopReason),
}

/// Why a client could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection to {server}: {reason}")]
    NoConnection { server: String, reason: String },
    /// The server said no; if that is retryable a later try may succeed.
    #[error("{0}")]
    Refused(Refusal),
    /// There is nothing to connect: not logged in, or the token is no longer taken.
    #[error("{0}")]
    Stopped(StopReason),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a message is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It was not taken into the outbox.
    #[error("{0}")]
    Queue(#[from] QueueError),
    /// The server said no; the message is gone from the outbox.
    #[error("{0}")]
    Refused(Refusal),
    /// It went back to the app: see [`Event::Unsent`].
    #[error("the message was not sent")]
    Unsent(Unsent),
    /// The session ended first. The message stays in the outbox and goes out with the next one.
    #[error("the session ended before the message was acknowledged")]
    Stopped,
}

/// A message in the outbox, on its way; a future of its receipt. Dropping it takes nothing back.
#[derive(Debug)]
pub struct Sending {
    pub nonce: Nonce,
    pub(super) answer: oneshot::Receiver<Result<Receipt, SendError>>,
}

impl Future for Sending {
    type Output = Result<Receipt, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or(Err(SendError::Stopped)))
    }
}

impl Client {
    /// Starts a session without waiting for a server; it connects when there is one. For apps
    /// that are used offline too.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start<S: Store + Send + 'static>(
        server: &str,
        store: S,
        settings: ClientSettings,
    ) -> Result<(Client, Events), StoreError> {
        let session = Session::load(store, settings, entropy()?)?;
        Ok(Client::run(server, session, None))
    }

    /// As [`Client::start`], and `recorder` is handed the session's history: what it wrote, was
    /// told and applied, each once it is kept and in the order in which it happened. A file of
    /// [lines](Record::append) is what `starling-check` reads, with those of other devices or
    /// alone; docs/history.md describes it.
    ///
    /// When the session is closed, the last record says what the device holds, so that what is missing
    /// before it can be seen.
    ///
    /// The recorder is called on the session's task, which waits for it. A process that is killed
    /// may leave a history without its last records, although the store has what they tell.
    ///
    /// ```no_run
    /// use starling_client::{Client, ClientSettings, MemoryStore, codec::history::Record};
    /// use std::{fs::File, io::Write};
    ///
    /// # async fn example(store: MemoryStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut file = File::create("phone.history")?;
    /// let mut line = Vec::new();
    /// let recorder = move |record: Record| {
    ///     line.clear();
    ///     record.append(&mut line);
    ///     file.write_all(&line).expect("room for the history");
    /// };
    /// let settings = ClientSettings::default();
    /// let (client, events) = Client::start_recorded("127.0.0.1:7400", store, settings, recorder)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start_recorded<S: Store + Send + 'static>(
        server: &str,
        store: S,
        settings: ClientSettings,
        recorder: impl FnMut(Record) + Send + 'static,
    ) -> Result<(Client, Events), StoreError> {
        let mut session = Session::load(store, settings, entropy()?)?;
        session.start_recording();
        Ok(Client::run(server, session, Some(Box::new(recorder))))
    }

    fn run<S: Store + Send + 'static>(
        server: &str,
        session: Session<S>,
        recorder: Option<Box<Recorder>>,
    ) -> (Client, Events) {
        let (calls, taken) = mpsc::channel(CALL_ROOM);
        let (told, events) = mpsc::channel(EVENT_ROOM);
        let (status_told, status) = watch::channel(Status::Starting);
        let server = server.to_owned();
        tokio::spawn(Driver::new(session, server, taken, told, status_told, recorder).run());
        (Client { calls, status }, Events(events))
    }

    /// Starts a session and waits until it is live. A connection lost later comes back by itself.
    ///
    /// # Errors
    /// [`ConnectError::NoConnection`] if the first attempt fails, [`ConnectError::Refused`] if
    /// the server said no, [`ConnectError::Stopped`] if the device is not logged in.
    pub async fn connect<S: Store + Send + 'static>(
        server: &str,
        store: S,
        settings: ClientSettings,
    ) -> Result<(Client, Events), ConnectError> {
        let (mut client, events) = Client::start(server, store, settings)?;
        // An error means that the driver is gone, after a last status.
        let _ = client.status.wait_for(|status| *status != Status::Starting).await;
        match client.status() {
            Status::Starting | Status::Online => Ok((client, events)),
            Status::Stopped(reason) => Err(ConnectError::Stopped(reason)),
            Status::Offline { refusal: Some(refusal), .. } => Err(ConnectError::Refused(refusal)),
            Status::Offline { reason, .. } => {
                Err(ConnectError::NoConnection { server: server.to_owned(), reason })
            }
        }
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Sends a message and waits until it is acknowledged with the durability it asked for,
    /// over as many connections as it takes.
    ///
    /// # Errors
    /// [`SendError`] says what became of the message.
    pub async fn send(&self, message: Outgoing) -> Result<Receipt, SendError> {
        self.post(message).await?.await
    }

    /// Takes a message into the outbox: it survives this process and is sent as soon as it can
    /// be, in the order of these calls. The result is a future of its receipt.
    ///
    /// # Errors
    /// [`QueueError`] if it was not taken.
    pub async fn post(&self, message: Outgoing) -> Result<Sending, QueueError> {
        let nonce = Nonce(entropy().map_err(|_| QueueError::Stopped)?);
        let (reply, taken) = oneshot::channel();
        self.call(Call::Post { nonce, message, reply }).await.map_err(|_| QueueError::Stopped)?;
        taken.await.unwrap_or(Err(QueueError::Stopped))
    }

    /// Messages that wait: unanswered, or back with the app as unsent.
    pub async fn outbox(&self) -> Vec<Entry> {
        let (reply, entries) = oneshot::channel();
        match self.call(Call::Outbox { reply }).await {
            Ok(()) => entries.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Waits until no message of the outbox is without an answer.
    pub async fn flushed(&self) {
        let (reply, flushed) = oneshot::channel();
        if self.call(Call::Flush { reply }).await.is_ok() {
            // An error means that the session has ended.
            let _ = flushed.await;
        }
    }

    /// Forgets an unsent message.
    pub async fn discard(&self, nonce: Nonce) {
        // If the session has ended the message is still there, which is what it would be.
        let _ = self.call(Call::Discard { nonce }).await;
    }

    /// A page of a conversation, ascending; `more` says whether to go on in the same direction.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with UNKNOWN_CONVERSATION among others;
    /// [`RequestError::Lost`], after which it may be asked again.
    pub async fn history(
        &self,
        of: Peer,
        page: Page,
        limit: u32,
    ) -> Result<wire::HistoryPage, RequestError> {
        match self.request(Request::History { of, page, limit }).await? {
            Answer::History(page) => Ok(page),
            _ => Err(RequestError::Lost),
        }
    }

    /// The user of a name, in any spelling.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with UNKNOWN_USER or NAME_INVALID among others;
    /// [`RequestError::Lost`], after which it may be asked again.
    pub async fn resolve(&self, name: &str) -> Result<UserId, RequestError> {
        match self.request(Request::Resolve(name.to_owned())).await? {
            Answer::User { user, .. } => Ok(user),
            _ => Err(RequestError::Lost),
        }
    }

    /// The name of a user.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with UNKNOWN_USER among others; [`RequestError::Lost`], after which
    /// it may be asked again.
    pub async fn name_of(&self, user: UserId) -> Result<String, RequestError> {
        match self.request(Request::NameOf(user)).await? {
            Answer::User { name, .. } => Ok(name),
            _ => Err(RequestError::Lost),
        }
    }

    /// Changes the password; all other devices of the user are logged out.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with WRONG_PASSWORD, PASSWORD_INVALID or LOGIN_SLOWED (wait for its
    /// `retry_after_ms`) among others; [`RequestError::Lost`], after which either password may be
    /// the right one.
    pub async fn change_password(&self, old: &str, new: &str) -> Result<(), RequestError> {
        let (old, new) = (old.to_owned(), new.to_owned());
        self.request(Request::ChangePassword { old, new }).await.map(|_| ())
    }

    /// Says which network the device is on now: to be called whenever the system says that the way
    /// to the server is another one, also if it has the same name. The connection is left and a new
    /// one opened at once. The longest heartbeat that a network bears is learnt for each by its
    /// name, and kept; [`ClientSettings`] names the first one.
    ///
    /// ```no_run
    /// use starling_client::{Client, Network, NetworkError, codec::wire::AppState};
    ///
    /// # async fn example(client: Client) -> Result<(), NetworkError> {
    /// // The system says: out of the house, with the telephone in the pocket.
    /// client.change_network(Network::named("cellular")?).await;
    /// client.set_app_state(AppState::Background).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn change_network(&self, network: Network) {
        // If the session has ended there is nothing to be opened.
        let _ = self.call(Call::ChangeNetwork { network }).await;
    }

    /// Says whether a person looks at the app from now on. In the background heartbeats become as
    /// long as network and settings allow, up to 15 minutes, for which the connection is opened
    /// anew a few times in a network's life. When a person looks, the server is asked at once
    /// whether it is there, and then every 60 seconds or more often.
    pub async fn set_app_state(&self, app_state: AppState) {
        // If the session has ended nobody asks.
        let _ = self.call(Call::SetAppState { app_state }).await;
    }

    /// Revokes this device's token, at the server and in the store, and ends the session.
    ///
    /// # Errors
    /// [`RequestError::Lost`], after which the token may still be good;
    /// [`RequestError::Refused`] for the server's own state.
    pub async fn logout(&self) -> Result<(), RequestError> {
        self.request(Request::Logout).await.map(|_| ())
    }

    /// Says goodbye to the server and waits until the store is closed.
    pub async fn close(self) {
        // The end of the channel is the end of the session.
        let _ = self.call(Call::Close).await;
        self.calls.closed().await;
    }

    async fn request(&self, request: Request) -> Result<Answer, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.call(Call::Request { request, reply }).await.map_err(|_| RequestError::Stopped)?;
        answer.await.unwrap_or(Err(RequestError::Stopped))
    }

    async fn call(&self, call: Call) -> Result<(), mpsc::error::SendError<Call>> {
        self.calls.send(call).await
    }
}

/// 64 bits of the system's entropy.
fn entropy() -> Result<u64, StoreError> {
    getrandom::u64().map_err(|error| StoreError::new(error.to_string()))
}
