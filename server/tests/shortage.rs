//! The real server with too little of something: room on the disk, memory, files that it may open.
//! Each ends with the server serving, or ended with a clear word (memory: by the kernel) and started
//! again; nothing promised is missing, every text stands once at both ends, and the history of all
//! devices holds.
//!
//! A disk that fails in the middle of a write, and syncs that fail, are in slow_store.rs.

mod common;
mod faults;

use common::{
    Server,
    wire::{Wire, send_to},
};
use faults::{
    home::{Home, flushed_by_any, kept_all},
    memory_of,
    talk::Talk,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use starling_codec::{ErrorCode, Kind, wire as bodies};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PEOPLE: [&str; 3] = ["ada", "bob", "eve"];
const DEVICES: usize = 2;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn seeded() -> SmallRng {
    let given = std::env::var("STARLING_SEED");
    let seed = given.map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("STARLING_SEED={seed}");
    SmallRng::seed_from_u64(seed)
}

/// Says that a test proves nothing here. The harness keeps to itself what a test that passes prints;
/// what is written to standard error is seen.
fn skipped(what: &str, why: &str) {
    let test = std::thread::current();
    let name = test.name().unwrap_or("a test");
    let line = format!("SKIPPED {name}: {what}: {}\n", why.trim());
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The store failed: the process said so and ended by itself.
fn failed_clearly((status, said): &(ExitStatus, String)) {
    assert_eq!(status.code(), Some(3), "{status} {said}");
    assert!(said.contains("the store failed"), "{said}");
}

/// A small disk that is mounted from a file.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    const MIB: u64 = 640;

    /// Why not, where this user or this kernel may not.
    fn mount() -> Result<SmallDisk, String> {
        let disk = SmallDisk { folder: tempfile::tempdir_in("/var/tmp").unwrap() };
        File::create(disk.image()).unwrap().set_len(SmallDisk::MIB << 20).unwrap();
        fs::create_dir(disk.path()).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(disk.image()))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(disk.image()).arg(disk.path()))?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all of its room but so many bytes. What it cannot get in one piece, because the file
    /// system needs some itself, it takes in smaller ones.
    fn fill_up_to(&self, left: u64) {
        fs::create_dir(self.filler()).unwrap();
        let rest = || free_bytes(&self.path()).saturating_sub(left);
        let mut piece_bytes = rest();
        let mut pieces = 0;
        while piece_bytes > 64 * 1_024 {
            let piece = self.filler().join(pieces.to_string());
            pieces += 1;
            let length = piece_bytes.to_string();
            piece_bytes = match run(Command::new("fallocate").args(["-l", &length]).arg(piece)) {
                Ok(()) => piece_bytes.min(rest()),
                Err(_) => piece_bytes / 2,
            };
        }
    }

    fn make_room(&self) {
        fs::remove_dir_all(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Fails where it was never mounted.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

fn free_bytes(path: &Path) -> u64 {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).unwrap().trim().parse().unwrap()
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// A disk that fills is noticed before a write fails: who writes is refused with DISK_FULL, who
/// reads is served, and all goes on once there is room. Then all of it is gone at once, under load:
/// should a write fail, the process ends with a clear word.
fn fill_the_disk(times: usize) {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(why) => return skipped("a small disk cannot be mounted", &why),
    };
    let mut random = seeded();
    runtime().block_on(async {
        let home = Home::on(&disk.path());
        let mut server = home.start();
        let mut talk = Talk::new(&home.address(), &PEOPLE, DEVICES).await;
        let mut stranger = Wire::connect(server.address);
        let grant = stranger.register("kim", "correct horse");
        stranger.hello(&grant.token, 1);
        talk.burst(&mut random, 0.5).await;
        talk.flushed().await;

        disk.fill_up_to(100 << 20);
        until_refused(&mut stranger, grant.user);
        let written = talk.written();
        while talk.written() == written {
            talk.burst(&mut random, 0.5).await;
        }
        let device = &talk.people[0].devices[0];
        assert_eq!(device.client.resolve("bob").await.unwrap(), talk.people[1].user);
        let waits = talk.devices().map(|device| device.client.outbox());
        let mut waiting = 0;
        for outbox in waits {
            waiting += outbox.await.len();
        }
        assert!(waiting > 0, "it was stored on a disk that is nearly full");
        disk.make_room();
        talk.flushed().await;

        let mut failures = 0;
        for _ in 0..times {
            disk.fill_up_to(0);
            for _ in 0..random.random_range(1..6) {
                talk.burst_of_large(&mut random).await;
                tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
            }
            disk.make_room();
            let ends = flushed_by_any(&talk, &mut server, || home.start()).await;
            ends.iter().for_each(failed_clearly);
            failures += ends.len();
        }
        println!("the disk was full {times} times, a write failed {failures} times");
        kept_all(&talk, &home.address()).await;
        talk.close(&home.address()).await;
        server.end();
    });
}

/// Writes until the server says that its disk is full. What it stores before that is nobody's
/// business here.
fn until_refused(wire: &mut Wire, own: u32) {
    let until = Instant::now() + common::PATIENCE;
    for number in 1.. {
        wire.send(Kind::Send, &send_to(own, number, "to myself"));
        let (kind, body) = loop {
            let (kind, body) = wire.next().expect("an answer");
            if matches!(kind, Kind::SendAck | Kind::SendRefused) {
                break (kind, body);
            }
        };
        if kind == Kind::SendRefused {
            let refused: bodies::SendRefused = prost::Message::decode(&*body).unwrap();
            assert_eq!(ErrorCode::from_number(refused.code), Some(ErrorCode::DiskFull));
            return;
        }
        assert!(Instant::now() < until, "nothing is refused");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_full_disk_refuses_or_ends_with_a_clear_word_and_loses_nothing() {
    fill_the_disk(1);
}

#[test]
#[ignore = "takes long: make faults"]
fn a_disk_that_is_full_again_and_again_loses_nothing() {
    fill_the_disk(5);
}

/// The two versions of cgroups, which have other words for the same.
#[derive(Clone, Copy, Debug)]
enum Cgroups {
    One,
    Two,
}

impl Cgroups {
    /// The version that limits memory on this machine, and where it is mounted.
    fn of_memory() -> Option<(Cgroups, PathBuf)> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (mount, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let mount = PathBuf::from(mount);
            let (version, controllers) = match kind {
                "cgroup" => (Cgroups::One, options.replace(',', " ")),
                "cgroup2" => {
                    (Cgroups::Two, fs::read_to_string(mount.join("cgroup.controllers")).ok()?)
                }
                _ => return None,
            };
            let limits_memory = controllers.split_whitespace().any(|name| name == "memory");
            limits_memory.then_some((version, mount))
        })
    }

    fn limit_file(self) -> &'static str {
        match self {
            Cgroups::One => "memory.limit_in_bytes",
            Cgroups::Two => "memory.max",
        }
    }

    fn no_limit(self) -> &'static str {
        match self {
            Cgroups::One => "-1",
            Cgroups::Two => "max",
        }
    }

    /// How often a group met its limit.
    fn hits(self, group: &Path) -> u64 {
        let (file, name) = match self {
            Cgroups::One => ("memory.failcnt", ""),
            Cgroups::Two => ("memory.events", "max "),
        };
        let text = fs::read_to_string(group.join(file)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        count.trim().parse().unwrap()
    }
}

/// A group of processes with little memory.
struct SmallMemory {
    cgroups: Cgroups,
    group: PathBuf,
}

impl SmallMemory {
    /// Why not, where this user or this kernel may not.
    fn new() -> Result<SmallMemory, String> {
        let (cgroups, mount) = Cgroups::of_memory().ok_or("no cgroups of memory")?;
        println!("memory is limited by cgroups, version {cgroups:?}");
        let group = mount.join(format!("starling-test-{}", std::process::id()));
        fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        let memory = SmallMemory { cgroups, group };
        if !memory.limit_file().exists() {
            // In version 2 a group limits what its parent hands down.
            let handed_down = mount.join("cgroup.subtree_control");
            fs::write(&handed_down, "+memory")
                .map_err(|error| format!("{}: {error}", handed_down.display()))?;
        }
        Ok(memory)
    }

    fn limit_file(&self) -> PathBuf {
        self.group.join(self.cgroups.limit_file())
    }

    /// Starts a server that is in the group, which is not limited yet.
    fn start(&self, home: &Home) -> Server {
        self.limit(self.cgroups.no_limit());
        let inner = home.command();
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(self.group.join("cgroup.procs"));
        command.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        home.launch(command)
    }

    /// From now on there are only a few bytes more than the server has.
    fn limit_to(&self, server: &Server) {
        const SPARE_BYTES: u64 = 4 << 20;
        self.limit(&(memory_of(server.pid()) + SPARE_BYTES).to_string());
    }

    fn limit(&self, bytes: &str) {
        fs::write(self.limit_file(), bytes).unwrap();
    }

    /// How often the limit was met.
    fn hits(&self) -> u64 {
        self.cgroups.hits(&self.group)
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        // Fails where a process is left in it, which the test that failed leaves behind.
        let _ = fs::remove_dir(&self.group);
    }
}

/// With less memory than it would take it gives back what it can; if the kernel ends it all the
/// same, the next life has everything.
fn take_the_memory(times: usize) {
    let memory = match SmallMemory::new() {
        Ok(memory) => memory,
        Err(why) => return skipped("memory cannot be limited", &why),
    };
    let mut random = seeded();
    runtime().block_on(async {
        let home = Home::new();
        let start = || memory.start(&home);
        let mut server = start();
        let mut talk = Talk::new(&home.address(), &PEOPLE, DEVICES).await;
        let mut kills = 0;
        for _ in 0..times {
            memory.limit_to(&server);
            for _ in 0..10 {
                talk.burst_of_large(&mut random).await;
            }
            for (status, said) in flushed_by_any(&talk, &mut server, start).await {
                assert_eq!(status.signal(), Some(libc::SIGKILL), "{status} {said}");
                kills += 1;
            }
        }
        println!("the limit was met {} times, the kernel ended it {kills} times", memory.hits());
        assert!(memory.hits() > 0, "there was room enough");
        server.kill();
        let server = home.start();
        kept_all(&talk, &home.address()).await;
        talk.close(&home.address()).await;
        server.end();
    });
}

#[test]
fn too_little_memory_loses_nothing() {
    take_the_memory(1);
}

#[test]
#[ignore = "takes long: make faults"]
fn too_little_memory_for_long_loses_nothing() {
    take_the_memory(5);
}

/// No file can be opened any more, though clients want to connect and memtables fill.
fn take_the_files(times: usize) {
    let mut random = seeded();
    runtime().block_on(async {
        let home = Home::new();
        let mut server = home.start();
        let mut talk = Talk::new(&home.address(), &PEOPLE, DEVICES).await;
        let mut failures = 0;
        for _ in 0..times {
            let before = server.limit_files(server.open_files());
            let _crowd: Vec<Wire> = (0..10).map(|_| Wire::connect(server.address)).collect();
            for _ in 0..8 {
                talk.burst_of_large(&mut random).await;
            }
            if !server.has_ended() {
                server.limit_files(before);
            }
            let ends = flushed_by_any(&talk, &mut server, || home.start()).await;
            ends.iter().for_each(failed_clearly);
            failures += ends.len();
        }
        println!("no file could be opened {times} times, the store failed {failures} times");
        kept_all(&talk, &home.address()).await;
        talk.close(&home.address()).await;
        server.end();
    });
}

#[test]
fn without_descriptors_under_load_nothing_is_lost() {
    take_the_files(1);
}

#[test]
#[ignore = "takes long: make faults"]
fn without_descriptors_again_and_again_nothing_is_lost() {
    take_the_files(5);
}
