//! The proof of tuning/million, small and on this machine, where whoever runs the tests is root.

#[expect(dead_code, reason = "the proof starts the commands by itself")]
mod common;

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What was told to end and has not by then does not.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    common::main(all)
}

fn all() {
    if fs::read("/proc/slabinfo").is_err() {
        // This program has no harness that would keep it to itself.
        eprintln!("SKIPPED million: only root may know of the kernel's slabs");
        return;
    }
    it_holds_and_leaves_a_page();
    one_that_is_ended_leaves_nothing();
}

/// The proof with some connections, with everything that it makes in `home`.
fn proof(home: &Path) -> Command {
    // Its programs are this one.
    let programs = home.join("programs");
    for folder in ["programs", "temporary", "cache"] {
        fs::create_dir(home.join(folder)).unwrap();
    }
    for role in ["server", "bench"] {
        let program = programs.join(format!("starling-{role}"));
        let own = env::current_exe().unwrap();
        let text = format!("#!/bin/sh\nTEST_ROLE={role} exec '{}' \"$@\"\n", own.display());
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning/million/run"));
    command.args([
        "--here",
        "--connections",
        "150",
        "--yardstick",
        "900",
        "--heartbeat",
        "20",
        "--quiet",
        "1",
    ]);
    command.arg("--bin").arg(programs).arg("--results").arg(home.join("results"));
    command.env("TMPDIR", home.join("temporary")).env("XDG_CACHE_HOME", home.join("cache"));
    command.stdin(Stdio::null());
    command
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

fn it_holds_and_leaves_a_page() {
    let home = tempfile::tempdir().unwrap();
    let output = proof(home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{wrong}");
    let results = fs::read_dir(home.path().join("results")).unwrap();
    let pages: Vec<_> = results.map(|entry| entry.unwrap().path()).collect();
    assert!(pages.len() == 1 && pages[0].to_str().unwrap().ends_with("150-connections-here.md"));
    let page = fs::read_to_string(&pages[0]).unwrap();
    for line in [
        "# 20",
        "| logged in and held | 150, and the one that writes to them |",
        "one more for each that was cut off | 152 |",
        "| twice, damaged, out of order or missing | 0 |",
        "; 150 |\n| cut off without a word, and back with a message more | 2 |",
    ] {
        assert!(page.contains(line), "{line:?} is not in {page}");
    }
    assert!(is_empty(&home.path().join("temporary")));
    println!("the proof, small: holds");
}

fn one_that_is_ended_leaves_nothing() {
    for moment in ["bare holder (Y1): begins", "quiet: begins"] {
        let home = tempfile::tempdir().unwrap();
        let mut command = proof(home.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut heard = String::new();
        while !heard.contains(moment) {
            if said.read_line(&mut heard).unwrap() == 0 {
                let mut wrong = String::new();
                child.stderr.take().unwrap().read_to_string(&mut wrong).unwrap();
                panic!("it never said {moment:?}: {heard}{wrong}");
            }
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        said.read_to_string(&mut heard).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{heard}");
        assert!(is_empty(&home.path().join("temporary")), "{moment}: {heard}");
        // Who was told to end may take a moment.
        let begun = Instant::now();
        while let running = processes_of(home.path())
            && !running.is_empty()
        {
            assert!(begun.elapsed() < PATIENCE, "{moment}: {running:?} still run");
            thread::sleep(Duration::from_millis(20));
        }
    }
    println!("a proof that is ended: holds");
}

/// Processes that a proof in `home` started, by what they inherited of it.
fn processes_of(home: &Path) -> Vec<PathBuf> {
    let temporary = format!("TMPDIR={}", home.join("temporary").display());
    let inherited = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == temporary.as_bytes())
    };
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes.filter(inherited).collect()
}
