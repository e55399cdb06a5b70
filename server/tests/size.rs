//! The calculator, the profiles and the guide tell the same.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use starling_server::size::{PROFILES, Size, SizeArguments, per_unit, table};

fn tuning(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tuning").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn size(connections: u32) -> Size {
    SizeArguments {
        connections,
        messages_per_second: 1_000,
        payload: 128,
        heartbeat_s: 30,
        json: false,
        evidence: false,
    }
    .calculate()
}

/// `key = value` lines; anything else but comments is refused.
fn sysctls(profile: &str) -> BTreeMap<String, Vec<u64>> {
    let text = tuning(&format!("profiles/{profile}/sysctl.conf"));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let settings: Vec<_> = lines
        .map(|line| {
            let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{line}"));
            let numbers = value.split(' ').map(|word| word.parse().expect(line)).collect();
            (key.to_owned(), numbers)
        })
        .collect();
    let count = settings.len();
    let settings: BTreeMap<_, _> = settings.into_iter().collect();
    assert_eq!(settings.len(), count, "{profile} sets something twice");
    settings
}

/// The hard limit on open files of a profile, as limits.conf and as systemd's drop-in say.
fn open_files(profile: &str) -> u64 {
    let limits = tuning(&format!("profiles/{profile}/limits.conf"));
    let of = |kind: &str| -> Vec<u64> {
        limits
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains(kind))
            .map(|line| line.split_whitespace().nth(3).unwrap().parse().unwrap())
            .collect()
    };
    let drop_in = tuning(&format!("profiles/{profile}/starling-server.service.d.conf"));
    let files = drop_in.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).unwrap();
    let files: u64 = files.parse().unwrap();
    assert_eq!((of(" soft "), of(" hard ")), (vec![files], vec![files]), "{profile}");
    files
}

#[test]
fn every_profile_gives_what_the_calculator_asks_for() {
    for (profile, connections) in PROFILES {
        let sysctls = sysctls(profile);
        let files = open_files(profile);
        let one = |key: &str| sysctls[key][0];
        assert!(files >= size(connections).open_files, "{profile}");
        assert!(one("fs.nr_open") >= files, "{profile}: the kernel would refuse the limit");
        assert!(one("fs.file-max") >= 2 * files, "{profile}: both ends on one machine");
        // The server asks for so many.
        assert!(one("net.core.somaxconn") >= 4_096, "{profile}");
        for buffers in ["net.ipv4.tcp_wmem", "net.ipv4.tcp_rmem"] {
            let [least, first, most] = sysctls[buffers][..] else { panic!("{buffers}") };
            assert!(least <= first && first <= most, "{profile}");
        }
        // Left to the kernel, which knows the memory it has.
        assert!(!sysctls.contains_key("net.ipv4.tcp_mem"), "{profile}");
    }
}

#[test]
fn profiles_rise() {
    for pair in PROFILES.windows(2) {
        let (smaller, larger) = (sysctls(pair[0].0), sysctls(pair[1].0));
        assert!(smaller.keys().eq(larger.keys()), "{pair:?}");
        for (key, value) in &smaller {
            assert!(value <= &larger[key], "{key} of {pair:?}");
        }
        assert!(open_files(pair[0].0) < open_files(pair[1].0));
    }
}

#[test]
fn the_guide_shows_the_tables_of_the_calculator() {
    let guide = tuning("README.md");
    for table in [table(), per_unit()] {
        assert!(guide.contains(&table), "tuning/README.md lacks this table:\n{table}");
    }
}

#[test]
fn the_guide_explains_every_setting() {
    let guide = tuning("README.md");
    for (profile, _) in PROFILES {
        for key in sysctls(profile).keys() {
            // "net.core.somaxconn" may be told as "somaxconn".
            let name = key.rsplit('.').next().unwrap();
            assert!(guide.contains(name), "{key} of {profile}");
        }
    }
}

#[test]
fn the_command_prints_text_json_and_evidence() {
    let run = |arguments: &[&str]| {
        let server = env!("CARGO_BIN_EXE_starling-server");
        let output = Command::new(server).arg("size").args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (ended_well, text) = run(&["--connections", "1000000", "--messages-per-second", "1000"]);
    assert!(ended_well && text.contains("1,000,000") && text.contains("profiles/1m"), "{text}");
    let (_, json) = run(&["--connections", "1000000", "--messages-per-second", "1000", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, serde_json::to_value(size(1_000_000)).unwrap());
    assert!(run(&["--connections", "1", "--evidence"]).1.contains("tuning/"));
    assert!(!run(&[]).0, "the number of connections is needed");
    assert!(!run(&["--connections", "0"]).0);
}
