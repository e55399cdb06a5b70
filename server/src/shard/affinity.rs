//! Which processors this process may run on, and staying on one of them.

use std::mem::MaybeUninit;

/// The numbers of the processors that this process may run on, ascending; never empty.
pub fn processors() -> Vec<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most the size it is given; 0 is the calling thread. A set of
    // zeroes is a valid one.
    let set = unsafe {
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
        set.assume_init()
    };
    // SAFETY: the index is below the size of the set.
    let allowed = |&processor: &usize| unsafe { libc::CPU_ISSET(processor, &set) };
    let allowed: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(allowed).collect();
    // With more processors than the set has bits the call fails; one is always there.
    if allowed.is_empty() { vec![0] } else { allowed }
}

/// Keeps the calling thread on a processor. A system that forbids it is left alone: it only
/// costs speed.
pub fn pin(processor: usize) {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: a set of zeroes is valid; CPU_SET ignores an index beyond the set; the kernel reads
    // the size it is given.
    let failed = unsafe {
        libc::CPU_SET(processor, set.assume_init_mut());
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set.as_ptr()) != 0
    };
    if failed {
        let error = std::io::Error::last_os_error();
        tracing::warn!(processor, %error, "a thread could not be pinned");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_run_on_one_processor() {
        let all = processors();
        assert!(!all.is_empty());
        let last = all[all.len() - 1];
        let pinned = std::thread::spawn(move || {
            pin(last);
            processors()
        });
        assert_eq!(pinned.join().unwrap(), [last]);
        assert_eq!(processors(), all);
    }
}
