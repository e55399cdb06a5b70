//! A virtual machine whose power can be cut: the server runs in it, on a disk behind a cache that
//! dies with the machine.

use crate::common::PATIENCE;
use std::{
    env, fs,
    fs::File,
    io::Read,
    net::TcpListener,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Names the folder that prepare.sh filled.
const PREPARED: &str = "STARLING_POWER";
const DISK_BYTES: u64 = 1 << 30;
/// Longer than it takes to start, emulated on a busy machine.
const START: Duration = Duration::from_secs(300);
/// What the machine's console says when the server is there.
pub const READY: &str = "ready on";

/// What outlives a power cut: the disk, and what is needed to start the machine again.
pub struct Yard {
    prepared: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Yard {
    pub fn new() -> Yard {
        let prepared =
            env::var_os(PREPARED).unwrap_or_else(|| panic!("{PREPARED} names no folder"));
        // The port is free now, and where it is not later, the machine does not start.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let yard = Yard {
            prepared: prepared.into(),
            folder: tempfile::tempdir_in("/var/tmp").unwrap(),
            port,
        };
        yard.make_initrd();
        File::create(yard.disk()).unwrap().set_len(DISK_BYTES).unwrap();
        yard
    }

    /// The file that the disk keeps its blocks in.
    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Where the server is reached once the machine runs.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn make_file_system(&self) {
        run(Command::new("mkfs.ext4").arg("-q").arg(self.disk()));
    }

    /// What stands at the beginning of a block of the disk.
    pub fn block(&self, number: u64) -> String {
        let mut block = [0; 32];
        File::open(self.disk()).unwrap().read_exact_at(&mut block, number * 4_096).unwrap();
        String::from_utf8(block.into_iter().take_while(|byte| *byte != 0).collect()).unwrap()
    }

    /// Starts the machine, to do what `init` knows by this name.
    pub fn start(&self, what: &str) -> Machine {
        let socket = self.folder.path().join("disk.socket");
        let _ = fs::remove_file(&socket);
        let disk = Command::new("nbdkit")
            .args(["--foreground", "--filter=cache", "--unix"])
            .arg(&socket)
            .arg("file")
            .arg(self.disk())
            .arg("cache=writeback")
            .env("TMPDIR", self.folder.path())
            .spawn()
            .expect("nbdkit");
        let until = Instant::now() + PATIENCE;
        while !socket.exists() {
            assert!(Instant::now() < until, "nbdkit does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        // Without `no_timer_check` a machine that gets too little time finds its timer broken.
        let network = format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:7400", self.port);
        let mut machine = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio", "-kernel"])
            .arg(self.prepared.join("vmlinuz"))
            .arg("-initrd")
            .arg(self.initrd())
            .args(["-append", &format!("console=ttyS0 quiet panic=-1 no_timer_check power={what}")])
            .args(["-netdev", &network, "-device", "virtio-net-pci,netdev=net", "-drive"])
            .arg(format!("file=nbd:unix:{},format=raw,if=virtio", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-system-x86_64");
        let console = Arc::new(Mutex::new(Vec::new()));
        let (mut output, said) = (machine.stdout.take().unwrap(), console.clone());
        thread::spawn(move || {
            let mut buffer = [0; 1_024];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                said.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Machine { disk, machine, console }
    }

    fn initrd(&self) -> PathBuf {
        self.folder.path().join("initrd")
    }

    /// The machine's first file system: a shell, the modules, our programs and their libraries.
    fn make_initrd(&self) {
        let root = self.folder.path().join("root");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power");
        for folder in ["bin", "lib", "proc", "sys", "dev", "disk", "modules"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy(sources.join("init"), root.join("init")).unwrap();
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for module in fs::read_dir(self.prepared.join("modules")).unwrap() {
            let module = module.unwrap();
            fs::copy(module.path(), root.join("modules").join(module.file_name())).unwrap();
        }
        run(Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-static", "-o"])
            .arg(root.join("bin/probe"))
            .arg(sources.join("probe.c")));
        run(Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(root.join("lib/skip_syncs.so"))
            .arg(sources.join("skip_syncs.c")));
        let server = env!("CARGO_BIN_EXE_starling-server");
        run(Command::new("strip").arg("-o").arg(root.join("bin/starling-server")).arg(server));
        for library in libraries_of(server) {
            let place = root.join(library.strip_prefix("/").unwrap());
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(&library, place).unwrap();
        }
        run(Command::new("sh")
            .args(["-c", "find . | cpio --quiet -o -H newc > ../initrd"])
            .current_dir(&root));
    }
}

/// A machine that runs.
pub struct Machine {
    disk: Child,
    machine: Child,
    console: Arc<Mutex<Vec<u8>>>,
}

impl Machine {
    /// All that its console has said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.console.lock().unwrap()).into_owned()
    }

    /// Waits until the console says one of these; which.
    pub fn wait_for<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let until = Instant::now() + START;
        loop {
            let said = self.said();
            if let Some(word) = words.iter().find(|word| said.contains(**word)) {
                return word;
            }
            let ended = self.machine.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < until, "not {words:?}: {said}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Cuts its power: the disk's cache goes first, so that nothing is saved at the last moment.
    pub fn cut_power(mut self) {
        self.end();
    }

    fn end(&mut self) {
        for process in [&mut self.disk, &mut self.machine] {
            // Fails when it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the loader will ask for.
fn libraries_of(program: &str) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let path = |line: &str| {
        let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
        Some(PathBuf::from(path))
    };
    text.lines().filter_map(path).collect()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
