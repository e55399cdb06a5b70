//! What the settings mean: nothing is absent any more, and what contradicts itself is refused.

use super::{CommandLine, LogFormat, Written};
use crate::failure::Failure;
use starling_codec::limits;
use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf};

/// The settings of a running server.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    /// One thread each, on the processor of the same index in `processors`, going round.
    pub shards: NonZeroU16,
    /// Those this process may run on.
    pub processors: Vec<usize>,
    pub log_filter: String,
    pub log_format: LogFormat,
    /// As asked for; the limit on open files may leave less.
    pub max_connections: u32,
    pub block_cache_bytes: usize,
    pub memtable_bytes: usize,
    pub readers: usize,
    pub hashing_threads: usize,
    /// Of each shard.
    pub credits: u32,
    /// 0: no limit.
    pub sends_per_second: u32,
    pub heartbeat_s: u32,
    pub token_lifetime_s: u32,
}

const MIB: usize = 1024 * 1024;
/// A message id has 8 bits for the shard that made it.
const MAX_SHARDS: u16 = 256;

impl Settings {
    /// Reads the file that the command line names, and resolves all of it.
    ///
    /// # Errors
    /// The file cannot be read or understood, or a setting has a value it cannot have.
    pub fn gather(command_line: CommandLine) -> Result<Settings, Failure> {
        let file = match &command_line.config {
            Some(path) => read_file(path)?,
            None => Written::default(),
        };
        resolve(command_line.written.over(file).over(Written::defaults()))
    }
}

/// Reads a settings file.
///
/// # Errors
/// It cannot be read, is not TOML, or has a key that is no setting.
pub fn read_file(path: &std::path::Path) -> Result<Written, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::Settings {
        what: format!("cannot read the settings file {}: {error}", path.display()),
    })?;
    toml::from_str(&text).map_err(|error| Failure::Settings {
        // One line: where, and what.
        what: format!(
            "the settings file {} is wrong{}: {}",
            path.display(),
            error.span().map_or_else(String::new, |span| {
                format!(" in line {}", text[..span.start].matches('\n').count() + 1)
            }),
            error.message().lines().next().unwrap_or_default()
        ),
    })
}

fn resolve(written: Written) -> Result<Settings, Failure> {
    // Every setting unwrapped here has a default in its definition, which lies at the bottom.
    const DEFAULTED: &str = "a setting with a default";
    let processors = crate::shard::affinity::processors();
    let shards = written.shards.unwrap_or(processors.len().min(usize::from(MAX_SHARDS)) as u16);
    let settings = Settings {
        listen: written.listen.expect(DEFAULTED),
        data_dir: written.data.expect(DEFAULTED),
        shards: NonZeroU16::new(shards)
            .filter(|shards| shards.get() <= MAX_SHARDS)
            .ok_or_else(|| wrong(format!("shards is {shards}; it must be 1 to {MAX_SHARDS}")))?,
        hashing_threads: written.hashing_threads.map_or(processors.len().min(2), usize::from),
        processors,
        log_filter: written.log.expect(DEFAULTED),
        log_format: written.log_format.expect(DEFAULTED),
        max_connections: written.max_connections.unwrap_or(u32::MAX),
        block_cache_bytes: written.block_cache_mib.expect(DEFAULTED) as usize * MIB,
        memtable_bytes: written.memtable_mib.expect(DEFAULTED) as usize * MIB,
        readers: usize::from(written.readers.expect(DEFAULTED)),
        credits: written.credits.expect(DEFAULTED),
        sends_per_second: written.sends_per_second.expect(DEFAULTED),
        heartbeat_s: written.heartbeat_s.expect(DEFAULTED),
        token_lifetime_s: written.token_lifetime_s.expect(DEFAULTED),
    };
    check(&settings, written.allow_plaintext.expect(DEFAULTED))?;
    Ok(settings)
}

fn check(settings: &Settings, allow_plaintext: bool) -> Result<(), Failure> {
    if !settings.listen.ip().is_loopback() && !allow_plaintext {
        return Err(Failure::Plaintext { listen: settings.listen });
    }
    let heartbeats_s = limits::MIN_HEARTBEAT_S..=limits::MAX_HEARTBEAT_S;
    if !heartbeats_s.contains(&settings.heartbeat_s) {
        return Err(wrong(format!(
            "heartbeat_s is {}; it must be {} to {}",
            settings.heartbeat_s,
            heartbeats_s.start(),
            heartbeats_s.end()
        )));
    }
    let at_least_one = [
        ("max_connections", u64::from(settings.max_connections)),
        ("block_cache_mib", settings.block_cache_bytes as u64),
        ("memtable_mib", settings.memtable_bytes as u64),
        ("readers", settings.readers as u64),
        ("hashing_threads", settings.hashing_threads as u64),
        ("credits", u64::from(settings.credits)),
        ("token_lifetime_s", u64::from(settings.token_lifetime_s)),
    ];
    match at_least_one.into_iter().find(|(_, value)| *value == 0) {
        Some((name, _)) => Err(wrong(format!("{name} is 0; it must be at least 1"))),
        None => Ok(()),
    }
}

fn wrong(what: String) -> Failure {
    Failure::Settings { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(change: impl FnOnce(&mut Written)) -> Result<Settings, Failure> {
        let mut written = Written::defaults();
        change(&mut written);
        resolve(written)
    }

    #[test]
    fn the_defaults_are_a_server_on_loopback() {
        let settings = written(|_| {}).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7400");
        assert_eq!(usize::from(settings.shards.get()), settings.processors.len().min(256));
    }

    #[test]
    fn plain_text_leaves_the_machine_only_when_allowed() {
        let beyond = Some("0.0.0.0:7400".parse().unwrap());
        let refused = written(|written| written.listen = beyond);
        assert!(matches!(refused, Err(Failure::Plaintext { .. })));
        let allowed = written(|written| {
            written.listen = beyond;
            written.allow_plaintext = Some(true);
        });
        assert!(allowed.is_ok());
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(written(|written| written.shards = Some(0)).is_err());
        assert!(written(|written| written.shards = Some(257)).is_err());
        assert!(written(|written| written.credits = Some(0)).is_err());
        assert!(written(|written| written.heartbeat_s = Some(19)).is_err());
        assert!(written(|written| written.heartbeat_s = Some(901)).is_err());
    }
}
