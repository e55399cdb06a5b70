//! The task that runs a session: it moves bytes, time and calls, and decides nothing.

use super::client::{SendError, Sending, Status};
use super::link::connect;
use crate::{
    Answer, Entry, Event, Network, Outgoing, QueueError, Receipt, Request, RequestError, Session,
    Store, Wish,
};
use starling_codec::{Nonce, history::Record, wire::AppState};
use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    io,
    pin::Pin,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

const READ_BYTES: usize = 64 * 1024;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the app asks of the task.
#[derive(Debug)]
pub(super) enum Call {
    Post { nonce: Nonce, message: Outgoing, reply: oneshot::Sender<Result<Sending, QueueError>> },
    Outbox { reply: oneshot::Sender<Vec<Entry>> },
    Flush { reply: oneshot::Sender<()> },
    Discard { nonce: Nonce },
    Request { request: Request, reply: Reply },
    ChangeNetwork { network: Network },
    SetAppState { app_state: AppState },
    Close,
}

type Reply = oneshot::Sender<Result<Answer, RequestError>>;
type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

enum Link {
    None,
    Opening(Connecting),
    Open(TcpStream),
}

pub(super) struct Driver<S> {
    session: Session<S>,
    server: String,
    link: Link,
    calls: mpsc::Receiver<Call>,
    /// `None` once the app has dropped its end.
    events: Option<mpsc::Sender<Event>>,
    /// Told by the session, not yet taken by the app: at most a window of events for each
    /// connection, as nothing is acknowledged while any is here.
    untold: VecDeque<Event>,
    status: watch::Sender<Status>,
    sendings: HashMap<Nonce, oneshot::Sender<Result<Receipt, SendError>>>,
    requests: HashMap<u32, Reply>,
    /// Those who wait until the outbox has no message without an answer.
    flushes: Vec<oneshot::Sender<()>>,
    started: Instant,
    buffer: Box<[u8]>,
    /// Takes the session's history, if anybody wants it.
    recorder: Option<Box<Recorder>>,
}

/// Is handed each record of a history, in order.
pub(super) type Recorder = dyn FnMut(Record) + Send;

/// What woke the task.
enum Woken {
    Called(Option<Call>),
    /// The app has room for an event, or is gone.
    Room(bool),
    Opened(io::Result<TcpStream>),
    Ready,
    Time,
}

impl<S: Store> Driver<S> {
    pub fn new(
        session: Session<S>,
        server: String,
        calls: mpsc::Receiver<Call>,
        events: mpsc::Sender<Event>,
        status: watch::Sender<Status>,
        recorder: Option<Box<Recorder>>,
    ) -> Driver<S> {
        Driver {
            session,
            server,
            link: Link::None,
            calls,
            events: Some(events),
            untold: VecDeque::new(),
            status,
            sendings: HashMap::new(),
            requests: HashMap::new(),
            flushes: Vec::new(),
            started: Instant::now(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            recorder,
        }
    }

    pub async fn run(mut self) {
        loop {
            self.take_events();
            match self.session.wish() {
                Wish::Close => break,
                Wish::OpenAt(at_ms) => {
                    if let Link::Open(_) = self.link {
                        self.link = Link::None;
                    }
                    if let Link::None = self.link
                        && self.now_ms() >= at_ms
                    {
                        let server = self.server.clone();
                        self.link = Link::Opening(Box::pin(async move { connect(&server).await }));
                    }
                }
                Wish::Keep => {}
            }
            match self.wait().await {
                Woken::Called(call) => self.take_call(call.unwrap_or(Call::Close)),
                Woken::Room(true) => self.tell_one(),
                Woken::Room(false) => {
                    self.events = None;
                    self.untold.clear();
                }
                Woken::Opened(Ok(stream)) => {
                    self.link = Link::Open(stream);
                    self.session.opened(self.now_ms());
                    self.write();
                }
                Woken::Opened(Err(error)) => {
                    self.link = Link::None;
                    self.session.closed(self.now_ms());
                    let reason = error.to_string();
                    self.status.send_replace(Status::Offline { reason, refusal: None });
                }
                Woken::Ready => {
                    self.write();
                    self.read();
                }
                Woken::Time => {
                    self.session.tick(self.now_ms());
                    self.write();
                }
            }
        }
        self.say_goodbye().await;
    }

    /// Waits for whatever comes first. Nothing here holds state: each future may be dropped.
    async fn wait(&mut self) -> Woken {
        let wants_write = !self.session.output().is_empty();
        let retry_at_ms = match (self.session.wish(), &self.link) {
            (Wish::OpenAt(at_ms), Link::None) => Some(at_ms),
            _ => None,
        };
        let deadline_ms = [self.session.next_deadline(), retry_at_ms].into_iter().flatten().min();
        let deadline = deadline_ms.map(|at_ms| self.started + Duration::from_millis(at_ms));
        let timer = async {
            match deadline {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let room = async {
            match &self.events {
                Some(events) if !self.untold.is_empty() => events.reserve().await.is_ok(),
                _ => std::future::pending().await,
            }
        };
        let link = async {
            match &mut self.link {
                Link::Opening(opening) => Woken::Opened(opening.await),
                Link::Open(stream) => {
                    tokio::select! {
                        _ = stream.readable() => {}
                        _ = stream.writable(), if wants_write => {}
                    }
                    Woken::Ready
                }
                Link::None => std::future::pending().await,
            }
        };
        tokio::select! {
            call = self.calls.recv() => Woken::Called(call),
            room = room => Woken::Room(room),
            woken = link => woken,
            () = timer => Woken::Time,
        }
    }

    fn take_call(&mut self, call: Call) {
        let now_ms = self.now_ms();
        match call {
            Call::Post { nonce, message, reply } => {
                let taken = self.session.send(now_ms, nonce, message).map(|()| {
                    let (answered, answer) = oneshot::channel();
                    self.sendings.insert(nonce, answered);
                    Sending { nonce, answer }
                });
                // A caller that no longer waits has nothing to be told.
                let _ = reply.send(taken);
            }
            Call::Outbox { reply } => {
                let _ = reply.send(self.session.outbox().cloned().collect());
            }
            Call::Flush { reply } => self.flushes.push(reply),
            Call::Discard { nonce } => self.session.discard(nonce),
            Call::Request { request, reply } => match self.session.request(now_ms, request) {
                Ok(id) => {
                    self.requests.insert(id, reply);
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
            Call::ChangeNetwork { network } => {
                // Whatever is open or opening goes the old way.
                self.link = Link::None;
                self.session.change_network(now_ms, network);
            }
            Call::SetAppState { app_state } => self.session.set_app_state(now_ms, app_state),
            Call::Close => self.session.close(),
        }
        self.write();
    }

    /// Gives the session's history to its recorder, and its events to those who wait for them and
    /// to the app.
    fn take_events(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            std::iter::from_fn(|| self.session.poll_record()).for_each(recorder);
        }
        while let Some(event) = self.session.poll_event() {
            match &event {
                Event::Online(_) => {
                    self.status.send_replace(Status::Online);
                }
                Event::Offline { why, .. } => {
                    let reason = match why {
                        Some(refusal) => refusal.to_string(),
                        None => "the connection was lost".to_owned(),
                    };
                    self.status.send_replace(Status::Offline { reason, refusal: *why });
                }
                Event::Stopped(reason) => {
                    self.status.send_replace(Status::Stopped(reason.clone()));
                }
                Event::Sent { nonce, receipt } => self.answer_sending(*nonce, Ok(*receipt)),
                Event::Refused { nonce, refusal } => {
                    self.answer_sending(*nonce, Err(SendError::Refused(*refusal)));
                }
                Event::Unsent(entry) => {
                    if let crate::EntryState::Unsent(why) = entry.state {
                        self.answer_sending(entry.nonce, Err(SendError::Unsent(why)));
                    }
                }
                Event::Answered { request_id, result } => {
                    if let Some(reply) = self.requests.remove(request_id) {
                        let _ = reply.send(result.clone());
                    }
                    // The app has its answer already.
                    continue;
                }
                Event::Applied(_) | Event::Rewound(_) | Event::Reset => {}
            }
            if self.events.is_some() {
                self.untold.push_back(event);
            }
        }
        while !self.untold.is_empty() && self.has_room() {
            self.tell_one();
        }
        // Reading goes on whatever the app does, for it may be waiting for an answer.
        self.session.set_keeping_up(self.untold.is_empty());
        if !self.flushes.is_empty() && self.session.unanswered() == 0 {
            for flushed in self.flushes.drain(..) {
                let _ = flushed.send(());
            }
        }
    }

    fn has_room(&self) -> bool {
        self.events.as_ref().is_some_and(|events| events.capacity() > 0 && !events.is_closed())
    }

    fn tell_one(&mut self) {
        let (Some(events), Some(event)) = (&self.events, self.untold.pop_front()) else { return };
        match events.try_send(event) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(event)) => self.untold.push_front(event),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.events = None;
                self.untold.clear();
            }
        }
    }

    fn answer_sending(&mut self, nonce: Nonce, answer: Result<Receipt, SendError>) {
        if let Some(waits) = self.sendings.remove(&nonce) {
            let _ = waits.send(answer);
        }
    }

    fn read(&mut self) {
        let Link::Open(stream) = &self.link else { return };
        match stream.try_read(&mut self.buffer) {
            Ok(0) => self.lose_link(),
            Ok(bytes) => {
                let now_ms = self.now_ms();
                self.session.receive(now_ms, &self.buffer[..bytes]);
                self.write();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.lose_link(),
        }
    }

    fn write(&mut self) {
        let Link::Open(stream) = &self.link else { return };
        while !self.session.output().is_empty() {
            match stream.try_write(self.session.output()) {
                Ok(bytes) => self.session.written(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // What the server said last may still be there to be read: reading finds the end.
                Err(_) => return self.read_last_words(),
            }
        }
    }

    /// The link takes nothing any more; a CLOSE that came before tells why.
    fn read_last_words(&mut self) {
        while let Link::Open(stream) = &self.link {
            match stream.try_read(&mut self.buffer) {
                Ok(bytes) if bytes > 0 => {
                    let now_ms = self.now_ms();
                    self.session.receive(now_ms, &self.buffer[..bytes]);
                }
                _ => return self.lose_link(),
            }
        }
    }

    fn lose_link(&mut self) {
        self.link = Link::None;
        self.session.closed(self.now_ms());
    }

    /// Writes what the session said last and waits until the server has closed.
    async fn say_goodbye(mut self) {
        let Link::Open(stream) = &self.link else { return };
        let written = async {
            while !self.session.output().is_empty() {
                stream.writable().await?;
                match stream.try_write(self.session.output()) {
                    Ok(bytes) => self.session.written(bytes),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        // A server that does not take a goodbye finds out by silence.
        let _ = timeout(GOODBYE, written).await;
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
