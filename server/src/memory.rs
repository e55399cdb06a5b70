//! The allocator, and giving pages that are free back to the system once it is quiet.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    /// Of mimalloc: gives back what is free in the calling thread's heap.
    fn mi_collect(force: bool);
}

/// For each thread that allocated much: what is free in its heap goes back.
pub fn give_back_of_thread() {
    // SAFETY: it may be called by any thread at any time.
    unsafe { mi_collect(true) };
}

/// What is free in the system's heap goes back: the store is not written in Rust, and allocates
/// there.
pub fn give_back_of_system_heap() {
    // SAFETY: it may be called by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_in_use_stays() {
        let used = vec![7u8; 1 << 20];
        super::give_back_of_thread();
        super::give_back_of_system_heap();
        assert!(used.iter().all(|&byte| byte == 7));
    }
}
