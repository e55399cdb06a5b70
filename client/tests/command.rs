//! The command as people meet it when something is missing: exit codes, and one line each.
#![cfg(feature = "command")]

use starling_client::{Change, SqliteStore, Store};
use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

mod support;

fn starling(profile: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling"))
        .args(arguments)
        .env("STARLING_PROFILE", profile)
        .env("STARLING_PASSWORD", "correct horse")
        .env_remove("STARLING_SERVER")
        .env_remove("STARLING_NEW_PASSWORD")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A port that nobody listens on.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn log_in(profile: &Path) {
    let mut store = SqliteStore::open(profile).unwrap();
    store.commit(&[Change::Identity(support::identity())]).unwrap();
}

fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text:?}");
    assert!(output.stdout.is_empty());
    text.trim_end().to_owned()
}

#[test]
fn without_an_account_the_next_command_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["listen"][..],
        &["send", "bob", "hi"],
        &["history", "bob"],
        &["chat", "bob"],
        &["logout"],
    ] {
        let output = starling(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(one_line(&output).contains("`starling login NAME`"));
    }
}

#[test]
fn without_a_server_the_next_command_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = nobody();
    let output = starling(folder.path(), &["--server", &server, "register", "ada"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(one_line(&output).contains("`starling-server`"));

    log_in(folder.path());
    for arguments in [&["listen"][..], &["send", "bob", "hi"], &["history", "bob"]] {
        let output = starling(folder.path(), &[&["--server", &server], arguments].concat());
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(one_line(&output).contains(&server));
    }
    // Nothing was taken into the outbox: the command may simply be typed again.
    let saved = SqliteStore::open(folder.path()).unwrap().load().unwrap();
    assert!(saved.outbox.is_empty());
}

#[test]
fn a_profile_in_use_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    log_in(folder.path());
    let _owner = SqliteStore::open(folder.path()).unwrap();
    let output = starling(folder.path(), &["listen"]);
    assert_eq!(output.status.code(), Some(2));
    let line = one_line(&output);
    assert!(line.contains("in use by another process") && line.contains("--profile"));
}

#[test]
fn somebody_elses_login_does_not_displace_who_is_logged_in() {
    let folder = tempfile::tempdir().unwrap();
    log_in(folder.path());
    for command in ["register", "login"] {
        let output = starling(folder.path(), &[command, "bob"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(one_line(&output).contains("`starling logout`"));
    }
}

#[test]
fn a_short_password_is_told_before_anything_is_asked_of_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_starling"))
        .args(["--server", &nobody(), "register", "ada"])
        .env("STARLING_PROFILE", folder.path())
        .env("STARLING_PASSWORD", "short")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(one_line(&output).contains("8 to 256 bytes"));
}

#[test]
fn errors_for_machines_are_lines_too() {
    let folder = tempfile::tempdir().unwrap();
    let output = starling(folder.path(), &["--json", "listen"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.is_empty());
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["type"], "error");
    assert_eq!((&line["code"], &line["name"]), (&0.into(), &"NOT_LOGGED_IN".into()));

    let output = starling(folder.path(), &["--server", &nobody(), "login", "ada", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&line["name"], &line["retryable"]), (&"NO_CONNECTION".into(), &true.into()));
}

#[test]
fn a_wrong_command_line_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &[][..],
        &["shout"],
        &["send", "bob"],
        &["send", "bob", ""],
        &["history", "bob", "--limit", "x"],
    ] {
        assert_eq!(starling(folder.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_version_names_the_commit_and_the_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let output = starling(folder.path(), &["--version"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("starling 0.1.0 (commit ") && text.contains("protocol 1"), "{text}");
}

#[test]
fn an_operator_key_that_is_not_there_or_no_key_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.key");
    let no_key = folder.path().join("novel.txt");
    std::fs::write(&no_key, "It was a dark and stormy night. ".repeat(100)).unwrap();
    for file in [missing, no_key] {
        let output = starling(folder.path(), &["stats", "--operator-key", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        assert!(one_line(&output).contains("--operator-key FILE"));
    }
}

/// Typed as it stands there, the next command is one of the same device.
#[test]
fn the_next_command_has_the_options_of_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("ada's profile");
    let output = starling(
        folder.path(),
        &["--server", &nobody(), "listen", "--profile", profile.to_str().unwrap()],
    );
    let line = one_line(&output);
    let (_, typed) = line.split_once('`').unwrap();
    let (typed, _) = typed.split_once(" login NAME`").unwrap();
    // A shell reads it as it was meant.
    let words = Command::new("sh").args(["-c", &format!("printf '%s\\n' {typed}")]).output();
    let words = String::from_utf8(words.unwrap().stdout).unwrap();
    let words: Vec<&str> = words.lines().collect();
    let [starling, server, _, option, folder] = words[..] else { panic!("{words:?}") };
    assert_eq!((starling, server, option), ("starling", "--server", "--profile"));
    assert_eq!(folder, profile.to_str().unwrap());
}
