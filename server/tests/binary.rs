//! What the binary needs of the system that it runs on.

use std::process::Command;

/// The libraries of glibc itself; newer ones have all in the first.
const GLIBC: [&str; 7] = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
    "libpthread.so.0",
    "ld-linux-",
];

#[test]
fn it_needs_only_glibc() {
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide", env!("CARGO_BIN_EXE_starling-server")])
        .env("LC_ALL", "C")
        .output()
        .expect("readelf, which comes with the linker");
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .map(|line| line.split_once('[').unwrap().1.trim_end_matches(']'))
        .collect();
    assert!(needed.contains(&"libc.so.6"), "{said}");
    let others: Vec<&&str> =
        needed.iter().filter(|library| !GLIBC.iter().any(|own| library.starts_with(own))).collect();
    assert!(others.is_empty(), "besides glibc it needs {others:?}");
}
