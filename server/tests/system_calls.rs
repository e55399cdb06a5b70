//! What a shard says of its own system calls, against what the kernel saw of its thread: a
//! debugger's view (ptrace), which is told of each call as it is entered.

mod common;

use common::{
    PATIENCE, Server,
    wire::{Wire, opening, send_to},
};
use starling_codec::{Kind, append_header, wire as bodies};
use std::{
    collections::BTreeMap,
    io::Write,
    mem::MaybeUninit,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Each counter, and the calls that it stands for. Which call asks a set of sockets differs
/// between processors and versions of what makes it.
const COUNTED: [(&[&str], &[libc::c_long]); 10] = [
    (&["ring_enters"], &[libc::SYS_io_uring_enter]),
    (&["recv_calls"], &[libc::SYS_recvfrom]),
    (&["send_calls"], &[libc::SYS_sendto]),
    (&["accept_calls"], &[libc::SYS_accept4]),
    (&["watch_calls"], &[libc::SYS_epoll_ctl]),
    (&["readiness_calls"], &[EPOLL_WAIT, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2]),
    (&["shutdown_calls"], &[libc::SYS_shutdown]),
    (&["close_calls"], &[libc::SYS_close]),
    (&["alarm_sets"], &[libc::SYS_timerfd_settime]),
    (&["doorbell_reads", "alarm_reads"], &[libc::SYS_read]),
];

/// Newer processors have no epoll_wait of their own.
#[cfg(target_arch = "x86_64")]
const EPOLL_WAIT: libc::c_long = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
const EPOLL_WAIT: libc::c_long = libc::SYS_epoll_pwait;

/// Calls by their number.
type Calls = BTreeMap<libc::c_long, u64>;

/// What was called up to and with each sendto since the view began, the oldest first.
type Sends = Arc<Mutex<Vec<Calls>>>;

#[test]
fn the_kernel_sees_the_system_calls_that_a_shard_counts() {
    let server = Server::start(&["--shards", "1", "--sends-per-second", "0"]);
    let (sends, view) = watch(thread_named(server.pid(), "shard-0"));
    let mut operator = Wire::connect(server.address);
    let key = server.operator_key().into();
    operator.send(Kind::Operator, &bodies::Operator { opening: opening(), key });
    operator.expect::<bodies::Done>(Kind::Done);

    // Nobody else is there: the answer is the last thing that was sent.
    let before = counters(&mut operator);
    let first = sends.lock().unwrap().len() - 1;
    live(server.address);
    let after = counters(&mut operator);
    let last = first + (after["send_calls"] - before["send_calls"]) as usize;

    {
        let sends = sends.lock().unwrap();
        let of = |calls: &Calls, numbers: &[libc::c_long]| -> u64 {
            let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
            distinct.into_iter().filter_map(|number| calls.get(number)).sum()
        };
        for (names, numbers) in COUNTED {
            let counted: u64 = names.iter().map(|name| after[*name] - before[*name]).sum();
            let seen = of(&sends[last], numbers) - of(&sends[first], numbers);
            println!("{names:?}: {counted} counted, {seen} seen");
            assert_eq!(counted, seen, "{names:?}");
            assert_ne!(seen, 0, "{names:?} did not come up");
        }
    }
    server.end();
    view.join().unwrap();
}

/// Some hundred turns with something of everything in them.
fn live(address: std::net::SocketAddr) {
    let grants = ["ada", "bob"].map(|name| Wire::connect(address).register(name, "correct horse"));
    let mut people = grants.each_ref().map(|grant| {
        let mut wire = Wire::connect(address);
        wire.hello(&grant.token, 1);
        wire
    });
    let mut ping = Vec::new();
    append_header(&mut ping, Kind::Ping, 0);
    for send_no in 1..=150 {
        people[0].send(Kind::Send, &send_to(grants[1].user, send_no, "hello"));
        people[0].await_kind::<bodies::SendAck>(Kind::SendAck);
        people[1].await_kind::<bodies::Events>(Kind::Events);
        people[1].stream.write_all(&ping).unwrap();
    }
    // Some are closed by the server and linger, others leave.
    for number in 0..50 {
        let mut stranger = Wire::connect(address);
        if number % 2 == 0 {
            // A browser: its first letter is a length of 71.
            stranger.send_bytes(format!("GET /{:80} HTTP/1.1\r\n\r\n", "").as_bytes());
            stranger.expect_close();
        }
    }
    // Left alone, a shard has its alarm wake it once a second.
    std::thread::sleep(Duration::from_millis(1_500));
}

fn counters(operator: &mut Wire) -> BTreeMap<String, u64> {
    let of_shard = operator.counters().into_iter().filter(|counter| counter.source == "shard 0");
    of_shard.map(|counter| (counter.name + &counter.part, counter.value)).collect()
}

/// Waits for it: a server is ready when it listens, which may be before its shards run.
fn thread_named(process: i32, name: &str) -> libc::pid_t {
    let until = Instant::now() + PATIENCE;
    loop {
        let named = std::fs::read_dir(format!("/proc/{process}/task"))
            .unwrap()
            .map(|task| task.unwrap().path())
            .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name)
            .and_then(|task| task.file_name()?.to_str()?.parse().ok());
        if let Some(thread) = named {
            return thread;
        }
        assert!(Instant::now() < until, "no thread {name}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Watches a thread until it ends. Only who began to watch may go on, so it has a thread.
fn watch(thread: libc::pid_t) -> (Sends, JoinHandle<()>) {
    let sends = Sends::default();
    let (began, begins) = mpsc::channel();
    let view = std::thread::spawn({
        let sends = Arc::clone(&sends);
        move || {
            // SAFETY: seizing and interrupting take no memory; the thread is our child's.
            unsafe {
                let options = libc::PTRACE_O_TRACESYSGOOD as usize;
                let seized = libc::ptrace(libc::PTRACE_SEIZE, thread, 0usize, options);
                assert_eq!(seized, 0, "ptrace: {}", std::io::Error::last_os_error());
                assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0usize, 0usize), 0);
            }
            look_on(thread, &sends, &began);
        }
    });
    begins.recv().expect("the view begins");
    (sends, view)
}

fn look_on(thread: libc::pid_t, sends: &Sends, began: &mpsc::Sender<()>) {
    let mut calls = Calls::new();
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to a local.
        let waited = unsafe { libc::waitpid(thread, &mut status, libc::__WALL) };
        if waited != thread || !libc::WIFSTOPPED(status) {
            return;
        }
        let signal = libc::WSTOPSIG(status);
        let mut pass_on = 0;
        if signal == libc::SIGTRAP | 0x80 {
            if let Some(number) = entered(thread) {
                *calls.entry(number).or_default() += 1;
                if number == libc::SYS_sendto {
                    sends.lock().unwrap().push(calls.clone());
                }
            }
        } else if status >> 16 == 0 {
            pass_on = signal;
        }
        // SAFETY: it takes a number and no memory. The thread may be gone, which waiting tells.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0usize, pass_on as usize) };
        // Nobody waits any more after the first time.
        let _ = began.send(());
    }
}

/// The call that the stopped thread is entering, unless it is leaving one.
fn entered(thread: libc::pid_t) -> Option<libc::c_long> {
    const ENTRY: u8 = 1;
    let mut told = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    // SAFETY: the kernel fills at most the size it is given of a struct that is valid as zeroes;
    // which part of the union it filled, `op` says.
    unsafe {
        let size = size_of::<libc::ptrace_syscall_info>();
        let told_at: *mut libc::c_void = told.as_mut_ptr().cast();
        if libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, told_at) <= 0 {
            return None;
        }
        let told = told.assume_init();
        (told.op == ENTRY).then_some(told.u.entry.nr as libc::c_long)
    }
}
