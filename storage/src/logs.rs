//! What the rows of an inbox or a conversation say when nothing is remembered: heads, the row
//! that holds an event, the end of an epoch, a device's send window. The sequencer derives its
//! state with these, and so do questions.

use crate::{
    Family, ReadError,
    backend::Reads,
    layout,
    rows::{Entry, InboxRow, WindowRow},
};
use starling_codec::{ConversationId, DeviceId, Epoch, Nonce, Place, SendNo, SendWindow, UserId};
use std::ops::ControlFlow;

/// Seq of a conversation's last message; 0: there is none.
pub fn conversation_head(reads: Reads<'_>, conversation: ConversationId) -> Result<u64, ReadError> {
    let from = layout::message_key(conversation, u64::MAX);
    let end = layout::after_prefix(conversation.0);
    let head = reads.first(Family::Message, &from, &end, |key, _| layout::seq_of(key))?;
    Ok(head.unwrap_or(0))
}

/// Place of a user's last event.
pub fn inbox_head(reads: Reads<'_>, user: UserId) -> Result<Place, ReadError> {
    let row = row_at_or_below(reads, user, u64::MAX, |row| row.end())?;
    Ok(row.unwrap_or(Place::START))
}

/// The last inbox row that begins at or below `seq`: the one that holds it, if any does.
pub fn row_at_or_below<T>(
    reads: Reads<'_>,
    user: UserId,
    seq: u64,
    read: impl Fn(InboxRow<'_>) -> T,
) -> Result<Option<T>, ReadError> {
    let from = layout::inbox_key(user, seq);
    let end = layout::after_prefix(u64::from(user.0));
    reads.first(Family::Inbox, &from, &end, |key, value| {
        InboxRow::decode(user, key, value).map(&read)
    })
}

/// Walks the inbox rows that begin at or below `seq`, newest first.
pub fn rows_down_from(
    reads: Reads<'_>,
    user: UserId,
    seq: u64,
    mut each: impl FnMut(InboxRow<'_>) -> Option<ControlFlow<()>>,
) -> Result<(), ReadError> {
    let from = layout::inbox_key(user, seq);
    let end = layout::after_prefix(u64::from(user.0));
    reads.scan(Family::Inbox, &from, &end, |key, value| each(InboxRow::decode(user, key, value)?))
}

/// Place of the user's last event whose epoch is not above `epoch`, given the head of the inbox
/// in `reads`. Epochs only rise along an inbox, so halving finds it.
pub fn last_not_above(
    reads: Reads<'_>,
    user: UserId,
    head: Place,
    epoch: Epoch,
) -> Result<Place, ReadError> {
    if head.epoch <= epoch {
        return Ok(head);
    }
    // All that ends at or below `low` is fit; what holds `high` is not.
    let (mut low, mut high) = (Place::START, head.seq);
    while high.saturating_sub(low.seq) > 1 {
        let middle = low.seq + (high - low.seq) / 2;
        match row_at_or_below(reads, user, middle, |row| (row.first, row.end()))? {
            // Between rows that do not join on, the search would go in circles.
            Some((_, end)) if end.epoch <= epoch && end.seq <= low.seq => {
                return Err(ReadError::Corrupt(format!("inbox of user {user} at {middle}")));
            }
            Some((_, end)) if end.epoch <= epoch => low = end,
            Some((first, _)) => high = first,
            None => high = middle,
        }
    }
    Ok(low)
}

/// Rebuilds a device's send window from its row and, if that is open, from what the device sent
/// in the row's epoch after it. The result says where it stands now. `head` is the inbox's.
pub fn send_window(
    reads: Reads<'_>,
    user: UserId,
    head: Place,
    device: DeviceId,
) -> Result<WindowRow, ReadError> {
    let key = layout::device_key(user, device, layout::DevicePart::Window);
    match reads.get(Family::Device, &key, WindowRow::decode)? {
        Some(row) => window_from_row(reads, user, head, device, row),
        None => Ok(WindowRow::default()),
    }
}

/// As [`send_window`], with the row read already.
pub fn window_from_row(
    reads: Reads<'_>,
    user: UserId,
    head: Place,
    device: DeviceId,
    mut state: WindowRow,
) -> Result<WindowRow, ReadError> {
    // What is added next names the own message before it by its distance.
    if state.last_own > head.seq {
        return Err(ReadError::Corrupt(format!(
            "send window of user {user}, device {device}, whose inbox ends before it"
        )));
    }
    if !state.open || state.as_of == head {
        return Ok(state);
    }
    let as_of = state.as_of;
    let end = last_not_above(reads, user, head, as_of.epoch)?;
    rows_down_from(reads, user, end.seq, |row| {
        if row.last <= as_of.seq || row.epoch != as_of.epoch {
            return Some(ControlFlow::Break(()));
        }
        for (seq, entry) in row.entries()? {
            if let Entry::Own { device: by, send_no, .. } = entry
                && by == device
            {
                state.window.apply(send_no);
                state.last_own = state.last_own.max(seq);
            }
        }
        Some(ControlFlow::Continue(()))
    })?;
    Ok(state)
}

/// A message that a device sent, as its user's inbox has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnEvent {
    pub place: Place,
    pub nonce: Nonce,
    pub conversation: ConversationId,
    pub seq: u64,
}

/// One step along a device's own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnStep {
    Found(OwnEvent),
    /// Not in this row; the device's message before those in it is at this seq, or nowhere (0).
    Before(u64),
}

/// Looks for a send among the entries of one row.
pub fn find_own(
    entries: &[(u64, Entry)],
    epoch: Epoch,
    device: DeviceId,
    wanted: SendNo,
) -> OwnStep {
    let mut before = 0;
    for (inbox_seq, entry) in entries.iter().rev() {
        let Entry::Own { conversation, seq, device: by, send_no, nonce, previous_own } = *entry
        else {
            continue;
        };
        if by != device {
            continue;
        }
        if send_no == wanted {
            let place = Place::new(*inbox_seq, epoch);
            return OwnStep::Found(OwnEvent { place, nonce, conversation, seq });
        }
        before = previous_own;
    }
    OwnStep::Before(before)
}

/// Follows a device's own messages back from the one at `from` to a send. It is at most a
/// window's width away; `None`: it is not there.
pub fn follow_own(
    reads: Reads<'_>,
    user: UserId,
    device: DeviceId,
    wanted: SendNo,
    from: u64,
) -> Result<Option<OwnEvent>, ReadError> {
    let mut at = from;
    for _ in 0..=SendWindow::WIDTH {
        if at == 0 {
            return Ok(None);
        }
        let step = row_at_or_below(reads, user, at, |row| {
            Some(find_own(&row.entries()?, row.epoch, device, wanted))
        })?;
        match step {
            Some(Some(OwnStep::Found(event))) => return Ok(Some(event)),
            Some(Some(OwnStep::Before(before))) => at = before,
            Some(None) | None => {
                return Err(ReadError::Corrupt(format!("inbox of user {user} at {at}")));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryBackend, Rows, Tier, backend::Backend, rows::encode_inbox_row};

    const USER: UserId = UserId(7);

    /// An inbox with rows of (first seq, events, epoch), without entries.
    fn inbox(rows: &[(u64, u64, u32)]) -> MemoryBackend {
        let mut batch = Rows::default();
        for &(first, events, epoch) in rows {
            batch.put(Family::Inbox, &layout::inbox_key(USER, first), |out| {
                encode_inbox_row(Epoch(epoch), events, &[], out);
            });
        }
        batch.sort();
        let backend = MemoryBackend::new();
        backend.write(&batch).unwrap();
        backend
    }

    fn end_of_first_epoch(rows: &[(u64, u64, u32)], head: u64) -> Result<Place, ReadError> {
        let view = inbox(rows).view();
        let head = Place::new(head, Epoch(2));
        last_not_above(Reads::new(&*view, Tier::All), USER, head, Epoch(1))
    }

    #[test]
    fn the_end_of_an_epoch_is_found_wherever_it_is() {
        for end in 1..100 {
            let rows = [(1, end, 1), (end + 1, 100 - end, 2)];
            assert_eq!(end_of_first_epoch(&rows, 100).unwrap(), Place::new(end, Epoch(1)));
        }
        assert_eq!(end_of_first_epoch(&[(1, 100, 2)], 100).unwrap(), Place::START);
    }

    #[test]
    fn an_inbox_that_leaves_no_room_for_another_event_is_named() {
        for rows in [(u64::MAX - 10, 11, 1), (1, u64::MAX, 1)] {
            let view = inbox(&[rows]).view();
            let head = inbox_head(Reads::new(&*view, Tier::All), USER);
            assert!(matches!(head, Err(ReadError::Corrupt(_))), "{head:?}");
        }
    }

    #[test]
    fn a_window_that_is_ahead_of_its_inbox_is_named_rather_than_gone_on_from() {
        let view = inbox(&[(1, 10, 1)]).view();
        let (reads, head) = (Reads::new(&*view, Tier::All), Place::new(10, Epoch(1)));
        let window = |last_own| {
            let row = WindowRow { last_own, ..WindowRow::default() };
            window_from_row(reads, USER, head, DeviceId(1), row)
        };
        assert!(window(10).is_ok());
        assert!(matches!(window(11), Err(ReadError::Corrupt(_))));
    }

    #[test]
    fn rows_that_do_not_join_on_are_named_rather_than_searched_for_ever() {
        let with_a_gap = [(1, 10, 1), (90, 11, 2)];
        let over_each_other = [(1, 70, 1), (50, 1, 1), (90, 11, 2)];
        for rows in [&with_a_gap[..], &over_each_other] {
            let found = end_of_first_epoch(rows, 100);
            assert!(matches!(found, Err(ReadError::Corrupt(_))), "{found:?}");
        }
    }
}
