//! `starling-bench compare`: two results, figure by figure. A difference is one only if no round
//! of the one reaches into the rounds of the other, and there are enough of both.

use anyhow::{Context, Result, bail, ensure};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// Rounds of each that a difference takes.
const ENOUGH: usize = 5;

/// What two results say of one figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub figure: String,
    pub before: Span,
    pub after: Span,
    pub verdict: Verdict,
}

/// Median and range of some rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Span {
    pub rounds: usize,
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Faster,
    Slower,
    NoDifferenceShown,
}

/// A figure of one result: its rounds, and whether more of it is better.
struct Figure {
    name: String,
    rounds: Vec<f64>,
    more_is_better: bool,
}

/// Figures of a run: where they stand in an outcome, and whether more is better.
const FIGURES: [(&str, &str, bool); 10] = [
    ("messages a second", "/messages_per_s", true),
    ("acknowledgement p50, us", "/acknowledgement/p50_us", false),
    ("acknowledgement p99, us", "/acknowledgement/p99_us", false),
    ("durable acknowledgement p50, us", "/durable_acknowledgement/p50_us", false),
    ("durable acknowledgement p99, us", "/durable_acknowledgement/p99_us", false),
    ("delivery p50, us", "/delivery/p50_us", false),
    ("delivery p99, us", "/delivery/p99_us", false),
    ("delivery p99.9, us", "/delivery/p999_us", false),
    ("coming back p99, us", "/returning/p99_us", false),
    ("server CPU a message, us", "/server_cpu_us_per_message", false),
];

/// Two results beside each other.
#[derive(Clone, Debug)]
pub struct Compared {
    pub figures: Vec<Comparison>,
    /// What else is to be known before a difference is believed.
    pub notes: Vec<String>,
}

/// What a file holds.
struct Measured {
    figures: Vec<Figure>,
    /// Rounds that were interrupted, or that the tool itself called invalid.
    left_out: usize,
    /// What was run, and on which machine, as the file says.
    scenario: Value,
    machine: [Value; 4],
}

/// What tells machines apart: sysctls and memory in use may differ from one day to the next.
const MACHINE: [&str; 4] = ["processor", "cores", "kernel", "memory_bytes"];

/// Compares two files: results of a run, or of `ratios --json`.
///
/// # Errors
/// A file is neither, none of its rounds is valid, or they have no figure in common.
pub fn compare(before: &Path, after: &Path) -> Result<Compared> {
    let results = [read(before)?, read(after)?];
    let mut notes = Vec::new();
    for (path, result) in [before, after].iter().zip(&results) {
        if result.left_out > 0 {
            notes.push(format!(
                "{}: {} interrupted or invalid rounds are left out",
                path.display(),
                result.left_out
            ));
        }
    }
    let [before, after] = results;
    if before.scenario != after.scenario {
        notes.push("They are of different scenarios.".into());
    }
    for (what, (one, other)) in MACHINE.iter().zip(before.machine.iter().zip(&after.machine)) {
        if one != other {
            notes.push(format!("They are of different machines: {what} {one} and {other}."));
        }
    }
    let figures = before.figures.iter().filter_map(|one| {
        let other = after.figures.iter().find(|other| other.name == one.name)?;
        Some(Comparison::of(one, other))
    });
    let figures: Vec<Comparison> = figures.collect();
    ensure!(!figures.is_empty(), "the two results have no figure in common");
    Ok(Compared { figures, notes })
}

fn read(path: &Path) -> Result<Measured> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    measured(&value).with_context(|| format!("{} is no result", path.display()))
}

fn measured(value: &Value) -> Result<Measured> {
    let known = |place: &str| value.pointer(place).cloned().unwrap_or_default();
    let machine = MACHINE.map(|name| known(&format!("/machine/{name}")));
    let of = |figures, left_out| Measured {
        figures,
        left_out,
        scenario: known("/scenario"),
        machine: machine.clone(),
    };
    if let Some(rows) = value.as_array() {
        let rows = rows.iter().map(ratio).collect::<Option<_>>().context("a row is no ratio")?;
        return Ok(of(rows, 0));
    }
    let rounds = value.get("rounds").and_then(Value::as_array).context("it has no rounds")?;
    let valid: Vec<&Value> = rounds.iter().filter(|round| is_valid(round)).collect();
    ensure!(!valid.is_empty(), "none of its {} rounds is valid", rounds.len());
    let mut figures = Vec::new();
    for (name, place, more_is_better) in FIGURES {
        let values = valid.iter().map(|round| round.get("outcome")?.pointer(place)?.as_f64());
        // What was not measured is 0 or absent.
        let values: Option<Vec<f64>> =
            values.map(|value| value.filter(|value| *value > 0.0)).collect();
        if let Some(rounds) = values {
            figures.push(Figure { name: name.into(), rounds, more_is_better });
        }
    }
    if figures.is_empty() {
        bail!("no round was measured");
    }
    Ok(of(figures, rounds.len() - valid.len()))
}

/// What makes a round count for nothing, where it is not 0.
const WRONG: [&str; 7] =
    ["losses", "unanswered", "duplicates", "order_breaks", "gaps", "corrupt", "broken"];

/// Whether a round went to its end, and its figures are what they say.
fn is_valid(round: &Value) -> bool {
    let outcome = &round["outcome"];
    round["interrupted"] != true
        && outcome["saturated"].is_null()
        && WRONG.iter().all(|what| outcome[what].as_u64().unwrap_or(0) == 0)
}

fn ratio(row: &Value) -> Option<Figure> {
    let part = row.get("part").and_then(Value::as_str).unwrap_or_default();
    let rounds = row.get("rounds")?.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
    Some(Figure {
        name: format!("{} {part}", row.get("id")?.as_str()?).trim().into(),
        rounds,
        // A goal is further than its floor.
        more_is_better: row.get("goal")?.as_f64()? > row.get("floor")?.as_f64()?,
    })
}

impl Span {
    fn of(rounds: &[f64]) -> Span {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let median = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
        Span { rounds: count, median, low: sorted[0], high: sorted[count - 1] }
    }
}

impl Comparison {
    fn of(before: &Figure, after: &Figure) -> Comparison {
        let (one, other) = (Span::of(&before.rounds), Span::of(&after.rounds));
        let enough = one.rounds >= ENOUGH && other.rounds >= ENOUGH;
        let verdict = match (other.low > one.high, other.high < one.low) {
            (above, below) if enough && (above || below) => match above == before.more_is_better {
                true => Verdict::Faster,
                false => Verdict::Slower,
            },
            _ => Verdict::NoDifferenceShown,
        };
        Comparison { figure: before.name.clone(), before: one, after: other, verdict }
    }
}

/// Prints a table, or JSON; notes go to standard error.
pub fn print(compared: &Compared, json: bool) -> Result<()> {
    let comparisons = &compared.figures;
    compared.notes.iter().for_each(|note| eprintln!("{note}"));
    if json {
        println!("{}", serde_json::to_string_pretty(comparisons)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["", "before", "range", "after", "range", ""]);
    for comparison in comparisons {
        let Comparison { figure, before, after, verdict } = comparison;
        let range = |span: &Span| format!("{:.2} to {:.2} ({})", span.low, span.high, span.rounds);
        table.add_row([
            figure.clone(),
            format!("{:.2}", before.median),
            range(before),
            format!("{:.2}", after.median),
            range(after),
            match verdict {
                Verdict::Faster => "faster",
                Verdict::Slower => "slower",
                Verdict::NoDifferenceShown => "no difference shown",
            }
            .into(),
        ]);
    }
    println!("{table}");
    let few = |comparison: &Comparison| {
        comparison.before.rounds < ENOUGH || comparison.after.rounds < ENOUGH
    };
    if comparisons.iter().any(few) {
        println!("A difference takes {ENOUGH} rounds of each.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(before: &[f64], after: &[f64], more_is_better: bool) -> Verdict {
        let figure =
            |rounds: &[f64]| Figure { name: "x".into(), rounds: rounds.into(), more_is_better };
        Comparison::of(&figure(before), &figure(after)).verdict
    }

    #[test]
    fn only_ranges_that_do_not_overlap_differ() {
        let (low, high) = ([1.0, 2.0, 3.0, 2.0, 2.0], [4.0, 5.0, 6.0, 7.0, 4.0]);
        assert_eq!(verdict(&low, &high, true), Verdict::Faster);
        assert_eq!(verdict(&low, &high, false), Verdict::Slower);
        assert_eq!(verdict(&high, &low, true), Verdict::Slower);
        assert_eq!(verdict(&low, &[3.0, 9.0, 9.0, 9.0, 9.0], true), Verdict::NoDifferenceShown);
        assert_eq!(verdict(&low[..4], &high, true), Verdict::NoDifferenceShown);
    }

    #[test]
    fn runs_and_ratios_are_understood() {
        let outcome = |per_s: f64| {
            serde_json::json!({"outcome": {
            "messages_per_s": per_s, "delivery": {"p50_us": 10.0},
            "returning": {"p99_us": 0.0}, "server_cpu_us_per_message": null}})
        };
        let run = serde_json::json!({"rounds": [outcome(3.0), outcome(1.0), outcome(2.0)]});
        let figures = |value: &Value| measured(value).map(|measured| measured.figures);
        let names: Vec<String> =
            figures(&run).unwrap().into_iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["messages a second", "delivery p50, us"]);
        let ratios = serde_json::json!([
            {"id": "P8", "part": "p50", "goal": 2.0, "floor": 3.0, "rounds": [1.0, 2.0]}]);
        let [ratio] = &figures(&ratios).unwrap()[..] else { panic!() };
        assert_eq!((ratio.name.as_str(), ratio.more_is_better), ("P8 p50", false));
        assert!(figures(&serde_json::json!({"rounds": []})).is_err());
    }
    #[test]
    fn rounds_that_are_not_to_be_believed_count_for_nothing_and_other_machines_are_named() {
        let result = |kernel: &str, rounds: Value| {
            serde_json::json!({
                "machine": {"kernel": kernel, "cores": 2}, "scenario": {"pairs": 5},
                "rounds": rounds})
        };
        let good = serde_json::json!({"interrupted": false, "outcome": {
            "messages_per_s": 9.0, "saturated": null, "losses": 0}});
        let mut bad = vec![good.clone(); 3];
        bad[0]["interrupted"] = true.into();
        bad[1]["outcome"]["saturated"] = serde_json::json!({"lag": {}});
        bad[2]["outcome"]["losses"] = 1.into();
        let all: Vec<Value> = bad.iter().cloned().chain(vec![good.clone(); 5]).collect();
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &Value| {
            let path = directory.path().join(name);
            std::fs::write(&path, value.to_string()).unwrap();
            path
        };
        let before = write("a.json", &result("6.1", all.into()));
        let after = write("b.json", &result("6.18", vec![good; 5].into()));
        let compared = compare(&before, &after).unwrap();
        assert_eq!(compared.figures[0].before.rounds, 5);
        let [left_out, kernel] = &compared.notes[..] else { panic!("{:?}", compared.notes) };
        assert!(left_out.contains("a.json: 3 interrupted or invalid"), "{left_out}");
        assert!(kernel.contains("6.1") && kernel.contains("6.18"), "{kernel}");
        let worst = write("c.json", &result("6.1", bad.into()));
        let error = format!("{:#}", compare(&worst, &after).unwrap_err());
        assert!(error.contains("none of its 3 rounds is valid"), "{error}");
    }
}
