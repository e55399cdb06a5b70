//! Which rare branches the seeds came through, and how often. One that no seed reaches is a gap
//! in the simulation.

macro_rules! branches {
    ($($name:ident = $words:literal,)*) => {
        /// Something that seldom happens and must have been tried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Branch { $($name,)* }

        impl Branch {
            pub const ALL: &[Branch] = &[$(Branch::$name,)*];

            /// What it is, in words.
            pub fn words(self) -> &'static str {
                match self { $(Branch::$name => $words,)* }
            }
        }
    };
}

branches! {
    MessageAcknowledged = "a message was acknowledged",
    BufferedAcknowledged = "a buffered message was acknowledged",
    MessageRefused = "a message was refused for good",
    RetryableRefusal = "the door refused for now",
    ReceiptSeen = "a delivered receipt came",
    ConnectionMoved = "a connection moved to another shard",
    MoveWaited = "a lane between shards was full",
    DeliveryFolded = "deliveries were folded to heads",
    CreditsUsedUp = "a shard had no credit left",
    CacheMissed = "a question went to a reader",
    QuestionWaited = "a question waited for a reader",
    WriteBlocked = "a connection had no room to write",
    ReadStopped = "the server stopped reading from a connection",
    BatchBesideSync = "a batch was written while a sync was under way",
    Forgotten = "the sequencer forgot what was not used",
    RepeatAnswered = "a send was answered from what was there",
    DiskFullRefused = "the disk was full",
    WriteFailed = "a write failed",
    SyncFailed = "a sync failed",
    SyncSlow = "a sync took seconds",
    StorePoisoned = "the store was poisoned",
    OpeningFailed = "the store did not open",
    ShardPaused = "a shard that had something to do stood still",
    Killed = "the server was killed",
    PowerCut = "the power failed",
    BatchesLost = "a power cut lost batches",
    ShutDown = "the server ended well",
    Restored = "the database was restored from a backup",
    ClockSteppedBack = "the server's clock stepped back",
    Unreachable = "a device did not reach the server",
    LinkCut = "a connection was cut",
    LinkDead = "a connection died, and nobody heard of it",
    LinkStalled = "bytes stood still",
    Rewound = "a device was rewound",
    Reset = "a device was reset",
    MessageLost = "a message came back: the server had it and lost it",
    MessageStale = "a message came back: its number was too old to tell",
    Renumbered = "a message got a new number: a copy of the device had used it",
    Replaced = "a connection was replaced by another copy of the device",
    ResumedInDoubt = "a device reconnected with sends without an answer",
    GapSynced = "a device asked for a gap",
    FoundSilent = "the server closed a silent connection",
    FoundDead = "a device left a silent server",
    OpeningTimedOut = "an opening took too long",
    LoginRefused = "a login was refused",
    LoginSlowed = "a login was slowed",
    Registered = "a user registered",
    LoggedInAgain = "a device logged in again",
    LoggedOut = "a device logged out",
    TokenRevoked = "a token was no longer taken",
    TokenRefreshed = "a token was refreshed",
    PasswordChanged = "a password was changed",
    HistoryRead = "a page of history was read",
    RequestLost = "a request was lost with its connection",
    AppCrashed = "an app was killed",
    StoreFailed = "the store of a device failed",
    PhoneRestored = "a device was restored from its backup",
    ProfileCopied = "a profile was copied",
    WindowClosed = "an app did not take its events",
    RateLimited = "a device sent too much",
    NewDevice = "a user logged in on a new device",
}

/// How often each was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    counts: [u64; Branch::ALL.len()],
}

impl Default for Coverage {
    fn default() -> Self {
        Coverage { counts: [0; Branch::ALL.len()] }
    }
}

impl Coverage {
    pub fn reach(&mut self, branch: Branch) {
        self.add(branch, 1);
    }

    pub fn add(&mut self, branch: Branch, times: u64) {
        self.counts[branch as usize] += times;
    }

    pub fn of(&self, branch: Branch) -> u64 {
        self.counts[branch as usize]
    }

    /// Adds what another run reached.
    pub fn merge(&mut self, other: &Coverage) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }

    /// What was never reached, and could have been: of all servers only one with a defect passes
    /// over an event, which tests/planted.rs has it do.
    pub fn gaps(&self) -> impl Iterator<Item = Branch> {
        let could_be = |&branch: &Branch| branch != Branch::GapSynced;
        Branch::ALL.iter().copied().filter(could_be).filter(|&branch| self.of(branch) == 0)
    }
}
