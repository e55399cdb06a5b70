//! What the load tool records of its own load keeps the delivery contract: every scenario, against
//! a real server, through the checker. It is here because it takes the server, the load tool and
//! the checker.

mod common;

use common::{Server, bench};
use starling_check::check_files;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    common::main(check_all)
}

/// The load, in the words of the command line, and the processes that share it.
const LOADS: &[(&str, usize)] = &[
    ("pair --pairs 20 --window 8 --class mixed --seconds 1 --rounds 2", 1),
    ("pair --pairs 20 --rate 2000 --seconds 1 --processes 2", 2),
    ("run SCENARIO", 1),
    ("sync --pairs 20 --seconds 1", 1),
    ("sync --pairs 20 --seconds 1 --processes 3", 3),
    ("churn --pairs 20 --idle 50 --churn 30 --seconds 1", 1),
    ("slow-readers --pairs 20 --share 0.2 --rate 4000 --seconds 1", 1),
    ("mixed --pairs 20 --idle 50 --rate 500 --seconds 1", 1),
    ("capacity --pairs 20 --seconds 1 --trials 2 --limit 10000", 1),
    ("hold --connections 300 --seconds 0 --cut-every 5", 1),
    ("hold --connections 300 --seconds 0 --cut-every 5 --per-process 150", 2),
];

const SCENARIO: &str = "name = 'written'\npairs = 10\nclass = 'durable'\n\
    [[phases]]\nname = 'all'\nseconds = 1\nrate = 500\n\
    [[phases]]\nname = 'away'\nseconds = 1\nrate = 500\nreceivers = 'away'\nshare = 0.5\n";

fn check_all() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let scenario = directory.path().join("written.toml");
    fs::write(&scenario, SCENARIO).unwrap();
    for (number, (load, processes)) in LOADS.iter().enumerate() {
        let history = directory.path().join(format!("history-{number}"));
        let mut command = bench();
        command.args(load.split(' ').map(|word| match word {
            "SCENARIO" => scenario.as_os_str().to_owned(),
            word => word.into(),
        }));
        command.args(["--json", "--server", &server.address, "--operator-key"]);
        command.arg(data.join("operator.key"));
        command.arg("--users").arg(directory.path().join("users"));
        command.arg("--history").arg(&history);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // A rate that this machine cannot keep makes its figures invalid, not its history.
        assert!(output.status.code().is_some_and(|code| [0, 4].contains(&code)), "{load}: {said}");
        holds(load, &files(&history, *processes));
        println!("{load}: holds");
    }
    pages_are_whole(directory.path(), &server);
}

/// `starling-bench history` writes what is missing, and finds each page without a gap.
fn pages_are_whole(directory: &Path, server: &Server) {
    for written in [2_000, 0] {
        let mut command = bench();
        command.args("history --json --pairs 4 --messages 2000 --limit 150 --readers 2".split(' '));
        command.args(["--seconds", "0.5", "--server", &server.address, "--operator-key"]);
        command.arg(directory.join("data/operator.key"));
        command.arg("--users").arg(directory.join("readers"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let number = |name: &str| result[name].as_f64().unwrap_or_else(|| panic!("{result}"));
        assert_eq!((number("written"), number("messages")), (f64::from(written), 2_000.0));
        assert_eq!(number("gaps"), 0.0);
        assert!(number("pages") > 10.0 && number("messages_per_page") > 75.0, "{result}");
    }
    println!("history: whole");
}

fn files(history: &Path, processes: usize) -> Vec<PathBuf> {
    let of = |part: usize| format!("{}.{part}", history.display()).into();
    let parts: Vec<PathBuf> = (1..=processes).map(of).collect();
    assert_eq!(history.exists(), processes == 1, "one file of one process");
    if processes == 1 { vec![history.to_owned()] } else { parts }
}

fn holds(load: &str, files: &[PathBuf]) {
    let verdict = check_files(files).unwrap_or_else(|error| panic!("{load}: {error}"));
    assert!(verdict.holds(), "{load}: {:#?}", verdict.violations);
    // A history that says nothing would hold too.
    assert!(verdict.messages >= 100 && verdict.settled >= 10, "{load}: {verdict:?}");
}
