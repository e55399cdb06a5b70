//! One connection as its peer sees it, and what must be true of all that it hears.

use crate::{frames::People, world::World};
use prost::Message as _;
use starling_codec::{
    Answer, ConversationId, Direction, ErrorCode, HistoryRequest, Kind, PageDirection, Query,
    UserId, wire,
};

/// Where the peer believes the connection is.
#[derive(Default, Debug, PartialEq)]
enum State {
    #[default]
    Opening,
    Session(UserId),
    Operator,
    Closed,
}

/// One end of a connection.
#[derive(Default)]
pub struct Line {
    /// Written and not sent yet.
    pub flight: Vec<u8>,
    /// The peer cut it, or the server died.
    pub is_cut: bool,
    /// Its kernel did not take all: what came may have been lost with the rest.
    pub took_little: bool,
    /// It asked to be closed.
    pub said_goodbye: bool,
    /// It sent bytes that may mean anything, even SYNC, DISHELLO or another's token.
    pub sent_anything: bool,
    /// It asked for another part of its inbox.
    pub sent_sync: bool,
    /// Whose tokens it showed.
    pub users: Vec<UserId>,
    state: State,
    /// Seq of the last event.
    last: Option<u64>,
}

impl Line {
    /// Looks at what came.
    pub fn look(&mut self, world: &mut World, people: &mut People, number: usize) {
        for (kind, body) in world.frames(number) {
            assert_ne!(kind.direction(), Direction::Client, "{kind:?} is no server's");
            assert_ne!(self.state, State::Closed, "{kind:?} after the last word");
            self.hear(world, people, kind, &body);
        }
        let excused = self.is_cut || self.took_little || self.said_goodbye || self.sent_anything;
        if world.links[number].closed && !excused {
            assert_eq!(self.state, State::Closed, "closed without a word");
        }
    }

    fn hear(&mut self, world: &World, people: &mut People, kind: Kind, body: &[u8]) {
        match (kind, &self.state) {
            (Kind::Close, _) => {
                let close = wire::Close::decode(body).expect("a CLOSE");
                assert!(ErrorCode::from_number(close.code).is_some(), "{close:?}");
                self.state = State::Closed;
            }
            (Kind::Welcome, State::Opening) => {
                let welcome = wire::Welcome::decode(body).expect("a WELCOME");
                let user = UserId(welcome.user);
                assert!(self.sent_anything || self.users.contains(&user), "{welcome:?}");
                self.state = State::Session(user);
            }
            (Kind::Done, State::Opening) => self.state = State::Operator,
            (Kind::Grant, State::Opening | State::Session(_)) => {
                let grant = wire::Grant::decode(body).expect("a GRANT");
                people.keep(UserId(grant.user), grant.token.to_vec());
            }
            (Kind::Refused, _) => {
                let refused = wire::Refused::decode(body).expect("a REFUSED");
                assert!(ErrorCode::from_number(refused.code).is_some(), "{refused:?}");
            }
            (Kind::Pong, State::Session(_) | State::Operator) => {}
            (Kind::Done | Kind::Resolved, State::Session(_)) => {}
            (Kind::SendRefused, State::Session(_)) => {
                let refused = wire::SendRefused::decode(body).expect("a SEND_REFUSED");
                assert!(ErrorCode::from_number(refused.code).is_some(), "{refused:?}");
            }
            (Kind::SendAck, State::Session(user)) => check_ack(world, *user, body),
            (Kind::HistoryPage, State::Session(user)) => {
                let page = wire::HistoryPage::decode(body).expect("a HISTORY_PAGE");
                let conversation = ConversationId(page.conversation);
                assert!(conversation.peer_of(*user).is_some(), "the page of others: {page:?}");
            }
            (Kind::Events, State::Session(user)) => {
                let events = wire::Events::decode(body).expect("an EVENTS");
                self.last = check_events(world, *user, self.expected(), events).or(self.last);
            }
            (Kind::CreatedUsers | Kind::StatsPage, State::Operator) => {}
            (kind, state) => panic!("{kind:?} in {state:?}"),
        }
    }

    /// The event before the next one, where nothing lets it be another.
    fn expected(&self) -> Option<u64> {
        self.last.filter(|_| !self.sent_sync && !self.sent_anything)
    }
}

/// The message is where the acknowledgement says.
fn check_ack(world: &World, user: UserId, body: &[u8]) {
    let ack = wire::SendAck::decode(body).expect("a SEND_ACK");
    let request = HistoryRequest {
        conversation: ConversationId(ack.conversation),
        user,
        direction: PageDirection::After(ack.seq - 1),
        limit: 1,
    };
    let Answer::Page(page) = world.store.read(&Query::History(request)) else { panic!("no page") };
    let message = page.messages.first().expect("the message");
    let found = (message.seq, message.id, message.sender, message.send_no);
    assert_eq!(found, (ack.seq, ack.id, user.0, ack.send_no));
}

/// Events stand so in the user's inbox, one after the other. The seq of the last.
fn check_events(
    world: &World,
    user: UserId,
    mut last: Option<u64>,
    events: wire::Events,
) -> Option<u64> {
    for event in events.events {
        assert!(last.is_none_or(|last| event.seq == last + 1), "{} after {last:?}", event.seq);
        last = Some(event.seq);
        let (after_seq, max_events, max_bytes) = (event.seq - 1, 1, usize::MAX);
        let query = Query::Inbox { user, after_seq, max_events, max_bytes };
        let Answer::Events { events: stored, .. } = world.store.read(&query) else {
            panic!("no inbox")
        };
        assert_eq!(stored.decode(), [event], "what is in the inbox of {user}");
    }
    last
}
