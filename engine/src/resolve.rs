//! RESOLVE: a name to a user, or a user to her name.

use crate::{
    Engine,
    request::Request,
    waiting::{Reply, Waiting},
};
use starling_codec::{
    Answer, ErrorCode, Frame, Kind, Query, UserId, normal_name,
    wire::{self, resolve::Who},
};

impl Engine {
    pub(crate) fn resolve(&mut self, number: u32, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let resolve: wire::Resolve = frame.body()?;
        let request_id = resolve.request_id;
        if self.begin_request(number, request_id).is_none() {
            return Ok(());
        }
        let asked = match resolve.who {
            Some(Who::Name(name)) => normal_name(&name)
                .map(|name| (Request::UserOfName { request_id }, Query::Credential { name })),
            Some(Who::User(user)) => UserId::from_wire(user)
                .map(|user| (Request::NameOfUser { request_id, user }, Query::NameOf { user }))
                .ok_or(ErrorCode::UnknownUser),
            None => Err(ErrorCode::BadField),
        };
        match asked {
            Ok((request, query)) => {
                self.ask(Waiting::Request(self.slots.ticket(number), request), query)
            }
            Err(code) => self.refuse_request(number, request_id, code, 0),
        }
        Ok(())
    }

    pub(crate) fn user_found(&mut self, number: u32, request_id: u32, reply: Reply) {
        match reply {
            Reply::Answer(Answer::Credential(Some(found))) => {
                self.resolved(number, request_id, found.user, found.name)
            }
            Reply::Answer(Answer::Credential(None)) => {
                self.refuse_request(number, request_id, ErrorCode::UnknownUser, 0)
            }
            reply => self.refuse_reply(number, request_id, reply),
        }
    }

    pub(crate) fn name_found(&mut self, number: u32, request_id: u32, user: UserId, reply: Reply) {
        match reply {
            Reply::Answer(Answer::Name(Some(name))) => {
                self.resolved(number, request_id, user, name)
            }
            Reply::Answer(Answer::Name(None)) => {
                self.refuse_request(number, request_id, ErrorCode::UnknownUser, 0)
            }
            reply => self.refuse_reply(number, request_id, reply),
        }
    }

    fn resolved(&mut self, number: u32, request_id: u32, user: UserId, name: String) {
        self.end_request(number);
        let resolved = wire::Resolved { request_id, user: user.0, name };
        self.send_frame(number, Kind::Resolved, &resolved);
    }
}
