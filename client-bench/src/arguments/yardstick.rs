//! The yardsticks, and the ratios to them.

use super::{load::Shape, seconds};
use crate::{
    dialect::Class,
    fleet::Crew,
    ratios::{self, RatiosPlan},
    report::{self, Report},
    yardstick::{
        frozen, fsync, idle, redis::RedisServer, relay, relay_epoll, relay_monoio, rocks::Rows,
    },
};
use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};

#[derive(Debug, Args)]
pub(super) struct Ratios {
    /// Only these, for example P5,P7.
    #[arg(long, value_name = "ID,ID", value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Measured time of each run.
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// Quiet before memory is measured.
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    quiet: f64,
    /// The server's program.
    #[arg(long, value_name = "FILE", default_value = "./bin/starling-server")]
    server: PathBuf,
    /// Where data is kept while it is needed: on the disk that is to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    #[arg(long)]
    json: bool,
}

impl Ratios {
    pub(super) fn run(self) -> Result<bool> {
        let plan = RatiosPlan {
            server: self.server,
            directory: self.directory,
            only: self.only,
            rounds: self.rounds,
            measured: seconds(self.seconds),
            quiet: seconds(self.quiet),
        };
        ratios::run(&plan, self.json)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Yardstick {
    /// Y1: holds idle sockets.
    Idle {
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        connections: usize,
        /// Quiet before each measurement.
        #[arg(long, value_name = "S", default_value_t = 2.0)]
        seconds: f64,
        /// Measure the end that connected alone too; takes a minute more.
        #[arg(long)]
        split: bool,
        #[arg(long, hide = true)]
        serve: bool,
        #[arg(long)]
        json: bool,
    },
    /// Y2: a bare relay.
    Relay {
        #[command(flatten)]
        shape: Shape,
        #[arg(long, value_enum, default_value_t = Variant::Epoll)]
        variant: Variant,
        /// Processes that share the load.
        #[arg(long, value_name = "N", default_value_t = 1)]
        processes: usize,
        /// Measures instead how fast it accepts: waves of so many connections.
        #[arg(long, value_name = "N")]
        storm: Option<usize>,
        #[arg(long, hide = true)]
        serve: bool,
        #[arg(long)]
        json: bool,
    },
    /// What measures the load tool itself: a relay that stands still for a second while messages
    /// are meant for it at a known rate.
    Frozen {
        #[arg(long)]
        json: bool,
    },
    /// Y3: RocksDB alone, given what a server wrote.
    Rocksdb {
        /// Data directory of a server that was killed under load: its log still holds the batches.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Bytes that the server made durable with one sync (its counters tell); by default every
        /// batch is synced.
        #[arg(long, value_name = "BYTES", default_value_t = 0.0)]
        bytes_per_sync: f64,
        /// Where the new database goes: on the disk of the server's data.
        #[arg(long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Y4: appends and syncs.
    Fsync {
        /// Bytes of each append.
        #[arg(long, default_value_t = 4_096)]
        bytes: usize,
        #[arg(long, value_name = "S", default_value_t = 3.0)]
        seconds: f64,
        /// Milliseconds between two of them.
        #[arg(long, value_name = "MS", default_value_t = 0.0)]
        pause: f64,
        /// Where: on the disk of the server's data.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Y5: Redis streams with appendfsync always.
    Redis {
        #[command(flatten)]
        shape: Shape,
        /// Where Redis keeps its files: on the disk of the server's data.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

/// How a relay waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    Epoll,
    Monoio,
}

impl Yardstick {
    pub(super) fn run(self) -> Result<bool> {
        // Server and load apart, as everywhere.
        let (server_core, load_core) = report::two_cores()?;
        match self {
            Yardstick::Idle { serve: true, .. } => idle::serve().map(|()| true),
            Yardstick::Idle { connections, seconds: quiet, split, json, .. } => {
                idle::measure(connections, seconds(quiet), split, server_core)?.print(json)
            }
            Yardstick::Relay { serve: true, variant: Variant::Epoll, .. } => {
                relay_epoll::serve().map(|()| true)
            }
            Yardstick::Relay { serve: true, variant: Variant::Monoio, .. } => {
                relay_monoio::serve().map(|()| true)
            }
            Yardstick::Relay { shape, variant, processes, storm, json, .. } => {
                let relay = relay::RelayServer::start(variant, server_core)?;
                report::on_core(load_core)?;
                if let Some(connections) = storm {
                    return relay.storm(connections, seconds(shape.seconds))?.print(json);
                }
                if processes > 1 {
                    let scenario = shape.scenario(Class::Buffered);
                    let crew = Crew::here(processes, Vec::new());
                    return relay.measure_with(&crew, &scenario)?.print(json);
                }
                relay.measure(&shape.plan(relay.address(), None))?.print(json)
            }
            Yardstick::Frozen { json } => {
                report::on_core(load_core)?;
                frozen::measure(server_core)?.print(json)
            }
            Yardstick::Rocksdb { data, bytes_per_sync, directory, json } => {
                report::on_core(server_core)?;
                Rows::read(&data)?.replay_best(&directory, bytes_per_sync)?.print(json)
            }
            Yardstick::Fsync { bytes, seconds: measured, pause, directory, json } => {
                fsync::measure(bytes, seconds(measured), seconds(pause / 1e3), &directory)?
                    .print(json)
            }
            Yardstick::Redis { shape, directory, json } => {
                let redis = RedisServer::start(&directory, server_core)?;
                report::on_core(load_core)?;
                // Its own address and process take the place of these.
                redis.measure(&shape.plan(SocketAddr::from(([127, 0, 0, 1], 0)), None))?.print(json)
            }
        }
    }
}
