//! A result as files: for programs (JSON, CSV, HDR) and for people (one page).

use crate::{
    latency::Latencies,
    load::Second,
    workflow::{Round, RunReport},
};
use anyhow::{Context, Result};
use hdrhistogram::serialization::{V2Serializer, interval_log::IntervalLogWriterBuilder};
use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

/// Writes `result.json`, `series.csv`, `latency.csv` and `latency.hlog` into `directory`.
///
/// # Errors
/// The directory cannot be written to.
pub fn write(report: &RunReport, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let put = |name: &str, text: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put("result.json", serde_json::to_string_pretty(report)?.as_bytes())?;
    put("series.csv", series(report).as_bytes())?;
    put("latency.csv", latency(report).as_bytes())?;
    put("latency.hlog", &hdr_log(report)?)?;
    put("report.html", super::page::page(report).as_bytes())?;
    eprintln!("result in {}", directory.display());
    Ok(())
}

/// The histograms of a round, each named by its phase and kind.
pub fn histograms(round: &Round) -> impl Iterator<Item = (&str, &'static str, &Latencies)> {
    round.measured.phases.iter().filter(|phase| phase.phase.measured).flat_map(|phase| {
        let kinds = [
            ("acknowledgement", &phase.acknowledgement),
            ("durable-acknowledgement", &phase.durable),
            ("delivery", &phase.delivery),
            ("service", &phase.service),
            ("lag", &phase.lag),
            ("returning", &phase.returning),
        ];
        let name = phase.phase.name.as_str();
        let kept = kinds.into_iter().filter(|(_, latencies)| latencies.count() > 0);
        kept.map(move |(kind, latencies)| (name, kind, latencies))
    })
}

/// A line for each second: what happened, and how the server was.
fn series(report: &RunReport) -> String {
    let mut text = String::from(
        "round,second,sent,acknowledged,delivered,returned,errors,delivery_p50_us,delivery_p99_us,\
         delivery_max_us,server_cores,server_bytes,commands_per_batch\n",
    );
    for (round, number) in report.rounds.iter().zip(1..) {
        for (second, at) in round.measured.series.iter().zip(0usize..) {
            let Second { sent, acknowledged, delivered, returned, errors, delivery } = second;
            let delivery = delivery.as_ref().map(|delivery| delivery.percentiles());
            let us = |of: fn(crate::latency::Percentiles) -> f64| {
                delivery.map_or(String::new(), |delivery| format!("{:.1}", of(delivery)))
            };
            let sample = round.samples.get(at);
            let cell =
                |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{number},{at},{sent},{acknowledged},{delivered},{returned},{errors},{},{},{},{},{},{}",
                us(|all| all.p50_us),
                us(|all| all.p99_us),
                us(|all| all.max_us),
                cell(sample.and_then(|sample| sample.server_cores)),
                sample
                    .and_then(|sample| sample.server_bytes)
                    .map_or(String::new(), |bytes| bytes.to_string()),
                cell(sample.and_then(|sample| sample.commands_per_batch)),
            );
        }
    }
    text
}

/// A line for each step of a histogram: which part of all was no slower.
fn latency(report: &RunReport) -> String {
    let mut text = String::from("round,phase,kind,percentile,latency_us,count\n");
    for (round, number) in report.rounds.iter().zip(1..) {
        for (phase, kind, latencies) in histograms(round) {
            for step in latencies.histogram().iter_quantiles(5) {
                let _ = writeln!(
                    text,
                    "{number},\"{}\",{kind},{:.5},{:.3},{}",
                    phase.replace('"', "\"\""),
                    100.0 * step.quantile_iterated_to(),
                    step.value_iterated_to() as f64 / 1e3,
                    step.count_since_last_iteration(),
                );
            }
        }
    }
    text
}

/// The log format of HdrHistogram: one interval a round, phase and kind, in nanoseconds.
fn hdr_log(report: &RunReport) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2Serializer::new();
    let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(report.begun_unix_s);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("starling-bench")
        .with_start_time(begun)
        .begin_log_with(&mut bytes, &mut serializer)?;
    for (round, number) in report.rounds.iter().zip(1..) {
        for (phase, kind, latencies) in histograms(round) {
            // A tag may hold neither commas nor blanks.
            let name = format!("{number}-{}-{kind}", phase.replace([' ', ','], "_"));
            let tag = hdrhistogram::serialization::interval_log::Tag::new(&name);
            let lasted = Duration::from_secs_f64(round.outcome.seconds);
            log.write_histogram(latencies.histogram(), Duration::ZERO, lasted, tag)
                .map_err(|error| anyhow::anyhow!("cannot write a histogram: {error:?}"))?;
        }
    }
    Ok(bytes)
}
