//! Catching up: devices that lost everything log in, and are sent their whole inbox.

use crate::{
    arguments::Target,
    crowd::Crowd,
    dialect::{Class, Starling},
    machine::{self, Cpu},
    operator::Operator,
    sources::Sources,
    users::Users,
};
use anyhow::{Result, ensure};
use serde::Serialize;
use starling_codec::{Epoch, EpochTag, Place, limits};

/// How fast inboxes were sent.
#[derive(Clone, Debug, Serialize)]
pub struct CaughtUp {
    pub devices: usize,
    pub events: u64,
    /// That the server read at once, on the average.
    pub events_per_page: f64,
    pub events_per_s: f64,
    pub server_cpu_us_per_event: Option<f64>,
    pub generator_cores: f64,
}

/// Logs the users at `indices` in as if their devices were new, and waits until all have
/// everything.
pub fn from_nothing(
    target: &Target,
    indices: impl Iterator<Item = usize> + Clone,
) -> Result<CaughtUp> {
    machine::raise_file_limit()?;
    let mut roster = Users::open(target.users.as_deref())?.list.part(indices);
    for index in 0..roster.len() {
        roster.users[index].set_cursor(Place::START);
        roster.welcomed(index, (Epoch(0), EpochTag(0)));
    }
    let devices = roster.len();
    let heartbeat_s = (limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S);
    let dialect = Starling::new(roster, 0, Class::Durable, heartbeat_s);
    let mut crowd = Crowd::new(dialect, target.server, Sources::default())?;
    let mut operator = Operator::connect(target.server, &target.operator_key)?;
    let counted = operator.counters()?;
    let (begun, begun_ns) = (Cpu::now(target.server_pid)?, crowd.clock.now_ns());
    let mut gaps = 0;
    crowd.grow_to(devices, &mut |_, heard| gaps += heard.gaps)?;
    let seconds = (crowd.clock.now_ns() - begun_ns) as f64 / 1e9;
    let cpu = Cpu::now(target.server_pid)?.since(begun);
    ensure!(gaps == 0, "{gaps} gaps while catching up");
    let risen = operator.counters()?.since(&counted);
    let events = crowd.finish().users.users.iter().map(|user| user.cursor().seq).sum::<u64>();
    // One question of each device is for its state.
    let pages = risen.get("shard reads").saturating_sub(devices as u64).max(1);
    Ok(CaughtUp {
        devices,
        events,
        events_per_page: risen.get("shard events_read") as f64 / pages as f64,
        events_per_s: events as f64 / seconds,
        server_cpu_us_per_event: cpu.server_s.map(|server_s| 1e6 * server_s / events.max(1) as f64),
        generator_cores: cpu.own_s / seconds,
    })
}
