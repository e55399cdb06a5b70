//! The sequencer: the pure code that orders commands into rows and outcomes. Same rows, same
//! commands: same result. It knows no thread, no clock and no disk; what it remembers it can
//! derive again from the rows.

mod accounts;
mod messages;
mod shelf;
mod state;

use crate::{
    Family, ReadError, Rows, backend::Reads, layout, layout::MetaKey, logs, rows::encode_inbox_row,
};
use accounts::Accounts;
pub use accounts::decode_user;
use messages::Held;
use rustc_hash::FxHashMap;
use shelf::Shelf;
use starling_codec::{
    Accepted, Announcement, Command, ConversationId, Delivery, DeviceId, Epoch, ErrorCode,
    MessageId, Outcome, Submission, UserId,
};
use state::{ConversationState, NONE, Pending, UserState};

/// Ids are reserved so far ahead, in milliseconds; a restart skips at most this much of them.
const RESERVE_MS: u64 = 3_000;
/// What is remembered and was not used is looked through in steps of so many.
const SWEEP_STEPS: usize = 2_048;

/// Turns commands into rows, outcomes and deliveries.
#[derive(Debug)]
pub struct Sequencer {
    epoch: Epoch,
    users: Shelf<UserState>,
    conversations: Shelf<ConversationState>,
    hot_entries: usize,
    accounts: Accounts,
    /// No id of this millisecond or a later one was promised.
    reserved_ms: u64,
    reserved_changed: bool,
    /// Devices whose sends were refused for now: later ones must not overtake.
    held: FxHashMap<(UserId, DeviceId), Held>,
    /// Number of the batch being built, or built last.
    batch: u64,
    /// All batches up to this one are announced.
    announced: u64,
    /// Steps left of looking for what is no longer used.
    sweep_left: usize,
    rows: Rows,
    /// Slots of the users that the batch has to do with.
    touched: Vec<u32>,
    pending: Vec<Pending>,
    /// Buffers of earlier batches.
    spare: Vec<Vec<u8>>,
    tally: Tally,
}

/// What came of a batch, beside its rows.
#[derive(Debug, Default)]
pub struct Commit {
    pub number: u64,
    /// It may be announced only once it is synced.
    pub durable: bool,
    pub announcement: Announcement,
    pub tally: Tally,
}

/// A head that is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Absent {
    Inbox(UserId),
    Conversation(ConversationId),
}

/// What a command hears when the store failed before its outcome was public.
pub fn unknown_of(command: &Command) -> Outcome {
    let code = ErrorCode::UnknownOutcome;
    match command {
        Command::Append(append) => Outcome::SendRefused { send_no: append.send_no, code },
        _ => Outcome::Refused(code),
    }
}

/// As [`unknown_of`], when the outcome was there but not public.
pub fn unknown(outcome: Outcome) -> Outcome {
    let code = ErrorCode::UnknownOutcome;
    match outcome {
        Outcome::Appended(Accepted { send_no, .. })
        | Outcome::Repeated(Accepted { send_no, .. })
        | Outcome::SendRefused { send_no, .. } => Outcome::SendRefused { send_no, code },
        _ => Outcome::Refused(code),
    }
}

/// What is counted of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub folded: u64,
    pub repeats: u64,
    pub refused_disk_full: u64,
    pub evicted: u64,
}

impl Sequencer {
    /// For one epoch of a store that is open. `hot_entries`: how many users, and how many
    /// conversations, are remembered.
    pub fn new(epoch: Epoch, hot_entries: usize, reads: Reads<'_>) -> Result<Sequencer, ReadError> {
        let reserved_ms = read_high_water(reads)?;
        Ok(Sequencer {
            epoch,
            users: Shelf::default(),
            conversations: Shelf::default(),
            hot_entries,
            accounts: Accounts::new(epoch, reads)?,
            reserved_ms,
            reserved_changed: false,
            held: FxHashMap::default(),
            batch: 0,
            announced: 0,
            sweep_left: 0,
            rows: Rows::default(),
            touched: Vec::new(),
            pending: Vec::new(),
            spare: Vec::new(),
            tally: Tally::default(),
        })
    }

    /// Applies commands in order, as one batch whose rows [`Self::rows`] then has. `reads` shows
    /// all batches that were applied before. Without `room` on the disk, what adds rows is
    /// refused. An error is that a row could not be read: nothing of the batch is to be written, and
    /// nothing more may be applied.
    pub fn apply(
        &mut self,
        reads: Reads<'_>,
        commands: &mut Vec<Submission>,
        room: bool,
    ) -> Result<Commit, ReadError> {
        self.batch += 1;
        self.rows.clear();
        self.tally = Tally::default();
        let mut commit = Commit { number: self.batch, ..Commit::default() };
        commit.announcement.outcomes.reserve_exact(commands.len());
        for Submission { origin, command } in commands.drain(..) {
            let (outcome, durable) = self.apply_one(reads, command, room)?;
            commit.durable |= durable;
            commit.announcement.outcomes.push((origin, outcome));
        }
        self.finish(&mut commit);
        Ok(commit)
    }

    /// The outcome of a command, and whether it waits for the disk.
    fn apply_one(
        &mut self,
        reads: Reads<'_>,
        command: Command,
        room: bool,
    ) -> Result<(Outcome, bool), ReadError> {
        let adds_rows = !matches!(command, Command::SetPassword { .. } | Command::Revoke { .. });
        if adds_rows && !room && !matches!(command, Command::Append(_)) {
            self.tally.refused_disk_full += 1;
            return Ok((Outcome::Refused(ErrorCode::DiskFull), false));
        }
        Ok(match command {
            Command::Append(append) => self.append(reads, append, room)?,
            Command::Advance { user, device, cursor, notices } => {
                self.advance(reads, user, device, cursor)?;
                for notice in notices {
                    self.tell(reads, notice)?;
                }
                (Outcome::Done, false)
            }
            Command::CreateUsers { drafts, time_ms } => {
                (self.accounts.create_users(reads, drafts, time_ms)?, true)
            }
            Command::OpenDevice { user, device, platform, time_ms } => {
                (self.accounts.open_device(reads, user, device, platform, time_ms)?, true)
            }
            Command::SetPassword { user, keep, password_hash } => {
                (self.accounts.set_password(reads, user, keep, password_hash)?, true)
            }
            Command::Revoke { user, device } => (self.accounts.revoke(reads, user, device)?, true),
        })
    }

    /// The rows of the batch applied last, sorted.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Batches up to this one are announced: what only they had to do with may be forgotten.
    pub fn announced(&mut self, batch: u64) {
        self.announced = batch;
    }

    /// Begins to forget what was not used since this was called last; the next batches do it,
    /// empty ones too.
    pub fn age(&mut self) {
        self.sweep_left = self.users.len().max(self.conversations.len());
    }

    /// Whether an empty batch would get on with forgetting.
    pub fn aging(&self) -> bool {
        self.sweep_left > 0
    }

    /// How many users and conversations are remembered.
    pub fn hot(&self) -> (usize, usize) {
        (self.users.len(), self.conversations.len())
    }

    /// Derives what sends need and memory lacks, from reads that are confined to memory. What they
    /// do not show is returned: it is read when the commands are applied.
    pub fn preload(
        &mut self,
        cached: Reads<'_>,
        commands: &[Submission],
    ) -> Result<Vec<Absent>, ReadError> {
        let mut absent = Vec::new();
        for Submission { command, .. } in commands {
            let Command::Append(append) = command else { continue };
            let conversation = append.conversation;
            if !self.conversations.contains(conversation.0) {
                match logs::conversation_head(cached, conversation) {
                    Ok(head) => {
                        let state = ConversationState { head, batch: self.batch };
                        self.conversations.insert(conversation.0, state);
                    }
                    Err(ReadError::Incomplete) => absent.push(Absent::Conversation(conversation)),
                    Err(error) => return Err(error),
                }
            }
            for user in append.recipients.iter() {
                if self.users.contains(u64::from(user.0)) {
                    continue;
                }
                match logs::inbox_head(cached, user) {
                    Ok(head) => {
                        self.users.insert(u64::from(user.0), UserState::derived(head));
                    }
                    Err(ReadError::Incomplete) => absent.push(Absent::Inbox(user)),
                    Err(error) => return Err(error),
                }
            }
        }
        absent.sort_unstable();
        absent.dedup();
        Ok(absent)
    }

    /// Reserves ids up to and beyond this one. Reserving anew makes the batch wait for the disk,
    /// so that no id is promised whose reservation a power cut could take back.
    fn reserve(&mut self, id: MessageId) -> bool {
        let time_ms = id.time_ms();
        if time_ms + RESERVE_MS / 2 < self.reserved_ms {
            return false;
        }
        self.reserved_ms = time_ms + RESERVE_MS;
        self.reserved_changed = true;
        true
    }

    fn finish(&mut self, commit: &mut Commit) {
        self.accounts.write(&mut self.rows);
        if std::mem::take(&mut self.reserved_changed) {
            let reserved_ms = self.reserved_ms;
            self.rows.put(Family::Meta, &MetaKey::HighWater.bytes(), |out| {
                out.extend_from_slice(&reserved_ms.to_le_bytes());
            });
        }
        commit.announcement.deliveries.reserve_exact(self.pending.len());
        for at in 0..self.touched.len() {
            let slot = self.touched[at] as usize;
            let user = UserId(self.users.key(slot) as u32);
            let state = self.users.at(slot);
            if state.pending != NONE {
                let pending = &mut self.pending[state.pending as usize];
                messages::append_notices(pending, state, self.epoch);
                state.pending = NONE;
                state.rows += 1;
                let key = layout::inbox_key(user, pending.first);
                let events = pending.events.len() as u64;
                self.rows.put(Family::Inbox, &key, |out| {
                    encode_inbox_row(self.epoch, events, &pending.entries, out);
                });
                commit
                    .announcement
                    .deliveries
                    .push(Delivery { user, events: std::mem::take(&mut pending.events) });
            }
            state.write_due(user, &mut self.rows);
        }
        self.touched.clear();
        for pending in self.pending.drain(..) {
            self.spare.push(pending.entries);
        }
        self.sweep();
        self.rows.sort();
        commit.tally = self.tally;
    }

    /// Lets go of what is not used, as much as is due.
    fn sweep(&mut self) {
        let over = self.users.len().max(self.conversations.len()).saturating_sub(self.hot_entries);
        let steps = if over > 0 { 2 * over + 64 } else { self.sweep_left }.min(SWEEP_STEPS);
        if steps == 0 {
            return;
        }
        self.sweep_left = self.sweep_left.saturating_sub(steps);
        let Sequencer { users, conversations, rows, announced, spare, .. } = self;
        let gone = users.sweep(steps, |key, state| {
            let goes = state.batch <= *announced;
            if goes {
                state.write_closed(UserId(key as u32), rows);
            }
            goes
        });
        let gone = gone + conversations.sweep(steps, |_, state| state.batch <= *announced);
        self.tally.evicted += gone as u64;
        if self.sweep_left == 0 && users.len() == 0 {
            *spare = Vec::new();
        }
    }
}

/// Unix milliseconds: no id of this time or a later one was promised by any epoch so far.
pub fn read_high_water(reads: Reads<'_>) -> Result<u64, ReadError> {
    let row = reads.get(Family::Meta, &MetaKey::HighWater.bytes(), |row| {
        Some(u64::from_le_bytes(row.try_into().ok()?))
    })?;
    Ok(row.unwrap_or(0))
}
