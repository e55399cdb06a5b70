//! What the kernel knows of processes and of the machine, and which core a process runs on.

use anyhow::{Context, Result};
use rustix::{
    process::{Pid, Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Processor time used so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cpu {
    /// By the whole machine, whoever used it.
    pub machine_s: f64,
    /// By this process; of several that share a load, by all of them.
    pub own_s: f64,
    /// By the busiest of them.
    pub busiest_s: f64,
    /// By the server, if its process is known.
    pub server_s: Option<f64>,
}

impl Cpu {
    /// Now, with the server's share if `server_pid` names it.
    ///
    /// # Errors
    /// There is no such process.
    pub fn now(server_pid: Option<u32>) -> Result<Cpu> {
        let own_s = process_cpu_s(std::process::id())?;
        Ok(Cpu {
            machine_s: machine_cpu_s()?,
            own_s,
            busiest_s: own_s,
            server_s: server_pid.map(process_cpu_s).transpose()?,
        })
    }

    /// Of two parts of one load; machine and server are measured by one of them.
    pub fn merge(&mut self, other: Cpu) {
        self.own_s += other.own_s;
        self.busiest_s = self.busiest_s.max(other.busiest_s);
        self.machine_s = self.machine_s.max(other.machine_s);
        self.server_s = self.server_s.or(other.server_s);
    }

    /// Of two spans of time.
    pub fn plus(self, other: Cpu) -> Cpu {
        Cpu {
            machine_s: self.machine_s + other.machine_s,
            own_s: self.own_s + other.own_s,
            busiest_s: self.busiest_s + other.busiest_s,
            server_s: self.server_s.zip(other.server_s).map(|(one, next)| one + next),
        }
    }

    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            machine_s: self.machine_s - earlier.machine_s,
            own_s: self.own_s - earlier.own_s,
            busiest_s: self.busiest_s - earlier.busiest_s,
            server_s: self.server_s.zip(earlier.server_s).map(|(now, then)| now - then),
        }
    }
}

/// Memory that grows with connections.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Proportional set size of the server.
    pub server_pss_bytes: Option<u64>,
    /// The kernel's slabs, of the whole machine: both ends of every connection on it.
    pub slab_bytes: u64,
    /// What connections take of them, see [`slab_object_bytes`]; only root may know.
    pub slab_object_bytes: Option<u64>,
    /// All that the kernel uses for itself, of the whole machine: what is neither free, nor
    /// cache of files, nor memory of a process.
    pub kernel_bytes: u64,
}

impl Memory {
    /// # Errors
    /// There is no such process, or it may not be looked at.
    pub fn now(server_pid: Option<u32>) -> Result<Memory> {
        let server_pss_bytes = server_pid
            .map(|pid| field_kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:"))
            .transpose()?;
        let text = fs::read_to_string("/proc/meminfo")?;
        let field = |name| kib(&text, name).with_context(|| format!("/proc/meminfo has no {name}"));
        let mut others = 0;
        for name in ["MemFree:", "Buffers:", "Cached:", "SwapCached:", "AnonPages:"] {
            others += field(name)?;
        }
        let kernel_bytes = field("MemTotal:")?.saturating_sub(others);
        let (slab_bytes, slab_object_bytes) = (field("Slab:")?, slab_object_bytes().ok());
        Ok(Memory { server_pss_bytes, slab_bytes, slab_object_bytes, kernel_bytes })
    }
}

/// Processor time of a process, of all its threads that run, to the nanosecond: what a kernel
/// counts in ticks is too coarse for a server that does next to nothing.
pub fn running_cpu_s(pid: u32) -> Result<f64> {
    Ok(Threads::now(pid)?.ns.values().sum::<u64>() as f64 / 1e9)
}

/// Processor time of the threads of a process, of each apart: a server with a thread for each
/// processor is at its end when one of them is, and its sum does not show that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Threads {
    /// By the number of the thread.
    ns: BTreeMap<i32, u64>,
    /// Processors that one of them at least may run on.
    processors: usize,
}

impl Threads {
    /// # Errors
    /// There is no such process.
    pub fn now(pid: u32) -> Result<Threads> {
        let path = format!("/proc/{pid}/task");
        let entries = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
        let (mut ns, mut allowed) = (BTreeMap::new(), CpuSet::new());
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(thread) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // A thread may end while it is looked at.
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            let used = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            ns.insert(thread, used.unwrap_or_default());
            if let Ok(set) = sched_getaffinity(Pid::from_raw(thread)) {
                let may = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
                may.for_each(|core| allowed.set(core));
            }
        }
        Ok(Threads { ns, processors: allowed.count() as usize })
    }

    /// How busy the process was since `earlier`, `seconds` ago: 1 when it could do no more, as one
    /// thread had a processor all the time, or all of them all those they may run on.
    pub fn busy_since(&self, earlier: &Threads, seconds: f64) -> f64 {
        let used = self.ns.iter().map(|(thread, now)| {
            now.saturating_sub(earlier.ns.get(thread).copied().unwrap_or_default())
        });
        let busiest_s = used.clone().max().unwrap_or_default() as f64 / 1e9;
        let all_s = used.sum::<u64>() as f64 / 1e9;
        busiest_s.max(all_s / self.processors.max(1) as f64) / seconds
    }
}

/// The program that servers of this repository run as.
const SERVER_PROGRAM: &str = "starling-server";

/// What the program of a server's process says of its version; none of another program, which need
/// not know the question.
pub fn version_of(pid: u32) -> Option<String> {
    let program = PathBuf::from(format!("/proc/{pid}/exe"));
    // Of one that was replaced meanwhile the name has more behind it.
    let name = fs::read_link(&program).ok()?.file_name()?.to_str()?.to_owned();
    if !name.starts_with(SERVER_PROGRAM) {
        return None;
    }
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|said| !said.is_empty())
}

/// Files that a process has open, sockets among them.
///
/// # Errors
/// There is no such process, or it may not be looked at.
pub fn open_files(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?.count())
}

/// Resident memory of a process: quick to ask for, unlike its proportional set size.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    field_kib(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// User and system time of a process, of all its threads, those that ended too.
fn process_cpu_s(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name in brackets may hold anything, so fields are counted from behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    anyhow::ensure!(ticks.len() == 2, "{path} is not what it should be");
    Ok(seconds(ticks.iter().sum()))
}

/// Time in which any core was busy.
fn machine_cpu_s() -> Result<f64> {
    Ok(seconds(Wanted::now()?.had))
}

/// For how long the processors of the machine were wanted so far, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// They were at work.
    had: u64,
    /// Whoever runs this virtual machine gave them to others.
    stolen: u64,
}

impl Wanted {
    pub fn now() -> Result<Wanted> {
        let stat = fs::read_to_string("/proc/stat")?;
        Ok(Wanted::of(stat.lines().next().unwrap_or_default()))
    }

    /// Of the first line of /proc/stat.
    fn of(line: &str) -> Wanted {
        let ticks: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
        let tick = |index: usize| ticks.get(index).copied().unwrap_or_default();
        // user, nice, system, (idle, iowait,) irq, softirq, steal; guests are in user and nice.
        Wanted { had: [0, 1, 2, 5, 6].map(tick).iter().sum(), stolen: tick(7) }
    }

    /// The share of what was wanted since then that others got, from 0 to 1.
    pub fn stolen_since(self, earlier: Wanted) -> f64 {
        let stolen = self.stolen.saturating_sub(earlier.stolen) as f64;
        let had = self.had.saturating_sub(earlier.had) as f64;
        if stolen > 0.0 { stolen / (stolen + had) } else { 0.0 }
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn field_kib(path: &str, field: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    kib(&text, field).with_context(|| format!("{path} has no {field}"))
}

/// Caches of the kernel that hold files, directories and processes: they come and go with whatever
/// else the machine does, and a connection takes nothing of them but one `dentry` at each end.
const NOT_OF_CONNECTIONS: &[&str] = &[
    "dentry",
    "proc_inode_cache",
    "inode_cache",
    "shmem_inode_cache",
    "kernfs_node_cache",
    "radix_tree_node",
    "buffer_head",
    "vm_area_struct",
    "maple_node",
    "anon_vma",
    "task_struct",
    "signal_cache",
    "sighand_cache",
    "mm_struct",
    "files_cache",
];
const FILE_SYSTEMS: &[&str] = &["ext4_", "jbd2_", "xfs_", "btrfs_", "ovl_", "fuse_", "bio", "pid"];

/// Bytes that objects in use take in the kernel's slabs, but for those of files and processes.
/// Pages that are half empty count half, unlike in [`Memory::slab_bytes`].
///
/// # Errors
/// Only root may know.
pub fn slab_object_bytes() -> Result<u64> {
    let path = "/proc/slabinfo";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(objects_of_connections(&text))
}

fn objects_of_connections(slabinfo: &str) -> u64 {
    let bytes = slabinfo.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let other = NOT_OF_CONNECTIONS.contains(&name)
            || FILE_SYSTEMS.iter().any(|prefix| name.starts_with(prefix));
        let objects: u64 = words.next()?.parse().ok()?;
        let object_bytes: u64 = words.nth(1)?.parse().ok()?;
        (!other).then_some(objects * object_bytes)
    });
    bytes.sum()
}

/// TCP sockets of this machine that are closed and wait for late packets.
pub fn waiting_sockets() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.iter().position(|word| *word == "tw");
    at.and_then(|at| words.get(at + 1)?.parse().ok()).context("/proc/net/sockstat has no tw")
}

/// The bytes of a field that is given in KiB.
fn kib(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| 1_024 * kib)
}

/// The cores this process may run on.
pub fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps the calling thread, and what it starts from now on, on one core.
pub fn pin(core: usize) -> Result<()> {
    pin_to(&[core])
}

/// As [`pin`], on any of some cores.
pub fn pin_to(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on cores {cores:?}"))
}

/// Raises the limit of open files as far as it goes, and says how far.
pub fn raise_file_limit() -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(1 << 20);
    setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: limit.maximum })?;
    Ok(hard as usize)
}

/// Files that a process has open besides its connections, at most: its streams, epoll, a
/// connection of the operator, users, a history and what it reads of the kernel, one that writes to
/// a crowd. These are a dozen; the rest is for what it inherits from whoever started it.
const OTHER_FILES: usize = 100;

/// How many connections this process may have: raises its limit of open files as far as it goes.
pub fn connection_limit() -> Result<usize> {
    Ok(raise_file_limit()?.saturating_sub(OTHER_FILES))
}

/// What a result was measured on, for the record.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub kernel: String,
    pub processor: String,
    pub cores: usize,
    pub memory_bytes: u64,
    /// Settings of the kernel that decide about connections.
    pub sysctls: BTreeMap<String, String>,
}

/// Those that matter for many connections.
const SYSCTLS: [&str; 12] = [
    "fs.file-max",
    "fs.nr_open",
    "net.core.netdev_max_backlog",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "vm.overcommit_memory",
];

impl Machine {
    pub fn this() -> Result<Machine> {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processors.lines().find_map(|line| line.strip_prefix("model name"));
        Ok(Machine {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into(),
            processor: processor.unwrap_or("unknown").trim_start_matches(['\t', ' ', ':']).into(),
            cores: cores()?.len(),
            memory_bytes: field_kib("/proc/meminfo", "MemTotal:")?,
            sysctls: SYSCTLS
                .iter()
                .filter_map(|name| Some((name.to_string(), sysctl(name)?)))
                .collect(),
        })
    }
}

/// None: this kernel has no such setting.
fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let pid = std::process::id();
        let before = Cpu::now(Some(pid)).unwrap();
        let memory = Memory::now(Some(pid)).unwrap();
        assert!(memory.server_pss_bytes.unwrap() > 0 && memory.slab_bytes > 0);
        assert!(memory.kernel_bytes > memory.slab_bytes / 2);
        if let Ok(bytes) = slab_object_bytes() {
            assert!(bytes > 0 && bytes < 2 * memory.slab_bytes);
        }
        let used = Cpu::now(Some(pid)).unwrap().since(before);
        assert!(used.own_s >= 0.0 && used.server_s.unwrap() >= 0.0 && used.machine_s >= 0.0);
        assert!(!cores().unwrap().is_empty());
    }

    #[test]
    fn a_process_is_at_its_end_when_a_thread_is_or_when_its_processors_are() {
        let threads = |ns: &[(i32, u64)], processors| Threads {
            ns: ns.iter().copied().collect(),
            processors,
        };
        let before = threads(&[(1, 5_000_000_000), (2, 0)], 4);
        let busy = |after: Threads| after.busy_since(&before, 2.0);
        // One of two threads never waited; that the sum is a quarter of the machine says nothing.
        assert_eq!(busy(threads(&[(1, 7_000_000_000), (2, 100_000_000)], 4)), 1.0);
        // Many that are half busy each on one processor.
        assert_eq!(busy(threads(&[(1, 6_000_000_000), (3, 1_000_000_000)], 1)), 1.0);
        // The same with room.
        assert_eq!(busy(threads(&[(1, 6_000_000_000), (3, 1_000_000_000)], 4)), 0.5);
        let own = Threads::now(std::process::id()).unwrap();
        assert!(!own.ns.is_empty() && (1..=CpuSet::MAX_CPU).contains(&own.processors));
    }

    #[test]
    fn processes_that_share_a_load_are_not_one_that_is_twice_as_busy() {
        let used = |own_s| Cpu { machine_s: 2.0, own_s, busiest_s: own_s, server_s: None };
        let mut all = used(0.5);
        all.merge(used(0.75));
        assert_eq!((all.own_s, all.busiest_s), (1.25, 0.75));
        assert_eq!(all.plus(used(0.25)).since(used(0.5)).busiest_s, 0.5);
    }

    #[test]
    fn what_others_got_is_a_share_of_what_was_wanted() {
        let before = Wanted::of("cpu  100 10 50 9000 300 5 5 40 7 0");
        assert_eq!(before, Wanted { had: 170, stolen: 40 });
        // Whether one waits for a disk or for nothing changes nothing.
        let after = Wanted::of("cpu  170 10 60 99000 700 10 10 50 7 0");
        assert_eq!(after.stolen_since(before), 0.1);
        assert_eq!(before.stolen_since(before), 0.0);
        // Not a virtual machine, or an old kernel.
        assert_eq!(Wanted::of("cpu  1 2 3 4 5 6 7").stolen, 0);
        assert!(Wanted::now().unwrap().had > 0);
    }

    #[test]
    fn objects_of_connections_are_counted_and_those_of_files_are_not() {
        let slabinfo = "slabinfo - version: 2.1\n\
            # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n\
            TCP                    10     13   2368   13    8 : tunables\n\
            sock_inode_cache       10     19    832   19    4 : tunables\n\
            proc_inode_cache     5000   5000    696   23    4 : tunables\n\
            ext4_inode_cache     5000   5000   1128   29    8 : tunables\n\
            dentry               5000   5000    192   21    1 : tunables\n";
        assert_eq!(objects_of_connections(slabinfo), 10 * (2_368 + 832));
    }
}
