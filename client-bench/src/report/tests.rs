//! Files and page of a made-up result.

use super::{date, files, page};
use crate::{
    dialect::Class,
    latency::Percentiles,
    load,
    machine::Machine,
    operator::Counters,
    scenario,
    schedule::Drive,
    workflow::{Round, RunReport, Sample},
};
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;
use std::{collections::BTreeMap, fs, time::Duration};

/// Of one round, in which a phase with this name was measured.
fn report(phase: &str) -> RunReport {
    let measured = load::sample(phase);
    let sample = |at_s: f64| Sample {
        at_s,
        server_cores: Some(0.25),
        machine_cores: 1.0,
        generator_cores: 0.5,
        server_bytes: Some(40_960),
        connections: 10,
        commands_per_batch: Some(7.0),
        commands_per_sync: Some(9.0),
    };
    let counters = Counters(BTreeMap::from([("committer syncs".to_owned(), 3)]));
    let round = Round {
        outcome: measured.outcome().unwrap(),
        phases: measured.outcomes(),
        opening: Percentiles::default(),
        interrupted: false,
        errors: Vec::new(),
        samples: vec![sample(1.0), sample(2.0)],
        measured,
        before: Counters::default(),
        after: counters.clone(),
    };
    let drive = Drive::Rate(1_000.0);
    RunReport {
        format: 1,
        tool: "tool 1.2 (commit abc)".into(),
        server: Some("starling-server 1.2 (commit def)".into()),
        begun_unix_s: 1_772_366_400,
        machine: Machine::this().unwrap(),
        scenario: scenario::pairs(5, drive, 128, Class::Mixed, [Duration::ZERO; 2]),
        warnings: vec!["it is <b>busy</b>".into()],
        outcome: round.outcome.clone(),
        before: Counters::default(),
        after: counters.clone(),
        risen: counters,
        rounds: vec![round],
    }
}

#[test]
fn the_page_has_every_plot_and_loads_nothing() {
    let report = report("a <script> & \"b\"");
    let html = page::page(&report);
    for title in [
        "Latency by percentile",
        "Delivery over time",
        "Throughput",
        "Processor",
        "Server memory a connection, resident",
        "Batch sizes of the store",
    ] {
        let (_, plot) = html.split_once(&format!("<figcaption>{title}</figcaption>")).expect(title);
        let (plot, _) = plot.split_once("</figure>").unwrap();
        // Something is drawn, in a colour that the page has.
        let points = plot.split("points=\"").nth(1).expect(title);
        assert!(points.split('"').next().unwrap().split(' ').count() >= 2, "{title}");
    }
    let (_, latency) = html.split_once("Latency by percentile</figcaption>").unwrap();
    let (_, legend) = latency.split_once("legend").unwrap();
    let (legend, _) = legend.split_once("</div>").unwrap();
    for kind in ["delivery", "durable-acknowledgement", ">acknowledgement", "lag"] {
        assert!(legend.contains(kind), "{kind}: {legend}");
    }
    // What a browser would fetch or run, and what somebody may have put into a name.
    for fetched in
        ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link", "<b>busy"]
    {
        assert!(!html.contains(fetched), "{fetched}");
    }
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("content=\"light dark\""));
    let kernel = format!("<td>{}</td>", report.machine.kernel);
    for fact in [kernel.as_str(), "commit abc", "commit def", "net.core.somaxconn = "] {
        assert!(html.contains(fact), "{fact}");
    }
    assert!(html.contains("2026-03-01 12:00:00 UTC"));
}

#[test]
fn files_hold_all_that_was_counted() {
    let report = report("steady, long");
    let directory = tempfile::tempdir().unwrap();
    files::write(&report, directory.path()).unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();

    let result: Value = serde_json::from_str(&read("result.json")).unwrap();
    assert_eq!(result["rounds"][0]["outcome"]["delivery"]["count"], 2_000);
    assert_eq!(result["rounds"][0]["samples"].as_array().unwrap().len(), 2);
    assert_eq!(result["scenario"]["pairs"], 5);
    assert!(result["machine"]["sysctls"]["net.core.somaxconn"].is_string());

    let series = read("series.csv");
    let mut lines = series.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let sent = header.iter().position(|name| *name == "sent").unwrap();
    let rows: Vec<Vec<&str>> = lines.collect();
    assert!(rows.iter().all(|row| row.len() == header.len()), "{series}");
    assert_eq!(rows.iter().map(|row| row[sent].parse::<u64>().unwrap()).sum::<u64>(), 2_000);

    let latency = read("latency.csv");
    let delivery = latency.lines().filter(|line| line.starts_with("1,\"steady, long\",delivery,"));
    let counts = delivery.map(|line| line.rsplit(',').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(counts.sum::<u64>(), 2_000);

    let log = fs::read(directory.path().join("latency.hlog")).unwrap();
    let mut tags = Vec::new();
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            assert!(!interval.encoded_histogram().is_empty());
            tags.push(interval.tag().unwrap().as_str().to_owned());
        }
    }
    let kinds =
        ["acknowledgement", "durable-acknowledgement", "delivery", "service", "lag", "returning"];
    assert_eq!(tags, kinds.map(|kind| format!("1-steady__long-{kind}")));
    assert!(read("report.html").starts_with("<!doctype html>"));
}

#[test]
fn seconds_since_1970_are_days() {
    for (second, day) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (951_782_399, "2000-02-28 23:59:59 UTC"),
        (951_782_400, "2000-02-29 00:00:00 UTC"),
        (978_307_199, "2000-12-31 23:59:59 UTC"),
        (1_772_366_400, "2026-03-01 12:00:00 UTC"),
    ] {
        assert_eq!(date(second), day);
    }
}
