//! HISTORY: a page of a conversation.

use crate::{
    Engine, Now, PageDirection,
    input::Handled,
    output::MAX_UNSENT_BYTES,
    request::Request,
    waiting::{Reply, Waiting},
};
use prost::Message;
use starling_codec::{
    Answer, ConversationId, ErrorCode, Frame, HistoryRequest, Kind, Page, Query, UserId,
    limits::MAX_HISTORY_PAGE,
    wire::{
        self,
        history::{Of, Start},
    },
};

/// A page is ended before its messages are larger than this, but has at least one.
const PAGE_BYTES: usize = MAX_UNSENT_BYTES;

impl Engine {
    /// One page at a time: while one is on its way, the next request waits unread, so that pages
    /// do not pile up for who does not read them.
    pub(crate) fn history(&mut self, number: u32, frame: Frame<'_>) -> Handled {
        if self.slots.live(number).is_none_or(|live| live.paging) {
            return Handled::Waits;
        }
        match frame.body::<wire::History>() {
            Ok(history) => self.ask_for_page(number, &history),
            Err(code) => return Handled::Close(code),
        }
        Handled::Done
    }

    fn ask_for_page(&mut self, number: u32, history: &wire::History) {
        let request_id = history.request_id;
        let Some(user) = self.begin_request(number, request_id) else { return };
        let conversation = match history.of {
            Some(Of::User(other)) => {
                UserId::from_wire(other).map(|other| ConversationId::direct(user, other))
            }
            Some(Of::Conversation(id)) => Some(ConversationId(id)),
            None => None,
        };
        let member = |conversation: &ConversationId| conversation.peer_of(user).is_some();
        let Some(conversation) = conversation.filter(member) else {
            return self.refuse_request(number, request_id, ErrorCode::UnknownConversation, 0);
        };
        let direction = match history.start {
            None => PageDirection::Before(u64::MAX),
            Some(Start::BeforeSeq(seq)) => PageDirection::Before(seq),
            Some(Start::AfterSeq(seq)) => PageDirection::After(seq),
        };
        let limit = match history.limit {
            0 => MAX_HISTORY_PAGE,
            limit => limit.min(MAX_HISTORY_PAGE),
        };
        if let Some(live) = self.slots.live_mut(number) {
            live.paging = true;
        }
        let request = Request::History { request_id, direction };
        let query = Query::History(HistoryRequest { conversation, user, direction, limit });
        self.ask(Waiting::Request(self.slots.ticket(number), request), query);
    }

    pub(crate) fn page_read(
        &mut self,
        now: Now,
        number: u32,
        request_id: u32,
        direction: PageDirection,
        reply: Reply,
    ) {
        if let Some(live) = self.slots.live_mut(number) {
            live.paging = false;
        }
        match reply {
            Reply::Answer(Answer::Page(page)) => {
                let page = cut(page, direction);
                let page = wire::HistoryPage {
                    request_id,
                    conversation: page.conversation.0,
                    messages: page.messages,
                    more: page.more,
                    head: Some(page.head.into()),
                };
                self.end_request(number);
                self.send_frame(number, Kind::HistoryPage, &page);
            }
            reply => self.refuse_reply(number, request_id, reply),
        }
        self.resume(now, number);
    }
}

/// As much of a page as one frame takes: of the end it was asked to begin at.
fn cut(mut page: Page, direction: PageDirection) -> Page {
    let mut bytes = 0;
    let mut fits = |message: &wire::Message| {
        let first = bytes == 0;
        bytes += message.encoded_len();
        first || bytes <= PAGE_BYTES
    };
    let all = page.messages.len();
    match direction {
        PageDirection::Before(_) => {
            let kept = page.messages.iter().rev().take_while(|message| fits(message)).count();
            page.messages.drain(..all - kept);
        }
        PageDirection::After(_) => {
            let kept = page.messages.iter().take_while(|message| fits(message)).count();
            page.messages.truncate(kept);
        }
    }
    page.more |= page.messages.len() < all;
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_codec::Place;

    fn page(contents: &[usize]) -> Page {
        let message = |(index, &bytes): (usize, &usize)| wire::Message {
            seq: index as u64 + 1,
            content: vec![0; bytes].into(),
            ..Default::default()
        };
        let messages = contents.iter().enumerate().map(message).collect();
        Page { conversation: ConversationId(1), messages, more: false, head: Place::START }
    }

    fn seqs(page: &Page) -> Vec<u64> {
        page.messages.iter().map(|message| message.seq).collect()
    }

    #[test]
    fn a_page_is_cut_at_the_far_end() {
        let contents = [10_000; 5];
        let newest = cut(page(&contents), PageDirection::Before(u64::MAX));
        assert_eq!((seqs(&newest), newest.more), (vec![3, 4, 5], true));
        let oldest = cut(page(&contents), PageDirection::After(1));
        assert_eq!((seqs(&oldest), oldest.more), (vec![1, 2, 3], true));
        let whole = cut(page(&contents[..3]), PageDirection::After(1));
        assert_eq!((seqs(&whole), whole.more), (vec![1, 2, 3], false));
        let huge = cut(page(&[40_000, 40_000]), PageDirection::Before(9));
        assert_eq!((seqs(&huge), huge.more), (vec![2], true));
    }
}
