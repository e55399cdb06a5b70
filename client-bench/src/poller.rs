//! Readiness of many links: level-triggered epoll, so that one read a wake-up suffices.

use rustix::{
    event::{Timespec, epoll},
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// Events taken in one turn.
const EVENTS_PER_TURN: usize = 1_024;

/// A set of descriptors, each known by a number of the caller's.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// What a descriptor is watched for. That the peer is gone shows as readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    Read,
    ReadAndWrite,
    Nothing,
}

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub index: usize,
    pub readable: bool,
    pub writable: bool,
}

impl Watch {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Watch::Nothing => epoll::EventFlags::empty(),
            Watch::Read => epoll::EventFlags::IN,
            Watch::ReadAndWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

impl Poller {
    pub fn new() -> io::Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Poller { epoll, events: Vec::with_capacity(EVENTS_PER_TURN) })
    }

    pub fn add(&self, source: impl AsFd, index: usize, watch: Watch) -> io::Result<()> {
        let data = epoll::EventData::new_u64(index as u64);
        Ok(epoll::add(&self.epoll, source, data, watch.flags())?)
    }

    pub fn watch(&self, source: impl AsFd, index: usize, watch: Watch) -> io::Result<()> {
        let data = epoll::EventData::new_u64(index as u64);
        Ok(epoll::modify(&self.epoll, source, data, watch.flags())?)
    }

    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// Waits until something is ready or `timeout` is over (`None`: for ever); says how many
    /// are ready.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The `position`th of those that the last wait found.
    pub fn ready(&self, position: usize) -> Ready {
        let event = self.events[position];
        let gone = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let flags = event.flags;
        Ready {
            index: event.data.u64() as usize,
            readable: flags.intersects(epoll::EventFlags::IN | gone),
            writable: flags.intersects(epoll::EventFlags::OUT),
        }
    }
}
