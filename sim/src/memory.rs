//! The allocator. A world is made of small things that come and go, and the next one needs what the
//! last one had.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`: after so many milliseconds memory that is free goes back to
/// the system. Negative: never.
const PURGE_DELAY: c_int = 15;

unsafe extern "C" {
    /// Of mimalloc: sets an option that the environment does not set.
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// Has memory that a world gives back wait for the next one. What the system takes back it hands
/// out page by page again, each cleared anew.
pub fn keep() {
    // SAFETY: it takes no pointer, and passes over an option that it does not know. No other thread
    // runs yet that could read the option meanwhile.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    fn purge_delay() -> c_long {
        // SAFETY: it takes no pointer, and any number has an answer.
        unsafe { mi_option_get(PURGE_DELAY) }
    }

    /// Of all options only this one begins with a thousand: the number is still its own.
    #[test]
    fn memory_is_kept_unless_the_environment_says_otherwise() {
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
            return;
        }
        assert_eq!(purge_delay(), 1_000);
        keep();
        assert_eq!(purge_delay(), -1);
        let used = vec![7u8; 1 << 22];
        assert!(used.iter().all(|&byte| byte == 7));
    }
}
