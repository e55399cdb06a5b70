//! Who goes first where several threads want one processor: those that a message waits for.

/// How far a thread that makes passwords' hashes stands back, as a nice value: a log-in may wait.
pub const OF_HASHING: i32 = 10;
/// The store's flushing and compacting stands back less: when it falls behind, writing stops.
pub const OF_UPKEEP: i32 = 5;
/// For how long at a time such a thread asks for the processor, in nanoseconds: the longest there
/// is. From Linux 6.12 on, who wakes and asks for less, as all others do, need not wait for the end
/// of it; before, this is ignored.
const SLICE_NS: u64 = 100_000_000;

/// Lets other threads go before the calling one, and before those that it starts.
pub fn stand_back(niceness: i32) {
    let wanted = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: niceness,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes as `size` says; 0 is the calling thread. If it fails
    // the thread keeps its priority, which is no harm.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn niceness() -> i32 {
        // SAFETY: getpriority takes no pointer; on Linux 0 is the calling thread.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn a_thread_and_those_it_starts_stand_back_and_nobody_else() {
        let before = niceness();
        let both = thread::spawn(|| {
            stand_back(OF_HASHING);
            (niceness(), thread::spawn(niceness).join().unwrap())
        });
        assert_eq!(both.join().unwrap(), (OF_HASHING, OF_HASHING));
        assert_eq!(niceness(), before);
    }
}
