//! `starling-check`: says whether histories keep the contract, and shows the lines that do not.

use crate::{CannotRead, Checker, Verdict, check_files_with, files};
use clap::{CommandFactory, Parser};
use serde::Serialize;
use starling_codec::history;
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// Prove that recorded histories keep Starling's delivery contract.
///
/// Exit codes: 0 it holds, 1 it is violated, 2 a history cannot be read, or has no record.
#[derive(Debug, Parser)]
#[command(name = "starling-check", version = VERSION, max_term_width = 100)]
struct Arguments {
    /// Files of one history, as docs/history.md describes them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Every session was ended when all was at rest: what a device held when it left is what it
    /// holds at the end.
    #[arg(long)]
    at_rest: bool,

    /// Print the verdict as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Version, commit, and the versions of protocol and format.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("STARLING_COMMIT"),
    ", protocol 1, history 1)"
);
const _: () = assert!(starling_codec::PROTOCOL_VERSION == 1 && history::VERSION == 1);

/// The verdict as `--json` prints it.
#[derive(Serialize)]
struct Report<'a> {
    holds: bool,
    violations: Vec<ReportedViolation<'a>>,
    contradictions: u64,
    records: u64,
    skipped: u64,
    messages: u64,
    devices: u64,
    conversations: u64,
    settled: u64,
    complete: bool,
}

#[derive(Serialize)]
struct ReportedViolation<'a> {
    property: &'static str,
    promise: &'static str,
    what: &'a str,
    evidence: Vec<ReportedLine<'a>>,
}

#[derive(Serialize)]
struct ReportedLine<'a> {
    file: &'a str,
    line: u64,
    text: String,
}

/// The definition of the command, for completions and manual pages.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command with the arguments of this process.
pub fn main() -> ExitCode {
    let Arguments { files, at_rest, json } = Arguments::parse();
    let checker = match at_rest {
        true => Checker::new().ended_at_rest(),
        false => Checker::new(),
    };
    let verdict = match check_files_with(checker, &files) {
        Ok(verdict) => verdict,
        Err(error) => return cannot_read(&error),
    };
    let mut output = io::stdout().lock();
    let told = match json {
        true => tell_json(&mut output, &files, &verdict),
        false => tell(&mut output, &files, &verdict),
    };
    // Whoever read the output may have gone away; the exit code still says it.
    let _ = told.and_then(|()| output.flush());
    ExitCode::from(u8::from(!verdict.holds()))
}

fn cannot_read(error: &CannotRead) -> ExitCode {
    eprintln!("starling-check: {error}");
    ExitCode::from(2)
}

fn tell(output: &mut impl Write, files: &[PathBuf], verdict: &Verdict) -> io::Result<()> {
    for violation in &verdict.violations {
        writeln!(output, "violated: {violation}")?;
        writeln!(output, "  {}: {}", violation.property, violation.property.promise())?;
        for (position, line) in files::lines(files, &violation.evidence) {
            let path = files[usize::from(position.file())].display();
            writeln!(output, "  {path}:{}: {line}", position.line())?;
        }
    }
    let Verdict { messages, devices, conversations, records, settled, skipped, .. } = verdict;
    let word = if verdict.holds() { "holds" } else { "violated" };
    writeln!(
        output,
        "{word}: {messages} messages, {conversations} conversations, {devices} devices ({settled} \
         at rest), {records} records ({skipped} of unknown types)",
    )?;
    if verdict.holds() && *settled == 0 {
        writeln!(
            output,
            "no device says what it holds at the end, so what never arrived could not be missed"
        )?;
    }
    Ok(())
}

fn tell_json(output: &mut impl Write, files: &[PathBuf], verdict: &Verdict) -> io::Result<()> {
    let paths: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let violations = verdict.violations.iter().map(|violation| ReportedViolation {
        property: violation.property.name(),
        promise: violation.property.promise(),
        what: &violation.what,
        evidence: files::lines(files, &violation.evidence)
            .into_iter()
            .map(|(position, text)| ReportedLine {
                file: &paths[usize::from(position.file())],
                line: position.line(),
                text,
            })
            .collect(),
    });
    let report = Report {
        holds: verdict.holds(),
        violations: violations.collect(),
        contradictions: verdict.contradictions,
        records: verdict.records,
        skipped: verdict.skipped,
        messages: verdict.messages,
        devices: verdict.devices,
        conversations: verdict.conversations,
        settled: verdict.settled,
        complete: verdict.complete,
    };
    serde_json::to_writer(&mut *output, &report)?;
    writeln!(output)
}
