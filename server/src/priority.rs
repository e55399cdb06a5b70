//! Who goes first where several threads want one processor: those that a message waits for.

use std::time::Duration;

/// How far a thread that makes passwords' hashes stands back, as a nice value: as far as can be. A
/// log-in may wait, and what a shard owes to a thread it pays a whole tick at a time.
pub const OF_HASHING: i32 = 19;
/// The store's flushing and compacting stands back less: when it falls behind, writing stops.
pub const OF_UPKEEP: i32 = 5;
/// The longest slice there is, and the shortest.
const LONG: Duration = Duration::from_millis(100);
const SHORT: Duration = Duration::from_micros(100);

/// Lets other threads go before the calling one, and before those that it starts.
pub fn stand_back(niceness: i32) {
    ask_for(niceness, LONG);
}

/// Has the calling thread, which does little at a time, run soon after it wakes: it need not wait
/// for the end of a slice that another thread has.
pub fn answer_soon() {
    let niceness = rustix::process::getpriority_process(None).unwrap_or(0);
    ask_for(niceness, SHORT);
}

/// Asks for the processor for so long at a time. From Linux 6.12 on, who wakes and asks for less
/// than who runs goes first; before, the slice is ignored.
fn ask_for(niceness: i32, slice: Duration) {
    let wanted = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: niceness,
        sched_priority: 0,
        sched_runtime: slice.as_nanos() as u64,
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

    /// Niceness and slice in nanoseconds, as the kernel has them.
    fn attributes() -> (i32, u64) {
        let mut found = std::mem::MaybeUninit::<libc::sched_attr>::zeroed();
        let bytes = size_of::<libc::sched_attr>();
        // SAFETY: the kernel fills in at most `bytes`, which `found` has; 0 is the calling thread.
        let done = unsafe {
            libc::syscall(libc::SYS_sched_getattr, 0, found.as_mut_ptr(), bytes as u32, 0)
        };
        assert_eq!(done, 0);
        // SAFETY: all of it was zero before the kernel filled it in, and every bit pattern is one.
        let found = unsafe { found.assume_init() };
        (found.sched_nice, found.sched_runtime)
    }

    #[test]
    fn a_thread_and_those_it_starts_stand_back_and_nobody_else() {
        let before = attributes();
        let both = thread::spawn(|| {
            stand_back(OF_HASHING);
            (attributes().0, thread::spawn(attributes).join().unwrap().0)
        });
        assert_eq!(both.join().unwrap(), (OF_HASHING, OF_HASHING));
        assert_eq!(attributes(), before);
    }

    #[test]
    fn who_answers_soon_keeps_its_niceness() {
        let (niceness, slice) = attributes();
        let soon = thread::spawn(|| {
            answer_soon();
            attributes()
        });
        let soon = soon.join().unwrap();
        assert_eq!(soon.0, niceness);
        // A kernel before 6.12 tells no slice.
        assert!(slice == 0 || soon.1 == SHORT.as_nanos() as u64, "{slice} and {}", soon.1);
        assert!(soon.1 <= slice);
    }
}
