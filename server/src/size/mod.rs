//! `starling-server size`: what a number of connections and messages needs. Arithmetic on the
//! figures of [`measured`], and nothing else: it looks at no machine.

pub mod measured;
mod report;

pub use report::{per_unit, table};

use crate::{settings::Written, system};
use clap::Args;
use measured as m;
use serde::Serialize;

const MIB: u64 = 1 << 20;
/// What a message costs on disk beside its payload: ids, places and references, as in DISK_RATIO.
const ENVELOPE_BYTES: u32 = 40;
/// Processors are not to be busier than this, so that a burst finds room and latency stays low.
const BUSY: f64 = 0.5;
/// Of the memory that is needed, so much more is to be there: pages of files, buffers of sockets
/// that are in use, the rest of the system.
const MEMORY_HEADROOM: f64 = 1.25;
/// What the system itself takes, whatever runs.
const SYSTEM_BYTES: u64 = 512 * MIB;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// The profiles of tuning/profiles, each good for so many connections.
pub const PROFILES: [(&str, u32); 4] =
    [("10k", 10_000), ("100k", 100_000), ("1m", 1_000_000), ("2400k", 2_400_000)];

/// What is to be held and carried.
#[derive(Clone, Debug, Args)]
pub struct SizeArguments {
    /// Connections held at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// 1:1 messages a second, in the busiest second
    #[arg(long, value_name = "M", default_value = "0")]
    pub messages_per_second: u32,
    /// Bytes of a message's payload
    #[arg(long, value_name = "BYTES", default_value = "128")]
    pub payload: u32,
    /// Seconds between two heartbeats of a connection
    #[arg(long, value_name = "S", default_value = "30",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub heartbeat_s: u32,
    /// One JSON object
    #[arg(long, conflicts_with = "evidence")]
    pub json: bool,
    /// List the measurements that the figures rest on, instead
    #[arg(long)]
    pub evidence: bool,
}

/// What it needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Size {
    pub connections: u32,
    pub messages_per_second: u32,
    pub payload_bytes: u32,
    pub heartbeat_s: u32,
    /// Of sockets.
    pub kernel_bytes: u64,
    /// Of the server, without its store.
    pub user_bytes: u64,
    /// Memtables and block cache, as large as the settings allow by default.
    pub store_bytes: u64,
    /// What the machine should have: the above, the system, and headroom.
    pub memory_bytes: u64,
    /// The limit on open files.
    pub open_files: u64,
    /// If the busiest second lasted all day.
    pub disk_bytes_per_day: u64,
    /// Processors' worth of work.
    pub busy_cores: f64,
    /// Processors that the machine should have.
    pub cores: u16,
    /// For all connections to be back after a restart, the server working on nothing else.
    pub log_in_again_s: f64,
    /// The folder in tuning/profiles; none is large enough if there is none.
    pub profile: Option<&'static str>,
}

impl SizeArguments {
    /// The arithmetic.
    pub fn calculate(&self) -> Size {
        let connections = f64::from(self.connections);
        let messages_per_s = f64::from(self.messages_per_second);
        let kernel_bytes = (connections * m::KERNEL_BYTES_PER_CONNECTION.value) as u64;
        let user_bytes = (connections * m::USER_BYTES_PER_CONNECTION.value
            + m::USER_BYTES_OF_AN_EMPTY_SERVER.value) as u64;
        let settings = Written::defaults();
        let mib = |setting: Option<u32>| u64::from(setting.unwrap_or(0)) * MIB;
        let store_bytes = mib(settings.memtable_mib) + mib(settings.block_cache_mib);
        let needed = kernel_bytes + user_bytes + store_bytes;
        let busy_cores = (messages_per_s * m::CPU_US_PER_MESSAGE.value
            + connections / f64::from(self.heartbeat_s) * m::CPU_US_PER_HEARTBEAT.value)
            / 1e6;
        let cores = (busy_cores / BUSY).ceil().clamp(1.0, f64::from(u16::MAX)) as u16;
        let message_bytes = m::DISK_RATIO.value * f64::from(self.payload + ENVELOPE_BYTES);
        Size {
            connections: self.connections,
            messages_per_second: self.messages_per_second,
            payload_bytes: self.payload,
            heartbeat_s: self.heartbeat_s,
            kernel_bytes,
            user_bytes,
            store_bytes,
            memory_bytes: SYSTEM_BYTES + (needed as f64 * MEMORY_HEADROOM) as u64,
            open_files: system::files_needed(self.connections, cores),
            disk_bytes_per_day: (messages_per_s * message_bytes * SECONDS_PER_DAY) as u64,
            busy_cores,
            cores,
            log_in_again_s: connections * m::CPU_US_PER_LOGIN.value / 1e6 / f64::from(cores),
            profile: PROFILES
                .iter()
                .find(|(_, most)| self.connections <= *most)
                .map(|(name, _)| *name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(connections: u32, messages_per_second: u32) -> Size {
        SizeArguments {
            connections,
            messages_per_second,
            payload: 128,
            heartbeat_s: 30,
            json: false,
            evidence: false,
        }
        .calculate()
    }

    #[test]
    fn a_connection_costs_what_was_measured() {
        let (few, many) = (size(10_000, 0), size(1_010_000, 0));
        let per = |many: u64, few: u64| (many - few) as f64 / 1e6;
        assert_eq!(per(many.kernel_bytes, few.kernel_bytes), m::KERNEL_BYTES_PER_CONNECTION.value);
        assert_eq!(per(many.user_bytes, few.user_bytes), m::USER_BYTES_PER_CONNECTION.value);
        assert_eq!(many.store_bytes, few.store_bytes);
        assert!(many.memory_bytes > many.kernel_bytes + many.user_bytes + many.store_bytes);
    }

    #[test]
    fn messages_cost_disk_and_cores_and_connections_do_not_cost_disk() {
        let idle = size(100_000, 0);
        let busy = size(100_000, 10_000);
        assert_eq!(idle.disk_bytes_per_day, 0);
        let per_message = busy.disk_bytes_per_day as f64 / (10_000.0 * SECONDS_PER_DAY);
        assert!(per_message >= 168.0, "{per_message}");
        let added = busy.busy_cores - idle.busy_cores;
        assert!((added - 0.01 * m::CPU_US_PER_MESSAGE.value).abs() < 1e-9);
        assert!(f64::from(busy.cores) * BUSY >= busy.busy_cores);
    }

    #[test]
    fn what_it_asks_of_files_the_server_finds_enough() {
        for connections in [1, 1_000, 10_000, 1_000_000, 2_400_000] {
            let size = size(connections, 0);
            let budget = system::share_out(size.open_files, size.cores).unwrap();
            assert!(budget.max_connections >= connections, "{connections}");
        }
    }

    #[test]
    fn every_size_has_the_smallest_profile_that_fits() {
        for (connections, profile) in [
            (1, Some("10k")),
            (10_000, Some("10k")),
            (10_001, Some("100k")),
            (1_000_000, Some("1m")),
            (2_400_000, Some("2400k")),
            (2_400_001, None),
        ] {
            assert_eq!(size(connections, 0).profile, profile);
        }
    }
}
