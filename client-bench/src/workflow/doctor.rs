//! What may spoil a run, found before it begins.

use crate::{
    arguments::Target,
    fleet::Crew,
    machine,
    sources::{MAX_PER_SOURCE, Sources},
};
use anyhow::{Context, Result, ensure};
use std::{fs, net::TcpStream, time::Duration};

/// The crew, with as many processes as the limit of open files makes necessary if none were asked
/// for.
///
/// # Errors
/// Those that were asked for may not open that many files.
pub fn enough(connections: usize, crew: &Crew) -> Result<Crew> {
    let files = machine::connection_limit()?.max(1);
    let necessary = connections.div_ceil(files).saturating_sub(crew.machines);
    let least = usize::from(crew.machines == 0);
    let processes = if crew.processes == 0 { necessary.max(least) } else { crew.processes };
    let crew = Crew { processes, ..crew.clone() };
    ensure!(
        connections.div_ceil(crew.size()) <= files || crew.processes == 0,
        "{connections} connections are too many for {} processes: each may open {files} here",
        crew.size()
    );
    Ok(crew)
}

/// Looks at this machine, the server's address, and how many connections there shall be.
///
/// # Errors
/// Something that makes the run impossible.
pub fn examine(connections: usize, target: &Target, crew: &Crew) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let here = connections * crew.processes / crew.size();
    let sources = &crew.sources;
    Sources::new(sources.clone(), 0).of(target.server, here.saturating_sub(1))?;
    if !target.server.ip().is_loopback() && sources.is_empty() && here > MAX_PER_SOURCE {
        warnings.push(format!(
            "more than {MAX_PER_SOURCE} connections from one address: name several with --sources"
        ));
    }
    TcpStream::connect_timeout(&target.server, Duration::from_secs(5))
        .with_context(|| format!("no server at {}", target.server))?;
    let cores = machine::cores()?.len();
    if target.server.ip().is_loopback() && cores < 2 {
        warnings.push("server and load share the one core: rates say little".into());
    }
    let load = first_number("/proc/loadavg").unwrap_or_default();
    if load > 0.5 * cores as f64 {
        warnings.push(format!("this machine is busy already: load {load} on {cores} cores"));
    }
    if let Some(text) = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        && text != "performance"
    {
        warnings.push(format!("the processor's clock is governed by \"{text}\""));
    }
    if target.server_pid.is_none() {
        warnings.push("without --server-pid the server's processor time is unknown".into());
    }
    Ok(warnings)
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn first_number(path: &str) -> Option<f64> {
    read(path)?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{SocketAddr, TcpListener},
        path::PathBuf,
    };

    fn target(server: SocketAddr) -> Target {
        Target { server, operator_key: PathBuf::new(), users: None, server_pid: None }
    }

    #[test]
    fn as_many_processes_are_taken_as_the_limit_of_open_files_makes_necessary() {
        let files = machine::connection_limit().unwrap();
        let processes = |connections, asked, machines| {
            let crew = Crew { machines, ..Crew::here(asked, Vec::new()) };
            enough(connections, &crew).map(|crew| (crew.processes, crew.machines))
        };
        assert_eq!(processes(files, 0, 0).unwrap(), (1, 0));
        assert_eq!(processes(files + 1, 0, 0).unwrap(), (2, 0));
        assert_eq!(processes(5 * files, 0, 0).unwrap(), (5, 0));
        // Other machines take their share.
        assert_eq!(processes(5 * files, 0, 3).unwrap(), (2, 3));
        assert_eq!(processes(10, 0, 2).unwrap(), (0, 2));
        assert_eq!(processes(10, 4, 0).unwrap(), (4, 0));
        let error = processes(2 * files + 1, 2, 0).unwrap_err().to_string();
        assert!(error.contains("too many for 2 processes"), "{error}");
    }

    #[test]
    fn what_cannot_work_is_said_before_anything_is_touched() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let crew = Crew::here(1, vec![[127, 0, 0, 5].into()]);
        let error = examine(MAX_PER_SOURCE + 1, &target(server), &crew).unwrap_err();
        assert!(error.to_string().contains("source addresses are too few"), "{error}");
        let warnings = examine(MAX_PER_SOURCE, &target(server), &crew).unwrap();
        assert!(warnings.iter().any(|warning| warning.contains("--server-pid")), "{warnings:?}");
        drop(listener);
        let error = examine(1, &target(server), &crew).unwrap_err();
        assert!(error.to_string().contains("no server at"), "{error}");
    }
}
