//! What may spoil a run, found before it begins.

use crate::{
    arguments::Target,
    fleet::Crew,
    machine,
    scenario::Scenario,
    sources::{MAX_PER_SOURCE, Sources},
};
use anyhow::{Context, Result, ensure};
use std::{fs, net::TcpStream, time::Duration};

/// Files this process needs besides its connections.
const RESERVE: usize = 100;

/// The crew, with as many processes as the limit of open files makes necessary if none were asked
/// for.
///
/// # Errors
/// Those that were asked for may not open that many files.
pub fn enough(scenario: &Scenario, crew: &Crew) -> Result<Crew> {
    let connections = scenario.connections();
    let files = machine::raise_file_limit()?.saturating_sub(RESERVE).max(1);
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

/// Looks at this machine, the server's address and the scenario.
///
/// # Errors
/// Something that makes the run impossible.
pub fn examine(scenario: &Scenario, target: &Target, crew: &Crew) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let here = scenario.connections() * crew.processes / crew.size();
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
