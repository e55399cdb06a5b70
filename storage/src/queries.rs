//! What questions find in a view. Pure: the same on the shard, where only memory may be looked
//! in, and on a reader thread.

use crate::{
    Family, ReadError,
    backend::Reads,
    epochs::Epochs,
    layout::{self, DevicePart, LogKey},
    logs,
    rows::{DeviceRecord, Entry, MessageRow, UserRow, WindowRow, decode_cursor},
    sequencer::decode_user,
};
use bytes::Bytes;
use starling_codec::{
    Answer, ConversationId, Credential, DeviceId, DeviceState, EncodedEvents, Epoch, EpochTag,
    HistoryRequest, Page, PageDirection, Place, Query, Recipients, Resumption, SendWindow, UserId,
    planted::{Fault, is_planted},
    wire,
};
use std::{
    cmp::Reverse,
    ops::{ControlFlow, Range},
};

/// Events whose bodies are read in one go; a page of them may be several.
const EVENTS_AT_ONCE: u64 = 256;
/// Room that is made for an event; one that takes more costs a copy of those before it, at times.
const LIKELY_BYTES: usize = 192;

/// Answers a question. [`ReadError::Incomplete`] can only come of reads that are confined to
/// memory.
pub fn answer(reads: Reads<'_>, epochs: &Epochs, query: &Query) -> Result<Answer, ReadError> {
    Ok(match query {
        Query::Device { user, device, highest, last_epoch, last_tag } => {
            let held = Held { highest: *highest, epoch: *last_epoch, tag: *last_tag };
            Answer::Device(device_state(reads, epochs, *user, *device, held)?)
        }
        Query::Inbox { user, after_seq, max_events, max_bytes } => {
            let (max_events, max_bytes) = (*max_events, *max_bytes);
            let wanted = Wanted { after: *after_seq, max_events, max_bytes };
            let (events, head) = events(reads, *user, wanted)?;
            Answer::Events { events, head }
        }
        Query::History(request) => Answer::Page(page(reads, request)?),
        Query::Users { users } => Answer::Users(all_exist(reads, *users)?),
        Query::NameOf { user } => Answer::Name(user_row(reads, *user)?.map(|row| row.name)),
        Query::Credential { name } => {
            let user = reads.get(Family::Name, &layout::name_key(name), decode_user)?;
            Answer::Credential(match user {
                Some(user) => credential(reads, user)?,
                None => None,
            })
        }
        Query::CredentialOf { user } => Answer::Credential(credential(reads, *user)?),
    })
}

/// The send window of a device, from its rows alone.
pub fn read_send_window(
    reads: Reads<'_>,
    user: UserId,
    device: DeviceId,
) -> Result<SendWindow, ReadError> {
    let head = logs::inbox_head(reads, user)?;
    Ok(logs::send_window(reads, user, head, device)?.window)
}

fn user_row(reads: Reads<'_>, user: UserId) -> Result<Option<UserRow>, ReadError> {
    reads.get(Family::User, &layout::user_key(user), UserRow::decode)
}

fn credential(reads: Reads<'_>, user: UserId) -> Result<Option<Credential>, ReadError> {
    Ok(user_row(reads, user)?.map(|UserRow { name, password_hash, .. }| Credential {
        user,
        name,
        password_hash,
    }))
}

fn all_exist(reads: Reads<'_>, users: Recipients) -> Result<bool, ReadError> {
    for user in users.iter() {
        if !reads.exists(Family::User, &layout::user_key(user))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a client says it holds.
#[derive(Clone, Copy)]
struct Held {
    highest: Place,
    epoch: Epoch,
    tag: EpochTag,
}

fn device_state(
    reads: Reads<'_>,
    epochs: &Epochs,
    user: UserId,
    device: DeviceId,
    held: Held,
) -> Result<Option<DeviceState>, ReadError> {
    let mut serial = None;
    let mut window = WindowRow::default();
    let mut cursor = Place::START;
    let mut passed_seq = 0;
    // All devices of the user, in one walk.
    let end = layout::after_prefix(u64::from(user.0));
    reads.scan(Family::Device, &layout::user_key(user), &end, |key, value| {
        let (of, part) = layout::device_of(key)?;
        match part {
            DevicePart::Cursor => {
                let place = decode_cursor(value)?;
                passed_seq = passed_seq.max(place.seq);
                if of == device {
                    cursor = place;
                }
            }
            DevicePart::Record if of == device => {
                serial = Some(DeviceRecord::decode(value)?.serial);
            }
            DevicePart::Window if of == device => window = WindowRow::decode(value)?,
            DevicePart::Record | DevicePart::Window => {}
        }
        Some(ControlFlow::Continue(()))
    })?;
    let Some(serial) = serial else { return Ok(None) };
    let head = logs::inbox_head(reads, user)?;
    let (epoch, tag) = epochs.current();
    Ok(Some(DeviceState {
        serial,
        cursor,
        passed_seq,
        window: logs::window_from_row(reads, user, head, device, window)?.window,
        head,
        epoch,
        tag,
        resumption: resumption(reads, epochs, user, head, held)?,
    }))
}

/// How what a client holds stands to the inbox.
fn resumption(
    reads: Reads<'_>,
    epochs: &Epochs,
    user: UserId,
    head: Place,
    held: Held,
) -> Result<Resumption, ReadError> {
    let Held { highest, epoch, tag } = held;
    if epoch == Epoch(0) && highest == Place::START {
        return Ok(Resumption::Continues);
    }
    if epochs.tag(epoch) != Some(tag) || highest.epoch > epoch {
        return Ok(Resumption::Reset);
    }
    if highest.seq == 0 || highest == head {
        return Ok(Resumption::Continues);
    }
    let row = logs::row_at_or_below(reads, user, highest.seq, |row| row.end())?;
    let same_epoch = |end: Place| end.epoch == highest.epoch || is_planted(Fault::EpochIgnored);
    let same = row.is_some_and(|end| end.seq >= highest.seq && same_epoch(end));
    if same {
        return Ok(Resumption::Continues);
    }
    Ok(Resumption::Rewind(logs::last_not_above(reads, user, head, epoch)?))
}

/// What of an inbox is asked for.
#[derive(Clone, Copy)]
struct Wanted {
    after: u64,
    max_events: usize,
    max_bytes: usize,
}

/// The events that are asked for, ascending, as many as fit but at least one; and how far the
/// inbox reaches, as far as that was seen.
fn events(
    reads: Reads<'_>,
    user: UserId,
    wanted: Wanted,
) -> Result<(EncodedEvents, Place), ReadError> {
    let last = wanted.after.saturating_add(wanted.max_events as u64);
    let mut events = EncodedEvents::default();
    let mut bytes = 0;
    let mut after = wanted.after;
    loop {
        let to = last.min(after.saturating_add(EVENTS_AT_ONCE));
        let (entries, end) = entries(reads, user, after, to)?;
        let known = events.len();
        append_events(reads, user, &entries, &mut events)?;
        for index in known..events.len() {
            bytes += events[index].size;
            if bytes > wanted.max_bytes && index > 0 {
                events.truncate(index);
                return Ok((events, end));
            }
        }
        if end.seq < to || to == last {
            return Ok((events, end));
        }
        after = to;
    }
}

/// Appends what entries tell of: notices as they are, messages from their rows.
fn append_events(
    reads: Reads<'_>,
    user: UserId,
    entries: &[(Place, Entry)],
    events: &mut EncodedEvents,
) -> Result<(), ReadError> {
    events.reserve(entries.len(), LIKELY_BYTES * entries.len());
    let mut bodies = Vec::with_capacity(entries.len());
    for (place, entry) in entries {
        let (conversation, seq, nonce) = match entry {
            Entry::Received { conversation, seq } => (*conversation, *seq, 0),
            Entry::Own { conversation, seq, nonce, .. } => (*conversation, *seq, nonce.0),
            Entry::Notice(notice) => {
                let at = place.seq;
                let damaged = || ReadError::Corrupt(format!("inbox of user {user} at {at}"));
                events.push_notice(*place, notice).ok_or_else(damaged)?;
                continue;
            }
        };
        bodies.push(Body { conversation, seq, nonce, event: events.len() });
        events.push_message(*place);
    }
    // As their rows stand: by conversation, and there the newest first.
    bodies.sort_unstable_by_key(|body| (body.conversation, Reverse(body.seq)));
    read_bodies(reads, &bodies, events)
}

/// A message that an event of an inbox refers to.
#[derive(Clone, Copy, Debug)]
struct Body {
    conversation: ConversationId,
    seq: u64,
    nonce: u64,
    /// Place of the event among those that were read.
    event: usize,
}

impl Body {
    fn key(&self) -> LogKey {
        layout::message_key(self.conversation, self.seq)
    }
}

/// Gives events their messages, which are in the order of their keys: one range per conversation.
fn read_bodies(
    reads: Reads<'_>,
    bodies: &[Body],
    events: &mut EncodedEvents,
) -> Result<(), ReadError> {
    let conversations = bodies.chunk_by(|one, next| one.conversation == next.conversation);
    let range = |bodies: &[Body]| {
        // None of them is empty.
        let (newest, oldest) = (bodies[0], bodies[bodies.len() - 1]);
        message_range(newest.conversation, oldest.seq.saturating_sub(1), newest.seq)
    };
    let ranges: Vec<_> = conversations.map(range).collect();
    let mut wanted = bodies.iter().peekable();
    reads.scan_ranges(Family::Message, &ranges, |key, value| {
        // Those between that are none of this inbox are passed over.
        let Some(body) = wanted.next_if(|body| key == body.key()) else {
            return Some(ControlFlow::Continue(()));
        };
        let Body { conversation, seq, nonce, event } = *body;
        let row = MessageRow::decode(conversation, value)?;
        events.tell(event, row.parts(conversation, seq, nonce));
        // Not a step too far: it may be one into a block that nobody needs.
        let more = wanted.peek().is_some_and(|next| next.conversation == conversation);
        Some(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    match wanted.next() {
        Some(Body { conversation, seq, .. }) => {
            Err(hole("conversation", conversation.0, seq.saturating_sub(1), *seq))
        }
        None => Ok(()),
    }
}

/// What was read of many messages, in one piece of memory: it is made by one thread and given back
/// by another, which costs an allocator the most.
#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    /// Whose each is, and where it ends; it begins where that before it ends.
    ends: Vec<(usize, usize)>,
}

impl Contents {
    fn take(&mut self, owner: usize, content: &[u8]) {
        self.bytes.extend_from_slice(content);
        self.ends.push((owner, self.bytes.len()));
    }

    /// Gives each owner what is its own.
    fn give(self, mut each: impl FnMut(usize, Bytes)) {
        let bytes = Bytes::from(self.bytes);
        let mut begin = 0;
        for (owner, end) in self.ends {
            each(owner, bytes.slice(begin..end));
            begin = end;
        }
    }
}

/// The entries of (after, to], ascending: one for every seq, up to the end of the inbox. And
/// where the newest row ends that begins at or below `to`: as events are dense, the inbox ends
/// there too if that is below `to`.
fn entries(
    reads: Reads<'_>,
    user: UserId,
    after: u64,
    to: u64,
) -> Result<(Vec<(Place, Entry)>, Place), ReadError> {
    let next = after.saturating_add(1);
    let mut found = Vec::with_capacity((to - after) as usize);
    let mut end = None;
    logs::rows_down_from(reads, user, to, |row| {
        end.get_or_insert(row.end());
        let known = found.len();
        row.each_entry(|seq, entry| {
            if (next..=to).contains(&seq) {
                found.push((Place::new(seq, row.epoch), entry));
            }
        })?;
        found[known..].reverse();
        Some(if row.first <= next { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    found.reverse();
    let end = end.unwrap_or(Place::START);
    let dense = found.iter().map(|(place, _)| place.seq).eq(next..=to.min(end.seq));
    if dense { Ok((found, end)) } else { Err(hole("inbox", u64::from(user.0), after, to)) }
}

/// Where the messages of (after, to] stand, newest first.
fn message_range(conversation: ConversationId, after: u64, to: u64) -> Range<LogKey> {
    // The key of seq 0, which no message has, is after the key of seq 1.
    layout::message_key(conversation, to)..layout::message_key(conversation, after)
}

fn page(reads: Reads<'_>, request: &HistoryRequest) -> Result<Page, ReadError> {
    let HistoryRequest { conversation, user, direction, limit } = *request;
    let last = logs::conversation_head(reads, conversation)?;
    let limit = u64::from(limit);
    let (after, to, more) = match direction {
        PageDirection::Before(seq) => {
            let to = last.min(seq.saturating_sub(1));
            let after = to.saturating_sub(limit);
            (after, to, after > 0)
        }
        PageDirection::After(seq) => {
            let to = last.min(seq.saturating_add(limit));
            (seq, to, to < last)
        }
    };
    let mut found: Vec<wire::Message> = Vec::new();
    if after < to {
        let mut contents = Contents::default();
        let Range { start, end } = message_range(conversation, after, to);
        reads.scan(Family::Message, &start, &end, |key, value| {
            let (seq, row) = (layout::seq_of(key)?, MessageRow::decode(conversation, value)?);
            contents.take(found.len(), row.content);
            // The content comes once all are known.
            found.push(row.parts(conversation, seq, 0).to_wire(Bytes::new()));
            Some(ControlFlow::Continue(()))
        })?;
        contents.give(|message, content| found[message].content = content);
        found.reverse();
    }
    Ok(Page { conversation, messages: found, more, head: logs::inbox_head(reads, user)? })
}

fn hole(what: &str, of: u64, after: u64, to: u64) -> ReadError {
    ReadError::Corrupt(format!("{what} {of} has a hole in ({after}, {to}]"))
}
