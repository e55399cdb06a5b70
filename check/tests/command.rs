//! The command itself: what it ends with, and what it says where.

mod support;

use starling_codec::history::Fact;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use support::planted;
use tempfile::TempDir;

/// Runs it over files with these contents, named 0, 1 and so on.
fn check(flags: &[&str], contents: &[&[u8]]) -> (Output, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling-check"));
    command.args(flags);
    for (number, content) in contents.iter().enumerate() {
        let file = folder.path().join(number.to_string());
        fs::write(&file, content).unwrap();
        command.arg(file);
    }
    (command.output().unwrap(), folder)
}

/// A true history, and its lines with a fault in them.
fn lines(fault: Option<&str>) -> Vec<u8> {
    let mut history = planted::true_history();
    if let Some(fault) = fault {
        let planted = planted::ALL.iter().find(|planted| planted.fault == fault).unwrap();
        (planted.plant)(&mut history);
    }
    let mut lines = Vec::new();
    history.0.iter().for_each(|record| record.append(&mut lines));
    lines
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_history_that_holds_ends_with_0() {
    let history = lines(None);
    let (output, _) = check(&[], &[&history]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stdout);
    assert!(said.starts_with("holds: "), "{said}");
    assert!(said.contains("4 devices (4 at rest)"), "{said}");
    let (output, _) = check(&["--json"], &[&history]);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["holds"], &report["settled"]), (&true.into(), &4.into()));
}

#[test]
fn a_history_that_does_not_ends_with_1_and_shows_the_lines() {
    let history = lines(Some("an event is applied twice"));
    let (output, folder) = check(&[], &[&history]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.starts_with("violated: once: "), "{said}");
    assert!(said.trim_end().lines().next_back().unwrap().starts_with("violated: "), "{said}");
    let shown: Vec<(usize, &str)> = said.lines().filter_map(|line| place(&folder, line)).collect();
    assert!(!shown.is_empty(), "{said}");
    for (line, shown) in shown {
        assert_eq!(text(&history).lines().nth(line - 1), Some(shown));
    }
    let (output, _) = check(&["--json"], &[&history]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["holds"], &report["violations"][0]["property"]),
        (&false.into(), &"once".into())
    );
}

/// What a device held when it left is its end only if whoever asks says so.
#[test]
fn sessions_that_ended_at_rest_are_told_by_a_flag() {
    let mut history = planted::true_history();
    for record in &mut history.0 {
        if let Fact::State { cursor, hash } = record.fact {
            record.fact = Fact::Left { cursor, hash };
        }
    }
    let mut lines = Vec::new();
    history.0.iter().for_each(|record| record.append(&mut lines));
    for (flags, settled) in [(&[][..], 0), (&["--at-rest"], 4)] {
        let (output, _) = check(flags, &[&lines]);
        assert_eq!(output.status.code(), Some(0));
        let said = text(&output.stdout);
        assert!(said.contains(&format!("4 devices ({settled} at rest)")), "{said}");
    }
}

/// The number of a line of file 0, and its text, where one is shown.
fn place<'a>(folder: &TempDir, shown: &'a str) -> Option<(usize, &'a str)> {
    let file: &Path = &folder.path().join("0");
    let rest = shown.trim_start().strip_prefix(file.to_str().unwrap())?.strip_prefix(':')?;
    let (line, text) = rest.split_once(": ")?;
    Some((line.parse().unwrap(), text))
}

#[test]
fn what_cannot_be_read_ends_with_2() {
    let (history, half) = (lines(None), &br#"{"type":"ack"#[..]);
    let cases: [(&[&[u8]], &str); 5] = [
        (&[b"hello\n"], "line 1: not a line of a history"),
        (&[&history, b"{\"type\":\"rewind\",\"at\":\"7.1\"}\n"], "line 1: a line of type rewind"),
        (&[b""], "there is no record in "),
        (&[half], "there is no record in "),
        (&[b"", half], "there is no record in "),
    ];
    for (contents, word) in cases {
        let (output, _) = check(&[], contents);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{word}");
        let said = text(&output.stderr);
        assert!(said.starts_with("starling-check: ") && said.contains(word), "{said}");
    }
    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_starling-check"));
    let output = nowhere.arg("/nowhere/at/all").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nowhere/at/all: "), "{}", text(&output.stderr));
}

/// Its recorder was killed, and another device had nothing to record.
#[test]
fn half_a_line_at_the_end_and_an_empty_file_are_left_out() {
    let mut history = lines(None);
    history.extend_from_slice(br#"{"type":"ack"#);
    let (output, _) = check(&[], &[&history, b""]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
