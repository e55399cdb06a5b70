//! Requests and their answers. An answer may come in any order; its id says whose it is.

use super::{Event, Session, State};
use crate::{Answer, Change, Identity, Page, Peer, Refusal, Request, RequestError, Store};
use starling_codec::{
    ErrorCode, Frame, Kind, Place, UserId, append_frame, limits,
    wire::{
        self,
        history::{Of, Start},
        resolve::Who,
    },
};
use std::collections::BTreeMap;

/// Most requests that wait, sent or not.
const MAX_WAITING: usize = 256;
/// No token is exchanged sooner after it came, in milliseconds. When the server's clock was set
/// back by more than a token lives, each seems to be worn out when it comes.
const MIN_REFRESH_MS: u64 = 10_000;

#[derive(Debug, Default)]
pub(super) struct Requests {
    /// By id, which is the order of asking.
    waiting: BTreeMap<u32, Waiting>,
    last_id: u32,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    sent: bool,
    /// The app asked, not the session itself.
    told: bool,
}

impl Request {
    /// Repeating it changes nothing more.
    fn is_repeatable(&self) -> bool {
        !matches!(self, Request::ChangePassword { .. } | Request::Logout)
    }

    fn append(&self, request_id: u32, out: &mut Vec<u8>) {
        match self {
            Request::History { of, page, limit } => {
                let of = match of {
                    Peer::User(user) => Of::User(user.0),
                    Peer::Conversation(conversation) => Of::Conversation(conversation.0),
                };
                let start = match *page {
                    Page::Newest => None,
                    Page::Before(seq) => Some(Start::BeforeSeq(seq)),
                    Page::After(seq) => Some(Start::AfterSeq(seq)),
                };
                let history = wire::History { request_id, of: Some(of), start, limit: *limit };
                append_frame(out, Kind::History, &history);
            }
            Request::Resolve(name) => {
                let who = Some(Who::Name(name.clone()));
                append_frame(out, Kind::Resolve, &wire::Resolve { request_id, who });
            }
            Request::NameOf(user) => {
                let who = Some(Who::User(user.0));
                append_frame(out, Kind::Resolve, &wire::Resolve { request_id, who });
            }
            Request::Refresh => append_frame(out, Kind::Refresh, &wire::Refresh { request_id }),
            Request::ChangePassword { old, new } => {
                let (old_password, new_password) = (old.clone(), new.clone());
                let change = wire::ChangePassword { request_id, old_password, new_password };
                append_frame(out, Kind::ChangePassword, &change);
            }
            Request::Logout => append_frame(out, Kind::Logout, &wire::Logout { request_id }),
        }
    }
}

impl Requests {
    pub fn add(&mut self, request: Request, told: bool) -> Result<u32, RequestError> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(RequestError::Busy);
        }
        // 0 is in answer to openers.
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.waiting.insert(self.last_id, Waiting { request, sent: false, told });
        Ok(self.last_id)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What cannot be repeated is lost; the rest is asked again.
    pub fn connection_lost(&mut self) -> Vec<Event> {
        for waiting in self.waiting.values_mut() {
            waiting.sent &= !waiting.request.is_repeatable();
        }
        self.end(RequestError::Lost, |waiting| waiting.sent || !waiting.told)
    }

    pub fn stopped(&mut self) -> Vec<Event> {
        self.end(RequestError::Stopped, |_| true)
    }

    /// A logout that was asked for has its answer.
    pub fn logged_out(&mut self) -> Option<Event> {
        let logout = |waiting: &&Waiting| waiting.request == Request::Logout;
        let (id, _) = self.waiting.iter().find(|(_, waiting)| logout(waiting))?;
        let request_id = *id;
        self.waiting.remove(&request_id);
        Some(Event::Answered { request_id, result: Ok(Answer::Done) })
    }

    fn end(&mut self, error: RequestError, ends: impl Fn(&Waiting) -> bool) -> Vec<Event> {
        let ended = self.waiting.extract_if(.., |_, waiting| ends(waiting));
        ended
            .filter(|(_, waiting)| waiting.told)
            .map(|(request_id, _)| Event::Answered { request_id, result: Err(error) })
            .collect()
    }
}

impl<S: Store> Session<S> {
    /// Sends what waits, as many at once as the server takes.
    pub(super) fn write_requests(&mut self) {
        if !self.is_live() {
            return;
        }
        let sent = self.requests.waiting.values().filter(|waiting| waiting.sent).count();
        let room = limits::MAX_REQUESTS_IN_FLIGHT.saturating_sub(sent);
        let unsent = self.requests.waiting.iter_mut().filter(|(_, waiting)| !waiting.sent);
        for (id, waiting) in unsent.take(room) {
            waiting.sent = true;
            waiting.request.append(*id, &mut self.output);
        }
    }

    pub(super) fn read_answer(&mut self, now_ms: u64, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let (request_id, result) = match frame.kind {
            Kind::HistoryPage => {
                let page: wire::HistoryPage = frame.body()?;
                self.hear_of(page.head.map(Place::from).unwrap_or_default());
                (page.request_id, Ok(Answer::History(page)))
            }
            Kind::Resolved => {
                let resolved: wire::Resolved = frame.body()?;
                let user = UserId(resolved.user);
                (resolved.request_id, Ok(Answer::User { user, name: resolved.name }))
            }
            Kind::Grant => {
                let grant: wire::Grant = frame.body()?;
                self.keep_grant(now_ms, &grant);
                (grant.request_id, Ok(Answer::Done))
            }
            Kind::Done => (frame.body::<wire::Done>()?.request_id, Ok(Answer::Done)),
            _ => {
                let refused: wire::Refused = frame.body()?;
                let refusal = Refusal::new(refused.code, refused.retry_after_ms);
                (refused.request_id, Err(RequestError::Refused(refusal)))
            }
        };
        // An answer that nobody waits for any more is a normal thing.
        let Some(waiting) = self.requests.waiting.remove(&request_id) else { return Ok(()) };
        let is_done = result.is_ok();
        if waiting.told {
            self.news.push(Event::Answered { request_id, result });
        }
        if waiting.request == Request::Logout && is_done {
            self.logged_out();
        }
        self.write_requests();
        Ok(())
    }

    fn keep_grant(&mut self, now_ms: u64, grant: &wire::Grant) {
        let (State::Live(live), Some(known)) = (&mut self.state, &self.identity) else { return };
        let server_ms = live.server_ms(now_ms);
        let mut identity = Identity::granted(grant, server_ms);
        if identity.name.is_empty() {
            identity.name = known.name.clone();
        }
        let refresh_in_ms = identity.refresh_at_ms.saturating_sub(server_ms).max(MIN_REFRESH_MS);
        live.refresh_at_ms = now_ms.checked_add(refresh_in_ms);
        self.changes.push(Change::Identity(identity.clone()));
        self.identity = Some(identity);
    }
}
