//! Who has the processors while a test measures: which of them its threads stay on, what others had
//! of them, and when one stood still because the host of a virtual machine had given it away.

use std::{
    fs,
    mem::MaybeUninit,
    ops::{Range, Sub},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Who goes before all others and wants to run after a millisecond, and does not before this, had no
/// processor.
const STANDS_STILL: Duration = Duration::from_millis(3);

/// The processors this process began with.
static PROCESSORS: LazyLock<Vec<usize>> =
    LazyLock::new(starling_server::shard::affinity::processors);

/// The first of them, and the others if there are any.
pub fn first_and_others() -> (libc::cpu_set_t, libc::cpu_set_t) {
    let all = &PROCESSORS[..];
    (set_of(&all[..1]), set_of(if all.len() > 1 { &all[1..] } else { all }))
}

fn set_of(processors: &[usize]) -> libc::cpu_set_t {
    // SAFETY: a set of zeroes is a valid one, and CPU_SET ignores an index beyond the set.
    unsafe {
        let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init();
        processors.iter().for_each(|&number| libc::CPU_SET(number, &mut set));
        set
    }
}

/// The calling thread, and those it starts later.
pub fn stay_on(processors: &libc::cpu_set_t) {
    // SAFETY: the kernel reads the size it is given; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), processors) };
}

/// Notices what others have of the processors.
pub struct Watch {
    server: i32,
    begun: ProcessorTime,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Vec<Range<Instant>>>>,
}

/// What a [`Watch`] noticed.
pub struct Watched {
    time: ProcessorTime,
    stood_still: Vec<Range<Instant>>,
}

impl Watch {
    /// Of this process and the server, everything else is others.
    pub fn start(server: i32) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let threads = PROCESSORS
            .iter()
            .map(|&processor| {
                let (stop, ready) = (stop.clone(), ready.clone());
                thread::spawn(move || {
                    stay_on(&set_of(&[processor]));
                    let goes_first = go_before_all_others();
                    ready.send(()).unwrap();
                    // Who may not go first cannot tell who kept it from running.
                    if goes_first { stillnesses(&stop) } else { Vec::new() }
                })
            })
            .collect();
        PROCESSORS.iter().for_each(|_| is_ready.recv().unwrap());
        Watch { server, begun: ProcessorTime::now(server), stop, threads }
    }

    pub fn end(self) -> Watched {
        let time = ProcessorTime::now(self.server) - self.begun;
        self.stop.store(true, Ordering::Relaxed);
        let stood_still = self.threads.into_iter().flat_map(|thread| thread.join().unwrap());
        Watched { time, stood_still: stood_still.collect() }
    }
}

impl Watched {
    /// Of all the time of all processors, what other programs and other guests of the host had.
    pub fn share_of_others(&self) -> f64 {
        (self.time.others + self.time.stolen).as_secs_f64() / self.time.all.as_secs_f64()
    }

    /// When a processor stood still, if that was the host's doing.
    pub fn taken_by_the_host(&self) -> &[Range<Instant>] {
        let stood: Duration = self.stood_still.iter().map(|still| still.end - still.start).sum();
        println!("processors stood still for {stood:.1?}, the host took {:.1?}", self.time.stolen);
        // More than it took they stood still for another reason, which is nobody's excuse.
        if stood <= self.time.stolen.mul_f64(1.2) { &self.stood_still } else { &[] }
    }
}

/// Says whether the calling thread may.
fn go_before_all_others() -> bool {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a local; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &lowest) == 0 }
}

/// Every time at which the calling thread, which goes before all others, did not run when it was to.
fn stillnesses(stop: &AtomicBool) -> Vec<Range<Instant>> {
    let mut found = Vec::new();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(1));
        let now = Instant::now();
        if now - last > STANDS_STILL {
            found.push(last..now);
        }
        last = now;
    }
    found
}

/// Time of all processors together.
struct ProcessorTime {
    /// What neither the server nor this process nor interrupts had of it.
    others: Duration,
    /// What the host of a virtual machine gave to somebody else.
    stolen: Duration,
    all: Duration,
}

impl ProcessorTime {
    /// Since the machine, and each of the two processes, started.
    fn now(server: i32) -> ProcessorTime {
        let all = fields("/proc/stat");
        let [user, nice, system, _idle, _wait, _hard, _soft, steal] = all[..8] else {
            unreachable!()
        };
        let of_process = |process: &str| -> f64 {
            // User and system time, the 14th and 15th of a line whose third is the first here.
            fields(&format!("/proc/{process}/stat"))[10..12].iter().sum()
        };
        let ours = of_process("self") + of_process(&server.to_string());
        // SAFETY: sysconf takes no pointer.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let time = |in_ticks: f64| Duration::from_secs_f64((in_ticks / ticks).max(0.0));
        ProcessorTime {
            others: time(user + nice + system - ours),
            stolen: time(steal),
            all: time(all[..8].iter().sum()),
        }
    }
}

impl Sub for ProcessorTime {
    type Output = ProcessorTime;

    fn sub(self, before: ProcessorTime) -> ProcessorTime {
        ProcessorTime {
            others: self.others.saturating_sub(before.others),
            stolen: self.stolen.saturating_sub(before.stolen),
            all: self.all.saturating_sub(before.all),
        }
    }
}

/// The numbers in a file's first line that come after its first word, or after a process's name.
fn fields(path: &str) -> Vec<f64> {
    let text = fs::read_to_string(path).unwrap();
    // The name of a process may have spaces in it, but ends with the last bracket.
    let line = text.lines().next().unwrap();
    let line = line.rsplit_once(')').map_or(line, |(_, rest)| rest);
    line.split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect()
}
