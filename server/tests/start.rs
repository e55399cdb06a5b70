//! Starting, or saying in one line why not and what to do.

mod common;

use common::{Server, command, in_shell, refusal};
use std::{
    collections::HashMap,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

fn with_data(data: &std::path::Path) -> Command {
    let mut command = command();
    command.arg("--data").arg(data);
    command
}

fn said_of(command: Command, code: i32, words: &[&str]) {
    let (found, said) = refusal(command);
    for word in words {
        assert!(said.contains(word), "{word:?} is missing: {said}");
    }
    assert_eq!(found, code, "{said}");
}

#[test]
fn a_port_in_use() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let mut command = with_data(data.path());
    command.args(["--listen", &address]);
    said_of(command, 1, &[&address, "in use", "--listen"]);
}

#[test]
fn a_port_in_use_by_another_starling() {
    let server = Server::start(&[]);
    let data = tempfile::tempdir().unwrap();
    let mut command = with_data(data.path());
    command.args(["--listen", &server.address.to_string()]);
    said_of(command, 1, &["in use", "--listen"]);
}

#[test]
fn an_address_that_is_not_here() {
    let data = tempfile::tempdir().unwrap();
    let mut command = with_data(data.path());
    command.args(["--listen", "192.0.2.1:7400", "--allow-plaintext"]);
    said_of(command, 1, &["192.0.2.1:7400", "--listen"]);
}

#[test]
fn an_address_beyond_loopback_without_leave() {
    let data = tempfile::tempdir().unwrap();
    let mut command = with_data(data.path());
    command.args(["--listen", "0.0.0.0:0"]);
    said_of(command, 2, &["loopback", "encrypted", "--allow-plaintext"]);
}

#[test]
fn a_data_folder_without_rights() {
    // Nobody may make a folder there, not even root.
    said_of(with_data("/sys/starling-data".as_ref()), 1, &["rights", "--data"]);
}

#[test]
fn a_data_folder_that_is_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    said_of(with_data(file.path()), 1, &["no folder", "--data"]);
}

#[test]
fn a_data_folder_of_another_server() {
    let server = Server::start(&[]);
    said_of(with_data(server.data()), 1, &["locked", "--data"]);
}

#[test]
fn a_broken_signing_key() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("signing.key"), "1 secret\n").unwrap();
    let (code, said) = refusal(with_data(data.path()));
    assert_eq!(code, 1);
    assert!(said.contains("signing.key") && said.contains("line 1"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn too_few_files() {
    let data = tempfile::tempdir().unwrap();
    let limited = in_shell("ulimit -n 512 &&", &with_data(data.path()));
    said_of(limited, 1, &["512 files", "1024", "ulimit -n"]);
}

#[test]
fn the_soft_limit_on_files_is_raised_to_the_hard_one() {
    let connections = |limits: &str| -> u32 {
        let data = tempfile::tempdir().unwrap();
        let limited = in_shell(limits, with_data(data.path()).args(["--shards", "1"]));
        let server = Server::start_command(limited, data.path());
        let number = server.ready_line.trim_end().strip_suffix(" connections").unwrap();
        let number = number.rsplit(' ').next().unwrap().parse().unwrap();
        server.end();
        number
    };
    let all = connections("ulimit -Sn 4096 && ulimit -Hn 4096 &&");
    let fewer = connections("ulimit -Sn 1024 && ulimit -Hn 1024 &&");
    assert!(fewer < 1_024 && all > 1_024, "{fewer}, {all}");
    assert_eq!(connections("ulimit -Sn 1024 && ulimit -Hn 4096 &&"), all);
}

#[test]
fn an_old_kernel() {
    const UNAME26: libc::c_ulong = 0x0020000;
    let data = tempfile::tempdir().unwrap();
    let mut command = with_data(data.path());
    // SAFETY: personality is async-signal-safe; it has the kernel call itself 2.6.
    unsafe {
        command.pre_exec(|| match libc::personality(UNAME26) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    said_of(command, 1, &["kernel is 2.6", "6.1"]);
}

#[test]
fn no_io_uring() {
    let data = tempfile::tempdir().unwrap();
    let mut command = with_data(data.path());
    // SAFETY: prctl is async-signal-safe.
    unsafe { command.pre_exec(forbid_io_uring) };
    said_of(command, 1, &["io_uring", "kernel.io_uring_disabled", "seccomp"]);
}

/// As containers do it: a seccomp filter that answers io_uring_setup(2) with EPERM.
fn forbid_io_uring() -> std::io::Result<()> {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, from offset 0: the call's number
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives until prctl has copied it.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
        {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

#[test]
fn wrong_usage() {
    let data = tempfile::tempdir().unwrap();
    let mut zero = with_data(data.path());
    zero.args(["--shards", "0"]);
    said_of(zero, 2, &["shards is 0", "--help"]);

    let file = data.path().join("settings.toml");
    std::fs::write(&file, "shards = 1\nlisten_on = \"127.0.0.1:1\"\n").unwrap();
    let mut unknown = with_data(data.path());
    unknown.arg("--config").arg(&file);
    said_of(unknown, 2, &["settings.toml", "line 2", "listen_on"]);

    let mut missing = with_data(data.path());
    missing.args(["--config", "/nowhere/settings.toml"]);
    said_of(missing, 2, &["/nowhere/settings.toml"]);

    let mut filter = with_data(data.path());
    filter.args(["--log", "starling=loudly"]);
    said_of(filter, 2, &["starling=loudly"]);
}

#[test]
fn ready_in_one_line_with_keys_that_only_the_owner_reads() {
    let server = Server::start(&["--shards", "2", "--max-connections", "300"]);
    let expected = format!(
        "starling-server {} ready on {}, 2 shards, up to 300 connections\n",
        env!("CARGO_PKG_VERSION"),
        server.address
    );
    assert_eq!(server.ready_line, expected);
    assert_ne!(server.address.port(), 0);
    for key in ["signing.key", "operator.key"] {
        let mode = std::fs::metadata(server.data().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    server.end();
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("settings.toml");
    std::fs::write(&file, "shards = 3\nmax_connections = 301\nheartbeat_s = 40\n").unwrap();
    let mut command = with_data(&data.path().join("data"));
    command
        .arg("--config")
        .arg(&file)
        .env("STARLING_MAX_CONNECTIONS", "302")
        .env("STARLING_SHARDS", "1")
        .args(["--shards", "2"]);
    let server = Server::start_command(command, &data.path().join("data"));
    assert!(
        server.ready_line.ends_with("2 shards, up to 302 connections\n"),
        "{}",
        server.ready_line
    );
    server.end();
}

#[test]
fn it_says_what_it_is_and_what_may_be_set() {
    let output = |argument| {
        let output = Command::new(env!("CARGO_BIN_EXE_starling-server")).arg(argument).output();
        let output = output.unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let version = output("--version");
    assert!(version.starts_with("starling-server ") && version.contains("protocol 1"), "{version}");
    let help = output("--help");
    for flag in [
        "--config",
        "--listen",
        "--data",
        "--shards",
        "--log",
        "--allow-plaintext",
        "127.0.0.1:7400",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
    let example = output("--print-config");
    assert!(example.contains("# listen = \"127.0.0.1:7400\""), "{example}");
}

/// Who flushes and compacts must not keep a message waiting for the processor.
#[test]
fn the_databases_own_threads_stand_back_and_those_of_a_message_do_not() {
    let server = Server::start(&["--shards", "1"]);
    // A thread takes its name when it first runs.
    let names = ["rocksdb:low", "rocksdb:high", "shard-0", "committer", "log-sync"];
    let begun = std::time::Instant::now();
    let threads = loop {
        let threads = niceness_of_threads(server.pid());
        if names.iter().all(|name| threads.contains_key(*name)) {
            break threads;
        }
        assert!(begun.elapsed() < common::PATIENCE, "{threads:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    for name in names {
        let (upkeep, niceness) = (name.starts_with("rocksdb:"), threads[name]);
        assert_eq!(niceness > 0, upkeep, "{name} has a nice value of {niceness}");
    }
    server.end();
}

fn niceness_of_threads(process: i32) -> HashMap<String, i32> {
    let mut threads = HashMap::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        // The 19th field of a line whose third comes first here.
        let niceness = rest.split_whitespace().nth(16).unwrap().parse().unwrap();
        threads.insert(name.to_owned(), niceness);
    }
    threads
}
