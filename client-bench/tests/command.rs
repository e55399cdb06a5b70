//! The command itself, as somebody runs it.

use serde_json::Value;
use std::process::Command;

fn bench(arguments: &[&str]) -> (bool, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_starling-bench")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn two_processes_coordinated_over_tcp_measure_what_one_would() {
    let (_, out, err) = bench(&[
        "yardstick",
        "relay",
        "--processes",
        "2",
        "--pairs",
        "9",
        "--rate",
        "900",
        "--seconds",
        "1",
        "--warmup",
        "0",
        "--json",
    ]);
    let outcome: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    // The schedule is dealt out whole, and nothing of either part is lost on the way.
    assert_eq!(outcome["delivery"]["count"], 900);
    assert_eq!(outcome["sent"], 900 + 9);
    for wrong in ["losses", "unanswered", "duplicates", "order_breaks", "corrupt", "broken"] {
        assert_eq!(outcome[wrong], 0, "{wrong}");
    }
    assert!(outcome["server_cpu_us_per_message"].as_f64().unwrap() >= 0.0);
}

#[test]
fn a_wrong_scenario_is_refused_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.toml");
    std::fs::write(&file, "name = 'x'\npairs = 1\n[[phases]]\nname = 'p'\nseconds = 1\nrate = -1")
        .unwrap();
    let file = file.to_str().unwrap();
    let (good, _, err) = bench(&["run", file, "--operator-key", "/nonexistent"]);
    assert!(!good && err.contains("a rate is more than 0"), "{err}");
}
