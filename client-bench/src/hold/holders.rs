//! Whoever holds a crowd: this process, or several.

use super::{HoldPlan, HoldTally, holder::Holder};
use crate::{
    arguments::Target,
    history,
    latency::Latencies,
    parts::{self, Parts, Share},
    progress::Progress,
    sources::Sources,
    users::Users,
};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::{ffi::OsString, ops::Range, time::Duration};

/// The holders of a crowd.
pub enum Holders {
    /// All in this process.
    Own(Box<Holder>),
    Others {
        parts: Parts,
        /// The devices of each.
        devices: Vec<Range<usize>>,
        progress: Progress,
    },
}

/// What a part of a crowd is told to do.
#[derive(Serialize, Deserialize)]
pub enum Order {
    /// To hold so many devices, each with its message.
    Grow(usize),
    UntilBeaten,
    /// To cut off every so many a device.
    Cut(usize),
}

/// What a part tells at its end.
#[derive(Serialize, Deserialize)]
pub struct Closing {
    pub tally: HoldTally,
    pub login: Latencies,
}

impl Holders {
    /// Splits devices and users over `processes`. User `connections + p` writes for process `p`.
    pub fn start(
        target: &Target,
        plan: &HoldPlan,
        processes: usize,
        users: &Users,
    ) -> Result<Holders> {
        let manner = plan.manner.shared_by(processes);
        let devices: Vec<Range<usize>> = parts::split(plan.connections, processes).collect();
        if processes == 1 {
            let places = places(0..plan.connections, plan.connections);
            let list = users.list.part(places.iter().cloned().flatten());
            let history = plan.history.as_deref();
            let sources = Sources::new(plan.sources.clone(), 0);
            let holder = Holder::new(target.server, list, sources, &manner, history)?;
            return Ok(Holders::Own(Box::new(holder)));
        }
        let shares = devices.iter().enumerate().map(|(index, devices)| {
            let recorded = plan.history.iter().flat_map(|path| {
                [OsString::from("--history"), history::of_part(path, index).into()]
            });
            Share {
                users: places(devices.clone(), plan.connections + index),
                // Each has a connection that writes.
                before: devices.start + index,
                arguments: manner.arguments().into_iter().map(Into::into).chain(recorded).collect(),
            }
        });
        let parts =
            Parts::start("hold-part", target.server, &plan.sources, users, shares.collect())?;
        Ok(Holders::Others { parts, devices, progress: Progress::new(plan.manner.progress) })
    }

    /// Holds the first `count` devices, each with its message.
    pub fn grow_to(&mut self, count: usize) -> Result<()> {
        match self {
            Holders::Own(holder) => holder.grow_to(count),
            Holders::Others { parts, devices, .. } => {
                let own = |Range { start, end }: &Range<usize>| count.clamp(*start, *end) - start;
                done(parts, |index| Order::Grow(own(&devices[index])))
            }
        }
    }

    /// Holds until the server answered a heartbeat of each device.
    pub fn until_beaten(&mut self) -> Result<()> {
        match self {
            Holders::Own(holder) => holder.until_beaten(),
            Holders::Others { parts, .. } => done(parts, |_| Order::UntilBeaten),
        }
    }

    /// Cuts off every `step`th device, which must come back.
    pub fn cut(&mut self, step: usize) -> Result<()> {
        match self {
            Holders::Own(holder) => holder.cut(step),
            Holders::Others { parts, .. } => done(parts, |_| Order::Cut(step)),
        }
    }

    /// Holds for `duration`.
    pub fn keep(&mut self, duration: Duration) -> Result<()> {
        match self {
            Holders::Own(holder) => holder.keep(duration),
            Holders::Others { parts, progress, .. } => {
                progress.begin("quiet");
                parts.keep(duration, |left| {
                    progress.tell(|| format!("{:.0} s left", left.as_secs_f64()));
                })
            }
        }
    }

    /// What was heard, and how long logging in took; gives `users` what their devices must
    /// remember. The devices are held until this is dropped.
    pub fn finish(&mut self, users: &mut Users) -> Result<(HoldTally, Latencies)> {
        match self {
            Holders::Own(holder) => {
                let finished = holder.finish()?;
                let devices = holder.users().len() - 1;
                users
                    .list
                    .absorb(holder.users(), places(0..devices, devices).into_iter().flatten());
                Ok(finished)
            }
            Holders::Others { parts, .. } => {
                let (mut tally, mut login) = (HoldTally::default(), Latencies::default());
                for closing in parts.finish::<Closing>(users)? {
                    tally.add(closing.tally);
                    login.merge(&closing.login);
                }
                Ok((tally, login))
            }
        }
    }
}

/// All parts do what they are told.
fn done(parts: &mut Parts, order: impl Fn(usize) -> Order) -> Result<()> {
    parts.all::<_, ()>(order).map(|_| ())
}

/// The users of a process: the writer, then the devices.
fn places(devices: Range<usize>, writer: usize) -> Vec<Range<usize>> {
    vec![writer..writer + 1, devices]
}
