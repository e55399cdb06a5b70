//! The load tool as somebody uses it, on a real server: what it keeps between runs, what Ctrl-C
//! leaves, and how several share a load. It is here because it takes the server too.

mod common;

use common::{Server, bench};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread::{self, JoinHandle},
};

fn main() -> ExitCode {
    common::main(all)
}

fn all() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let home = Home { directory: directory.path(), server: &server };
    users_are_kept_for_the_next_run(&home);
    ctrl_c_ends_a_load_with_a_report_of_what_there_is(&home);
    ctrl_c_ends_a_crowd_with_a_report_of_what_there_is(&home);
    ctrl_c_ends_a_storm_with_a_report_of_what_there_is(&home);
    ctrl_c_ends_a_search_with_a_report_of_what_there_is(&home);
    a_storm_keeps_the_rate_that_was_asked_for(&home);
    what_goes_wrong_in_a_part_of_a_crowd_is_the_last_word(&home);
    a_part_of_a_crowd_that_is_killed_is_missed_at_once(&home);
    a_machine_that_joins_does_its_part(&home);
    many_messages_share_a_system_call(&home);
}

struct Home<'a> {
    directory: &'a Path,
    server: &'a Server,
}

impl Home<'_> {
    /// The load tool with `load`, in the words of the command line, on the server.
    fn bench(&self, load: &str) -> Command {
        let mut command = bench();
        command.args(load.split(' ')).args(["--server", &self.server.address, "--operator-key"]);
        command.arg(self.directory.join("data/operator.key"));
        command.env("XDG_CACHE_HOME", self.directory.join("cache"));
        command
    }
}

fn json(stdout: &[u8]) -> Value {
    let text = String::from_utf8_lossy(stdout);
    serde_json::from_slice(stdout).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn users_are_kept_for_the_next_run(home: &Home<'_>) {
    for (load, kept) in [
        ("pair --pairs 20 --rate 500 --seconds 0.2", "users: 0 there, 40 made"),
        // More than there are, then fewer.
        ("pair --pairs 30 --rate 500 --seconds 0.2", "users: 40 there, 20 made"),
        ("churn --pairs 5 --idle 20 --rate 100 --seconds 0.2", "users: 60 there, 0 made"),
    ] {
        let output = home.bench(load).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(kept), "{load}: {said}");
    }
    println!("users are kept: holds");
}

/// Reads what `child` says until a line has `wanted`, and goes on reading: the rest comes in the end.
fn heard_until(child: &mut Child, wanted: &str) -> JoinHandle<String> {
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut heard = String::new();
    loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "it never said {wanted:?}: {heard}");
        heard.push_str(&line);
        if line.contains(wanted) {
            break;
        }
    }
    thread::spawn(move || {
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        rest
    })
}

fn signal(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// Interrupts `child` once it says `wanted`, and gives all that it printed.
fn interrupted_at(mut child: Child, wanted: &str) -> String {
    let rest = heard_until(&mut child, wanted);
    signal("-INT", &child.id().to_string());
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let said = rest.join().unwrap();
    assert!(output.status.code().is_some_and(|code| [0, 4].contains(&code)), "{printed}{said}");
    printed
}

fn piped(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ctrl_c_ends_a_load_with_a_report_of_what_there_is(home: &Home<'_>) {
    let mut command = home.bench("pair --pairs 10 --rate 200 --seconds 600");
    let result = home.directory.join("cut short");
    command.arg("--output").arg(&result);
    let printed = interrupted_at(piped(command), "messages/s");
    assert!(printed.contains("interrupted") && printed.contains("delivery"), "{printed}");
    for name in ["series.csv", "latency.csv", "latency.hlog", "report.html"] {
        assert!(fs::metadata(result.join(name)).unwrap().len() > 0, "{name}");
    }
    let result = json(&fs::read(result.join("result.json")).unwrap());
    let round = &result["rounds"][0];
    assert_eq!(round["interrupted"], true);
    let (seconds, delivered) = (&round["outcome"]["seconds"], &round["outcome"]["delivered"]);
    assert!(seconds.as_f64().unwrap() < 500.0 && delivered.as_u64().unwrap() > 0, "{round}");
    // It cooled down as else: nothing is missing.
    assert_eq!(
        (&round["outcome"]["losses"], &round["outcome"]["unanswered"]),
        (&0.into(), &0.into())
    );
    println!("Ctrl-C in a load: holds");
}

fn ctrl_c_ends_a_crowd_with_a_report_of_what_there_is(home: &Home<'_>) {
    for load in [
        "hold --connections 300 --seconds 600",
        // The parts are told, though nobody else interrupts them.
        "hold --connections 300 --seconds 600 --per-process 150",
    ] {
        let printed = interrupted_at(piped(home.bench(load)), "quiet: begins");
        assert!(printed.contains("interrupted"), "{load}: {printed}");
        assert!(printed.contains("300 connections: server PSS"), "{load}: {printed}");
        assert!(printed.contains("300 messages arrived; 0 twice"), "{load}: {printed}");
    }
    println!("Ctrl-C in a crowd: holds");
}

fn ctrl_c_ends_a_storm_with_a_report_of_what_there_is(home: &Home<'_>) {
    for (load, processes) in [
        ("storm --connections 100 --rate 200 --seconds 600", 1),
        // The parts are told, though nobody else interrupts them.
        ("storm --connections 100 --rate 200 --seconds 600 --per-process 40", 3),
    ] {
        let printed = interrupted_at(piped(home.bench(load)), "wave 2:");
        assert!(printed.contains("interrupted"), "{load}: {printed}");
        let line = printed.lines().find(|line| line.contains("100 in each of ")).unwrap();
        let waves = line.split_once("each of ").unwrap().1.split(' ').next().unwrap();
        // One that Ctrl-C cut is none.
        assert!((2..600).contains(&waves.parse::<u32>().unwrap()), "{line}");
        assert!(line.ends_with(&format!(" waves, in {processes} processes")), "{line}");
        assert!(printed.contains("connecting to ready"), "{load}: {printed}");
    }
    println!("Ctrl-C in a storm: holds");
}

fn ctrl_c_ends_a_search_with_a_report_of_what_there_is(home: &Home<'_>) {
    let load = "capacity --pairs 10 --seconds 0.5 --trials 1000 --limit 60000";
    // A rate was tried, and its line is here: those of before are of the closed loop.
    let printed = interrupted_at(piped(home.bench(load)), " messages/s: ");
    assert!(printed.contains("interrupted") && printed.contains("highest rate"), "{printed}");
    let tried = printed.lines().filter(|line| line.starts_with("tried")).count();
    assert!((1..1_000).contains(&tried), "{printed}");
    println!("Ctrl-C in a search: holds");
}

fn a_storm_keeps_the_rate_that_was_asked_for(home: &Home<'_>) {
    let users = home.directory.join("users of a storm");
    for (load, processes, most) in [
        // The last of a wave is due half a second after the first, never before.
        ("storm --connections 100 --rate 200 --seconds 0.1 --json", 1, 204.0),
        // That of the smallest part has 31 before it, each 32nd of half a second after the other.
        ("storm --connections 100 --rate 200 --seconds 0.1 --json --per-process 40", 3, 207.0),
    ] {
        let output = home.bench(load).arg("--users").arg(&users).output().unwrap();
        let storm = json(&output.stdout);
        let per_s = storm["opened_per_s"].as_f64().unwrap();
        assert!(per_s > 0.0 && per_s <= most, "{storm}");
        assert_eq!(storm["processes"], processes);
        assert_eq!((&storm["waves"], &storm["opening"]["count"]), (&1.into(), &100.into()));
        // What WELCOME told each of them came back, and the next run goes on from there.
        let kept = fs::read_to_string(&users).unwrap();
        let tags = kept.lines().skip(1).map(|line| line.rsplit(' ').next().unwrap());
        assert_eq!(tags.filter(|tag| *tag != "0").count(), 100, "{kept}");
        fs::remove_file(&users).unwrap();
    }
    println!("a storm by rate: holds");
}

/// Spoils the token of the kept user at `index`, as if it had run out.
fn spoil(home: &Home<'_>, index: usize) {
    let kept = fs::read_dir(home.directory.join("cache/starling-bench")).unwrap();
    let mut kept = kept.map(|entry| entry.unwrap().path());
    let path = kept.find(|path| path.extension().is_none()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(Into::into).collect();
    let mut words: Vec<&str> = lines[1 + index].split(' ').collect();
    let spoilt = "0".repeat(words[2].len());
    words[2] = &spoilt;
    lines[1 + index] = words.join(" ");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
}

fn what_goes_wrong_in_a_part_of_a_crowd_is_the_last_word(home: &Home<'_>) {
    for load in [
        "hold --connections 40 --seconds 0.1 --per-process 20",
        "storm --connections 40 --seconds 0.1 --per-process 20",
    ] {
        // Kept users, of whom the second part has one that no server knows any more.
        assert!(home.bench(load).output().unwrap().status.code().is_some_and(|code| code != 1));
        spoil(home, 30);
        let output = home.bench(load).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{load}: {said}");
        let last = said.lines().last().unwrap();
        for word in ["starling-bench: ", "run it again", "part 2 of 2", "TOKEN_"] {
            assert!(last.contains(word), "{load}: {word} is not in {last:?}");
        }
        assert_eq!(said.matches("TOKEN_").count(), 1, "{load}: {said}");
        // They were forgotten.
        let output = home.bench(load).output().unwrap();
        assert!(output.status.code().is_some_and(|code| code != 1), "{load}");
    }
    println!("what goes wrong in a part of a crowd: holds");
}

fn a_part_of_a_crowd_that_is_killed_is_missed_at_once(home: &Home<'_>) {
    let load = "hold --connections 40 --seconds 600 --per-process 20";
    let mut child = piped(home.bench(load));
    let rest = heard_until(&mut child, "quiet: begins");
    let pid = child.id();
    let parts = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    signal("-KILL", parts.split_whitespace().next().unwrap());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    let said = rest.join().unwrap();
    let last = said.lines().last().unwrap();
    assert!(last.contains("part 1 of 2 of the crowd ended: signal: 9"), "{said}");
    println!("a part of a crowd that is killed: holds");
}

/// As on another machine: a process that nobody here started takes part over TCP.
fn a_machine_that_joins_does_its_part(home: &Home<'_>) {
    let load = "pair --pairs 9 --rate 900 --seconds 1 --warmup 0 --processes 1 --machines 1";
    let mut command = home.bench(load);
    let result = home.directory.join("shared");
    command.arg("--output").arg(&result);
    let mut coordinator = piped(command);
    let mut said = BufReader::new(coordinator.stderr.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "nobody is waited for");
        if line.contains("waiting for load machine") {
            break line.trim().rsplit(' ').next().unwrap().to_owned();
        }
    };
    let rest = thread::spawn(move || said.read_to_string(&mut String::new()));
    let joined = bench().args(["join", &address]).output().unwrap();
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let output = coordinator.wait_with_output().unwrap();
    assert!(output.status.code().is_some_and(|code| [0, 4].contains(&code)));
    rest.join().unwrap().unwrap();
    let outcome = &json(&fs::read(result.join("result.json")).unwrap())["outcome"];
    assert_eq!(outcome["delivery"]["count"], 900, "{outcome}");
    assert_eq!(outcome["sent"], 900 + 9);
    println!("a machine that joins: holds");
}

/// All that a shard asks of the kernel, as server/tests/system_calls.rs shows that it counts them.
const SYSTEM_CALLS: [&str; 11] = [
    "ring_enters",
    "recv_calls",
    "send_calls",
    "accept_calls",
    "watch_calls",
    "readiness_calls",
    "shutdown_calls",
    "close_calls",
    "alarm_sets",
    "alarm_reads",
    "doorbell_reads",
];

/// System calls of a shard for a message with both its ends, at most, when 50 pairs have 16 in
/// flight each. 500 pairs with one each have no bound: how many are served together is chance.
const CALLS_OF_A_BUSY_MESSAGE: f64 = 1.0;

fn many_messages_share_a_system_call(home: &Home<'_>) {
    for (pairs, window, bound) in [(50, 16, CALLS_OF_A_BUSY_MESSAGE), (500, 1, f64::INFINITY)] {
        let load = format!("pair --pairs {pairs} --window {window} --class durable --seconds 1");
        let result = home.directory.join(format!("{pairs} x {window}"));
        let output = home.bench(&load).arg("--output").arg(&result).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| [0, 4].contains(&code)), "{said}");
        let result = json(&fs::read(result.join("result.json")).unwrap());
        let messages = result["outcome"]["sent"].as_f64().unwrap();
        let risen = |name: &str| result["risen"][format!("shard {name}")].as_f64().unwrap_or(0.0);
        let each = |name: &str| risen(name) / messages;
        let shown: Vec<String> = SYSTEM_CALLS
            .iter()
            .filter(|name| risen(name) > 0.0)
            .map(|name| format!("{name} {:.3}", each(name)))
            .collect();
        let all = SYSTEM_CALLS.iter().map(|name| each(name)).sum::<f64>();
        println!("{pairs} x {window}: {all:.3} system calls a message ({})", shown.join(", "));
        // Each message is read and answered in the end.
        assert!(risen("recv_calls") > 0.0 && risen("send_calls") > 0.0, "{result}");
        assert!(all <= bound, "{all} system calls a message with {pairs} x {window}");
    }
}
