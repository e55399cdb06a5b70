//! Requests: what a session or the operator asks with an id of its own, answered in any order.
//! What is common to all stands here, what one of them does in a file of its own.

use crate::{Engine, Now, PageDirection, connection::State, waiting::Reply};
use starling_codec::{DeviceId, ErrorCode, Ticket, UserId, limits::MAX_REQUESTS_IN_FLIGHT};

/// A request that waits for one reply.
pub(crate) enum Request {
    Refresh { request_id: u32 },
    Logout { request_id: u32, user: UserId, device: DeviceId },
    History { request_id: u32, direction: PageDirection },
    UserOfName { request_id: u32 },
    NameOfUser { request_id: u32, user: UserId },
    CreateUsers { request_id: u32, expires_s: u64, order: Vec<usize> },
    Stats { request_id: u32 },
}

impl Engine {
    pub(crate) fn request_goes_on(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: Request,
        reply: Reply,
    ) {
        if let Request::Logout { request_id, user, device } = request {
            return self.logged_out(now, ticket, (user, device), request_id, reply);
        }
        let open = |number: &u32| {
            matches!(self.slots.at(*number).state, State::Live(_) | State::Operator { .. })
        };
        let Some(number) = self.slots.find(ticket).filter(open) else {
            self.counters.late += 1;
            return;
        };
        match request {
            Request::Refresh { request_id } => self.refreshed(now, number, request_id, reply),
            Request::History { request_id, direction } => {
                self.page_read(now, number, request_id, direction, reply)
            }
            Request::UserOfName { request_id } => self.user_found(number, request_id, reply),
            Request::NameOfUser { request_id, user } => {
                self.name_found(number, request_id, user, reply)
            }
            Request::CreateUsers { request_id, expires_s, order } => {
                self.users_created(number, request_id, expires_s, &order, reply)
            }
            Request::Stats { request_id } => self.stats_counted(number, request_id, reply),
            // Seen to above, as it counts even for a connection that is gone.
            Request::Logout { .. } => {}
        }
        self.bound_output(now, number);
    }

    /// Counts a request of a session in and says whose it is; refuses it if there are too many.
    pub(crate) fn begin_request(&mut self, number: u32, request_id: u32) -> Option<UserId> {
        let requests = self.requests_mut(number)?;
        if usize::from(*requests) >= MAX_REQUESTS_IN_FLIGHT {
            self.refuse(number, request_id, ErrorCode::TooManyRequests, 0);
            return None;
        }
        *requests += 1;
        // An operator is no user.
        Some(self.slots.live(number).map_or(UserId::default(), |live| live.user))
    }

    /// A request has its answer.
    pub(crate) fn end_request(&mut self, number: u32) {
        if let Some(requests) = self.requests_mut(number) {
            *requests -= 1;
        }
    }

    fn requests_mut(&mut self, number: u32) -> Option<&mut u8> {
        match &mut self.slots.at_mut(number).state {
            State::Live(live) => Some(&mut live.requests),
            State::Operator { requests } => Some(requests),
            _ => None,
        }
    }

    pub(crate) fn refuse_request(
        &mut self,
        number: u32,
        request_id: u32,
        code: ErrorCode,
        retry_after_ms: u32,
    ) {
        self.end_request(number);
        self.refuse(number, request_id, code, retry_after_ms);
    }

    /// Refuses a request whose reply was none of those hoped for.
    pub(crate) fn refuse_reply(&mut self, number: u32, request_id: u32, reply: Reply) {
        let (code, retry_after_ms) = reply.refusal();
        self.refuse_request(number, request_id, code, retry_after_ms);
    }
}
