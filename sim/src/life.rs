//! What people do, and what goes wrong.

use crate::{coverage::Branch, plan::Trouble, process::Process, profile::Profile, world::World};
use bytes::Bytes;
use starling_client::{Entry, EntryState, Outgoing, Page, Peer, Request};
use starling_codec::{ConversationId, Nonce, UserId, history::After, wire::Class};

/// With more messages unanswered, a person writes no more.
const PATIENCE: usize = 150;
/// And with so many where all goes slowly.
const SLOW_PATIENCE: usize = 10;
/// Most passwords that a person has had.
const PASSWORDS: usize = 6;

impl World {
    fn has(&self, trouble: Trouble) -> bool {
        self.stage.plan.troubles.has(trouble)
    }

    /// A person does something with one of her devices, if that one is up.
    pub(crate) fn act(&mut self, person: usize) -> bool {
        let random = &mut self.stage.random;
        let Some(number) = random.pick(&self.people[person].processes) else { return false };
        if self.processes[number].session().is_none() {
            return false;
        }
        let choice = self.stage.random.below(100);
        match choice {
            0..70 => self.write_messages(person, number),
            70..80 if self.has(Trouble::History) => self.read_history(person, number),
            80..84 => self.look_up(person, number),
            84..86 if self.has(Trouble::Passwords) => self.change_password(person, number),
            86..88 if self.has(Trouble::Logouts) => self.request(number, Request::Logout),
            88..90 => self.request(number, Request::Refresh),
            90..93 => self.quit(number),
            93..100 => self.sort_out_unsent(number),
            _ => self.write_messages(person, number),
        }
        self.pump(number);
        true
    }

    /// Somebody to talk to.
    fn peer(&mut self, person: usize) -> Option<Peer> {
        let own = self.people[person].user;
        if self.has(Trouble::Nonsense) && self.stage.random.one_in(6) {
            return Some(match self.stage.random.below(3) {
                0 => Peer::User(UserId(1_000_000)),
                1 => Peer::Conversation(ConversationId(77)),
                _ => Peer::User(own?),
            });
        }
        let others = self.people.iter().enumerate().filter(|(other, _)| *other != person);
        let others: Vec<UserId> = others.filter_map(|(_, other)| other.user).collect();
        let other = self.stage.random.pick(&others)?;
        let by_conversation = self.stage.random.one_in(4);
        Some(match own.filter(|_| by_conversation) {
            Some(own) => Peer::Conversation(ConversationId::direct(own, other)),
            None => Peer::User(other),
        })
    }

    fn write_messages(&mut self, person: usize, number: usize) {
        let waits = self.processes[number].session().map_or(0, |session| session.unanswered());
        let slow = self.has(Trouble::TinyLanes) || self.has(Trouble::SmallBuffers);
        if waits > if slow { SLOW_PATIENCE } else { PATIENCE } {
            return;
        }
        let most = if slow { self.stage.plan.burst.min(20) } else { self.stage.plan.burst };
        let burst = 1 + self.stage.random.below(most);
        let Some(to) = self.peer(person) else { return };
        for _ in 0..burst {
            let random = &mut self.stage.random;
            let nonce = Nonce(random.draw());
            // Mostly short, seldom as large as it may be.
            let most = self.stage.plan.content_bytes;
            let size = 1 + (random.below(most) * random.below(most) / most) as usize;
            let mut content = nonce.0.to_le_bytes().repeat(size.div_ceil(8));
            content.truncate(size);
            let buffered = self.has(Trouble::Buffered) && self.stage.random.chance(60);
            let class = if buffered { Class::Buffered } else { Class::Durable };
            let message = Outgoing { to, content: Bytes::from(content), class };
            // A full outbox is told to the person, who gives up.
            self.processes[number].write_message(&self.stage, nonce, message);
        }
    }

    fn request(&mut self, number: usize, request: Request) {
        // That too many wait is told to the person, who gives up.
        self.processes[number].request(&self.stage, request);
    }

    fn read_history(&mut self, person: usize, number: usize) {
        let Some(of) = self.peer(person) else { return };
        let seq = self.stage.random.range(1, 200);
        let page = match self.stage.random.below(3) {
            0 => Page::Newest,
            1 => Page::Before(seq),
            _ => Page::After(seq),
        };
        let limit = self.stage.random.range(1, 201) as u32;
        self.request(number, Request::History { of, page, limit });
    }

    fn look_up(&mut self, person: usize, number: usize) {
        let request = match (self.stage.random.below(2), self.people[person].user) {
            (0, Some(user)) => Request::NameOf(user),
            _ => Request::Resolve(self.people[person].name.clone()),
        };
        self.request(number, request);
    }

    fn change_password(&mut self, person: usize, number: usize) {
        let passwords = &mut self.people[person].passwords;
        if passwords.len() >= PASSWORDS {
            return;
        }
        let Some(old) = passwords.last().cloned() else { return };
        let new = format!("password {} of {person}", passwords.len());
        passwords.push(new.clone());
        self.stage.coverage.reach(Branch::PasswordChanged);
        self.request(number, Request::ChangePassword { old, new });
    }

    fn quit(&mut self, number: usize) {
        if let Some(session) = self.processes[number].session() {
            session.close();
        }
    }

    /// Messages that came back are sent again as new ones, or forgotten.
    fn sort_out_unsent(&mut self, number: usize) {
        let Some(session) = self.processes[number].session() else { return };
        let unsent: Vec<Entry> = session.unsent().cloned().collect();
        for entry in unsent {
            debug_assert!(matches!(entry.state, EntryState::Unsent(_)));
            if let Some(session) = self.processes[number].session() {
                session.discard(entry.nonce);
            }
            if self.stage.random.chance(70) {
                let nonce = Nonce(self.stage.random.draw());
                self.processes[number].write_message(&self.stage, nonce, entry.message);
            }
        }
    }

    /// Something goes wrong.
    pub(crate) fn fault(&mut self) {
        let troubles: Vec<Trouble> = self.stage.plan.troubles.iter().collect();
        let Some(trouble) = self.stage.random.pick(&troubles) else { return };
        self.stage.note(trouble.name(), &[]);
        match trouble {
            Trouble::Cuts => self.on_a_link(|world, link| {
                world.stage.coverage.reach(Branch::LinkCut);
                world.stage.cut(link);
            }),
            Trouble::HalfOpen => self.on_a_link(|world, link| {
                world.stage.coverage.reach(Branch::LinkDead);
                world.stage.network.link(link).dead = true;
            }),
            Trouble::Stalls => self.on_a_link(|world, link| {
                world.stage.coverage.reach(Branch::LinkStalled);
                let until_us = world.stage.now_us + world.stage.random.around(5_000_000);
                world.stage.stall(link, until_us);
            }),
            Trouble::PausedShards => {
                let until_us = self.stage.now_us + self.stage.random.around(2_000_000);
                if let Some(server) = &mut self.server {
                    let number = self.stage.random.below(server.shards.len() as u64);
                    server.shards[number as usize].paused_until_us = until_us;
                }
            }
            Trouble::Kills => {
                if self.server.is_some() {
                    self.stage.coverage.reach(Branch::Killed);
                    self.end_server(After::Kill);
                }
            }
            Trouble::PowerCuts => self.cut_power(),
            Trouble::Shutdowns => {
                if let Some(server) = &mut self.server {
                    server.shut_down(&mut self.stage);
                }
            }
            Trouble::Restores => match self.stage.random.below(3) {
                0 => self.restore(),
                _ => self.back_up(),
            },
            Trouble::FailedWrites => self.disk.fail_next_write(),
            Trouble::FailedSyncs => self.disk.fail_next_sync(),
            Trouble::FullDisks => {
                let full = self.stage.random.chance(40);
                self.disk.set_full(full);
            }
            Trouble::ClockSteps => {
                let mut by_ms = self.stage.random.below(7_200_000) as i64 - 3_600_000;
                if self.has(Trouble::Restores) {
                    // What a backup does not know of ids, only the clock still knows.
                    by_ms = by_ms.max(self.stage.clock_off_ms);
                }
                if by_ms < self.stage.clock_off_ms {
                    self.stage.coverage.reach(Branch::ClockSteppedBack);
                }
                self.stage.clock_off_ms = by_ms;
            }
            Trouble::AppCrashes => {
                let number = self.a_process();
                let off_us = self.stage.random.around(2_000_000);
                self.stage.coverage.reach(Branch::AppCrashed);
                self.processes[number].crash(&mut self.stage, off_us);
            }
            Trouble::OldPhones => self.old_phone(),
            Trouble::CopiedProfiles => self.copy_profile(),
            Trouble::SlowApps => {
                let number = self.a_process();
                let until_us = self.stage.now_us + self.stage.random.around(3_000_000);
                self.processes[number].slow_down(&mut self.stage, until_us);
            }
            Trouble::FailedStores => {
                let number = self.a_process();
                self.processes[number].profile.fail_next();
            }
            // These are there all the time.
            Trouble::Buffered
            | Trouble::History
            | Trouble::Passwords
            | Trouble::Logouts
            | Trouble::Nonsense
            | Trouble::Unreachable
            | Trouble::SmallBuffers
            | Trouble::TinyLanes
            | Trouble::RateLimit
            | Trouble::Forgetful
            | Trouble::SlowSyncs
            | Trouble::ColdCache
            | Trouble::ClockDrift => {}
        }
    }

    fn on_a_link(&mut self, fault: impl FnOnce(&mut World, usize)) {
        let alive = self.stage.network.alive();
        if let Some(link) = self.stage.random.pick(&alive) {
            fault(self, link);
        }
    }

    fn a_process(&mut self) -> usize {
        self.stage.random.below(self.processes.len() as u64) as usize
    }

    /// A device is restored from its own backup, or gets one.
    fn old_phone(&mut self) {
        let number = self.a_process();
        let process = &mut self.processes[number];
        if process.copy_of.is_some() || process.is_gone() {
            return;
        }
        match process.backup.take_if(|_| self.stage.random.chance(50)) {
            Some(backup) => {
                self.stage.coverage.reach(Branch::PhoneRestored);
                process.restore(&mut self.stage, &mut self.witness, backup);
            }
            None => {
                let backup = process.profile.backup();
                if backup.saved().identity.is_some() {
                    process.backup = Some(backup);
                }
            }
        }
    }

    /// Somebody runs a second process with a copy of a profile.
    fn copy_profile(&mut self) {
        let number = self.a_process();
        let original = &self.processes[number];
        let logged_in = |store: &starling_client::MemoryStore| {
            store.saved().identity.as_ref().is_some_and(|own| own.is_logged_in())
        };
        let copied = self.processes.iter().any(|other| other.copy_of == Some(number));
        if original.copy_of.is_some() || copied || !original.profile.look(logged_in) {
            return;
        }
        self.stage.coverage.reach(Branch::ProfileCopied);
        let (person, profile) = (original.person, Profile::new(original.profile.backup()));
        let copy_number = self.processes.len();
        let mut copy = Process::new(copy_number, person, profile, &mut self.stage);
        copy.copy_of = Some(number);
        copy.wake_at(&mut self.stage, 0);
        self.people[person].processes.push(copy_number);
        self.processes.push(copy);
    }
}
