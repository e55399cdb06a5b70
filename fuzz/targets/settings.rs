//! A settings file, an environment and flags, of values that make sense and of others. Whatever is
//! written: nothing panics; it resolves, and then each setting is the one that goes before the
//! others; or the error names a setting, or the line of the file.
//!
//! The files of the server are compiled here, so that nothing else of it is built for this.
#![no_main]

// More is in these files than settings need.
#[allow(dead_code)]
#[path = "../../server/src/shard/affinity.rs"]
mod affinity;
#[allow(dead_code)]
#[path = "../../server/src/failure.rs"]
mod failure;
#[allow(dead_code, unused_imports)]
#[path = "../../server/src/settings/mod.rs"]
mod settings;
mod shard {
    pub(crate) use crate::affinity;
}
mod size {
    /// Stands for the arguments of a command that has nothing to do with settings.
    #[derive(Clone, Debug, clap::Args)]
    pub struct SizeArguments {}
}

use clap::CommandFactory;
use libfuzzer_sys::fuzz_target;
use settings::{CommandLine, Settings};
use starling_fuzz::Script;
use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf, sync::LazyLock};

/// As the definition of the command line wants it.
fn version() -> &'static str {
    "fuzzed"
}

/// Settings, and the variables of the environment that go with them.
static KEYS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let command = CommandLine::command();
    let named = command.get_arguments().filter_map(|argument| {
        let variable = argument.get_env()?.to_string_lossy().into_owned();
        Some((argument.get_id().to_string(), variable))
    });
    named.filter(|(key, _)| key != "config").collect()
});

/// The settings that are numbers, and what they became.
fn numbers(settings: &Settings) -> [(&'static str, u64); 10] {
    const MIB: usize = 1024 * 1024;
    [
        ("shards", settings.shards.get().into()),
        ("max_connections", settings.max_connections.into()),
        ("block_cache_mib", (settings.block_cache_bytes / MIB) as u64),
        ("memtable_mib", (settings.memtable_bytes / MIB) as u64),
        ("readers", settings.readers as u64),
        ("hashing_threads", settings.hashing_threads as u64),
        ("credits", settings.credits.into()),
        ("sends_per_second", settings.sends_per_second.into()),
        ("heartbeat_s", settings.heartbeat_s.into()),
        ("token_lifetime_s", settings.token_lifetime_s.into()),
    ]
}

const VALUES: [&str; 22] = [
    "1",
    "0",
    "2",
    "20",
    "30",
    "900",
    "901",
    "256",
    "257",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "-1",
    "",
    "true",
    "false",
    "127.0.0.1:7400",
    "[::1]:0",
    "0.0.0.0:1",
    "json",
    "text",
];

fuzz_target!(|input: &[u8]| {
    let script = &mut Script::new(input);
    let mut flags = vec![OsString::from("starling-server")];
    let (mut file, mut file_is_plain) = (String::new(), true);
    // For each setting what was written: as a flag, in the environment, in the file.
    let mut written: Vec<[Option<String>; 3]> = vec![[None, None, None]; KEYS.len()];
    for (_, variable) in &*KEYS {
        // SAFETY: a fuzzing process has one thread.
        unsafe { std::env::remove_var(variable) };
    }
    for _ in 0..24 {
        if script.is_over() {
            break;
        }
        let index = script.below(KEYS.len());
        let (key, variable) = &KEYS[index];
        match script.below(8) {
            0 | 1 => {
                let value = value(script);
                if written[index][0].is_none() {
                    let mut flag = OsString::from(format!("--{}=", key.replace('_', "-")));
                    flag.push(&value);
                    flags.push(flag);
                    written[index][0] = Some(value.to_string_lossy().into_owned());
                }
            }
            2 | 3 => {
                let value = value(script);
                // No system lets a variable have a zero byte.
                if !value.as_encoded_bytes().contains(&0) {
                    // SAFETY: a fuzzing process has one thread.
                    unsafe { std::env::set_var(variable, &value) };
                    written[index][1] = Some(value.to_string_lossy().into_owned());
                }
            }
            4 | 5 => {
                let value = script.one_of(&VALUES);
                let is_number = value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok();
                let value_in_file = if is_number { value.to_owned() } else { format!("{value:?}") };
                file += &format!("{key} = {value_in_file}\n");
                written[index][2] = Some(value.to_owned());
            }
            6 => {
                file_is_plain = false;
                file += &script.text();
            }
            _ => flags.push(OsString::from_vec(script.some_bytes().to_vec())),
        }
    }
    gather(&flags, &file, |key, settings| {
        let index = KEYS.iter().position(|(name, _)| name == key).expect("a setting");
        let [flag, variable, line] = &written[index];
        let line = line.as_ref().filter(|_| file_is_plain && !file.is_empty());
        // Flags of any bytes may be settings too.
        let is_plain = flags.len() == 1 + written.iter().filter(|of| of[0].is_some()).count();
        let first = flag.as_ref().or(variable.as_ref()).or(line);
        if let Some(first) = first.filter(|_| is_plain && file_is_plain) {
            assert_eq!(first.trim_start_matches('+').parse(), Ok(settings), "{key}");
        }
    });
});

fn value(script: &mut Script) -> OsString {
    match script.byte() {
        0..=199 => script.one_of(&VALUES).into(),
        _ => OsString::from_vec(script.some_bytes().to_vec()),
    }
}

/// Reads it all as the server does. `check` is told each setting that is a number.
fn gather(flags: &[OsString], file: &str, check: impl Fn(&str, u64)) {
    let command_line = match settings::parse(flags) {
        Ok(command_line) => command_line,
        // Words for people; clap names the argument itself.
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let command_line = CommandLine { config: Some(write(file)), ..command_line };
    match Settings::gather(command_line) {
        Ok(settings) => {
            for (key, number) in numbers(&settings) {
                check(key, number);
            }
        }
        Err(failure) => {
            let text = failure.to_string();
            let named = KEYS.iter().any(|(key, _)| text.contains(&**key))
                || text.contains(" in line ")
                || text.contains("--allow-plaintext");
            assert!(named, "{text}");
            assert!(!text.contains('\n'), "one line: {text}");
            assert_eq!(failure.exit_code(), 2);
        }
    }
}

/// A file with this text: one, written anew each time.
fn write(text: &str) -> PathBuf {
    static FILE: LazyLock<tempfile::NamedTempFile> =
        LazyLock::new(|| tempfile::NamedTempFile::new().expect("a file"));
    std::fs::write(FILE.path(), text).expect("room for a file");
    FILE.path().to_owned()
}
