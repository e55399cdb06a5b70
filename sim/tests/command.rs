//! The command itself: what it says is the same whenever the same seeds run, to the byte.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling-sim"));
    command.arg("run").args(arguments).output().unwrap()
}

/// What it says on standard output; all went well.
fn said(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_same_seeds_say_the_same_and_times_stand_elsewhere() {
    let arguments = ["--seeds", "4", "--steps", "500", "--seed", "21"];
    let first = run(&arguments);
    assert!(first.status.success(), "{first:?}");
    // What takes time is told, or the test below would compare nothing that could differ.
    assert!(String::from_utf8_lossy(&first.stderr).contains(" steps in "), "{first:?}");
    assert_eq!(String::from_utf8(first.stdout).unwrap(), said(&arguments));
}

#[test]
fn a_single_seed_says_the_hash_of_its_trace() {
    let of = |seed: &str| said(&["--seeds", "1", "--steps", "500", "--seed", seed]);
    let (first, other) = (of("21"), of("22"));
    assert_eq!(first, of("21"));
    let trace =
        |said: &str| said.lines().next().unwrap().split_once(": trace ").unwrap().1.to_owned();
    assert_eq!(trace(&first).len(), 16, "{first}");
    assert_ne!(trace(&first), trace(&other));
}

#[test]
fn the_last_line_counts_what_passed_and_failed() {
    for seeds in ["1", "3"] {
        let said = said(&["--seeds", seeds, "--steps", "200"]);
        assert!(said.ends_with(&format!("\n{seeds} passed, 0 failed\n")), "{said}");
    }
    // Of no seed at all nothing can have failed.
    assert!(said(&["--seconds", "0"]).ends_with("\n0 passed, 0 failed\n"));
}
