//! A result as one page that needs nothing else: styles and plots are in it, nothing is loaded,
//! and it follows the reader's choice of light or dark.

use super::{
    Report,
    files::histograms,
    plot::{Line, Plot, Scale},
};
use crate::{
    dialect::Class,
    workflow::{Round, RunReport},
};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");

/// The page.
pub fn page(report: &RunReport) -> String {
    let name = escape(&report.scenario.name);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{name}: starling-bench</title><style>{STYLE}</style></head><body>\n\
         <h1>{name}</h1><p>{}</p>\n",
        escape(&report.scenario.description)
    );
    let verdict = match (report.valid(), report.rounds.iter().any(|round| round.interrupted)) {
        (true, false) => {
            "<p class=\"good\">Valid: every message arrived once, whole and in order, \
                          and the load tool kept its schedule.</p>"
        }
        (true, true) => "<p class=\"bad\">Interrupted: this is what there is.</p>",
        (false, _) => "<p class=\"bad\">Invalid: see the lines below that say so.</p>",
    };
    html.push_str(verdict);
    let middle = report.middle();
    tiles(&mut html, report, middle);
    plots(&mut html, report, middle);
    section(&mut html, "Figures", report.lines().into_iter().filter(|line| line.0 != "counter"));
    section(&mut html, "Made with", facts(report).into_iter());
    let counters = report.risen.0.iter().map(|(name, rise)| (name.as_str(), rise.to_string()));
    html.push_str("<details><summary>What the server counted</summary>");
    section(&mut html, "", counters);
    html.push_str("</details></body></html>\n");
    html
}

/// The few figures that everybody looks for.
fn tiles(html: &mut String, report: &RunReport, round: &Round) {
    let outcome = &report.outcome;
    let mut tile = |value: String, what: &str| {
        // Writing to a String cannot fail.
        let _ = write!(html, "<div class=\"tile\"><b>{value}</b><span>{what}</span></div>");
    };
    tile(format!("{:.0}", outcome.messages_per_s), "messages a second");
    if outcome.delivery.count > 0 {
        tile(super::time(outcome.delivery.p50_us), "delivery, median");
        tile(super::time(outcome.delivery.p99_us), "delivery, 99th percentile");
        tile(super::time(outcome.delivery.p999_us), "delivery, 99.9th percentile");
    }
    if let Some(us) = outcome.server_cpu_us_per_message {
        tile(format!("{us:.1} us"), "server CPU a message");
    }
    if let Some(bytes) = memory_per_connection(round) {
        tile(format!("{:.1} KiB", bytes / 1_024.0), "server memory a connection, resident");
    }
}

/// Resident memory of the server at the end, over its connections: with all that it keeps besides.
fn memory_per_connection(round: &Round) -> Option<f64> {
    let last = round.samples.last()?;
    (last.connections > 0).then_some(())?;
    Some(last.server_bytes? as f64 / last.connections as f64)
}

/// More phases than this are told apart only by what they deliver.
const FEW_PHASES: usize = 2;

fn plots(html: &mut String, report: &RunReport, round: &Round) {
    let many = round.phases.len() > FEW_PHASES;
    let percentiles: Vec<Line> = histograms(round)
        .filter(|(_, kind, _)| match *kind {
            "delivery" => true,
            "acknowledgement" | "returning" | "lag" => !many,
            // Else it is the same line.
            "durable-acknowledgement" => !many && report.scenario.class == Class::Mixed,
            _ => false,
        })
        .map(|(phase, kind, latencies)| {
            let steps = latencies.histogram().iter_quantiles(5);
            let points = steps.filter(|step| step.quantile_iterated_to() < 1.0).map(|step| {
                // Each nine as far from the next.
                let nines = -(1.0 - step.quantile_iterated_to()).log10();
                (nines, step.value_iterated_to() as f64 / 1e6)
            });
            Line { name: format!("{kind}, {phase}"), points: points.collect() }
        })
        .collect();
    let over_time = |of: &dyn Fn(&crate::load::Second) -> Option<f64>| -> Vec<(f64, f64)> {
        let seconds = round.measured.series.iter().zip(0..);
        seconds.filter_map(|(second, at)| Some((f64::from(at), of(second)?))).collect()
    };
    let delivery = |quantile: f64| {
        over_time(&move |second| Some(second.delivery.as_ref()?.at(quantile) as f64 / 1e6))
    };
    let sampled = |of: fn(&crate::workflow::Sample) -> Option<f64>| -> Vec<(f64, f64)> {
        round.samples.iter().filter_map(|sample| Some((sample.at_s, of(sample)?))).collect()
    };
    let line = |name: &str, points| Line { name: name.into(), points };
    let all = [
        Plot {
            title: "Latency by percentile",
            x: "percentile",
            y: "ms",
            scale: Scale::Nines,
            lines: percentiles,
        },
        Plot {
            title: "Delivery over time",
            x: "s",
            y: "ms",
            scale: Scale::Logarithmic,
            lines: vec![
                line("median", delivery(0.5)),
                line("99 %", delivery(0.99)),
                line("slowest", delivery(1.0)),
            ],
        },
        Plot {
            title: "Throughput",
            x: "s",
            y: "a second",
            scale: Scale::Linear,
            lines: vec![
                line("sent", over_time(&|second| Some(second.sent as f64))),
                line("delivered", over_time(&|second| Some(second.delivered as f64))),
                line("came back", over_time(&|second| Some(second.returned as f64))),
            ],
        },
        Plot {
            title: "Processor",
            x: "s",
            y: "cores",
            scale: Scale::Linear,
            lines: vec![
                line("server", sampled(|sample| sample.server_cores)),
                line("load tool", sampled(|sample| Some(sample.generator_cores))),
                line("whole machine", sampled(|sample| Some(sample.machine_cores))),
            ],
        },
        Plot {
            title: "Server memory a connection, resident",
            x: "s",
            y: "KiB",
            scale: Scale::Linear,
            lines: vec![line(
                "resident memory / connections",
                sampled(|sample| {
                    let connections = sample.connections.max(1) as f64;
                    Some(sample.server_bytes? as f64 / connections / 1_024.0)
                }),
            )],
        },
        Plot {
            title: "Batch sizes of the store",
            x: "s",
            y: "commands",
            scale: Scale::Linear,
            lines: vec![
                line("of a commit", sampled(|sample| sample.commands_per_batch)),
                line("of a sync", sampled(|sample| sample.commands_per_sync)),
            ],
        },
    ];
    html.push_str("<div class=\"plots\">");
    all.iter().for_each(|plot| plot.draw(html));
    html.push_str("</div>\n");
}

fn facts(report: &RunReport) -> Vec<(&'static str, String)> {
    let machine = &report.machine;
    let mut facts = vec![
        ("tool", report.tool.clone()),
        ("server", report.server.clone().unwrap_or("unknown without --server-pid".into())),
        ("begun", super::date(report.begun_unix_s)),
        ("kernel", machine.kernel.clone()),
        ("processor", format!("{}, {} cores", machine.processor, machine.cores)),
        ("memory", format!("{:.1} GiB", machine.memory_bytes as f64 / f64::from(1 << 30))),
    ];
    facts.extend(report.warnings.iter().map(|warning| ("doctor", warning.clone())));
    facts.extend(
        machine.sysctls.iter().map(|(name, value)| ("sysctl", format!("{name} = {value}"))),
    );
    // A scenario is plain data.
    let scenario = serde_json::to_string(&report.scenario).unwrap_or_default();
    facts.push(("scenario", scenario));
    facts
}

fn section<L: AsRef<str>>(
    html: &mut String,
    title: &str,
    lines: impl Iterator<Item = (L, String)>,
) {
    if !title.is_empty() {
        let _ = write!(html, "<h2>{}</h2>", escape(title));
    }
    html.push_str("<table>");
    for (label, value) in lines {
        let class = if label.as_ref() == "INVALID" { " class=\"bad\"" } else { "" };
        let (label, value) = (escape(label.as_ref()), escape(&value));
        let _ = write!(html, "<tr{class}><th>{label}</th><td>{value}</td></tr>");
    }
    html.push_str("</table>\n");
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
